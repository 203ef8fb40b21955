//! A bounded run of what the fuzz targets do, the same each time.

use crate::{course::Reached, proxy_wasm, random, written::CONTRACT};
use std::collections::BTreeSet;

/// Runs of so many bytes each.
const RUNS: u32 = 512;
const BYTES: usize = 512;

/// Has `drive` make something of bytes, whose first ones say in turn how the exchange goes; how far they came.
fn seeded(drive: impl Fn(&[u8]) -> Reached) -> Reached {
    let mut reached = Reached::default();
    // A linear congruential generator (Knuth's MMIX), whose upper bits are random enough to choose by.
    let mut state = 20_261_129_u64;
    for _ in 0..RUNS {
        let byte = |state: &mut u64| {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (*state >> 56) as u8
        };
        let bytes: Vec<u8> = (0..BYTES).map(|_| byte(&mut state)).collect();
        reached += drive(&bytes);
    }
    reached
}

#[test]
fn random_calls_of_proxy_wasm_harm_nobody() {
    let Reached { calls, streams, secrets, services, .. } = seeded(proxy_wasm::random::drive);
    assert!(calls > 0 && streams > 0 && secrets > 0 && services > 0, "{calls}, {streams}, {secrets}, {services}");
}

#[test]
fn random_calls_of_the_typed_contract_harm_nobody() {
    let Reached { secrets, services, .. } = seeded(random::drive);
    assert!(secrets > 0 && services > 0, "{secrets}, {services}");
}

#[test]
fn whole_calls_do_what_they_are_there_for() {
    // By their places in the lists; what needs a stream or a call comes after it. Answers of calls are another matter.
    for calls in [&[0][..], &[1], &[2], &[2, 3], &[2, 4], &[2, 5], &[1, 6], &[9], &[10], &[11], &[12]] {
        assert_eq!(proxy_wasm::random::make(calls).requests, 1, "{calls:?}");
    }
    for call in 3..8 {
        assert_eq!(proxy_wasm::random::make(&[call]).requests, 0, "{call} without what it is about");
    }
    for call in 0..4 {
        assert_eq!(random::make(&[call]).requests, 1, "{call}");
    }
}

#[test]
fn all_of_the_contract_is_called() {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("filter.wit", CONTRACT).unwrap();
    let world = resolve.select_world(&[package], Some("filter")).unwrap();
    let mut there = BTreeSet::new();
    for item in resolve.worlds[world].imports.values() {
        let wit_parser::WorldItem::Interface { id, .. } = item else { panic!("{item:?}") };
        let interface = &resolve.interfaces[*id];
        there.extend(interface.functions.keys().cloned().map(|name| (resolve.id_of(*id).unwrap(), name)));
    }
    let called: BTreeSet<_> =
        random::FUNCTIONS.iter().map(|function| (function.module.to_owned(), function.name.to_owned())).collect();
    let drops = called.iter().filter(|(_, name)| name.starts_with("[resource-drop]")).count();
    assert_eq!((called.len() - drops, drops), (there.len(), 5));
    assert!(there.is_subset(&called), "{there:?}");
}
