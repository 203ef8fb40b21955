//! Takes connections in on a thread of its own and hands each to the worker with the fewest.

use super::{Accepted, Entry, Held, Settings};
use crate::{
    telemetry::{
        Counter, Gauge,
        page::{Kind, Page},
    },
    worker::Door,
};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, atomic::Ordering},
    thread::{Builder, JoinHandle},
    time::Duration,
};
use tokio::{runtime, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// Wait after an accept that failed for want of descriptors or memory: trying at once would only burn the core that
/// could free some.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Silence after which the kernel asks whether the caller is still there; below the idle limits of common NAT devices.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What is counted of accepting.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections accepted in the clear, and those open now.
    pub plain: Counter,
    /// Connections open in the clear.
    pub plain_open: Gauge,
    /// Connections accepted for mutual TLS.
    pub mutual: Counter,
    /// Connections open for mutual TLS.
    pub mutual_open: Gauge,
    /// Accepts that failed.
    pub failed: Counter,
    /// Times that accepting stopped because `max_connections` were open.
    pub saturated: Counter,
}

/// Listeners that are bound and not yet accepting.
#[derive(Debug)]
pub struct Listeners {
    sockets: Vec<(Entry, TcpListener)>,
    settings: Settings,
    metrics: Arc<Metrics>,
}

/// The accepting thread.
#[derive(Debug)]
pub struct Accepting {
    thread: JoinHandle<()>,
    stop: CancellationToken,
}

impl Listeners {
    /// Binds the plaintext listener, and the mutual TLS one if `with_mutual`.
    ///
    /// # Errors
    /// Every address that cannot be listened on, a sentence each.
    pub fn bind(settings: &Settings, with_mutual: bool, metrics: Arc<Metrics>) -> Result<Self, Vec<String>> {
        let mut wanted = vec![(Entry::Plain, "proxy_listen", settings.proxy)];
        if with_mutual {
            wanted.push((Entry::Mutual, "mtls_listen", settings.mutual));
        }
        let (mut sockets, mut mistakes) = (Vec::new(), Vec::new());
        for (entry, setting, address) in wanted {
            match listen(address, settings.backlog) {
                Ok(socket) => sockets.push((entry, socket)),
                Err(error) => mistakes.push(refusal(setting, address, &error)),
            }
        }
        if mistakes.is_empty() { Ok(Self { sockets, settings: settings.clone(), metrics }) } else { Err(mistakes) }
    }

    /// What is counted of them.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.metrics)
    }

    /// The addresses that are listened on.
    pub fn addresses(&self) -> impl Iterator<Item = (Entry, SocketAddr)> {
        self.sockets.iter().filter_map(|(entry, socket)| Some((*entry, socket.local_addr().ok()?)))
    }

    /// Accepts until told to stop, which also closes `doors`.
    ///
    /// # Errors
    /// The operating system refuses a thread or an event queue.
    pub fn accept(self, doors: Vec<Door>) -> io::Result<Accepting> {
        let stop = CancellationToken::new();
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let stopped = stop.clone();
        let thread = Builder::new().name("accept".to_owned()).spawn(move || runtime.block_on(self.run(doors, stopped)))?;
        Ok(Accepting { thread, stop })
    }

    async fn run(self, doors: Vec<Door>, stop: CancellationToken) {
        let places = Arc::new(Semaphore::new(self.settings.max_connections));
        let mut loops = JoinSet::new();
        for (entry, socket) in self.sockets {
            let accepting = Accept {
                entry,
                doors: doors.clone(),
                places: Arc::clone(&places),
                metrics: Arc::clone(&self.metrics),
                next: 0,
            };
            let stop = stop.clone();
            loops.spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = accepting.run(socket) => {}
                }
            });
        }
        while loops.join_next().await.is_some() {}
    }
}

impl Accepting {
    /// Closes the listeners and the workers' doors, and waits until that is done.
    pub fn stop(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the accepting thread failed");
        }
    }
}

struct Accept {
    entry: Entry,
    doors: Vec<Door>,
    places: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    /// Where the search for the least loaded worker begins, so that ties go round.
    next: usize,
}

