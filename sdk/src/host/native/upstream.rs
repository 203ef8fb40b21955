//! What concerns the way to the upstream, and calls of the filter's own.

use super::{WORLD, World, gateway};
use crate::{
    Headers,
    outbound::{Answer, Call, CallError},
    testing::{Chosen, Secret},
    upstream::{PolicyError, Tls, TlsMode, TlsVersion},
};

/// What the route grants its filter, in the route's own words.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Grants {
    services: Vec<String>,
    endpoints: bool,
    credentials: Vec<String>,
    paths: Vec<String>,
    loosen_tls: bool,
}

impl Grants {
    /// Whether `path` is one of the granted, each exact or ending in `*`.
    pub(super) fn path(&self, path: &str) -> bool {
        self.paths.iter().any(|granted| granted.strip_suffix('*').map_or(granted == path, |prefix| path.starts_with(prefix)))
    }

    fn credential(&self, name: &str) -> bool {
        self.credentials.iter().any(|granted| granted == name)
    }

    fn tls(&self, tls: &Tls) -> bool {
        let trust = tls.trust.as_deref().filter(|trust| *trust != "system");
        // What loosens depends on what the service registers. Here the strictest service is meant.
        let loosens = tls.mode == Some(TlsMode::Disabled)
            || tls.names.is_some()
            || tls.min_version == Some(TlsVersion::Tls12)
            || tls.trust.as_deref() == Some("system");
        trust.into_iter().chain(tls.certificate.as_deref()).all(|name| self.credential(name)) && (self.loosen_tls || !loosens)
    }
}

/// Makes a choice, where the request's head is here and the route grants it.
fn choose(granted: impl FnOnce(&Grants) -> bool, choice: impl FnOnce(&mut Chosen)) -> Result<(), PolicyError> {
    WORLD.with_borrow_mut(|World { here, gateway, chosen, .. }| match () {
        () if !here.request_line => Err(PolicyError::TooLate),
        () if !granted(&gateway.grants.borrow()) => Err(PolicyError::NotPermitted),
        () => {
            choice(chosen);
            Ok(())
        }
    })
}

pub(crate) fn select_service(name: &str) -> Result<(), PolicyError> {
    // Endpoint and TLS belong to the service, so it is chosen before them.
    if WORLD.with_borrow(|world| world.chosen.endpoint.is_some() || world.chosen.tls.is_some()) {
        return Err(PolicyError::Conflict);
    }
    choose(|grants| grants.services.iter().any(|granted| granted == name), |chosen| chosen.service = Some(name.to_owned()))
}

pub(crate) fn select_endpoint(address: &str, port: u16) -> Result<(), PolicyError> {
    if port == 0 || !is_host(address) {
        return Err(PolicyError::Invalid);
    }
    choose(|grants| grants.endpoints, |chosen| chosen.endpoint = Some((address.to_owned(), port)))
}

pub(crate) fn originate_tls(tls: &Tls) -> Result<(), PolicyError> {
    if tls.mode == Some(TlsMode::Disabled) && *tls != (Tls { mode: tls.mode, ..Tls::default() }) {
        return Err(PolicyError::Conflict);
    }
    if tls.sni.iter().chain(tls.names.iter().flatten()).any(|name| !is_host(name)) {
        return Err(PolicyError::Invalid);
    }
    choose(|grants| grants.tls(tls), |chosen| chosen.tls = Some(over(tls.clone(), chosen.tls.take().unwrap_or_default())))
}

/// What the one says, and where it says nothing the other.
fn over(tls: Tls, before: Tls) -> Tls {
    Tls {
        mode: tls.mode.or(before.mode),
        sni: tls.sni.or(before.sni),
        names: tls.names.or(before.names),
        trust: tls.trust.or(before.trust),
        min_version: tls.min_version.or(before.min_version),
        alpn: tls.alpn.or(before.alpn),
        certificate: tls.certificate.or(before.certificate),
    }
}

fn is_host(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:*".contains(&byte))
}

pub(crate) fn inject_secret(header: &str, credential: &str, prefix: &str) -> Result<(), PolicyError> {
    let header = Headers::writable(header).map_err(|_| PolicyError::Invalid)?;
    super::valid(prefix.as_bytes()).map_err(|_| PolicyError::Invalid)?;
    choose(
        |grants| grants.credential(credential),
        |chosen| {
            chosen.secrets.retain(|secret| secret.header != header.as_str());
            chosen.secrets.push(Secret {
                header: header.as_str().to_owned(),
                credential: credential.to_owned(),
                prefix: prefix.to_owned(),
            });
        },
    )
}

pub(crate) fn send(call: Call) -> Result<Answer, CallError> {
    WORLD.with_borrow_mut(|world| world.calls.push(call.clone()));
    let gateway = gateway();
    let answer = gateway.answers.borrow();
    answer.0.as_ref().map_or(Err(CallError::UnknownTarget), |answer| answer(&call))
}
