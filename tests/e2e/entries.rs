//! Every policy applies on every entry: each form of request, on each listener, with each way in which a caller can be known.

use serde_json::json;
use std::net::IpAddr;
use tidegate_tests::{
    Options, World,
    certificates::{Authority, client_config},
    entry::{Caller, Form, ask},
    tokens::TokenIssuer,
    world::{POD, POD_PRINCIPAL, STRANGER, service, with},
};

/// How a caller is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    ByToken,
    ByCertificate,
    ByTokenBesideCertificate,
    ByNetwork,
    Not,
}

const MESH_PRINCIPAL: &str = "spiffe://cluster.local/ns/shop/sa/mesh";
const TOKEN_PRINCIPAL: &str = "spiffe://cluster.local/ns/shop/sa/token";

impl Known {
    /// What records call the caller.
    fn principal(self) -> Option<&'static str> {
        match self {
            Self::ByToken | Self::ByTokenBesideCertificate => Some(TOKEN_PRINCIPAL),
            Self::ByCertificate => Some(MESH_PRINCIPAL),
            Self::ByNetwork => Some(POD_PRINCIPAL),
            Self::Not => None,
        }
    }

    fn from(self) -> IpAddr {
        if self == Self::ByNetwork { POD } else { STRANGER }
    }
}

