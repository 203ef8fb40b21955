//! Tests of the filter as the gateway runs it: whole exchanges with a scripted API.

use crate::framing;
use crate::request::{self, write::Unknown};
use crate::{JsonGrpc, samples, status, wire};
use base64::Engine;
use serde_json::{Value, json};
use tidegate_sdk::StatusCode;
use tidegate_sdk::testing::{Driver, Message, Scripted};

const GRPC: [(&str, &str); 3] = [("content-type", "application/grpc"), ("grpc-encoding", "identity"), ("x-id", "7")];
const JSON: [(&str, &str); 2] = [("content-type", "application/json; charset=utf-8"), ("accept-encoding", "gzip")];

fn driver(config: Value) -> Driver<JsonGrpc> {
    let mut whole = json!({"descriptors": base64::engine::general_purpose::STANDARD.encode(samples::set("shop.proto"))});
    whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    Driver::new(whole).unwrap().grants(json!({"paths": ["/shop.v1.Orders/*"]}))
}

fn asking<'a>(driver: &'a Driver<JsonGrpc>, method: &str, target: &str) -> Scripted<'a, JsonGrpc> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let exchange = driver.exchange().attribute("request.method", method).attribute("request.path", path);
    if query.is_empty() { exchange } else { exchange.attribute("request.query", query) }
}

fn wire(name: &str, json: &str) -> Vec<u8> {
    let (schema, id) = samples::message("shop.proto", name);
    request::message(&schema, id, Unknown::Refuse, json.as_bytes()).unwrap()
}

fn frame(name: &str, json: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    framing::reserve(&mut frame);
    frame.extend(wire(name, json));
    framing::fill(&mut frame);
    frame
}

fn order(json: &str) -> Vec<u8> {
    frame("shop.v1.Order", json)
}

/// What the caller got: status, content type, body.
fn got(exchange: &Scripted<'_, JsonGrpc>) -> (u16, String, String) {
    assert_eq!(exchange.failure(), None);
    let received = exchange.caller().unwrap_or_else(|| panic!("no answer: {exchange:?}"));
    let kind = received.header("content-type").unwrap_or_default().to_owned();
    (exchange.status().unwrap().as_u16(), kind, String::from_utf8(received.body.clone()).unwrap())
}

/// A problem: its status, detail, and where.
fn problem(exchange: &Scripted<'_, JsonGrpc>) -> (u16, String, Value) {
    let (status, kind, body) = got(exchange);
    assert_eq!(kind, "application/problem+json", "{body}");
    let problem: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(problem["status"], status);
    (status, problem["detail"].as_str().unwrap().to_owned(), problem["errors"][0].clone())
}

