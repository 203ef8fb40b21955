//! An allocator in front of another, for small blocks: those that are given back are kept, by size, for whoever wants one of that
//! size next. Most of what a callback has made, whether the gateway hands it over or the filter asks for it, is small and soon given
//! back, and an allocator that splits and joins what is free takes several times as long.
//!
//! The gateway takes such blocks by itself where it has something to hand over, since a call to have that done takes longer than all
//! the rest. So how the lists lie in memory is a part of what the two agree on (decision 0016 in the project's `docs/decisions`).
#![expect(unsafe_code, reason = "an allocator hands out memory")]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::Cell,
    ptr,
};

/// The sizes of blocks that are kept: 16, 32, 64, 128 and 256 bytes.
const CLASSES: usize = 5;
const SMALLEST: usize = 16;
/// What blocks of all classes are aligned to.
const ALIGNMENT: usize = 8;
/// Blocks of a class that are kept: more than one callback has in its hands.
const KEPT: usize = 32;

/// Free blocks in front of another allocator.
#[repr(C)]
pub(crate) struct FreeLists<A> {
    lists: [List; CLASSES],
    beyond: A,
}

/// Free blocks of one class; the last one that was given back is the next that is taken.
#[repr(C)]
struct List {
    count: Cell<usize>,
    blocks: [Cell<*mut u8>; KEPT],
}

// What the gateway reads and writes.
#[cfg(target_arch = "wasm32")]
const _: () = assert!(size_of::<List>() == 4 + 4 * KEPT && size_of::<[List; CLASSES]>() == CLASSES * size_of::<List>());

// SAFETY: a filter has one thread.
#[cfg(target_arch = "wasm32")]
unsafe impl<A: Sync> Sync for FreeLists<A> {}

impl List {
    const fn empty() -> Self {
        Self { count: Cell::new(0), blocks: [const { Cell::new(ptr::null_mut()) }; KEPT] }
    }

    fn take(&self) -> Option<*mut u8> {
        let last = self.count.get().checked_sub(1)?;
        self.count.set(last);
        Some(self.blocks[last].get())
    }

    /// Whether there is room for it.
    fn keep(&self, block: *mut u8) -> bool {
        let count = self.count.get();
        let Some(place) = self.blocks.get(count) else { return false };
        place.set(block);
        self.count.set(count + 1);
        true
    }
}

impl<A> FreeLists<A> {
    pub(crate) const fn before(beyond: A) -> Self {
        Self { lists: [const { List::empty() }; CLASSES], beyond }
    }
}

/// The class of a block of this layout, and what all blocks of the class are; none for what is large.
fn class(layout: Layout) -> Option<(usize, Layout)> {
    if layout.align() > ALIGNMENT {
        return None;
    }
    let size = layout.size().max(SMALLEST).checked_next_power_of_two()?;
    let class = (size.trailing_zeros() - SMALLEST.trailing_zeros()) as usize;
    Some((class, Layout::from_size_align(size, ALIGNMENT).ok()?)).filter(|(class, _)| *class < CLASSES)
}

