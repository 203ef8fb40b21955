//! Moves bytes from one socket to another within the kernel, by `splice(2)` and a pipe between them: a third of the
//! processor time of copying them.

use crate::{http::Metrics, telemetry::Gauge};
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice};
use socket2::SockRef;
use std::{
    cell::{Cell, RefCell},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

/// What a pipe is asked to hold. More has not made it cheaper; with the kernel's own 64 KiB it costs half as much again.
const PIPE_BYTES: usize = 256 * 1024;

/// The least that is worth it: the kernel bounds what one user's pipes hold together (`pipe-user-pages-soft`), beyond which a
/// new one has two pages, and costs more than copying.
const LEAST_BYTES: usize = 64 * 1024;

/// How long no other pipe is asked for after one was refused.
const REFUSED: Duration = Duration::from_secs(1);

/// Pipes that one worker keeps for its tunnels' next bytes: 64 descriptors.
const SPARE_PIPES: usize = 32;

/// A worker's pipes. A direction holds one only while it has bytes on their way; where there is none, bytes are copied.
#[derive(Debug)]
pub struct Pipes {
    spare: RefCell<Vec<Pipe>>,
    in_use: Cell<usize>,
    /// Most of them in use at once (`http_tunnel_pipes`).
    limit: usize,
    /// When the operating system refused one last.
    refused: Cell<Option<Instant>>,
    metrics: Arc<Metrics>,
}

/// A pipe of the kernel's, empty between two uses.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
    /// Bytes in it.
    pub(super) holds: usize,
    _open: Counted,
}

/// An open pipe, as it is counted.
#[derive(Debug)]
struct Counted(Arc<Metrics>);

impl Counted {
    fn gauge(&self) -> &Gauge {
        &self.0.tunnel_pipes
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge().add(-1);
    }
}

impl Pipes {
    /// No more than `limit` in use at once; what they move is counted.
    pub fn new(limit: usize, metrics: Arc<Metrics>) -> Self {
        Self { spare: RefCell::default(), in_use: Cell::new(0), limit, refused: Cell::new(None), metrics }
    }

    /// A pipe that holds nothing; none where as many are in use as may be, or the operating system gives none.
    pub(super) fn take(&self) -> Option<Pipe> {
        if self.in_use.get() >= self.limit {
            return None;
        }
        let pipe = self.spare.borrow_mut().pop().or_else(|| self.open())?;
        self.in_use.set(self.in_use.get() + 1);
        Some(pipe)
    }

    /// Takes one back. One that still holds bytes of a tunnel that broke off is closed.
    pub(super) fn give(&self, pipe: Pipe) {
        self.in_use.set(self.in_use.get() - 1);
        let mut spare = self.spare.borrow_mut();
        if pipe.holds == 0 && spare.len() < SPARE_PIPES {
            spare.push(pipe);
        }
    }

    /// Counts bytes that were moved.
    pub(super) fn moved(&self, bytes: usize) {
        self.metrics.tunnel_bytes_spliced.add(bytes as u64);
    }

    /// Another one. Without descriptors or memory for it, tunnels go on by copying.
    fn open(&self) -> Option<Pipe> {
        if self.refused.get().is_some_and(|refused| refused.elapsed() < REFUSED) {
            return None;
        }
        let opened = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok().filter(|(_, writer)| {
            fcntl_setpipe_size(writer, PIPE_BYTES).is_ok() || fcntl_getpipe_size(writer).is_ok_and(|size| size >= LEAST_BYTES)
        });
        let Some((reader, writer)) = opened else {
            self.refused.set(Some(Instant::now()));
            return None;
        };
        let counted = Counted(Arc::clone(&self.metrics));
        counted.gauge().add(1);
        Some(Pipe { reader, writer, holds: 0, _open: counted })
    }
}

impl Pipe {
    /// Takes what there is from a socket; 0 at its end. `Unsupported` where only a read goes on: behind a byte of urgent data
    /// (RFC 9293 section 3.8.5) a splice finds nothing for good, not even at the end. `woken` says that something should be
    /// there, so that finding nothing is looked into.
    pub(super) fn fill(&mut self, from: &impl AsFd, woken: bool) -> io::Result<usize> {
        let filled = self.take(from);
        let nothing = match &filled {
            Ok(count) => *count == 0,
            Err(error) => woken && error.kind() == io::ErrorKind::WouldBlock,
        };
        if !nothing || !matches!(SockRef::from(from).peek(&mut [MaybeUninit::uninit()]), Ok(there) if there > 0) {
            return filled;
        }
        // It may have come since.
        match self.take(from) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    fn take(&mut self, from: &impl AsFd) -> io::Result<usize> {
        let taken = splice(from, None, &self.writer, None, PIPE_BYTES, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?;
        self.holds += taken;
        Ok(taken)
    }

    /// Gives a socket what it takes.
    pub(super) fn empty(&mut self, to: &impl AsFd) -> io::Result<usize> {
        let given = splice(&self.reader, None, to, None, self.holds, SpliceFlags::NONBLOCK | SpliceFlags::MOVE)?;
        self.holds -= given;
        Ok(given)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    fn joined() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_go_from_socket_to_socket() {
        let metrics = Arc::new(Metrics::default());
        let pipes = Pipes::new(1, Arc::clone(&metrics));
        let ((mut caller, from), (to, mut api)) = (joined(), joined());
        caller.write_all(b"ahoy").unwrap();
        let mut pipe = pipes.take().unwrap();
        assert!(pipes.take().is_none(), "one may be in use");
        assert_eq!((pipe.fill(&from, true).unwrap(), pipe.holds), (4, 4));
        assert_eq!((pipe.empty(&to).unwrap(), pipe.holds), (4, 0));
        let mut heard = [0; 4];
        api.read_exact(&mut heard).unwrap();
        assert_eq!(&heard, b"ahoy");
        drop(caller);
        assert_eq!(pipe.fill(&from, true).unwrap(), 0, "its end");
        pipes.give(pipe);
        assert_eq!(metrics.tunnel_pipes.value(), 1, "kept for the next");
        drop(pipes);
        assert_eq!(metrics.tunnel_pipes.value(), 0);
    }

    #[test]
    fn a_pipe_with_bytes_of_one_tunnel_never_serves_another() {
        let metrics = Arc::new(Metrics::default());
        let pipes = Pipes::new(1, Arc::clone(&metrics));
        let (mut caller, from) = joined();
        caller.write_all(b"secret").unwrap();
        let mut pipe = pipes.take().unwrap();
        pipe.fill(&from, true).unwrap();
        pipes.give(pipe);
        assert_eq!(metrics.tunnel_pipes.value(), 0, "closed");
        assert_eq!(pipes.take().unwrap().holds, 0);
    }
}
