//! Traps in each phase, where an exchange fails with its filter and where it goes on without.

use super::{
    shape::{Shape, shape},
    sides::{Sides, place},
};
use tidegate_tests::envoy::Place;

/// What the upstream's `/charges` says.
const CHARGES: &str = r#"answer body: "{\"id\":\"ch_1\",\"method\":\"GET\",\"path\":\"/charges\",\"status\":\"succeeded\"}""#;
/// A place for each: a machine that trapped is not used again.
const FAILS: [&str; 6] = ["deny-1", "deny-2", "deny-3", "deny-4", "deny-5", "deny-6"];
const SKIPS: [&str; 6] = ["skip-1", "skip-2", "skip-3", "skip-4", "skip-5", "skip-6"];

fn shapes(places: [&'static str; 6], unlike: fn(Shape) -> Shape) -> Vec<Shape> {
    let with_trailers = |name, script| shape(name, script).chunks(&["one", "two"]).trailer("x-t", "1");
    let before_the_head_went_on = [
        with_trailers("trap-in-request", "request add request x-a 1; request trap"),
        with_trailers("trap-in-request-body", "request add request x-a 1; request-body trap"),
        with_trailers("trap-in-request-trailers", "request add request x-a 1; request-trailers trap"),
        shape("trap-in-answer", "response add response x-b 1; response trap").to("/charges"),
    ];
    let after = [
        shape("trap-in-answer-body", "response add response x-b 1; response-body trap").to("/charges"),
        shape("trap-in-answer-trailers", "response add response x-b 1; response-trailers trap")
            .header("te", "trailers")
            .to("/trailers"),
    ];
    let shapes = before_the_head_went_on.map(unlike).into_iter().chain(after);
    shapes.zip(places).map(|(shape, place)| shape.at(place).without_notes()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_are_as_beside_envoy() {
    let places: Vec<_> = FAILS.into_iter().map(place).collect();
    let Some(mut sides) = Sides::start(&places).await else { return };
    let told = |shape: Shape| {
        shape.unlike("the gateway says itself what failed", &["answer status 500", "answer problem filter_failed"])
    };
    sides.compare("traps-failing", &shapes(FAILS, told)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traps_that_are_skipped_are_as_beside_envoy() {
    let places: Vec<_> = SKIPS.into_iter().map(|name| Place { fails_open: true, ..place(name) }).collect();
    let Some(mut sides) = Sides::start(&places).await else { return };
    // There it is the next exchange that goes on without the filter; this one fails.
    let skips =
        |shape: Shape| shape.unlike("the exchange goes on without the filter that failed in it", &["answer status 200"]);
    let whole = |shape: Shape| match shape.name {
        "trap-in-answer-body" => shape.unlike("it is not broken off", &[CHARGES]),
        "trap-in-answer-trailers" => shape.unlike("it is not broken off", &["answer trailer x-checksum: abc123"]),
        _ => shape,
    };
    let shapes: Vec<_> = shapes(SKIPS, skips).into_iter().map(whole).collect();
    sides.compare("traps-skipped", &shapes).await;
}
