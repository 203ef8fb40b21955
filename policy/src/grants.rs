//! What a filter may choose on one route: the names that its wishes for the way out are held against.

use crate::{Host, HostPattern, Mistake, Name, selector::PathPattern, service::Service, snapshot::Rows};

/// What a filter may choose beyond what its route and the service say. Nothing unless it is named here.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Grants {
    /// Services that it may send the request to in place of the route's own. The rules must allow the request there, too;
    /// of that service's own routes none applies, so none of their filters runs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Name>,
    /// Whether it may choose among the endpoints that the service registers.
    #[serde(skip_serializing_if = "is_false")]
    pub endpoints: bool,
    /// Credentials that it may have used: certificates to show, certificates to believe, secrets to send.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub credentials: Vec<Name>,
    /// Paths that it may rewrite the request's to, each exact or ending in `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<PathPattern>,
    /// Whether it may verify less than the service says: no TLS, other names in the certificate, a lower version, or the
    /// system's trust in place of a credential.
    #[serde(skip_serializing_if = "is_false")]
    pub loosen_tls: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

impl Grants {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with it on a route of `service`, beside `rows`.
    pub(crate) fn check(&self, service: &Name, rows: &Rows) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        let own = rows.services.get(service);
        for (at, name) in self.services.iter().enumerate() {
            let pointer = format!("/services/{at}");
            let Some(granted) = rows.services.get(name) else {
                mistakes.push(Mistake::at(pointer, format!("there is no service {name}: register it first")));
                continue;
            };
            if granted.first_host().is_none() {
                let detail =
                    format!("{name} has only patterns as hosts, so a request has no place to go there: register an exact host");
                mistakes.push(Mistake::at(&pointer, detail));
            }
            if own.is_some_and(|own| !own.ports.iter().any(|port| granted.port_like(*port).is_some())) {
                let detail = format!("{name} has no port that could take over one of {service}'s");
                mistakes.push(Mistake::at(pointer, detail));
            }
        }
        for (at, name) in self.credentials.iter().enumerate().filter(|(_, name)| !rows.credentials.contains_key(*name)) {
            let detail = format!("there is no credential {name}: create it first");
            mistakes.push(Mistake::at(format!("/credentials/{at}"), detail));
        }
        mistakes
    }

    /// Whether the path of a rewritten request is granted. Where servers would read it differently, every reading must be.
    pub fn permits_path(&self, path: &str) -> bool {
        crate::path::Readings::of(path).all(|path| self.paths.iter().any(|pattern| pattern.matches(path)))
    }
}

impl Service {
    /// Its first host that is no pattern: where a request goes that is sent to this service without having named it.
    pub fn first_host(&self) -> Option<&Host> {
        self.hosts.iter().find_map(|pattern| match pattern {
            HostPattern::Exact(host) => Some(host),
            HostPattern::Suffix(_) => None,
        })
    }
}
