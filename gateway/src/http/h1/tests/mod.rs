//! Both codecs over real sockets: a handler that answers by itself, and one that forwards to an upstream written out
//! byte by byte.

mod forwarding;
mod requests;

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
    async fn exchange(&self, request: &mut Request) -> Answer {
        self.seen.borrow_mut().push(format!("{} {}", request.method(), request.uri()));
        let takes_over =
            request.uri().path() == "/switch" || request.uri().path() == "/takeover" || request.method() == Method::CONNECT;
        let mut response = match request.uri().path() {
            "/early" => Response::new(Body::full(Bytes::from_static(b"early"))),
            // The request's own body is the response's: reading one while writing the other.
            "/mirror" => Response::new(std::mem::take(request.body_mut())),
            "/refused" => Response::new(Body::full(Bytes::from_static(b"no"))),
            _ => match std::mem::take(request.body_mut()).collect().await {
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
            return Answer { response, takeover: None, withheld: false };
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
        Answer { response, takeover: Some(takeover), withheld: false }
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
    async fn exchange(&self, request: &mut Request) -> Answer {
        let idle = self.idle.0.borrow_mut().pop().filter(Exchanger::is_open);
        let exchanger = match idle {
            Some(exchanger) => exchanger,
            None => Exchanger::new(Stream::Plain(TcpStream::connect(self.upstream).await.unwrap()), Limits::default()),
        };
        let sent = exchanger.send(request, Rc::clone(&self.idle) as Rc<dyn Recycle>).await;
        let mut response = sent.unwrap_or_else(|fault| refusal(&fault));
        let Some((mut upstream, read)) = response.body_mut().take_upgrade() else {
            return Answer { response, takeover: None, withheld: false };
        };
        let takeover = Box::new(|mut downstream: Stream, early: Bytes| {
            let copy = async move {
                downstream.write_all(&read).await.unwrap();
                upstream.write_all(&early).await.unwrap();
                tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await.unwrap();
            };
            Box::pin(copy) as std::pin::Pin<Box<dyn Future<Output = ()>>>
        });
        Answer { response, takeover: Some(takeover), withheld: false }
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
