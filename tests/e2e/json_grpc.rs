//! JSON callers and a gRPC service, with the json-grpc filter between them.

use base64::Engine;
use http_body_util::BodyExt;
use hyper::{Request, body::Incoming};
use serde_json::{Value, json};
use tidegate_tests::{
    World,
    h2::{H2, empty, full},
    harbour::{Harbour, descriptors},
    plugins,
    raw::Reply,
    wait::soon,
    world::{POD, plain_service, with},
};

const HOST: &str = "harbour.example.com";

/// A gateway that has the harbour behind a route with the filter.
async fn world(harbour: &Harbour, config: &Value) -> World {
    let world = World::start().await;
    let service = with(plain_service(HOST, harbour.address), "/ports/0/protocol", "grpc".into());
    let service = with(service, "/tls", json!({"mode": "disabled"}));
    world.rest.register("services", "harbour", &service).await;
    let uploaded = world.rest.upload("json-grpc", plugins::module("json_grpc")).await;
    assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
    world.rest.register("routes", "harbour", &route(config)).await;
    world.allow("harbour").await;
    world
}

fn route(config: &Value) -> Value {
    let mut whole = json!({"descriptors": base64::engine::general_purpose::STANDARD.encode(descriptors())});
    let fields = config.as_object().expect("a configuration is an object").clone();
    whole.as_object_mut().expect("so is this").extend(fields);
    let grants = json!({"paths": ["/tide.v1.Harbour/*"]});
    json!({"service": "harbour", "filters": [{"plugin": "json-grpc", "config": whole, "grants": grants}]})
}

/// What the pod gets by HTTP/1.1 for a request with this body, if there is one.
async fn call(world: &World, method: &str, path: &str, more: &str, body: Option<&str>) -> Reply {
    let mut request = format!("{method} http://{HOST}{path} HTTP/1.1\r\nHost: {HOST}\r\n{more}");
    if let Some(body) = body {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    } else {
        request.push_str("\r\n");
    }
    let mut pod = world.pod().await;
    pod.send(request).await;
    pod.reply().await
}

#[tokio::test]
async fn rest_callers_reach_a_grpc_service() {
    let harbour = Harbour::start().await;
    let world = world(&harbour, &json!({})).await;
    let reply = call(&world, "GET", "/v1/ships/mayflower", "", None).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")), "{reply:?}\n{}", reply.text());
    assert_eq!(reply.json(), json!({"name": "ships/mayflower", "tonnage": "5000000000", "flags": ["GB", "ü"]}));
    let ship = r#"{"name": "ships/new", "tonnage": 12, "flags": ["FR"]}"#;
    for path in ["/v1/ships", "/tide.v1.Harbour/Register"] {
        let reply = call(&world, "POST", path, "Accept-Encoding: gzip\r\n", Some(ship)).await;
        assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"name":"ships/new","tonnage":"12","flags":["FR"]}"#));
    }
    let h2 = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    let request = Request::post(format!("http://{HOST}/v1/ships")).header("content-type", "application/json");
    let reply = h2.send(request.body(full(ship)).expect("a request")).await;
    assert_eq!((reply.status, reply.json()["tonnage"].as_str()), (200, Some("12")), "{reply:?}");
    let mut pod = world.pod().await;
    let head = format!("POST http://{HOST}/v1/ships HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n");
    pod.send(format!("{head}9\r\n{{\"name\": \r\n4\r\n\"a\"}}\r\n0\r\nX-Digest: 1\r\n\r\n")).await;
    let reply = pod.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, r#"{"name":"a"}"#), "with trailers");
    let large = "x".repeat(300_000);
    let reply = call(&world, "POST", "/v1/ships", "", Some(&json!({ "name": large }).to_string())).await;
    assert_eq!((reply.status, reply.json()["name"].as_str()), (200, Some(large.as_str())), "pieces of any size");
    let (path, headers) = harbour.calls().swap_remove(1);
    assert_eq!((path.as_str(), &headers["te"]), ("/tide.v1.Harbour/Register", &"trailers".parse().expect("a value")));
    assert_eq!(
        (headers.get("accept-encoding"), &headers["content-type"]),
        (None, &"application/grpc".parse().expect("a value"))
    );
    let record = world.rest.record_to("/v1/ships/mayflower").await;
    assert_eq!((&record["filters"][0]["outcome"], &record["verdict"]), (&json!("continued"), &json!("allowed")), "{record}");
}

