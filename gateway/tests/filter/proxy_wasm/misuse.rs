//! Host functions called wrongly, in every way: each answers with the right status, and nothing is harmed.

use super::written::{Text, stage, stage_with};
use serde_json::json;
use tidegate_gateway::filter::Limits;
use tidegate_policy::Reason;

const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const PARSE_FAILURE: u32 = 4;
const INVALID_MEMORY: u32 = 6;
const INTERNAL: u32 = 10;

/// A pointer and a length that are beyond the memory, which has 128 KiB.
const OUTSIDE: &str = "(i32.const 131070) (i32.const 4)";
/// A pointer and a length whose sum wraps.
const WRAPS: &str = "(i32.const -4) (i32.const 100)";
/// A length of almost 4 GiB.
const HUGE: &str = "(i32.const 0) (i32.const -1)";
/// Two places where a host function may write, and two where it may not.
const PLACES: &str = "(i32.const 0) (i32.const 4)";
const NO_PLACES: &str = "(i32.const 131070) (i32.const 4)";
const NO_SECOND_PLACE: &str = "(i32.const 0) (i32.const -2)";
const NOTHING: &str = "(i32.const 0) (i32.const 0)";

/// Where the lists of pairs that lie lie, and how long they are.
const LIARS: [(&str, &str); 5] = [
    // More pairs than there are.
    ("\\ff\\00\\00\\00", "(i32.const 8192) (i32.const 4)"),
    ("\\ff\\ff\\ff\\ff", "(i32.const 8192) (i32.const 4)"),
    // A name that is longer than the list.
    ("\\01\\00\\00\\00\\ff\\00\\00\\00\\01\\00\\00\\00a\\00b\\00", "(i32.const 8192) (i32.const 16)"),
    ("\\01\\00\\00\\00\\ff\\ff\\ff\\ff\\ff\\ff\\ff\\ffa\\00b\\00", "(i32.const 8192) (i32.const 16)"),
    // No zero behind the name.
    ("\\01\\00\\00\\00\\01\\00\\00\\00\\01\\00\\00\\00axb\\00", "(i32.const 8192) (i32.const 16)"),
];

/// What one call answers, made from a request's head.
fn answered(call: &str, data: &str) -> u32 {
    let text = Text::default().with(&format!("(data (i32.const 8192) \"{data}\")")).on_request_headers(&format!(
        "(local $status i32)
        (local.set $status {call})
        (call $must (call $define_metric (i32.const 1) `status` (i32.const 40)))
        (call $must (call $record_metric (i32.load (i32.const 40)) (i64.extend_i32_u (local.get $status))))
        (i32.const 0)"
    ));
    let stage = stage(&[("wasm", &text)], json!([{"plugin": "wasm"}]));
    let outcome = stage.exchange();
    assert!(outcome.passed(), "{call}: {outcome:?}");
    let mut page = tidegate_gateway::telemetry::page::Page::default();
    stage.host.write(&mut page);
    let page = page.text();
    let status = page.lines().find_map(|line| line.split_once("metric=\"status\"} ")?.1.parse().ok());
    status.unwrap_or_else(|| panic!("{call}: {page}"))
}

