//! Remembers why TLS ended, for users of the stream who only learn that it did.

use super::explain;
use crate::fault::Fault;
use std::{
    cell::OnceCell,
    io::{self, ErrorKind},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

/// Bytes read at once after a write has failed, in search of an alert.
const SCRATCH_BYTES: usize = 1024;

/// An originated TLS stream that notes the first error of TLS itself.
pub(in crate::upstream) struct Watched {
    tls: Box<TlsStream<TcpStream>>,
    ended: Ending,
}

/// Why TLS ended, once it has.
pub(in crate::upstream) type Ending = Rc<OnceCell<Fault>>;

impl Watched {
    /// `tls`, and where to look once it has ended.
    pub(in crate::upstream) fn new(tls: Box<TlsStream<TcpStream>>) -> (Self, Ending) {
        let ended = Ending::default();
        (Self { tls, ended: Rc::clone(&ended) }, ended)
    }

    fn note<T>(&self, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled
            && let Some(fault) = explain(error)
        {
            // Only the first says why; what follows are consequences.
            self.ended.get_or_init(|| fault);
        }
        polled
    }

    /// The same for writing: a peer that refuses sends its alert before it resets the connection, and who writes first
    /// sees the reset alone. The runtime may not have seen yet that the alert can be read, so a write that met a reset
    /// waits for that; it comes, since a reset makes a socket readable.
    fn note_write<T>(&mut self, cx: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &polled {
            let mut scratch = [0; SCRATCH_BYTES];
            let mut buffer = ReadBuf::new(&mut scratch);
            let said = Pin::new(&mut *self.tls).poll_read(cx, &mut buffer);
            if said.is_pending() && matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) {
                return Poll::Pending;
            }
            let _noted = self.note(said);
        }
        self.note(polled)
    }
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut *self.tls).poll_read(cx, buffer);
        self.note(polled)
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.tls).poll_write(cx, bytes);
        self.note_write(cx, polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut *self.tls).poll_flush(cx);
        self.note_write(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.tls).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.tls).poll_write_vectored(cx, slices);
        self.note_write(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.tls.is_write_vectored()
    }
}
