//! The data plane as a whole: what its workers share, how it is started, whether it is ready, and what it counts.
//! It knows nothing of the control plane: publications come in by a channel, records go out by one.

use crate::{
    descriptors, filter, http,
    http::forward::Pseudonym,
    identity, listen,
    listen::{Listeners, accept::Accepting, greet::Mutual},
    live::{self, Live},
    record::{
        self, Ledger,
        ledger::{self, WhenFull},
        recorder::{self, Recorder},
    },
    settings::{MutualFiles, Settings},
    telemetry::{Registry, exchanges::Exchanges, modules, otlp, page::Kind, process, spans, trace},
    upstream::{self, Upstreams},
    worker::{Worker, Workers},
};
use arc_swap::ArcSwap;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tidegate_policy::{Publication, exchange::Batch};
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinHandle,
};

/// Calls of filters' own that may wait for one worker to notice them: more than it may have open at once.
const WAITING_ERRANDS: usize = 1024;

/// The data plane.
#[derive(Debug)]
pub struct Plane {
    settings: Settings,
    live: Arc<ArcSwap<Live>>,
    /// Tells workers of every revision that is in force.
    in_force: watch::Sender<u64>,
    filters: Arc<filter::Host>,
    registry: Registry,
    exchanges: Arc<Exchanges>,
    accepting: AtomicBool,
    draining: AtomicBool,
}

/// What runs, to be ended in the order of the fields.
#[derive(Debug)]
pub struct Running {
    /// The accepting thread; stopping it closes the workers' doors.
    pub accepting: Accepting,
    /// The workers; they end when their doors are closed and their connections have ended.
    pub workers: Workers,
    /// The recorder; it ends when the workers have.
    pub recorder: Recorder,
    /// What is exported.
    pub exports: Exports,
}

/// The tasks that export telemetry, where there is an endpoint.
#[derive(Debug, Default)]
pub struct Exports {
    spans: Option<JoinHandle<()>>,
    metrics: Option<SdkMeterProvider>,
}

/// What every worker is made of.
#[derive(Clone)]
struct Shared {
    plane: Arc<Plane>,
    outbox: mpsc::Sender<Batch>,
    spans: Option<spans::Outbox>,
    records: Arc<ledger::Metrics>,
    mutual: Option<Mutual>,
    upstream: upstream::Shared,
    http: http::Settings,
    /// Routes' limits, counted over all workers.
    limiters: Arc<http::limits::Limiters>,
    http_metrics: Arc<http::Metrics>,
    identity_metrics: Arc<identity::Metrics>,
}

impl Plane {
    /// A data plane that refuses everything until a publication is in force. Called on the control runtime.
    ///
    /// # Errors
    /// The filter engine cannot be started; a sentence for the operator.
    pub fn new(settings: &Settings) -> Result<Arc<Self>, String> {
        let filters = filter::Host::start(settings.filter)
            .map_err(|error| format!("the filter engine could not be started: {error:#}"))?;
        let program = std::env::current_exe().map_err(|error| format!("this program's own file is not known: {error}"))?;
        filters.compile_apart(program);
        let exchanges = Exchanges::new(settings.service_series);
        let live: Arc<ArcSwap<Live>> = Arc::default();
        let registry = Registry::default();
        let counted = Arc::clone(&exchanges);
        let in_force = Arc::clone(&live);
        registry.add(process::write);
        registry.add(move |page| {
            let help = "The revision in force: what was registered up to it decides.";
            page.family(Kind::Gauge, "tidegate_revision", help).add(&[], in_force.load().revision);
        });
        let filters = Arc::new(filters);
        let of_filters = Arc::clone(&filters);
        registry.add(move |page| {
            modules::filter(page, of_filters.metrics());
            of_filters.write(page);
        });
        registry.add(move |page| counted.write(page));
        Ok(Arc::new(Self {
            settings: settings.clone(),
            live,
            in_force: watch::Sender::default(),
            filters,
            registry,
            exchanges,
            accepting: AtomicBool::new(false),
            draining: AtomicBool::new(false),
        }))
    }

    /// What is counted.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The filter engine.
    pub fn filters(&self) -> &filter::Host {
        &self.filters
    }

