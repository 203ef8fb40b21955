//! The tls-origination filter against APIs that demand each thing it can choose: a certificate, a name, a version, a protocol.

use serde_json::{Value, json};
use std::net::Ipv4Addr;
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    certificates::{Authority, Leaf},
    plugins,
    world::{plain_service, service, with},
};

/// Puts the filter on the route of the service `name`.
async fn choose(world: &World, name: &str, config: Value, grants: Value) {
    let uploaded = world.rest.upload("tls-origination", plugins::module("tls_origination")).await;
    assert!(matches!(uploaded.status, 200 | 201), "{uploaded:?}\n{}", uploaded.text());
    let filter = json!({"plugin": "tls-origination", "config": config, "grants": grants});
    world.rest.register("routes", name, &json!({"service": name, "filters": [filter]})).await;
    world.in_force().await;
}

async fn certificate(world: &World, name: &str, leaf: &Leaf) {
    let document = json!({"kind": "certificate", "chain": leaf.chain_pem, "key": leaf.key_pem});
    world.rest.register("credentials", name, &document).await;
}

#[tokio::test]
async fn each_tenant_shows_its_own_certificate_on_connections_of_its_own() {
    let world = World::start_with(tidegate_tests::Options { workers: 1, ..tidegate_tests::Options::default() }).await;
    let partner = Authority::new("Partner");
    let leaf = world.authority.server(&["bank.example.com"]);
    let api = Api::start(Speaks::Tls(leaf.mutual_server_config(&partner, &["h2", "http/1.1"]))).await;
    world.open("bank", "bank.example.com", api.address).await;
    let blue = world.tenant("blue", Ipv4Addr::new(127, 0, 8, 1)).await;
    let green = world.tenant("green", Ipv4Addr::new(127, 0, 8, 2)).await;
    let (blues, greens) = (partner.client("spiffe://partner/blue"), partner.client("spiffe://partner/green"));
    certificate(&world, "blue-client", &blues).await;
    certificate(&world, "green-client", &greens).await;
    let rule = |tenant: &str| {
        let tls = json!({"mode": "mutual", "certificate": format!("{tenant}-client")});
        json!({"when": {"labels": {"tenant": tenant}}, "tls": tls})
    };
    let config = json!({"rules": [rule("blue"), rule("green"), {"refuse": true}]});
    choose(&world, "bank", config, json!({"credentials": ["blue-client", "green-client"]})).await;
    for round in 0..3 {
        for (name, tenant, shown) in [("blue", blue, &blues), ("green", green, &greens)] {
            let path = format!("/{name}/{round}");
            let reply = tenant.get(&format!("http://bank.example.com{path}"), "").await;
            assert_eq!(reply.status, 200, "{name}: {reply:?}\n{}", reply.text());
            assert_eq!(api.saw(&path).client_leaf.as_deref(), Some(shown.der()), "{name} shows its own");
        }
    }
    assert_eq!(api.connections(), 2, "each tenant has one connection, and uses no other's");
    let record = world.rest.record_to("/blue/2").await;
    let event = &record["filters"][0]["events"][0];
    assert_eq!(
        (&event["kind"], &event["fields"]["certificate"]),
        (&json!("tls_origination"), &json!("blue-client")),
        "{record}"
    );

    let reply = world.get("http://bank.example.com/neither").await;
    assert_eq!((reply.status, reply.reason()), (403, "filter_denied"), "{reply:?}");
    assert!(!api.was_asked("/neither"));
}

#[tokio::test]
async fn the_server_name_is_chosen_by_path_and_verified() {
    let world = World::start().await;
    let leaf = world.authority.server(&["api.example.com", "front.example.net"]);
    let api = Api::start(Speaks::Tls(leaf.server_config(&["h2"]))).await;
    world.open("api", "api.example.com", api.address).await;
    let rules = json!({"rules": [
        {"when": {"paths": ["/front/*"]}, "tls": {"sni": "front.example.net"}},
        {"when": {"paths": ["/wrong/*"]}, "tls": {"names": ["other.example.net"]}},
    ]});
    choose(&world, "api", rules.clone(), json!({"loosen_tls": true})).await;
    let reply = world.get("http://api.example.com/front/x").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
    assert_eq!(api.saw("/front/x").server_name.as_deref(), Some("front.example.net"));
    assert_eq!(world.get("http://api.example.com/else").await.status, 200, "no rule: as registered");
    assert_eq!(api.saw("/else").server_name.as_deref(), Some("api.example.com"));
    let reply = world.get("http://api.example.com/wrong/x").await;
    assert_eq!((reply.status, reply.reason()), (502, "tls_failed"), "{reply:?}");
    assert!(!api.was_asked("/wrong/x"));

    choose(&world, "api", rules, json!({})).await;
    let reply = world.get("http://api.example.com/front/y").await;
    assert_eq!((reply.status, reply.reason()), (403, "filter_denied"), "not granted: {reply:?}");
    let record = world.rest.record_to("/front/y").await;
    assert!(record["filters"][0].to_string().contains("grants"), "{record}");
    assert!(!api.was_asked("/front/y"));
}

