//! What filters choose for the way out of one exchange: a wish, of which every part was held against what the service
//! registers, what the route grants and which credentials there are before it became one. Nothing is dialled here.

mod chosen;
mod secret;
#[cfg(test)]
mod tests;
mod tls;

pub use chosen::{Chosen, ChosenSecret};
pub use secret::Carrying;
pub use tls::TlsSettings;

use super::select::Place;
use crate::{credentials::Credentials, filter::headers::writable};
use ::http::{HeaderName, HeaderValue};
use tidegate_policy::{
    Host, Name, Permit, Snapshot, Target,
    answer::Detour,
    credential::{Credential, CredentialKind},
    grants::Grants,
    service::{Port, Service, Tls},
};

/// Secrets that filters may have injected into one request. Each is a header, and sixteen leave room for every scheme of
/// signing and keys at once.
const SECRETS: usize = 16;

/// What the filters of one exchange have chosen. A clone taken before a filter runs undoes what it chose.
#[derive(Debug, Clone, Default)]
pub struct Wish {
    /// Another service.
    detour: Option<Detour>,
    /// The service that the endpoint and the TLS settings were held against; the outer none where there are neither.
    about: Option<Option<Name>>,
    endpoint: Option<Place>,
    /// The whole of it: the service's own, changed.
    tls: Option<Box<Tls>>,
    secrets: Vec<Injection>,
}

/// A header to write when the last filter has run.
#[derive(Debug, Clone)]
struct Injection {
    header: HeaderName,
    prefix: String,
    credential: Name,
}

/// What a wish is held against: the exchange as it was decided, and what the filter that wishes is granted.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The policy the exchange was decided by.
    pub snapshot: &'a Snapshot,
    /// The key material that goes with it.
    pub credentials: &'a Credentials,
    /// The decision.
    pub permit: &'a Permit,
    /// The filter's grants.
    pub grants: &'a Grants,
}

/// Why a wish is refused. That the request's head has gone on is for the caller to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such service, endpoint or credential, or a credential of another kind.
    UnknownName,
    /// The grants do not allow it.
    NotPermitted,
    /// It contradicts itself, what was wished before, or what the service registers.
    Conflict,
    /// Not a host name, address, or a header that may be written with this value.
    Invalid,
}

/// Where the exchange goes as far as it is known by now.
struct Going<'a> {
    name: Option<&'a Name>,
    service: Option<&'a Service>,
    target: &'a Target,
    port: Port,
}

impl Wish {
    /// Sends the request to another service. Choose the service before its endpoint and TLS, which belong to it.
    pub fn select_service(&mut self, name: &str, terms: &Terms<'_>) -> Result<(), Refusal> {
        let going = self.going(terms);
        if going.name.is_some_and(|current| current.as_str() == name) {
            return Ok(());
        }
        let service = terms.snapshot.service(name).ok_or(Refusal::UnknownName)?;
        let own = terms.permit.service().is_some_and(|own| own.name == service.name);
        if !own && !terms.grants.services.contains(&service.name) {
            return Err(Refusal::NotPermitted);
        }
        if self.about.is_some() {
            return Err(Refusal::Conflict);
        }
        self.detour = if own { None } else { Some(terms.snapshot.detour(terms.permit, name).ok_or(Refusal::Conflict)?) };
        Ok(())
    }

    /// Sends the request to this one of the service's registered endpoints.
    pub fn select_endpoint(&mut self, address: &str, port: u16, terms: &Terms<'_>) -> Result<(), Refusal> {
        let host: Host = address.parse().map_err(|_: String| Refusal::Invalid)?;
        if port == 0 {
            return Err(Refusal::Invalid);
        }
        let going = self.going(terms);
        let endpoints = going.service.map_or(&[][..], |service| &service.endpoints);
        if !endpoints.iter().any(|own| own.address == host && own.port.unwrap_or(going.port.number) == port) {
            return Err(Refusal::UnknownName);
        }
        if !terms.grants.endpoints {
            return Err(Refusal::NotPermitted);
        }
        let about = going.name.cloned();
        self.endpoint = Some(Place { host, port });
        self.about = Some(about);
        Ok(())
    }

    /// Originates TLS so. What is absent is as an earlier filter has it, else as the service registers it.
    pub fn originate_tls(&mut self, settings: &TlsSettings, terms: &Terms<'_>) -> Result<(), Refusal> {
        let going = self.going(terms);
        let wished = tls::changed(settings, &going, self.tls.as_deref(), terms)?;
        let about = going.name.cloned();
        self.tls = Some(Box::new(wished));
        self.about = Some(about);
        Ok(())
    }

    /// Has `prefix` and a secret written as the one value of `header`, in place of all others, right before each attempt at
    /// sending the request.
    pub fn inject_secret(&mut self, header: &str, credential: &str, prefix: &str, terms: &Terms<'_>) -> Result<(), Refusal> {
        let header = writable(header.as_bytes()).map_err(|_| Refusal::Invalid)?;
        HeaderValue::from_str(prefix).map_err(|_| Refusal::Invalid)?;
        let credential = granted(credential, CredentialKind::Secret, terms)?;
        let injection = Injection { header, prefix: prefix.to_owned(), credential };
        // A secret that no header can hold is better refused to the filter than to its caller.
        injection.value(terms.credentials).ok_or(Refusal::Invalid)?;
        self.secrets.retain(|other| other.header != injection.header);
        if self.secrets.len() >= SECRETS {
            return Err(Refusal::Conflict);
        }
        self.secrets.push(injection);
        Ok(())
    }

    /// Whether nothing was chosen.
    pub fn is_empty(&self) -> bool {
        self.detour.is_none() && self.about.is_none() && self.secrets.is_empty()
    }

    /// Another service that the request is to go to.
    pub fn service(&self) -> Option<&Name> {
        self.detour.as_ref().map(|detour| &detour.service.name)
    }

    /// Whether something was chosen that holds for one service alone, so that no other may be drawn.
    pub fn binds(&self) -> bool {
        self.detour.is_some() || self.about.is_some()
    }

    /// Whether a secret goes with the request.
    pub fn has_secrets(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// Whether `permit` is for the service that was chosen, and that endpoint and TLS settings were held against.
    pub(super) fn is_about(&self, permit: &Permit) -> bool {
        let service = permit.service().map(|service| &service.name);
        self.about.as_ref().is_none_or(|about| about.as_ref() == service)
            && (self.detour.is_none() || self.service() == service)
    }

    pub(super) fn endpoint(&self) -> Option<&Place> {
        self.endpoint.as_ref()
    }

    pub(super) fn tls(&self) -> Option<&Tls> {
        self.tls.as_deref()
    }

    fn going<'a>(&'a self, terms: &Terms<'a>) -> Going<'a> {
        let (service, target, port) = match &self.detour {
            Some(Detour { service, target, port }) => (Some(service), target, *port),
            None => (terms.permit.service(), terms.permit.target(), terms.permit.port()),
        };
        let name = service.map(|service| &service.name);
        Going { name, service: service.map(|service| &*service.document), target, port }
    }
}

/// The name of a credential of this kind that the grants name.
fn granted(name: &str, kind: CredentialKind, terms: &Terms<'_>) -> Result<Name, Refusal> {
    if terms.credentials.find(name).map(Credential::kind) != Some(kind) {
        return Err(Refusal::UnknownName);
    }
    terms.grants.credentials.iter().find(|granted| granted.as_str() == name).cloned().ok_or(Refusal::NotPermitted)
}
