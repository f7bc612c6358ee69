//! Scaled dot-product attention, `softmax(q * k^T * scale + mask) * v`, in blocks of queries.
//!
//! The ONNX form is `MatMul`, `Mul`, `Add`, `Softmax`, `MatMul`; see also
//! <https://onnx.ai/onnx/operators/onnx__Attention.html>. Scores never exist as a matrix: a task
//! takes up to 128 queries of one head and walks over the keys in chunks, with a running maximum
//! and sum (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018). Scores are
//! held with a key per row and a query per column, so that every reduction runs down a column.

use fearless_simd::Simd;
use rayon::prelude::*;

use super::math::exp;
use super::tile::{COLS, Lhs, ROWS, Span, step, tile, vectorized};
use super::{KernelError, check, scratch, transpose};

/// Queries of a task.
const QUERIES: usize = 128;
/// Keys of a chunk.
const KEYS: usize = 512;

/// How queries, keys, values and the output are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Layout {
    /// `[batch, heads, length, width]`.
    HeadsFirst,
    /// As `HeadsFirst`, but keys are `[batch, heads, width, length]`.
    KeysTransposed,
    /// `[batch, length, heads * width]`.
    HeadsLast,
}

/// The shape of an attention.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct AttentionShape {
    /// Batch size.
    pub(crate) batch: usize,
    /// Heads.
    pub(crate) heads: usize,
    /// Queries.
    pub(crate) queries: usize,
    /// Keys and values.
    pub(crate) keys: usize,
    /// Width of one head.
    pub(crate) width: usize,
    /// Factor of the scores.
    pub(crate) scale: f32,
    /// Order of the axes.
    pub(crate) layout: Layout,
}

/// The operands of an attention.
#[derive(Clone, Copy)]
pub(crate) struct Operands<'a> {
    /// Queries.
    pub(crate) q: &'a [f32],
    /// Keys.
    pub(crate) k: &'a [f32],
    /// Values.
    pub(crate) v: &'a [f32],
    /// Added to the scores of every head: `[queries, keys]`.
    pub(crate) mask: Option<&'a [f32]>,
}

/// Sees scores before the mask, some at a time.
pub(crate) type See<'a> = &'a (dyn Fn(&[f32]) + Sync);

/// Computes attention to `y`, laid out as the queries. `see` is shown every score once, in no order, from several threads.
pub(crate) fn attention(
    shape: &AttentionShape,
    operands: Operands,
    see: Option<See<'_>>,
    y: &mut [f32],
) -> Result<(), KernelError> {
    let AttentionShape { batch, heads, queries, keys, width, .. } = *shape;
    let (q_len, k_len) = (batch * heads * queries * width, batch * heads * keys * width);
    check("queries of an attention", q_len, operands.q.len())?;
    check("keys of an attention", k_len, operands.k.len())?;
    check("values of an attention", k_len, operands.v.len())?;
    check("mask of an attention", queries * keys, operands.mask.map_or(queries * keys, <[f32]>::len))?;
    check("output of an attention", q_len, y.len())?;
    if y.is_empty() || keys == 0 {
        y.fill(0.0);
        return Ok(());
    }
    let strip = (2 * width + KEYS.min(keys)) * COLS;
    tasks(shape, y).into_par_iter().for_each(|mut task| {
        scratch::with(task.rows.len().div_ceil(COLS) * strip, |buffer| {
            vectorized!(simd => run(simd, shape, operands, see, &mut task, buffer));
        });
    });
    Ok(())
}

/// Some queries of one head.
struct Task<'y> {
    /// Index in the batch.
    batch: usize,
    /// The head.
    head: usize,
    /// First query.
    first: usize,
    /// The output of each query.
    rows: Vec<&'y mut [f32]>,
}

/// Cuts the output into tasks.
fn tasks<'y>(shape: &AttentionShape, y: &'y mut [f32]) -> Vec<Task<'y>> {
    let AttentionShape { batch, heads, queries, width, .. } = *shape;
    let across = queries.div_ceil(QUERIES);
    let mut tasks: Vec<Task> = (0..batch * heads * across)
        .map(|i| Task {
            batch: i / across / heads,
            head: i / across % heads,
            first: i % across * QUERIES,
            rows: Vec::with_capacity(QUERIES.min(queries)),
        })
        .collect();
    for (i, row) in y.chunks_mut(width).enumerate() {
        let (b, h, q) = match shape.layout {
            Layout::HeadsLast => (i / heads / queries, i % heads, i / heads % queries),
            _ => (i / queries / heads, i / queries % heads, i % queries),
        };
        tasks[(b * heads + h) * across + q / QUERIES].rows.push(row);
    }
    tasks
}

