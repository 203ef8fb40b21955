//! What is accepted as a filter, and how a refusal reads.

use crate::{
    setting::{FORMS, filter, filters, module, used},
    written::smallest,
};
use tidegate_gateway::filter::{Host, Limits};

#[test]
fn what_cargo_made_is_accepted() {
    let host = Host::start(Limits::default()).unwrap();
    for name in ["audit", "stamp", "hostile"] {
        let inspection = host.inspect(&filter(name)).unwrap();
        assert_eq!(inspection.world, "tidegate:filter/filter@0.1.0");
        assert!(inspection.imports.iter().any(|import| import == "tidegate:filter/types@0.1.0"), "{inspection:?}");
    }
    assert_eq!(host.metrics().compiled.value(), 3);
    host.inspect(&filter("audit")).unwrap();
    assert_eq!(host.metrics().compiled.value(), 3, "the same bytes are not compiled again");
}

#[test]
fn a_component_is_accepted() {
    let component = wit_component::ComponentEncoder::default().module(&filter("stamp")).unwrap().encode().unwrap();
    let host = Host::start(Limits::default()).unwrap();
    assert_eq!(host.inspect(&component).unwrap().world, "tidegate:filter/filter@0.1.0");
}

#[test]
fn a_module_is_inspected_as_its_component_would_be() {
    let data = tempfile::tempdir().unwrap();
    let host = Host::start(Limits::default()).unwrap();
    host.keep_in(data.path());
    let written = ("written".to_owned(), smallest("i32.const 0").into());
    for (name, bytes) in filters().into_iter().chain([written]) {
        let [as_module, as_component] = FORMS.map(|form| host.inspect(&form.of(&bytes)).unwrap());
        assert_eq!(format!("{as_module:?}"), format!("{as_component:?}"), "{name}");
        // What was compiled says what it is. Only what may suspend has to be a component.
        let kept = std::fs::read(data.path().join("filters").join(module(bytes).digest.to_string())).unwrap();
        let suspends = as_module.functions.iter().any(|function| function == "outbound.send");
        assert_eq!(kept.starts_with(b"tidegate module"), !suspends, "{name}");
    }
}

#[test]
fn another_world_is_refused_by_name() {
    let component = wit_component::ComponentEncoder::default().module(&filter("stamp")).unwrap().encode().unwrap();
    let replaced = |from: &[u8], to: &[u8]| -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let mut bytes = component.clone();
        let mut at = 0;
        while let Some(found) = bytes[at..].windows(from.len()).position(|window| window == from) {
            bytes[at + found..at + found + from.len()].copy_from_slice(to);
            at += found + from.len();
        }
        bytes
    };
    let host = Host::start(Limits::default()).unwrap();
    let reasons = host.inspect(&replaced(b"tidegate:filter/handler", b"tidegate:filter/handles")).unwrap_err();
    assert!(reasons[0].contains("does not export tidegate:filter/handler@0.1.0"), "{reasons:?}");
    assert!(reasons[0].contains("tidegate:filter/handles@0.1.0"), "{reasons:?}");
    let reasons = host.inspect(&replaced(b"tidegate:filter/attributes", b"tidegate:filter/attribute1")).unwrap_err();
    assert!(reasons[0].contains("imports tidegate:filter/attribute1@0.1.0"), "{reasons:?}");
}

#[test]
fn a_damaged_module_is_refused() {
    let host = Host::start(Limits::default()).unwrap();
    let whole = filter("stamp");
    for kept in [9, 100, whole.len() / 2, whole.len() - 1] {
        assert!(!host.inspect(&whole[..kept]).unwrap_err().is_empty(), "{kept} bytes");
    }
}

#[test]
fn compiling_is_under_a_quota() {
    let host = Host::start(Limits { compile: std::time::Duration::ZERO, ..Limits::default() }).unwrap();
    let reasons = host.inspect(&filter("stamp")).unwrap_err();
    assert!(reasons[0].contains("filter_compile_timeout"), "{reasons:?}");
    let host = Host::start(Limits { compilers: 0, ..Limits::default() }).unwrap();
    let reasons = host.inspect(&filter("stamp")).unwrap_err();
    assert!(reasons[0].contains("filter_compilers"), "{reasons:?}");
    let host = Host::start(Limits { module_bytes: 1000, ..Limits::default() }).unwrap();
    let reasons = host.inspect(&filter("stamp")).unwrap_err();
    assert!(reasons[0].contains("filter_module_bytes"), "{reasons:?}");
}

#[test]
fn the_filter_itself_refuses_its_configuration() {
    let host = Host::start(Limits::default()).unwrap();
    let audit = module(filter("audit"));
    host.configure(&audit, &used("null")).unwrap();
    host.configure(&audit, &used(r#"{"kind": "payments", "sample": 10}"#)).unwrap();
    let refusal = host.configure(&audit, &used(r#"{"kind": "payments", "sampel": 10}"#)).unwrap_err();
    assert!(refusal.starts_with("/sampel: unknown field `sampel`"), "{refusal}");
    let refusal = host.configure(&audit, &used(r#"{"response_headers": ["a b"]}"#)).unwrap_err();
    assert!(refusal.starts_with("/response_headers/0: "), "{refusal}");
    assert_eq!(host.metrics().compiled.value(), 1);
}

#[test]
fn a_configuration_that_never_ends_is_refused() {
    let host = Host::start(Limits { configure: std::time::Duration::from_millis(50), ..Limits::default() }).unwrap();
    let refusal = host.configure(&module(filter("hostile")), &used(r#"{"at": "configure", "mode": "loop"}"#)).unwrap_err();
    assert!(refusal.contains("longer than 50 ms (setting filter_configure_timeout)"), "{refusal}");
    assert!(refusal.contains("ran for longer than"), "{refusal}");
    let refusal = host.configure(&module(filter("hostile")), &used(r#"{"at": "configure", "mode": "trap"}"#)).unwrap_err();
    assert!(refusal.contains("trapped"), "{refusal}");
}

#[test]
fn what_is_larger_compiled_than_is_kept_is_refused_by_the_setting() {
    let host = Host::start(Limits { artefact_bytes: 1000, ..Limits::default() }).unwrap();
    host.compile_apart(env!("CARGO_BIN_EXE_tidegate").into());
    let reasons = host.inspect(&smallest("i32.const 0")).unwrap_err();
    assert!(reasons[0].contains("larger than 1000 bytes (setting filter_artefact_bytes)"), "{reasons:?}");
}

#[test]
fn a_compiler_that_does_not_hear_the_order_out_is_not_laid_at_the_modules_door() {
    let host = Host::start(Limits::default()).unwrap();
    // It reads nothing, and more is sent than a pipe holds.
    host.compile_apart("/bin/true".into());
    let mut bytes = smallest("i32.const 0");
    bytes.extend_from_slice(&[0, 0x81, 0x80, 0x40, 0]);
    bytes.resize(bytes.len() + (1 << 20), 0);
    let reasons = host.inspect(&bytes).unwrap_err();
    assert!(reasons[0].starts_with("the compiler ended before it had read the whole module"), "{reasons:?}");
}
