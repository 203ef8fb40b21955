//! The key material in force, by name: what originates TLS and what is injected into requests. It can be used and compared,
//! and neither printed nor listed.

use aws_lc_rs::digest;
use std::{collections::BTreeMap, fmt, sync::Arc};
use tidegate_policy::{Name, credential::Credential};

/// SHA-256 of a certificate with its key, or of certificates that are believed.
pub(crate) type Digest = [u8; 32];

/// All credentials of one publication. Cloning is cheap.
#[derive(Clone, Default)]
pub struct Credentials(Arc<BTreeMap<Name, Held>>);

struct Held {
    credential: Arc<Credential>,
    /// None for a secret: nothing that is made of one is kept.
    digest: Option<Digest>,
}

impl Credentials {
    /// Those of a publication. What TLS is made of is digested here, once, so that a change of it can be told.
    pub fn of(published: &BTreeMap<Name, Arc<Credential>>) -> Self {
        let held = |credential: &Arc<Credential>| Held { credential: Arc::clone(credential), digest: digest_of(credential) };
        Self(Arc::new(published.iter().map(|(name, credential)| (name.clone(), held(credential))).collect()))
    }

    /// Whether they are those of this publication, the very same.
    pub fn are(&self, published: &BTreeMap<Name, Arc<Credential>>) -> bool {
        let same = |((name, held), (other, credential)): ((&Name, &Held), (&Name, &Arc<Credential>))| {
            name == other && Arc::ptr_eq(&held.credential, credential)
        };
        self.0.len() == published.len() && self.0.iter().zip(published).all(same)
    }

    /// The credential of this name.
    pub(crate) fn find(&self, name: &str) -> Option<&Credential> {
        self.0.get(name).map(|held| &*held.credential)
    }

    /// What tells its key material from any other.
    pub(crate) fn digest(&self, name: &str) -> Option<Digest> {
        self.0.get(name).and_then(|held| held.digest)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({} [sealed])", self.0.len())
    }
}

fn digest_of(credential: &Credential) -> Option<Digest> {
    let parts = match credential {
        Credential::Trust { pem } => [pem.as_str(), ""],
        Credential::Certificate { chain, key } => [chain.as_str(), key.reveal()],
        Credential::Secret { .. } => return None,
    };
    let mut digest = digest::Context::new(&digest::SHA256);
    for part in parts {
        digest.update(&(part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.finish().as_ref());
    Some(bytes)
}