impl AttentionShape {
    /// Offset of the first element of a head in a tensor of this many rows, and the distance
    /// between rows.
    fn rows(&self, length: usize, batch: usize, head: usize) -> (usize, usize) {
        match self.layout {
            Layout::HeadsLast => {
                let stride = self.heads * self.width;
                (batch * length * stride + head * self.width, stride)
            }
            _ => ((batch * self.heads + head) * length * self.width, self.width),
        }
    }
}

/// One task: packs its queries, then folds in the keys chunk by chunk.
#[inline(always)]
fn run<S: Simd>(
    simd: S,
    shape: &AttentionShape,
    operands: Operands,
    see: Option<See<'_>>,
    task: &mut Task,
    buffer: &mut [f32],
) {
    let strips = task.rows.len().div_ceil(COLS);
    let chunk = KEYS.min(shape.keys);
    let (q_len, s_len) = (shape.width * COLS, chunk * COLS);
    let (q, rest) = buffer.split_at_mut(strips * q_len);
    let (sums, scores) = rest.split_at_mut(strips * q_len);
    sums.fill(0.0);
    pack_queries(simd, shape, operands.q, task, q);
    let mut states = [State::new(); QUERIES / COLS];
    for start in (0..shape.keys).step_by(chunk) {
        let depth = chunk.min(shape.keys - start);
        score(simd, shape, operands.k, task, (start, depth), q, scores);
        if let Some(see) = see {
            show(see, task.rows.len(), depth, s_len, scores);
        }
        for (i, state) in states.iter_mut().enumerate().take(strips) {
            let scores = &mut scores[i * s_len..][..depth * COLS];
            if let Some(mask) = operands.mask {
                let first = task.first + i * COLS;
                let count = COLS.min(task.rows.len() - i * COLS);
                add_mask(&mask[first * shape.keys + start..], shape.keys, count, scores);
            }
            state.normalize(scores, &mut sums[i * q_len..(i + 1) * q_len]);
        }
        weigh(simd, shape, operands.v, task, (start, depth), scores, sums);
    }
    finish(task, &states, sums, q_len);
}

/// The running maximum and sum of each query of a strip.
#[derive(Clone, Copy)]
struct State {
    max: [f32; COLS],
    sum: [f32; COLS],
}

impl State {
    /// Before any key.
    fn new() -> Self {
        Self { max: [f32::MIN; COLS], sum: [0.0; COLS] }
    }

    /// Turns scores into weights relative to the new maximum, and rescales what was summed so far.
    #[inline(always)]
    fn normalize(&mut self, scores: &mut [f32], sums: &mut [f32]) {
        let (rows, _) = scores.as_chunks_mut::<COLS>();
        let mut max = self.max;
        for row in rows.iter() {
            for (max, score) in max.iter_mut().zip(row) {
                *max = if *score > *max { *score } else { *max };
            }
        }
        let mut factor = [0.0; COLS];
        for ((factor, old), new) in factor.iter_mut().zip(&self.max).zip(&max) {
            *factor = exp(old - new);
        }
        let mut sum = [0.0; COLS];
        for row in rows {
            for ((score, max), sum) in row.iter_mut().zip(&max).zip(&mut sum) {
                *score = exp(*score - max);
                *sum += *score;
            }
        }
        for ((total, part), factor) in self.sum.iter_mut().zip(&sum).zip(&factor) {
            *total = *total * factor + part;
        }
        for row in sums.as_chunks_mut::<COLS>().0 {
            for (value, factor) in row.iter_mut().zip(&factor) {
                *value *= factor;
            }
        }
        self.max = max;
    }
}

/// Packs the task's queries, scaled, as strips `[width, 32]`.
#[inline(always)]
fn pack_queries<S: Simd>(simd: S, shape: &AttentionShape, q: &[f32], task: &Task, out: &mut [f32]) {
    let (base, stride) = shape.rows(shape.queries, task.batch, task.head);
    for (i, strip) in out.chunks_exact_mut(shape.width * COLS).enumerate() {
        let first = task.first + i * COLS;
        let rows = COLS.min(task.rows.len() - i * COLS);
        transpose::strip(simd, &q[base + first * stride..], stride, rows, strip);
        for value in strip {
            *value *= shape.scale;
        }
    }
}

