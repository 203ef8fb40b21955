//! The control plane as a whole: opened, run until told to stop, and closed with nothing lost.

use crate::{
    DataPlane, Settings, StartError,
    auth::Verifier,
    metrics::Metrics,
    noun::Held,
    records::{self, Records},
    seal::Sealer,
    serve,
    store::{self, Store, exchanges::ExchangeStore},
};
use std::{
    fs::File,
    future::Future,
    net::SocketAddr,
    os::unix::fs::DirBuilderExt,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};
use tidegate_policy::{Publication, Snapshot, exchange::Batch};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
};

/// The control plane, ready to run. Its API is bound and not yet answered.
pub struct ControlPlane {
    control: Arc<Control>,
    listener: TcpListener,
    address: SocketAddr,
    /// Held for as long as the data directory is in use.
    _lock: File,
}

/// What the API's handlers share.
pub(crate) struct Control {
    pub(crate) settings: Settings,
    pub(crate) store: Store,
    pub(crate) sealer: Sealer,
    pub(crate) verifier: Verifier,
    pub(crate) plane: Arc<dyn DataPlane>,
    pub(crate) records: Records,
    pub(crate) metrics: Arc<Metrics>,
    /// Bytes that bodies of requests may take beyond what they do.
    pub(crate) bodies: Arc<Semaphore>,
    /// Becomes true when the API stops; long answers end then.
    pub(crate) stopping: watch::Sender<bool>,
    current: RwLock<Arc<Current>>,
    publications: watch::Sender<Arc<Publication>>,
}

/// What is in force.
pub(crate) struct Current {
    pub(crate) held: Held,
    pub(crate) publication: Arc<Publication>,
}

/// Opens the data directory and binds the API. What is stored is compiled and published before this returns; nothing is
/// answered until [`ControlPlane::run`].
///
/// # Errors
/// A [`StartError`] says what is wrong and what to do; nothing stored was changed then.
pub async fn open(settings: Settings, plane: Arc<dyn DataPlane>) -> Result<ControlPlane, StartError> {
    let data_dir = settings.data_dir.clone();
    let bind = |source| StartError::Listen { address: settings.listen, source };
    let listener = TcpListener::bind(settings.listen).await.map_err(bind)?;
    let address = listener.local_addr().map_err(bind)?;
    let lock = lock(&data_dir)?;
    // Both databases and the keys are looked at before anything is opened for writing: a refusal changes nothing.
    let check = store::look(&data_dir).await?;
    Sealer::check_form(&data_dir, settings.key.as_ref())?;
    Verifier::check_form(&data_dir)?;
    let sealer = Sealer::load(&data_dir, settings.key.as_ref(), check.is_none())?;
    if let Some(sealed) = &check {
        sealer.check(sealed)?;
    }
    let store = Store::open(&data_dir).await?;
    let exchanges = ExchangeStore::open(&data_dir, settings.give_way).await?;
    if check.is_none() {
        store.put_seal_check(&sealer.make_check()?).await?;
    }
    // Not the first process but the first that got this far: one that was killed half-way left no token.
    let first_start = store.revision().await? == 0;
    let verifier = Verifier::load(&data_dir, first_start)?;
    let mut held = store.load(&sealer).await?;
    held.rows.mode = settings.mode;
    let snapshot = Snapshot::compile(&held.rows).map_err(|mistakes| StartError::Stored {
        path: data_dir.join("tidegate.db"),
        mistakes: mistakes.iter().map(ToString::to_string).collect(),
    })?;
    let current = Arc::new(Current::new(store.revision().await?, held, snapshot));
    let publications = watch::Sender::new(Arc::clone(&current.publication));
    let metrics = Arc::new(Metrics::default());
    let records = Records::new(exchanges, &settings, Arc::clone(&metrics));
    let current = RwLock::new(current);
    let stopping = watch::Sender::new(false);
    let bodies = Arc::new(Semaphore::new(settings.largest_bodies().min(Semaphore::MAX_PERMITS)));
    let control =
        Control { settings, store, sealer, verifier, plane, records, metrics, bodies, stopping, current, publications };
    Ok(ControlPlane { control: Arc::new(control), listener, address, _lock: lock })
}

impl ControlPlane {
    /// What is to be in force. The receiver holds the present state at once.
    pub fn publications(&self) -> watch::Receiver<Arc<Publication>> {
        self.control.publications.subscribe()
    }

    /// Where the API is bound.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        Arc::clone(&self.control.metrics)
    }

    /// Answers the API and stores records until `stop` resolves; then open requests finish, and records are stored until
    /// their channel is closed (drop the senders when the workers have drained), within `api_drain_timeout` each.
    pub async fn run(self, records: mpsc::Receiver<Batch>, stop: impl Future<Output = ()>) {
        let control = self.control;
        let storing = tokio::spawn(records::store(Arc::clone(&control), records));
        serve::until(Arc::clone(&control), self.listener, stop).await;
        if let Ok(Err(error)) = tokio::time::timeout(control.settings.api_drain_timeout, storing).await {
            tracing::error!(%error, "the task that stores exchange records failed");
        }
        control.store.close().await;
        control.records.close().await;
    }
}

impl Control {
    /// What is in force now.
    pub(crate) fn current(&self) -> Arc<Current> {
        // A poisoned lock still holds a whole value: it is only ever replaced.
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Has what is in force made ready again.
    pub(crate) fn publish_again(&self) {
        self.publications.send_replace(Arc::clone(&self.current().publication));
    }

    /// Puts a committed state in force.
    pub(crate) fn replace(&self, current: Current) {
        let publication = Arc::clone(&current.publication);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        self.publications.send_replace(publication);
    }
}

/// Makes the data directory and takes it for this process alone. The system gives the lock back however the process ends.
fn lock(data_dir: &Path) -> Result<File, StartError> {
    let failed = |source| StartError::DataDirectory { path: data_dir.to_owned(), source };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(data_dir).map_err(failed)?;
    let file = File::options().create(true).append(true).open(data_dir.join("tidegate.lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(StartError::InUse { path: data_dir.to_owned() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}
