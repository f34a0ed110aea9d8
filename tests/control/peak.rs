//! A global allocator that knows the most memory a thread has held.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// To be made the `#[global_allocator]`.
pub struct PeakAlloc;

thread_local! {
    /// Bytes this thread has taken and not given back; what it gives back for others counts too.
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

/// From here on the peak of this thread is counted anew.
pub fn reset() {
    PEAK.set(HELD.get());
}

/// Bytes this thread has held at most since then, more than now.
pub fn peak_over_now() -> i64 {
    PEAK.get() - HELD.get()
}

fn count(bytes: i64) {
    // A thread that ends gives back too, when nobody counts any more.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for PeakAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes as i64 - layout.size() as i64);
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        unsafe { System.dealloc(at, layout) }
    }
}
