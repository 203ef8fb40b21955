//! What became of a shape at one proxy: what the caller got, what the upstream saw, and what the filter noted, with what each proxy
//! adds of its own taken out.

use super::shape::{Notes, Shape, Sized};
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response, Version};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::{fmt, net::SocketAddr, time::Duration};
use tidegate_tests::{
    api::{Api, Seen},
    h2::{Outgoing, boxed, empty},
    wait::until,
    world::POD,
};
use tokio::net::TcpSocket;

/// Headers that a proxy sets of its own, or that say how a message is framed on one connection.
const OWN: [&str; 13] = [
    // Who answered and when.
    "server",
    "date",
    "via",
    // What each tells an upstream about the request in its own way.
    "x-forwarded-proto",
    "x-request-id",
    "traceparent",
    // Framing: a body's length is compared as the body, and a connection's end is its own.
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    // Of the test: which shape, and what to do.
    "x-do",
    "x-shape",
    "trailer",
];
/// Beginnings of such names.
const OWN_PREFIXES: [&str; 2] = ["x-envoy-", "x-tidegate-"];
/// How long the filter may take to see an exchange's end. Long on a loaded machine; only a defect waits for it.
const NOTED_WITHIN: Duration = Duration::from_secs(3);

/// How long an exchange may stand still before it counts as one that hangs. Long against everything that a shape waits for.
const STANDS_STILL: Duration = Duration::from_secs(5);

/// What stands for what the mirror says.
const MIRRORED: &str = "body: the mirror's";

/// What stands for the notes of an exchange whose end the filter did not see.
pub(super) const NEVER_NOTED: &str = "the end was never noted";

/// What became of a shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) answer: Vec<String>,
    pub(super) upstream: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (part, lines) in [("answer", &self.answer), ("upstream", &self.upstream), ("notes", &self.notes)] {
            for line in lines {
                writeln!(to, "{part:8} {line}")?;
            }
        }
        Ok(())
    }
}

/// Sends `shape` to the proxy at `proxy`, behind which `api` is.
pub(super) async fn outcome(shape: &Shape, proxy: SocketAddr, api: &Api) -> Outcome {
    let before = api.seen().len();
    let mut answer = Vec::new();
    let mut upstream = Vec::new();
    match tokio::time::timeout(STANDS_STILL, send(proxy, request(shape))).await {
        Err(_) => answer.push("none, it hangs".to_owned()),
        Ok(Err(_)) => answer.push("none".to_owned()),
        Ok(Ok(response)) => read(response, &mut answer, &mut upstream).await,
    }
    let mut notes = if shape.notes == Notes::Compared { notes(shape, proxy).await } else { Vec::new() };
    if shape.target.starts_with("/mirror") {
        // What the mirror says is as long as what it saw, each proxy's own headers included.
        notes.iter_mut().filter(|note| note.starts_with("response-body ")).for_each(|note| {
            *note = note.replace(|letter: char| letter.is_ascii_digit(), "").replace("  ", " ");
        });
    }
    if answer.iter().any(|line| line == MIRRORED) {
        // Nor is it told of several filters, between whose calls there are those of others.
        notes.retain(|note| !note.contains(" response-body "));
    }
    let seen = seen(shape, api, before).await;
    if upstream.is_empty() {
        let of_shape = seen.iter().filter(|seen| seen.headers.get("x-shape").is_some_and(|name| name == shape.name));
        for seen in of_shape {
            upstream.push(format!("{} {}", seen.method, seen.uri));
            upstream.extend(lines("", &seen.headers));
        }
    }
    let calls = seen.iter().filter(|seen| seen.headers.contains_key("x-by")).map(|seen| {
        let host = seen.headers.get("host").map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
        format!("call {} {} at {}", seen.method, seen.uri, host.unwrap_or_default())
    });
    upstream.extend(calls);
    Outcome { answer, upstream, notes }
}

