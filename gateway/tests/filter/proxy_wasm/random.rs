//! Host functions called with whatever bytes say: nothing that a guest hands over may harm the host. The fuzz target in
//! `gateway/fuzz` has the same entry.

use super::written::{IMPORTS, Text, stage};
use serde_json::json;
use std::fmt::Write as _;

/// Calls of one module.
const CALLS: usize = 64;
/// Numbers that are on an edge of something: of the memory, of its texts, of a sum, of what the ABI counts.
const EDGES: [i32; 16] = [0, 1, 2, 3, 4, 7, 8, 9, 64, 100, 200, 8192, 131_071, 131_072, -1, i32::MAX];

/// Makes the calls that `bytes` say from a request's head, and whatever comes of them. The exchange may fail; the host may not.
pub(crate) fn drive(bytes: &[u8]) {
    let mut rest = bytes.iter().copied();
    let mut code = String::new();
    for _ in 0..CALLS {
        let Some(which) = rest.next() else { break };
        let (name, parameters) = IMPORTS[usize::from(which) % IMPORTS.len()];
        let _ = write!(code, "(drop (call ${}", name.trim_start_matches("proxy_"));
        for kind in parameters.chars() {
            let number = EDGES[usize::from(rest.next().unwrap_or_default()) % EDGES.len()];
            let _ = write!(code, " (i{}.const {number})", if kind == 'l' { 64 } else { 32 });
        }
        code.push_str("))\n");
    }
    let list = "\\02\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00\\05\\00\\00\\00\\01\\00\\00\\00a\\00b\\00:path\\00/\\00";
    let text = Text::default().with(&format!("(data (i32.const 8192) \"{list}\")"));
    let text = text.on_request_headers(&format!("{code} (i32.const 0)")).on_response_headers(&format!("{code} (i32.const 0)"));
    let stage = stage(&[("wasm", &text)], json!([{"plugin": "wasm", "on_error": "skip"}]));
    let outcome = stage.exchange();
    // Where it was answered or ended, nothing of it goes on.
    if outcome.passed() {
        assert_eq!(outcome.request_headers["host"], "api.example.com", "whatever it does");
        assert_eq!(outcome.request_headers["proxy-authorization"], "Bearer secret");
    }
}