/// Scores of a chunk of keys, strip after strip, a row for each key.
#[inline(always)]
fn score<S: Simd>(
    simd: S,
    shape: &AttentionShape,
    k: &[f32],
    task: &Task,
    (start, count): (usize, usize),
    q: &[f32],
    scores: &mut [f32],
) {
    let (base, stride) = shape.rows(shape.keys, task.batch, task.head);
    let lhs = match shape.layout {
        Layout::KeysTransposed => Lhs::Cols { data: &k[base..], stride: shape.keys },
        _ => Lhs::Rows { data: &k[base..], stride },
    };
    let pitch = KEYS.min(shape.keys) * COLS;
    let mut row = 0;
    while row < count {
        let height = step(count - row);
        let span = Span { row: start + row, start: 0, depth: shape.width, cols: COLS };
        let strips = q.chunks_exact(shape.width * COLS).zip(scores.chunks_exact_mut(pitch));
        for (q, scores) in strips {
            tile(simd, lhs, height, span, q, &mut scores[row * COLS..(row + height) * COLS]);
        }
        row += height;
    }
}

/// Shows the scores of a chunk, strips of which lie `pitch` apart; columns of no query are left out.
fn show(see: See<'_>, queries: usize, depth: usize, pitch: usize, scores: &[f32]) {
    if queries.is_multiple_of(COLS) && depth * COLS == pitch {
        return see(&scores[..queries / COLS * pitch]);
    }
    for (i, strip) in scores.chunks(pitch).enumerate().take(queries.div_ceil(COLS)) {
        let cols = COLS.min(queries - i * COLS);
        let rows = strip[..depth * COLS].chunks(COLS);
        see(&rows.flat_map(|row| &row[..cols]).copied().collect::<Vec<f32>>());
    }
}

/// Adds the mask to a strip's scores; `mask` starts at the first query's first key.
#[inline(always)]
fn add_mask(mask: &[f32], pitch: usize, queries: usize, scores: &mut [f32]) {
    for (k, row) in scores.chunks_exact_mut(COLS).enumerate() {
        for (q, score) in row.iter_mut().take(queries).enumerate() {
            *score += mask[q * pitch + k];
        }
    }
}

/// Adds the chunk's weighted values to the sums, strip after strip `[width, 32]`.
#[inline(always)]
fn weigh<S: Simd>(
    simd: S,
    shape: &AttentionShape,
    v: &[f32],
    task: &Task,
    (start, count): (usize, usize),
    weights: &[f32],
    sums: &mut [f32],
) {
    let (base, stride) = shape.rows(shape.keys, task.batch, task.head);
    let lhs = Lhs::Cols { data: &v[base..], stride };
    let pitch = KEYS.min(shape.keys) * COLS;
    let mut out = [0.0; ROWS * COLS];
    let mut row = 0;
    while row < shape.width {
        let height = step(shape.width - row);
        let span = Span { row, start, depth: count, cols: COLS };
        let strips = weights.chunks_exact(pitch).zip(sums.chunks_exact_mut(shape.width * COLS));
        for (weights, sums) in strips {
            tile(simd, lhs, height, span, weights, &mut out);
            for (sum, value) in sums[row * COLS..(row + height) * COLS].iter_mut().zip(&out) {
                *sum += value;
            }
        }
        row += height;
    }
}

/// Divides by the sum of the weights and turns the strips into the output's rows.
#[inline(always)]
fn finish(task: &mut Task, states: &[State], sums: &[f32], pitch: usize) {
    for (j, row) in task.rows.iter_mut().enumerate() {
        let (strip, col) = (j / COLS, j % COLS);
        let sums = &sums[strip * pitch + col..];
        let total = states[strip].sum[col];
        for (i, y) in row.iter_mut().enumerate() {
            *y = sums[i * COLS] / total;
        }
    }
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "these results are exact")]
mod tests {
    use super::*;
    use crate::kernels::testing::{assert_close, numbers, on_pools};

