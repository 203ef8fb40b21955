//! A filter that is replaced a thousand times: what was there before leaves nothing behind.

use crate::setting::{Stage, module};
use serde_json::json;
use std::collections::BTreeMap;
use tidegate_gateway::filter::Limits;
use tidegate_policy::publication::Module;
use wit_component::StringEncoding;

/// The smallest filter: it proceeds and keeps nothing of the exchange. Compiling it takes milliseconds, where one that cargo
/// made takes a debug build half a second. All answers are at 0, where the memory is zero: no error, no exchange, proceed.
const SMALLEST: &str = r#"(module
    (import "tidegate:filter/types@0.1.0" "[resource-drop]headers" (func $drop (param i32)))
    (memory (export "memory") 1)
    (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) i32.const 1024)
    (func (export "tidegate:filter/handler@0.1.0#configure") (result i32) i32.const 0)
    (func (export "tidegate:filter/handler@0.1.0#open") (param i64 i32 i32) (result i32)
        (call $drop (local.get 1))
        i32.const 0)
    (func (export "tidegate:filter/handler@0.1.0#[method]exchange.on-request-body")
        (param i32 i32 i32 i32 i32) (result i32) unreachable)
    (func (export "tidegate:filter/handler@0.1.0#[method]exchange.on-request-trailers")
        (param i32 i32 i32 i32 i32) (result i32) unreachable)
    (func (export "tidegate:filter/handler@0.1.0#[method]exchange.on-response-headers")
        (param i32 i32 i32 i32) (result i32) unreachable)
    (func (export "tidegate:filter/handler@0.1.0#[method]exchange.on-response-body")
        (param i32 i32 i32 i32 i32) (result i32) unreachable)
    (func (export "tidegate:filter/handler@0.1.0#[method]exchange.on-response-trailers")
        (param i32 i32 i32 i32 i32) (result i32) unreachable)
    (func (export "tidegate:filter/handler@0.1.0#close") (param i32)))"#;

/// Replacements before memory is looked at: allocators and caches have taken what they take by then.
const WARM_UP: u32 = 250;
/// Replacements in all.
const REPLACEMENTS: u32 = 1_000;
/// What may be resident more after the rest than before. One module that stays takes 64 KiB and more, so the 750 would take
/// some 50 MiB.
const GROWTH_BYTES: u64 = 8 << 20;

/// The smallest filter as a module, as cargo would have made it.
fn smallest() -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let (package, _) = resolve.push_path(concat!(env!("CARGO_MANIFEST_DIR"), "/../sdk/wit")).unwrap();
    let world = resolve.select_world(&[package], Some("filter")).unwrap();
    let mut bytes = wat::parse_str(SMALLEST).unwrap();
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).unwrap();
    bytes
}

/// Another module that does the same: with a custom section that holds `number`.
fn variant(of: &[u8], number: u32) -> Module {
    let mut bytes = of.to_vec();
    bytes.extend_from_slice(&[0, 6, 1, b'v']);
    bytes.extend_from_slice(&number.to_le_bytes());
    module(bytes.into())
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_thousand_replacements_take_no_memory() {
    let smallest = smallest();
    let data = tempfile::tempdir().unwrap();
    let limits = Limits { compiled: 4, artefacts: 8, ..Limits::default() };
    let mut stage = Stage::with(limits, json!([]));
    stage.host.keep_in(data.path());
    let mut before = 0;
    for number in 0..REPLACEMENTS {
        let modules = BTreeMap::from([("smallest".parse().unwrap(), variant(&smallest, number))]);
        stage.publish_modules(json!([{"plugin": "smallest"}]), &modules);
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
