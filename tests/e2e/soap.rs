//! JSON callers and a SOAP service, with the soap-json filter between them.

use serde_json::{Value, json};
use std::process::Command;
use tidegate_tests::{
    World,
    h2::{H2, full},
    plugins,
    raw::Reply,
    soap::{LARGE, ORDERS, Soap, TENANT},
    world::{POD, with},
};

fn config(version: &str) -> Value {
    json!({
        "version": version, "path": "/services/orders", "namespace": ORDERS,
        "headers": [format!("<t:Tenant xmlns:t=\"{TENANT}\">blue</t:Tenant>")],
        "faults": {"OrderNotFound": 404},
        "operations": [
            {"method": "GET", "path": "/orders/{id}", "query": ["currency"], "element": "GetOrder",
             "action": format!("{ORDERS}#GetOrder"), "response": "GetOrderResponse",
             "arrays": ["order/line"], "numbers": ["order/line/price", "order/line/@n"], "booleans": ["order/paid"]},
            {"method": "POST", "path": "/orders", "element": "PlaceOrder", "action": format!("{ORDERS}#PlaceOrder"),
             "numbers": ["lines", "pieces"], "order": {"": ["customer", "line"]}},
        ],
    })
}

fn route(config: Value) -> Value {
    json!({"service": "orders", "filters": [{"plugin": "soap-json", "config": config, "grants": {"paths": ["/services/orders"]}}]})
}

async fn world(soap: &Soap, version: &str) -> World {
    let world = World::start().await;
    world.open_plain("orders", "orders.example.com", soap.address).await;
    let uploaded = world.rest.upload("soap-json", plugins::module("soap_json")).await;
    assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
    world.rest.register("routes", "orders", &route(config(version))).await;
    world.in_force().await;
    world
}

