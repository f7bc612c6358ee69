//! Temporary buffers that live as long as their thread, so that a call does not pay for fresh pages.

use std::cell::RefCell;

thread_local! {
    static BUFFER: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Buffers longer than this many floats are not kept after use.
const KEEP: usize = 4 << 20;

/// Calls `work` with a buffer of `len` floats whose contents are arbitrary.
///
/// A nested call gets a buffer of its own.
pub(super) fn with<R>(len: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    BUFFER.with(|cell| {
        let mut buffer = cell.try_borrow_mut().map(|mut kept| std::mem::take(&mut *kept)).unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len, 0.0);
        }
        let result = work(&mut buffer[..len]);
        if buffer.len() <= KEEP
            && let Ok(mut kept) = cell.try_borrow_mut()
            && kept.len() < buffer.len()
        {
            *kept = buffer;
        }
        result
    })
}
