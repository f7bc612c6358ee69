//! What the kernels' tests share: reproducible numbers, a distance, pools of threads.

/// `len` numbers between -1 and 1, the same for the same seed.
pub(crate) fn numbers(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Holds the relative L2 distance to 1e-6.
#[track_caller]
pub(crate) fn assert_close(got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len());
    let distance: f64 = got.iter().zip(want).map(|(g, w)| (f64::from(*g) - w).powi(2)).sum();
    let norm: f64 = want.iter().map(|w| w * w).sum();
    let relative = (distance / norm.max(f64::MIN_POSITIVE)).sqrt();
    assert!(relative <= 1e-6, "relative L2 distance {relative:e}");
}

/// Runs `work` on 1 and on 3 threads, holds the results to be the same bits, and returns one.
#[track_caller]
pub(crate) fn on_pools(work: impl Fn() -> Vec<f32> + Sync) -> Vec<f32> {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&work)
    };
    let (one, three) = (run(1), run(3));
    assert!(one.iter().zip(&three).all(|(a, b)| a.to_bits() == b.to_bits()), "thread count matters");
    one
}
