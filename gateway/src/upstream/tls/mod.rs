//! TLS origination: client configurations made once per publication and shared by what says the same, so that sessions
//! and pooled connections live on. A credential that cannot be used refuses only the exchanges that need it.

mod explain;
mod handshake;
mod profile;
mod verify;
mod watch;
mod wished;

pub(super) use explain::CERTIFICATE_DEMANDED;
pub use explain::explain;
pub(super) use handshake::{Offer, originate};
pub use profile::Profile;
pub(crate) use profile::provider;
pub(super) use watch::{Ending, Watched};
pub(super) use wished::Wished;

use crate::{credentials::Credentials, fault::Fault};
use foldhash::HashMap;
use profile::Key;
use std::sync::Arc;
use tidegate_policy::{
    Name, Reason, Snapshot,
    service::{Protocol, Service, Tls, TlsMode, TlsVersion, Trust},
    snapshot::CompiledService,
};

/// A client configuration for every way in which the registered services are originated to.
#[derive(Debug, Default)]
pub struct Origination {
    /// For services that say nothing about TLS, and for hosts that no service registers.
    default: Option<ByProtocol>,
    services: HashMap<Name, ByProtocol>,
    profiles: HashMap<Key, Arc<Profile>>,
}

/// A profile, or the sentence that says why it cannot be made.
type Prepared = Result<Arc<Profile>, Arc<str>>;

/// What the ports that originate TLS need; none where the service has no such port.
#[derive(Debug, Clone)]
struct ByProtocol {
    https: Option<Prepared>,
    grpc: Option<Prepared>,
}

/// What profiles are made of.
struct Makings<'a> {
    credentials: &'a Credentials,
    before: &'a HashMap<Key, Arc<Profile>>,
}

impl Origination {
    /// Prepares the configurations of every service. Those whose document and key material are what they were in
    /// `before` are taken over, sessions and all.
    pub fn prepare(snapshot: &Snapshot, credentials: &Credentials, before: &Self) -> Self {
        let mut origination = Self::default();
        let makings = Makings { credentials, before: &before.profiles };
        let mut default = |protocol| Some(origination.make(&unsaid(), protocol, &makings, profile::SHARED_SESSIONS));
        let default = ByProtocol { https: default(Protocol::Https), grpc: default(Protocol::Grpc) };
        origination.default = Some(default);
        for service in snapshot.services() {
            let Some(tls) = originated(&service.document) else { continue };
            let mut prepare = |protocol| {
                let needed = service.document.ports.iter().any(|port| port.protocol == protocol);
                let prepared = needed.then(|| origination.make(tls, protocol, &makings, profile::SESSIONS))?;
                if let Err(why) = &prepared {
                    tracing::warn!(service = %service.name, why = &**why, "TLS to a service cannot be originated: its exchanges are refused");
                }
                Some(prepared)
            };
            let own = ByProtocol { https: prepare(Protocol::Https), grpc: prepare(Protocol::Grpc) };
            origination.services.insert(service.name.clone(), own);
        }
        origination
    }

    /// The profile for `service` (none: an unregistered host) on a port that speaks `protocol`; none where TLS is not
    /// originated.
    pub(super) fn profile(
        &self,
        service: Option<&CompiledService>,
        protocol: Protocol,
    ) -> Result<Option<&Arc<Profile>>, Fault> {
        let tls = service.and_then(|service| service.document.tls.as_ref());
        if tls.is_some_and(|tls| matches!(tls.mode, TlsMode::Disabled | TlsMode::Passthrough)) {
            return Ok(None);
        }
        let by_protocol = match service.filter(|_| tls.is_some()) {
            Some(service) => self.services.get(&service.name),
            None => self.default.as_ref(),
        };
        let prepared = match protocol {
            Protocol::Https => by_protocol.and_then(|all| all.https.as_ref()),
            Protocol::Grpc => by_protocol.and_then(|all| all.grpc.as_ref()),
            Protocol::Http | Protocol::Http2 | Protocol::Tls | Protocol::Tcp => return Ok(None),
        };
        // The permit may be of an older revision than the one in force; the next attempt is not.
        let prepared =
            prepared.ok_or_else(|| Fault::new(Reason::Internal, "TLS to this service is not prepared: try again"))?;
        match prepared {
            Ok(profile) => Ok(Some(profile)),
            Err(why) => Err(Fault::new(Reason::TlsFailed, why.to_string())),
        }
    }

    fn make(&mut self, tls: &Tls, protocol: Protocol, makings: &Makings<'_>, sessions: usize) -> Prepared {
        let key = Key::new(tls, protocol, makings.credentials);
        if let Some(profile) = self.profiles.get(&key).or_else(|| makings.before.get(&key)).map(Arc::clone) {
            self.profiles.insert(key, Arc::clone(&profile));
            return Ok(profile);
        }
        let profile = Arc::new(Profile::build(&key, makings.credentials, sessions).map_err(Arc::from)?);
        self.profiles.insert(key, Arc::clone(&profile));
        Ok(profile)
    }
}

/// The TLS document of a service that has none.
pub(in crate::upstream) fn unsaid() -> Tls {
    Tls {
        mode: TlsMode::Simple,
        sni: None,
        names: Vec::new(),
        trust: Trust::System,
        certificate: None,
        min_version: TlsVersion::V1_2,
        alpn: Vec::new(),
    }
}

/// The TLS document of a service that TLS is originated to and that says how.
fn originated(service: &Service) -> Option<&Tls> {
    service.tls.as_ref().filter(|tls| matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual))
}
