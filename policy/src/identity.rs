//! Who is calling, as far as it is known.

use crate::Name;
use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

/// Who is calling. Cloning is cheap: all that does not change from exchange to exchange is shared.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The address the caller connected from.
    pub source: IpAddr,
    /// Who that is.
    pub caller: Arc<Caller>,
}

/// A known (or unknown) caller.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Caller {
    /// How it is known.
    pub proof: Proof,
    /// Its principal, such as `spiffe://cluster.local/ns/shop/sa/checkout`.
    pub principal: Option<Arc<str>>,
    /// Its namespace.
    pub namespace: Option<Arc<str>>,
    /// Its service account.
    pub service_account: Option<Arc<str>>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The claims of its token, if it brought one.
    pub claims: serde_json::Map<String, serde_json::Value>,
}

/// How a caller is known.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Proof {
    /// It is not.
    #[default]
    None,
    /// By the workload whose network it comes from.
    Network {
        /// That workload.
        workload: Name,
    },
    /// By a client certificate.
    Certificate,
    /// By a token.
    Token {
        /// The issuer that vouches for it.
        issuer: Name,
    },
}

impl Identity {
    /// A caller of whom only the address is known.
    pub fn unknown(source: IpAddr) -> Self {
        Self { source, caller: Arc::default() }
    }
}

/// The claim called `name`. A dotted name is tried whole first, then it walks into objects (`kubernetes.io.namespace` is
/// `namespace` within `kubernetes.io`).
pub fn claim<'a>(claims: &'a serde_json::Map<String, serde_json::Value>, name: &str) -> Option<&'a serde_json::Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    // The longest first part that is an object's name wins.
    name.rmatch_indices('.').find_map(|(at, _)| claim(claims.get(&name[..at])?.as_object()?, &name[at + 1..]))
}

impl Caller {
    /// What records and metrics call this caller: its principal, else its workload's name.
    pub fn label(&self) -> Option<Arc<str>> {
        self.principal.clone().or_else(|| match &self.proof {
            Proof::Network { workload } => Some(workload.shared()),
            Proof::None | Proof::Certificate | Proof::Token { .. } => None,
        })
    }
}
