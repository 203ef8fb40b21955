//! TLS origination: what the API is shown, and every way in which the API's side can be wrong.

use serde_json::json;
use tidegate_tests::{
    World,
    api::{Api, Speaks},
    certificates::{Authority, self_signed},
    raw::Reply,
    world::{service, with},
};

#[tokio::test]
async fn plaintext_in_tls_out_with_sni_alpn_and_the_facts_recorded() {
    let world = World::start().await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let reply = world.get("http://api.example.com/v1/charges").await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let seen = api.saw("/v1/charges");
    assert_eq!(seen.server_name.as_deref(), Some("api.example.com"));
    assert_eq!(seen.version, http::Version::HTTP_2, "the API prefers it and the gateway offers it");
    let record = world.rest.record_to("api.example.com").await;
    assert_eq!(record["endpoint"]["tls_version"], "TLSv1.3", "{record}");
    assert_eq!(record["endpoint"]["tls_peer"], "api.example.com", "{record}");
    assert_eq!(record["endpoint"]["protocol"], "HTTP/2", "{record}");
    assert_eq!(record["endpoint"]["address"], api.address.to_string(), "{record}");
    assert!(record["durations"]["tls_us"].as_u64() > Some(0), "{record}");
}

#[tokio::test]
async fn http1_is_spoken_to_an_api_that_agrees_on_nothing_else() {
    let world = World::start().await;
    let leaf = world.authority.server(&["old.example.com"]);
    let api = Api::start(Speaks::Tls(leaf.server_config(&[]))).await;
    world.open("old", "old.example.com", api.address).await;
    assert_eq!(world.get("http://old.example.com/one").await.status, 200);
    assert_eq!(api.saw("/one").version, http::Version::HTTP_11);
    assert_eq!(world.get("http://old.example.com/two").await.status, 200);
}

#[tokio::test]
async fn sni_and_names_are_what_the_service_says() {
    let world = World::start().await;
    let api = world.api("real.example.net").await;
    let tls = json!({"mode": "simple", "trust": "api-ca", "sni": "front.example.net", "names": ["real.example.net"]});
    world.rest.register("services", "api", &with(service("api.example.com", api.address), "/tls", tls)).await;
    world.allow("api").await;
    let reply = world.get("http://api.example.com/named").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
    assert_eq!(api.saw("/named").server_name.as_deref(), Some("front.example.net"));
}

/// What is refused, and a word that the answer has to contain so that an operator knows what to mend.
async fn refused(world: &World, name: &str, api: &Api, word: &str) {
    let host = format!("{name}.example.com");
    world.open(name, &host, api.address).await;
    let reply: Reply = world.get(&format!("http://{host}/secret")).await;
    assert_eq!((reply.status, reply.reason()), (502, "tls_failed"), "{name}: {reply:?}\n{}", reply.text());
    let record = world.rest.record_to(&host).await;
    let fault = record["fault"].as_str().unwrap_or_default().to_ascii_lowercase();
    assert!(fault.contains(word), "{name}: the record says {fault:?}, without {word:?}");
    assert!(!api.was_asked("/secret"), "{name}: nothing may be said to a peer that was not verified");
}

