//! Filters in each phase of an exchange: what they are shown, told by the one that writes it down, and what it costs when they
//! fail there.

use serde_json::{Value, json};
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    plugins,
    raw::Reply,
};

/// A gateway before an API that says back what it hears, with one filter uploaded.
async fn setting(plugin: &str) -> (World, Api) {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    assert!(matches!(world.rest.upload(plugin, plugins::module(plugin)).await.status, 200 | 201));
    (world, api)
}

async fn put_on_route(world: &World, plugin: &str, config: &Value) {
    let route = json!({"service": "api", "filters": [{"plugin": plugin, "config": config}]});
    world.rest.register("routes", "api", &route).await;
    world.in_force().await;
}

/// A request with a body in two pieces and a trailer; `case` is what its record is found by.
async fn record_of(world: &World, case: &str) -> Value {
    let mut pod = world.pod().await;
    pod.send(request(case)).await;
    // The answer may break off in the middle; the record comes whatever became of it.
    world.rest.record_to(&format!("/echo/{case}")).await
}

fn request(case: &str) -> String {
    let head = format!(
        "POST http://api.example.com/echo/{case} HTTP/1.1\r\nHost: api.example.com\r\nTE: trailers\r\nTrailer: x-t\r\n"
    );
    format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nx-t: 1\r\n\r\n")
}

#[tokio::test]
async fn each_direction_is_shown_to_its_own_callbacks() {
    let (world, _api) = setting("witness").await;
    let config = json!({
        "request": [{"flow": "buffer"}],
        "request_body": [{"read": [0, 99]}],
        "request_trailers": [{"get": "x-t"}],
        "response": [{"flow": "stream"}],
        "response_body": [{"read": [0, 99]}, {"flow": "hold"}],
        "response_trailers": [{"get": "x-t"}],
    });
    put_on_route(&world, "witness", &config).await;
    let mut pod = world.pod().await;
    pod.send(request("shown")).await;
    let reply: Reply = pod.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "onetwo"), "{reply:?}");
    assert_eq!(reply.trailers, [("x-t".to_owned(), "1".to_owned())]);

    let record = world.rest.record_to("/echo/shown").await;
    let seen = record["filters"][0]["events"][0]["fields"]["seen"].as_str().unwrap_or_default();
    let seen: Vec<_> = seen.lines().filter(|line| !line.starts_with("read")).collect();
    // The whole request, with its head; of the response the pieces as the network cut them, then the trailers.
    assert_eq!(
        seen[..5],
        ["request", "request_body 6 head", "request_trailers 0 head end", "get x-t: 1", "response 200"],
        "{record}"
    );
    let (pieces, end) = seen[5..].split_at(seen.len() - 8);
    assert!(!pieces.is_empty() && pieces.iter().all(|line| line.starts_with("response_body ")), "{record}");
    assert_eq!(end, ["response_trailers 6 end", "get x-t: 1", "log"], "{record}");
}

#[tokio::test]
async fn a_fault_in_any_phase_fails_its_exchange() {
    let (world, api) = setting("hostile").await;
    for at in ["request_body", "request_trailers", "response_body", "response_trailers"] {
        for mode in ["trap", "loop", "stack", "memory"] {
            for flow in ["stream", "buffer"] {
                put_on_route(&world, "hostile", &json!({"at": at, "mode": mode, "flow": flow})).await;
                let record = record_of(&world, &format!("{at}-{mode}-{flow}")).await;
                assert_eq!(record["reason"], "filter_failed", "{record}");
                assert_eq!(record["filters"][0]["outcome"], "failed", "{record}");
                // A head that went on before the failure is the API's.
                let gone = at.starts_with("response") && flow == "stream";
                assert_eq!(record["status"], if gone { 200 } else { 500 }, "{record}");
            }
        }
    }
    put_on_route(&world, "hostile", &json!({"at": "request", "mode": "nothing"})).await;
    assert_eq!(record_of(&world, "healthy").await["status"], 200);
    assert!(!api.was_asked("/echo/request_body-trap-buffer"), "a request that was held when its filter failed is not sent");
}

/// Every call that takes text, bytes or a list, as the hostile filter names them.
const CALLS: [&str; 35] = [
    "header_get",
    "header_get_all",
    "header_get_many",
    "header_name",
    "header_value",
    "header_remove",
    "header_changes",
    "body_splice",
    "attribute_get",
    "attribute_name",
    "attribute_value",
    "rewrite_method",
    "rewrite_path",
    "select_service",
    "select_endpoint",
    "tls_sni",
    "tls_names",
    "tls_credential",
    "secret_header",
    "secret_credential",
    "secret_prefix",
    "event_kind",
    "event_known",
    "event_field",
    "event_fields",
    "log",
    "counter",
    "gauge",
    "histogram",
    "kv_get",
    "kv_key",
    "kv_value",
    "kv_compare",
    "kv_increment",
    "kv_remove",
];

#[tokio::test]
async fn no_call_takes_more_than_the_limit() {
    let (world, _api) = setting("hostile").await;
    for call in CALLS {
        put_on_route(&world, "hostile", &json!({"at": "request_body", "mode": "giant", "call": call, "flow": "buffer"})).await;
        let record = record_of(&world, call).await;
        assert_eq!((&record["reason"], &record["status"]), (&json!("filter_failed"), &json!(500)), "{call}: {record}");
        assert_eq!(record["filters"][0]["events"], Value::Null, "it came back from the call: {record}");
    }
}

#[tokio::test]
async fn a_table_that_is_too_large_is_refused_with_the_route() {
    let (world, _api) = setting("hoarder").await;
    let route = json!({"service": "api", "filters": [{"plugin": "hoarder"}]});
    let refused = world.rest.put("/v1/routes/api", &route).await;
    assert_eq!(refused.status, 422, "{refused:?}");
    assert!(refused.text().contains("table"), "{}", refused.text());
}
