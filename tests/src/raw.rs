//! An HTTP/1.1 client that sends exactly the bytes it is given and shows exactly what came back: what tests of framing need.

use crate::{
    wait::soon,
    wire::{self, Wire},
};
use std::net::{IpAddr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A connection that speaks raw bytes.
pub struct Raw {
    wire: Box<dyn Wire>,
    read: Vec<u8>,
}

/// A response as it came.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    /// The status code.
    pub status: u16,
    /// Headers in order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, with its framing taken off.
    pub body: Vec<u8>,
    /// Trailers in order, names in lower case.
    pub trailers: Vec<(String, String)>,
}

impl Reply {
    /// The first value of `name`, or nothing.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What `x-tidegate-reason` says; empty where the answer is not the gateway's own.
    pub fn reason(&self) -> &str {
        self.header("x-tidegate-reason").unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {self:?}"))
    }
}

impl Raw {
    /// Connects to `to`.
    pub async fn connect(to: SocketAddr) -> Self {
        Self::over(wire::dial(None, to).await)
    }

    /// Connects to `to` from the loopback address `from`.
    pub async fn connect_from(from: IpAddr, to: SocketAddr) -> Self {
        Self::over(wire::dial(Some(from), to).await)
    }

    /// Speaks over a stream that stands already.
    pub fn over(wire: impl Wire + 'static) -> Self {
        Self { wire: Box::new(wire), read: Vec::new() }
    }

    /// Sends `bytes`.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let sent = async {
            self.wire.write_all(bytes.as_ref()).await?;
            self.wire.flush().await
        };
        // The peer may have refused and closed before the last byte: its answer is what the test is about.
        let _: std::io::Result<()> = soon("the gateway to read what it is sent", sent).await;
        self
    }

    /// Says that nothing more will be sent.
    pub async fn finish(&mut self) {
        let _: std::io::Result<()> = self.wire.shutdown().await;
    }

    /// One request without a body, and its answer.
    pub async fn get(&mut self, target: &str, host: &str, more: &str) -> Reply {
        self.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")).await;
        self.reply().await
    }

    /// The next answer, whole; interim ones (1xx but 101) are passed over.
    pub async fn reply(&mut self) -> Reply {
        loop {
            let reply = self.reply_or_interim(false).await;
            if reply.status >= 200 || reply.status == 101 {
                return reply;
            }
        }
    }

    /// The next answer to a HEAD request or to CONNECT: headers without a body.
    pub async fn head(&mut self) -> Reply {
        self.reply_or_interim(true).await
    }

    /// The next answer, interim ones included. `bodiless` answers (to HEAD and CONNECT) end with their headers.
    pub async fn reply_or_interim(&mut self, bodiless: bool) -> Reply {
        soon("an answer", self.read_reply(bodiless)).await
    }

    async fn read_reply(&mut self, bodiless: bool) -> Reply {
        let head = self.until_blank_line().await;
        let mut lines = head.split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("not a status line: {status_line:?}"));
        let mut reply = Reply { status, headers: fields(lines), ..Reply::default() };
        if bodiless || status < 200 || status == 204 || status == 304 {
            return reply;
        }
        let chunked = reply.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
        let length = reply.header("content-length").and_then(|length| length.parse().ok());
        match length {
            _ if chunked => (reply.body, reply.trailers) = self.chunks().await,
            Some(length) => reply.body = self.exactly(length).await,
            None => reply.body = self.rest().await,
        }
        reply
    }

    async fn chunks(&mut self) -> (Vec<u8>, Vec<(String, String)>) {
        let mut body = Vec::new();
        loop {
            let line = self.line().await;
            let size = usize::from_str_radix(line.split(';').next().unwrap_or_default().trim(), 16)
                .unwrap_or_else(|error| panic!("not a chunk size ({error}): {line:?}"));
            if size == 0 {
                let mut trailers = Vec::new();
                loop {
                    let line = self.line().await;
                    if line.is_empty() {
                        return (body, trailers);
                    }
                    trailers.extend(fields([line.as_str()].into_iter()));
                }
            }
            body.extend(self.exactly(size).await);
            assert_eq!(self.line().await, "", "a chunk ends in CRLF");
        }
    }

    async fn line(&mut self) -> String {
        self.until_bytes(b"\r\n").await
    }

    async fn until_blank_line(&mut self) -> String {
        self.until_bytes(b"\r\n\r\n").await
    }

    async fn until_bytes(&mut self, end: &[u8]) -> String {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                let line: Vec<u8> = self.read.drain(..at + end.len()).collect();
                return String::from_utf8_lossy(&line[..at]).into_owned();
            }
            assert!(self.more().await > 0, "the connection ended within a head: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// The next `count` bytes.
    pub async fn exactly(&mut self, count: usize) -> Vec<u8> {
        while self.read.len() < count {
            assert!(self.more().await > 0, "the connection ended {} bytes short of a body", count - self.read.len());
        }
        self.read.drain(..count).collect()
    }

    /// Everything until the peer closes.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await > 0 {}
        std::mem::take(&mut self.read)
    }

    /// One more answer, or the end.
    pub async fn rest_or_reply(&mut self) -> Option<Reply> {
        if self.read.is_empty() && self.more().await == 0 {
            return None;
        }
        Some(self.read_reply(false).await)
    }

    /// That the peer closes now, having sent nothing more.
    pub async fn assert_closed(&mut self) {
        let rest = soon("the gateway to close the connection", self.rest()).await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "nothing may follow");
    }

    /// The next bytes, as many as come at once; empty at the end.
    pub async fn some(&mut self) -> Vec<u8> {
        if self.read.is_empty() {
            self.more().await;
        }
        std::mem::take(&mut self.read)
    }

    /// The bytes that came with what was read and were not asked for yet.
    pub fn take_pending(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.read)
    }

    /// The stream itself, to speak TLS or anything else over it. Nothing that was read may be left.
    pub fn into_wire(self) -> Box<dyn Wire> {
        assert!(self.read.is_empty(), "bytes came before they were due: {:?}", String::from_utf8_lossy(&self.read));
        self.wire
    }

    async fn more(&mut self) -> usize {
        // A reset is an end like any other here: a refusal may close with bytes of ours unread.
        let mut piece = [0; 16 * 1024];
        let count = self.wire.read(&mut piece).await.unwrap_or(0);
        self.read.extend_from_slice(&piece[..count]);
        count
    }
}

fn fields<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect()
}
