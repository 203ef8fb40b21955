//! One direction of a tunnel: spliced where both ends are TCP in the clear, copied otherwise.

use super::{Spares, buffers::BUFFER_BYTES, splice::Pipe};
use crate::stream::Stream;
use bytes::Bytes;
use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest, ReadBuf},
    net::TcpStream,
};

/// How often a pipe is filled before others have their turn: some 4 MiB.
const FILLS: u32 = 16;

/// One direction.
pub(super) struct Direction<'a> {
    spares: &'a Spares,
    /// Empty while nothing is held.
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// What carries bytes that are not copied, while there are any.
    pipe: Option<Pipe>,
    /// Whether it is copied for good: the operating system does not splice these two, or urgent data came, behind which it
    /// finds nothing.
    copies: bool,
    pub(super) ended: bool,
    pub(super) shut: bool,
    pub(super) bytes: u64,
}

/// What splicing came to, where it has not to wait.
enum Spliced {
    /// `from` has ended.
    Ended,
    /// These two are copied from now on.
    Refused,
}

/// The end of a direction that failed.
pub(super) enum Broken {
    From(io::Error),
    To(io::Error),
}

impl<'a> Direction<'a> {
    /// A direction that has read `bytes` already.
    pub(super) fn holding(bytes: &[u8], spares: &'a Spares) -> Self {
        let mut direction = Self {
            spares,
            buffer: Box::default(),
            start: 0,
            end: bytes.len(),
            pipe: None,
            copies: false,
            ended: false,
            shut: false,
            bytes: 0,
        };
        if bytes.len() > BUFFER_BYTES {
            direction.buffer = bytes.into();
        } else if !bytes.is_empty() {
            direction.hold();
            direction.buffer[..bytes.len()].copy_from_slice(bytes);
        }
        direction
    }

    /// What was read and not passed on.
    pub(super) fn held(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    fn hold(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = self.spares.buffers.take();
        }
    }

    fn let_go(&mut self) {
        (self.start, self.end) = (0, 0);
        if !self.buffer.is_empty() {
            self.spares.buffers.give(mem::take(&mut self.buffer));
        }
        if let Some(pipe) = self.pipe.take() {
            self.spares.pipes.give(pipe);
        }
    }

    /// Reads what fits behind what is held, without passing anything on.
    pub(super) fn poll_fill(&mut self, from: &mut Stream, cx: &mut Context<'_>) -> io::Result<()> {
        self.hold();
        while !self.ended && self.end < self.buffer.len() {
            let mut buffer = ReadBuf::new(&mut self.buffer[self.end..]);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer)? {
                Poll::Ready(()) if buffer.filled().is_empty() => self.ended = true,
                Poll::Ready(()) => self.end += buffer.filled().len(),
                Poll::Pending => break,
            }
        }
        if self.end == 0 {
            self.let_go();
        }
        Ok(())
    }

    /// At most `room` bytes of what was read, which may have to be done now; none at the end.
    pub(super) fn poll_take(&mut self, from: &mut Stream, room: usize, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        if self.start == self.end && !self.ended {
            (self.start, self.end) = (0, 0);
            self.hold();
            let most = room.min(self.buffer.len());
            let mut buffer = ReadBuf::new(&mut self.buffer[..most]);
            if Pin::new(from).poll_read(cx, &mut buffer)?.is_pending() {
                self.let_go();
                return Poll::Pending;
            }
            self.end = buffer.filled().len();
            self.ended = self.end == 0;
        }
        let count = room.min(self.end - self.start);
        let taken = Bytes::copy_from_slice(&self.buffer[self.start..self.start + count]);
        self.start += count;
        if self.start == self.end {
            self.let_go();
        }
        Poll::Ready(Ok(taken))
    }

    /// Passes on what can be; when `from` has ended, so is `to`'s writing half.
    pub(super) fn poll_pass(&mut self, from: &mut Stream, to: &mut Stream, cx: &mut Context<'_>) -> Result<(), Broken> {
        match self.poll_through(from, to, cx) {
            Poll::Ready(Err(broken)) => Err(broken),
            Poll::Ready(Ok(())) | Poll::Pending => Ok(()),
        }
    }

    fn poll_through(&mut self, from: &mut Stream, to: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while !self.shut {
            if self.start == self.end && !self.ended {
                match (&*from, &*to) {
                    (Stream::Plain(from), Stream::Plain(to)) if self.has_pipe() => {
                        match ready!(self.poll_splice(from, to, cx))? {
                            Spliced::Ended => self.ended = true,
                            Spliced::Refused => self.copies = true,
                        }
                    }
                    _ => ready!(self.poll_read(from, to, cx))?,
                }
            }
            while self.start < self.end {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer[self.start..self.end]));
                let count = written.map_err(Broken::To)?;
                if count == 0 {
                    return Poll::Ready(Err(Broken::To(io::ErrorKind::WriteZero.into())));
                }
                self.start += count;
                self.bytes += count as u64;
            }
            if self.ended {
                self.let_go();
                // The other end may have gone already, which is no fault of this one.
                let _either_way = ready!(Pin::new(&mut *to).poll_shutdown(cx));
                self.shut = true;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what is to be written next.
    fn poll_read(&mut self, from: &mut Stream, to: &mut Stream, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        (self.start, self.end) = (0, 0);
        self.hold();
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
            Poll::Ready(read) => read.map_err(Broken::From)?,
            Poll::Pending => {
                self.let_go();
                // Nothing more for now: what a TLS stream holds back goes out.
                ready!(Pin::new(&mut *to).poll_flush(cx)).map_err(Broken::To)?;
                return Poll::Pending;
            }
        }
        self.end = buffer.filled().len();
        self.ended = self.end == 0;
        Poll::Ready(Ok(()))
    }

    /// Whether there is a pipe to splice with, taken where there was none.
    fn has_pipe(&mut self) -> bool {
        if self.pipe.is_none() && !self.copies {
            self.pipe = self.spares.pipes.take();
        }
        self.pipe.is_some()
    }

    /// Splices until `from` has ended or the two have to be waited for.
    fn poll_splice(&mut self, from: &TcpStream, to: &TcpStream, cx: &mut Context<'_>) -> Poll<Result<Spliced, Broken>> {
        let Some(pipe) = &mut self.pipe else { return Poll::Ready(Ok(Spliced::Refused)) };
        for fill in 0..FILLS {
            while pipe.holds > 0 {
                match to.try_io(Interest::WRITABLE, || pipe.empty(to)) {
                    Ok(0) => return Poll::Ready(Err(Broken::To(io::ErrorKind::WriteZero.into()))),
                    Ok(given) => {
                        self.bytes += given as u64;
                        self.spares.pipes.moved(given);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(to.poll_write_ready(cx)).map_err(Broken::To)?;
                    }
                    Err(error) => return Poll::Ready(Err(Broken::To(error))),
                }
            }
            // Called only where the socket was said to be readable; behind a first fill it may be empty for all that.
            match from.try_io(Interest::READABLE, || pipe.fill(from, fill == 0)) {
                Ok(0) => return Poll::Ready(Ok(Spliced::Ended)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match from.poll_read_ready(cx) {
                    Poll::Ready(ready) => ready.map_err(Broken::From)?,
                    Poll::Pending => {
                        self.let_go();
                        return Poll::Pending;
                    }
                },
                // Not these two, or not now, says the kernel.
                Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
                    self.let_go();
                    return Poll::Ready(Ok(Spliced::Refused));
                }
                Err(error) => return Poll::Ready(Err(Broken::From(error))),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for Direction<'_> {
    fn drop(&mut self) {
        self.let_go();
    }
}
