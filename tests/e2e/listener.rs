//! The mutual TLS listener: whose callers it believes, and that nobody else gets as far as a request.

use std::sync::Arc;
use tidegate_tests::{
    Options, World,
    certificates::{Authority, client_config},
    entry::{Caller, Form, ask},
    wait::soon,
    wire,
    world::STRANGER,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/mesh";

/// What a caller with this TLS gets to hear after it has sent a request; nothing where the handshake fails.
async fn heard(world: &World, config: Arc<rustls::ClientConfig>) -> Vec<u8> {
    let listener = world.gateway.addresses.mtls.expect("the mutual TLS listener is on");
    let stream = wire::dial(Some(STRANGER), listener).await;
    let Ok(mut stream) = wire::secure(stream, config, "localhost").await else { return Vec::new() };
    // With TLS 1.3 the caller's side of the handshake ends before the gateway has looked at its certificate.
    let request = b"GET http://plain.example.com/ HTTP/1.1\r\nHost: plain.example.com\r\nConnection: close\r\n\r\n";
    let mut heard = Vec::new();
    let exchange = async {
        stream.write_all(request).await?;
        stream.flush().await?;
        stream.read_to_end(&mut heard).await
    };
    // An alert is an error here, and what the test expects of most rows.
    let _: std::io::Result<usize> = soon("the gateway to answer or to hang up", exchange).await;
    heard
}

#[tokio::test]
async fn callers_need_a_certificate_that_the_listeners_authority_signed() {
    let callers = Authority::new("Callers");
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let world = World::start_with(Options::default().mutual_tls(folder.path(), &callers)).await;
    let api = tidegate_tests::api::Api::start(tidegate_tests::api::Speaks::Http1).await;
    world.open_plain("plain", "plain.example.com", api.address).await;

    // Of the same name, so that nothing but the signature tells them apart.
    let impostor = Authority::new("Callers").client(CALLER);
    let expired = callers.expired(&["localhost"]);
    let rows = [
        ("without a certificate", client_config(&callers, None, &["http/1.1"])),
        ("with one of another authority", client_config(&callers, Some(&impostor), &["http/1.1"])),
        ("with one that has expired", client_config(&callers, Some(&expired), &["http/1.1"])),
    ];
    for (what, config) in rows {
        let heard = heard(&world, config).await;
        assert_eq!(String::from_utf8_lossy(&heard), "", "a caller {what} is told nothing");
    }
    assert!(api.seen().is_empty(), "and nothing of it has left");
    assert!(world.rest.records("").await.is_empty(), "there was no exchange");

    // In the clear there is no answer either.
    let listener = world.gateway.addresses.mtls.expect("the mutual TLS listener is on");
    let mut clear = wire::dial(Some(STRANGER), listener).await;
    clear.write_all(b"GET http://plain.example.com/ HTTP/1.1\r\nHost: plain.example.com\r\n\r\n").await.expect("it is sent");
    let mut said = Vec::new();
    let _: std::io::Result<usize> = soon("the gateway to hang up", clear.read_to_end(&mut said)).await;
    assert!(!said.starts_with(b"HTTP/"), "{:?}", String::from_utf8_lossy(&said));

    let good = client_config(&callers, Some(&callers.client(CALLER)), &["http/1.1"]);
    let heard = heard(&world, good).await;
    assert!(heard.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&heard));
    let record = world.rest.record_to("plain.example.com").await;
    assert_eq!(record["workload"], CALLER, "{record}");
}

#[tokio::test]
async fn both_versions_of_http_are_agreed_on_by_alpn() {
    let callers = Authority::new("Callers");
    let folder = tempfile::tempdir().expect("a temporary directory can be made");
    let world = World::start_with(Options::default().mutual_tls(folder.path(), &callers)).await;
    let api = world.api("api.example.com").await;
    world.open("api", "api.example.com", api.address).await;
    let to = world.gateway.addresses.mtls.expect("the mutual TLS listener is on");
    let tls = Some(client_config(&callers, Some(&callers.client(CALLER)), &["http/1.1"]));
    let caller = Caller { from: STRANGER, to, token: None, tls };
    for (form, protocol) in [(Form::Absolute, "HTTP/1.1"), (Form::Http2, "HTTP/2")] {
        let path = format!("/{form:?}");
        let reply = ask(&caller, form, "api.example.com", &path, &world.authority).await;
        assert_eq!(reply.status, 200, "{form:?}: {reply:?}");
        let record = world.rest.record_to(&path).await;
        assert_eq!((&record["protocol"], &record["workload"]), (&protocol.into(), &CALLER.into()), "{record}");
    }
}
