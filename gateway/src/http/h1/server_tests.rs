//! Both codecs over real sockets: a handler that answers by itself, and one that forwards to an upstream written out
//! byte by byte.

use super::{
    Limits,
    client::{Exchanger, Recycle},
    server::{Handler, Terms, serve},
};
use crate::{
    fault::Fault,
    http::{Request, Response, body::Body, clock::Clock, drain::Drain, exchange::Answer},
    stream::Stream,
};
use ::http::{Method, StatusCode};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use std::{cell::RefCell, net::SocketAddr, rc::Rc, sync::Arc, time::Duration};
use tidegate_policy::Reason;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::LocalSet,
};

/// Answers by itself: `/echo` with the body it got and its trailers, `/early` before it has read any, `/switch` with a
/// takeover that echoes.
struct Local {
    seen: Rc<RefCell<Vec<String>>>,
}

impl Handler for Local {
    async fn exchange(&self, request: Request) -> Answer {
        self.seen.borrow_mut().push(format!("{} {}", request.method(), request.uri()));
        let takes_over =
            request.uri().path() == "/switch" || request.uri().path() == "/takeover" || request.method() == Method::CONNECT;
        let mut response = match request.uri().path() {
            "/early" => Response::new(Body::full(Bytes::from_static(b"early"))),
            // The request's own body is the response's: reading one while writing the other.
            "/mirror" => Response::new(request.into_body()),
            "/refused" => Response::new(Body::full(Bytes::from_static(b"no"))),
            _ => match request.into_body().collect().await {
                Ok(whole) => {
                    let sum = whole.trailers().and_then(|trailers| trailers.get("x-sum").cloned());
                    let mut response = Response::new(Body::full(whole.to_bytes()));
                    if let Some(sum) = sum {
                        response.headers_mut().insert("x-sum", sum);
                    }
                    response
                }
                Err(fault) => self.refuse(fault),
            },
        };
        if !takes_over {
            return Answer { response, takeover: None };
        }
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let takeover = Box::new(|mut stream: Stream, read: Bytes| {
            let echo = async move {
                stream.write_all(&read).await.unwrap();
                let mut rest = Vec::new();
                stream.read_to_end(&mut rest).await.unwrap();
                stream.write_all(&rest).await.unwrap();
            };
            Box::pin(echo) as std::pin::Pin<Box<dyn Future<Output = ()>>>
        });
        Answer { response, takeover: Some(takeover) }
    }

    fn refuse(&self, fault: Fault) -> Response {
        refusal(&fault)
    }
}

fn refusal(fault: &Fault) -> Response {
    let mut response = Response::new(Body::full(Bytes::from(fault.to_string())));
    *response.status_mut() = fault.status();
    response
}

/// Forwards to one upstream address, over the last connection that came back.
struct Forwarding {
    upstream: SocketAddr,
    idle: Rc<Idle>,
}

#[derive(Default)]
struct Idle(RefCell<Vec<Exchanger>>);

impl Recycle for Idle {
    fn recycle(&self, exchanger: Exchanger) {
        self.0.borrow_mut().push(exchanger);
    }
}

impl Handler for Forwarding {
    async fn exchange(&self, mut request: Request) -> Answer {
        let idle = self.idle.0.borrow_mut().pop().filter(Exchanger::is_open);
        let exchanger = match idle {
            Some(exchanger) => exchanger,
            None => Exchanger::new(Stream::Plain(TcpStream::connect(self.upstream).await.unwrap()), Limits::default()),
        };
        let sent = exchanger.send(&mut request, Rc::clone(&self.idle) as Rc<dyn Recycle>).await;
        let mut response = sent.unwrap_or_else(|fault| refusal(&fault));
        let Some((mut upstream, read)) = response.body_mut().take_upgrade() else { return Answer { response, takeover: None } };
        let takeover = Box::new(|mut downstream: Stream, early: Bytes| {
            let copy = async move {
                downstream.write_all(&read).await.unwrap();
                upstream.write_all(&early).await.unwrap();
                tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await.unwrap();
            };
            Box::pin(copy) as std::pin::Pin<Box<dyn Future<Output = ()>>>
        });
        Answer { response, takeover: Some(takeover) }
    }

