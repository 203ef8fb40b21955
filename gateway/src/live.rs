//! What is in force: a publication made ready for use, swapped whole.

use crate::{credentials::Credentials, filter, identity, upstream};
use arc_swap::ArcSwap;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tidegate_policy::{Publication, Snapshot, publication::Unread};
use tokio::sync::watch;

/// How long a revision waits for the one that replaces it, where a module of it is not stored any more: whoever committed that
/// publishes it next.
const REPLACED_WITHIN: Duration = Duration::from_secs(1);

/// A publication with everything compiled that the request path needs. Parts that did not change are shared with its
/// predecessor, so pools, limits and filter instances live on.
#[derive(Debug, Default)]
pub struct Live {
    /// The revision in force.
    pub revision: u64,
    /// The policy.
    pub snapshot: Arc<Snapshot>,
    /// Key material, for what filters have done with it: see `upstream::wish`.
    pub credentials: Credentials,
    /// TLS client configurations: see `upstream::tls`.
    pub origination: Arc<upstream::tls::Origination>,
    /// Open connections by service: see `upstream`.
    pub loads: Arc<upstream::Loads>,
    /// Verification keys: see `identity`.
    pub issuers: identity::Issuers,
    /// Compiled chains by route: see `filter`.
    pub chains: filter::Chains,
}

impl Live {
    /// Makes `publication` ready, taking over from `before` what did not change. Runs on the control plane. What cannot
    /// be made ready (a certificate that does not parse) is logged and refuses only the exchanges that need it.
    pub fn prepare(publication: &Publication, before: &Self, filters: &filter::Host) -> Self {
        let snapshot = &publication.snapshot;
        let same_services = snapshot.shares_services(&before.snapshot);
        let same_credentials = before.credentials.are(&publication.credentials);
        let credentials = if same_credentials { before.credentials.clone() } else { Credentials::of(&publication.credentials) };
        // Of a hundred thousand services, looking at each takes longer than a change should need to be in force.
        let (origination, loads) = if same_services && same_credentials && before.revision > 0 {
            (Arc::clone(&before.origination), Arc::clone(&before.loads))
        } else {
            let origination = upstream::tls::Origination::prepare(snapshot, &credentials, &before.origination);
            (Arc::new(origination), Arc::new(upstream::Loads::prepare(snapshot, &before.loads)))
        };
        Self {
            revision: publication.revision,
            origination,
            credentials,
            loads,
            issuers: identity::Issuers::prepare(snapshot, &before.issuers),
            chains: filter::Chains::prepare(filters, snapshot, &publication.modules, &before.chains),
            snapshot: Arc::clone(snapshot),
        }
    }

    /// Whether a module of it is not stored any more.
    fn lacks_a_module(&self) -> bool {
        self.chains.unread.values().any(|unread| *unread == Unread::Gone)
    }
}

/// Puts every publication in force until there are no more. Workers load `live` once for each exchange, so the next
/// exchange of every worker sees it; exchanges under way keep what they began with.
///
/// `told` hears of every revision that is in force.
///
/// Preparing may compile filters, so it runs where blocking harms nobody. Publications that come meanwhile are not queued:
/// the newest is prepared next.
pub async fn follow(
    publications: watch::Receiver<Arc<Publication>>,
    live: Arc<ArcSwap<Live>>,
    told: watch::Sender<u64>,
    filters: Arc<filter::Host>,
) {
    follow_with(publications, live, told, move |publication, before| Live::prepare(publication, before, &filters)).await;
}

async fn follow_with(
    mut publications: watch::Receiver<Arc<Publication>>,
    live: Arc<ArcSwap<Live>>,
    told: watch::Sender<u64>,
    prepare: impl Fn(&Publication, &Live) -> Live + Send + Sync + 'static,
) {
    let (prepare, mut passed_over) = (Arc::new(prepare), None::<Instant>);
    publications.mark_changed();
    while publications.changed().await.is_ok() {
        let publication = Arc::clone(&publications.borrow_and_update());
        let (before, prepare) = (live.load_full(), Arc::clone(&prepare));
        let prepared = tokio::task::spawn_blocking(move || prepare(&publication, &before)).await;
        match prepared {
            Ok(prepared) if prepared.lacks_a_module() && is_replaced(&mut publications, passed_over).await => {
                passed_over.get_or_insert_with(Instant::now);
                tracing::info!(revision = prepared.revision, "a revision was replaced before it was ready");
            }
            Ok(prepared) => {
                passed_over = None;
                tracing::info!(revision = prepared.revision, "a revision is in force");
                let revision = prepared.revision;
                live.store(Arc::new(prepared));
                told.send_replace(revision);
            }
            Err(error) => tracing::error!(%error, "a revision could not be made ready; the one before it stays in force"),
        }
    }
}

