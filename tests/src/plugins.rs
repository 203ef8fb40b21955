//! The filters that tests upload: built beforehand by `make filters`, found beside the gateway.

use std::path::PathBuf;

/// The bytes of the built filter `name`, such as `audit`.
///
/// # Panics
/// When it has not been built, saying how to build it.
pub fn module(name: &str) -> Vec<u8> {
    let path = path(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; build the filters first: make filters", path.display()))
}

fn path(name: &str) -> PathBuf {
    let target = crate::gateway::build_directory();
    let target = target.parent().expect("a profile's folder lies in the target folder");
    target.join("wasm32-unknown-unknown").join("filter").join(format!("{name}.wasm"))
}

/// The built filter `name` as another module that does the same: with a custom section that holds `number`.
pub fn variant(name: &str, number: u32) -> Vec<u8> {
    // Section 0: its length, then the length of its name, the name, and the content.
    let mut bytes = module(name);
    bytes.extend_from_slice(&[0, 12, 7]);
    bytes.extend_from_slice(b"variant");
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes
}
