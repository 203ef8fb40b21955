//! Heads, answers, properties, logs: what a filter does that never stops an exchange.

use super::written::{Text, pairs, stage};
use crate::setting::{Flow, Stage, filter, module};
use http::StatusCode;
use serde_json::json;
use std::collections::BTreeMap;
use tidegate_gateway::filter::Limits;
use tidegate_policy::Reason;

fn one(text: &Text) -> Stage {
    stage(&[("wasm", text)], json!([{"plugin": "wasm"}]))
}

/// What a filter that ends its head's callback so makes of a request's head.
fn header_of(code: &str, name: &str) -> Option<String> {
    let outcome = one(&Text::default().on_request_headers(&format!("{code} (i32.const 0)"))).exchange();
    assert!(outcome.passed(), "{outcome:?}");
    outcome.request_headers.get(name).map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn fields_are_read_added_replaced_and_removed() {
    let code = "
        (call $must (call $get_header_map_value (i32.const 0) `x-tenant` (i32.const 0) (i32.const 4)))
        (call $must (call $add_header_map_value (i32.const 0) `x-copy` (i32.load (i32.const 0)) (i32.load (i32.const 4))))
        (call $must (call $replace_header_map_value (i32.const 0) `user-agent` `other`))
        (call $must (call $remove_header_map_value (i32.const 0) `authorization`))
        (i32.const 0)";
    let response = "(call $must (call $add_header_map_value (i32.const 2) `x-seen` `yes`))
        (call $must (call $replace_header_map_value (i32.const 2) `:status` `202`)) (i32.const 0)";
    let outcome = one(&Text::default().on_request_headers(code).on_response_headers(response)).exchange();
    assert!(outcome.passed(), "{outcome:?}");
    assert_eq!(outcome.request_headers["x-copy"], "blue");
    assert_eq!(outcome.request_headers["user-agent"], "other");
    assert!(!outcome.request_headers.contains_key("authorization"));
    assert_eq!(outcome.response_headers["x-seen"], "yes");
}

#[test]
fn pseudo_fields_are_in_the_map() {
    for (name, value) in [
        (":method", "POST"),
        (":path", "/v1/charges?dry=1"),
        (":authority", "api.example.com"),
        (":scheme", "http"),
        ("host", "api.example.com"),
    ] {
        let code = format!(
            "(call $must (call $get_header_map_value (i32.const 0) `{name}` (i32.const 0) (i32.const 4)))
            (call $must (call $add_header_map_value (i32.const 0) `x-it` (i32.load (i32.const 0)) (i32.load (i32.const 4))))"
        );
        assert_eq!(header_of(&code, "x-it").as_deref(), Some(value), "{name}");
    }
}

#[test]
fn all_fields_are_set_at_once_but_for_those_that_are_not_the_filters() {
    let list = pairs(&[("x-only", "1"), (":path", "/v1/charges?dry=1"), ("host", "evil.example"), ("x-only", "2")]);
    let data: String = list.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let text = Text::default().with(&format!("(data (i32.const 8192) \"{data}\")")).on_request_headers(&format!(
        "(call $must (call $set_header_map_pairs (i32.const 0) (i32.const 8192) (i32.const {}))) (i32.const 0)",
        list.len()
    ));
    let outcome = one(&text).exchange();
    let values: Vec<_> = outcome.request_headers.get_all("x-only").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert_eq!(outcome.request_headers["host"], "api.example.com");
    assert_eq!(outcome.request_headers["proxy-authorization"], "Bearer secret");
    assert!(!outcome.request_headers.contains_key("x-tenant"));
}

#[test]
fn what_is_not_a_filters_to_write_is_left_as_it_was() {
    for name in ["host", "content-length", ":authority", ":scheme", "proxy-authorization", "via"] {
        let code = format!("(call $must (call $replace_header_map_value (i32.const 0) `{name}` `evil.example`))");
        let outcome = one(&Text::default().on_request_headers(&format!("{code} (i32.const 0)"))).exchange();
        assert!(outcome.passed(), "{name}: {outcome:?}");
        assert_eq!(outcome.request_headers["host"], "api.example.com", "{name}");
        assert_eq!(outcome.request_headers["content-length"], "0", "{name}");
        assert_eq!(outcome.request_headers["proxy-authorization"], "Bearer secret", "{name}");
    }
}

#[test]
fn a_path_is_rewritten_where_it_is_granted() {
    let text = Text::default()
        .on_request_headers("(call $must (call $replace_header_map_value (i32.const 0) `:path` `/v2/x`)) (i32.const 0)");
    for (grants, path) in [(json!({}), "/v1/charges"), (json!({"paths": ["/v2/*"]}), "/v2/x")] {
        let stage = stage(&[("wasm", &text)], json!([{"plugin": "wasm", "grants": grants}]));
        let mut run = stage.begin().unwrap();
        let mut head = crate::setting::request(&[]);
        run.on_request(&mut head).unwrap();
        assert_eq!(head.uri.path(), path);
        run.close();
    }
}

#[test]
fn a_filter_answers_in_the_upstreams_place() {
    let fields = pairs(&[("x-why", "because"), ("content-length", "99")]);
    let data: String = fields.iter().map(|byte| format!("\\{byte:02x}")).collect();
    let answer = format!(
        "(call $must (call $send_local_response (i32.const 418) `details` `short` (i32.const 8192) (i32.const {}) (i32.const -1)))
        (call $must (call $send_local_response (i32.const 500) `` `second` (i32.const 0) (i32.const 0) (i32.const -1)))",
        fields.len()
    );
    let with = |text: Text| text.with(&format!("(data (i32.const 8192) \"{data}\")"));
    // Whatever the callback answers, and also where it fails after that.
    for end in ["(i32.const 0)", "(i32.const 1)"] {
        let outcome = one(&with(Text::default()).on_request_headers(&format!("{answer} {end}"))).exchange();
        let Ok(Flow::Reply(response)) = &outcome.request else { panic!("{outcome:?}") };
        assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
        assert_eq!(response.headers()["x-why"], "because");
        assert_eq!(response.headers()["content-length"], "5", "the gateway writes that");
        assert_eq!((&*outcome.facts[0].outcome, outcome.error()), ("replied", "details"));
    }
    let outcome = one(&with(Text::default()).on_response_headers(&format!("{answer} (i32.const 0)"))).exchange();
    assert!(matches!(&outcome.response, Some(Ok(Flow::Reply(_)))), "{outcome:?}");
}

const ANSWER: &str =
    "(call $must (call $send_local_response (i32.const 403) `` `no` (i32.const 0) (i32.const 0) (i32.const -1)))";

#[test]
fn an_answer_passes_the_filters_that_have_seen_the_request() {
    let adds = |by: &str| {
        Text::default().on_response_headers(&format!(
            "(call $must (call $add_header_map_value (i32.const 2) `x-by` `{by}`)) (i32.const 0)"
        ))
    };
    let answers = adds("second").on_request_headers(&format!("{ANSWER} (i32.const 0)"));
    let plugins = [("first", &adds("first")), ("second", &answers), ("third", &adds("third"))];
    let mut modules: BTreeMap<_, _> = plugins.iter().map(|(name, text)| (name.parse().unwrap(), text.module())).collect();
    modules.insert("stamp".parse().unwrap(), module(filter("stamp")));
    let mut stage = Stage::empty(Limits::default());
    let chain = ["first", "stamp", "second", "third"].map(|plugin| json!({"plugin": plugin}));
    stage.publish_modules(&[("api", json!(chain))], &modules);
    let outcome = stage.exchange();
    let Ok(Flow::Reply(response)) = &outcome.request else { panic!("{outcome:?}") };
    let by: Vec<_> = response.headers().get_all("x-by").iter().map(|value| value.to_str().unwrap()).collect();
    assert_eq!(by, ["second", "first"], "in reverse order, without the one that the request had not reached");
    assert!(!response.headers().contains_key("x-stamp"), "to typed filters an answer is final");
    let became: Vec<_> = outcome.facts.iter().map(|facts| (facts.plugin.as_str(), &*facts.outcome)).collect();
    assert_eq!(became, [("first", "continued"), ("stamp", "continued"), ("second", "replied")]);
}

#[test]
fn an_answer_that_a_filter_fails_at_fails_with_it_or_goes_on() {
    let answers = Text::default().on_request_headers(&format!("{ANSWER} (i32.const 0)"));
    let fails = Text::default().on_response_headers("unreachable");
    for (on_error, status) in [("skip", Some(403)), ("deny", None)] {
        let chain = json!([{"plugin": "fails", "on_error": on_error}, {"plugin": "answers"}]);
        let outcome = stage(&[("fails", &fails), ("answers", &answers)], chain).exchange();
        let answered = match &outcome.request {
            Ok(Flow::Reply(response)) => Some(response.status().as_u16()),
            _ => None,
        };
        assert_eq!(answered, status, "{outcome:?}");
        assert!(outcome.error().contains("trapped"), "{outcome:?}");
    }
}

#[test]
fn a_filter_that_fails_after_its_answer_is_recorded_as_one_that_answered() {
    let answers = |details: &str| {
        let answer = ANSWER.replace("(i32.const 403) ``", &format!("(i32.const 403) `{details}`"));
        Text::default().on_request_headers(&format!("{answer} (i32.const 0)"))
    };
    // It fails as it is shown its own answer, or at the last call of all; the answer goes on but where its route insists on it.
    let at_answer = |details: &str| answers(details).on_response_headers("unreachable");
    let at_end = |details: &str| answers(details).on("proxy_on_log", "(param i32)", "unreachable");
    for (text, on_error, details, status) in [
        (at_answer("blocked"), "skip", "blocked", Some(403)),
        (at_answer(""), "skip", "", Some(403)),
        (at_answer("blocked"), "deny", "blocked", None),
        (at_end("blocked"), "skip", "blocked", Some(403)),
        (at_end("blocked"), "deny", "blocked", Some(403)),
    ] {
        let outcome = stage(&[("wasm", &text)], json!([{"plugin": "wasm", "on_error": on_error}])).exchange();
        match (&outcome.request, status) {
            (Ok(Flow::Reply(response)), Some(status)) => assert_eq!(response.status(), status, "{outcome:?}"),
            (Err(fault), None) => assert_eq!(fault.reason(), Reason::FilterFailed, "{outcome:?}"),
            _ => panic!("{outcome:?}"),
        }
        assert_eq!(outcome.facts[0].outcome, "replied", "{outcome:?}");
        let error = outcome.error();
        assert!(error.starts_with(details) && error.contains("trapped"), "the answer's details, and the failure: {error}");
    }
}

#[test]
fn a_stream_is_closed_without_an_answer() {
    let text = Text::default().on_request_headers("(call $must (call $close_stream (i32.const 0))) (i32.const 1)");
    assert_eq!(one(&text).exchange().fault().reason(), Reason::FilterReset);
}

/// A value that a filter finds, as text.
fn property(path: &str, entry: serde_json::Value) -> Option<String> {
    let code = format!(
        "(if (i32.eqz (call $get_property `{path}` (i32.const 0) (i32.const 4))) (then
            (call $must (call $add_header_map_value (i32.const 0) `x-it` (i32.load (i32.const 0)) (i32.load (i32.const 4))))))
        (i32.const 0)"
    );
    let mut filter = json!({"plugin": "wasm"});
    filter.as_object_mut().unwrap().extend(entry.as_object().unwrap().clone());
    let outcome = stage(&[("wasm", &Text::default().on_request_headers(&code))], json!([filter])).exchange();
    assert!(outcome.passed(), "{path}: {outcome:?}");
    outcome.request_headers.get("x-it").map(|value| value.to_str().unwrap().to_owned())
}

