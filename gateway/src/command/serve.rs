//! `tidegate serve`: the start, in an order in which nothing is changed before all that can be refused was checked, the
//! run, and the end.

use super::{addresses::Addresses, complain, say};
use anyhow::{Context, anyhow};
use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    pin::pin,
    process::ExitCode,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tidegate_admin::ControlPlane;
use tidegate_gateway::{
    listen::{Entry, Listeners, accept},
    plane::{Plane, Running},
    settings::{Control, LogFormat, Settings},
    telemetry::server,
};
use tidegate_policy::{credential::Secret, exchange::Batch};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
};

/// Batches between the recorder and the control plane, which has a queue of its own measured in bytes.
const FORWARDED_BATCHES: usize = 64;
/// How long the last spans may take to leave.
const LAST_EXPORT: Duration = Duration::from_secs(5);
/// How long the last records may take to be written once the drain has had its time: a record log that nobody reads, or a
/// disk that hangs, must not keep the process.
const LAST_RECORDS: Duration = Duration::from_secs(5);
/// The same after a second signal: long enough for a disk that works, and still at once for whoever waits.
const HURRIED: Duration = Duration::from_secs(2);

/// What is bound before anything is written.
struct Bound {
    listeners: Listeners,
    metrics: TcpListener,
}

pub(super) fn serve(settings: Settings) -> ExitCode {
    if let Err(error) = log(&settings) {
        complain(&error);
        return ExitCode::from(super::USAGE);
    }
    let bound = match bind(&settings) {
        Ok(bound) => bound,
        Err(mistakes) => {
            for mistake in &mistakes {
                complain(mistake);
            }
            return ExitCode::FAILURE;
        }
    };
    // One thread is enough for the control plane: its database and its compilations have threads of their own.
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("the control plane's event loop could not be started: {error}")),
    };
    let ended = runtime.block_on(run(&settings, bound));
    // What still blocks a thread has had its time.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => complain(&format!("{error:#}")),
    }
}

fn log(settings: &Settings) -> Result<(), String> {
    let filter = tracing_subscriber::EnvFilter::builder()
        .parse(&settings.log)
        .map_err(|error| format!("log: {:?} is not a filter ({error}); give a level such as info", settings.log))?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match settings.log_format {
        LogFormat::Text => lines.with_ansi(false).try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    set.map_err(|error| format!("the log could not be set up: {error}"))
}

fn bind(settings: &Settings) -> Result<Bound, Vec<String>> {
    let listeners = Listeners::bind(&settings.listen, settings.has_mutual(), Arc::default());
    let metrics = TcpListener::bind(settings.metrics_listen)
        .and_then(|listener| listener.set_nonblocking(true).map(|()| listener))
        .map_err(|error| vec![accept::refusal("metrics_listen", settings.metrics_listen, &error)]);
    match (listeners, metrics) {
        (Ok(listeners), Ok(metrics)) => Ok(Bound { listeners, metrics }),
        (listeners, metrics) => Err(listeners.err().into_iter().chain(metrics.err()).flatten().collect()),
    }
}

async fn run(settings: &Settings, bound: Bound) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("signals cannot be listened for")?;
    let Bound { listeners, metrics } = bound;
    let plane = Plane::new(settings).map_err(|error| anyhow!(error))?;
    let control = tidegate_admin::open(control_settings(settings), Arc::new(Seen(Arc::clone(&plane)))).await?;
    let addresses = addresses(&listeners, metrics.local_addr()?, &control)?;
    let own = [Some(addresses.proxy), addresses.mtls, Some(addresses.admin), Some(addresses.metrics)];
    let (forward, records) = mpsc::channel::<Batch>(FORWARDED_BATCHES);
    plane.follow(control.publications()).await.map_err(|error| anyhow!(error))?;
    let running = plane.start(listeners, own.into_iter().flatten().collect(), forward).map_err(|error| anyhow!(error))?;
    let ready = Arc::clone(&plane);
    let metrics = tokio::net::TcpListener::from_std(metrics)?;
    let (registry, of_control) = (plane.registry().clone(), control.metrics());
    let text = Arc::new(move || registry.read().text() + &of_control.text());
    tokio::spawn(server::serve(metrics, text, Arc::new(move || ready.ready())));
    addresses.write(&settings.data_dir).context("addresses.json cannot be written to the data directory")?;
    say(&addresses.lines());
    let (stop, stopped) = oneshot::channel::<()>();
    let api = control.run(records, async {
        // A sender that is gone means the same as one that has spoken.
        let _ = stopped.await;
    });
    let ended = tokio::join!(api, async {
        signals.wait(&running).await;
        tracing::info!("draining: no new connections, open exchanges may finish; a second signal stops at once");
        let cut = running.workers.cut();
        let limit = settings.workers.drain_timeout + LAST_RECORDS;
        let mut drained = pin!(drain(&plane, running, limit));
        let ended = tokio::select! {
            ended = &mut drained => ended,
            () = signals.stop() => {
                tracing::warn!("a second signal: open exchanges are cut off, their records written");
                cut.now();
                hurry(&settings.data_dir);
                drained.await.and(Err(anyhow!("stopped by a second signal before the drain was over")))
            }
        };
        drop(stop);
        ended
    });
    Addresses::remove(&settings.data_dir);
    ended.1
}