    /// Attention by its definition, in `f64`; offsets of (batch, head, row, column) by closures.
    fn twin(shape: &AttentionShape, operands: Operands) -> Vec<f64> {
        let AttentionShape { batch, heads, queries, keys, width, .. } = *shape;
        let at = |length: usize, b: usize, h: usize, row: usize, col: usize| match shape.layout {
            Layout::HeadsLast => ((b * length + row) * heads + h) * width + col,
            _ => ((b * heads + h) * length + row) * width + col,
        };
        let key = |b: usize, h: usize, row: usize, col: usize| match shape.layout {
            Layout::KeysTransposed => ((b * heads + h) * width + col) * keys + row,
            _ => at(keys, b, h, row, col),
        };
        let mut y = vec![0.0; batch * heads * queries * width];
        for i in 0..batch * heads * queries {
            let (b, h, q) = (i / queries / heads, i / queries % heads, i % queries);
            let score = |k: usize| {
                let product =
                    |c: usize| f64::from(operands.q[at(queries, b, h, q, c)]) * f64::from(operands.k[key(b, h, k, c)]);
                let mask = operands.mask.map_or(0.0, |mask| f64::from(mask[q * keys + k]));
                (0..width).map(product).sum::<f64>() * f64::from(shape.scale) + mask
            };
            let scores: Vec<f64> = (0..keys).map(score).collect();
            let max = scores.iter().copied().fold(f64::MIN, f64::max);
            let total: f64 = scores.iter().map(|score| (score - max).exp()).sum();
            for c in 0..width {
                let value = |k: usize| f64::from(operands.v[at(keys, b, h, k, c)]);
                let sum: f64 = (0..keys).map(|k| (scores[k] - max).exp() * value(k)).sum();
                y[at(queries, b, h, q, c)] = sum / total;
            }
        }
        y
    }

    /// Compares with the twin: batch, heads, queries, keys, width.
    fn check_attention([batch, heads, queries, keys, width]: [usize; 5], layout: Layout, causal: bool) {
        let shape = AttentionShape { batch, heads, queries, keys, width, scale: 1.7, layout };
        let q = numbers(1, batch * heads * queries * width);
        let k = numbers(2, batch * heads * keys * width);
        let v = numbers(3, batch * heads * keys * width);
        let hidden = |i: usize| if i % keys > i / keys { f32::NEG_INFINITY } else { 0.0 };
        let mask: Vec<f32> = (0..queries * keys).map(hidden).collect();
        let operands = Operands { q: &q, k: &k, v: &v, mask: causal.then_some(&mask) };
        let got = on_pools(|| {
            let mut y = vec![f32::NAN; q.len()];
            attention(&shape, operands, None, &mut y).unwrap();
            y
        });
        assert_close(&got, &twin(&shape, operands));
    }

    #[test]
    fn every_layout_agrees_with_its_twin() {
        for layout in [Layout::HeadsFirst, Layout::KeysTransposed, Layout::HeadsLast] {
            check_attention([2, 3, 130, 77, 40], layout, false);
            check_attention([1, 2, 33, 1100, 9], layout, false);
            check_attention([1, 1, 1, 1, 1], layout, false);
            check_attention([1, 2, 77, 77, 64], layout, true);
        }
    }

    #[test]
    fn every_score_is_seen_once() {
        for (queries, keys) in [(128, 512), (160, 600), (77, 77), (5, 1100)] {
            let (heads, width) = (2, 9);
            let layout = Layout::HeadsFirst;
            let shape = AttentionShape { batch: 1, heads, queries, keys, width, scale: 1.7, layout };
            let q = numbers(1, heads * queries * width);
            let [k, v] = [2, 3].map(|seed| numbers(seed, heads * keys * width));
            let seen = std::sync::Mutex::new(Vec::new());
            let see = |scores: &[f32]| seen.lock().unwrap().extend_from_slice(scores);
            let (mut y, mut unseen) = (vec![0.0; q.len()], vec![0.0; q.len()]);
            attention(&shape, Operands { q: &q, k: &k, v: &v, mask: None }, Some(&see), &mut y).unwrap();
            attention(&shape, Operands { q: &q, k: &k, v: &v, mask: None }, None, &mut unseen).unwrap();
            assert_eq!(y, unseen);
            let dot = |(q, k): (&[f32], &[f32])| q.iter().zip(k).map(|(q, k)| f64::from(q * k)).sum::<f64>() * 1.7;
            let mut want: Vec<f64> = (0..heads * queries * keys)
                .map(|i| (i / keys, i / keys / queries * keys + i % keys))
                .map(|(row, key)| dot((&q[row * width..][..width], &k[key * width..][..width])))
                .collect();
            let mut got = seen.into_inner().unwrap();
            got.sort_by(f32::total_cmp);
            want.sort_by(f64::total_cmp);
            assert_close(&got, &want);
        }
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let (q, k, v) = ([300.0], [300.0, -300.0], [1.0, 2.0]);
        let shape = AttentionShape {
            batch: 1,
            heads: 1,
            queries: 1,
            keys: 2,
            width: 1,
            scale: 1.0,
            layout: Layout::HeadsFirst,
        };
        let mut y = [0.0];
        attention(&shape, Operands { q: &q, k: &k, v: &v, mask: None }, None, &mut y).unwrap();
        assert_eq!(y, [1.0]);
    }
}