impl Accept {
    async fn run(mut self, socket: TcpListener) {
        let socket = match tokio::net::TcpListener::from_std(socket) {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(error = %error, "nothing is accepted: the listener could not be watched"),
        };
        loop {
            if self.places.available_permits() == 0 {
                self.metrics.saturated.add(1);
                tracing::warn!("max_connections are open; new ones wait until some close");
            }
            // The semaphore is never closed.
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            match accept(&socket).await {
                Ok((socket, address)) => {
                    let door = self.least_loaded();
                    let (count, open) = self.metrics.of(self.entry);
                    count.add(1);
                    open.add(1);
                    door.open.fetch_add(1, Ordering::Relaxed);
                    let (metrics, load) = (Arc::clone(&self.metrics), Arc::clone(&door.open));
                    let held = Held { entry: self.entry, metrics, load, _place: place };
                    let accepted = Accepted { socket, address, entry: self.entry, held };
                    if door.arrivals.send(accepted).await.is_err() {
                        tracing::error!("a worker is gone; the connection meant for it was closed");
                    }
                }
                Err(error) => {
                    drop(place);
                    self.metrics.failed.add(1);
                    if !is_the_callers(&error) {
                        tracing::warn!(error = %error, "accepting failed; raise the limit of open files if this goes on");
                        tokio::time::sleep(BACK_OFF).await;
                    }
                }
            }
        }
    }

    fn least_loaded(&mut self) -> Door {
        self.next = (self.next + 1) % self.doors.len();
        let (before, after) = self.doors.split_at(self.next);
        // There is at least one worker: the settings see to it.
        after.iter().chain(before).min_by_key(|door| door.load()).unwrap_or(&self.doors[0]).clone()
    }
}

/// The next connection, its socket ready for a worker's event queue.
async fn accept(listener: &tokio::net::TcpListener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let (socket, address) = listener.accept().await?;
    socket.set_nodelay(true)?;
    let socket = socket.into_std()?;
    SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    Ok((socket, address))
}

/// Whether the caller went away before it was accepted, which says nothing about the gateway.
fn is_the_callers(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, InvalidInput, NotConnected};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | InvalidInput | NotConnected)
}

fn listen(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Why `address` cannot be listened on, and what to do about it.
pub fn refusal(setting: &str, address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => "another program has this port: stop it, or choose another port",
        io::ErrorKind::PermissionDenied => "ports below 1024 need a privilege: choose a higher one",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: choose one of its own, or 0.0.0.0 for all",
        _ => "choose another address",
    };
    format!("{setting}: {address} cannot be listened on ({error}); {advice}")
}

impl Metrics {
    fn of(&self, entry: Entry) -> (&Counter, &Gauge) {
        match entry {
            Entry::Plain => (&self.plain, &self.plain_open),
            Entry::Mutual => (&self.mutual, &self.mutual_open),
        }
    }

    /// Writes the numbers to `page`.
    pub fn write(&self, page: &mut Page, max_connections: usize) {
        let listeners = [("plain", Entry::Plain), ("mutual_tls", Entry::Mutual)];
        let help = "Connections accepted, by listener.";
        let family = page.family(Kind::Counter, "tidegate_downstream_connections_total", help);
        for (listener, entry) in listeners {
            family.add(&[("listener", listener)], self.of(entry).0.value());
        }
        let family = page.family(Kind::Gauge, "tidegate_downstream_connections_open", "Connections open, by listener.");
        for (listener, entry) in listeners {
            family.put("", &[("listener", listener)], self.of(entry).1.value() as f64);
        }
        let limit = i64::try_from(max_connections).unwrap_or(i64::MAX);
        page.gauge("tidegate_downstream_connections_limit", "Connections that may be open (max_connections).", limit);
        page.counter("tidegate_accept_failures_total", "Accepts that failed.", self.failed.value());
        page.counter(
            "tidegate_accept_saturated_total",
            "Times accepting stopped because max_connections were open.",
            self.saturated.value(),
        );
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Ordering::Relaxed);
        self.metrics.of(self.entry).1.add(-1);
    }
}
