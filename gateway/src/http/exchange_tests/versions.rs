//! HTTP/2 on either side and on both: bodies, trailers, tunnels, refusals, and connections that are being given up.

use super::{h2::OnThisThread, *};
use ::http::{HeaderMap, HeaderValue};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::{body::Incoming, client::conn::http2::SendRequest, service::service_fn};
use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
};

type Sent = http_body_util::combinators::BoxBody<Bytes, Infallible>;

async fn connected(stage: &Stage) -> SendRequest<Sent> {
    let socket = TcpStream::connect(stage.gate).await.unwrap();
    let (sender, connection) = hyper::client::conn::http2::handshake(OnThisThread, TokioIo::new(socket)).await.unwrap();
    tokio::task::spawn_local(connection);
    sender
}

fn request(method: &str, pieces: &[&'static str], trailers: bool) -> ::http::Request<Sent> {
    let mut frames: Vec<Result<Frame<Bytes>, Infallible>> =
        pieces.iter().map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes())))).collect();
    if trailers {
        let trailers = HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("7"))]);
        frames.push(Ok(Frame::trailers(trailers)));
    }
    // A stream does not know that it is empty, and the head would not say so.
    let body =
        if frames.is_empty() { Empty::new().boxed() } else { Sent::new(StreamBody::new(futures_util::stream::iter(frames))) };
    ::http::Request::builder().method(method).uri("http://api.example/v1/x").body(body).unwrap()
}

/// What an HTTP/2 upstream does with its first request; the others are echoed, trailers and all.
#[derive(Debug, Clone, Copy)]
enum First {
    Echoed,
    /// RST_STREAM with REFUSED_STREAM.
    Refused,
    /// Never answered.
    Silent,
    /// Echoed, and then the connection is given up by GOAWAY.
    Last,
}

async fn echo(request: ::http::Request<Incoming>) -> ::http::Response<Sent> {
    let whole = request.into_body().collect().await.unwrap();
    let trailers = whole.trailers().cloned();
    let mut frames = vec![Ok(Frame::data(whole.to_bytes()))];
    frames.extend(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
    ::http::Response::new(Sent::new(StreamBody::new(futures_util::stream::iter(frames))))
}

/// An upstream that speaks HTTP/2 at once. Its requests and connections are counted.
async fn h2_api(first: First) -> (SocketAddr, Arc<[AtomicUsize; 2]>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let counts: Arc<[AtomicUsize; 2]> = Arc::default();
    let counted = Arc::clone(&counts);
    tokio::task::spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            counted[1].fetch_add(1, Ordering::SeqCst);
            let requests = Arc::clone(&counted);
            let over = Rc::new(tokio::sync::Notify::new());
            let end = Rc::clone(&over);
            let service = service_fn(move |request| {
                let is_first = requests[0].fetch_add(1, Ordering::SeqCst) == 0;
                let end = Rc::clone(&end);
                async move {
                    match first {
                        First::Refused if is_first => return Err(::h2::Error::from(::h2::Reason::REFUSED_STREAM)),
                        First::Silent if is_first => std::future::pending().await,
                        First::Last if is_first => end.notify_one(),
                        _ => {}
                    }
                    Ok(echo(request).await)
                }
            });
            tokio::task::spawn_local(async move {
                let mut connection = std::pin::pin!(
                    hyper::server::conn::http2::Builder::new(OnThisThread).serve_connection(TokioIo::new(socket), service)
                );
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = over.notified() => connection.as_mut().graceful_shutdown(),
                }
                let _ended = connection.await;
            });
        }
    });
    (address, counts)
}

fn speaking_h2(address: SocketAddr) -> Value {
    let mut documents = registered(address);
    documents["services"]["api"]["ports"][0]["protocol"] = json!("http2");
    documents
}

