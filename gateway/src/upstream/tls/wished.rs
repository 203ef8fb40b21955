//! The profiles that one worker has made because filters wished for them. Made when first wished for, since nobody can say
//! before which of a service's settings a filter will change; forgotten when their key material is replaced.

use super::{Origination, Profile, profile::Key};
use crate::{fault::Fault, live::Live};
use foldhash::HashMap;
use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};
use tidegate_policy::{
    Reason,
    service::{Protocol, Tls, TlsMode},
};

/// Profiles remembered by one worker: a thousand tenants with a certificate each. At some 5 kB they are 5 MB.
const PROFILES: usize = 1024;

/// Sessions remembered for resumption by each profile; fewer than where a service has one for all its exchanges.
const SESSIONS: usize = 32;

/// One worker's profiles that filters wished for.
#[derive(Default)]
pub(in crate::upstream) struct Wished {
    made: RefCell<HashMap<Key, Made>>,
    /// The newest revision that was seen.
    revision: Cell<u64>,
    /// How often a profile was asked for: the clock that tells which was not, for the longest.
    asked: Cell<u64>,
}

struct Made {
    profile: Arc<Profile>,
    asked: Cell<u64>,
}

impl Wished {
    /// The profile for `tls` on a port that speaks `protocol`; none where TLS is not originated. Equal settings with equal
    /// key material are one profile, with one store of sessions; all others are apart.
    pub(in crate::upstream) fn profile(
        &self,
        live: &Live,
        tls: &Tls,
        protocol: Protocol,
    ) -> Result<Option<Arc<Profile>>, Fault> {
        let encrypted = matches!(protocol, Protocol::Https | Protocol::Grpc);
        if !encrypted || matches!(tls.mode, TlsMode::Disabled | TlsMode::Passthrough) {
            return Ok(None);
        }
        let key = Key::new(tls, protocol, &live.credentials);
        if let Some(registered) = live.origination.made(&key) {
            return Ok(Some(Arc::clone(registered)));
        }
        self.advance(live);
        let now = self.asked.get() + 1;
        self.asked.set(now);
        if let Some(made) = self.made.borrow().get(&key) {
            made.asked.set(now);
            return Ok(Some(Arc::clone(&made.profile)));
        }
        let profile = Profile::build(&key, &live.credentials, SESSIONS).map(Arc::new).map_err(|why| {
            Fault::new(Reason::TlsFailed, format!("a filter chose how TLS is originated, and it cannot be: {why}"))
        })?;
        // An exchange that began before the newest revision must not bring back what that has replaced.
        if live.revision == self.revision.get() {
            self.remember(key, Made { profile: Arc::clone(&profile), asked: Cell::new(now) });
        }
        Ok(Some(profile))
    }

    /// Forgets profiles whose key material is no longer in force.
    fn advance(&self, live: &Live) {
        if live.revision > self.revision.get() {
            self.revision.set(live.revision);
            self.made.borrow_mut().retain(|key, _| key.holds(&live.credentials));
        }
    }

    fn remember(&self, key: Key, made: Made) {
        let mut all = self.made.borrow_mut();
        if all.len() >= PROFILES
            && let Some(oldest) = all.iter().min_by_key(|(_, made)| made.asked.get()).map(|(key, _)| key.clone())
        {
            all.remove(&oldest);
        }
        all.insert(key, made);
    }
}

impl Origination {
    /// The profile of this key, where some service registers just that.
    fn made(&self, key: &Key) -> Option<&Arc<Profile>> {
        self.profiles.get(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Credentials;
    use std::collections::BTreeMap;
    use tidegate_policy::{Host, credential::Credential, service::Trust};

    fn trusting() -> Live {
        let certificate = rcgen::generate_simple_self_signed(["ca.example".to_owned()]).expect("a certificate");
        let trust = Credential::Trust { pem: certificate.cert.pem() };
        Live {
            revision: 1,
            credentials: Credentials::of(&BTreeMap::from([("ca".parse().expect("a name"), Arc::new(trust))])),
            ..Live::default()
        }
    }

    fn named(number: usize) -> Tls {
        let host: Host = format!("tenant-{number}.example").parse().expect("a host");
        Tls { sni: Some(host), trust: Trust::Credential("ca".parse().expect("a name")), ..super::super::unsaid() }
    }

    fn id(wished: &Wished, live: &Live, tls: &Tls) -> u64 {
        wished.profile(live, tls, Protocol::Https).expect("it is made").expect("TLS").id
    }

    #[test]
    fn equal_wishes_share_and_the_least_wanted_profile_goes() {
        let (wished, live) = (Wished::default(), trusting());
        let profile = |number| id(&wished, &live, &named(number));
        let (first, second) = (profile(0), profile(1));
        assert_ne!(first, second);
        assert_eq!(profile(0), first);
        for number in 2..=PROFILES {
            profile(number);
        }
        assert_eq!(wished.made.borrow().len(), PROFILES);
        assert_eq!(profile(0), first, "it was asked for again");
        assert_ne!(profile(1), second, "it was not");
        let clear = Tls { mode: TlsMode::Disabled, ..named(0) };
        assert!(wished.profile(&live, &clear, Protocol::Https).expect("plaintext").is_none());
    }

    #[test]
    fn replaced_key_material_is_forgotten_and_not_brought_back() {
        let (wished, before) = (Wished::default(), trusting());
        let first = id(&wished, &before, &named(0));
        let same = Live { revision: 2, credentials: before.credentials.clone(), ..Live::default() };
        assert_eq!(id(&wished, &same, &named(0)), first, "another revision with the same material");
        let after = Live { revision: 3, ..trusting() };
        assert_ne!(id(&wished, &after, &named(0)), first);
        assert_eq!(wished.made.borrow().len(), 1);
        id(&wished, &before, &named(0));
        assert_eq!(wished.made.borrow().len(), 1, "an exchange that began before leaves nothing behind");
        let gone = Live { revision: 4, ..Live::default() };
        let fault = wished.profile(&gone, &named(0), Protocol::Https).expect_err("there is no such credential");
        assert!(fault.reason() == Reason::TlsFailed && fault.detail().contains("credential ca"), "{fault}");
    }
}