#[tokio::test]
async fn certificates_that_are_wrong_are_refused_and_the_record_says_why() {
    let world = World::start().await;
    let alpn = ["h2", "http/1.1"];
    let stranger = Authority::new("Somebody else").server(&["wrong-ca.example.com"]);
    let own = self_signed(&["self-signed.example.com"]);
    let elsewhere = world.authority.server(&["elsewhere.example.com"]);
    let expired = world.authority.expired(&["expired.example.com"]);
    let rows = [
        ("wrong-ca", stranger, "issuer"),
        ("self-signed", own, ""),
        ("wrong-name", elsewhere, "name"),
        ("expired", expired, "expired"),
    ];
    for (name, leaf, word) in rows {
        let api = Api::start(Speaks::Tls(leaf.server_config(&alpn))).await;
        refused(&world, name, &api, word).await;
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_the_service_has_one() {
    let world = World::start().await;
    let partner = Authority::new("Partner");
    let leaf = world.authority.server(&["mutual.example.com", "without.example.com", "unknown.example.com"]);
    let api = Api::start(Speaks::Tls(leaf.mutual_server_config(&partner, &["h2", "http/1.1"]))).await;

    let good = partner.client("spiffe://partner/us");
    let other = Authority::new("Nobody").client("spiffe://nobody/us");
    for (name, client) in [("good", good), ("other", other)] {
        let document = json!({"kind": "certificate", "chain": client.chain_pem, "key": client.key_pem});
        world.rest.register("credentials", name, &document).await;
    }
    let mutual = |certificate: &str| json!({"mode": "mutual", "trust": "api-ca", "certificate": certificate});
    world.rest.register("services", "mutual", &with(service("mutual.example.com", api.address), "/tls", mutual("good"))).await;
    world.allow("mutual").await;
    let reply = world.get("http://mutual.example.com/shown").await;
    assert_eq!(reply.status, 200, "{reply:?}\n{}", reply.text());
    assert!(api.saw("/shown").client_certificate);

    refused(&world, "without", &api, "certificate").await;
    world
        .rest
        .register("services", "unknown", &with(service("unknown.example.com", api.address), "/tls", mutual("other")))
        .await;
    world.allow("unknown").await;
    let reply = world.get("http://unknown.example.com/secret").await;
    assert_eq!((reply.status, reply.reason()), (502, "tls_failed"), "{reply:?}");
    assert!(!api.was_asked("/secret"));
}

#[tokio::test]
async fn a_lowest_version_is_kept_to() {
    let world = World::start().await;
    let leaf = world.authority.server(&["modern.example.com"]);
    let api = Api::start(Speaks::Tls(leaf.server_config_of_tls12())).await;
    let tls = json!({"mode": "simple", "trust": "api-ca"});
    let document = with(service("modern.example.com", api.address), "/tls", tls.clone());
    world.rest.register("services", "modern", &document).await;
    world.allow("modern").await;
    let reply = world.get("http://modern.example.com/").await;
    assert_eq!(reply.status, 200, "TLS 1.2 is spoken where the service allows it: {reply:?}");
    let record = world.rest.record_to("modern.example.com").await;
    assert_eq!(record["endpoint"]["tls_version"], "TLSv1.2", "{record}");

    let strict = with(document, "/tls", with(tls, "/min_version", json!("1.3")));
    world.rest.register("services", "modern", &strict).await;
    world.in_force().await;
    let reply = world.get("http://modern.example.com/").await;
    assert_eq!((reply.status, reply.reason()), (502, "tls_failed"), "{reply:?}");
}

#[tokio::test]
async fn connections_are_reused() {
    let world = World::start_with(tidegate_tests::Options { workers: 1, ..tidegate_tests::Options::default() }).await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    for at in 0..20 {
        assert_eq!(world.get(&format!("http://api.example.com/{at}")).await.status, 200);
    }
    assert_eq!(api.connections(), 1, "one connection of HTTP/2 carries them all");
    let record = world.rest.record_to("api.example.com:80/19").await;
    assert_eq!(record["endpoint"]["reused"], true, "{record}");
}

#[tokio::test]
async fn tls_sessions_are_resumed_where_connections_are_not_reused() {
    let world = World::start_with(tidegate_tests::Options { workers: 1, ..tidegate_tests::Options::default() }).await;
    let leaf = world.authority.server(&["new.example.com", "old.example.com"]);
    let rows = [("new", leaf.server_config(&["http/1.1"])), ("old", leaf.server_config_of_tls12())];
    for (name, config) in rows {
        let api = Api::start(Speaks::Tls(config)).await;
        let host = format!("{name}.example.com");
        let document = with(service(&host, api.address), "/connections", json!({"max_idle": 0}));
        world.rest.register("services", name, &document).await;
        world.allow(name).await;
        for at in 0..6 {
            let reply = world.get(&format!("http://{host}/{at}")).await;
            assert_eq!(reply.status, 200, "{name}: {reply:?}");
        }
        assert_eq!((api.connections(), api.handshakes()), (6, 6), "{name}: a connection each");
        assert_eq!(api.resumed(), 5, "{name}: all but the first handshake are abbreviated");
    }
}