#[tokio::test]
async fn bodies_and_trailers_pass_between_http_2_both_ways() {
    LocalSet::new()
        .run_until(async {
            let (address, _) = h2_api(First::Echoed).await;
            stage(speaking_h2(address), async |mut stage| {
                let mut sender = connected(&stage).await;
                let response = sender.send_request(request("POST", &["one", "two"], true)).await.unwrap();
                assert_eq!(response.status(), 200);
                let whole = response.into_body().collect().await.unwrap();
                assert_eq!(whole.trailers().unwrap()["x-sum"], "7");
                assert_eq!(whole.to_bytes(), "onetwo");
                let record = stage.records(1).await.remove(0);
                assert_eq!((&record["request_bytes"], &record["response_bytes"]), (&json!(6), &json!(6)), "{record}");
                assert_eq!(record["reason"], "allowed_by_rule", "{record}");
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn bodies_and_trailers_pass_from_http_1_to_http_2() {
    LocalSet::new()
        .run_until(async {
            let (address, _) = h2_api(First::Echoed).await;
            stage(speaking_h2(address), async |stage| {
                let chunks = "POST /v1/x HTTP/1.1\r\nHost: api.example\r\nTE: trailers\r\nConnection: te, close\r\n\
                              Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nX-Sum: 7\r\n\r\n";
                let answer = stage.talk(chunks).await;
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                assert!(answer.ends_with("6\r\nonetwo\r\n0\r\nx-sum: 7\r\n\r\n"), "{answer}");
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn an_http_2_upstream_that_did_nothing_is_asked_again() {
    let retries = json!({"attempts": 1, "per_try_timeout": "200ms", "on": ["reset"]});
    for (first, sent, seen, connections) in [(First::Refused, 1, 2, 1), (First::Silent, 1, 2, 1), (First::Last, 2, 2, 2)] {
        LocalSet::new()
            .run_until(async {
                let (address, counts) = h2_api(first).await;
                let mut documents = speaking_h2(address);
                documents["routes"] = json!({"route": {"service": "api", "retries": retries}});
                stage(documents, async |stage| {
                    let mut sender = connected(&stage).await;
                    for _ in 0..sent {
                        let response = sender.send_request(request("GET", &[], false)).await.unwrap();
                        let status = response.status();
                        let body = response.into_body().collect().await.unwrap().to_bytes();
                        assert_eq!(status, 200, "{first:?}: {body:?}");
                    }
                    let counted = [counts[0].load(Ordering::SeqCst), counts[1].load(Ordering::SeqCst)];
                    assert_eq!(counted, [seen, connections], "{first:?}");
                })
                .await;
            })
            .await;
    }
}

#[tokio::test]
async fn a_grpc_caller_is_refused_in_its_own_words() {
    stage(registered(SocketAddr::from(([127, 0, 0, 1], 9))), async |stage| {
        let mut sender = connected(&stage).await;
        let mut refused = request("POST", &["x"], false);
        *refused.uri_mut() = "http://other.example/package.Service/Method".parse().unwrap();
        refused.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        let response = sender.send_request(refused).await.unwrap();
        assert_eq!((response.status().as_u16(), &response.headers()["grpc-status"]), (200, &HeaderValue::from_static("7")));
        assert_eq!(response.headers()["x-tidegate-reason"], "unregistered_host");
        let whole = response.into_body().collect().await.unwrap();
        assert!(whole.trailers().is_none() && whole.to_bytes().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_opens_by_http_2() {
    let address = api("{head}!").await;
    stage(registered(address), async |mut stage| {
        let mut sender = connected(&stage).await;
        let mut connect = request("CONNECT", &[], false);
        *connect.uri_mut() = "api.example:443".parse().unwrap();
        let response = sender.send_request(connect).await.unwrap();
        assert_eq!(response.status(), 200);
        let mut tunnel = TokioIo::new(hyper::upgrade::on(response).await.unwrap());
        tunnel.write_all(b"ping\r\n\r\n").await.unwrap();
        let mut answer = [0; 5];
        tunnel.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"ping!");
        drop(tunnel);
        let record = stage.records(1).await.remove(0);
        assert_eq!((&record["method"], &record["protocol"]), (&json!("CONNECT"), &json!("HTTP/2")), "{record}");
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_resets_its_stream_is_the_one_that_left() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    stage(registered(address), async |mut stage| {
        let mut sender = connected(&stage).await;
        let (first, rest) = (Frame::data(Bytes::from_static(b"half")), std::future::pending());
        let frames = futures_util::stream::unfold(Some(first), move |first| {
            let rest: std::future::Pending<()> = rest.clone();
            async move {
                match first {
                    Some(first) => Some((Ok::<_, Infallible>(first), None)),
                    None => {
                        rest.await;
                        None
                    }
                }
            }
        });
        let body = http_body_util::BodyExt::boxed(StreamBody::new(Box::pin(frames)));
        let request = ::http::Request::builder().method("POST").uri("http://api.example/v1/x").body(body).unwrap();
        let sending = tokio::task::spawn_local(async move { sender.send_request(request).await.map(drop) });
        let (mut upstream, _) = listener.accept().await.unwrap();
        let mut heard = Vec::new();
        while !heard.ends_with(b"half\r\n") {
            assert!(upstream.read_buf(&mut heard).await.unwrap() > 0);
        }
        sending.abort();
        let record = stage.records(1).await.remove(0);
        assert_eq!(record["reason"], "downstream_closed", "{record}");
    })
    .await;
}

#[tokio::test]
async fn a_header_section_that_is_too_large_is_answered_and_recorded() {
    let address = api(ECHO_HEAD).await;
    stage(registered(address), async |mut stage| {
        let mut sender = connected(&stage).await;
        for (content_type, status) in [("text/plain", 431), ("application/grpc", 200)] {
            let mut request = request("GET", &[], false);
            request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
            request.headers_mut().insert("x-large", "a".repeat(65 * 1024).parse().unwrap());
            let response = sender.send_request(request).await.unwrap();
            assert_eq!(response.status(), status, "{content_type}");
            assert_eq!(response.headers()["x-tidegate-reason"], "header_too_large", "{content_type}");
        }
        for record in stage.records(2).await {
            assert_eq!((&record["reason"], &record["protocol"]), (&json!("header_too_large"), &json!("HTTP/2")), "{record}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_has_no_place_in_trailers_does_not_pass_between_http_2() {
    LocalSet::new()
        .run_until(async {
            // The upstream echoes the trailers that reach it: what comes back has passed both ways.
            let (address, _) = h2_api(First::Echoed).await;
            stage(speaking_h2(address), async |stage| {
                let mut sender = connected(&stage).await;
                let names = ["x-sum", "proxy-authorization", "authorization", "host", "content-length", "set-cookie", "via"];
                let trailers = names.map(|name| (name.parse().unwrap(), HeaderValue::from_static("7")));
                let frames: [Result<_, Infallible>; 2] =
                    [Ok(Frame::data(Bytes::from_static(b"x"))), Ok(Frame::trailers(HeaderMap::from_iter(trailers)))];
                let body = Sent::new(StreamBody::new(futures_util::stream::iter(frames)));
                let request = ::http::Request::post("http://api.example/v1/x").body(body).unwrap();
                let whole = sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
                let passed: Vec<_> = whole.trailers().unwrap().keys().map(|name| name.as_str().to_owned()).collect();
                assert_eq!(passed, ["x-sum"]);
            })
            .await;
        })
        .await;
}

#[tokio::test]
async fn a_caller_that_shuts_its_window_does_not_hold_its_upstream_for_ever() {
    const LONG: &str = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n0123456789";
    let address = api(LONG).await;
    stage(registered(address), async |mut stage| {
        let socket = TcpStream::connect(stage.gate).await.unwrap();
        let mut builder = hyper::client::conn::http2::Builder::new(OnThisThread);
        builder.initial_stream_window_size(0);
        let (mut sender, connection) = builder.handshake::<_, Sent>(TokioIo::new(socket)).await.unwrap();
        tokio::task::spawn_local(connection);
        let response = sender.send_request(request("GET", &[], false)).await.unwrap();
        assert_eq!(response.status(), 200);
        // Nothing is read, so the window stays shut.
        let record = stage.records(1).await.remove(0);
        assert_eq!((&record["reason"], &record["status"]), (&json!("downstream_timeout"), &json!(200)), "{record}");
        drop(response);
    })
    .await;
}