/// Whether another publication is there, or comes within moments of the first that was passed over for another.
async fn is_replaced(publications: &mut watch::Receiver<Arc<Publication>>, passed_over: Option<Instant>) -> bool {
    let left = REPLACED_WITHIN.saturating_sub(passed_over.map_or(Duration::ZERO, |since| since.elapsed()));
    if left.is_zero() {
        return false;
    }
    let comes = tokio::time::timeout(left, publications.changed()).await.is_ok_and(|changed| changed.is_ok());
    if comes {
        publications.mark_changed();
    }
    comes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;
    use tidegate_policy::{Name, Rows, credential::Credential};

    type Published = BTreeMap<Name, Arc<Credential>>;

    fn prepare(publication: &Publication, before: &Live) -> Live {
        assert!(publication.revision != 13, "a revision that cannot be made ready");
        Live {
            revision: publication.revision,
            origination: Arc::new(upstream::tls::Origination::prepare(
                &publication.snapshot,
                &Credentials::of(&publication.credentials),
                &before.origination,
            )),
            loads: Arc::new(upstream::Loads::prepare(&publication.snapshot, &before.loads)),
            snapshot: Arc::clone(&publication.snapshot),
            ..Live::default()
        }
    }

    fn publication(revision: u64, services: u32) -> Arc<Publication> {
        let mut rows = Rows::default();
        for index in 0..services {
            let name: Name = format!("service-{index}").parse().expect("a name");
            let document = json!({"hosts": [format!("api{index}.example")], "ports": [{"number": 443, "protocol": "https"}]});
            rows.services.insert(name, Arc::new(serde_json::from_value(document).expect("a service")));
        }
        let snapshot = Arc::new(Snapshot::compile(&rows).expect("a snapshot"));
        Arc::new(Publication { revision, snapshot, ..Publication::default() })
    }

    async fn until(live: &ArcSwap<Live>, revision: u64) {
        while live.load().revision != revision {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_change_elsewhere_prepares_no_service_again() {
        let host = filter::Host::start(filter::Limits::default()).unwrap();
        let service =
            |host: &str| serde_json::from_value(json!({"hosts": [host], "ports": [{"number": 443, "protocol": "https"}]}));
        let mut rows = Rows::default();
        rows.services.insert("api".parse().unwrap(), Arc::new(service("api.example").unwrap()));
        let mut live = Live::default();
        let mut revision = 0;
        let mut put = |rows: &Rows, credentials: &Published| {
            revision += 1;
            let snapshot = Arc::new(Snapshot::compile_after(rows, Some(&live.snapshot)).unwrap());
            let publication = Publication { revision, snapshot, credentials: credentials.clone(), ..Publication::default() };
            let next = Live::prepare(&publication, &live, &host);
            let kept = Arc::ptr_eq(&next.origination, &live.origination) && Arc::ptr_eq(&next.loads, &live.loads);
            live = next;
            (kept, live.revision)
        };
        let mut credentials = Published::new();
        assert_eq!(put(&rows, &credentials), (false, 1), "the first is made");
        rows.rules.insert("all".parse().unwrap(), Arc::new(serde_json::from_value(json!({"action": "allow"})).unwrap()));
        assert_eq!(put(&rows, &credentials), (true, 2), "a rule");
        let secret = json!({"kind": "secret", "value": "hush"});
        credentials.insert("key".parse().unwrap(), Arc::new(serde_json::from_value(secret).unwrap()));
        assert_eq!(put(&rows, &credentials), (false, 3), "a credential");
        rows.services.insert("other".parse().unwrap(), Arc::new(service("other.example").unwrap()));
        assert_eq!(put(&rows, &credentials), (false, 4), "a service");
        assert_eq!(put(&rows, &credentials), (true, 5), "nothing");
    }

    #[tokio::test]
    async fn what_is_published_is_in_force_at_once_and_what_fails_changes_nothing() {
        let live = Arc::new(ArcSwap::from_pointee(Live::default()));
        let (publish, publications) = watch::channel(publication(1, 1));
        let (told, hears) = watch::channel(0);
        let following = tokio::spawn(follow_with(publications, Arc::clone(&live), told, prepare));
        until(&live, 1).await;
        let held = live.load_full();

        // The quickest of several: on a busy machine one of them may have to wait for a processor.
        let mut quickest = Duration::MAX;
        for revision in 2..8 {
            let next = publication(revision, 1000);
            let start = Instant::now();
            publish.send_replace(next);
            until(&live, revision).await;
            quickest = quickest.min(start.elapsed());
        }
        assert!(quickest < Duration::from_millis(50), "in force after {quickest:?}");
        assert_eq!((held.revision, held.snapshot.services().count()), (1, 1), "an open exchange keeps what it began with");

        publish.send_replace(publication(13, 1));
        publish.send_replace(publication(14, 2));
        until(&live, 14).await;
        drop(publish);
        following.await.expect("it ends with the publications");
        assert_eq!(*hears.borrow(), 14, "who waits for it is told");
    }

    #[tokio::test]
    async fn a_revision_whose_module_is_gone_is_passed_over_for_the_next_one_if_that_comes() {
        let live = Arc::new(ArcSwap::from_pointee(Live::default()));
        let (publish, publications) = watch::channel(publication(1, 1));
        let (told, mut hears) = watch::channel(0);
        let (seen, mut prepared) = tokio::sync::mpsc::unbounded_channel();
        let lacking = move |publication: &Publication, before: &Live| {
            let mut prepared = prepare(publication, before);
            if publication.revision.is_multiple_of(2) {
                prepared.chains.unread.insert("audit".parse().expect("a name"), Unread::Gone);
            }
            seen.send(publication.revision).expect("it is waited for");
            prepared
        };
        let following = tokio::spawn(follow_with(publications, Arc::clone(&live), told, lacking));
        hears.wait_for(|revision| *revision == 1).await.expect("it follows");
        publish.send_replace(publication(2, 1));
        while prepared.recv().await.expect("it follows") != 2 {}
        publish.send_replace(publication(3, 1));
        hears.changed().await.expect("it follows");
        assert_eq!(*hears.borrow_and_update(), 3, "the one before it was never in force");
        publish.send_replace(publication(4, 1));
        hears.changed().await.expect("it follows");
        assert_eq!(live.load().revision, 4, "nobody has replaced it, so that what else it says holds");
        drop(publish);
        following.await.expect("it ends with the publications");
    }
}
