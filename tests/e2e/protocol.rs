//! HTTP as an intermediary has to speak it: hop-by-hop headers, Via, upgrades, both versions on both sides, agreement of names.

use tidegate_tests::{
    Raw, World,
    api::{Api, Speaks},
    certificates::client_config,
    h2::{H2, empty, full},
    peers,
    wait::soon,
    wire,
    world::{POD, service, with},
};

#[tokio::test]
async fn hop_by_hop_headers_stay_on_their_hop() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let more = "Connection: close, X-Private\r\nX-Private: 1\r\nKeep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\n\
                TE: gzip\r\nUpgrade: h2c\r\nX-End-To-End: 2\r\nProxy-Authenticate: Basic\r\n";
    let mut raw = world.pod().await;
    let reply = raw.get("http://plain.example.com/hop", "plain.example.com", more).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    raw.assert_closed().await;
    let seen = api.saw("/hop").headers;
    for name in ["x-private", "keep-alive", "proxy-connection", "upgrade", "proxy-authorization"] {
        assert!(!seen.contains_key(name), "{name} went on: {seen:?}");
    }
    assert_eq!(seen["x-end-to-end"], "2");
    assert_eq!(seen["host"], "plain.example.com");
    assert!(seen.get("te").is_none_or(|te| te == "trailers"), "{seen:?}");
}

#[tokio::test]
async fn via_is_added_on_both_ways() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let reply = world.pod().await.get("http://plain.example.com/via", "plain.example.com", "Via: 1.0 sidecar\r\n").await;
    let seen = api.saw("/via").headers;
    let via: Vec<_> = seen.get_all("via").iter().filter_map(|value| value.to_str().ok()).collect();
    let via = via.join(", ");
    assert!(via.starts_with("1.0 sidecar, 1.1 "), "ours comes last: {via}");
    assert!(reply.header("via").is_some_and(|via| via.starts_with("1.1 ")), "{reply:?}");
}

#[tokio::test]
async fn upgrades_pass_through() {
    let world = World::start().await;
    let plain = Api::start(Speaks::Http1).await;
    let secure = world.api("api.example.com").await;
    world.open_plain("plain", "plain.example.com", plain.address).await;
    world.open("api", "api.example.com", secure.address).await;
    for host in ["plain.example.com", "api.example.com"] {
        let mut raw = world.pod().await;
        let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGlkZWdhdGUtdGVzdC1rZXk=\r\n";
        let answer = raw.get(&format!("http://{host}/upgrade"), host, headers).await;
        assert_eq!((answer.status, answer.header("upgrade")), (101, Some("websocket")), "{host}: {answer:?}");
        for word in ["first", "second, longer", "third"] {
            raw.send(word).await;
            let back = soon("the echo", raw.exactly(word.len())).await;
            assert_eq!(String::from_utf8_lossy(&back), word);
        }
        raw.finish().await;
        raw.assert_closed().await;
        let record = world.rest.record_to(&format!("{host}:80/upgrade")).await;
        assert_eq!(record["status"], 101, "{record}");
        assert!(record["request_bytes"].as_u64() >= Some(24) && record["response_bytes"].as_u64() >= Some(24), "{record}");
    }
}

#[tokio::test]
async fn http1_and_http2_meet_on_either_side() {
    let world = World::start().await;
    let old = Api::start(Speaks::Http1).await;
    let new = Api::start(Speaks::Http2).await;
    world.open_plain("old", "old.example.com", old.address).await;
    let document =
        with(tidegate_tests::world::plain_service("new.example.com", new.address), "/ports/0/protocol", "http2".into());
    world.rest.register("services", "new", &document).await;
    world.allow("new").await;
    for (host, api, version) in
        [("old.example.com", &old, http::Version::HTTP_11), ("new.example.com", &new, http::Version::HTTP_2)]
    {
        let mut raw = world.pod().await;
        raw.send(format!("POST http://{host}/echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: 4\r\nCookie: a=1\r\n\r\none!"))
            .await;
        assert_eq!(raw.reply().await.text(), "one!", "{host} over HTTP/1.1");
        assert_eq!(api.saw("/echo").version, version);

        let connection = H2::connect_from(POD, world.gateway.addresses.proxy).await;
        let request = http::Request::post(format!("http://{host}/echo"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(full("two!"))
            .expect("a request");
        assert_eq!(connection.send(request).await.text(), "two!", "{host} over HTTP/2");
        let seen = api.saw("/echo");
        let cookies: Vec<_> = seen.headers.get_all("cookie").iter().filter_map(|value| value.to_str().ok()).collect();
        assert!(cookies == ["a=1; b=2"] || version == http::Version::HTTP_2, "RFC 9113 section 8.2.3: {cookies:?}");
    }
}

#[tokio::test]
async fn head_and_bodiless_answers_leave_the_connection_usable() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut raw = world.pod().await;
    raw.send("HEAD http://plain.example.com/v1/charges HTTP/1.1\r\nHost: plain.example.com\r\n\r\n").await;
    let head = raw.head().await;
    assert_eq!(head.status, 200, "{head:?}");
    for status in [204, 304, 200] {
        let reply = raw.get(&format!("http://plain.example.com/status/{status}"), "plain.example.com", "").await;
        assert_eq!(reply.status, status, "{reply:?}");
    }
}

#[tokio::test]
async fn http_1_0_callers_are_answered_in_their_own_terms() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut raw = world.pod().await;
    raw.send("GET http://plain.example.com/trailers HTTP/1.0\r\nHost: plain.example.com\r\n\r\n").await;
    let reply = raw.reply().await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(reply.header("transfer-encoding"), None, "HTTP/1.0 knows no chunks: {reply:?}");
    assert_eq!(reply.text(), "one two");
}