#[test]
fn properties_say_what_is_known() {
    let rows = [
        ("plugin_name", Some("wasm")),
        ("plugin_root_id", Some("root")),
        ("plugin_vm_id", Some("vm")),
        ("request\\0path", Some("/v1/charges?dry=1")),
        ("request\\0url_path", Some("/v1/charges")),
        ("request\\0query", Some("dry=1")),
        ("request\\0host", Some("api.example.com")),
        ("request\\0scheme", Some("http")),
        ("request\\0method", Some("POST")),
        ("request\\0headers\\0x-tenant", Some("blue")),
        ("request\\0headers\\0absent", None),
        ("request\\0protocol", Some("HTTP/1.1")),
        ("source\\0address", Some("10.1.2.3:40000")),
        ("destination\\0address", Some("10.9.9.9:3128")),
        ("connection\\0requested_server_name", None),
        ("route_name", Some("api")),
        ("cluster_name", Some("api")),
        ("xds\\0cluster_name", Some("api")),
        ("node\\0id", Some("tidegate")),
        ("metadata\\0a\\0b", Some("c")),
        ("response\\0code", None),
        ("upstream\\0address", None),
        ("no\\0such", None),
    ];
    let entry = json!({"root_id": "root", "vm_id": "vm", "metadata": {"a": {"b": "c"}}});
    for (path, value) in rows {
        assert_eq!(property(path, entry.clone()).as_deref(), value, "{path}");
    }
}

