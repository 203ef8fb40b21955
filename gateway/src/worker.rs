//! A worker: one thread, its connections, its pools, its filter instances. Nothing in it is shared.

use crate::{
    filter::{Errand, Instances},
    http::{self, Request, clock::Clock, drain::Drain, h1::server::Terms},
    identity::TokenCache,
    listen::{Accepted, Peer, Serve, Timeouts, greet, greet::Mutual},
    live::Live,
    record::{Ledger, OpenRecord},
    upstream::Upstreams,
};
use arc_swap::ArcSwap;
use std::{
    cell::RefCell,
    io,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{Builder, JoinHandle},
    time::Duration,
};
use tokio::{
    runtime,
    sync::{mpsc, watch},
    task::{JoinError, JoinSet, LocalSet},
};

/// Accepted connections that may wait for one worker to notice them. The worker that is this far behind is not the
/// least loaded one; the listener's backlog holds what comes then.
const WAITING_CONNECTIONS: usize = 256;

/// What one worker owns, and what it reads of the rest.
pub struct Worker {
    /// What is in force; loaded once per exchange.
    pub live: Arc<ArcSwap<Live>>,
    /// Tells of every revision that is in force.
    pub in_force: watch::Receiver<u64>,
    /// Its connections to the outside.
    pub upstreams: Upstreams,
    /// Its filter instances.
    pub instances: Instances,
    /// The calls that those make, until `keep` makes them.
    pub errands: RefCell<Option<mpsc::Receiver<Errand>>>,
    /// Its verified tokens.
    pub tokens: TokenCache,
    /// What its HTTP exchanges share: settings, limits, how the gateway calls itself.
    pub http: http::Context,
    /// Its records.
    pub ledger: Rc<Ledger>,
    /// Whether it is shutting down.
    pub drain: Drain,
    /// How long callers may take to begin.
    pub timeouts: Timeouts,
    /// How TLS is accepted on the mutual TLS listener, where there is one.
    pub mutual: Option<Mutual>,
}

impl Worker {
    /// Opens the record of a request whose head is complete now.
    pub fn open_record(&self, peer: &Peer, request: &Request) -> OpenRecord {
        OpenRecord::open(&self.ledger, peer, request)
    }

    /// Starts what is to run without exchanges, now and whenever something else is in force.
    async fn attend(&self) {
        let mut in_force = self.in_force.clone();
        loop {
            in_force.mark_unchanged();
            self.instances.attend(self.live.load_full()).await;
            if in_force.changed().await.is_err() {
                return;
            }
        }
    }

    /// What an HTTP/1 connection that `clock` belongs to is served under.
    pub fn terms<'a>(&'a self, clock: &'a Clock) -> Terms<'a> {
        Terms { clock, drain: &self.drain, limits: self.http.settings.h1, metrics: &self.http.metrics }
    }
}

impl Serve for Worker {
    async fn serve(self: Rc<Self>, accepted: Accepted) {
        let Some(connection) = greet::greet(accepted, self.timeouts, self.mutual.as_ref(), &self.drain).await else { return };
        http::serve(self, connection).await;
    }

    async fn keep(self: Rc<Self>) {
        let errands = self.errands.take();
        let making = async {
            if let Some(errands) = errands {
                http::errand::serve(Rc::clone(&self), errands).await;
            }
        };
        tokio::join!(Rc::clone(&self.ledger).keep(), self.instances.keep(), self.attend(), making);
    }

    fn drain(&self) {
        self.drain.begin();
    }

    fn cut(&self) {
        self.ledger.cut();
    }

    async fn finish(self: Rc<Self>) {
        self.ledger.finish().await;
    }
}

/// The running workers.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    cut: Cut,
}

/// Ends a drain before its time: connections are cut, and their records still written.
#[derive(Debug, Clone)]
pub struct Cut(watch::Sender<bool>);

