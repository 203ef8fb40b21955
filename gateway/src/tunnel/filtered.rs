//! A tunnel whose route has filters for it: what is read goes through them, and what they let pass is sent.

use super::{Agreement, BUFFER_BYTES, Direction, Joined, Opening, expired, left, lost};
use crate::{
    fault::Fault,
    filter::{Conduit, Way},
    http::clock::Clock,
    record::OpenRecord,
    stream::Stream,
};
use bytes::{Buf as _, Bytes};
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::AsyncWrite;

/// A tunnel under way.
struct Tunnel<'a> {
    up: Side<'a>,
    down: Side<'a>,
    conduit: Conduit,
    /// What the caller's first bytes must agree with; no filter sees any of them before.
    agreement: Option<Agreement>,
    /// How many of those were looked at.
    seen: usize,
    clock: Clock,
    idle: Duration,
    hello: Duration,
    /// Why filters end it: what they have let pass is still sent.
    ending: Option<Fault>,
}

/// One peer: where one direction comes from, and where the other goes to.
struct Side<'a> {
    stream: Stream,
    /// What was read and not yet taken from there.
    read: Direction<'a>,
    /// Whether it has said that it sends no more.
    ended: bool,
    /// Bytes that were sent to it.
    sent: u64,
    /// Whether it may hold back something of that.
    unflushed: bool,
    shut: bool,
}

/// As `tunnel::run`, through filters.
pub(super) async fn run(downstream: Stream, early: Bytes, joined: Joined, conduit: Conduit, record: &mut OpenRecord) {
    let Joined { stream, read, agreement, idle, hello, kept, spares, .. } = joined;
    let side = |stream, read| Side { stream, read, ended: false, sent: 0, unflushed: false, shut: false };
    let mut tunnel = Tunnel {
        up: side(downstream, Direction::holding(&early, &spares)),
        down: side(stream, Direction::holding(&read, &spares)),
        conduit,
        agreement,
        seen: usize::MAX,
        clock: Clock::default(),
        idle,
        hello,
        ending: None,
    };
    drop((early, read));
    tunnel.clock.arm(idle);
    let outcome = poll_fn(|cx| tunnel.poll(cx)).await;
    record.request_bytes(tunnel.down.sent);
    record.response_bytes(tunnel.up.sent);
    if let Err(fault) = outcome {
        record.failed(&fault);
    }
    drop(kept);
}

impl<'a> Tunnel<'a> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        if let Err(fault) = self.poll_moves(cx) {
            // What filters end is recorded as that, whatever becomes of its last bytes.
            return Poll::Ready(Err(self.ending.take().unwrap_or(fault)));
        }
        if self.up.shut && self.down.shut {
            return Poll::Ready(self.ending.take().map_or(Ok(()), Err));
        }
        let within_hello = self.agreement.is_some() && !self.up.read.held().is_empty();
        self.clock.poll_expired(cx).map(|()| Err(self.ending.take().unwrap_or_else(|| expired(within_hello))))
    }

    /// Moves on whatever can be moved.
    fn poll_moves(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        loop {
            let mut moved = false;
            if self.ending.is_none() {
                self.poll_agreement(cx)?;
                moved |= self.poll_take(Way::Up, cx)? | self.poll_take(Way::Down, cx)?;
                match self.conduit.run(cx.waker()) {
                    // What has gone on has made room, even where nothing of it is left to be sent.
                    Ok(any) => moved |= any,
                    Err(fault) => {
                        self.ending = Some(fault);
                        // How long they may take who are to read the rest.
                        self.clock.arm(self.hello);
                    }
                }
            }
            moved |= self.poll_send(Way::Up, cx)? | self.poll_send(Way::Down, cx)?;
            if !moved {
                return Ok(());
            }
            if self.ending.is_none() && (self.agreement.is_none() || self.up.read.held().is_empty()) {
                self.clock.arm(self.idle);
            }
        }
    }

    /// Looks whether the caller's own first bytes agree with the decision, until it is known.
    fn poll_agreement(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let Some(agreement) = &self.agreement else { return Ok(()) };
        let Side { stream, read, .. } = &mut self.up;
        let filled = read.poll_fill(stream, cx);
        if read.held().len() != self.seen || read.ended {
            let began = self.seen == usize::MAX || self.seen == 0;
            self.seen = read.held().len();
            match agreement.opening(read.held(), read.ended || self.seen >= BUFFER_BYTES)? {
                Opening::Passes => {
                    self.agreement = None;
                    self.clock.arm(self.idle);
                }
                Opening::Unknown if began && self.seen > 0 => self.clock.arm(self.hello),
                Opening::Unknown => {}
            }
        }
        filled.map_err(|error| self.broke_off(Way::Up, &error))
    }

    /// Hands to the filters what has come in one direction; whether anything has.
    fn poll_take(&mut self, way: Way, cx: &mut Context<'_>) -> Result<bool, Fault> {
        let room = self.conduit.room(way);
        let awaited = way == Way::Up && self.agreement.is_some();
        let side = self.from(way);
        if room == 0 || awaited || side.ended {
            return Ok(false);
        }
        match side.read.poll_take(&mut side.stream, room, cx) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(data)) if data.is_empty() => {
                side.ended = true;
                self.conduit.end(way);
                Ok(true)
            }
            Poll::Ready(Ok(data)) => {
                self.conduit.push(way, data);
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(self.broke_off(way, &error)),
        }
    }

    /// Sends what has passed the filters in one direction; whether anything has moved.
    fn poll_send(&mut self, way: Way, cx: &mut Context<'_>) -> Result<bool, Fault> {
        let over = self.conduit.is_over(way) || self.ending.is_some();
        let side = match way {
            Way::Up => &mut self.down,
            Way::Down => &mut self.up,
        };
        let out = self.conduit.out(way);
        let mut moved = false;
        while !out.is_empty() {
            match Pin::new(&mut side.stream).poll_write(cx, out) {
                Poll::Pending => return Ok(moved),
                Poll::Ready(Ok(count)) if count > 0 => {
                    out.advance(count);
                    side.sent += count as u64;
                    (side.unflushed, moved) = (true, true);
                }
                Poll::Ready(written) => {
                    let error = written.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into());
                    return Err(self.broke_off(way.back(), &error));
                }
            }
        }
        if over && !side.shut {
            // The other end may have gone already, which is no fault of this one.
            if let Poll::Ready(_either_way) = Pin::new(&mut side.stream).poll_shutdown(cx) {
                (side.shut, moved) = (true, true);
            }
        } else if side.unflushed && !side.shut {
            match Pin::new(&mut side.stream).poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => side.unflushed = false,
                Poll::Ready(Err(error)) => return Err(self.broke_off(way.back(), &error)),
            }
        }
        Ok(moved)
    }

    /// The peer where this direction comes from.
    fn from(&mut self, way: Way) -> &mut Side<'a> {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }

    /// The peer where this direction comes from is lost.
    fn broke_off(&self, way: Way, error: &io::Error) -> Fault {
        self.conduit.hung_up(way);
        match way {
            Way::Up => left(error),
            Way::Down => lost(error),
        }
    }
}