/// Makes all of these calls from one request's head, and compares what they answer.
fn check(rows: &[(String, u32)]) {
    let calls = rows
        .iter()
        .enumerate()
        .map(|(row, (call, status))| format!("(call $compare (i32.const {row}) {call} (i32.const {status}))\n"));
    let calls: String = calls.collect();
    // The first that differs is noted: its row, and what it answered.
    let text = Text::default()
        .with(
            "(global $differs (mut i64) (i64.const -1))
            (func $compare (param $row i32) (param $status i32) (param $expected i32)
                (if (i32.and (i32.ne (local.get $status) (local.get $expected)) (i64.eq (global.get $differs) (i64.const -1)))
                    (then (global.set $differs (i64.add
                        (i64.mul (i64.extend_i32_u (local.get $row)) (i64.const 1000)) (i64.extend_i32_u (local.get $status)))))))",
        )
        .on_request_headers(&format!(
            "{calls}
            (call $must (call $define_metric (i32.const 1) `differs` (i32.const 40)))
            (call $must (call $record_metric (i32.load (i32.const 40)) (i64.add (global.get $differs) (i64.const 1))))
            (i32.const 0)"
        ));
    let stage = stage(&[("wasm", &text)], json!([{"plugin": "wasm"}]));
    let outcome = stage.exchange();
    assert!(outcome.passed(), "{outcome:?}");
    let mut page = tidegate_gateway::telemetry::page::Page::default();
    stage.host.write(&mut page);
    let page = page.text();
    let noted = page.lines().find_map(|line| line.split_once("metric=\"differs\"} ")?.1.parse::<usize>().ok());
    if let Some(noted) = noted.expect("it is noted").checked_sub(1) {
        let (call, expected) = &rows[noted / 1000];
        panic!("{call}: {} and not {expected}", noted % 1000);
    }
}

/// The calls that a template makes with each of these arguments in the place of `@`, and what they answer.
fn rows(template: &str, with: &[(&str, u32)]) -> Vec<(String, u32)> {
    with.iter().map(|(argument, status)| (template.replace('@', argument), *status)).collect()
}

/// Texts that are not in the memory.
const BAD_TEXTS: [(&str, u32); 3] = [(OUTSIDE, INVALID_MEMORY), (WRAPS, INVALID_MEMORY), (HUGE, INVALID_MEMORY)];
const BAD_PLACES: [(&str, u32); 2] = [(NO_PLACES, INVALID_MEMORY), (NO_SECOND_PLACE, INVALID_MEMORY)];

#[test]
fn logs_and_clocks() {
    let all = [
        rows("(call $log (i32.const 2) @)", &BAD_TEXTS),
        rows("(call $log (i32.const @) `x`)", &[("6", BAD_ARGUMENT), ("-1", BAD_ARGUMENT), ("0", 0), ("5", 0)]),
        rows("(call $get_log_level (i32.const @))", &[("131070", INVALID_MEMORY), ("-1", INVALID_MEMORY), ("0", 0)]),
        rows(
            "(call $get_current_time_nanoseconds (i32.const @))",
            &[("131065", INVALID_MEMORY), ("-8", INVALID_MEMORY), ("0", 0)],
        ),
        rows("(call $set_tick_period_milliseconds (i32.const @))", &[("-1", 0), ("0", 0)]),
    ];
    check(&all.concat());
}