#[tokio::test]
async fn what_the_service_refuses_is_its_own_answer() {
    let harbour = Harbour::start().await;
    let world = world(&harbour, &json!({"deadline": {"header": "x-timeout", "max": "50ms"}})).await;
    let sinking = r#"{"name": "ships/leaky", "tonnage": -1}"#;
    let detail = json!({"@type": "type.googleapis.com/tide.v1.Refusal", "rule": "tonnage"});
    let rows = [
        (
            "GET",
            "/v1/ships/flying-dutchman",
            "",
            None,
            404,
            json!({"code": 5, "message": "nobody has seen it: 100 % sure", "details": []}),
        ),
        ("POST", "/v1/ships", "", Some(sinking), 400, json!({"code": 3, "message": "it would sink", "details": [detail]})),
        (
            "DELETE",
            "/v1/ships/a",
            "",
            None,
            501,
            json!({"code": 12, "message": "there is no /tide.v1.Harbour/Scuttle", "details": []}),
        ),
        (
            "GET",
            "/v1/ships/a:wait",
            "X-Timeout: 1ms\r\n",
            None,
            504,
            json!({"code": 4, "message": "it took too long", "details": []}),
        ),
        ("GET", "/v1/ships/a:wait", "", None, 504, json!({"code": 4, "message": "it took too long", "details": []})),
        ("GET", "/v1/ports/atlantis:watch", "", None, 404, json!({"code": 5, "message": "it has sunk", "details": []})),
    ];
    for (method, path, more, body, status, expected) in rows {
        let reply = call(&world, method, path, more, body).await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (status, Some("application/json")),
            "{path}: {}",
            reply.text()
        );
        assert_eq!(reply.json(), expected, "{path}");
        assert_eq!(reply.header("x-tidegate-reason"), None, "{path}: not the gateway's answer");
        assert!(reply.headers.iter().all(|(name, _)| !name.starts_with("grpc-")), "{path}: {reply:?}");
    }
    let record = world.rest.record_to("/v1/ships/flying-dutchman").await;
    assert_eq!((&record["verdict"], &record["status"]), (&json!("allowed"), &json!(404)), "{record}");
    let timeouts: Vec<_> = harbour.calls().iter().map(|(_, headers)| headers["grpc-timeout"].clone()).collect();
    assert_eq!((&timeouts[3], &timeouts[4]), (&"1m".parse().expect("a value"), &"50m".parse().expect("a value")));
}