/// A status and a reason; no reason where the API itself answers.
type Answer = (u16, &'static str);

/// Services of the table: what is expected of a caller that is known, and of one that is not.
const ROWS: [(&str, Answer, Answer); 4] = [
    // Everybody who is known may reach it.
    ("allowed", (200, ""), (407, "credentials_required")),
    // The same, but a deny rule wins.
    ("denied", (403, "denied_by_rule"), (403, "denied_by_rule")),
    ("unmentioned", (403, "no_rule_allows"), (403, "no_rule_allows")),
    ("private", (403, "address_refused"), (407, "credentials_required")),
];

#[tokio::test]
async fn every_policy_holds_on_every_entry_for_every_identity() {
    let callers_ca = Authority::new("Callers");
    let issuer = TokenIssuer::new("https://issuer.example");
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let options = Options::default().mutual_tls(directory.path(), &callers_ca);
    let world = World::start_with(options).await;
    world.rest.register("issuers", "cluster", &issuer.document()).await;
    let api = tables(&world).await;
    for known in [Known::ByToken, Known::ByCertificate, Known::ByTokenBesideCertificate, Known::ByNetwork, Known::Not] {
        let caller = caller(&world, known, &callers_ca, &issuer);
        for form in Form::ALL {
            for (service, when_known, when_not) in ROWS {
                let expected = if known == Known::Not { when_not } else { when_known };
                let host = format!("{service}.example.com");
                let path = format!("/{service}/{known:?}/{form:?}");
                let reply = ask(&caller, form, &host, &path, &world.authority).await;
                let got = (reply.status, reply.reason());
                assert_eq!(got, expected, "{service} as {known:?} by {form:?}: {reply:?}\n{}", reply.text());
                recorded(&world, &path, form, known, expected).await;
            }
            let unknown = ask(&caller, form, "unknown.example.com", "/", &world.authority).await;
            assert_eq!((unknown.status, unknown.reason()), (403, "unregistered_host"), "as {known:?} by {form:?}");
        }
    }
    let leaked = api.seen().into_iter().find(|seen| seen.headers.contains_key("proxy-authorization"));
    assert!(leaked.is_none(), "the token stays with the gateway: {leaked:?}");
    assert_eq!(api.seen().len(), 4 * Form::ALL.len(), "nothing but what was allowed has left");
}

async fn recorded(world: &World, path: &str, form: Form, known: Known, expected: (u16, &str)) {
    if form.is_tunnel() {
        return; // A tunnel's record names no path; `tunnels_leave_records_too` looks at those.
    }
    let record = world.rest.record_to(path).await;
    assert_eq!(record["status"], expected.0, "{record}");
    let workload = record["workload"].as_str();
    assert_eq!(workload, known.principal(), "who called is recorded: {record}");
}

fn caller(world: &World, known: Known, callers_ca: &Authority, issuer: &TokenIssuer) -> Caller {
    let addresses = &world.gateway.addresses;
    let certified = matches!(known, Known::ByCertificate | Known::ByTokenBesideCertificate);
    let token = matches!(known, Known::ByToken | Known::ByTokenBesideCertificate).then(|| issuer.token(TOKEN_PRINCIPAL));
    let tls = certified.then(|| client_config(callers_ca, Some(&callers_ca.client(MESH_PRINCIPAL)), &["http/1.1"]));
    let mtls = || addresses.mtls.expect("the mutual TLS listener has a certificate");
    Caller { from: known.from(), to: if certified { mtls() } else { addresses.proxy }, token, tls }
}

async fn tables(world: &World) -> tidegate_tests::api::Api {
    let hosts = ROWS.map(|(service, ..)| format!("{service}.example.com"));
    let leaf = world.authority.server(&hosts.each_ref().map(String::as_str));
    let api = tidegate_tests::api::Api::start(tidegate_tests::api::Speaks::Tls(leaf.server_config(&["h2", "http/1.1"]))).await;
    for (name, ..) in ROWS {
        let document = service(&format!("{name}.example.com"), api.address);
        let document = if name == "private" { with(document, "/networks", json!([])) } else { document };
        world.rest.register("services", name, &document).await;
    }
    let known = json!([{"principals": ["spiffe://cluster.local/ns/shop/*"]}]);
    let to = |names: &[&str]| json!([{ "services": names }]);
    let allow = json!({"action": "allow", "from": known, "to": to(&["allowed", "denied", "private"])});
    world.rest.register("rules", "allow-known", &allow).await;
    world.rest.register("rules", "deny-some", &json!({"action": "deny", "to": to(&["denied"])})).await;
    world.in_force().await;
    api
}

#[tokio::test]
async fn tunnels_leave_records_too() {
    let world = World::start().await;
    let api = world.api("tunnel.example.com").await;
    world.open("tunnel", "tunnel.example.com", api.address).await;
    let to = world.gateway.addresses.proxy;
    let caller = Caller { from: POD, to, token: None, tls: None };
    for form in [Form::Connect, Form::Http2Connect] {
        let reply = ask(&caller, form, "tunnel.example.com", "/in/a/tunnel", &world.authority).await;
        assert_eq!(reply.status, 200, "{form:?}: {reply:?}");
        let protocol = if form == Form::Connect { "HTTP/1.1" } else { "HTTP/2" };
        let record =
            world.rest.record("the tunnel", |record| record["method"] == "CONNECT" && record["protocol"] == protocol).await;
        assert_eq!(record["target"], "tunnel.example.com:443", "{record}");
        assert_eq!((&record["verdict"], &record["status"]), (&json!("allowed"), &json!(200)), "{record}");
        assert_eq!(record["workload"], POD_PRINCIPAL, "{record}");
        assert_eq!(record["endpoint"]["protocol"], "tunnel", "{record}");
        assert!(record["request_bytes"].as_u64() > Some(0) && record["response_bytes"].as_u64() > Some(0), "{record}");
    }
}

#[tokio::test]
async fn tokens_that_do_not_hold_are_never_a_lesser_identity() {
    let issuer = TokenIssuer::new("https://issuer.example");
    let impostor = TokenIssuer::new("https://issuer.example");
    let stranger = TokenIssuer::new("https://nobody.example");
    let world = World::start().await;
    world.rest.register("issuers", "cluster", &issuer.document()).await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let tokens = [
        ("expired", issuer.expired("me")),
        ("for another audience", issuer.for_another_audience("me")),
        ("signed with another key", impostor.token("me")),
        ("of an issuer nobody registered", stranger.token("me")),
        (
            "without a signature",
            issuer.token("me").rsplit_once('.').map(|(signed, _)| format!("{signed}.")).unwrap_or_default(),
        ),
        ("that is none", "a.b.c".to_owned()),
    ];
    for (what, token) in tokens {
        for form in Form::ALL {
            // The pod's own network would let it through: a bad token must not be forgotten in favour of it.
            let to = world.gateway.addresses.proxy;
            let caller = Caller { from: POD, to, token: Some(token.clone()), tls: None };
            let reply = ask(&caller, form, "api.example.com", "/", &world.authority).await;
            assert_eq!((reply.status, reply.reason()), (407, "credentials_invalid"), "a token {what}, by {form:?}: {reply:?}");
        }
    }
    assert!(api.seen().is_empty());
}