#[test]
fn header_maps() {
    let numbers: &[(&str, u32)] = &[("8", BAD_ARGUMENT), ("-1", BAD_ARGUMENT)];
    let reads: &[(&str, u32)] = &[("1", NOT_FOUND), ("2", NOT_FOUND), ("3", NOT_FOUND), ("4", NOT_FOUND), ("7", NOT_FOUND)];
    let writes: &[(&str, u32)] = &[
        ("1", BAD_ARGUMENT),
        ("2", BAD_ARGUMENT),
        ("3", BAD_ARGUMENT),
        ("4", BAD_ARGUMENT),
        ("5", BAD_ARGUMENT),
        ("6", BAD_ARGUMENT),
        ("7", BAD_ARGUMENT),
    ];
    let mut all = Vec::new();
    for written in [
        "(call $add_header_map_value (i32.const @) `x-a` `1`)",
        "(call $replace_header_map_value (i32.const @) `x-a` `1`)",
        "(call $remove_header_map_value (i32.const @) `x-a`)",
    ] {
        all.extend(rows(written, numbers));
        all.extend(rows(written, writes));
    }
    all.extend(rows(&format!("(call $get_header_map_value (i32.const @) `x-a` {PLACES})"), numbers));
    all.extend(rows(&format!("(call $get_header_map_value (i32.const @) `x-a` {PLACES})"), reads));
    all.extend(rows(&format!("(call $get_header_map_value (i32.const 0) @ {PLACES})"), &BAD_TEXTS));
    all.extend(rows("(call $get_header_map_value (i32.const 0) `x-tenant` @)", &BAD_PLACES));
    all.extend(rows(&format!("(call $get_header_map_pairs (i32.const @) {PLACES})"), numbers));
    all.extend(rows("(call $get_header_map_pairs (i32.const 0) @)", &BAD_PLACES));
    all.extend(rows("(call $get_header_map_size (i32.const @) (i32.const 0))", numbers));
    all.extend(rows("(call $get_header_map_size (i32.const 0) (i32.const @))", &[("-1", INVALID_MEMORY), ("0", 0)]));
    for name in ["add", "replace"] {
        all.extend(rows(&format!("(call ${name}_header_map_value (i32.const 0) @ `1`)"), &BAD_TEXTS));
        all.extend(rows(&format!("(call ${name}_header_map_value (i32.const 0) `x-a` @)"), &BAD_TEXTS));
        for (field, value) in
            [("`a b`", "`1`"), ("``", "`1`"), ("`x-a`", "`a\u{1}b`"), ("`x\u{e9}`", "`1`"), ("`:path`", "`no-path`")]
        {
            all.push((format!("(call ${name}_header_map_value (i32.const 0) {field} {value})"), BAD_ARGUMENT));
        }
    }
    all.extend(rows("(call $remove_header_map_value (i32.const 0) @)", &BAD_TEXTS));
    all.extend(rows("(call $set_header_map_pairs (i32.const @) (i32.const 0) (i32.const 0))", numbers));
    all.extend(rows("(call $set_header_map_pairs (i32.const @) (i32.const 0) (i32.const 0))", writes));
    all.extend(rows("(call $set_header_map_pairs (i32.const 0) @)", &BAD_TEXTS));
    check(&all);
    for (data, at) in LIARS {
        assert_eq!(answered(&format!("(call $set_header_map_pairs (i32.const 0) {at})"), data), BAD_ARGUMENT, "{data}");
    }
}

#[test]
fn buffers() {
    let numbers: &[(&str, u32)] =
        &[("9", BAD_ARGUMENT), ("-1", BAD_ARGUMENT), ("2", NOT_FOUND), ("3", NOT_FOUND), ("4", NOT_FOUND), ("5", NOT_FOUND)];
    let get = "(i32.const 0) (i32.const 10)";
    let all = [
        rows(&format!("(call $get_buffer_bytes (i32.const @) {get} {PLACES})"), numbers),
        rows(&format!("(call $get_buffer_bytes (i32.const 7) {get} @)"), &BAD_PLACES),
        rows(
            &format!("(call $get_buffer_bytes (i32.const 7) @ {PLACES})"),
            &[
                ("(i32.const -1) (i32.const -2)", BAD_ARGUMENT),
                ("(i32.const -1) (i32.const 0)", 0),
                ("(i32.const 0) (i32.const -1)", 0),
            ],
        ),
        rows(&format!("(call $get_buffer_status (i32.const @) {PLACES})"), numbers),
        rows("(call $get_buffer_status (i32.const 0) @)", &BAD_PLACES),
        rows(
            &format!("(call $set_buffer_bytes (i32.const @) {NOTHING} `x`)"),
            &[("9", BAD_ARGUMENT), ("7", BAD_ARGUMENT), ("2", BAD_ARGUMENT)],
        ),
        rows(&format!("(call $set_buffer_bytes (i32.const 0) {NOTHING} @)"), &BAD_TEXTS),
        rows("(call $get_configuration @)", &BAD_PLACES),
    ];
    check(&all.concat());
}