/// What the pod gets for a request in absolute form with this body, if there is one.
async fn call(world: &World, method: &str, path: &str, kind: &str, body: Option<&str>) -> Reply {
    let mut request = format!("{method} http://orders.example.com{path} HTTP/1.1\r\nHost: orders.example.com\r\n");
    if let Some(body) = body {
        request.push_str(&format!("Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    } else {
        request.push_str("\r\n");
    }
    let mut pod = world.pod().await;
    pod.send(request).await;
    pod.reply().await
}

fn order(currency: &str) -> Value {
    json!({"order": {
        "@id": "7", "paid": true, "note": null,
        "line": [{"@n": 1, "article": "bolt <M8>", "price": {"@currency": currency, "#text": 9.50}}],
    }})
}

#[tokio::test]
async fn json_callers_reach_both_versions_and_are_answered_in_json() {
    for version in ["1.1", "1.2"] {
        let soap = Soap::start().await;
        let world = world(&soap, version).await;
        let reply = call(&world, "GET", "/orders/7?currency=USD", "", None).await;
        assert_eq!(
            (reply.status, reply.header("content-type")),
            (200, Some("application/json")),
            "{version}: {reply:?}\n{}",
            reply.text()
        );
        assert_eq!(reply.json(), order("USD"), "{version}");
        assert!(reply.text().contains("\"#text\":9.50"), "digits stay as they were: {}", reply.text());

        let body = r#"{"line":[{"@count":2},{"@count":3}],"customer":"Smith & <Sons>"}"#;
        let reply = call(&world, "POST", "/orders", "application/json", Some(body)).await;
        assert_eq!(reply.status, 200, "{version}: {}", reply.text());
        assert_eq!(reply.json(), json!({"id": "7", "lines": 2, "pieces": 5, "customer": "Smith & <Sons>"}), "{version}");
        for seen in soap.seen() {
            assert_eq!(seen.line, "POST /services/orders", "{seen:?}");
            let length = seen.headers.get("content-length").and_then(|length| length.to_str().ok()).map(str::to_owned);
            assert_eq!(length, Some(seen.body.len().to_string()), "services that know no chunks are served: {seen:?}");
        }
        let record = world.rest.record_to("/orders/7").await;
        assert_eq!(record["filters"][0]["outcome"], "continued", "{record}");
    }
}

#[tokio::test]
async fn faults_and_unreadable_answers_become_problems() {
    for version in ["1.1", "1.2"] {
        let soap = Soap::start().await;
        let world = world(&soap, version).await;
        let rows = [
            ("missing", 404, "there is no such order"),
            ("broken", 500, "the shelf fell over"),
            ("entity", 502, "DOCTYPE"),
            ("latin", 502, "UTF-8"),
            ("cut", 502, ""),
            ("away", 503, "status 503"),
        ];
        for (id, status, detail) in rows {
            let reply = call(&world, "GET", &format!("/orders/{id}"), "", None).await;
            assert_eq!(reply.status, status, "{version} {id}: {reply:?}\n{}", reply.text());
            assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{version} {id}");
            let problem = reply.json();
            assert_eq!(problem["status"], status, "{version} {id}: {problem}");
            assert!(problem["detail"].as_str().is_some_and(|text| text.contains(detail)), "{version} {id}: {problem}");
            assert!(!reply.text().contains("root:"), "{id}: {}", reply.text());
        }
        let problem = call(&world, "GET", "/orders/missing", "", None).await.json();
        assert_eq!(problem["fault"], json!({"OrderNotFound": {"id": "missing"}}), "{problem}");
        let code = if version == "1.1" { json!(["Client", null]) } else { json!(["Sender", ["NotFound"]]) };
        assert_eq!(json!([problem["code"], problem["subcodes"]]), code, "{problem}");
    }
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_and_reaches_nobody() {
    let soap = Soap::start().await;
    let world = world(&soap, "1.1").await;
    let rows = [
        ("POST", "/orders", "application/json", "{\"customer\":", 400, ""),
        ("POST", "/orders", "application/json", "{\"a><b\":1}", 400, "/a><b"),
        ("POST", "/orders", "application/json", "{\"a\":{\"b\":[1,[2]]}}", 400, "/a/b/1"),
        ("POST", "/orders", "text/xml", "<a/>", 415, ""),
        ("DELETE", "/orders", "application/json", "{}", 405, ""),
        ("POST", "/elsewhere", "application/json", "{}", 404, ""),
    ];
    for (method, path, kind, body, status, pointer) in rows {
        let reply = call(&world, method, path, kind, Some(body)).await;
        assert_eq!(reply.status, status, "{method} {path} {body}: {reply:?}\n{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("application/problem+json"));
        if status == 400 {
            assert_eq!(reply.json()["errors"][0]["pointer"], pointer, "{}", reply.text());
        }
    }
    assert!(soap.seen().is_empty(), "{:?}", soap.seen());
}

#[tokio::test]
async fn where_chunks_end_does_not_matter() {
    let soap = Soap::start().await;
    let world = world(&soap, "1.1").await;
    let body = "{\"customer\":\"é\",\"line\":[{\"@count\":1}]}";
    for size in [1, 2, 3, 7, body.len()] {
        let mut pod = world.pod().await;
        pod.send("POST http://orders.example.com/orders HTTP/1.1\r\nHost: orders.example.com\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        for chunk in body.as_bytes().chunks(size) {
            pod.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).await;
        }
        let reply = pod.send("0\r\nX-Sum: 1\r\n\r\n").await.reply().await;
        assert_eq!(reply.status, 200, "{size}: {}", reply.text());
        assert_eq!(reply.json(), json!({"id": "7", "lines": 1, "pieces": 1, "customer": "é"}), "{size}");
    }
}

#[tokio::test]
async fn large_documents_are_converted_within_a_callbacks_time() {
    let soap = Soap::start().await;
    let world = world(&soap, "1.1").await;
    let reply = call(&world, "GET", "/orders/large", "", None).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let order = &reply.json()["order"];
    assert_eq!(order["line"].as_array().map(Vec::len), Some(LARGE));
    assert_eq!(order["line"][LARGE - 1]["@n"], LARGE);

    let line = json!({"@count": 1, "article": "a bolt of some length, and a nut, too", "mark": ["<&>", true, null, 1.50]});
    let body = json!({"customer": "a", "line": vec![line; LARGE]}).to_string();
    let reply = call(&world, "POST", "/orders", "application/json", Some(&body)).await;
    assert_eq!((reply.status, reply.json()["pieces"].as_u64()), (400, None), "too many values: {}", reply.text());
    // Every character becomes five.
    let body = json!({"customer": "&".repeat(500_000)}).to_string();
    let reply = call(&world, "POST", "/orders", "application/json", Some(&body)).await;
    assert_eq!(reply.status, 413, "the envelope is more than the gateway holds: {}", reply.text());
    let line = json!({"@count": 1, "article": "a bolt of some length, and a nut, too, and so on and on and on, <as bolts go>"});
    let body = json!({"customer": "a", "line": vec![line; LARGE]}).to_string();
    let reply = call(&world, "POST", "/orders", "application/json", Some(&body)).await;
    assert_eq!((reply.status, reply.json()["pieces"].as_u64()), (200, Some(LARGE as u64)), "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_clients_are_served() {
    let soap = Soap::start().await;
    let world = world(&soap, "1.1").await;
    let body = json!({"customer": "a", "line": {"@count": 4}}).to_string();
    let wanted = json!({"id": "7", "lines": 1, "pieces": 4, "customer": "a"});

    let h2 = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    let request = hyper::Request::post("http://orders.example.com/orders").header("content-type", "application/json");
    let reply = h2.send(request.body(full(body.clone())).expect("a request")).await;
    assert_eq!((reply.status, reply.json()), (200, wanted.clone()), "{reply:?}");

    let proxy = format!("http://{}", world.gateway.addresses.proxy);
    let curl = tokio::task::spawn_blocking(move || {
        let pod = POD.to_string();
        let arguments =
            ["-sS", "--max-time", "20", "--interface", &pod, "-x", &proxy, "--json", &body, "http://orders.example.com/orders"];
        Command::new("curl").args(arguments).output()
    });
    // `make setup` installs it.
    let output = curl.await.expect("the task ends").expect("curl can be run");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(serde_json::from_str::<Value>(&said).ok(), Some(wanted), "{said} {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn configuration_with_mistakes_is_refused_and_pointed_at() {
    let soap = Soap::start().await;
    let world = world(&soap, "1.1").await;
    let rows = [
        ("/version", json!("2.0"), "/version"),
        ("/operations/1/element", json!("a b"), "/operations/1/element"),
        ("/headers/0", json!("<a>"), "/headers/0"),
        ("/limits", json!({"depth": 1000}), "/limits/depth"),
        ("/operation", json!([]), "/operation"),
    ];
    for (pointer, value, named) in rows {
        let reply = world.rest.put("/v1/routes/orders", &route(with(config("1.1"), pointer, value))).await;
        assert_eq!(reply.status, 422, "{pointer}: {}", reply.text());
        assert!(reply.text().contains(named), "{pointer}: {}", reply.text());
    }
}
