//! One allocator for both parts: the C library's.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;

unsafe extern "C" {
    fn aligned_alloc(align: usize, size: usize) -> *mut c_void;
    fn malloc(size: usize) -> *mut c_void;
    fn realloc(at: *mut c_void, size: usize) -> *mut c_void;
    fn free(at: *mut c_void);
}

/// What the C library aligns everything to.
const ALIGNED: usize = 16;

struct OfC;

// SAFETY: the C library's allocator keeps what Rust asks for: blocks of at least that size, so aligned, and apart.
unsafe impl GlobalAlloc for OfC {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller promises for its layout; C wants the size to be a multiple of an alignment it does not
        // have by itself.
        unsafe {
            if layout.align() <= ALIGNED {
                malloc(layout.size()).cast()
            } else {
                aligned_alloc(layout.align(), layout.pad_to_align().size()).cast()
            }
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, _layout: Layout) {
        // SAFETY: it came from the same allocator.
        unsafe { free(at.cast()) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: it came from the same allocator; what needs more alignment than C gives is moved by hand.
        unsafe {
            if layout.align() <= ALIGNED {
                return realloc(at.cast(), size).cast();
            }
            let moved = aligned_alloc(layout.align(), size.next_multiple_of(layout.align())).cast::<u8>();
            if !moved.is_null() {
                moved.copy_from_nonoverlapping(at, layout.size().min(size));
                free(at.cast());
            }
            moved
        }
    }
}

#[global_allocator]
static ALLOCATOR: OfC = OfC;
