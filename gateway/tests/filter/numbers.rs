//! The numbers that exchanges have on an instance, and what a filter may answer: by filters written as text.

use crate::{
    setting::{Flow, Stage, module, request, response},
    written::{DONE, PROCEED, Parts, REPLY, written},
};
use serde_json::json;
use tidegate_gateway::filter::Limits;

/// Traps unless the exchange's number is 0 or 1.
const SMALL: &str = "(if (i32.gt_u (local.get 0) (i32.const 1)) (then unreachable))";

fn stage(limits: Limits, parts: &Parts<'_>) -> Stage {
    let mut stage = Stage::with(limits, json!([]));
    let modules = [("written".parse().unwrap(), module(written(parts).into()))].into();
    stage.publish_modules(&[("api", json!([{"plugin": "written"}]))], &modules);
    stage
}

#[test]
fn numbers_are_given_out_again_when_exchanges_have_closed() {
    let (open, response_part) = (format!("{SMALL} {PROCEED}"), format!("{SMALL} {PROCEED}"));
    let parts = Parts { open: &open, response: &response_part, close: SMALL, ..Parts::default() };
    let stage = stage(Limits::default(), &parts);
    for _ in 0..100 {
        let (mut first, mut second) = (stage.begin().unwrap(), stage.begin().unwrap());
        for run in [&mut first, &mut second] {
            assert!(matches!(run.on_request(&mut request(&[])), Ok(Flow::Continue)));
        }
        for mut run in [first, second] {
            assert!(matches!(run.on_response(&mut response()), Ok(Flow::Continue)));
            let facts = run.close();
            assert_eq!((&*facts[0].outcome, &facts[0].error), ("continued", &None));
        }
    }
}

#[test]
fn a_filter_that_is_done_is_called_no_more_and_its_number_is_free() {
    // Every other callback of these traps, and so does a number that is not given out again.
    for parts in [
        Parts { open: &format!("{SMALL} {DONE}"), ..Parts::default() },
        Parts { open: &format!("{SMALL} {PROCEED}"), response: DONE, ..Parts::default() },
    ] {
        let stage = stage(Limits::default(), &parts);
        for _ in 0..10 {
            let outcome = stage.exchange();
            assert!(outcome.passed() && outcome.facts[0].error.is_none(), "{outcome:?}");
        }
    }
}

#[test]
fn exchanges_open_on_an_instance_are_bounded() {
    let parts = Parts { open: PROCEED, response: PROCEED, close: "", ..Parts::default() };
    let stage = stage(Limits { exchanges: 1, ..Limits::default() }, &parts);
    let mut first = stage.begin().unwrap();
    assert!(matches!(first.on_request(&mut request(&[])), Ok(Flow::Continue)));
    let refused = stage.exchange();
    assert!(refused.error().contains("(setting filter_exchanges)"), "{refused:?}");
    assert!(matches!(first.on_response(&mut response()), Ok(Flow::Continue)), "the one that is open is not harmed");
    assert!(first.close()[0].error.is_none());
    assert!(stage.exchange().passed(), "there is room again");
}

#[test]
fn a_reply_without_an_answer_is_a_failure() {
    let stage = stage(Limits::default(), &Parts { open: REPLY, close: "", ..Parts::default() });
    let outcome = stage.exchange();
    assert!(!outcome.passed());
    assert!(outcome.error().contains("without having given an answer to `message.answer`"), "{outcome:?}");
}

#[test]
fn an_answer_that_is_no_flow_is_a_failure() {
    let stage = stage(Limits::default(), &Parts { open: "i32.const 8", close: "", ..Parts::default() });
    let outcome = stage.exchange();
    assert!(!outcome.passed() && outcome.error().starts_with("it was stopped"), "{outcome:?}");
}