#[test]
fn what_a_filter_sets_is_there_for_those_behind_it() {
    let first = Text::default().on_request_headers("(call $must (call $set_property `my\\0value` `kept`)) (i32.const 0)");
    let second = Text::default().on_request_headers(
        "(call $must (call $get_property `my\\0value` (i32.const 0) (i32.const 4)))
        (call $must (call $add_header_map_value (i32.const 0) `x-it` (i32.load (i32.const 0)) (i32.load (i32.const 4)))) (i32.const 0)",
    );
    let plugins = [("first", &first), ("second", &second)];
    let outcome = stage(&plugins, json!([{"plugin": "first"}, {"plugin": "second"}])).exchange();
    assert_eq!(outcome.request_headers["x-it"], "kept");
}

#[test]
fn request_fields_are_still_there_with_the_response() {
    let text = Text::default().on_response_headers(
        "(call $must (call $get_header_map_value (i32.const 0) `:path` (i32.const 0) (i32.const 4)))
        (call $must (call $add_header_map_value (i32.const 2) `x-path` (i32.load (i32.const 0)) (i32.load (i32.const 4))))
        (call $must (call $get_header_map_value (i32.const 2) `:status` (i32.const 0) (i32.const 4)))
        (call $must (call $add_header_map_value (i32.const 2) `x-status` (i32.load (i32.const 0)) (i32.load (i32.const 4))))
        (i32.const 0)",
    );
    let outcome = one(&text).exchange();
    assert_eq!(outcome.response_headers["x-path"], "/v1/charges?dry=1");
    assert_eq!(outcome.response_headers["x-status"], "201");
}

