//! The free blocks of a guest's allocator, which the host takes by itself: to call the guest for a block takes longer than all else
//! that handing something over does. The lists lie in the guest's memory, where the function [`EXPORT`] says (decision 0016). What is
//! read there is checked as any pointer of the guest's is; a guest that keeps them wrong harms itself.

use crate::filter::state::State;
use wasmtime::{Instance, Result, Store};

/// What a guest exports that has such lists; it returns where they are.
const EXPORT: &str = "tidegate_free_lists";
/// The sizes of blocks: 16, 32, 64, 128 and 256 bytes, a list for each, the smallest first.
const CLASSES: u32 = 5;
const SMALLEST: u32 = 16;
/// What all blocks are aligned to.
const ALIGNMENT: u32 = 8;
/// Blocks that a list has room for. It is a count of 4 bytes, and as many addresses of 4 bytes each.
const KEPT: u32 = 32;
const LIST_BYTES: u32 = 4 + 4 * KEPT;

/// Where the lists are.
#[derive(Debug, Clone, Copy)]
pub(super) struct FreeLists(u32);

impl FreeLists {
    /// Asks an instance where its lists are, if it has any.
    pub(super) fn of(store: &mut Store<State>, instance: &Instance) -> Result<Option<Self>> {
        let Some(export) = instance.get_func(&mut *store, EXPORT) else { return Ok(None) };
        let Ok(lists) = export.typed::<(), u32>(&*store) else { return Ok(None) };
        lists.call(&mut *store, ()).map(|at| Some(Self(at)))
    }

    /// Those that are here.
    #[cfg(test)]
    pub(super) fn at(place: u32) -> Self {
        Self(place)
    }

    /// Takes a block of this size from its list; none where there is none, or no list for it. Whether all of it is in the memory is for
    /// whoever writes there to check.
    pub(super) fn take(self, memory: &mut [u8], align: u32, size: u32) -> Option<u32> {
        // What is nothing is no block.
        if size == 0 || size > SMALLEST << (CLASSES - 1) || align > ALIGNMENT {
            return None;
        }
        let class = size.max(SMALLEST).next_power_of_two().trailing_zeros() - SMALLEST.trailing_zeros();
        let list = self.0.checked_add(class * LIST_BYTES)? as usize;
        let (count, blocks) = memory.get_mut(list..)?.get_mut(..LIST_BYTES as usize)?.split_first_chunk_mut::<4>()?;
        let last = u32::from_le_bytes(*count).checked_sub(1)?;
        let block = u32::from_le_bytes(*blocks.as_chunks().0.get(last as usize)?);
        if block == 0 || !block.is_multiple_of(ALIGNMENT) {
            return None;
        }
        *count = last.to_le_bytes();
        Some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A memory with lists at 8: of 16 bytes with two blocks, of 32 with one, and others with none.
    fn memory() -> Vec<u8> {
        let mut memory = vec![0; 1024];
        let mut write = |at: usize, word: u32| memory[at..at + 4].copy_from_slice(&word.to_le_bytes());
        for (at, word) in [(8, 2), (12, 800), (16, 816), (140, 1), (144, 832)] {
            write(at, word);
        }
        memory
    }

    #[test]
    fn blocks_are_taken_by_size_the_last_one_first() {
        let (mut memory, lists) = (memory(), FreeLists::at(8));
        let mut take = |align, size| lists.take(&mut memory, align, size);
        for (align, size) in [(1, 0), (1, 257), (1, u32::MAX), (16, 1), (1, 33), (8, 256)] {
            assert_eq!(take(align, size), None, "{size} {align}");
        }
        assert_eq!([take(1, 1), take(8, 16), take(4, 5)], [Some(816), Some(800), None]);
        assert_eq!([take(1, 17), take(1, 32)], [Some(832), None]);
    }

    #[test]
    fn lists_that_cannot_be_give_nothing() {
        let mut memory = memory();
        for lists in [1000, 1024, u32::MAX, u32::MAX - LIST_BYTES] {
            assert_eq!(FreeLists::at(lists).take(&mut memory, 1, 1), None, "{lists}");
        }
        for count in [KEPT + 1, u32::MAX] {
            memory[8..12].copy_from_slice(&count.to_le_bytes());
            assert_eq!(FreeLists::at(8).take(&mut memory, 1, 1), None, "{count}");
        }
        memory[8..12].copy_from_slice(&KEPT.to_le_bytes());
        assert_eq!(FreeLists::at(8).take(&mut memory, 1, 1), None, "the last of a full list, which here is nothing");
        memory[136..140].copy_from_slice(&801_u32.to_le_bytes());
        assert_eq!(FreeLists::at(8).take(&mut memory, 1, 1), None, "nor is what is not aligned a block");
        assert_eq!(memory[8..12], KEPT.to_le_bytes());
        memory[136..140].copy_from_slice(&800_u32.to_le_bytes());
        assert_eq!(FreeLists::at(8).take(&mut memory, 1, 1), Some(800));
    }
}
