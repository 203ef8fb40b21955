//! How messages are put on the wire: small pieces gathered into one buffer, large ones written beside it in the same
//! system call.

use super::head;
use crate::stream::Stream;
use ::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, Version, header};
use bytes::{Buf, Bytes};
use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::io::AsyncWrite;

/// Pieces up to this many bytes are copied beside the head, which costs less than another slice.
const COPIED_BYTES: usize = 4 * 1024;

/// A buffer that held more than this many bytes is given back once it is empty.
const KEPT_BYTES: usize = 32 * 1024;

/// What a connection at rest keeps of its buffer.
const RESTING_BYTES: usize = 1024;

/// How a body is framed on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sending {
    /// There is none.
    Nothing,
    /// So many bytes are still to come.
    Length(u64),
    /// In chunks.
    Chunked,
    /// Until the connection closes.
    Close,
}

/// Bytes on their way out: `gathered`, then `large`, then `after`.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    gathered: Vec<u8>,
    written: usize,
    large: Bytes,
    after: &'static [u8],
}

/// A body was not as long as it was said to be.
#[derive(Debug)]
pub(super) struct WrongLength;

impl Outgoing {
    pub(super) fn is_empty(&self) -> bool {
        self.written == self.gathered.len() && self.large.is_empty() && self.after.is_empty()
    }

    /// Keeps no more memory, while there is nothing to be written, than an ordinary head needs: growing to that anew would cost
    /// every answer.
    pub(super) fn rest(&mut self) {
        if self.is_empty() && self.gathered.capacity() > RESTING_BYTES {
            (self.gathered, self.written) = (Vec::new(), 0);
        }
    }

    /// Whether more can be gathered before this is written.
    pub(super) fn has_room(&self) -> bool {
        self.large.is_empty() && self.after.is_empty() && self.gathered.len() - self.written < KEPT_BYTES
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.gathered.extend_from_slice(bytes);
    }

    /// Writes until everything has gone.
    pub(super) fn poll_write(&mut self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let gathered = &self.gathered[self.written..];
            let count = if self.large.is_empty() && self.after.is_empty() {
                ready!(Pin::new(&mut *stream).poll_write(cx, gathered))?
            } else {
                let slices = [IoSlice::new(gathered), IoSlice::new(&self.large), IoSlice::new(self.after)];
                ready!(Pin::new(&mut *stream).poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(count);
        }
        self.gathered.clear();
        self.gathered.shrink_to(KEPT_BYTES);
        self.written = 0;
        self.large = Bytes::new();
        match stream {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            // TLS may hold records back until it is told to flush.
            _ => Pin::new(stream).poll_flush(cx),
        }
    }

    fn advance(&mut self, count: usize) {
        let gathered = count.min(self.gathered.len() - self.written);
        self.written += gathered;
        let large = (count - gathered).min(self.large.len());
        self.large.advance(large);
        self.after = &self.after[count - gathered - large..];
    }

    /// A piece of the body. There must be room.
    pub(super) fn data(&mut self, sending: &mut Sending, data: Bytes) -> Result<(), WrongLength> {
        if data.is_empty() {
            return Ok(());
        }
        let mut after: &'static [u8] = b"";
        match sending {
            Sending::Nothing => return Err(WrongLength),
            Sending::Length(remaining) => *remaining = remaining.checked_sub(data.len() as u64).ok_or(WrongLength)?,
            Sending::Chunked => {
                self.put_hexadecimal(data.len());
                after = b"\r\n";
            }
            Sending::Close => {}
        }
        if data.len() <= COPIED_BYTES {
            self.put(&data);
            self.put(after);
        } else {
            self.large = data;
            self.after = after;
        }
        Ok(())
    }

    /// The end of the body. There must be room.
    pub(super) fn end(&mut self, sending: Sending, trailers: Option<&HeaderMap>) -> Result<(), WrongLength> {
        match sending {
            Sending::Length(0) | Sending::Nothing | Sending::Close => Ok(()),
            Sending::Length(_) => Err(WrongLength),
            Sending::Chunked => {
                self.put(b"0\r\n");
                for (name, value) in trailers.into_iter().flatten() {
                    if !head::forbidden_in_trailers(name) {
                        self.field(name, value.as_bytes());
                    }
                }
                self.put(b"\r\n");
                Ok(())
            }
        }
    }

    /// A request's head, its target in origin form.
    pub(super) fn request_head(&mut self, method: &Method, uri: &Uri, headers: &HeaderMap, sending: Sending) {
        self.put(method.as_str().as_bytes());
        self.put(b" ");
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        // An absolute target without a path but with a query is written with the path it stands for.
        if !target.starts_with('/') && target != "*" {
            self.put(b"/");
        }
        self.put(target.as_bytes());
        self.put(b" HTTP/1.1\r\n");
        // Some servers look for Host first (RFC 9110 section 7.2 recommends it).
        if let Some(host) = headers.get(header::HOST) {
            self.field(&header::HOST, host.as_bytes());
        }
        for (name, value) in headers {
            if *name != header::HOST && *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING {
                self.field(name, value.as_bytes());
            }
        }
        self.framing(sending);
        self.put(b"\r\n");
    }

    /// A response's head. `keep_alive` is said where the version would have it otherwise.
    pub(super) fn response_head(
        &mut self,
        (status, headers): (StatusCode, &HeaderMap),
        version: Version,
        sending: Sending,
        keep_alive: bool,
    ) {
        self.put(if version == Version::HTTP_10 { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
        self.put(status.as_str().as_bytes());
        self.put(b" ");
        self.put(status.canonical_reason().unwrap_or("").as_bytes());
        self.put(b"\r\n");
        let counted = sending != Sending::Nothing;
        for (name, value) in headers {
            // A response without a body may still say how long it would be: to HEAD, and 304.
            let replaced = *name == header::TRANSFER_ENCODING
                || (*name == header::CONTENT_LENGTH
                    && (counted || status.is_informational() || status == StatusCode::NO_CONTENT));
            if !replaced {
                self.field(name, value.as_bytes());
            }
        }
        self.framing(sending);
        match (version, keep_alive) {
            (_, false) if status != StatusCode::SWITCHING_PROTOCOLS => self.put(b"connection: close\r\n"),
            (Version::HTTP_10, true) => self.put(b"connection: keep-alive\r\n"),
            _ => {}
        }
        self.put(b"\r\n");
    }

    fn framing(&mut self, sending: Sending) {
        match sending {
            Sending::Length(length) => {
                self.put(b"content-length: ");
                self.put(itoa::Buffer::new().format(length).as_bytes());
                self.put(b"\r\n");
            }
            Sending::Chunked => self.put(b"transfer-encoding: chunked\r\n"),
            Sending::Nothing | Sending::Close => {}
        }
    }

    fn field(&mut self, name: &HeaderName, value: &[u8]) {
        self.gathered.reserve(name.as_str().len() + value.len() + 4);
        self.put(name.as_str().as_bytes());
        self.put(b": ");
        self.put(value);
        self.put(b"\r\n");
    }

    fn put_hexadecimal(&mut self, number: usize) {
        let digits = (number.max(1).ilog2() / 4 + 1) as usize;
        for place in (0..digits).rev() {
            self.gathered.push(b"0123456789abcdef"[number >> (place * 4) & 15]);
        }
        self.put(b"\r\n");
    }
}