#[tokio::test]
async fn what_is_no_call_never_reaches_the_service() {
    let harbour = Harbour::start().await;
    let world = world(&harbour, &json!({"max_request_bytes": 1000})).await;
    let big = json!({"name": "x".repeat(1000)}).to_string();
    let rows = [
        ("POST", "/v1/ships", Some(r#"{"name": "a", "tonnage": "heavy"}"#), 400, Some(("pointer", "/tonnage"))),
        ("POST", "/v1/ships", Some(r#"{"name": "a", "flags": ["GB", 1]}"#), 400, Some(("pointer", "/flags/1"))),
        ("POST", "/v1/ships", Some(r#"{"nmae": "a"}"#), 400, Some(("pointer", "/nmae"))),
        ("POST", "/v1/ships", Some("{"), 400, Some(("pointer", ""))),
        ("GET", "/v1/ports/a:watch?ships=many", None, 400, Some(("parameter", "ships"))),
        ("POST", "/v1/ships", Some(&big), 413, None),
        ("POST", "/tide.v1.Harbour/Nothing", Some("{}"), 404, None),
        ("PUT", "/v1/ships", Some("{}"), 405, None),
    ];
    for (method, path, body, status, place) in rows {
        let reply = call(&world, method, path, "", body).await;
        let expected = (status, Some("application/problem+json"), "filter_denied");
        assert_eq!((reply.status, reply.header("content-type"), reply.reason()), expected, "{path}: {}", reply.text());
        if let Some((kind, place)) = place {
            assert_eq!(reply.json()["errors"][0][kind], place, "{path}: {}", reply.text());
        }
    }
    let mut pod = world.pod().await;
    let half =
        format!("POST http://{HOST}/v1/ships HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\n{{\"name\": \"a\"}}");
    pod.send(half).await.finish().await;
    world.rest.record_to("/v1/ships").await;
    drop(pod);
    let reply = call(&world, "GET", "/v1/ships/after", "", None).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(harbour.calls().len(), 1, "only the last call came: {:?}", harbour.calls());
}

#[tokio::test]
async fn half_a_message_is_a_bad_gateway() {
    let harbour = Harbour::start().await;
    let world = world(&harbour, &json!({})).await;
    let reply = call(&world, "GET", "/v1/ships/a:cut", "", None).await;
    assert_eq!((reply.status, reply.header("content-type")), (502, Some("application/problem+json")), "{}", reply.text());
    assert!(reply.text().contains("the body ends in the middle of a message"), "{}", reply.text());
}

/// The next piece of a body, as text.
async fn piece(body: &mut Incoming) -> Option<String> {
    let frame = soon("a piece of the stream", body.frame()).await?.expect("a stream that does not break");
    frame.into_data().ok().map(|data| String::from_utf8(data.to_vec()).expect("text"))
}

#[tokio::test]
async fn streams_come_message_by_message_in_either_form() {
    let harbour = Harbour::start().await;
    let world = world(&harbour, &json!({"streams": "ndjson"})).await;
    let h2 = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    let rows = [
        ("", "application/x-ndjson", ["{\"name\":\"ships/1\"}\n", "{\"name\":\"ships/2\"}\n"], ""),
        ("application/json", "application/json", ["[{\"name\":\"ships/1\"}\n", ",{\"name\":\"ships/2\"}\n"], "]\n"),
    ];
    for (accept, kind, messages, end) in rows {
        for port in ["calm", "storm"] {
            let request = Request::get(format!("http://{HOST}/v1/ports/{port}:watch?ships=2")).header("accept", accept);
            harbour.let_on();
            let response = h2.open(request.body(empty()).expect("a request")).await.expect("an answer");
            assert_eq!(
                (response.status().as_u16(), &response.headers()["content-type"]),
                (200, &kind.parse().expect("a value"))
            );
            let mut body = response.into_body();
            assert_eq!(piece(&mut body).await.as_deref(), Some(messages[0]), "before the second has been sent");
            harbour.let_on();
            assert_eq!(piece(&mut body).await.as_deref(), Some(messages[1]));
            let rest = body.collect().await.expect("a whole body");
            assert!(rest.trailers().is_none_or(|trailers| !trailers.contains_key("grpc-status")), "{rest:?}");
            let rest = String::from_utf8(rest.to_bytes().to_vec()).expect("text");
            let comma = if end.is_empty() { "" } else { "," };
            let error = format!("{comma}{{\"error\":{{\"code\":10,\"message\":\"the storm\",\"details\":[]}}}}\n");
            let failed = if port == "storm" { error } else { String::new() };
            assert_eq!(rest, format!("{failed}{end}"), "{accept} {port}");
        }
    }
    harbour.let_on();
    let reply = call(&world, "GET", "/v1/ports/calm:watch?ships=1", "Accept: application/json\r\n", None).await;
    assert_eq!((reply.status, reply.json()), (200, json!([{"name": "ships/1"}])), "over HTTP/1.1");
    let reply = call(&world, "GET", "/v1/ports/calm:watch", "Accept: application/json\r\n", None).await;
    assert_eq!((reply.status, reply.json()), (200, json!([])), "no ship at all");
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_when_it_is_written() {
    let harbour = Harbour::start().await;
    let world = world(&harbour, &json!({})).await;
    let rows = [
        (json!({"descriptors": "!"}), "/descriptors"),
        (json!({"descriptors": ""}), "/descriptors"),
        (json!({"services": ["tide.v1.Harbor"]}), "tide.v1.Harbour"),
        (json!({"deadline": {"max": "soon"}}), "/deadline/max"),
        (json!({"stream": "array"}), "/stream"),
    ];
    for (config, expected) in rows {
        let reply = world.rest.put("/v1/routes/harbour", &route(&config)).await;
        assert_eq!(reply.status, 422, "{config}: {}", reply.text());
        assert!(reply.text().contains(expected), "{config}: {}", reply.text());
    }
    assert_eq!(call(&world, "GET", "/v1/ships/a", "", None).await.status, 200, "the old one is in force");
}
