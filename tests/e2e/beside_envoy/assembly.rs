//! A filter on the AssemblyScript runtime, which is of version 0.2.0, imports `wasi_unstable`, ends its process where the Rust SDK
//! panics, and asks for its root's name before anything else.

use super::{
    shape::{Shape, shape},
    sides::{Sides, place},
};
use tidegate_tests::{envoy::Place, gateway::build_directory};

fn shapes() -> Vec<Shape> {
    let at = |name, what| shape(name, "").header("x-what", what).at("assembly").without_notes();
    vec![
        at("changes-both-heads", "").header("x-gone", "1").header("x-there", "2"),
        at("changes-both-heads-2", "").header("x-gone", "1").header("x-gone", "2").http2(),
        at("changes-trailers", "").header("te", "trailers").to("/trailers"),
        at("passes-bodies", "").chunks(&["one", "two"]).trailer("x-t", "1"),
        at("replies", "reply"),
        at("replies-2", "reply").http2(),
        at("calls", "call"),
        at("calls-before-the-body", "call").sized("abcdef"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_in_assembly_script_is_as_beside_envoy() {
    let folder = build_directory().parent().expect("a profile's folder lies in the target folder").join("languages/assembly");
    // Written last, so that half an installation is none.
    if !folder.join("pins").exists() {
        use std::io::Write;
        let _: std::io::Result<()> = writeln!(
            std::io::stderr().lock(),
            "SKIPPED: what builds filters in AssemblyScript is missing; make languages installs it"
        );
        return;
    }
    let module = folder.join("assembly.wasm");
    assert!(module.exists(), "the filter in AssemblyScript was not built; make languages says why");
    let Some(mut sides) = Sides::start(&[Place { module, ..place("assembly") }]).await else { return };
    sides.compare("assembly", &shapes()).await;
}
