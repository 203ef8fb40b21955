//! What a decision takes into account beyond its rules: ports, forms, windows, routes, destinations; and what compiling
//! says of documents that do not fit together.

use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tidegate_policy::{
    Identity, Mistake, Name, Permit, Reason, Request, Rows, Snapshot, Target,
    credential::CredentialKind,
    identity::{Caller, Proof},
    service::Protocol,
    snapshot::Mode,
    target::Form,
};

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn document<T: serde::de::DeserializeOwned>(value: &Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value.clone()).unwrap_or_else(|why| panic!("{why}: {value}")))
}

/// Rows from `{"services": {"name": {…}}, …}`.
fn rows(value: Value) -> Rows {
    fn of<T: serde::de::DeserializeOwned>(value: &Value, collection: &str) -> std::collections::BTreeMap<Name, Arc<T>> {
        let documents = value[collection].as_object().into_iter().flatten();
        documents.map(|(key, value)| (name(key), document(value))).collect()
    }
    Rows {
        mode: if value["open"] == json!(true) { Mode::Open } else { Mode::Registered },
        services: of(&value, "services"),
        routes: of(&value, "routes"),
        rules: of(&value, "rules"),
        workloads: of(&value, "workloads"),
        issuers: of(&value, "issuers"),
        credentials: [(name("ca"), CredentialKind::Trust), (name("client"), CredentialKind::Certificate)].into(),
        plugins: of(&value, "plugins"),
    }
}

