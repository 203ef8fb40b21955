//! A gateway that may open few files: what tunnels take of them for their pipes is not what exchanges need.

use serde_json::json;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use tidegate_tests::{
    Options, Raw, World,
    api::{Api, Speaks},
    peers, until,
};

/// Tunnels whose callers read nothing.
const TUNNELS: usize = 24;
/// What is left for everything else.
const LEFT: usize = 16;

/// A tunnel that is open, and that nobody reads from.
async fn tunnel(world: &World) -> Raw {
    let mut raw = world.pod().await;
    raw.send("CONNECT flood.example.com:9000 HTTP/1.1\r\nHost: flood.example.com:9000\r\n\r\n").await;
    let reply = raw.head().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    raw
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_leave_exchanges_the_files_that_they_need() {
    let options = Options { workers: 1, ..Options::default() };
    let at_rest = World::start_with(options.clone()).await.gateway.open_files();
    let files = at_rest + 2 * TUNNELS + LEFT;
    let world = World::start_with(Options { open_files: Some(files), ..options }).await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("api", "api.example.com", api.address).await;
    let waiting = Arc::new(AtomicUsize::new(0));
    let flood = peers::floods(Arc::clone(&waiting)).await;
    let document = json!({
        "hosts": ["flood.example.com"], "ports": [{"number": 9000, "protocol": "tcp"}], "resolution": "static",
        "endpoints": [{"address": "127.0.0.1", "port": flood.address.port()}], "networks": ["127.0.0.0/8"],
    });
    world.rest.register("services", "flood", &document).await;
    world.allow("flood").await;
    let mut tunnels = Vec::new();
    for _ in 0..TUNNELS {
        tunnels.push(tunnel(&world).await);
    }
    until("every tunnel to be full", async || (waiting.load(Ordering::Relaxed) == TUNNELS).then_some(())).await;
    let reply = world.get("http://api.example.com/charges").await;
    assert_eq!(reply.status, 200, "{} of {files} files are open: {reply:?}", world.gateway.open_files());
    let said = world.gateway.output();
    assert!(said.contains("http_tunnel_pipes") && said.contains("max_connections"), "{said}");
    drop(tunnels);
}
