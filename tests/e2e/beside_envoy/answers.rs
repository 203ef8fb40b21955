//! Modules in text: what callbacks answer, number by number, since the SDKs have words for two of them, and the oldest version of the
//! ABI, which no SDK makes any more.

use super::{
    shape::{Shape, shape},
    sides::{Sides, place},
};
use std::path::PathBuf;
use tempfile::TempDir;
use tidegate_tests::envoy::{OnHeadersStop, Place};

fn shapes() -> Vec<Shape> {
    let answers = |name, digits| shape(name, "").header("x-answers", digits).at("answers").without_notes();
    let with_trailers = |name, digits| answers(name, digits).chunks(&["one", "two"]).trailer("x-t", "1");
    let to_trailers = |name, digits| answers(name, digits).header("te", "trailers").to("/trailers");
    vec![
        answers("request-1", "10000000").sized("abcdef"),
        answers("request-2", "20000000").sized("abcdef"),
        answers("request-2-without-body", "20000000"),
        with_trailers("request-2-with-trailers", "20000000"),
        answers("request-2-for-ever", "20000010").sized("abcdef"),
        answers("request-3", "30000000").sized("abcdef"),
        with_trailers("request-3-with-trailers", "30000000"),
        answers("request-4", "40000000").sized("abcdef"),
        answers("request-4-large", "40000000").bytes(200_000),
        answers("request-5", "50000000").sized("abcdef"),
        answers("body-1", "01000000").sized("abcdef"),
        answers("body-2", "02000000").sized("abcdef"),
        answers("body-2-large", "02000000").bytes(200_000),
        answers("body-3", "03000000")
            .sized("abcdef")
            .unlike("what is held without a buffer ends with its stream", &["answer status 200"]),
        with_trailers("body-3-with-trailers", "03000000"),
        answers("body-4", "04000000")
            .sized("abcdef")
            .unlike("what is held without a buffer ends with its stream", &["answer status 200"]),
        with_trailers("trailers-1", "00100000"),
        with_trailers("trailers-2", "00200000"),
        answers("response-1", "00010000").to("/charges"),
        answers("response-2", "00020000").to("/charges"),
        to_trailers("response-2-with-trailers", "00020000"),
        answers("response-2-for-ever", "00020010").to("/charges"),
        answers("response-3", "00030000").to("/charges"),
        answers("response-4", "00040000").to("/charges"),
        answers("response-4-large", "00040000").to("/zeroes/200000"),
        answers("response-body-1", "00001000").to("/charges"),
        answers("response-body-2", "00002000").to("/charges"),
        answers("response-body-2-large", "00002000").to("/zeroes/200000"),
        to_trailers("response-body-3-with-trailers", "00003000"),
        to_trailers("response-trailers-1", "00000100"),
        answers("iterated-request-1", "10000000").sized("abcdef").at("answers-iterated"),
        answers("iterated-request-1-without-body", "10000000").at("answers-iterated"),
        with_trailers("iterated-request-1-with-trailers", "10000000").at("answers-iterated"),
        answers("iterated-request-3", "30000000").sized("abcdef").at("answers-iterated"),
        answers("iterated-request-4", "40000000").sized("abcdef").at("answers-iterated"),
        answers("iterated-response-1", "00010000").to("/charges").at("answers-iterated"),
        answers("iterated-head-and-body-1", "11000000").sized("abcdef").at("answers-iterated"),
    ]
}

/// A module in text, as a file in `folder`.
fn written(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let module = folder.path().join(name).with_extension("wasm");
    let bytes = wat::parse_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    std::fs::write(&module, bytes).expect("a temporary file can be written");
    module
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_mean_what_they_mean_beside_envoy() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let module = written(&folder, "answers", include_str!("answers.wat"));
    let answers = Place { module, ..place("answers") };
    let iterated = Place { name: "answers-iterated", on_headers_stop: OnHeadersStop::GoOn, ..answers.clone() };
    let Some(mut sides) = Sides::start(&[answers, iterated]).await else { return };
    sides.compare("answers", &shapes()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_module_of_the_oldest_version_is_as_beside_envoy() {
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let module = written(&folder, "oldest", include_str!("oldest.wat"));
    let Some(mut sides) = Sides::start(&[Place { module, ..place("oldest") }]).await else { return };
    let at = |name| shape(name, "").at("oldest").without_notes();
    let shapes = [
        at("oldest"),
        at("oldest-2").http2(),
        at("oldest-with-bodies").chunks(&["one", "two"]).trailer("x-t", "1"),
        at("oldest-with-trailers").header("te", "trailers").to("/trailers"),
        at("oldest-without-body").to("/status/204"),
    ];
    sides.compare("oldest", &shapes).await;
}
