//! Proxy-Wasm filters on tunnels: what they see of the bytes, change and hold, and how they end them.

use serde_json::{Value, json};
use std::fmt::Write as _;
use tidegate_tests::{Options, Raw, World, api::Api, api::Speaks, peers, until, wait::soon};

/// A module as text. What it says lies in memory one behind the other; the host's bytes come to one place above.
#[derive(Default)]
struct Text {
    said: Vec<u8>,
    functions: String,
}

const NEW: &str = "(param $context i32) (result i32)";
const DATA: &str = "(param $context i32) (param $size i32) (param $end i32) (result i32)";
const CLOSE: &str = "(param $context i32) (param $by i32)";
const LAST: &str = "(param $context i32)";

impl Text {
    /// A callback, and its code; what stands between backticks in it is a text's place and length.
    fn on(self, name: &str, signature: &str, code: &str) -> Self {
        self.with(&format!("(func (export \"proxy_on_{name}\") {signature} {code})"))
    }

    fn with(mut self, fields: &str) -> Self {
        for (number, part) in fields.split('`').enumerate() {
            if number % 2 == 0 {
                self.functions.push_str(part);
            } else {
                let _ = write!(self.functions, "(i32.const {}) (i32.const {})", 64 + self.said.len(), part.len());
                self.said.extend_from_slice(part.as_bytes());
            }
        }
        self
    }