#[test]
fn both_kinds_of_filter_stand_in_one_chain() {
    use crate::setting::{filter, module};
    let stamps = |name: &str| {
        Text::default().on_request_headers(&format!(
            "(call $must (call $add_header_map_value (i32.const 0) `x-order` `{name}`)) (i32.const 0)"
        ))
    };
    let modules = [
        ("one".parse().unwrap(), stamps("one").module()),
        ("stamp".parse().unwrap(), module(filter("stamp"))),
        ("two".parse().unwrap(), stamps("two").module()),
    ];
    let mut stage = Stage::empty(Limits::default());
    let filters = json!([{"plugin": "one"}, {"plugin": "stamp"}, {"plugin": "two"}]);
    stage.publish_modules(&[("api", filters)], &modules.into());
    let outcome = stage.exchange();
    assert!(outcome.passed(), "{outcome:?}");
    let order: Vec<_> = outcome.request_headers.get_all("x-order").iter().collect();
    assert_eq!(order, ["one", "two"]);
    assert_eq!(outcome.request_headers["x-stamp"], "stamped");
}

#[test]
fn the_first_abi_takes_an_absent_field_for_an_empty_one() {
    let code = "(call $must (call $get_header_map_value (i32.const 0) `absent` (i32.const 0) (i32.const 4)))
        (if (i32.load (i32.const 4)) (then unreachable)) (i32.const 0)";
    let text = Text::of("0_1_0").on("proxy_on_request_headers", "(param i32 i32) (result i32)", code);
    assert!(one(&text).exchange().passed());
    assert_eq!(one(&Text::default().on_request_headers(code)).exchange().fault().reason(), Reason::FilterFailed);
}
