//! A filter that is replaced a thousand times: what was there before leaves nothing behind.

use crate::{
    setting::Stage,
    written::{smallest, variant},
};
use serde_json::json;
use std::collections::BTreeMap;
use tidegate_gateway::filter::Limits;

/// Replacements before memory is looked at: allocators and caches have taken what they take by then.
const WARM_UP: u32 = 250;
/// Replacements in all.
const REPLACEMENTS: u32 = 1_000;
/// What may be resident more after the rest than before. One module that stays takes 64 KiB and more, so the 750 would take
/// some 50 MiB.
const GROWTH_BYTES: u64 = 8 << 20;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_thousand_replacements_take_no_memory() {
    let smallest = smallest("i32.const 0");
    let data = tempfile::tempdir().unwrap();
    let limits = Limits { compiled: 4, artefacts: 8, ..Limits::default() };
    let mut stage = Stage::with(limits, json!([]));
    stage.host.keep_in(data.path());
    let mut before = 0;
    for number in 0..REPLACEMENTS {
        let modules = BTreeMap::from([("smallest".parse().unwrap(), variant(&smallest, number))]);
        stage.publish_modules(&[("api", json!([{"plugin": "smallest"}]))], &modules);
        let outcome = stage.exchange();
        assert!(outcome.passed(), "{outcome:?}");
        if number == WARM_UP {
            before = resident_bytes();
        }
    }
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES, "{grown} bytes more, from {before}, after {} replacements", REPLACEMENTS - WARM_UP);
    let metrics = stage.host.metrics();
    assert_eq!(metrics.compiled.value(), u64::from(REPLACEMENTS), "each of them was another module");
    assert_eq!(metrics.instances.value(), 1, "the instance of the last");
    assert_eq!(metrics.artefacts.value(), 8);
    assert_eq!(std::fs::read_dir(data.path().join("filters")).unwrap().count(), 8);
}
