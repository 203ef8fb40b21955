//! Every function of the contract, called by the witness as a core module and as a component: what it is told, what becomes of
//! the exchange and what is counted has to be the same.

use crate::setting::{self, FORMS, Flow, Form, Stage, passed_back, passed_on, request, response};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tidegate_gateway::{filter::Limits, http::body::Body};

/// What came of an exchange.
#[derive(Debug, PartialEq)]
struct Told {
    seen: Vec<String>,
    /// Events beside the one that says what was seen, without their times.
    events: Vec<Value>,
    request: Message,
    response: Message,
    /// Headers, bodies, first lines, wishes, attributes, values, metrics and events that were refused.
    refused: [u64; 8],
    page: String,
}

/// A message as it went on.
#[derive(Debug, PartialEq)]
struct Message {
    line: String,
    headers: Vec<(String, HeaderValue)>,
    body: Bytes,
    trailers: Option<HeaderMap>,
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("x-t"), HeaderValue::from_static("1"))])
}

fn sent() -> Body {
    Body::whole(Bytes::from_static(b"one two three"), trailers())
}

async fn gathered(line: String, headers: HeaderMap, body: Body) -> Message {
    let body = body.collect().await.expect("a body");
    let trailers = body.trailers().cloned();
    let headers = headers.iter().map(|(name, value)| (name.as_str().to_owned(), value.clone())).collect();
    Message { line, headers, body: body.to_bytes(), trailers }
}

async fn exchange(stage: &Stage) -> (Message, Message, Vec<tidegate_policy::exchange::AuditEvent>) {
    let run = stage.begin().unwrap();
    let head = request(&[("x-many", "1"), ("x-many", "2"), ("x-empty", "")]);
    let asked = passed_on(&run.0, head, sent()).await;
    let (head, body) = asked.into_parts();
    let asked = gathered(format!("{} {}", head.method, head.uri), head.headers, body).await;
    let answered = passed_back(&run.0, response(), sent()).await;
    let (head, body) = answered.into_parts();
    let answered = gathered(head.status.to_string(), head.headers, body).await;
    let mut facts = run.close();
    assert_eq!(facts[0].error, None, "{facts:?}");
    (asked, answered, facts.remove(0).events)
}

fn told(form: Form, config: &Value) -> Told {
    let grants = json!({"paths": ["/v2/*"]});
    let limits = Limits { callback: std::time::Duration::from_secs(5), event_bytes: 64 << 10, ..Limits::default() };
    let stage = Stage::formed(form, limits, json!([{"plugin": "witness", "config": config, "grants": grants}]));
    let (request, response, events) = exchange(&stage).now_or_never().expect("calls that never suspend");
    let (witness, events): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.kind == "witness");
    let events = events.into_iter().map(|event| {
        let mut fields = event.fields;
        fields.remove("at");
        json!({"kind": event.kind, "outcome": event.outcome, "fields": fields})
    });
    let metrics = stage.host.metrics();
    let counters = [
        &metrics.headers_refused,
        &metrics.bodies_refused,
        &metrics.lines_refused,
        &metrics.wishes_refused,
        &metrics.attributes_refused,
        &metrics.kv_refused,
        &metrics.instruments_refused,
        &metrics.events_dropped,
    ];
    let mut page = tidegate_gateway::telemetry::page::Page::default();
    stage.host.write(&mut page);
    Told {
        seen: witness[0].fields["seen"].as_str().unwrap().lines().map(str::to_owned).collect(),
        events: events.collect(),
        request,
        response,
        refused: counters.map(|counter| counter.value()),
        page: page.text(),
    }
}

/// Everything that can be done with a head.
fn of_a_head() -> Value {
    json!([
        {"get": "x-tenant"}, {"get": "X-Tenant"}, {"get": "x-none"}, {"get": "not a name"}, {"get": "x-empty"},
        {"get": "proxy-authorization"},
        {"get_all": "x-many"}, {"get_all": "x-none"}, {"get_all": "proxy-authorization"},
        {"get_many": ["x-tenant", "x-none", "x-many", "x-empty", "proxy-authorization"]}, {"get_many": []},
        {"entries": null},
        {"set": ["x-set", "1"]}, {"set": ["host", "other"]}, {"set": ["x-bad", "a\nb"]}, {"set": ["a b", "1"]},
        {"append": ["x-many", "3"]}, {"append": ["x-large", "x".repeat(70_000)]},
        {"remove": "x-empty"}, {"remove": "content-length"},
        {"swap": ["x-swapped", "user-agent"]}, {"swap": ["x-half", "host"]},
    ])
}

/// Everything that needs no message.
fn of_the_rest() -> Value {
    json!([
        {"attribute": "caller.principal"}, {"attribute": "target.port"}, {"attribute": "upstream.tls"},
        {"attribute": "state.a"}, {"set_attribute": ["state.a", "ä"]}, {"attribute": "state.a"},
        {"set_attribute": ["service", "no"]}, {"attribute": "none"},
        {"event": ["one", "1"]}, {"event": ["large", "x".repeat(70_000)]},
        {"log": "a message"},
        {"count": ["seen", 2]}, {"count": ["seen", 3]}, {"count": ["Not a name", 1]}, {"gauge": ["seen", 1]},
        {"gauge": ["level", -7]}, {"gauge_add": ["level", 3]}, {"observe": ["size", u64::MAX]},
        {"kv_get": "k"}, {"kv_set": ["k", "value", null]}, {"kv_get": "k"}, {"kv_set": ["t", "", 60_000]}, {"kv_get": "t"},
        {"kv_compare_and_set": ["k", "other", 77]}, {"kv_compare_and_set": ["c", "new", 0]}, {"kv_set": ["k".repeat(2000), "", null]},
        {"increment": ["n", -5]}, {"increment": ["n", 3]}, {"increment": ["k", 1]}, {"kv_remove": "k"}, {"kv_get": "k"},
        {"random": 0}, {"random": 4096},
    ])
}

