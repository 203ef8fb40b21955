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
    built("wasm32-unknown-unknown", name)
}

/// Where the built filter `name` on the Proxy-Wasm SDK is, such as `shapes`.
///
/// # Panics
/// When it has not been built, saying how to build it.
pub fn proxy_wasm(name: &str) -> PathBuf {
    let path = built("wasm32-wasip1", name);
    assert!(path.exists(), "{} is missing; build the filters first: make filters", path.display());
    path
}

fn built(target: &str, name: &str) -> PathBuf {
    let folder = crate::gateway::build_directory();
    let folder = folder.parent().expect("a profile's folder lies in the target folder");
    folder.join(target).join("filter").join(format!("{name}.wasm"))
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