    fn refuse(&self, fault: Fault) -> Response {
        refusal(&fault)
    }
}

fn quick() -> Limits {
    Limits { drain_timeout: Duration::from_millis(50), head_timeout: Duration::from_millis(300), ..Limits::default() }
}

/// Serves connections with `handler` for as long as `test` runs.
async fn with<H: Handler + 'static, T>(handler: H, test: impl AsyncFnOnce(SocketAddr) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = Rc::new(handler);
    let accept = async move {
        loop {
            let (socket, _) = listener.accept().await.unwrap();
            let handler = Rc::clone(&handler);
            tokio::task::spawn_local(async move {
                let (clock, drain) = (Clock::default(), Drain::default());
                let terms = Terms { clock: &clock, drain: &drain, limits: quick(), metrics: &Arc::default() };
                serve(Stream::Plain(socket), BytesMut::new(), &*handler, terms).await;
            });
        }
    };
    LocalSet::new()
        .run_until(async {
            let accepting = tokio::task::spawn_local(accept);
            let outcome = tokio::time::timeout(Duration::from_secs(20), test(address)).await.expect("the test hangs");
            accepting.abort();
            outcome
        })
        .await
}

/// Sends `pieces` one by one and returns everything that comes until the connection ends.
async fn talk(address: SocketAddr, pieces: &[&[u8]]) -> String {
    let mut socket = TcpStream::connect(address).await.unwrap();
    socket.set_nodelay(true).unwrap();
    for piece in pieces {
        if socket.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    let _reset_or_end = socket.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Reads until `wanted` has come.
async fn until(socket: &mut TcpStream, wanted: &str) -> String {
    let mut text = Vec::new();
    while !String::from_utf8_lossy(&text).contains(wanted) {
        let count = socket.read_buf(&mut text).await.unwrap();
        assert!(count > 0, "ended before {wanted:?}: {:?}", String::from_utf8_lossy(&text));
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn local() -> (Local, Rc<RefCell<Vec<String>>>) {
    let seen = Rc::default();
    (Local { seen: Rc::clone(&seen) }, seen)
}

/// Every row must be refused with 400 and the connection closed, and nothing of it may reach the handler as a request
/// whose body is complete.
const REFUSED: &[(&str, &str)] = &[
    ("bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    ("bare LF after a field", "GET / HTTP/1.1\r\nHost: a\n\r\n"),
    ("bare LF ends the head", "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    ("bare CR in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
    ("bare CR in the request line", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bare CR ends a line", "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    ("CR CR LF", "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
    ("folded with a space", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n"),
    ("folded with a tab", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n\tb\r\n\r\n"),
    ("folded before any field", "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    ("space before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    ("tab before the colon", "GET / HTTP/1.1\r\nHost\t: a\r\n\r\n"),
    ("space before TE's colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    ("space in a name", "GET / HTTP/1.1\r\nHost: a\r\nX Y: a\r\n\r\n"),
    ("empty name", "GET / HTTP/1.1\r\nHost: a\r\n: a\r\n\r\n"),
    ("no colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    ("NUL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    ("NUL in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n"),
    ("control byte in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n"),
    ("DEL in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"),
    ("control byte in a name", "GET / HTTP/1.1\r\nHost: a\r\nX\x0b: a\r\n\r\n"),
    ("vertical tab before TE's value", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    ("brackets in a name", "GET / HTTP/1.1\r\nHost: a\r\nX[]: a\r\n\r\n"),
    ("repeated equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na"),
    ("repeated different lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    ("list of equal lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\na"),
    ("list of different lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1,2\r\n\r\nab"),
    ("length with plus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\na"),
    ("length with minus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\na"),
    ("hexadecimal length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\na"),
    ("length with letters", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1a\r\n\r\na"),
    ("length with a space", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\na"),
    ("length with a point", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1.0\r\n\r\na"),
    ("empty length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n"),
    ("length beyond 64 bits", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551617\r\n\r\na"),
    ("length and TE", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("TE and length", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    ("TE and length zero", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n"),
    ("TE identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n"),
    ("TE gzip", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n"),
    ("TE gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    ("TE chunked twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (
        "two TE fields",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "second TE identity",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    ("TE xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("TE quoted", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    ("TE with a parameter", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    ("TE with a comma", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked,\r\n\r\n0\r\n\r\n"),
    ("TE empty", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n"),
    ("TE in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("no Host", "GET / HTTP/1.1\r\n\r\n"),
    ("two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("two equal Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    ("two Hosts in 1.0", "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    ("HTTP/0.9", "GET /\r\n\r\n"),
    ("HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    ("HTTP/2.0", "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    ("HTTP/1.10", "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    ("lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n"),
    ("two spaces before the target", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("two spaces before the version", "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space at the end of the line", "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    ("space at the start of the line", " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("tab between", "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    ("space in the target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("target beyond ASCII", "GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("method is not a token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("asterisk for GET", "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("authority for GET", "GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("relative target", "GET a/b HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("path for CONNECT", "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("URL for CONNECT", "CONNECT http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("CONNECT with a length", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"),
    ("CONNECT in chunks", "CONNECT a:80 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("two empty lines first", "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bare LF first", "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    ("bad chunk size", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\na\r\n0\r\n\r\n"),
    ("chunk without CRLF", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naX0\r\n\r\n"),
    ("chunk size with LF", "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n"),
    ("TLS on the plain port", "\x16\x03\x01\x02\n\x01\r\n\r\n"),
];

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let (handler, _) = local();
    with(handler, async |address| {
        for (name, bytes) in REFUSED {
            let smuggled = [bytes.as_bytes(), b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            let answer = talk(address, &[&smuggled]).await;
            assert!(answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
            assert_eq!(answer.matches("HTTP/1.1").count() - answer.matches("HTTP/1.1 are").count(), 1, "{name}: {answer}");
            assert!(answer.contains("connection: close"), "{name}: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn nothing_smuggled_reaches_the_handler() {
    let (handler, seen) = local();
    with(handler, async |address| {
        for (_, bytes) in REFUSED {
            talk(address, &[bytes.as_bytes(), b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"]).await;
        }
    })
    .await;
    assert!(!seen.borrow().iter().any(|request| request.contains("smuggled")), "{:?}", seen.borrow());
}

#[tokio::test]
async fn a_request_is_the_same_wherever_it_is_cut() {
    let (handler, seen) = local();
    let bytes = b"\r\nPOST /echo?q HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n\
                  4\r\nwave\r\n1;x=\"y\"\r\ns\r\n0\r\nX-Sum: 5\r\n\r\n";
    with(handler, async |address| {
        for cut in 1..bytes.len() {
            let answer = talk(address, &[&bytes[..cut], &bytes[cut..]]).await;
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "cut at {cut}: {answer}");
            assert!(answer.contains("x-sum: 5\r\n") && answer.ends_with("\r\n\r\nwaves"), "cut at {cut}: {answer}");
        }
    })
    .await;
    assert!(seen.borrow().iter().all(|request| request == "POST /echo?q"));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let (handler, seen) = local();
    let bytes = "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\noneGET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
                 POST /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthree\r\n0\r\n\r\n";
    let answer = with(handler, async |address| talk(address, &[bytes.as_bytes()]).await).await;
    assert_eq!(*seen.borrow(), ["POST /1", "GET /2", "POST /3"]);
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 3);
    assert!(answer.find("one") < answer.find("three") && answer.contains("content-length: 0"), "{answer}");
}

#[tokio::test]
async fn a_body_is_asked_for_when_it_is_read_and_not_before() {
    let (handler, _) = local();
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"PUT /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n").await.unwrap();
        assert_eq!(until(&mut socket, "\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
        socket.write_all(b"hi").await.unwrap();
        assert!(until(&mut socket, "hi").await.starts_with("HTTP/1.1 200 OK"));

        let refused = "PUT /refused HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
        let answer = talk(address, &[refused.as_bytes()]).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("connection: close"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_body_that_was_not_read_is_drained_or_costs_the_connection() {
    let (handler, seen) = local();
    with(handler, async |address| {
        let small = "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nsmallGET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        assert_eq!(talk(address, &[small.as_bytes()]).await.matches("200 OK").count(), 2);
        let large = [b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n".as_slice(), &vec![b'x'; 300_000]].concat();
        assert_eq!(talk(address, &[&large, b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n"]).await.matches("200 OK").count(), 1);
    })
    .await;
    assert_eq!(*seen.borrow(), ["POST /early", "GET /next", "POST /early"]);
}

#[tokio::test]
async fn bytes_after_connect_are_held_for_who_takes_over_and_never_parsed() {
    let (handler, seen) = local();
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\nGET /held HTTP/1.1\r\n\r\n").await.unwrap();
        until(&mut socket, "\r\n\r\nGET /held HTTP/1.1\r\n\r\n").await;
        socket.write_all(b"more").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut rest = String::new();
        socket.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "more");

        let refused = "GET /refused HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nGET /held HTTP/1.1\r\nHost: a\r\n\r\n";
        let answer = talk(address, &[refused.as_bytes()]).await;
        assert!(answer.contains("connection: close") && answer.matches("200 OK").count() == 1, "{answer}");
    })
    .await;
    assert!(!seen.borrow().iter().any(|request| request.contains("held")));
}

#[tokio::test]
async fn a_head_that_is_too_large_or_too_slow_is_refused() {
    let (handler, _) = local();
    with(handler, async |address| {
        let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(70_000));
        assert!(talk(address, &[large.as_bytes()]).await.starts_with("HTTP/1.1 431 "));
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(100));
        assert!(talk(address, &[many.as_bytes()]).await.starts_with("HTTP/1.1 431 "));
        assert!(talk(address, &[b"GET / HTTP/1.1\r\nHost:"]).await.starts_with("HTTP/1.1 408 "));
    })
    .await;
}

#[tokio::test]
async fn http_1_0_is_answered_in_its_own_way() {
    let (handler, _) = local();
    with(handler, async |address| {
        let answer = talk(address, &[b"GET / HTTP/1.0\r\n\r\n"]).await;
        assert!(answer.starts_with("HTTP/1.0 200 OK") && answer.contains("connection: close"), "{answer}");
        let kept = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n";
        let answer = talk(address, &[kept.as_bytes()]).await;
        assert!(answer.matches("200 OK").count() == 2 && answer.contains("connection: keep-alive"), "{answer}");
    })
    .await;
}

/// An upstream that accepts connections one after the other and for each plays its script: reads until the text has
/// come, then writes the bytes; it closes at the script's end.
async fn upstream(scripts: Vec<Vec<(&'static str, Vec<u8>)>>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let playing = tokio::spawn(async move {
        let mut heard = Vec::new();
        for script in scripts {
            let (mut socket, _) = listener.accept().await.unwrap();
            for (wanted, bytes) in script {
                heard.push(until(&mut socket, wanted).await);
                socket.write_all(&bytes).await.unwrap();
            }
        }
        heard
    });
    (address, playing)
}

/// Sends one request through both codecs to an upstream that answers with `response` and closes.
async fn through(request: &str, response: &[u8]) -> (String, Vec<String>) {
    let (address, playing) = upstream(vec![vec![("\r\n\r\n", response.to_vec())]]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    let answer = with(handler, async |address| talk(address, &[request.as_bytes()]).await).await;
    (answer, playing.await.unwrap())
}

const GET: &str = "GET /x?y HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn responses_are_framed_as_strictly_as_requests() {
    let rows: &[(&str, &str)] = &[
        ("length and TE", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("different lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ("list of lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na"),
        ("bad length", "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na"),
        ("TE gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        ("TE in 1.0", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        ("bare LF", "HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\na"),
        ("folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 1\r\n\r\na"),
        ("space before the colon", "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na"),
        ("NUL", "HTTP/1.1 200 OK\r\nX: \0\r\nContent-Length: 1\r\n\r\na"),
        ("not HTTP", "ICY 200 OK\r\n\r\n"),
        ("HTTP/2", "HTTP/2 200 OK\r\n\r\n"),
        ("bad status", "HTTP/1.1 2x0 OK\r\n\r\n"),
        ("switched unasked", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
        ("nothing", ""),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-"),
    ];
    for (name, response) in rows {
        let (answer, _) = through(GET, response.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{name}: {answer}");
    }
}

#[tokio::test]
async fn every_framing_of_a_response_arrives_whole() {
    let rows: &[(&str, &str, &str)] = &[
        ("length", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "\r\n\r\nhello"),
        ("equal lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", "\r\n\r\nhello"),
        ("until closed", "HTTP/1.1 200 OK\r\n\r\nhello", "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        ("1.0 until closed", "HTTP/1.0 200 OK\r\n\r\nhello", "\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            "\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "trailers",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Sum: 1\r\nHost: b\r\n\r\n",
            "\r\n\r\n0\r\nx-sum: 1\r\n\r\n",
        ),
        ("204", "HTTP/1.1 204 No Content\r\n\r\n", "204 No Content\r\nconnection: close\r\n\r\n"),
        ("304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "content-length: 5\r\nconnection: close\r\n\r\n"),
        ("103 first", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nz", "\r\n\r\nz"),
    ];
    for (name, response, wanted) in rows {
        let (answer, heard) = through(GET, response.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 ") && answer.ends_with(wanted), "{name}: {answer}");
        assert!(heard[0].starts_with("GET /x?y HTTP/1.1\r\nhost: a\r\n"), "{name}: {}", heard[0]);
    }
}

#[tokio::test]
async fn a_head_request_gets_the_length_and_no_body() {
    let request = "HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let (answer, _) = through(request, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").await;
    assert!(answer.contains("content-length: 5\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_response_that_breaks_off_is_not_passed_off_as_whole() {
    let (answer, _) = through(GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel").await;
    assert!(answer.starts_with("HTTP/1.1 200") && !answer.contains("\r\n0\r\n"), "{answer}");
    let (answer, _) = through(GET, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel").await;
    assert!(answer.ends_with("hel"), "{answer}");
}

#[tokio::test]
async fn a_connection_is_used_again_unless_something_is_left_on_it() {
    let answer = || b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec();
    let stray = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokSTRAY".to_vec();
    let end = "\r\n\r\n";
    // The first connection serves two requests and then leaves stray bytes behind, so the third goes over another.
    let (address, playing) = upstream(vec![vec![(end, answer()), (end, stray)], vec![(end, answer())]]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        for _ in 0..3 {
            socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            assert!(until(&mut socket, "\r\n\r\nok").await.ends_with("ok"));
        }
    })
    .await;
    assert_eq!(playing.await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_response_may_begin_before_the_request_has_ended() {
    let first = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n".to_vec();
    let (address, playing) = upstream(vec![vec![("one", first), ("two", b"6\r\nsecond\r\n0\r\n\r\n".to_vec())]]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await.unwrap();
        until(&mut socket, "first").await;
        socket.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
        until(&mut socket, "second\r\n0\r\n\r\n").await;
    })
    .await;
    assert!(playing.await.unwrap()[1].contains("two"));
}

#[tokio::test]
async fn an_expectation_is_passed_on_and_its_answer_too() {
    let script = vec![
        ("\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()),
        ("body", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec()),
    ];
    let (address, playing) = upstream(vec![script]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await.unwrap();
        until(&mut socket, "HTTP/1.1 100 Continue\r\n\r\n").await;
        socket.write_all(b"body").await.unwrap();
        until(&mut socket, "\r\n\r\nok").await;
    })
    .await;
    assert!(playing.await.unwrap()[0].contains("expect: 100-continue"));
}

#[tokio::test]
async fn an_upgrade_joins_both_sides() {
    let script = vec![
        ("\r\n\r\n", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\nhello".to_vec()),
        ("ping", b"pong".to_vec()),
    ];
    let (address, playing) = upstream(vec![script]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n").await.unwrap();
        assert!(until(&mut socket, "\r\n\r\nhello").await.starts_with("HTTP/1.1 101 Switching Protocols\r\n"));
        socket.write_all(b"ping").await.unwrap();
        until(&mut socket, "pong").await;
    })
    .await;
    assert_eq!(playing.await.unwrap()[1], "ping");
}

#[tokio::test]
async fn a_large_body_goes_through_both_ways() {
    let size = 5_000_000;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = until(&mut socket, "\r\n\r\n").await;
        let mut body = head.split_once("\r\n\r\n").unwrap().1.as_bytes().to_vec();
        body.reserve(size);
        while body.len() < size {
            socket.read_buf(&mut body).await.unwrap();
        }
        socket.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes()).await.unwrap();
        socket.write_all(&body).await.unwrap();
    });
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut request =
            format!("PUT / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        request.extend((0..size).map(|index| b'a' + (index % 23) as u8));
        let answer = talk(address, &[&request]).await;
        let sent = &request[request.len() - size..];
        assert!(answer.split_once("\r\n\r\n").unwrap().1.as_bytes() == sent);
    })
    .await;
}

#[tokio::test]
async fn a_downstream_that_leaves_ends_its_exchange() {
    let (address, playing) = upstream(vec![vec![("\r\n\r\n", Vec::new()), ("\0never", Vec::new())]]).await;
    let handler = Forwarding { upstream: address, idle: Rc::default() };
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        drop(socket);
        // The upstream's script ends in a panic when its connection ends, which it does only if the exchange did.
        assert!(playing.await.is_err());
    })
    .await;
}

#[tokio::test]
async fn a_fault_before_anything_was_sent_leaves_the_request_whole() {
    let (address, playing) = upstream(vec![vec![("\r\n\r\n", Vec::new())]]).await;
    let exchanger = Exchanger::new(Stream::Plain(TcpStream::connect(address).await.unwrap()), Limits::default());
    let mut request = Request::new(Body::empty());
    request.headers_mut().insert("host", "a".parse().unwrap());
    let fault = exchanger.send(&mut request, Rc::new(Idle::default())).await.unwrap_err();
    assert!(fault.retryable() && fault.reason() == Reason::UpstreamProtocol, "{fault}");
    playing.await.unwrap();
    let (address, _playing) = upstream(vec![vec![("\r\n\r\n", Vec::new())]]).await;
    *request.method_mut() = Method::POST;
    let exchanger = Exchanger::new(Stream::Plain(TcpStream::connect(address).await.unwrap()), Limits::default());
    assert!(!exchanger.send(&mut request, Rc::new(Idle::default())).await.unwrap_err().retryable());
}

#[tokio::test]
async fn a_response_can_be_made_of_the_request_under_way() {
    let (handler, _) = local();
    with(handler, async |address| {
        let mut socket = TcpStream::connect(address).await.unwrap();
        socket.write_all(b"POST /mirror HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n").await.unwrap();
        until(&mut socket, "one").await;
        socket.write_all(b"3\r\ntwo\r\n0\r\n\r\n").await.unwrap();
        until(&mut socket, "two\r\n0\r\n\r\n").await;
        socket.write_all(b"GET /mirror HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut rest = String::new();
        socket.read_to_string(&mut rest).await.unwrap();
        assert!(rest.starts_with("HTTP/1.1 200 OK"), "{rest}");
    })
    .await;
}