    /// Whether exchanges are taken.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<(), String> {
        if self.draining.load(Ordering::Relaxed) {
            return Err("draining: the gateway is shutting down".to_owned());
        }
        if !self.accepting.load(Ordering::Relaxed) {
            return Err("starting: connections are not accepted yet".to_owned());
        }
        Ok(())
    }

    /// Says that the gateway is not ready any more.
    pub fn draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Puts the present publication in force before it returns, and every later one as it comes.
    ///
    /// # Errors
    /// The present one cannot be put in force; a sentence for the operator.
    pub async fn follow(&self, publications: watch::Receiver<Arc<Publication>>) -> Result<(), String> {
        let first = Arc::clone(&publications.borrow());
        let (live, filters) = (Arc::clone(&self.live), Arc::clone(&self.filters));
        let data_dir = self.settings.data_dir.clone();
        // Compiling takes its time, and the API shares this thread.
        let put = move || {
            filters.keep_in(&data_dir);
            live.store(Arc::new(Live::prepare(&first, &Live::default(), &filters)));
        };
        let done = tokio::task::spawn_blocking(put).await;
        done.map_err(|error| format!("what is registered could not be put in force: {error}"))?;
        let (live, told, filters) = (Arc::clone(&self.live), self.in_force.clone(), Arc::clone(&self.filters));
        tokio::spawn(live::follow(publications, live, told, filters));
        Ok(())
    }

    /// Starts recorder, exports, workers and accepting. `own` are the gateway's own listeners, which no exchange may
    /// reach; `forward` is where records go.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn start(
        self: &Arc<Self>,
        listeners: Listeners,
        own: Vec<SocketAddr>,
        forward: mpsc::Sender<Batch>,
    ) -> Result<Running, String> {
        let (outbox, batches) = mpsc::channel(self.settings.record.queue_batches);
        let record::Settings { log, when_full, .. } = self.settings.record.clone();
        let records = Arc::new(ledger::Metrics::default());
        let recorder = self.recorder(log, when_full, batches, forward)?;
        self.count(&listeners, &records, &outbox);
        let (exports, spans) = self.exports()?;
        let mutual = self.mutual()?;
        let upstream = self.upstream(own)?;
        let shared = Shared {
            plane: Arc::clone(self),
            outbox,
            spans,
            records,
            mutual,
            upstream,
            http: self.http()?,
            limiters: Arc::default(),
            http_metrics: Arc::default(),
            identity_metrics: Arc::default(),
        };
        let (of_http, of_identity) = (Arc::clone(&shared.http_metrics), Arc::clone(&shared.identity_metrics));
        self.registry.add(move |page| modules::http(page, &of_http));
        self.registry.add(move |page| modules::identity(page, &of_identity));
        let started = Workers::start(&self.settings.workers, move |number| shared.worker(number));
        let (workers, doors) = started.map_err(|error| format!("the workers could not be started: {error}"))?;
        let accepting = listeners.accept(doors).map_err(|error| format!("accepting could not be started: {error}"))?;
        self.accepting.store(true, Ordering::Relaxed);
        Ok(Running { accepting, workers, recorder, exports })
    }

    /// The knobs of HTTP, with the name that this gateway goes by, and no more pipes than files may be open for them.
    fn http(&self) -> Result<http::Settings, String> {
        let pseudonym = match &self.settings.pseudonym {
            Some(pseudonym) => pseudonym.clone(),
            None => Pseudonym::kept_in(&self.settings.data_dir)?,
        };
        Ok(http::Settings { pseudonym, tunnel_pipes: self.tunnel_pipes(), ..self.settings.http.clone() })
    }

    /// How many pipes the tunnels of each worker may have in use.
    fn tunnel_pipes(&self) -> usize {
        let (open_files, wanted) = (descriptors::raised(), self.settings.http.tunnel_pipes);
        let max_connections = self.settings.listen.max_connections;
        if open_files.is_some_and(|open_files| open_files < max_connections as u64) {
            tracing::warn!(
                open_files,
                max_connections,
                "fewer files may be open than max_connections: raise the hard limit of this process (ulimit -n, LimitNOFILE), or lower max_connections"
            );
        }
        let pipes = descriptors::pipes(open_files, self.settings.workers.workers, wanted);
        if pipes < wanted {
            tracing::warn!(
                open_files,
                pipes,
                "each worker's tunnels get fewer pipes than the {wanted} of http_tunnel_pipes, since few files may be open; bytes for which there is none are copied"
            );
        }
        pipes
    }

    /// What the workers' ways out share. The resolver's questions run on the control runtime.
    fn upstream(&self, own: Vec<SocketAddr>) -> Result<upstream::Shared, String> {
        let http::Settings { h1, h2, .. } = self.settings.http;
        let settings = Arc::new(upstream::Settings { h1, h2, ..self.settings.upstream.clone() });
        let metrics = Arc::new(upstream::Metrics::default());
        let counted = Arc::clone(&metrics);
        self.registry.add(move |page| modules::upstream(page, &counted));
        Ok(upstream::Shared {
            resolver: upstream::Resolver::start(&settings.resolve, Handle::current())?,
            listeners: upstream::Listeners::new(own),
            settings,
            metrics,
        })
    }

    fn recorder(
        &self,
        log: recorder::Log,
        when_full: WhenFull,
        batches: mpsc::Receiver<Batch>,
        forward: mpsc::Sender<Batch>,
    ) -> Result<Recorder, String> {
        let metrics = Arc::new(recorder::Metrics::default());
        let counted = Arc::clone(&metrics);
        self.registry.add(move |page| counted.write(page));
        Recorder::start(recorder::Parts { log, when_full, batches, forward, metrics })
    }

    fn count(&self, listeners: &Listeners, records: &Arc<ledger::Metrics>, outbox: &mpsc::Sender<Batch>) {
        let (records, queue) = (Arc::clone(records), outbox.downgrade());
        let capacity = outbox.max_capacity();
        self.registry.add(move |page| {
            let waiting = queue.upgrade().map_or(0, |outbox| outbox.max_capacity() - outbox.capacity());
            records.write(page, waiting, capacity);
        });
        let (metrics, limit) = (listeners.metrics(), self.settings.listen.max_connections);
        self.registry.add(move |page| metrics.write(page, limit));
    }

    fn exports(&self) -> Result<(Exports, Option<spans::Outbox>), String> {
        let Some(endpoint) = &self.settings.otlp.endpoint else { return Ok((Exports::default(), None)) };
        let runtime = Handle::current();
        let metrics = Arc::new(spans::Metrics::default());
        let counted = Arc::clone(&metrics);
        self.registry.add(move |page| counted.write(page));
        let exporter = otlp::span_exporter(&self.settings.otlp, endpoint, &runtime)?;
        let (outbox, finished) = spans::queue(Arc::clone(&metrics));
        let spans = tokio::spawn(spans::export(exporter, finished, metrics));
        let provider = otlp::export_metrics(&self.settings.otlp, endpoint, &self.registry, &runtime)?;
        Ok((Exports { spans: Some(spans), metrics: Some(provider) }, Some(outbox)))
    }

    /// How TLS is accepted, where the mutual TLS listener is on.
    fn mutual(&self) -> Result<Option<Mutual>, String> {
        let MutualFiles { certificate: Some(certificate), key: Some(key), client_ca: Some(client_ca) } = &self.settings.mutual
        else {
            return Ok(None);
        };
        let [certificate, key, client_ca] = [certificate, key, client_ca].map(Clone::clone);
        let config = listen::tls::configure(&listen::tls::Settings { certificate, key, client_ca })?;
        Ok(Some(Mutual { config }))
    }
}

