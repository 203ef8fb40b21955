//! Feeds the functions that Proxy-Wasm guests call; `tests/filter/proxy_wasm/seeds.rs` does the same for a while.
#![no_main]
#![expect(dead_code, reason = "the tests' setting has more than this needs")]

#[path = "../../tests/filter/proxy_wasm/random.rs"]
mod random;
#[path = "../../tests/filter/setting.rs"]
mod setting;
#[path = "../../tests/filter/proxy_wasm/written.rs"]
mod written;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| random::drive(bytes));