#[tokio::test]
async fn a_lowest_version_is_chosen_by_header() {
    let world = World::start().await;
    let leaf = world.authority.server(&["old.example.com"]);
    let api = Api::start(Speaks::Tls(leaf.server_config_of_tls12())).await;
    world.open("old", "old.example.com", api.address).await;
    let config = json!({"rules": [{"when": {"headers": {"x-strict": "*"}}, "tls": {"min_version": "1.3"}}]});
    choose(&world, "old", config, json!({})).await;
    let strict = world.pod().await.get("http://old.example.com/strict", "old.example.com", "X-Strict: 1\r\n").await;
    assert_eq!((strict.status, strict.reason()), (502, "tls_failed"), "{strict:?}");
    assert!(!api.was_asked("/strict"));
    assert_eq!(world.get("http://old.example.com/lenient").await.status, 200);
    let record = world.rest.record_to("/lenient").await;
    assert_eq!(record["endpoint"]["tls_version"], "TLSv1.2", "{record}");
}

#[tokio::test]
async fn the_protocol_is_chosen_by_caller() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let blue = world.tenant("blue", Ipv4Addr::new(127, 0, 8, 1)).await;
    let config = json!({"rules": [{"when": {"namespaces": ["blue"]}, "tls": {"alpn": ["http/1.1"]}}]});
    choose(&world, "api", config, json!({})).await;
    assert_eq!(blue.get("http://api.example.com/blue", "").await.status, 200);
    assert_eq!(world.get("http://api.example.com/pod").await.status, 200);
    assert_eq!(api.saw("/blue").version, http::Version::HTTP_11);
    assert_eq!(api.saw("/pod").version, http::Version::HTTP_2, "others go on as registered");
}

#[tokio::test]
async fn whom_to_believe_is_chosen_by_host() {
    let world = World::start().await;
    let theirs = Authority::new("Their own");
    let leaf = theirs.server(&["a.example.com", "b.example.com"]);
    let api = Api::start(Speaks::Tls(leaf.server_config(&["h2"]))).await;
    let document = with(service("a.example.com", api.address), "/hosts", json!(["a.example.com", "b.example.com"]));
    world.rest.register("services", "api", &document).await;
    world.allow("api").await;
    world.rest.register("credentials", "their-ca", &json!({"kind": "trust", "pem": theirs.pem()})).await;
    let config = json!({"rules": [{"when": {"hosts": ["a.example.com"]}, "tls": {"trust": "their-ca"}}]});
    choose(&world, "api", config, json!({"credentials": ["their-ca"]})).await;
    let reply = world.get("http://a.example.com/a").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
    let reply = world.get("http://b.example.com/b").await;
    assert_eq!((reply.status, reply.reason()), (502, "tls_failed"), "{reply:?}");
}

#[tokio::test]
async fn plaintext_is_refused_unless_it_is_allowed() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.rest.register("services", "plain", &plain_service("plain.example.com", api.address)).await;
    world.allow("plain").await;
    let rules = json!([{"when": {"hosts": ["other.example.com"]}, "refuse": true}]);
    choose(&world, "plain", json!({"rules": rules}), json!({})).await;
    let reply = world.get("http://plain.example.com/refused").await;
    assert_eq!((reply.status, reply.reason()), (403, "filter_denied"), "{reply:?}");
    assert!(!api.was_asked("/refused"));
    let record = world.rest.record_to("/refused").await;
    assert!(record["filters"][0].to_string().contains("plaintext"), "the record says why: {record}");
    choose(&world, "plain", json!({"rules": rules, "plaintext": "allow"}), json!({})).await;
    assert_eq!(world.get("http://plain.example.com/allowed").await.status, 200);
    assert!(api.was_asked("/allowed"));
}

#[tokio::test]
async fn tls_is_turned_off_only_where_that_is_granted() {
    let world = World::start().await;
    let api = Api::start(Speaks::Http1).await;
    world.open("api", "api.example.com", api.address).await;
    let config = json!({"rules": [{"tls": {"mode": "disabled"}}], "plaintext": "allow"});
    choose(&world, "api", config.clone(), json!({})).await;
    let reply = world.get("http://api.example.com/kept").await;
    assert_eq!((reply.status, reply.reason()), (403, "filter_denied"), "{reply:?}");
    assert!(!api.was_asked("/kept"));
    choose(&world, "api", config, json!({"loosen_tls": true})).await;
    let reply = world.get("http://api.example.com/off").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
    assert!(api.was_asked("/off"));
}
