//! Memory of a module.
//!
//! A call is all the life a module has: it begins with fresh memory, and all of it goes when the call ends. So room is
//! handed out one piece behind the other, and only the last piece can be given back or grow where it is. The first 64 KiB
//! lie in the memory that a module has from its start: most calls never ask for more, which spares the host to change the
//! protection of pages for every call.

const PAGE_BYTES: usize = 64 << 10;

/// Where the next piece goes. Addresses, no pointers: what is done with them is the caller's.
#[derive(Debug, Default)]
struct Room {
    next: usize,
    end: usize,
}

impl Room {
    /// A place for `bytes`; more memory comes from `grow`, which is told how many pages are wanted and says where they
    /// begin. `None` when there is no more.
    fn place(
        &mut self,
        bytes: usize,
        align: usize,
        mut grow: impl FnMut(usize) -> Option<usize>,
    ) -> Option<usize> {
        let fits = |room: &Self| {
            let at = room.next.checked_add(align - 1)? & !(align - 1);
            let after = at.checked_add(bytes)?;
            (after <= room.end).then_some((at, after))
        };
        let (at, after) = match fits(self) {
            Some(found) => found,
            None => {
                let pages = bytes.checked_add(align)?.div_ceil(PAGE_BYTES);
                let start = grow(pages)?;
                if start != self.end {
                    // What is left before it is too small, and lost.
                    self.next = start;
                }
                self.end = start + pages * PAGE_BYTES;
                fits(self)?
            }
        };
        self.next = after;
        Some(at)
    }

    /// Takes a piece back, if it is the last.
    fn give_back(&mut self, at: usize, bytes: usize) {
        if at + bytes == self.next {
            self.next = at;
        }
    }

    /// Whether a piece has become as large as that where it is: the last one can.
    fn resize(&mut self, at: usize, bytes: usize, wanted: usize) -> bool {
        let fits = at.checked_add(wanted).filter(|after| *after <= self.end);
        match fits {
            Some(after) if at + bytes == self.next => {
                self.next = after;
                true
            }
            _ => wanted <= bytes,
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod global {
    use super::{PAGE_BYTES, Room};
    use core::alloc::{GlobalAlloc, Layout};
    use core::cell::UnsafeCell;

    const FIRST_BYTES: usize = 64 << 10;

    #[repr(C, align(16))]
    struct First(UnsafeCell<[u8; FIRST_BYTES]>);

    // SAFETY: a module has one thread.
    unsafe impl Sync for First {}

    static FIRST: First = First(UnsafeCell::new([0; FIRST_BYTES]));

    struct OneCall(UnsafeCell<Room>);

    // SAFETY: a module has one thread.
    unsafe impl Sync for OneCall {}

    #[global_allocator]
    static ALLOCATOR: OneCall = OneCall(UnsafeCell::new(Room { next: 0, end: 0 }));

    impl OneCall {
        /// The room; at first it is that of the module's own memory.
        ///
        /// # Safety
        /// Nobody else may hold it: it is used within one function of the allocator, none of which calls another one
        /// while it does.
        #[allow(clippy::mut_from_ref, reason = "one thread, and see above")]
        unsafe fn room(&self) -> &mut Room {
            // SAFETY: by the caller.
            let room = unsafe { &mut *self.0.get() };
            if room.end == 0 {
                room.next = FIRST.0.get() as usize;
                room.end = room.next + FIRST_BYTES;
            }
            room
        }
    }

    fn grow(pages: usize) -> Option<usize> {
        let before = core::arch::wasm32::memory_grow::<0>(pages);
        (before != usize::MAX).then(|| before * PAGE_BYTES)
    }

    // SAFETY: pieces lie in FIRST or in pages that this allocator asked for, one behind the other, so no two overlap; a
    // piece that is given back was the last.
    unsafe impl GlobalAlloc for OneCall {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            // SAFETY: used here alone.
            let room = unsafe { self.room() };
            room.place(layout.size(), layout.align(), grow).map_or(core::ptr::null_mut(), |at| at as *mut u8)
        }

        unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
            // SAFETY: used here alone.
            unsafe { self.room() }.give_back(piece as usize, layout.size());
        }

        unsafe fn realloc(&self, piece: *mut u8, layout: Layout, wanted: usize) -> *mut u8 {
            // SAFETY: used here alone.
            if unsafe { self.room() }.resize(piece as usize, layout.size(), wanted) {
                return piece;
            }
            // SAFETY: the caller vouches for size and alignment.
            let moved = unsafe { self.alloc(Layout::from_size_align_unchecked(wanted, layout.align())) };
            if !moved.is_null() {
                // SAFETY: both are pieces of at least so many bytes, and do not overlap.
                unsafe { core::ptr::copy_nonoverlapping(piece, moved, layout.size().min(wanted)) };
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none(_pages: usize) -> Option<usize> {
        None
    }

    #[test]
    fn pieces_lie_behind_each_other_and_keep_their_alignment() {
        let mut room = Room { next: 1_001, end: 2_000 };
        let first = room.place(10, 8, none).unwrap();
        let second = room.place(3, 1, none).unwrap();
        let third = room.place(16, 16, none).unwrap();
        assert_eq!((first, second, third), (1_008, 1_018, 1_024));
        assert_eq!(room.place(1_000, 1, none), None, "no more is to be had");
        assert_eq!(room.place(960, 1, none), Some(1_040), "what is left is still there");
    }

    #[test]
    fn the_last_piece_can_be_given_back_or_grow_and_any_other_stays() {
        let mut room = Room { next: 0, end: 100 };
        let first = room.place(10, 1, none).unwrap();
        let second = room.place(10, 1, none).unwrap();
        room.give_back(first, 10);
        assert_eq!(room.next, 20, "another one lies behind it");
        assert!(!room.resize(first, 10, 11), "it must move");
        assert!(room.resize(first, 10, 5), "it needs no more than it has");
        assert!(room.resize(second, 10, 90));
        assert!(!room.resize(second, 90, 91), "there is no more room");
        room.give_back(second, 90);
        assert_eq!(room.next, 10);
    }

    #[test]
    fn more_memory_goes_on_where_the_last_ended_and_begins_anew_where_it_does_not() {
        let mut room = Room { next: 90, end: 100 };
        assert_eq!(room.place(50, 1, |pages| (pages == 1).then_some(100)), Some(90));
        assert_eq!(room.end, 100 + PAGE_BYTES);
        let mut room = Room { next: 90, end: 100 };
        let far = 4 * PAGE_BYTES;
        assert_eq!(room.place(PAGE_BYTES, 16, |pages| (pages == 2).then_some(far)), Some(far));
        assert_eq!((room.next, room.end), (far + PAGE_BYTES, far + 2 * PAGE_BYTES));
    }

    #[test]
    fn sizes_that_no_memory_holds_are_refused_and_change_nothing() {
        let mut room = Room { next: 8, end: 100 };
        assert_eq!(room.place(usize::MAX - 4, 8, none), None);
        assert!(!room.resize(0, 8, usize::MAX));
        assert_eq!((room.next, room.end), (8, 100));
    }
}