impl Shared {
    /// Worker number `number`, on its own thread.
    fn worker(&self, number: u32) -> Rc<Worker> {
        let settings = &self.plane.settings;
        trace::sample(if self.spans.is_some() { settings.otlp.sample_ratio } else { 0.0 });
        let ledger = Ledger::new(ledger::Parts {
            worker: number,
            outbox: self.outbox.clone(),
            when_full: settings.record.when_full,
            tally: self.plane.exchanges.tally(),
            spans: self.spans.clone(),
            metrics: Arc::clone(&self.records),
        });
        let (errands, errand) = mpsc::channel(WAITING_ERRANDS);
        Rc::new(Worker {
            live: Arc::clone(&self.plane.live),
            in_force: self.plane.in_force.subscribe(),
            upstreams: Upstreams::start(self.upstream.clone()),
            instances: filter::Instances::new(errands),
            errands: RefCell::new(Some(errand)),
            tokens: identity::TokenCache::new(settings.identity, Arc::clone(&self.identity_metrics)),
            http: http::Context::new(self.http.clone(), Arc::clone(&self.limiters), Arc::clone(&self.http_metrics)),
            ledger,
            drain: http::drain::Drain::default(),
            timeouts: settings.listen.timeouts,
            mutual: self.mutual.clone(),
        })
    }
}

impl Exports {
    /// Waits for the last spans, whose senders are gone, and exports the metrics once more.
    pub async fn finish(self) {
        if let Some(spans) = self.spans {
            // A task that failed has said so.
            let _ = spans.await;
        }
        if let Some(provider) = self.metrics {
            let ended = tokio::task::spawn_blocking(move || provider.shutdown()).await;
            if let Ok(Err(error)) = ended {
                tracing::warn!(error = %error, "the last metrics could not be exported");
            }
        }
    }
}
