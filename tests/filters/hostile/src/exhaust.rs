//! Takes as much as it can get: time, memory, stack, names, numbers.

use std::hint::black_box;
use tidegate_sdk::{Body, attributes, kv, metrics};

pub(super) fn forever() {
    let mut n = 0_u64;
    while black_box(n) != u64::MAX {
        n = n.wrapping_add(2);
    }
}

pub(super) fn allocate() {
    loop {
        std::mem::forget(black_box(vec![1_u8; 4 << 20]));
    }
}

pub(super) fn deeper(depth: u64) -> u64 {
    let room = black_box([depth; 64]);
    if black_box(depth) == 0 { 0 } else { deeper(depth + 1) + room[7] }
}

/// Grows by so many pages at a time until the host says no; the MiB that were had.
pub(super) fn grow(pages: usize) -> u64 {
    #[cfg(target_arch = "wasm32")]
    {
        while core::arch::wasm32::memory_grow(0, pages) != usize::MAX {}
        core::arch::wasm32::memory_size(0) as u64 / 16
    }
    #[cfg(not(target_arch = "wasm32"))]
    {
        let _ = pages;
        0
    }
}

/// A hundred thousand names wherever the host keeps one for the filter.
pub(super) fn names() {
    let (mut values, mut states) = (0, 0);
    for n in 0..100_000 {
        let name = format!("n{n}");
        metrics::Counter::new(&name).add(1);
        values += u64::from(kv::set(&name, "v", None).is_ok());
        states += u64::from(attributes::set(&format!("state.{n}"), 1_u64));
    }
    super::report("names", "values", values);
    super::report("names", "states", states);
}

/// Reads and changes behind the end of a body, and where numbers end; how many changes were accepted.
pub(super) fn ranges(body: &mut Body<'_>) -> u64 {
    let end = body.len();
    let read = [body.read(end, 1), body.read(end + 1, u32::MAX), body.read(u64::MAX, u32::MAX)];
    assert!(read.iter().all(Vec::is_empty), "there is something behind the end");
    let changes = [body.splice(end + 1.., "x"), body.splice(u64::MAX.., "x"), body.splice(u64::MAX - 1..u64::MAX, "x")];
    changes.iter().map(|change| u64::from(change.is_ok())).sum()
}
