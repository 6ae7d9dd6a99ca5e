//! An allocator that counts what the thread asks for, and has.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counted.
pub struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
    /// What was given back by another thread than asked for it makes this wrong: whoever asks has one.
    static LIVE_BYTES: Cell<i64> = const { Cell::new(0) };
}

fn grow(bytes: usize) {
    LIVE_BYTES.set(LIVE_BYTES.get() + bytes as i64);
}

fn shrink(bytes: usize) {
    LIVE_BYTES.set(LIVE_BYTES.get() - bytes as i64);
}

// SAFETY: every call goes to the system's allocator as it came; counting touches a thread-local without a destructor,
// which allocates nothing.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        shrink(layout.size());
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        grow(size);
        shrink(layout.size());
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// How often `work` asks for memory.
pub fn allocations<T>(work: impl FnOnce() -> T) -> u64 {
    let before = COUNT.get();
    let result = work();
    let count = COUNT.get() - before;
    drop(result);
    count
}

/// Octets that this thread has asked for and not given back.
#[allow(dead_code)] // Not every user asks.
pub fn live_bytes() -> i64 {
    LIVE_BYTES.get()
}