/// Ends the process when [`HURRIED`] is over, if it has not ended by then.
fn hurry(data_dir: &Path) {
    let data_dir = data_dir.to_owned();
    tokio::spawn(async move {
        tokio::time::sleep(HURRIED).await;
        tracing::error!("the last records could not be written in time; some are missing");
        Addresses::remove(&data_dir);
        std::process::exit(1);
    });
}

async fn drain(plane: &Arc<Plane>, running: Running, limit: Duration) -> anyhow::Result<()> {
    plane.draining();
    let Running { accepting, workers, recorder, exports } = running;
    let flushed = tokio::task::spawn_blocking(move || {
        accepting.stop();
        workers.join();
        recorder.join();
    });
    match tokio::time::timeout(limit, flushed).await {
        Ok(ended) => ended.context("the drain failed; the last records may be missing")?,
        Err(_) => {
            let advice = "the record log or the database does not take them; see record_log";
            return Err(anyhow!("the last records could not be written in time and some are missing: {advice}"));
        }
    }
    if tokio::time::timeout(LAST_EXPORT, exports.finish()).await.is_err() {
        tracing::warn!("the last spans or metrics could not be exported in time");
    }
    Ok(())
}

fn control_settings(settings: &Settings) -> tidegate_admin::Settings {
    let Control { document_bytes, body_bytes, connections, header_timeout, body_timeout, drain_timeout, .. } = settings.control;
    let Control { queue_bytes, max_age, max_bytes, followers, .. } = settings.control;
    tidegate_admin::Settings {
        data_dir: settings.data_dir.clone(),
        listen: settings.admin_listen,
        mode: settings.mode,
        key: std::env::var("TIDEGATE_KEY").ok().map(Secret::from),
        give_way: tidegate_gateway::background::give_way,
        document_bytes,
        module_bytes: settings.filter.module_bytes,
        api_body_bytes: body_bytes,
        api_connections: connections,
        api_header_timeout: header_timeout,
        api_body_timeout: body_timeout,
        api_drain_timeout: drain_timeout,
        exchange_queue_bytes: queue_bytes,
        exchange_max_age: max_age,
        exchange_max_bytes: max_bytes,
        exchange_followers: followers,
    }
}

fn addresses(listeners: &Listeners, metrics: SocketAddr, control: &ControlPlane) -> anyhow::Result<Addresses> {
    let of = |wanted| listeners.addresses().find(|(entry, _)| *entry == wanted).map(|(_, address)| address);
    let proxy = of(Entry::Plain).context("the proxy listener has no address")?;
    Ok(Addresses { proxy, mtls: of(Entry::Mutual), admin: control.address(), metrics })
}

/// The data plane as the control plane sees it.
struct Seen(Arc<Plane>);

impl tidegate_admin::DataPlane for Seen {
    fn inspect(&self, bytes: &[u8]) -> Result<tidegate_admin::Inspection, Vec<String>> {
        let found = self.0.filters().inspect(bytes)?;
        Ok(tidegate_admin::Inspection { world: found.world, imports: found.imports })
    }

    fn configure(
        &self,
        module: &tidegate_policy::publication::Module,
        used: &tidegate_policy::route::FilterUse,
    ) -> Result<(), String> {
        self.0.filters().configure(module, used)
    }

    fn metrics(&self) -> String {
        self.0.registry().read().text()
    }

    fn ready(&self) -> Result<(), String> {
        self.0.ready()
    }
}

/// The signals that mean something.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    /// Until SIGTERM or SIGINT; SIGHUP opens the record log again meanwhile.
    async fn wait(&mut self, running: &Running) {
        let reopen = running.recorder.reopener();
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hang_up.recv() => reopen.store(true, Ordering::Relaxed),
            }
        }
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_plane_is_given_its_own_defaults() {
        let settings = Settings::default();
        let own = tidegate_admin::Settings::new(&settings.data_dir);
        let given = tidegate_admin::Settings { key: None, give_way: own.give_way, ..control_settings(&settings) };
        assert_eq!(format!("{given:?}"), format!("{own:?}"));
    }
}
