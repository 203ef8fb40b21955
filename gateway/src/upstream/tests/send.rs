//! Whole exchanges over pooled connections, in HTTP/1.1 and HTTP/2.

use super::{
    dns,
    fixture::{self, local},
};
use crate::{
    http::{Request, Response, body::Body},
    live::Live,
    upstream::{Connection, Upstreams},
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{server::conn::http2, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::{cell::Cell, convert::Infallible, net::SocketAddr, rc::Rc};
use tidegate_policy::target::Form;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Notify,
};

fn service(address: SocketAddr, protocol: &str) -> Value {
    json!({"hosts": ["api.example"], "ports": [{"number": address.port(), "protocol": protocol}], "networks": ["127.0.0.0/8"]})
}

fn get() -> Request {
    ::http::Request::get("/v1").header("host", "api.example").body(Body::empty()).expect("a request")
}

async fn connect(upstreams: &Upstreams, live: &Live, address: SocketAddr) -> Connection {
    let permit = fixture::decide(live, Form::Plain, "api.example", address.port());
    upstreams.connect(live, &permit, &get(), None).await.expect("a connection")
}

async fn text(response: Response) -> Bytes {
    response.into_body().collect().await.expect("a body").to_bytes()
}

#[tokio::test]
async fn an_http1_connection_comes_back_after_its_exchange() {
    local(async {
        let (listener, address) = fixture::listen().await;
        tokio::task::spawn_local(async move {
            let (mut tcp, _) = listener.accept().await.expect("a connection");
            let (mut read, mut buffer) = (Vec::new(), [0; 1024]);
            loop {
                let length = tcp.read(&mut buffer).await.expect("a request");
                read.extend_from_slice(&buffer[..length]);
                if read.ends_with(b"\r\n\r\n") {
                    assert!(read.starts_with(b"GET /v1 HTTP/1.1\r\n"));
                    read.clear();
                    tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.expect("it is sent");
                }
            }
        });
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |_| {});
        let live = fixture::live(&service(address, "http"), &Default::default(), &Live::default());
        for round in 0..3 {
            let connection = connect(&upstreams, &live, address).await;
            assert_eq!((connection.facts.reused, connection.facts.protocol), (round > 0, "HTTP/1.1"));
            let response = connection.send(&mut get()).await.expect("a response");
            assert_eq!(text(response).await, "ok");
        }
        let metrics = &upstreams.shared.metrics;
        assert_eq!((metrics.connections_open.value(), metrics.connections_idle.value()), (1, 1));
        let response = connect(&upstreams, &live, address).await.send(&mut get()).await.expect("a response");
        drop(response);
        assert_eq!(metrics.connections_open.value(), 0, "a body that was not read to its end closes the connection");
    })
    .await;
}

#[tokio::test]
async fn http2_streams_end_with_their_bodies_and_goaway_ends_the_connection() {
    local(async {
        let (listener, address) = fixture::listen().await;
        let (leave, accepted) = (Rc::new(Notify::new()), Rc::new(Cell::new(0)));
        let (leaving, accepting) = (Rc::clone(&leave), Rc::clone(&accepted));
        tokio::task::spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                accepting.set(accepting.get() + 1);
                let leaving = Rc::clone(&leaving);
                tokio::task::spawn_local(async move {
                    let answer = service_fn(|request: ::http::Request<hyper::body::Incoming>| async move {
                        let seen = format!("{} {}", request.method(), request.uri());
                        Ok::<_, Infallible>(::http::Response::new(Full::new(Bytes::from(seen))))
                    });
                    let executor = hyper_util::rt::TokioExecutor::new();
                    let connection = http2::Builder::new(executor).serve_connection(TokioIo::new(tcp), answer);
                    let mut connection = std::pin::pin!(connection);
                    tokio::select! {
                        _ = connection.as_mut() => return,
                        () = leaving.notified() => connection.as_mut().graceful_shutdown(),
                    }
                    drop(connection.await);
                });
            }
        });
        let dns = dns::serve(&["127.0.0.1"]).await;
        let upstreams = fixture::upstreams(dns.address, |settings| settings.streams_per_connection = 1);
        let live = fixture::live(&service(address, "http2"), &Default::default(), &Live::default());
        for _ in 0..3 {
            let response = connect(&upstreams, &live, address).await.send(&mut get()).await.expect("a response");
            assert_eq!(text(response).await, "GET http://api.example/v1");
        }
        assert_eq!(accepted.get(), 1, "each stream's place was free again with the end of its body");

        leave.notify_waiters();
        while upstreams.shared.metrics.connections_open.value() > 0 {
            tokio::task::yield_now().await;
        }
        let connection = connect(&upstreams, &live, address).await;
        assert!(!connection.facts.reused);
        assert_eq!(text(connection.send(&mut get()).await.expect("a response")).await, "GET http://api.example/v1");
        assert_eq!(accepted.get(), 2);
    })
    .await;
}