#[track_caller]
fn snapshot(value: Value) -> Snapshot {
    Snapshot::compile(&rows(value)).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn mistakes(value: Value) -> Vec<String> {
    let mistakes = Snapshot::compile(&rows(value)).err().unwrap_or_default();
    mistakes.into_iter().map(|Mistake { pointer, .. }| pointer).collect()
}

fn ask(snapshot: &Snapshot, form: Form, host: &str, port: u16, path: &str) -> Result<Permit, Reason> {
    let target = Target { form, host: host.parse().expect(host), port };
    let (method, headers) =
        (http::Method::GET, http::HeaderMap::from_iter([(http::header::ACCEPT, "text/x".parse().expect("a value"))]));
    let query = Some("page=1&kind=a%20b");
    let request = Request { target: &target, method: &method, path, query, headers: &headers, time: SystemTime::UNIX_EPOCH };
    snapshot.decide(&Identity::unknown([10, 0, 0, 1].into()), &request).map_err(|denial| denial.reason)
}

#[test]
fn the_default_snapshot_refuses_everything() {
    for form in [Form::Plain, Form::Secure, Form::Tunnel] {
        assert_eq!(ask(&Snapshot::default(), form, "a.example", 443, "/").err(), Some(Reason::UnregisteredHost));
    }
}

type Mapped = Result<(u16, Protocol), Reason>;

#[test]
fn ports_map_as_the_service_registers_them() {
    let ports = |ports: &[(u16, &str)]| ports.iter().map(|(n, p)| json!({"number": n, "protocol": p})).collect::<Vec<_>>();
    let snapshot = snapshot(json!({"rules": {"all": {"action": "allow"}}, "services": {
        "web": {"hosts": ["web"], "ports": ports(&[(8443, "https"), (443, "https"), (50051, "grpc")])},
        "rpc": {"hosts": ["rpc"], "ports": ports(&[(50051, "grpc")])},
        "clear": {"hosts": ["clear"], "ports": ports(&[(80, "http"), (81, "http2"), (443, "https")])},
        "clear-rpc": {"hosts": ["clear-rpc"], "ports": ports(&[(50051, "grpc")]), "tls": {"mode": "disabled"}},
        "opaque": {"hosts": ["opaque"], "ports": ports(&[(443, "tls"), (5432, "tcp")])},
        "pass": {"hosts": ["pass"], "ports": ports(&[(443, "https")]), "tls": {"mode": "passthrough"}},
    }}));
    let table: &[(Form, &str, u16, Mapped)] = &[
        (Form::Plain, "web", 80, Ok((8443, Protocol::Https))),
        (Form::Plain, "web", 443, Ok((443, Protocol::Https))),
        (Form::Plain, "web", 81, Err(Reason::UnregisteredHost)),
        (Form::Plain, "rpc", 80, Ok((50051, Protocol::Grpc))),
        (Form::Plain, "clear", 80, Ok((80, Protocol::Http))),
        (Form::Plain, "clear", 81, Ok((81, Protocol::Http2))),
        (Form::Plain, "opaque", 443, Err(Reason::MalformedTarget)),
        (Form::Plain, "opaque", 80, Err(Reason::UnregisteredHost)),
        (Form::Plain, "pass", 443, Err(Reason::MalformedTarget)),
        (Form::Plain, "pass", 80, Err(Reason::MalformedTarget)),
        (Form::Secure, "web", 443, Ok((443, Protocol::Https))),
        (Form::Secure, "rpc", 50051, Ok((50051, Protocol::Grpc))),
        (Form::Secure, "rpc", 443, Err(Reason::UnregisteredHost)),
        (Form::Secure, "clear", 80, Err(Reason::MalformedTarget)),
        (Form::Secure, "clear", 81, Err(Reason::MalformedTarget)),
        (Form::Secure, "clear-rpc", 50051, Err(Reason::MalformedTarget)),
        (Form::Secure, "opaque", 443, Err(Reason::MalformedTarget)),
        (Form::Secure, "pass", 443, Err(Reason::MalformedTarget)),
        (Form::Tunnel, "web", 443, Ok((443, Protocol::Https))),
        (Form::Tunnel, "web", 80, Err(Reason::UnregisteredHost)),
        (Form::Tunnel, "clear", 80, Ok((80, Protocol::Http))),
        (Form::Tunnel, "opaque", 5432, Ok((5432, Protocol::Tcp))),
        (Form::Tunnel, "pass", 443, Ok((443, Protocol::Https))),
    ];
    for (form, host, port, expected) in table {
        let answer = ask(&snapshot, *form, host, *port, "/").map(|permit| (permit.port().number, permit.port().protocol));
        assert_eq!(answer, *expected, "{form:?} {host}:{port}");
    }
}

#[test]
fn open_mode_gives_unregistered_targets_no_service() {
    let snapshot = snapshot(json!({"open": true,
        "services": {"web": {"hosts": ["web"], "ports": [{"number": 443, "protocol": "https"}], "networks": ["10.0.0.0/8"]}},
        "routes": {"r": {"service": "web"}},
        "rules": {"no": {"action": "deny", "to": [{"services": ["web"], "ports": [22]}]}}}));
    let permit = ask(&snapshot, Form::Tunnel, "web", 5000, "").expect("open");
    assert!(permit.service().is_none() && permit.route().is_none());
    assert_eq!((permit.reason(), permit.port().protocol), (Reason::OpenMode, Protocol::Tcp));
    assert!(ask(&snapshot, Form::Secure, "web", 443, "/").expect("open").route().is_some());
    assert_eq!(ask(&snapshot, Form::Secure, "else", 8443, "/").expect("open").port().protocol, Protocol::Https);
    assert_eq!(ask(&snapshot, Form::Tunnel, "web", 22, "").err(), Some(Reason::DeniedByRule));
}

#[test]
fn the_first_route_that_matches_is_taken_and_ambiguity_is_refused() {
    let snapshot = snapshot(json!({
    "services": {"web": {"hosts": ["web"], "ports": [{"number": 80, "protocol": "http"}]}},
    "rules": {"all": {"action": "allow"}},
    "routes": {
        "z-first": {"service": "web", "match": [{"path": "/admin*"}, {"path": "/v1/*", "methods": ["GET"]}]},
        "a-later": {"service": "web", "order": 1, "match": [{"query": {"kind": "a b"}, "headers": {"accept": "text/*"}, "path": "/q*"}]},
        "b-last": {"service": "web", "order": 2, "match": [{"headers": {"x-none": "*"}}]},
    }}));
    let route = |path: &str| {
        ask(&snapshot, Form::Plain, "web", 80, path).map(|permit| permit.route().map(|route| route.name.to_string()))
    };
    assert_eq!(route("/v1/x"), Ok(Some("z-first".to_owned())));
    assert_eq!(route("/v1/../q"), Ok(Some("a-later".to_owned())));
    assert_eq!(route("/other"), Ok(None));
    assert_eq!(route("/v1/a%2Fb"), Ok(Some("z-first".to_owned())), "every reading leads there");
    for path in ["//admin", "/x/..%2fadmin", "/%00", "/x%2f..%2fadmin", "/x;/../../v1/y/..;/..;/z"] {
        assert_eq!(route(path), Err(Reason::MalformedTarget), "{path}");
    }
    let permit = ask(&snapshot, Form::Plain, "web", 80, "/v1/x").expect("allowed");
    assert_eq!(permit.matched().map(|entry| entry.methods.len()), Some(1));
}

#[test]
fn windows_may_run_past_midnight() {
    let window = |value| document::<tidegate_policy::rule::Window>(&value);
    let at = |day: u64, hour: u64, minute: u64| {
        // 1970-01-05 was a Monday.
        (SystemTime::UNIX_EPOCH + Duration::from_secs((4 + day) * 86_400 + hour * 3_600 + minute * 60)).into()
    };
    let night = window(json!({"days": ["friday"], "from": "22:00", "until": "06:00"}));
    for (day, hour, minute, open) in [
        (4, 22, 0, true),
        (4, 21, 59, false),
        (5, 0, 0, true),
        (5, 5, 59, true),
        (5, 6, 0, false),
        (4, 3, 0, false),
        (5, 23, 0, false),
    ] {
        assert_eq!(night.holds(at(day, hour, minute)), open, "day {day} {hour}:{minute}");
    }
    let sunday = window(json!({"days": ["sunday"], "from": "23:00", "until": "01:00"}));
    assert!(
        sunday.holds(at(6, 23, 30)) && sunday.holds(at(7, 0, 30)) && sunday.holds(at(0, 0, 30)) && !sunday.holds(at(6, 0, 30))
    );
    assert!(window(json!({"until": "08:00"})).holds(at(2, 7, 59)) && !window(json!({"until": "08:00"})).holds(at(2, 8, 0)));
    assert!(window(json!({"from": "08:00"})).holds(at(2, 23, 59)));
}

#[test]
fn a_destination_is_dialled_as_itself_and_only_where_the_route_says_so() {
    let snapshot = snapshot(json!({
        "services": {
            "web": {"hosts": ["web"], "ports": [{"number": 443, "protocol": "https"}]},
            "next": {"hosts": ["*.next", "canary.next"], "ports": [{"number": 8443, "protocol": "https"}], "resolution": "forward"},
            "clear": {"hosts": ["clear"], "ports": [{"number": 443, "protocol": "http"}]},
            "pass": {"hosts": ["pass"], "ports": [{"number": 443, "protocol": "https"}], "tls": {"mode": "passthrough"}},
            "other": {"hosts": ["other"], "ports": [{"number": 443, "protocol": "https"}]},
        },
        "rules": {"all": {"action": "allow"}},
        "routes": {"split": {"service": "web", "destinations": [
            {"service": "web", "weight": 9}, {"service": "next", "weight": 1}, {"service": "clear", "weight": 0}, {"service": "pass", "weight": 1}]}}}));
    let permit = ask(&snapshot, Form::Secure, "web", 443, "/").expect("allowed");
    let next = snapshot.redirect(&permit, "next").expect("a destination");
    assert_eq!((next.target().host.to_string().as_str(), next.target().port), ("canary.next", 8443));
    assert_eq!(next.service().map(|service| service.name.as_str()), Some("next"));
    assert_eq!(next.route().map(|route| route.name.as_str()), Some("split"));
    assert!(snapshot.redirect(&permit, "clear").is_none(), "an https exchange never loses its TLS");
    assert!(snapshot.redirect(&permit, "other").is_none(), "the route does not name it");
    assert!(snapshot.redirect(&permit, "none").is_none());
    let plain = ask(&snapshot, Form::Plain, "web", 443, "/").expect("allowed");
    assert!(snapshot.redirect(&plain, "clear").is_some());
    assert!(
        snapshot.redirect(&plain, "pass").is_none() && snapshot.redirect(&permit, "pass").is_none(),
        "only tunnels reach it"
    );
}

#[test]
fn unchanged_documents_keep_their_entries() {
    let mut rows = rows(json!({
        "services": {"a": {"hosts": ["a"], "ports": [{"number": 443, "protocol": "https"}]},
                     "b": {"hosts": ["b"], "ports": [{"number": 443, "protocol": "https"}]}},
        "routes": {"ra": {"service": "a"}, "rb": {"service": "b"}}}));
    let before = Snapshot::compile(&rows).expect("sound");
    rows.services.insert(name("b"), document(&json!({"hosts": ["b"], "ports": [{"number": 444, "protocol": "https"}]})));
    let after = Snapshot::compile_after(&rows, Some(&before)).expect("sound");
    assert!(!after.shares_services(&before), "one of them is another");
    assert!(Snapshot::compile_after(&rows, Some(&after)).expect("sound").shares_services(&after), "none is");
    let same = |key: &str| Arc::ptr_eq(before.service(key).expect("there"), after.service(key).expect("there"));
    assert!(same("a") && !same("b"));
    assert!(before.routes().zip(after.routes()).all(|(old, new)| Arc::ptr_eq(old, new)));
}

#[test]
fn the_longest_network_says_who_calls() {
    let snapshot = snapshot(json!({"workloads": {
        "wide": {"networks": ["10.0.0.0/8", "fd00::/8"], "principal": "wide"},
        "narrow": {"networks": ["10.1.0.0/16"], "namespace": "shop"},
        "one": {"networks": ["10.1.2.3/32"], "principal": "one"},
    }}));
    for (source, label) in [
        ("10.9.9.9", Some("wide")),
        ("10.1.9.9", Some("narrow")),
        ("10.1.2.3", Some("one")),
        ("::ffff:10.1.2.3", Some("one")),
        ("fd12::1", Some("wide")),
        ("11.0.0.1", None),
        ("::1", None),
    ] {
        let identity = snapshot.caller_at(source.parse().expect(source));
        assert_eq!(identity.caller.label().as_deref(), label, "{source}");
        assert_eq!(identity.caller.proof == Proof::None, label.is_none(), "{source}");
    }
}

#[test]
fn claims_are_found_whole_or_by_walking() {
    let claims =
        json!({"groups": ["a", "b"], "kubernetes.io": {"namespace": "shop"}, "n": 7, "x": {"y": {"z": true}}, "null": null});
    let caller = Caller { claims: claims.as_object().expect("an object").clone(), ..Caller::default() };
    let identity = Identity { source: [10, 0, 0, 1].into(), caller: Arc::new(caller) };
    let holds = |claim: &str, value: &str| {
        document::<tidegate_policy::selector::From>(&json!({"claims": {claim: [value]}})).matches(&identity)
    };
    assert!(holds("groups", "b") && holds("kubernetes.io.namespace", "shop") && holds("n", "7") && holds("x.y.z", "true"));
    assert!(!holds("groups", "c") && !holds("null", "*") && !holds("x.y", "*") && !holds("absent", "*"));
}

/// Documents with each mistake there is.
fn broken() -> Value {
    let port = json!([{"number": 443, "protocol": "https"}]);
    json!({
        "services": {
            "a": {"hosts": ["dup", "*.wild"], "ports": [{"number": 0, "protocol": "http"}, {"number": 1, "protocol": "https"}, {"number": 1, "protocol": "tcp"}],
                  "tls": {"mode": "disabled", "trust": "client", "certificate": "client", "sni": "1.2.3.4"}},
            "b": {"hosts": ["dup"], "ports": [], "resolution": "static", "endpoints": [{"address": "name", "weight": 0, "port": 0, "locality": "a//b"}],
                  "networks": ["10.0.0.1/8", "0.0.0.0/0"], "tls": {"mode": "mutual", "trust": "gone"}, "connections": {"max": 0, "idle_timeout": "0s"}},
            "c": {"hosts": [], "ports": port, "resolution": "forward", "endpoints": [{"address": "1.2.3.4"}], "tls": {"mode": "mutual", "certificate": "ca"}},
        },
        "routes": {"r": {"service": "none", "match": [{}, {"headers": {"Bad Name": "*"}}], "destinations": [{"service": "a", "weight": 0}, {"service": "gone", "weight": 0}],
            "rewrite": {"path_prefix": "no", "set_headers": {"host": "x", "x-ok": "a\nb", "A": "b"}, "remove_headers": ["transfer-encoding", "x-fine"]},
            "timeouts": {"idle": "0s"}, "retries": {"attempts": 11, "on": []}, "fault": {"abort": 200, "percent": 101},
            "limits": {"rate": {"per_second": 0, "burst": 0}, "concurrent": 0}, "filters": [{"plugin": "gone"}]}},
        "rules": {"x": {"action": "deny", "from": [{}, {"networks": ["10.0.0.1/8"]}, {"claims": {"a/b": []}}], "to": [{}, {"services": ["gone"], "ports": [0]}],
            "when": [{}, {"from": "01:00", "until": "01:00"}]}},
        "workloads": {"w": {"networks": ["10.0.0.0/8"]}, "v": {"networks": ["10.0.0.0/8"]}, "u": {"networks": []}},
        "issuers": {"i": {"issuer": "same", "audiences": [], "jwks": {}}, "j": {"issuer": "same", "audiences": ["a"], "jwks": {"keys": [{"kty": "oct"}, {"kty": "EC", "d": "x"}, {}]}}},
    })
}

/// Where they are.
const MISTAKES: &[&str] = &[
    "/issuers/i/audiences",
    "/issuers/i/jwks",
    "/issuers/j/issuer",
    "/issuers/j/jwks/keys/0",
    "/issuers/j/jwks/keys/1",
    "/issuers/j/jwks/keys/2",
    "/routes/r/destinations",
    "/routes/r/destinations/1/service",
    "/routes/r/fault/abort",
    "/routes/r/fault/percent",
    "/routes/r/filters/0/plugin",
    "/routes/r/limits/concurrent",
    "/routes/r/limits/rate/burst",
    "/routes/r/limits/rate/per_second",
    "/routes/r/match/0",
    "/routes/r/match/1/headers/Bad Name",
    "/routes/r/retries/attempts",
    "/routes/r/retries/on",
    "/routes/r/rewrite/path_prefix",
    "/routes/r/rewrite/remove_headers/0",
    "/routes/r/rewrite/set_headers/A",
    "/routes/r/rewrite/set_headers/host",
    "/routes/r/rewrite/set_headers/x-ok",
    "/routes/r/service",
    "/routes/r/timeouts/idle",
    "/rules/x/from/0",
    "/rules/x/from/1/networks/0",
    "/rules/x/from/2/claims/a~1b",
    "/rules/x/to/0",
    "/rules/x/to/1/ports/0",
    "/rules/x/to/1/services/0",
    "/rules/x/when/0",
    "/rules/x/when/1/until",
    "/services/a/hosts/1",
    "/services/a/ports/0/number",
    "/services/a/ports/1/protocol",
    "/services/a/ports/2/number",
    "/services/a/tls/certificate",
    "/services/a/tls/sni",
    "/services/a/tls/trust",
    "/services/b/connections/idle_timeout",
    "/services/b/connections/max",
    "/services/b/endpoints/0/address",
    "/services/b/endpoints/0/locality",
    "/services/b/endpoints/0/port",
    "/services/b/endpoints/0/weight",
    "/services/b/hosts/0",
    "/services/b/networks/0",
    "/services/b/networks/1",
    "/services/b/ports",
    "/services/b/tls/certificate",
    "/services/b/tls/trust",
    "/services/c/endpoints",
    "/services/c/hosts",
    "/services/c/tls/certificate",
    "/workloads/u/networks",
    "/workloads/w/networks/0",
];

#[test]
fn every_mistake_is_reported_at_its_place() {
    assert_eq!(mistakes(broken()), MISTAKES);
}

#[test]
fn patterns_are_written_as_paths_are_compared() {
    let pattern = |text: &str| serde_json::from_value::<tidegate_policy::selector::PathPattern>(json!(text));
    for text in
        ["/", "/*", "/v1/charges", "/v1/charges*", "/.well-known/*", "/.w*", "/a%20b", "/a/b/", "/a%2Fb*", "/100%25*", "/..a*"]
    {
        assert!(pattern(text).is_ok(), "{text}: {:?}", pattern(text));
    }
    for text in [
        "",
        "v1",
        "/a/../b",
        "/a/./*",
        "/%61*",
        "/a%2fb",
        "/a b",
        "/caf\u{e9}",
        "/%00",
        "/a?b",
        "/a#b",
        "/a*b",
        "/%*",
        "/%2*",
        "/a/..",
    ] {
        assert!(pattern(text).is_err(), "{text}: {:?}", pattern(text));
    }
}
