//! Which callbacks of a filter a message is shown to, told by the filter that writes down what it is shown.

use serde_json::json;
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    plugins,
};

#[tokio::test]
async fn each_direction_is_shown_to_its_own_callbacks() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    assert!(matches!(world.rest.upload("witness", plugins::module("witness")).await.status, 200 | 201));
    let config = json!({
        "request": [{"flow": "buffer"}],
        "request_body": [{"read": [0, 99]}],
        "request_trailers": [{"get": "x-t"}],
        "response": [{"flow": "stream"}],
        "response_body": [{"read": [0, 99]}, {"flow": "hold"}],
        "response_trailers": [{"get": "x-t"}],
    });
    let route = json!({"service": "api", "filters": [{"plugin": "witness", "config": config}]});
    world.rest.register("routes", "api", &route).await;
    world.in_force().await;

    let mut pod = world.pod().await;
    let head = "POST http://api.example.com/echo HTTP/1.1\r\nHost: api.example.com\r\nTE: trailers\r\nTrailer: x-t\r\n";
    pod.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nx-t: 1\r\n\r\n")).await;
    let reply = pod.reply().await;
    assert_eq!((reply.status, reply.text().as_str()), (200, "onetwo"), "{reply:?}");
    assert_eq!(reply.trailers, [("x-t".to_owned(), "1".to_owned())]);

    let record = world.rest.record_to("/echo").await;
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
