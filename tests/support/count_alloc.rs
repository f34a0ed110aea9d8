//! A global allocator that counts, thread by thread, so that tests may run side by side.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// To be made the `#[global_allocator]` of a test crate.
pub struct CountAlloc;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static IS_WATCHED: Cell<bool> = const { Cell::new(false) };
}

/// How often threads that are watched have allocated.
static WATCHED: AtomicU64 = AtomicU64::new(0);

/// From here on other threads can tell how often this one allocates.
#[allow(dead_code, reason = "not every crate of tests has more than one thread")]
pub fn watch_this_thread() {
    IS_WATCHED.set(true);
}

/// How often threads that are watched have allocated so far.
#[allow(dead_code, reason = "not every crate of tests has more than one thread")]
pub fn watched_allocations() -> u64 {
    WATCHED.load(Ordering::Relaxed)
}

/// Runs `action`; what it gave, and how often this thread allocated meanwhile.
#[allow(dead_code, reason = "not every crate of tests counts what it does itself")]
pub fn allocations_of<T>(action: impl FnOnce() -> T) -> (u64, T) {
    let before = ALLOCATIONS.get();
    let result = action();
    (ALLOCATIONS.get() - before, result)
}

fn count() {
    // A thread that ends allocates too, when nobody counts any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
    if IS_WATCHED.try_with(Cell::get) == Ok(true) {
        WATCHED.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for CountAlloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count();
        unsafe { System.realloc(at, layout, bytes) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        unsafe { System.dealloc(at, layout) }
    }
}
