//! TCP connections, as Happy Eyeballs version 2 makes them (RFC 8305): addresses of both families in turn, a new attempt
//! whenever the last one has failed or has been quiet for a while, and the first that succeeds wins. Only addresses that
//! the guard has passed, and only with a permit.

use super::{
    guard::Checked,
    settings::{Metrics, Settings},
};
use crate::fault::Fault;
use futures_util::{StreamExt, stream::FuturesUnordered};
use socket2::{SockRef, TcpKeepalive};
use std::{io, net::SocketAddr, time::Duration};
use tidegate_policy::{Permit, Reason};
use tokio::net::{TcpSocket, TcpStream};

/// A connection, and what became of the addresses tried.
pub(super) struct Dialled {
    /// The connection; the fault names the last address that failed.
    pub(super) outcome: Result<(TcpStream, Checked), Fault>,
    /// The addresses that failed, for their health.
    pub(super) failed: Vec<Checked>,
}

/// Dials `addresses` until one answers. `limit` is for each attempt. The permit is not read: who has none cannot call.
pub(super) async fn dial(
    _permit: &Permit,
    addresses: &[Checked],
    limit: Duration,
    settings: &Settings,
    metrics: &Metrics,
) -> Dialled {
    let mut waiting = interleave(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed = Vec::new();
    let mut last: Option<(SocketAddr, io::Error)> = None;
    let mut refused_by_any = false;
    loop {
        if let Some(next) = waiting.next() {
            metrics.connect_attempts.add(1);
            attempts.push(async move { (next, tokio::time::timeout(limit, attempt(next.address(), settings)).await) });
        }
        let more = waiting.len() > 0;
        let finished = tokio::select! {
            finished = attempts.next() => finished,
            () = tokio::time::sleep(settings.attempt_delay), if more => continue,
        };
        let Some((address, outcome)) = finished else { break };
        let error = match outcome {
            Ok(Ok(stream)) => return Dialled { outcome: Ok((stream, address)), failed },
            Ok(Err(error)) => {
                refused_by_any = true;
                error
            }
            Err(_elapsed) => {
                metrics.connect_timeouts.add(1);
                io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} ms", limit.as_millis()))
            }
        };
        metrics.connect_failures.add(1);
        failed.push(address);
        last = Some((address.address(), error));
    }
    let reason = if refused_by_any || last.is_none() { Reason::ConnectFailed } else { Reason::Timeout };
    let detail = match last {
        Some((address, error)) if failed.len() == 1 => format!("connecting to {address} failed: {error}"),
        Some((address, error)) => format!("all {} addresses failed, the last of them {address}: {error}", failed.len()),
        None => "there is no address to connect to".to_owned(),
    };
    Dialled { outcome: Err(Fault::new(reason, detail).before_send()), failed }
}

/// The addresses with their families taking turns, beginning with the first one's (RFC 8305 section 4).
fn interleave(addresses: &[Checked]) -> Vec<Checked> {
    let first_is_v6 = addresses.first().is_some_and(|first| first.address().is_ipv6());
    let of = |v6: bool| addresses.iter().copied().filter(move |address| address.address().is_ipv6() == v6);
    let (mut first, mut second) = (of(first_is_v6), of(!first_is_v6));
    let mut ordered = Vec::with_capacity(addresses.len());
    loop {
        let (one, other) = (first.next(), second.next());
        if one.is_none() && other.is_none() {
            return ordered;
        }
        ordered.extend(one.into_iter().chain(other));
    }
}

async fn attempt(address: SocketAddr, settings: &Settings) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Small writes (a head, a TLS record) must not wait for the peer's acknowledgement of the one before.
    socket.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(settings.keepalive).with_interval(settings.keepalive / 4);
    SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
    socket.connect(address).await
}

#[cfg(test)]
mod tests {
    use super::{super::tests::fixture, *};
    use std::time::Instant;
    use tokio::net::TcpListener;

    fn local(addresses: &[SocketAddr]) -> Vec<Checked> {
        addresses.iter().flat_map(|address| fixture::checked(*address)).collect()
    }

    #[test]
    fn families_take_turns() {
        let all =
            local(&["127.0.0.1:1", "127.0.0.2:1", "127.0.0.3:1", "[::1]:1"].map(|text| text.parse().expect("an address")));
        let order: Vec<String> = interleave(&all).iter().map(|one| one.address().ip().to_string()).collect();
        assert_eq!(order, ["127.0.0.1", "::1", "127.0.0.2", "127.0.0.3"]);
    }

    #[tokio::test]
    async fn a_refused_address_costs_no_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let good = listener.local_addr().expect("an address");
        let bad = fixture::closed_port();
        let settings = Settings { attempt_delay: Duration::from_secs(60), ..Settings::default() };
        let start = Instant::now();
        let permit = fixture::permit();
        let dialled = dial(&permit, &local(&[bad, good]), Duration::from_secs(60), &settings, &Metrics::default()).await;
        assert_eq!(dialled.outcome.expect("the second answers").1.address(), good);
        assert_eq!(dialled.failed.len(), 1);
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[tokio::test]
    async fn failure_names_the_address() {
        let bad = fixture::closed_port();
        let metrics = Metrics::default();
        let dialled = dial(&fixture::permit(), &local(&[bad]), Duration::from_secs(5), &Settings::default(), &metrics).await;
        let fault = dialled.outcome.expect_err("nothing listens");
        assert_eq!(fault.reason(), Reason::ConnectFailed);
        assert!(fault.detail().contains(&bad.to_string()), "{fault}");
        assert!(fault.retryable());
        assert_eq!((metrics.connect_attempts.value(), metrics.connect_failures.value()), (1, 1));
    }

    #[tokio::test]
    async fn a_silent_address_does_not_hold_up_the_next() {
        // A full accept queue answers nothing: Linux drops the SYN.
        let (silent, _held) = fixture::silent_listener().await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let good = listener.local_addr().expect("an address");
        let settings = Settings { attempt_delay: Duration::from_millis(20), ..Settings::default() };
        let start = Instant::now();
        let dialled =
            dial(&fixture::permit(), &local(&[silent, good]), Duration::from_secs(30), &settings, &Metrics::default()).await;
        assert_eq!(dialled.outcome.expect("the second answers").1.address(), good);
        assert!(start.elapsed() < Duration::from_secs(10));
        let limit = Duration::from_millis(50);
        let dialled = dial(&fixture::permit(), &local(&[silent]), limit, &settings, &Metrics::default()).await;
        assert_eq!(dialled.outcome.expect_err("silent").reason(), Reason::Timeout);
    }
}