#[tokio::test]
async fn a_tunnel_carries_only_what_it_was_granted_for() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let other = world.api("other.example.com").await;
    world.open("other", "other.example.com", other.address).await;
    let mut raw = world.pod().await;
    raw.send("CONNECT api.example.com:443 HTTP/1.1\r\nHost: api.example.com:443\r\n\r\n").await;
    assert_eq!(raw.head().await.status, 200);
    // The tunnel is for api.example.com; a handshake that names another service ends it.
    let config = client_config(&world.authority, None, &[]);
    let shaken = wire::secure(raw.into_wire(), config, "other.example.com").await;
    assert!(shaken.is_err(), "the handshake must not reach anyone");
    let record = world.rest.record("the tunnel", |record| record["reason"] == "authority_mismatch").await;
    assert_eq!((&record["method"], &record["target"]), (&"CONNECT".into(), &"api.example.com:443".into()), "{record}");
    assert_eq!((api.handshakes(), other.handshakes()), (0, 0));
}

#[tokio::test]
async fn every_request_of_a_reused_connection_is_decided_anew() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    world.rest.register("services", "closed", &tidegate_tests::world::plain_service("closed.example.com", api.address)).await;
    world.in_force().await;
    let mut raw = world.pod().await;
    for _ in 0..3 {
        let open = raw.get("http://plain.example.com/", "plain.example.com", "").await;
        assert_eq!(open.status, 200, "{open:?}");
        let closed = raw.get("http://closed.example.com/", "closed.example.com", "").await;
        assert_eq!((closed.status, closed.reason()), (403, "no_rule_allows"));
    }
    let connection = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    for (host, status) in [("plain.example.com", 200), ("closed.example.com", 403), ("plain.example.com", 200)] {
        let request = http::Request::get(format!("http://{host}/")).body(empty()).expect("a request");
        assert_eq!(connection.send(request).await.status, status, "{host}");
    }
}

#[tokio::test]
async fn raw_tcp_goes_through_a_tunnel_and_half_closes() {
    let world = World::start().await;
    let peer = peers::says_back().await;
    let document =
        with(service("tcp.example.com", peer.address), "/ports", serde_json::json!([{"number": 9000, "protocol": "tcp"}]));
    let document = with(document, "/tls", serde_json::Value::Null);
    world.rest.register("services", "tcp", &document).await;
    world.allow("tcp").await;
    let mut raw: Raw = world.pod().await;
    raw.send("CONNECT tcp.example.com:9000 HTTP/1.1\r\nHost: tcp.example.com:9000\r\n\r\n").await;
    assert_eq!(raw.head().await.status, 200);
    raw.send("hello, and that is all").await;
    raw.finish().await;
    let back = soon("the echo and the end", raw.rest()).await;
    assert_eq!(String::from_utf8_lossy(&back), "hello, and that is all");
    let record = world.rest.record_to("tcp.example.com:9000").await;
    assert_eq!((&record["request_bytes"], &record["response_bytes"]), (&22.into(), &22.into()), "{record}");

    let mut plain = world.pod().await;
    let reply = plain.get("http://tcp.example.com:9000/", "tcp.example.com:9000", "").await;
    assert_eq!((reply.status, reply.reason()), (400, "malformed_target"), "only tunnels reach it: {reply:?}");
}

#[tokio::test]
async fn an_https_url_without_a_tunnel_is_originated() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let connection = H2::connect_from(POD, world.gateway.addresses.proxy).await;
    let request = http::Request::get("https://api.example.com/secure").body(empty()).expect("a request");
    let reply = connection.send(request).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert!(api.was_asked("/secure"));
}