#[test]
fn streams() {
    let all = [
        rows("(call $continue_stream (i32.const @))", &[("4", BAD_ARGUMENT), ("-1", BAD_ARGUMENT), ("2", 0), ("3", 0)]),
        rows("(call $close_stream (i32.const @))", &[("4", BAD_ARGUMENT), ("-1", BAD_ARGUMENT)]),
        rows(
            "(call $set_effective_context (i32.const @))",
            &[("0", BAD_ARGUMENT), ("77", BAD_ARGUMENT), ("-1", BAD_ARGUMENT), ("1", 0)],
        ),
        rows(
            &format!("(call $send_local_response (i32.const @) `` `` {NOTHING} (i32.const -1))"),
            &[("0", BAD_ARGUMENT), ("199", BAD_ARGUMENT), ("600", BAD_ARGUMENT), ("65736", BAD_ARGUMENT), ("-1", BAD_ARGUMENT)],
        ),
        rows(&format!("(call $send_local_response (i32.const 200) @ `` {NOTHING} (i32.const -1))"), &BAD_TEXTS),
        rows(&format!("(call $send_local_response (i32.const 200) `` @ {NOTHING} (i32.const -1))"), &BAD_TEXTS),
        rows("(call $send_local_response (i32.const 200) `` `` @ (i32.const -1))", &BAD_TEXTS),
        vec![("(call $done)".to_owned(), 0), ("(call $clear_route_cache)".to_owned(), 0)],
    ];
    check(&all.concat());
    for (data, at) in LIARS {
        let call = format!("(call $send_local_response (i32.const 200) `` `` {at} (i32.const -1))");
        assert_eq!(answered(&call, data), BAD_ARGUMENT, "{data}");
    }
}

#[test]
fn calls() {
    let http = |upstream: &str, fields: &str, body: &str, trailers: &str, id: &str| {
        format!("(call $http_call {upstream} {fields} {body} {trailers} (i32.const 0) (i32.const {id}))")
    };
    let mut all = Vec::new();
    for (bad, status) in BAD_TEXTS {
        all.push((http(bad, NOTHING, NOTHING, NOTHING, "0"), status));
        all.push((http("`api`", bad, NOTHING, NOTHING, "0"), status));
        all.push((http("`api`", NOTHING, bad, NOTHING, "0"), status));
        all.push((http("`api`", NOTHING, NOTHING, bad, "0"), status));
        for at in 0..5 {
            let texts = ["`api`", "`s`", "`m`", NOTHING, NOTHING];
            let texts: Vec<_> = texts.iter().enumerate().map(|(place, text)| if place == at { bad } else { text }).collect();
            all.push((format!("(call $grpc_call {} (i32.const 0) (i32.const 0))", texts.join(" ")), status));
            if at < 4 {
                all.push((format!("(call $grpc_stream {} (i32.const 0))", texts[..4].join(" ")), status));
            }
        }
    }
    all.push((http("`api`", NOTHING, NOTHING, NOTHING, "0"), BAD_ARGUMENT));
    all.push((http("`api`", NOTHING, NOTHING, NOTHING, "-1"), INVALID_MEMORY));
    all.push((format!("(call $grpc_call `nobody` `s` `m` {NOTHING} {NOTHING} (i32.const 0) (i32.const 0))"), PARSE_FAILURE));
    all.push((format!("(call $grpc_stream `nobody` `s` `m` {NOTHING} (i32.const 0))"), PARSE_FAILURE));
    all.extend(rows("(call $grpc_send (i32.const 99) @ (i32.const 0))", &BAD_TEXTS));
    all.push(("(call $grpc_send (i32.const 99) `x` (i32.const 0))".to_owned(), BAD_ARGUMENT));
    all.extend(rows("(call $grpc_cancel (i32.const @))", &[("0", NOT_FOUND), ("-1", NOT_FOUND)]));
    all.extend(rows("(call $grpc_close (i32.const @))", &[("0", NOT_FOUND), ("-1", NOT_FOUND)]));
    all.extend(rows(&format!("(call $get_status (i32.const @) {PLACES})"), &[("-1", INVALID_MEMORY), ("8", 0)]));
    all.extend(rows("(call $get_status (i32.const 8) @)", &BAD_PLACES));
    check(&all);
    for (data, at) in LIARS {
        assert_eq!(answered(&http("`api`", at, NOTHING, NOTHING, "0"), data), BAD_ARGUMENT, "{data}");
        let call = format!("(call $grpc_call `api` `s` `m` {at} {NOTHING} (i32.const 0) (i32.const 0))");
        assert_eq!(answered(&call, data), BAD_ARGUMENT, "{data}");
    }
}