/// What the API saw from `before` on; with a call of the filter's own where there should be one, which nobody may have waited for.
async fn seen(shape: &Shape, api: &Api, before: usize) -> Vec<Seen> {
    let calls = |seen: &[Seen]| seen.iter().any(|seen| seen.headers.contains_key("x-by"));
    if shape.script.contains("call api /") {
        let called = until("a call of the filter's own", async || calls(&api.seen()[before..]).then_some(()));
        // Where it never comes, that is the outcome.
        let _in_time: Result<(), _> = tokio::time::timeout(NOTED_WITHIN, called).await;
    }
    api.seen().split_off(before)
}

fn request(shape: &Shape) -> Request<Outgoing> {
    let url = format!("http://{}{}", shape.host(), shape.target);
    let mut request = Request::builder().method(shape.method).uri(url).version(shape.version);
    if shape.version == Version::HTTP_11 {
        request = request.header("host", shape.host());
    }
    request = request.header("x-shape", shape.name).header("x-do", shape.script);
    for (name, value) in &shape.headers {
        request = request.header(*name, *value);
    }
    if !shape.trailers.is_empty() {
        request = request.header("te", "trailers").header("trailer", shape.trailers[0].0);
    }
    if shape.sized == Sized::ByLength {
        request = request.header("content-length", shape.pieces.iter().map(String::len).sum::<usize>());
    }
    request.body(body(shape)).expect("a shape is a request")
}

fn body(shape: &Shape) -> Outgoing {
    if shape.pieces.is_empty() && shape.trailers.is_empty() {
        return empty();
    }
    let mut frames: Vec<_> = shape.pieces.iter().map(|piece| Frame::data(Bytes::copy_from_slice(piece.as_bytes()))).collect();
    if !shape.trailers.is_empty() {
        let trailers = shape
            .trailers
            .iter()
            .map(|(name, value)| (name.parse::<http::HeaderName>().expect("a name"), http::HeaderValue::from_static(value)));
        frames.push(Frame::trailers(trailers.collect()));
    }
    let frames = stream::unfold(frames.into_iter(), |mut frames| async move {
        let frame = frames.next()?;
        // What is ready is sent before the next piece is made.
        tokio::task::yield_now().await;
        Some((Ok(frame), frames))
    });
    boxed(StreamBody::new(frames))
}

/// One request over a connection of its own; an error where the proxy takes none or gives no answer.
async fn send(proxy: SocketAddr, request: Request<Outgoing>) -> anyhow::Result<Response<Incoming>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(POD, 0))?;
    let stream = socket.connect(proxy).await?;
    stream.set_nodelay(true)?;
    let wire = TokioIo::new(stream);
    if request.version() == Version::HTTP_2 {
        let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), wire).await?;
        tokio::spawn(connection);
        return Ok(sender.send_request(request).await?);
    }
    let (mut sender, connection) = hyper::client::conn::http1::handshake(wire).await?;
    tokio::spawn(connection);
    Ok(sender.send_request(request).await?)
}

async fn read(response: Response<Incoming>, answer: &mut Vec<String>, upstream: &mut Vec<String>) {
    let (head, mut body) = response.into_parts();
    answer.push(format!("status {}", head.status.as_u16()));
    if let Some(reason) = head.headers.get("x-tidegate-reason").filter(|_| is_problem(&head.headers)) {
        // The gateway's own answer, in words of its own.
        answer.push(format!("problem {}", String::from_utf8_lossy(reason.as_bytes())));
        return;
    }
    answer.extend(lines("", &head.headers));
    let mut bytes = Vec::new();
    let mut trailers = Vec::new();
    let mut end = None;
    while end.is_none() {
        match tokio::time::timeout(STANDS_STILL, body.frame()).await {
            Ok(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => trailers = frame.trailers_ref().map(|trailers| lines("trailer ", trailers)).unwrap_or_default(),
            },
            Ok(Some(Err(_))) => end = Some("broken off"),
            Ok(None) => end = Some(""),
            Err(_) => end = Some("it hangs"),
        }
    }
    match mirrored(&bytes) {
        Some(seen) => {
            upstream.extend(seen);
            answer.push(MIRRORED.to_owned());
        }
        None => answer.push(format!("body: {}", short(&bytes))),
    }
    answer.extend(trailers);
    answer.extend(end.filter(|end| !end.is_empty()).map(str::to_owned));
}