// SAFETY: a block's layout says which class it is of, if any, so that it goes back to where it came from. All blocks of a class are
// those of `beyond` with the same layout, which is as large and as aligned as any of the class. What is in a list is in nobody's hands:
// it got there as it was given back, and leaves it as it is taken.
unsafe impl<A: GlobalAlloc> GlobalAlloc for FreeLists<A> {
    // One of each is enough: in line they made modules a sixth larger, and hardly faster.
    #[inline(never)]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match class(layout) {
            // SAFETY: no class is of nothing.
            Some((class, whole)) => self.lists[class].take().unwrap_or_else(|| unsafe { self.beyond.alloc(whole) }),
            // SAFETY: as the caller has it.
            None => unsafe { self.beyond.alloc(layout) },
        }
    }

    #[inline(never)]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match class(layout) {
            Some((class, _)) if self.lists[class].keep(block) => {}
            // SAFETY: a block of a class was taken from there with the layout of its class.
            Some((_, whole)) => unsafe { self.beyond.dealloc(block, whole) },
            // SAFETY: as the caller has it.
            None => unsafe { self.beyond.dealloc(block, layout) },
        }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller sees to it that the size does not overflow, and the alignment is one.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class(layout), class(wanted)) {
            // SAFETY: as the caller has it.
            (None, None) => unsafe { self.beyond.realloc(block, layout, size) },
            (Some((there, _)), Some((then, _))) if there == then => block,
            // SAFETY: the two are different blocks, each at least as large as what is copied.
            _ => unsafe {
                let other = self.alloc(wanted);
                if !other.is_null() {
                    ptr::copy_nonoverlapping(block, other, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                other
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::alloc::System;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// The system's, which counts the blocks that are out.
    #[derive(Default)]
    struct Counted(Cell<usize>);

    // SAFETY: it is the system's.
    unsafe impl GlobalAlloc for Counted {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            self.0.set(self.0.get() + 1);
            // SAFETY: as the caller has it.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
            self.0.set(self.0.get() - 1);
            // SAFETY: as the caller has it.
            unsafe { System.dealloc(block, layout) }
        }
    }

    type Lists = FreeLists<Counted>;

    /// A block, and what is written all over it.
    struct Block(*mut u8, Layout, u8);

    impl Block {
        fn of(lists: &Lists, layout: Layout, mark: u8) -> Self {
            // SAFETY: no size is 0 here.
            let block = unsafe { lists.alloc(layout) };
            assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
            Self(block, layout, mark).written()
        }

        fn written(self) -> Self {
            // SAFETY: all of the block is there.
            unsafe { self.0.write_bytes(self.2, self.1.size()) };
            self
        }

        fn is_whole(&self, size: usize) -> bool {
            // SAFETY: it was written when it was made.
            unsafe { std::slice::from_raw_parts(self.0, size) }.iter().all(|byte| *byte == self.2)
        }

        fn resized(self, lists: &Lists, size: usize) -> Self {
            // SAFETY: it came from there with this layout.
            let block = unsafe { lists.realloc(self.0, self.1, size) };
            let changed = Self(block, layout(size, self.1.align()), self.2);
            assert!(changed.is_whole(size.min(self.1.size())));
            changed.written()
        }

        fn dropped(self, lists: &Lists) {
            assert!(self.is_whole(self.1.size()));
            // SAFETY: it came from there with this layout.
            unsafe { lists.dealloc(self.0, self.1) };
        }
    }

    #[test]
    fn what_is_given_back_is_taken_by_the_next_of_its_size() {
        let lists = Lists::before(Counted::default());
        let first = Block::of(&lists, layout(3, 1), 1);
        let there = first.0;
        first.dropped(&lists);
        let other_size = Block::of(&lists, layout(17, 1), 2);
        let same_size = Block::of(&lists, layout(16, 8), 3);
        assert!(same_size.0 == there && other_size.0 != there);
        let grown = same_size.resized(&lists, 5);
        assert_eq!(grown.0, there, "it is large enough");
        let grown = grown.resized(&lists, 300);
        assert_eq!(Block::of(&lists, layout(1, 1), 4).0, there);
        grown.dropped(&lists);
        other_size.dropped(&lists);
        assert_eq!(lists.beyond.0.get(), 2, "one is out, and one in a list");
    }

    #[test]
    fn what_is_large_or_too_many_goes_back() {
        let lists = Lists::before(Counted::default());
        for layout in [layout(257, 1), layout(16, 16), layout(4096, 4096)] {
            Block::of(&lists, layout, 1).dropped(&lists);
            assert_eq!(lists.beyond.0.get(), 0, "{layout:?}");
        }
        let many: Vec<_> = (0..KEPT + 5).map(|_| Block::of(&lists, layout(256, 1), 2)).collect();
        many.into_iter().for_each(|block| block.dropped(&lists));
        assert_eq!(lists.beyond.0.get(), KEPT);
    }

    #[test]
    fn no_block_is_written_by_way_of_another() {
        let lists = Lists::before(Counted::default());
        let mut blocks: Vec<Block> = Vec::new();
        let mut dice = 0x9e37_79b9_u32;
        let mut roll = |below: usize| {
            dice ^= dice << 13;
            dice ^= dice >> 17;
            dice ^= dice << 5;
            dice as usize % below
        };
        for turn in 0..20_000 {
            let (most, kinds) = (if roll(10) == 0 { 600 } else { 60 }, if turn % 1_000 > 900 { 8 } else { 4 });
            let size = 1 + roll(most);
            match roll(kinds) {
                0 | 1 => blocks.push(Block::of(&lists, layout(size, 1 << roll(5)), turn as u8)),
                2 if !blocks.is_empty() => {
                    let block = blocks.swap_remove(roll(blocks.len()));
                    blocks.push(block.resized(&lists, size));
                }
                _ if !blocks.is_empty() => {
                    blocks.swap_remove(roll(blocks.len())).dropped(&lists);
                }
                _ => {}
            }
            let kept: usize = lists.lists.iter().map(|list| list.count.get()).sum();
            assert_eq!(lists.beyond.0.get(), blocks.len() + kept);
        }
    }
}