#[test]
fn shared_values_queues_and_metrics() {
    let places: &[(&str, u32)] = &[("131070", INVALID_MEMORY), ("-1", INVALID_MEMORY)];
    let all = [
        rows(&format!("(call $get_shared_data @ {PLACES} (i32.const 8))"), &BAD_TEXTS),
        rows(&format!("(call $get_shared_data `k` {PLACES} (i32.const @))"), places),
        rows("(call $set_shared_data @ `v` (i32.const 0))", &BAD_TEXTS),
        rows("(call $set_shared_data `k` @ (i32.const 0))", &BAD_TEXTS),
        vec![("(call $set_shared_data (i32.const 0) (i32.const 2000) `v` (i32.const 0))".to_owned(), INTERNAL)],
        rows("(call $register_shared_queue @ (i32.const 0))", &BAD_TEXTS),
        rows("(call $register_shared_queue `q` (i32.const @))", places),
        rows("(call $resolve_shared_queue @ `q` (i32.const 0))", &BAD_TEXTS),
        rows("(call $resolve_shared_queue `` @ (i32.const 0))", &BAD_TEXTS),
        rows("(call $enqueue_shared_queue (i32.const 9) @)", &BAD_TEXTS),
        rows(&format!("(call $dequeue_shared_queue (i32.const @) {PLACES})"), &[("0", NOT_FOUND), ("-1", NOT_FOUND)]),
        rows("(call $define_metric (i32.const @) `m` (i32.const 0))", &[("3", BAD_ARGUMENT), ("-1", BAD_ARGUMENT)]),
        rows("(call $define_metric (i32.const 0) @ (i32.const 0))", &BAD_TEXTS),
        rows("(call $define_metric (i32.const 0) `m` (i32.const @))", places),
        rows("(call $increment_metric (i32.const @) (i64.const 1))", &[("50", BAD_ARGUMENT), ("-1", BAD_ARGUMENT)]),
        rows("(call $record_metric (i32.const @) (i64.const 1))", &[("50", NOT_FOUND), ("-1", NOT_FOUND)]),
        rows("(call $get_metric (i32.const @) (i32.const 0))", &[("50", BAD_ARGUMENT), ("-1", BAD_ARGUMENT)]),
    ];
    check(&all.concat());
}

#[test]
fn properties_and_foreign_functions() {
    let all = [
        rows(&format!("(call $get_property @ {PLACES})"), &BAD_TEXTS),
        rows("(call $get_property `plugin_name` @)", &BAD_PLACES),
        rows(&format!("(call $get_property @ {PLACES})"), &[("``", NOT_FOUND), ("`\\0\\0`", NOT_FOUND)]),
        rows("(call $set_property @ `v`)", &BAD_TEXTS),
        rows("(call $set_property `p` @)", &BAD_TEXTS),
        rows(&format!("(call $call_foreign_function @ `` {PLACES})"), &BAD_TEXTS),
        rows(&format!("(call $call_foreign_function `tidegate.audit` @ {PLACES})"), &BAD_TEXTS),
        rows("(call $call_foreign_function `tidegate.attribute` `{\"name\": \"service\"}` @)", &BAD_PLACES),
    ];
    check(&all.concat());
}

