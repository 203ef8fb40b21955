//! What callers get when an exchange does not go through: every row of the table of answers, with its status, its reason and
//! the record it leaves.

use serde_json::{Value, json};
use tidegate_tests::{
    Raw, World, api,
    dns::Entry,
    h2::{H2, full},
    peers,
    raw::Reply,
    tokens::TokenIssuer,
    until,
    world::{POD, STRANGER, plain_service, service, with},
};

/// One refusal: the request that gets it and what is expected of it.
struct Row {
    what: &'static str,
    from: std::net::IpAddr,
    request: String,
    status: u16,
    reason: &'static str,
    verdict: &'static str,
}

fn row(what: &'static str, request: impl Into<String>, status: u16, reason: &'static str, verdict: &'static str) -> Row {
    Row { what, from: POD, request: request.into(), status, reason, verdict }
}

fn get(url: &str, more: &str) -> String {
    let host = url.split('/').nth(2).unwrap_or_default();
    format!("GET {url} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
}

async fn check(world: &World, row: &Row) {
    let mut raw = Raw::connect_from(row.from, world.gateway.addresses.proxy).await;
    raw.send(&row.request).await;
    let reply = raw.reply().await;
    assert_answer(&reply, row.what, row.status, row.reason);
    let record = world.rest.record(row.what, |record| record["reason"] == row.reason && of_row(record, &row.request)).await;
    assert_eq!(record["verdict"], row.verdict, "{}: {record}", row.what);
    assert_eq!(record["status"], row.status, "{}: {record}", row.what);
    assert_eq!(record["source"].as_str().map(|source| source.starts_with(&row.from.to_string())), Some(true), "{record}");
}

/// Whether `record` can be that of `request`: rows of one reason ask for different hosts.
fn of_row(record: &Value, request: &str) -> bool {
    let target = record["target"].as_str().unwrap_or_default();
    let host = target.split("//").last().unwrap_or_default().split([':', '/']).next().unwrap_or_default();
    host.is_empty() || request.to_ascii_lowercase().contains(host)
}

fn assert_answer(reply: &Reply, what: &str, status: u16, reason: &str) {
    assert_eq!((reply.status, reply.reason()), (status, reason), "{what}: {reply:?}\n{}", reply.text());
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{what}: {reply:?}");
    let problem = reply.json();
    assert_eq!(problem["status"], status, "{what}: {problem}");
    assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{what} says why: {problem}");
}

async fn caller_world() -> (World, api::Api) {
    let world = World::start().await;
    let api = api::Api::start(api::Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    let limited = json!({"service": "limited", "limits": {"request_body_bytes": 10}});
    world.rest.register("services", "limited", &plain_service("limited.example.com", api.address)).await;
    world.rest.register("routes", "limited", &limited).await;
    world.rest.register("services", "named", &plain_service("named.example.com", api.address)).await;
    let only_checkout = json!({"action": "allow", "from": [{"principals": ["checkout"]}], "to": [{"services": ["named"]}]});
    world.rest.register("rules", "named", &only_checkout).await;
    world.rest.register("issuers", "cluster", &TokenIssuer::new("https://issuer.example").document()).await;
    world.allow("limited").await;
    (world, api)
}

#[tokio::test]
async fn callers_own_mistakes_are_400_407_413_421_431() {
    let (world, api) = caller_world().await;
    let long = "a".repeat(1 << 20);
    let rows = [
        row("octal address", get("http://0177.0.0.1/", ""), 400, "malformed_target", "invalid"),
        row("user information", get("http://me@plain.example.com/", ""), 400, "malformed_target", "invalid"),
        row("port zero", get("http://plain.example.com:0/", ""), 400, "malformed_target", "invalid"),
        row("no host", "GET / HTTP/1.1\r\n\r\n", 400, "bad_framing", "invalid"),
        row(
            "two lengths",
            "POST http://plain.example.com/ HTTP/1.1\r\nHost: plain.example.com\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            400,
            "bad_framing",
            "invalid",
        ),
        Row {
            from: STRANGER,
            ..row("no credentials", get("http://named.example.com/", ""), 407, "credentials_required", "invalid")
        },
        row(
            "a token that is none",
            get("http://plain.example.com/", "Proxy-Authorization: Bearer nonsense\r\n"),
            407,
            "credentials_invalid",
            "invalid",
        ),
        row(
            "too large a body",
            "POST http://limited.example.com/ HTTP/1.1\r\nHost: limited.example.com\r\nContent-Length: 11\r\n\r\nhello world",
            413,
            "body_too_large",
            "denied",
        ),
        row(
            "two hosts",
            "GET http://plain.example.com/ HTTP/1.1\r\nHost: limited.example.com\r\n\r\n",
            421,
            "authority_mismatch",
            "invalid",
        ),
        row(
            "too large a head",
            get("http://plain.example.com/", &format!("X-Long: {long}\r\n")),
            431,
            "header_too_large",
            "invalid",
        ),
    ];
    for row in &rows {
        check(&world, row).await;
    }
    let reply = world.stranger().await.get("http://named.example.com/", "named.example.com", "").await;
    assert!(reply.header("proxy-authenticate").is_some_and(|scheme| scheme.starts_with("Bearer")), "{reply:?}");
    assert!(!api.was_asked("/"), "nothing of it may have left: {:?}", api.seen());
}

#[tokio::test]
async fn policy_refuses_with_403() {
    let world = World::start().await;
    let api = api::Api::start(api::Speaks::Http1).await;
    world.rest.register("services", "denied", &plain_service("denied.example.com", api.address)).await;
    world.rest.register("services", "forgotten", &plain_service("forgotten.example.com", api.address)).await;
    let private = with(service("private.example.com", api.address), "/networks", json!([]));
    world.rest.register("services", "private", &private).await;
    let resolves = json!({"hosts": ["metadata.example.com"], "ports": [{"number": 80, "protocol": "http"}]});
    world.rest.register("services", "metadata", &resolves).await;
    world.names.set("metadata.example.com", &["169.254.169.254"]);
    world.rest.register("rules", "no-way", &json!({"action": "deny", "to": [{"services": ["denied"]}]})).await;
    for name in ["denied", "private", "metadata"] {
        world.allow(name).await;
    }
    let rows = [
        row("nobody registered it", get("http://unknown.example.com/", ""), 403, "unregistered_host", "denied"),
        row("a port nobody registered", get("http://forgotten.example.com:8080/", ""), 403, "unregistered_host", "denied"),
        row("such a port under a deny rule", get("http://denied.example.com:8080/", ""), 403, "denied_by_rule", "denied"),
        row("a deny rule beside an allow rule", get("http://denied.example.com/", ""), 403, "denied_by_rule", "denied"),
        row("no rule at all", get("http://forgotten.example.com/", ""), 403, "no_rule_allows", "denied"),
        row("an endpoint in a private network", get("http://private.example.com/", ""), 403, "address_refused", "denied"),
        row("a name with a forbidden address", get("http://metadata.example.com/", ""), 403, "address_refused", "denied"),
    ];
    for row in &rows {
        check(&world, row).await;
    }
    let record = world.rest.record_to("denied.example.com:80").await;
    assert_eq!(record["rule"], "no-way", "the deciding rule is named: {record}");
    assert!(api.seen().is_empty(), "nothing of it may have left: {:?}", api.seen());
}

#[tokio::test]
async fn upstream_failures_are_502_503_504() {
    let world = World::start().await;
    let nobody = peers::nobody().await;
    let silent = peers::silent().await;
    let garbage = peers::says("SMTP ready\r\n\r\n").await;
    let smtp = peers::greets("220 mail.example.com ESMTP ready\r\n").await;
    let hangs_up = peers::hangs_up().await;
    world.names.put("broken.example.com", Entry::Broken);
    for (name, host) in [("missing", "missing.example.com"), ("broken", "broken.example.com")] {
        let document = json!({"hosts": [host], "ports": [{"number": 80, "protocol": "http"}]});
        world.rest.register("services", name, &document).await;
        world.allow(name).await;
    }
    world.open_plain("nobody", "nobody.example.com", nobody).await;
    world.open_plain("garbage", "garbage.example.com", garbage.address).await;
    world.open_plain("hangs-up", "hangs-up.example.com", hangs_up.address).await;
    world.open("no-tls", "no-tls.example.com", smtp.address).await;
    world.open_plain("silent", "silent.example.com", silent.address).await;
    let impatient = json!({"service": "silent", "timeouts": {"first_byte": "100ms"}});
    world.rest.register("routes", "silent", &impatient).await;
    world.in_force().await;
    let rows = [
        row("a name that does not exist", get("http://missing.example.com/", ""), 502, "resolve_failed", "allowed"),
        row("a name server that fails", get("http://broken.example.com/", ""), 502, "resolve_failed", "allowed"),
        row("nobody listens", get("http://nobody.example.com/", ""), 502, "connect_failed", "allowed"),
        row("it does not speak TLS", get("http://no-tls.example.com/", ""), 502, "tls_failed", "allowed"),
        row("it does not speak HTTP", get("http://garbage.example.com/", ""), 502, "upstream_protocol", "allowed"),
        row("it hangs up", get("http://hangs-up.example.com/", ""), 502, "upstream_protocol", "allowed"),
        row("it never answers", get("http://silent.example.com/", ""), 504, "timeout", "allowed"),
    ];
    for row in &rows {
        check(&world, row).await;
    }
}

#[tokio::test]
async fn limits_are_429_and_503_and_faults_are_injected() {
    let world = World::start().await;
    let api = api::Api::start(api::Speaks::Http1).await;
    for name in ["rated", "narrow", "faulty"] {
        world.open_plain(name, &format!("{name}.example.com"), api.address).await;
    }
    let routes = [("rated", json!({"rate": {"per_second": 1, "burst": 1}})), ("narrow", json!({"concurrent": 1}))];
    for (name, limits) in routes {
        world.rest.register("routes", name, &json!({"service": name, "limits": limits})).await;
    }
    world.rest.register("routes", "faulty", &json!({"service": "faulty", "fault": {"abort": 503}})).await;
    world.in_force().await;

    let first = world.get("http://rated.example.com/").await;
    assert_eq!(first.status, 200, "one a second passes: {first:?}");
    check(&world, &row("one more within the second", get("http://rated.example.com/", ""), 429, "rate_limited", "denied"))
        .await;

    let mut held = world.pod().await;
    held.send(get("http://narrow.example.com/gate", "")).await;
    until("the first exchange to be under way", async || (api.waiting() == 1).then_some(())).await;
    check(&world, &row("a second exchange", get("http://narrow.example.com/", ""), 503, "overloaded", "denied")).await;
    api.open_gate();
    assert_eq!(held.reply().await.status, 200, "the first one is not disturbed");
    // Its place is free when the gateway has let go of the response, which its caller may be a moment ahead of.
    until("room again", async || (world.get("http://narrow.example.com/").await.status == 200).then_some(())).await;

    check(&world, &row("an injected fault", get("http://faulty.example.com/", ""), 503, "fault_injected", "denied")).await;
}

#[tokio::test]
async fn a_request_that_came_through_here_before_is_508() {
    let world = World::start().await;
    let api = api::Api::start(api::Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;
    assert_eq!(world.get("http://plain.example.com/first").await.status, 200);
    let via = api.saw("/first").headers["via"].to_str().expect("Via is ASCII").to_owned();
    let again =
        row("its own Via", get("http://plain.example.com/again", &format!("Via: {via}\r\n")), 508, "loop_detected", "invalid");
    check(&world, &again).await;
    let among = format!("Via: 1.1 elsewhere, {via}, 1.0 somewhere\r\n");
    let reply = world.pod().await.get("http://plain.example.com/among", "plain.example.com", &among).await;
    assert_eq!((reply.status, reply.reason()), (508, "loop_detected"));
    let other = world.pod().await.get("http://plain.example.com/other", "plain.example.com", "Via: 1.1 elsewhere\r\n").await;
    assert_eq!(other.status, 200, "somebody else's Via is no loop: {other:?}");
    assert!(!api.was_asked("/again") && !api.was_asked("/among"));
}

#[tokio::test]
async fn a_grpc_caller_is_told_in_its_own_terms() {
    let world = World::start().await;
    let rows = [
        ("http://unknown.example.com/shop.Payments/Pay", "7", "unregistered_host"),
        ("http://0x7f.1/shop.Payments/Pay", "3", "malformed_target"),
    ];
    for (url, grpc_status, reason) in rows {
        let connection = H2::connect_from(POD, world.gateway.addresses.proxy).await;
        let request = http::Request::post(url).header("content-type", "application/grpc").header("te", "trailers");
        let reply = connection.send(request.body(full("\0\0\0\0\0")).expect("a request")).await;
        assert_eq!((reply.status, reply.reason()), (200, reason), "{url}: {reply:?}");
        let status = reply
            .header("grpc-status")
            .or_else(|| reply.trailers.iter().find(|(name, _)| name == "grpc-status").map(|(_, value)| value.as_str()));
        assert_eq!(status, Some(grpc_status), "{url}: {reply:?}");
    }
}
