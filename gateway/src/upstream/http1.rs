//! The HTTP/1.1 exchange on an established connection: the seam to the codec.

use crate::{
    fault::Fault,
    http::{Request, Response},
    stream::Stream,
};
use std::{rc::Rc, task::Context};
use tidegate_policy::Reason;

/// An HTTP/1.1 connection that is ready for one request.
pub(super) struct Exchanger {
    stream: Stream,
}

/// Takes back a connection on which an exchange has ended well.
pub(super) trait Recycle {
    /// Called at most once for each exchange.
    fn recycle(&self, exchanger: Exchanger);
}

impl Exchanger {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream }
    }

    /// Whether neither its end nor stray bytes have come while it was idle; no system call unless the runtime has seen
    /// the socket become readable.
    pub(super) fn is_open(&self) -> bool {
        let socket = match &self.stream {
            Stream::Plain(socket) => socket,
            Stream::Originated(tls) => tls.get_ref().0,
            Stream::Accepted(_) | Stream::Tunnel(_) => return false,
        };
        socket.poll_read_ready(&mut Context::from_waker(std::task::Waker::noop())).is_pending()
    }

    pub(super) async fn send(self, _request: &mut Request, recycle: Rc<dyn Recycle>) -> Result<Response, Fault> {
        recycle.recycle(self);
        Err(Fault::new(Reason::Internal, "this build speaks no HTTP/1.1 to upstreams").before_send())
    }
}