#[test]
fn the_allocator_may_log_and_ask_for_the_time_and_nothing_else() {
    let rows = [
        ("(call $log (i32.const 2) `x`)", 0),
        ("(call $get_current_time_nanoseconds (i32.const 48))", 0),
        ("(call $get_header_map_value (i32.const 0) `x-tenant` (i32.const 0) (i32.const 4))", INTERNAL),
        ("(call $remove_header_map_value (i32.const 0) `x-tenant`)", INTERNAL),
        ("(call $continue_stream (i32.const 0))", INTERNAL),
        ("(call $set_effective_context (i32.const 1))", INTERNAL),
        ("(call $get_log_level (i32.const 48))", INTERNAL),
    ];
    for (call, status) in rows {
        let text = Text::default()
            .with("(global $told (mut i32) (i32.const -1))")
            .allocating(&format!("(global.set $told {call})"))
            .on_request_headers(&format!(
                "(call $must (call $get_header_map_value (i32.const 0) `x-tenant` (i32.const 0) (i32.const 4)))
                (if (i32.ne (global.get $told) (i32.const {status})) (then unreachable)) (i32.const 0)"
            ));
        let outcome = stage(&[("wasm", &text)], json!([{"plugin": "wasm"}])).exchange();
        assert!(outcome.passed(), "{call}: {outcome:?}");
        assert_eq!(outcome.request_headers["x-tenant"], "blue");
    }
}

#[test]
fn an_allocator_that_lies_or_fails_costs_its_own_exchange_at_most() {
    let get = format!("(call $get_header_map_value (i32.const 0) `x-tenant` {PLACES})");
    for (allocate, status) in [
        ("(return (i32.const 0))", INVALID_MEMORY),
        ("(return (i32.const 131071))", INVALID_MEMORY),
        ("(return (i32.const -1))", INVALID_MEMORY),
    ] {
        let text = Text::default()
            .allocating(allocate)
            .on_request_headers(&format!("(if (i32.ne {get} (i32.const {status})) (then unreachable)) (i32.const 0)"));
        let outcome = stage(&[("wasm", &text)], json!([{"plugin": "wasm"}])).exchange();
        assert!(outcome.passed(), "{allocate}: {outcome:?}");
    }
    for allocate in ["unreachable", "(loop (br 0))"] {
        let text = Text::default().allocating(allocate).on_request_headers(&format!("(drop {get}) (i32.const 0)"));
        let outcome = stage(&[("wasm", &text)], json!([{"plugin": "wasm"}])).exchange();
        assert_eq!(outcome.fault().reason(), Reason::FilterFailed, "{allocate}");
    }
}

#[test]
fn a_start_section_may_call_the_host() {
    let text = Text::default().with("(func $begin (call $must (call $log (i32.const 2) `started`))) (start $begin)");
    assert!(stage(&[("wasm", &text)], json!([{"plugin": "wasm"}])).exchange().passed());
}

#[test]
fn a_context_that_has_ended_is_about_nothing() {
    let text = Text::default().with("(global $last (mut i32) (i32.const 0))").on_request_headers(
        "(if (global.get $last) (then
            (call $must (call $set_effective_context (global.get $last)))
            (if (i32.ne (call $get_header_map_value (i32.const 0) `x-tenant` (i32.const 0) (i32.const 4)) (i32.const 1)) (then unreachable))
            (if (i32.ne (call $continue_stream (i32.const 0)) (i32.const 2)) (then unreachable))
            (call $must (call $set_effective_context (local.get $context)))))
        (global.set $last (local.get $context)) (i32.const 0)",
    );
    let stage = stage(&[("wasm", &text)], json!([{"plugin": "wasm"}]));
    assert!(stage.exchange().passed());
    let outcome = stage.exchange();
    assert!(outcome.passed(), "{outcome:?}");
}

#[test]
fn limits_on_fields_hold() {
    let add = "(call $add_header_map_value (i32.const 0) `x-long` (i32.const 1024) (i32.const 9000))";
    let text = Text::default().with("(func $fill (memory.fill (i32.const 1024) (i32.const 118) (i32.const 9000)))").on_request_headers(&format!(
        "(call $fill) (call $must {add}) (call $must {add}) (if (i32.ne {add} (i32.const {INTERNAL})) (then unreachable)) (i32.const 0)"
    ));
    let limits = Limits { header_bytes: 20_000, ..Limits::default() };
    let stage = stage_with(limits, &[("wasm", &text)], json!([{"plugin": "wasm"}]));
    assert!(stage.exchange().passed());
    assert_eq!(stage.host.metrics().headers_refused.value(), 1);
}