#[test]
fn a_call_goes_to_the_api_and_its_message_comes_back() {
    let driver = driver(json!({}));
    let sent = Message::new(JSON).body([r#"{"name": "n", "#, r#""state": "OPEN"}"#]);
    let exchange = asking(&driver, "POST", "/v1/shops/1/orders?request_id=r").request(sent);
    assert_eq!(exchange.rewritten(), Some(("POST", "/shop.v1.Orders/CreateOrder")));
    let upstream = exchange.upstream().unwrap();
    let expected = r#"{"order": {"name": "n", "state": "OPEN"}, "parent": "shops/1", "requestId": "r"}"#;
    let mut sorted = frame("shop.v1.CreateOrderRequest", expected);
    let (mut one, mut another) = (sorted.split_off(5), upstream.body[5..].to_vec());
    one.sort_unstable();
    another.sort_unstable();
    assert_eq!(one, another, "the same fields, in the order of body, path and query");
    assert_eq!(upstream.header("content-type"), Some("application/grpc"));
    assert_eq!(upstream.header("grpc-accept-encoding"), Some("identity"));
    assert_eq!((upstream.header("accept-encoding"), upstream.header("grpc-timeout")), (None, None));
    let answer = order(r#"{"name": "shops/1/orders/2", "totalMinor": "5"}"#);
    let pieces: Vec<_> = answer.chunks(3).collect();
    let trailers = [("grpc-status", "0"), ("grpc-message", ""), ("x-cost", "3")];
    let exchange = exchange.response(StatusCode::OK, Message::new(GRPC).body(pieces).trailers(trailers));
    let expected = (200, "application/json".to_owned(), r#"{"name":"shops/1/orders/2","totalMinor":"5"}"#.to_owned());
    assert_eq!(got(&exchange), expected);
    let received = exchange.caller().unwrap();
    assert_eq!((received.header("x-id"), received.header("grpc-encoding")), (Some("7"), None));
    assert_eq!(received.trailers.as_ref().unwrap().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["x-cost"]);
    assert_eq!((driver.counter("calls"), driver.counter("refusals"), driver.counter("bad_answers")), (1, 0, 0));
}

#[test]
fn a_request_without_a_body_becomes_a_message() {
    let driver = driver(json!({}));
    let exchange = asking(&driver, "GET", "/v1/shops/1/orders?page_size=2").request([("accept", "application/json")]);
    let upstream = exchange.upstream().unwrap();
    assert_eq!(upstream.body, frame("shop.v1.ListOrdersRequest", r#"{"parent": "shops/1", "pageSize": 2}"#));
    let answer = frame("shop.v1.ListOrdersResponse", r#"{"orders": [{"name": "a"}, {}], "nextPageToken": "t"}"#);
    let exchange = exchange.response(StatusCode::OK, Message::new(GRPC).body([answer]).trailers([("grpc-status", "0")]));
    assert_eq!(got(&exchange).2, r#"[{"name":"a"},{}]"#, "response_body names the list");
    let exchange = asking(&driver, "GET", "/v1/shops/1/orders").request([]);
    let exchange = exchange.response(StatusCode::OK, Message::new(GRPC).body([[0; 5]]).trailers([("grpc-status", "0")]));
    assert_eq!(got(&exchange).2, "[]");
}

#[test]
fn a_request_may_end_with_trailers() {
    let driver = driver(json!({}));
    let sent = Message::new(JSON).body([r#"{"name": "#, r#""n"}"#]).trailers([("x-digest", "1"), ("x-digest", "2")]);
    let exchange = asking(&driver, "POST", "/shop.v1.Orders/Plain").request(sent);
    let upstream = exchange.upstream().unwrap();
    assert_eq!(upstream.body, order(r#"{"name": "n"}"#));
    assert!(upstream.trailers.as_ref().is_none_or(|trailers| trailers.is_empty()), "gRPC has none there: {upstream:?}");
    let exchange = exchange.response(StatusCode::OK, Message::new(GRPC).body([order("{}")]).trailers([("grpc-status", "0")]));
    assert_eq!(got(&exchange).2, "{}");
    let sent = Message::new(JSON).body(["{"]).trailers([("x-digest", "1")]);
    assert_eq!(problem(&asking(&driver, "POST", "/shop.v1.Orders/Plain").request(sent)).0, 400);
}

#[test]
fn a_status_becomes_that_of_http_with_its_details() {
    let driver = driver(json!({}));
    let item = wire("shop.v1.Item", r#"{"sku": "a"}"#);
    let details = status::wire(5, "no such order", &[("type.googleapis.com/shop.v1.Item", &item)]);
    let details = base64::engine::general_purpose::STANDARD_NO_PAD.encode(details);
    let fields = [("grpc-status", "5"), ("grpc-message", "no%20such order"), ("grpc-status-details-bin", &details)];
    let expected = r#"{"code":5,"message":"no such order","details":[{"@type":"type.googleapis.com/shop.v1.Item","sku":"a"}]}"#;
    let expected = (404, "application/json".to_owned(), expected.to_owned());
    for target in ["/v1/shops/1/orders/2", "/v1/shops/1/orders:watch"] {
        let ask = || asking(&driver, "GET", target).request([]);
        let only = [("content-type", "application/grpc"), fields[0], fields[1], fields[2]];
        let trailers_only = ask().response(StatusCode::OK, only);
        assert_eq!(got(&trailers_only), expected, "{target}: trailers only");
        assert_eq!(trailers_only.caller().unwrap().headers.len(), 1, "{target}: {trailers_only:?}");
        assert!(trailers_only.replied().is_none(), "the API said it, not the filter");
        let after_head = ask().response(StatusCode::OK, Message::new(GRPC).body([""]).trailers(fields));
        assert_eq!(got(&after_head), expected, "{target}: after a head");
        assert_eq!(after_head.caller().unwrap().trailers, None, "nothing is left of them");
    }
    let exchange = asking(&driver, "GET", "/v1/shops/1/orders/2").request([]);
    let message = Message::new(GRPC).body([order("{}")]).trailers([("grpc-status", "13"), ("grpc-message", "late")]);
    assert_eq!(got(&exchange.response(StatusCode::OK, message)).2, r#"{"code":13,"message":"late","details":[]}"#);
}

#[test]
fn streams_are_lines_or_an_array() {
    let by_config = |streams: &str| driver(json!({"streams": streams}));
    let cases = [
        ("ndjson", "", "application/x-ndjson", "{\"name\":\"a\"}\n{}\n", ""),
        ("array", "*/*", "application/json", "[{\"name\":\"a\"}\n,{}\n", "]\n"),
        ("ndjson", "application/json", "application/json", "[{\"name\":\"a\"}\n,{}\n", "]\n"),
        ("array", "application/x-ndjson", "application/x-ndjson", "{\"name\":\"a\"}\n{}\n", ""),
    ];
    for (streams, accept, kind, messages, end) in cases {
        let driver = by_config(streams);
        let exchange = asking(&driver, "GET", "/v1/shops/1/orders:watch").request([("accept", accept)]);
        let exchange = exchange.response_head(StatusCode::OK, GRPC);
        let bytes = [order(r#"{"name": "a"}"#), order("{}")].concat();
        let exchange = exchange.response_body(&bytes[..3]).response_body(&bytes[3..6]);
        assert!(exchange.caller().is_none(), "nothing before the first message");
        let exchange = exchange.response_body(&bytes[6..]);
        assert_eq!(got(&exchange), (200, kind.to_owned(), messages.to_owned()), "{streams} {accept}: as they come");
        let exchange = exchange.response_trailers([("grpc-status", "0")]);
        assert_eq!(got(&exchange).2, format!("{messages}{end}"), "{streams} {accept}");
        let failed = asking(&driver, "GET", "/v1/shops/1/orders:watch").request([("accept", accept)]);
        let failed = failed.response_head(StatusCode::OK, GRPC).response_body(&bytes);
        let failed = failed.response_trailers([("grpc-status", "14"), ("grpc-message", "gone")]);
        let comma = if end.is_empty() { "" } else { "," };
        let error = format!("{messages}{comma}{{\"error\":{{\"code\":14,\"message\":\"gone\",\"details\":[]}}}}\n{end}");
        assert_eq!(got(&failed), (200, kind.to_owned(), error));
        for empty in
            [Message::new(GRPC).body([""]).trailers([("grpc-status", "0")]), Message::new([GRPC[0], ("grpc-status", "0")])]
        {
            let exchange = asking(&driver, "GET", "/v1/shops/1/orders:watch").request([("accept", accept)]);
            let body = if end.is_empty() { "" } else { "[]\n" };
            assert_eq!(got(&exchange.response(StatusCode::OK, empty)), (200, kind.to_owned(), body.to_owned()));
        }
    }
}

#[test]
fn a_stream_that_breaks_says_so_and_ends() {
    let driver = driver(json!({}));
    let watch = || asking(&driver, "GET", "/v1/shops/1/orders:watch").request([]).response_head(StatusCode::OK, GRPC);
    let bad = [0, 0, 0, 0, 2, 0x0a, 5];
    let broken = watch().response_body([order("{}"), bad.to_vec()].concat());
    let (status, _, body) = got(&broken);
    assert_eq!(status, 200);
    assert!(
        body.starts_with(
            "{}\n{\"error\":{\"code\":13,\"message\":\"the answer of the API cannot be converted: the message ends"
        ),
        "{body}"
    );
    assert!(!broken.is_reset() && broken.response_body(order("{}")).is_reset(), "what comes then is not waited for");
    let first = watch().response_body(bad);
    assert_eq!((problem(&first).0, first.rewritten().is_some()), (502, true), "before anything was sent, the status says it");
    let cut = watch().response_body(order("{}")).response_body([0, 0, 0]).response_trailers([("grpc-status", "0")]);
    assert!(got(&cut).2.contains("the body ends in the middle of a message"));
    let ended = watch().response_body(order("{}")).response_end();
    assert!(got(&ended).2.contains("it ended without a gRPC status"));
    assert_eq!(problem(&watch().response_end()).0, 502);
    assert!(got(&watch().response_body(order("{}")).response_trailers([])).2.contains("the API said no status"));
}

#[test]
fn what_is_no_call_is_refused_before_the_api_sees_it() {
    let driver = driver(json!({"max_request_bytes": 100}));
    let post = |headers: [(&str, &str); 1], body: &str| {
        asking(&driver, "POST", "/v1/shops/1/orders").request(Message::new(headers).body([body]))
    };
    let json = [("content-type", "application/json")];
    let big = format!("{{\"name\": \"{}\"}}", "x".repeat(90));
    let cases = [
        (asking(&driver, "GET", "/nope").request([]), 404, "GET /nope is no method of the API", json!(null)),
        (asking(&driver, "PUT", "/v1/shops/1/orders").request([]), 405, "use GET, POST", json!(null)),
        (asking(&driver, "POST", "/shop.v1.Orders/Upload").request([]), 501, "takes a stream of messages", json!(null)),
        (post([("content-type", "text/xml")], "<a/>"), 415, "the body is text/xml", json!(null)),
        (post([("content-type", "application/json; charset=latin1")], "{}"), 415, "character set \"latin1\"", json!(null)),
        (post([("content-encoding", "gzip")], "{}"), 415, "encoded with \"gzip\"", json!(null)),
        (post(json, "{"), 400, "not JSON", json!("")),
        (post(json, r#"{"items": [{"quantity": -1}]}"#), 400, "-1 is out of the type's range", json!("/items/0/quantity")),
        (post([("content-length", "101")], "{}"), 413, "larger than the 100 bytes", json!(null)),
        (post(json, &"x".repeat(101)), 413, "larger than the 100 bytes", json!(null)),
        (post(json, &big), 413, "larger than the 100 bytes", json!(null)),
        (post([("grpc-timeout", "soon")], "{}"), 400, "grpc-timeout: \"soon\" is not", json!(null)),
        (
            asking(&driver, "GET", "/v1/orders/a").request(Message::new(json).body(["{}"])),
            400,
            "this call has no body",
            json!(""),
        ),
    ];
    for (exchange, status, detail, pointer) in cases {
        let (got, said, place) = problem(&exchange);
        assert_eq!((got, &place["pointer"]), (status, &pointer), "{said}");
        assert!(said.contains(detail), "{said}");
        assert!(exchange.upstream().is_none(), "{said}");
    }
    let refused = asking(&driver, "GET", "/v1/orders/a?nope=1").request([]);
    assert_eq!(problem(&refused).2["parameter"], "nope");
    let refused = asking(&driver, "PUT", "/v1/tags/x").request([]);
    assert_eq!(problem(&refused).2["path"], "number");
    let refused = asking(&driver, "PUT", "/v1/shops/1/orders").request([]);
    assert_eq!(refused.caller().unwrap().header("allow"), Some("GET, POST"));
    assert_eq!(driver.counter("refusals"), 16);
}

#[test]
fn what_the_api_answers_wrongly_is_a_bad_gateway() {
    let driver = driver(json!({"max_response_bytes": 100}));
    let get = || asking(&driver, "GET", "/v1/shops/1/orders/2").request([]);
    let ok = [("grpc-status", "0")];
    let one = |body: &[u8]| get().response(StatusCode::OK, Message::new(GRPC).body([body]).trailers(ok));
    let two = [order("{}"), order("{}")].concat();
    let cases = [
        (one(&[0, 0, 0, 0, 2, 0x0a, 5]), "the message ends in the middle of a field", json!("")),
        (one(&[0, 0, 0, 0, 3, 0x0a, 1, 0xff]), "a string is not UTF-8", json!("/name")),
        (one(&two), "more than the one message", json!(null)),
        (one(&[0, 0, 0, 0, 9]), "ends in the middle of a message", json!(null)),
        (one(&[1, 0, 0, 0, 1, 0]), "the message is compressed", json!(null)),
        (one(&[0, 0, 0, 0, 101]), "larger than the 100 of `max_response_bytes`", json!(null)),
        (one(b"{\"json\": 1}"), "a message begins with 123", json!(null)),
        (get().response(StatusCode::OK, Message::new(GRPC).body([""]).trailers(ok)), "a status, but no message", json!(null)),
        (get().response(StatusCode::OK, [GRPC[0], ok[0]]), "a status, but no message", json!(null)),
        (get().response(StatusCode::OK, GRPC), "neither a message nor a status", json!(null)),
        (get().response(StatusCode::OK, Message::new(GRPC).body([order("{}")])), "ended without a gRPC status", json!(null)),
        (
            get().response(StatusCode::OK, Message::new([("content-type", "text/html")]).body(["<p>"])),
            "it is \"text/html\", not application/grpc",
            json!(null),
        ),
    ];
    let count = cases.len() as u64;
    for (exchange, detail, pointer) in cases {
        let (status, said, place) = problem(&exchange);
        assert_eq!((status, &place["pointer"]), (502, &pointer), "{said}");
        assert!(said.starts_with("the answer of the API cannot be converted: ") && said.contains(detail), "{said}");
        assert_eq!(exchange.logged().len(), 1);
    }
    assert_eq!(driver.counter("bad_answers"), count);
    let none = get().response(StatusCode::OK, Message::new(GRPC).body([order("{}")]).trailers([]));
    assert_eq!(got(&none).2, r#"{"code":2,"message":"the API said no status","details":[]}"#);
}

/// A byte on the wire can be many of JSON: what is made of a message has the message's own limit.
#[test]
fn what_would_be_too_large_as_json_is_a_bad_gateway() {
    let source = r#"syntax = "proto3"; import "google/protobuf/struct.proto";
        message M { repeated int64 n = 1; string s = 2; bytes b = 3; google.protobuf.ListValue l = 4; }
        service S { rpc Get(M) returns (M); rpc Watch(M) returns (stream M); }"#;
    let set = base64::engine::general_purpose::STANDARD.encode(samples::set_of(source));
    let driver = Driver::<JsonGrpc>::new(json!({"descriptors": set})).unwrap().grants(json!({"paths": ["/S/*"]}));
    let framed = |field: u32, value: &[u8]| {
        let mut frame = Vec::new();
        framing::reserve(&mut frame);
        wire::put_bytes(&mut frame, field, value);
        framing::fill(&mut frame);
        frame
    };
    let ask = |path| asking(&driver, "POST", path).request(Message::new(JSON).body(["{}"]));
    let too_large = "its JSON would be larger than the 1048576 bytes of `max_response_bytes`";
    for (field, value, pointer) in [
        (1, vec![1; 900_000], "/n/"),
        (2, vec![1; 900_000], "/s"),
        (2, vec![b'x'; 1_048_570], "/s"),
        (3, vec![1; 900_000], "/b"),
        (4, [0x0a, 2, 8, 0].repeat(250_000), "/l/"),
    ] {
        let answer = framed(field, &value);
        let unary = ask("/S/Get").response_head(StatusCode::OK, GRPC).response_body(&answer);
        let unary = unary.response_trailers([("grpc-status", "0")]);
        let (status, said, place) = problem(&unary);
        assert_eq!(status, 502);
        assert!(said.contains(too_large), "{field}: {said}");
        assert!(place["pointer"].as_str().unwrap().starts_with(pointer), "{place}");
        let watch = || ask("/S/Watch").response_head(StatusCode::OK, GRPC);
        assert_eq!(problem(&watch().response_body(&answer)).0, 502, "nothing has gone yet");
        let later = watch().response_body([0; 5]).response_body(&answer);
        assert!(got(&later).2.starts_with("{}\n{\"error\":{\"code\":13,") && got(&later).2.contains(too_large));
        assert!(later.response_body([0; 5]).is_reset(), "what comes then is not waited for");
    }
    let many = framed(1, &[1; 60_000]).repeat(7);
    let watch = || ask("/S/Watch").response_head(StatusCode::OK, GRPC);
    assert!(problem(&watch().response_body(&many)).1.contains("filter_body_bytes"), "more at once than the gateway holds");
    let later = got(&watch().response_body([0; 5]).response_body(&many)).2;
    assert!(later.starts_with("{}\n{\"error\":") && later.contains("filter_body_bytes"), "{later}");
    let last = got(&watch().response_body(framed(1, &[1; 200_000])).response_trailers([("grpc-status", "0")])).2;
    assert_eq!(last.len(), r#"{"n":[]}"#.len() + 200_000 * 4, "{}", &last[..40]);
}

#[test]
fn another_status_of_http_is_read_as_grpc_says() {
    let driver = driver(json!({}));
    for target in ["/v1/shops/1/orders/2", "/v1/shops/1/orders:watch"] {
        for (http, code, status) in
            [(503, 14, 503), (404, 12, 501), (401, 16, 401), (403, 7, 403), (500, 2, 500), (302, 2, 500)]
        {
            let response = StatusCode::from_u16(http).unwrap();
            let page = Message::new([("content-type", "text/html")]).body(["<p>", "no"]);
            let exchange = asking(&driver, "GET", target).request([]).response(response, page);
            let body = format!(r#"{{"code":{code},"message":"the API answered HTTP {http} and no gRPC status","details":[]}}"#);
            assert_eq!(got(&exchange), (status, "application/json".to_owned(), body), "{target} {http}");
            let bare = asking(&driver, "GET", target).request([]).response(response, []);
            assert_eq!(got(&bare).0, status);
        }
    }
}

#[test]
fn deadlines_reach_the_api() {
    let driver = driver(json!({"deadline": {"default": "10s", "max": "30s", "header": "X-Timeout"}}));
    let timeout = |headers: [(&str, &str); 1]| {
        let exchange = asking(&driver, "GET", "/v1/orders/a").request(headers);
        exchange.upstream().map(|upstream| upstream.header("grpc-timeout").unwrap().to_owned())
    };
    assert_eq!(timeout([("x-other", "")]).as_deref(), Some("10S"));
    assert_eq!(timeout([("x-timeout", "250ms")]).as_deref(), Some("250m"));
    assert_eq!(timeout([("grpc-timeout", "1H")]).as_deref(), Some("30S"));
    assert_eq!(timeout([("x-timeout", "soon")]), None);
}

#[test]
fn what_is_not_meant_for_it_passes() {
    let lenient = driver(json!({"unknown_paths": "pass"}));
    let strict = driver(json!({}));
    let page = Message::new([("content-type", "text/html")]).body(["<p>"]);
    let native = Message::new([("content-type", "application/grpc+proto")]).body([order("{}")]);
    for (driver, method, path, sent) in
        [(&lenient, "GET", "/index.html", page.clone()), (&strict, "POST", "/shop.v1.Orders/Plain", native.clone())]
    {
        let exchange = asking(driver, method, path).request(sent).response(StatusCode::CREATED, page.clone());
        assert_eq!(exchange.rewritten(), None);
        assert_eq!(got(&exchange), (201, "text/html".to_owned(), "<p>".to_owned()));
    }
}

#[test]
fn a_path_that_is_not_granted_is_not_called() {
    let driver = driver(json!({})).grants(json!({"paths": ["/other/*"]}));
    let exchange = asking(&driver, "GET", "/v1/orders/a").request([]);
    assert_eq!(problem(&exchange).0, 500);
    assert!(exchange.logged()[0].1.contains("name it in grants.paths"));
}

#[test]
fn a_wrong_configuration_is_pointed_at() {
    let error = |config: Value| Driver::<JsonGrpc>::new(config).unwrap_err().to_string();
    assert!(error(json!({})).starts_with("/descriptors: a descriptor set in base64 is needed"));
    assert!(error(json!({"descriptors": 5})).starts_with("/descriptors: invalid type"));
    assert!(error(json!({"descriptor": ""})).starts_with("/descriptor: unknown field"));
    assert!(error(json!({"streams": "lines"})).starts_with("/streams: unknown variant"));
    assert!(error(json!({"json": {"enums": "x"}})).starts_with("/json/enums: unknown variant"));
    assert!(error(json!({"deadline": {"defualt": "1s"}})).starts_with("/deadline/defualt: unknown field"));
}