/// The way to one worker, and how many connections it has.
#[derive(Debug, Clone)]
pub struct Door {
    /// Where accepted connections go in.
    pub arrivals: mpsc::Sender<Accepted>,
    /// Connections the worker has open.
    pub open: Arc<AtomicUsize>,
}

/// How workers are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Worker threads.
    pub workers: usize,
    /// How long open exchanges may take to finish at a stop.
    pub drain_timeout: Duration,
}

impl Default for Settings {
    // 30 s is what Kubernetes grants between SIGTERM and SIGKILL; one worker per core, since a worker never blocks.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { workers: cores.min(256), drain_timeout: Duration::from_secs(30) }
    }
}

impl Workers {
    /// Starts the threads. `make` is called once on each of them with the worker's number, and makes what serves there.
    /// A worker drains when every clone of its door is gone, and its thread ends when its connections have.
    ///
    /// # Errors
    /// The operating system refuses a thread or an event queue.
    pub fn start<S: Serve>(
        settings: &Settings,
        make: impl Fn(u32) -> Rc<S> + Clone + Send + 'static,
    ) -> io::Result<(Self, Vec<Door>)> {
        let cut = Cut(watch::Sender::new(false));
        let mut workers = Self { threads: Vec::with_capacity(settings.workers), cut: cut.clone() };
        let mut doors = Vec::with_capacity(settings.workers);
        for (number, _) in (0_u32..).zip(0..settings.workers) {
            let (arrivals, receiver) = mpsc::channel(WAITING_CONNECTIONS);
            let open = Arc::new(AtomicUsize::new(0));
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (make, patience) = (make.clone(), Patience { time: settings.drain_timeout, cut: cut.0.subscribe() });
            let thread = Builder::new().name(format!("worker-{number}")).spawn(move || {
                LocalSet::new().block_on(&runtime, run(|| make(number), receiver, patience));
            })?;
            workers.threads.push(thread);
            doors.push(Door { arrivals, open });
        }
        Ok((workers, doors))
    }

    /// What ends their drain at once.
    pub fn cut(&self) -> Cut {
        self.cut.clone()
    }

    /// Waits until every worker has ended.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker failed; its last records may be missing");
            }
        }
    }
}

impl Cut {
    /// Cuts every connection that is still open in a drain.
    pub fn now(&self) {
        self.0.send_replace(true);
    }
}

/// How long a drain may take.
struct Patience {
    time: Duration,
    cut: watch::Receiver<bool>,
}

impl Patience {
    /// Until it is at its end; why it is.
    async fn end(mut self) -> &'static str {
        let cut = self.cut.wait_for(|cut| *cut);
        match tokio::time::timeout(self.time, cut).await {
            Ok(_) => "a second signal came",
            Err(_) => "they did not end within drain_timeout",
        }
    }
}

impl Door {
    /// Connections the worker has open.
    pub fn load(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

/// The life of one worker: connections until its door closes, then what is open until it ends or time is up.
async fn run<S: Serve>(make: impl FnOnce() -> Rc<S>, mut arrivals: mpsc::Receiver<Accepted>, patience: Patience) {
    let serve = make();
    let keeper = tokio::task::spawn_local(Rc::clone(&serve).keep());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = arrivals.recv() => match accepted {
                Some(accepted) => drop(connections.spawn_local(Rc::clone(&serve).serve(accepted))),
                None => break,
            },
            Some(ended) = connections.join_next() => reap(ended),
        }
    }
    serve.drain();
    let ended_by = {
        let all = async {
            while let Some(ended) = connections.join_next().await {
                reap(ended);
            }
        };
        tokio::select! {
            biased;
            () = all => None,
            why = patience.end() => Some(why),
        }
    };
    if let Some(why) = ended_by {
        tracing::warn!(connections = connections.len(), "connections are cut off: {why}");
        serve.cut();
        connections.shutdown().await;
    }
    keeper.abort();
    serve.finish().await;
}

/// A panic costs its own connection.
fn reap(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!("a connection's task panicked and its connection was closed; please report this: {error}");
    }
}
