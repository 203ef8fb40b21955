//! Request smuggling, end to end: what two readers could understand differently never reaches the API, and an answer that two
//! readers could understand differently never reaches the caller.

use tidegate_tests::{
    Raw, World,
    api::{Api, Speaks},
    peers,
    wait::soon,
};

/// What may be wrong with a request, after its request line. `HOST` stands for a good Host line.
const REQUESTS: [(&str, &str); 26] = [
    ("repeated Content-Length", "HOST\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    ("conflicting Content-Length", "HOST\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    ("a list of Content-Lengths", "HOST\r\nContent-Length: 5, 5\r\n\r\nhello"),
    ("a signed Content-Length", "HOST\r\nContent-Length: +5\r\n\r\nhello"),
    ("a negative Content-Length", "HOST\r\nContent-Length: -1\r\n\r\n"),
    ("a hexadecimal Content-Length", "HOST\r\nContent-Length: 0x5\r\n\r\nhello"),
    ("a Content-Length that overflows", "HOST\r\nContent-Length: 18446744073709551617\r\n\r\nh"),
    ("an empty Content-Length", "HOST\r\nContent-Length: \r\n\r\n"),
    ("both framings", "HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("both framings, turned round", "HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("chunked twice", "HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("chunked not last", "HOST\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("a coding nobody knows", "HOST\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("a coding with a vertical tab", "HOST\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("a space before the colon", "HOST\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("obsolete folding", "HOST\r\nX-Folded: one\r\n two\r\n\r\n"),
    ("folding before the first header", " X: y\r\nHOST\r\n\r\n"),
    ("a bare LF between headers", "HOST\nX: y\r\n\r\n"),
    ("a bare LF at the end", "HOST\r\nX: y\n\n"),
    ("a bare CR in a value", "HOST\r\nX: a\rb\r\n\r\n"),
    ("a NUL in a value", "HOST\r\nX: a\0b\r\n\r\n"),
    ("two hosts", "HOST\r\nHost: elsewhere.example.com\r\n\r\n"),
    ("a header without a name", "HOST\r\n: value\r\n\r\n"),
    ("a chunk size that is none", "HOST\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size that overflows", "HOST\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
    ("a chunk longer than its size", "HOST\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n"),
];

#[tokio::test]
async fn ambiguous_requests_are_refused_and_the_connection_is_closed() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    for (what, rest) in REQUESTS {
        let rest = rest.replace("HOST", "Host: plain.example.com");
        let smuggled = "GET http://plain.example.com/smuggled HTTP/1.1\r\nHost: plain.example.com\r\n\r\n";
        let mut raw = world.pod().await;
        raw.send(format!("POST http://plain.example.com/sink HTTP/1.1\r\n{rest}{smuggled}")).await;
        let reply = raw.reply().await;
        assert_eq!((reply.status, reply.reason()), (400, "bad_framing"), "{what}: {reply:?}");
        raw.assert_closed().await;
    }
    assert!(!api.was_asked("/smuggled"), "{:?}", api.seen());
    let alive = world.get("http://plain.example.com/alive").await;
    assert_eq!(alive.status, 200, "{alive:?}");
}

#[tokio::test]
async fn request_lines_that_two_readers_could_split_differently_are_refused() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let lines = [
        "GET  http://plain.example.com/smuggled HTTP/1.1",
        "GET http://plain.example.com/smuggled  HTTP/1.1",
        "GET\thttp://plain.example.com/smuggled\tHTTP/1.1",
        "GET http://plain.example.com/smug gled HTTP/1.1",
        "GET http://plain.example.com/smuggled",
        "GET http://plain.example.com/smuggled HTTP/1.1\rX: y",
        "GET http://plain.example.com/smuggled HTTP/9.9",
        "G@T http://plain.example.com/smuggled HTTP/1.1",
        " GET http://plain.example.com/smuggled HTTP/1.1",
    ];
    for line in lines {
        let mut raw = world.pod().await;
        raw.send(format!("{line}\r\nHost: plain.example.com\r\n\r\n")).await;
        let reply = raw.reply().await;
        assert!(matches!(reply.status, 400 | 505), "{line:?}: {reply:?}");
        raw.assert_closed().await;
    }
    assert!(!api.was_asked("/smuggled"), "{:?}", api.seen());
}

#[tokio::test]
async fn bytes_sent_before_a_tunnel_is_granted_do_not_leave_early() {
    let world = World::start().await;
    let peer = peers::says_back().await;
    let document = serde_json::json!({
        "hosts": ["tunnel.example.com"], "ports": [{"number": 9000, "protocol": "tcp"}], "resolution": "static",
        "endpoints": [{"address": "127.0.0.1", "port": peer.address.port()}], "networks": ["127.0.0.0/8"],
    });
    world.rest.register("services", "tunnel", &document).await;
    // No rule yet: what is sent along with a CONNECT that is refused must not be read as a request of its own.
    world.in_force().await;
    let connect = "CONNECT tunnel.example.com:9000 HTTP/1.1\r\nHost: tunnel.example.com:9000\r\n\r\n";
    let smuggled = "GET http://tunnel.example.com:9000/smuggled HTTP/1.1\r\nHost: tunnel.example.com:9000\r\n\r\n";
    let mut raw = world.pod().await;
    raw.send(format!("{connect}{smuggled}")).await;
    let refusal = raw.reply().await;
    assert_eq!((refusal.status, refusal.reason()), (403, "no_rule_allows"), "{refusal:?}");
    raw.assert_closed().await;

    world.allow("tunnel").await;
    let mut raw = world.pod().await;
    raw.send(format!("{connect}early")).await;
    let answer = raw.head().await;
    // Refused, or held until the tunnel stands: never lost, and never before the answer.
    match answer.status {
        200 => assert_eq!(raw.exactly(5).await, b"early"),
        400 => assert_eq!(answer.reason(), "bad_framing"),
        other => panic!("{other}: {answer:?}"),
    }
}

#[tokio::test]
async fn bytes_sent_before_an_upgrade_is_granted_are_not_a_second_request() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut raw = world.pod().await;
    raw.send(
        "GET http://plain.example.com/sink HTTP/1.1\r\nHost: plain.example.com\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n\
         GET http://plain.example.com/smuggled HTTP/1.1\r\nHost: plain.example.com\r\n\r\n",
    )
    .await;
    let answer = raw.reply().await;
    assert!(matches!(answer.status, 200 | 400), "{answer:?}");
    soon("the connection to end or go on", raw.rest_or_reply()).await;
    // The upgrade was not granted; a pipelined request may then be served as one, but never inside an upgraded stream.
    assert!(api.seen().iter().all(|seen| seen.uri.path() != "/smuggled" || !seen.headers.contains_key("upgrade")));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let mut raw = world.pod().await;
    let one = |path: &str| {
        format!(
            "POST http://plain.example.com/echo HTTP/1.1\r\nHost: plain.example.com\r\nContent-Length: {}\r\n\r\n{path}",
            path.len()
        )
    };
    raw.send(one("first") + &one("second") + &one("third")).await;
    for expected in ["first", "second", "third"] {
        let reply = raw.reply().await;
        assert_eq!((reply.status, reply.text().as_str()), (200, expected));
    }
    assert_eq!(api.seen().len(), 3);
}

#[tokio::test]
async fn ambiguous_answers_are_502() {
    let world = World::start().await;
    let answers = [
        ("lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
        ("both", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
        ("folding", "HTTP/1.1 200 OK\r\nX: one\r\n two\r\nContent-Length: 0\r\n\r\n"),
        ("header", "HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 0\r\n\r\n"),
        ("status", "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n"),
        ("switch", "HTTP/1.1 101 Switching Protocols\r\n\r\n"),
    ];
    for (name, answer) in answers {
        let peer = peers::says(answer).await;
        let host = format!("{name}.example.com");
        world.open_plain(name, &host, peer.address).await;
        let reply = world.get(&format!("http://{host}/")).await;
        assert_eq!((reply.status, reply.reason()), (502, "upstream_protocol"), "{name}: {reply:?}");
    }
}

#[tokio::test]
async fn http2_cannot_say_what_http1_would_misunderstand() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let connection = tidegate_tests::h2::H2::connect_from(tidegate_tests::world::POD, world.gateway.addresses.proxy).await;
    let mismatched = http::Request::post("http://plain.example.com/echo")
        .header("host", "elsewhere.example.com")
        .body(tidegate_tests::h2::full("hello"))
        .expect("a request");
    let reply = connection.send(mismatched).await;
    assert_eq!((reply.status, reply.reason()), (421, "authority_mismatch"), "{reply:?}");
    assert!(api.seen().is_empty(), "{:?}", api.seen());
    // A caller that speaks neither version is not answered with something it could take for an upstream's.
    let mut raw = Raw::connect(world.gateway.addresses.proxy).await;
    raw.send("\x16\x03\x01\x00\x05hello\r\n\r\n").await;
    let rest = soon("the gateway to hang up", raw.rest()).await;
    assert!(rest.is_empty() || rest.starts_with(b"HTTP/1.1 400"), "{:?}", String::from_utf8_lossy(&rest));
}