fn of_the_way_out() -> Value {
    json!([
        {"rewrite": ["PUT", "/v2/other?a=b"]}, {"rewrite": ["PUT", "/v3"]}, {"rewrite": ["P T", "/v2/x"]}, {"rewrite": ["GET", "no"]},
        {"status": 204}, {"status": 100},
        {"service": "nobody"}, {"endpoint": ["10.0.0.1", 443]}, {"endpoint": ["api.example.com", 1]},
        {"tls": {}},
        {"tls": {"mode": "simple", "sni": "api.example.com", "names": ["a.example.com", ""], "min_version": "1.3",
            "alpn": ["h2", "http/1.1"], "trust": "system"}},
        {"tls": {"mode": "disabled", "certificate": "none"}},
        {"secret": {"header": "authorization", "credential": "none", "prefix": "Bearer "}},
    ])
}

fn of_a_body() -> Value {
    json!([
        {"length": null}, {"read": [0, 3]}, {"read": [4, 99]}, {"read": [99, 1]}, {"read": [0, 0]},
        {"splice": [0, 3, "eins"]}, {"splice": [99, 1, "x"]}, {"splice": [4, u64::MAX, "!"]}, {"read": [0, 99]},
        {"fill": 1_100_000}, {"append_body": " end"}, {"take": null}, {"length": null}, {"replace": "new"},
    ])
}

fn together(parts: &[Value]) -> Value {
    parts.iter().flat_map(|part| part.as_array().unwrap().clone()).collect()
}

#[test]
fn what_a_filter_is_told_does_not_depend_on_its_form() {
    let held = json!([{"head": {"set": ["x-held", "1"]}}, {"head": {"get": "x-set"}}]);
    let config = json!({
        "request": together(&[of_a_head(), of_the_way_out(), of_the_rest(), json!([{"flow": "buffer"}])]),
        "request_body": together(&[of_a_body(), held.clone(), of_the_rest()]),
        "request_trailers": together(&[json!([{"get": "x-t"}, {"set": ["x-u", "2"]}, {"entries": null}]), of_a_body(), held.clone()]),
        "response": together(&[of_a_head(), of_the_way_out(), json!([{"flow": "stream"}])]),
        "response_body": together(&[of_a_body(), held.clone(), json!([{"flow": "hold"}])]),
        "response_trailers": together(&[json!([{"get": "x-t"}]), of_a_body(), held]),
        "log": together(&[of_the_rest(), of_the_way_out()]),
    });
    let [as_module, as_component] = FORMS.map(|form| told(form, &config));
    assert_eq!(as_module, as_component);
    // It is the same because it was done, and not because nothing was.
    for line in [
        "get x-tenant: blue",
        "get_all x-many: 1,2",
        "get_many: blue,-,1,,-",
        "set host: a header that filters may not write",
        "length: 13",
        "read: two three",
        "attribute state.a: ä",
        "increment n: -2",
        "random: 4096",
    ] {
        assert!(as_module.seen.iter().any(|seen| seen == line), "{line} is not in {:#?}", as_module.seen);
    }
    assert_eq!(as_module.request.line, "PUT http://api.example.com/v2/other?a=b");
    assert_eq!(as_module.response.line, "204 No Content");
    assert!(as_module.refused.iter().all(|refused| *refused > 0), "{:?}", as_module.refused);
    assert!(as_module.page.contains("metric=\"seen\"} 15"), "{}", as_module.page);
}

#[test]
fn what_a_filter_answers_does_not_depend_on_its_form() {
    let whole = json!({"status": 418, "headers": [["x-a", "1"], ["x-b", ""]], "body": "tea", "details": "it is one"});
    let grpc = json!({"status": 200, "grpc_status": 7, "details": "no"});
    let replies = [("whole", whole), ("grpc", grpc), ("short", json!({"status": 403}))];
    let routes = replies
        .clone()
        .map(|(route, reply)| (route, json!([{"plugin": "witness", "config": {"request": [{"reply": reply}]}}])));
    let [as_module, as_component] = FORMS.map(|form| {
        let mut stage = Stage::formed(form, Limits::default(), json!([]));
        stage.publish_routes(&routes);
        routes.clone().map(|(route, _)| {
            let outcome = stage.exchange_on(route, &[]);
            let Ok(Flow::Reply(reply)) = outcome.request else { panic!("{outcome:?}") };
            let (head, body) = reply.into_parts();
            let body = body.collect().now_or_never().unwrap().unwrap().to_bytes();
            (head.status.as_u16(), head.headers, body)
        })
    });
    assert_eq!(as_module, as_component);
    for ((route, reply), (status, ..)) in replies.iter().zip(&as_module) {
        assert_eq!(u64::from(*status), reply["status"].as_u64().unwrap(), "{route}");
    }
}

#[test]
fn filters_on_the_sdk_say_where_their_free_blocks_are() {
    let name = b"tidegate_free_lists";
    for (filter, module) in setting::filters() {
        assert!(module.windows(name.len()).any(|bytes| bytes == name), "{filter} is asked for every block");
    }
}