    fn module(&self) -> Vec<u8> {
        let said: String = self.said.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let functions = &self.functions;
        let text = format!(
            r#"(module
            (import "env" "proxy_log" (func $log (param i32 i32 i32) (result i32)))
            (import "env" "proxy_set_buffer_bytes" (func $set (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_get_buffer_bytes" (func $get (param i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_get_buffer_status" (func $status (param i32 i32 i32) (result i32)))
            (import "env" "proxy_continue_stream" (func $continue (param i32) (result i32)))
            (import "env" "proxy_close_stream" (func $close (param i32) (result i32)))
            (import "env" "proxy_set_tick_period_milliseconds" (func $tick (param i32) (result i32)))
            (import "env" "proxy_set_effective_context" (func $turn (param i32) (result i32)))
            (import "env" "proxy_get_property" (func $property (param i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_http_call" (func $call (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32)))
            (import "env" "proxy_call_foreign_function" (func $foreign (param i32 i32 i32 i32 i32 i32) (result i32)))
            (memory (export "memory") 4)
            (data (i32.const 64) "{said}")
            (global $tunnel (mut i32) (i32.const 0))
            (func $must (param $status i32) (if (local.get $status) (then (unreachable))))
            (func (export "proxy_on_memory_allocate") (param i32) (result i32) (i32.const 65536))
            (func (export "proxy_abi_version_0_2_1"))
            {functions})"#
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }
}

/// An event in the record.
fn event(kind: &str) -> String {
    format!(
        "(call $must (call $foreign `tidegate.audit` `{{\"kind\": \"{kind}\", \"outcome\": \"allowed\"}}` (i32.const 0) (i32.const 4)))"
    )
}

/// Sets a timer that turns to the tunnel and does this.
fn later(text: Text, code: &str) -> Text {
    text.with(
        "(func $later (param $context i32)
            (global.set $tunnel (local.get $context)) (call $must (call $tick (i32.const 1))))",
    )
    .on(
        "tick",
        LAST,
        &format!("(call $must (call $tick (i32.const 0))) (call $must (call $turn (global.get $tunnel))) {code}"),
    )
}

/// A gateway with filters on the tunnels to a peer.
struct Stage {
    world: World,
}

impl Stage {
    async fn start(peer: &peers::Peer, filters: &[(&Text, Value)]) -> Self {
        Self::start_with(Options::default(), peer, filters).await
    }

    async fn start_with(options: Options, peer: &peers::Peer, filters: &[(&Text, Value)]) -> Self {
        let world = World::start_with(options).await;
        let document = json!({
            "hosts": ["tunnel.example.com"], "ports": [{"number": 9000, "protocol": "tcp"}], "resolution": "static",
            "endpoints": [{"address": "127.0.0.1", "port": peer.address.port()}], "networks": ["127.0.0.0/8"],
        });
        world.rest.register("services", "tunnel", &document).await;
        let mut entries = Vec::new();
        for (number, (text, more)) in filters.iter().enumerate() {
            let name = format!("filter-{number}");
            let uploaded = world.rest.upload(&name, text.module()).await;
            assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
            let mut entry = json!({"plugin": name, "traffic": "tunnels"});
            entry.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
            entries.push(entry);
        }
        world.rest.register("routes", "tunnel", &json!({"service": "tunnel", "filters": entries})).await;
        world.allow("tunnel").await;
        Self { world }
    }

    /// A tunnel, or the answer that there is none.
    async fn connect(&self) -> (Raw, tidegate_tests::raw::Reply) {
        let mut raw = self.world.pod().await;
        raw.send("CONNECT tunnel.example.com:9000 HTTP/1.1\r\nHost: tunnel.example.com:9000\r\n\r\n").await;
        let reply = raw.head().await;
        (raw, reply)
    }

    async fn tunnel(&self) -> Raw {
        let (raw, reply) = self.connect().await;
        assert_eq!(reply.status, 200, "{reply:?}");
        raw
    }

    async fn record(&self) -> Value {
        self.world.rest.record_to("tunnel.example.com").await
    }
}

fn kinds(filter: &Value) -> Vec<&str> {
    filter["events"].as_array().into_iter().flatten().filter_map(|event| event["kind"].as_str()).collect()
}

/// Says in events what it is told.
fn observer() -> Text {
    let by = |end: &str| {
        let (local, remote) = (event(&format!("{end} by us")), event(&format!("{end} by them")));
        format!(
            "(if (i32.eq (local.get $by) (i32.const 1)) (then {local}))
            (if (i32.eq (local.get $by) (i32.const 2)) (then {remote}))"
        )
    };
    let data = |way: &str, buffer: u32| {
        let (more, end) = (event(way), event(&format!("{way} ended")));
        format!(
            "(call $must (call $status (i32.const {buffer}) (i32.const 0) (i32.const 4)))
            (if (i32.ne (i32.load (i32.const 0)) (local.get $size)) (then (unreachable)))
            (call $must (call $get (i32.const {buffer}) (i32.const 0) (i32.const 100) (i32.const 8) (i32.const 12)))
            (if (i32.ne (i32.load (i32.const 12)) (local.get $size)) (then (unreachable)))
            (if (i32.ne (call $get (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0) (i32.const 4)) (i32.const 1)) (then (unreachable)))
            (if (local.get $size) (then {more})) (if (local.get $end) (then {end})) (i32.const 0)"
        )
    };
    let new = format!(
        "(call $must (call $property `source\0address` (i32.const 0) (i32.const 4)))
        (call $must (call $property `connection\0id` (i32.const 0) (i32.const 4)))
        (call $must (call $property `upstream\0address` (i32.const 0) (i32.const 4)))
        (call $must (call $property `plugin_name` (i32.const 0) (i32.const 4)))
        (if (i32.ne (call $property `request\0path` (i32.const 0) (i32.const 4)) (i32.const 1)) (then (unreachable)))
        {} (i32.const 0)",
        event("new")
    );
    Text::default()
        .on("new_connection", NEW, &new)
        .on("downstream_data", DATA, &data("up", 2))
        .on("upstream_data", DATA, &data("down", 3))
        .on("downstream_connection_close", CLOSE, &by("downstream"))
        .on("upstream_connection_close", CLOSE, &by("upstream"))
        .on("done", "(param i32) (result i32)", &format!("{} (i32.const 1)", event("done")))
        .on("log", LAST, &event("log"))
}

#[tokio::test]
async fn a_filter_sees_a_tunnel_from_its_beginning_to_its_end() {
    let peer = peers::says_back().await;
    let stage = Stage::start(&peer, &[(&observer(), json!({}))]).await;
    let mut raw = stage.tunnel().await;
    raw.send("hello").await;
    assert_eq!(raw.exactly(5).await, b"hello");
    raw.finish().await;
    assert_eq!(soon("the end of the other half", raw.rest()).await, b"", "a half that has ended ends the other");
    let record = stage.record().await;
    let seen = ["new", "up", "down", "up ended", "down ended", "upstream by them", "downstream by them", "done", "log"];
    assert_eq!(kinds(&record["filters"][0]), seen, "{record}");
    assert_eq!((&record["request_bytes"], &record["response_bytes"]), (&json!(5), &json!(5)), "{record}");
    assert_eq!((&record["verdict"], &record["filters"][0]["outcome"]), (&json!("allowed"), &json!("continued")), "{record}");
    assert!(record["durations"]["filters_us"].is_u64(), "{record}");
}

#[tokio::test]
async fn who_ends_a_tunnel_is_told() {
    let peer = peers::greets("hello").await;
    let stage = Stage::start(&peer, &[(&observer(), json!({}))]).await;
    let mut raw = stage.tunnel().await;
    assert_eq!(raw.exactly(5).await, b"hello");
    drop(raw);
    let record = stage.record().await;
    let seen = kinds(&record["filters"][0]);
    assert!(seen.contains(&"downstream by them"), "the caller went away: {record}");
}

/// Puts this behind all data.
fn appends(up: &str, down: &str) -> Text {
    let data = |buffer: u32, text: &str| {
        format!(
            "(if (local.get $size) (then
                (call $must (call $set (i32.const {buffer}) (local.get $size) (i32.const 0) `{text}`)))) (i32.const 0)"
        )
    };
    Text::default().on("downstream_data", DATA, &data(2, up)).on("upstream_data", DATA, &data(3, down))
}

#[tokio::test]
async fn filters_change_bytes_in_order_and_in_reverse() {
    let peer = peers::says_back().await;
    let (first, second) = (appends("1", "a"), appends("2", "b"));
    let stage = Stage::start(&peer, &[(&first, json!({})), (&second, json!({}))]).await;
    let mut raw = stage.tunnel().await;
    raw.send("hello").await;
    assert_eq!(String::from_utf8_lossy(&raw.exactly(9).await), "hello12ba");
    drop(raw);
    let record = stage.record().await;
    let sent = (&record["request_bytes"], &record["response_bytes"]);
    assert_eq!(sent, (&json!(7), &json!(9)), "what was sent on is counted: {record}");
}

#[tokio::test]
async fn a_filter_drops_bytes() {
    let peer = peers::says_back().await;
    let drops =
        "(call $must (call $set (i32.const 2) (i32.const 0) (local.get $size) (i32.const 0) (i32.const 0))) (i32.const 0)";
    let stage = Stage::start(&peer, &[(&Text::default().on("downstream_data", DATA, drops), json!({}))]).await;
    let mut raw = stage.tunnel().await;
    raw.send("secret").await;
    raw.finish().await;
    assert_eq!(soon("the end", raw.rest()).await, b"");
    let record = stage.record().await;
    assert_eq!((&record["request_bytes"], &record["response_bytes"]), (&json!(0), &json!(0)), "{record}");
}

#[tokio::test]
async fn what_is_held_is_shown_again_with_what_follows() {
    let peer = peers::says_back().await;
    let gathers = "(if (result i32) (i32.lt_u (local.get $size) (i32.const 10))
        (then (call $must (call $log (i32.const 4) `five are held`)) (i32.const 1))
        (else (i32.const 0)))";
    let stage = Stage::start(&peer, &[(&Text::default().on("downstream_data", DATA, gathers), json!({}))]).await;
    let mut raw = stage.tunnel().await;
    raw.send("01234").await;
    until("five bytes to be held", async || stage.world.gateway.output().contains("five are held").then_some(())).await;
    raw.send("56789").await;
    assert_eq!(raw.exactly(10).await, b"0123456789");
}

#[tokio::test]
async fn a_timer_lets_go_of_what_is_held() {
    let peer = peers::says_back().await;
    for (direction, stream) in [("downstream_data", 2), ("upstream_data", 3)] {
        let resumed = format!("{} (call $must (call $continue (i32.const {stream})))", event("resumed"));
        let holds = later(Text::default(), &resumed).on(direction, DATA, "(call $later (local.get $context)) (i32.const 1)");
        let stage = Stage::start(&peer, &[(&holds, json!({}))]).await;
        let mut raw = stage.tunnel().await;
        raw.send("hello").await;
        assert_eq!(raw.exactly(5).await, b"hello", "{direction}");
        raw.finish().await;
        assert_eq!(soon("the end", raw.rest()).await, b"", "{direction}: an end that is held goes on, too");
        let record = stage.record().await;
        assert!(kinds(&record["filters"][0]).contains(&"resumed"), "{record}");
    }
}

#[tokio::test]
async fn a_call_of_its_own_decides_whether_a_tunnel_begins() {
    let peer = peers::greets("hello").await;
    let mut fields = 4_u32.to_le_bytes().to_vec();
    let pairs = [(":method", "GET"), (":path", "/may"), (":authority", "auth.example.com"), ("x-a", "b")];
    for length in pairs.iter().flat_map(|(name, value)| [name.len(), value.len()]) {
        fields.extend(u32::try_from(length).expect("short").to_le_bytes());
    }
    let texts: String = pairs.iter().map(|(name, value)| format!("{name}\0{value}\0")).collect();
    fields.extend(texts.as_bytes());
    let fields = String::from_utf8(fields).expect("lengths below 128 are text, too");
    let asks = format!(
        "(global.set $tunnel (local.get $context))
        (call $must (call $call `auth` `{fields}` (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 5000) (i32.const 0)))
        (i32.const 1)"
    );
    let answered = "(call $must (call $turn (global.get $tunnel))) (call $must (call $continue (i32.const 2)))";
    let text = Text::default()
        .on("new_connection", NEW, &asks)
        .on("upstream_data", DATA, &format!("{} (i32.const 0)", event("down")))
        .on("http_call_response", "(param i32 i32 i32 i32 i32)", &format!("{answered} {}", event("answered")));
    let stage = Stage::start(&peer, &[(&text, json!({}))]).await;
    let auth = Api::start(Speaks::Http1).await;
    stage.world.open_plain("auth", "auth.example.com", auth.address).await;
    let mut raw = stage.tunnel().await;
    assert_eq!(raw.exactly(5).await, b"hello");
    drop(raw);
    auth.saw("/may");
    let record = stage.record().await;
    assert!(kinds(&record["filters"][0]).starts_with(&["answered", "down"]), "nothing passed before: {record}");
}

#[tokio::test]
async fn a_filter_ends_a_tunnel_from_either_side() {
    let closes = |stream: u32| format!("(call $must (call $close (i32.const {stream}))) (i32.const 0)");
    let told = event("told");
    let in_callback = |direction: &str, stream| observed_end(Text::default().on(direction, DATA, &closes(stream)), &told);
    let by_timer = later(Text::default(), "(call $must (call $close (i32.const 2)))").on(
        "downstream_data",
        DATA,
        "(call $later (local.get $context)) (i32.const 1)",
    );
    let rows = [
        ("downstream, on data from there", in_callback("downstream_data", 2), json!([0, 0])),
        ("upstream, on data from there", in_callback("upstream_data", 3), json!([5, 0])),
        ("downstream, by a timer", observed_end(by_timer, &told), json!([0, 0])),
    ];
    let peer = peers::says_back().await;
    for (what, text, bytes) in rows {
        let stage = Stage::start(&peer, &[(&text, json!({}))]).await;
        let mut raw = stage.tunnel().await;
        raw.send("hello").await;
        assert_eq!(soon("the tunnel to end", raw.rest()).await, b"", "{what}");
        let record = stage.record().await;
        assert_eq!(
            (&record["reason"], &record["filters"][0]["outcome"]),
            (&json!("filter_reset"), &json!("reset")),
            "{what}: {record}"
        );
        assert_eq!(json!([record["request_bytes"], record["response_bytes"]]), bytes, "{what}: {record}");
        assert_eq!(kinds(&record["filters"][0]), ["told"], "{what}: the gateway ended it: {record}");
    }
    let refuses = Text::default().on("new_connection", NEW, &closes(2));
    let stage = Stage::start(&peer, &[(&refuses, json!({}))]).await;
    let mut raw = stage.world.pod().await;
    raw.send("CONNECT tunnel.example.com:9000 HTTP/1.1\r\nHost: tunnel.example.com:9000\r\n\r\n").await;
    raw.assert_closed().await;
}

/// Leaves an event when the gateway ends the caller's connection.
fn observed_end(text: Text, told: &str) -> Text {
    let code = format!("(if (i32.eq (local.get $by) (i32.const 1)) (then {told}))");
    text.on("downstream_connection_close", CLOSE, &code)
}

#[tokio::test]
async fn a_failure_ends_the_tunnel_or_leaves_the_filter_out() {
    let peer = peers::says_back().await;
    let fails = "(call $must (call $set (i32.const 2) (i32.const 0) (local.get $size) `changed`)) unreachable";
    let text = Text::default().on("downstream_data", DATA, fails);

    let stage = Stage::start(&peer, &[(&text, json!({"on_error": "deny"}))]).await;
    let mut raw = stage.tunnel().await;
    raw.send("hello").await;
    assert_eq!(soon("the tunnel to end", raw.rest()).await, b"");
    let record = stage.record().await;
    assert_eq!((&record["reason"], &record["request_bytes"]), (&json!("filter_failed"), &json!(0)), "{record}");
    let filter = &record["filters"][0];
    assert_eq!((&filter["plugin"], &filter["outcome"]), (&json!("filter-0"), &json!("failed")), "{record}");
    assert!(filter["error"].as_str().is_some_and(|error| error.contains("trapped")), "{record}");

    let stage = Stage::start(&peer, &[(&text, json!({"on_error": "skip"})), (&appends("!", ""), json!({}))]).await;
    let mut raw = stage.tunnel().await;
    raw.send("hello").await;
    assert_eq!(raw.exactly(6).await, b"hello!", "as it was before the callback, and on to the next filter");
    raw.finish().await;
    assert_eq!(soon("the end", raw.rest()).await, b"");
    let record = stage.record().await;
    let outcomes = (&record["filters"][0]["outcome"], &record["filters"][1]["outcome"]);
    assert_eq!(outcomes, (&json!("skipped"), &json!("continued")), "{record}");

    // What it held of the other direction is not lost with it.
    let text = Text::default().on("downstream_data", DATA, "(if (local.get $size) (then (unreachable))) (i32.const 0)").on(
        "upstream_data",
        DATA,
        "(call $must (call $log (i32.const 4) `the greeting is held`)) (i32.const 1)",
    );
    let greets = peers::greets("hello").await;
    let stage = Stage::start(&greets, &[(&text, json!({"on_error": "skip"}))]).await;
    let mut raw = stage.tunnel().await;
    until("the greeting to be held", async || stage.world.gateway.output().contains("the greeting is held").then_some(()))
        .await;
    raw.send("on").await;
    assert_eq!(raw.exactly(5).await, b"hello");

    let text = Text::default().on("new_connection", NEW, "unreachable");
    let stage = Stage::start(&peer, &[(&text, json!({}))]).await;
    let (_, reply) = stage.connect().await;
    assert_eq!((reply.status, reply.reason()), (500, "filter_failed"), "{reply:?}");
}

#[tokio::test]
async fn what_is_held_is_bounded_and_the_caller_waits() {
    const LIMIT: usize = 64 << 10;
    const SENT: usize = 4 << 20;
    let drops = "(call $must (call $set (i32.const 2) (i32.const 0) (i32.const -1) (i32.const 0) (i32.const 0)))";
    let goes_on = "(call $must (call $continue (i32.const 2)))";
    let peer = peers::says_back().await;
    for (what, by_timer, at_end, passes) in [
        ("goes on", goes_on.to_owned(), "", true),
        ("is dropped and goes on", format!("{drops} {goes_on}"), drops, false),
        ("is dropped", drops.to_owned(), drops, false),
    ] {
        let holds = format!(
            "(if (i32.gt_u (local.get $size) (i32.const {LIMIT})) (then (unreachable)))
            (if (local.get $end) (then {at_end} (return (i32.const 0))))
            (if (i32.eq (local.get $size) (i32.const {LIMIT})) (then (call $later (local.get $context))))
            (i32.const 1)"
        );
        let text = later(Text::default(), &by_timer).on("downstream_data", DATA, &holds);
        let options = Options::default().flag("--filter-body-bytes", LIMIT);
        let stage = Stage::start_with(options, &peer, &[(&text, json!({}))]).await;
        let (mut reading, mut writing) = tokio::io::split(stage.tunnel().await.into_wire());
        let sent: Vec<u8> = (0..SENT).map(|number| (number % 251) as u8).collect();
        let writes = async {
            tokio::io::AsyncWriteExt::write_all(&mut writing, &sent).await?;
            tokio::io::AsyncWriteExt::shutdown(&mut writing).await
        };
        let mut came = Vec::new();
        let reads = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut came);
        let (written, read) = soon("the tunnel to end", async { tokio::join!(writes, reads) }).await;
        written.expect("the gateway reads on");
        read.expect("the peer sends what it gets");
        let expected = if passes { SENT } else { 0 };
        assert!(came == sent[..expected], "{what}: {} bytes came back", came.len());
        let full = stage.world.gateway.metric("tidegate_filter_refused_total", "kind=\"tunnel\"").await;
        assert!(full >= 1.0, "{what}: it was full {full} times");
        let record = stage.record().await;
        let got = (&record["request_bytes"], &record["filters"][0]["outcome"]);
        assert_eq!(got, (&json!(expected), &json!("continued")), "{what}: {record}");
    }
}

