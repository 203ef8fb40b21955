//! TLS origination: client configurations made once per publication and shared by what says the same, so that sessions
//! and pooled connections live on. A credential that cannot be used refuses only the exchanges that need it.

mod explain;
mod handshake;
mod profile;
mod verify;

pub(super) use explain::CERTIFICATE_DEMANDED;
pub use explain::explain;
pub(super) use handshake::{Offer, originate};
pub use profile::Profile;
pub(crate) use profile::provider;

use crate::fault::Fault;
use foldhash::HashMap;
use profile::Key;
use std::{collections::BTreeMap, sync::Arc};
use tidegate_policy::{
    Name, Reason, Snapshot,
    credential::Credential,
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

#[derive(Debug, Clone)]
struct ByProtocol {
    https: Prepared,
    grpc: Prepared,
}

impl Origination {
    /// Prepares the configurations of every service. Those whose document and key material are what they were in
    /// `before` are taken over, sessions and all.
    pub fn prepare(snapshot: &Snapshot, credentials: &BTreeMap<Name, Arc<Credential>>, before: &Self) -> Self {
        let mut origination = Self::default();
        let plain = Tls {
            mode: TlsMode::Simple,
            sni: None,
            names: Vec::new(),
            trust: Trust::System,
            certificate: None,
            min_version: TlsVersion::V1_2,
            alpn: Vec::new(),
        };
        origination.default = Some(origination.both(&plain, credentials, before));
        for service in snapshot.services() {
            let Some(tls) = originated(&service.document) else { continue };
            let both = origination.both(tls, credentials, before);
            if let Err(why) = both.https.as_ref().and(both.grpc.as_ref()) {
                tracing::warn!(service = %service.name, why = &**why, "TLS to a service cannot be originated; its exchanges are refused");
            }
            origination.services.insert(service.name.clone(), both);
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
        let own = service.filter(|_| tls.is_some()).and_then(|service| self.services.get(&service.name));
        let unprepared = || Fault::new(Reason::Internal, "TLS to this service is not prepared yet: try again").before_send();
        let both = match (own, tls) {
            (None, Some(_)) => None,
            (own, _) => own.or(self.default.as_ref()),
        };
        let prepared = match protocol {
            Protocol::Https => &both.ok_or_else(unprepared)?.https,
            Protocol::Grpc => &both.ok_or_else(unprepared)?.grpc,
            Protocol::Http | Protocol::Http2 | Protocol::Tls | Protocol::Tcp => return Ok(None),
        };
        match prepared {
            Ok(profile) => Ok(Some(profile)),
            Err(why) => Err(Fault::new(Reason::TlsFailed, why.to_string())),
        }
    }

    fn both(&mut self, tls: &Tls, credentials: &BTreeMap<Name, Arc<Credential>>, before: &Self) -> ByProtocol {
        ByProtocol {
            https: self.one(Key::new(tls, Protocol::Https, credentials), credentials, before),
            grpc: self.one(Key::new(tls, Protocol::Grpc, credentials), credentials, before),
        }
    }

    fn one(&mut self, key: Key, credentials: &BTreeMap<Name, Arc<Credential>>, before: &Self) -> Prepared {
        if let Some(profile) = self.profiles.get(&key).or_else(|| before.profiles.get(&key)).map(Arc::clone) {
            self.profiles.insert(key, Arc::clone(&profile));
            return Ok(profile);
        }
        let profile = Arc::new(Profile::build(&key, credentials).map_err(Arc::from)?);
        self.profiles.insert(key, Arc::clone(&profile));
        Ok(profile)
    }
}

/// The TLS document of a service that TLS is originated to and that says how.
fn originated(service: &Service) -> Option<&Tls> {
    service.tls.as_ref().filter(|tls| matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual))
}