fn is_problem(headers: &HeaderMap) -> bool {
    headers.get("content-type").is_some_and(|kind| kind == "application/problem+json")
}

/// What the upstream's mirror says that it saw.
fn mirrored(body: &[u8]) -> Option<Vec<String>> {
    let said: serde_json::Value = serde_json::from_slice(body).ok()?;
    let seen = said.get("mirror")?;
    let texts = |value: &serde_json::Value| {
        let texts = value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned));
        let mut texts: Vec<_> = texts.filter(|line| foreign(line.split(':').next().unwrap_or_default())).collect();
        texts.sort();
        texts
    };
    let mut lines = vec![format!("{} {}", seen["method"].as_str()?, seen["target"].as_str()?)];
    lines.extend(texts(&seen["headers"]));
    lines.push(format!("body: {}", short(seen["body"].as_str()?.as_bytes())));
    lines.extend(texts(&said["trailers"]).into_iter().map(|line| format!("trailer {line}")));
    Some(lines)
}

fn lines(prefix: &str, headers: &HeaderMap) -> Vec<String> {
    let kept = headers.iter().filter(|(name, _)| foreign(name.as_str()));
    let mut lines: Vec<_> =
        kept.map(|(name, value)| format!("{prefix}{name}: {}", String::from_utf8_lossy(value.as_bytes()))).collect();
    lines.sort();
    lines
}

/// Whether a header is neither proxy's own.
fn foreign(name: &str) -> bool {
    !OWN.contains(&name) && !OWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

fn short(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    if text.len() <= 200 {
        format!("{text:?}")
    } else {
        format!("{} bytes, {:?} to {:?}", text.len(), &text[..4], &text[text.len() - 4..])
    }
}

/// What the filter noted, once it has seen the exchange's end.
async fn notes(shape: &Shape, proxy: SocketAddr) -> Vec<String> {
    let told = until("the filter to note the end of an exchange", async || {
        let ask =
            Request::get(format!("http://{}/told", shape.host())).header("host", shape.host()).header("x-told", shape.name);
        let answer = send(proxy, ask.body(empty()).expect("a request")).await.ok()?;
        let told = answer.into_body().collect().await.ok()?.to_bytes();
        let told = String::from_utf8_lossy(&told).into_owned();
        // Of several filters at a place all are told of the end in one go.
        told.lines().any(|line| line == "log" || line.ends_with(" log")).then_some(told)
    });
    match tokio::time::timeout(NOTED_WITHIN, told).await {
        Ok(told) => joined(shape.script, told.lines().map(str::to_owned).collect()),
        Err(_) => vec![NEVER_NOTED.to_owned()],
    }
}

/// Pieces of a body come as the network cuts them: calls for one directly after the other become one. Where the filter holds them the
/// last one tells the length of all, else they add up.
fn joined(script: &str, notes: Vec<String>) -> Vec<String> {
    let mut joined: Vec<String> = Vec::new();
    let mut open: Option<(&str, usize)> = None;
    for note in &notes {
        let Some((phase, length)) = shown_of_body(note) else {
            open = None;
            joined.push(note.clone());
            continue;
        };
        let so_far = match open {
            Some((before, so_far)) if before == phase => {
                joined.pop();
                if script.contains(&format!("{} pause", phase.replace(' ', "."))) { 0 } else { so_far }
            }
            _ => 0,
        };
        open = Some((phase, so_far + length));
        let end = if note.ends_with(" end") { " end" } else { "" };
        joined.push(format!("{phase} {}{end}", so_far + length));
    }
    joined
}

/// The phase of a call about a body, behind the filter's name where it has one, and how much it was shown.
fn shown_of_body(note: &str) -> Option<(&str, usize)> {
    let phase = note.find("-body ")? + "-body".len();
    let length = note[phase..].split_whitespace().next()?.parse().ok()?;
    Some((&note[..phase], length))
}