#[tokio::test]
async fn no_filter_sees_bytes_that_disagree_with_the_decision() {
    let peer = peers::says_back().await;
    let stage = Stage::start(&peer, &[(&observer(), json!({}))]).await;
    let mut raw = stage.tunnel().await;
    raw.send(b"\x16\x03\x01\x00\x05hello").await;
    assert_eq!(soon("the tunnel to end", raw.rest()).await, b"");
    let record = stage.record().await;
    assert_eq!((&record["reason"], &record["request_bytes"]), (&json!("authority_mismatch"), &json!(0)), "{record}");
    assert!(!kinds(&record["filters"][0]).contains(&"up"), "{record}");
}

#[tokio::test]
async fn filters_are_shown_the_traffic_that_their_route_says() {
    let both = Text::default().on("new_connection", NEW, "unreachable").on("request_headers", DATA, "unreachable");
    let peer = peers::says_back().await;
    let stage = Stage::start(&peer, &[(&both, json!({"traffic": "requests"}))]).await;
    let mut raw = stage.tunnel().await;
    raw.send("hello").await;
    assert_eq!(raw.exactly(5).await, b"hello", "a filter for requests sees nothing of a tunnel");

    let api = Api::start(Speaks::Http1).await;
    stage.world.open_plain("plain", "plain.example.com", api.address).await;
    let route = |traffic: &str| json!({"service": "plain", "filters": [{"plugin": "filter-0", "traffic": traffic}]});
    for (traffic, status) in [("tunnels", 200), ("both", 500), ("requests", 500)] {
        stage.world.rest.register("routes", "plain", &route(traffic)).await;
        stage.world.in_force().await;
        assert_eq!(stage.world.get("http://plain.example.com/").await.status, status, "{traffic}");
    }

    for (name, text, traffic, said) in [
        ("of-requests", Text::default().on("request_headers", DATA, "(i32.const 0)"), "tunnels", "no callbacks for tunnels"),
        ("of-tunnels", observer(), "requests", "all its callbacks are for tunnels"),
    ] {
        let uploaded = stage.world.rest.upload(name, text.module()).await;
        assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
        let route = json!({"service": "plain", "filters": [{"plugin": name, "traffic": traffic}]});
        let refusal = stage.world.rest.put("/v1/routes/plain", &route).await;
        assert_eq!(refusal.status, 422, "{refusal:?}");
        assert!(refusal.text().contains(said), "{}", refusal.text());
    }
}
