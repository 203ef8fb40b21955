//! Feeds the functions that Proxy-Wasm guests call; `tests/filter/seeds.rs` does the same for a while.
#![no_main]
#![expect(dead_code, reason = "the tests have more use for these")]

#[path = "../../tests/filter/course.rs"]
mod course;
#[path = "../../tests/filter/interpreter.rs"]
mod interpreter;
#[path = "../../tests/filter/proxy_wasm/random.rs"]
mod random;
#[path = "../../tests/filter/script.rs"]
mod script;
#[path = "../../tests/filter/setting.rs"]
mod setting;
#[path = "../../tests/filter/whole.rs"]
mod whole;
#[path = "../../tests/filter/proxy_wasm/written.rs"]
mod written;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    random::drive(bytes);
});
