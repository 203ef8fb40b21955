//! What filters choose for the way out: other services, endpoints, TLS and secrets, all by name. What may be chosen, and what
//! comes of it, is `upstream::wish`'s; here it is only asked for.

use super::{
    attributes::Known,
    bindings::tidegate::filter::upstream::{Alpn, PolicyError, TlsMode, TlsSettings, TlsVersion},
    limits::Metrics,
    message::{Kind, Line},
    state::State,
};
use crate::upstream::wish::{self, Refusal, Terms, Wish};
use tidegate_policy::{grants::Grants, service};

impl State {
    pub(super) fn select_service(&mut self, name: &str) -> Result<(), PolicyError> {
        self.wish(|wish, terms| wish.select_service(name, terms))
    }

    pub(super) fn select_endpoint(&mut self, address: &str, port: u16) -> Result<(), PolicyError> {
        self.wish(|wish, terms| wish.select_endpoint(address, port, terms))
    }

    pub(super) fn originate_tls(&mut self, settings: TlsSettings) -> Result<(), PolicyError> {
        self.wish(|wish, terms| wish.originate_tls(&tls_settings(settings), terms))
    }

    pub(super) fn inject_secret(&mut self, header: &str, credential: &str, prefix: &str) -> Result<(), PolicyError> {
        self.wish(|wish, terms| wish.inject_secret(header, credential, prefix, terms))
    }

    /// Wishes for something, as long as the request's head is here.
    fn wish(&mut self, make: impl FnOnce(&mut Wish, &Terms<'_>) -> Result<(), Refusal>) -> Result<(), PolicyError> {
        let Self { known, grants, lent, metrics, .. } = self;
        let line = lent.line_mut().filter(|line| line.kind == Kind::Request);
        let (Some(known), Some(line)) = (known, line) else {
            return Err(PolicyError::TooLate);
        };
        wished(known, line, grants, metrics, make).map_err(|refused| match refused {
            Refused::By(Refusal::UnknownName) => PolicyError::UnknownName,
            Refused::By(Refusal::NotPermitted) => PolicyError::NotPermitted,
            Refused::By(Refusal::Conflict) => PolicyError::Conflict,
            Refused::By(Refusal::Invalid) => PolicyError::Invalid,
            Refused::TooLate => PolicyError::TooLate,
        })
    }
}

/// Why a wish came to nothing.
#[derive(Debug, Clone, Copy)]
pub(super) enum Refused {
    By(Refusal),
    /// The request's head has gone on.
    TooLate,
}

impl Refused {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::By(Refusal::UnknownName) => "unknown_name",
            Self::By(Refusal::NotPermitted) => "not_permitted",
            Self::By(Refusal::Conflict) => "conflict",
            Self::By(Refusal::Invalid) => "invalid",
            Self::TooLate => "too_late",
        }
    }
}

/// Makes a wish of the request whose first line this is.
pub(super) fn wished(
    known: &Known,
    line: &mut Line,
    grants: &Grants,
    metrics: &Metrics,
    make: impl FnOnce(&mut Wish, &Terms<'_>) -> Result<(), Refusal>,
) -> Result<(), Refused> {
    let terms = Terms { snapshot: known.snapshot(), credentials: known.credentials(), permit: known.permit(), grants };
    make(line.wish.get_or_insert_default(), &terms).map_err(|refusal| {
        metrics.wishes_refused.add(1);
        Refused::By(refusal)
    })
}

fn tls_settings(settings: TlsSettings) -> wish::TlsSettings {
    let TlsSettings { mode, sni, names, trust, min_version, alpn, certificate } = settings;
    wish::TlsSettings {
        mode: mode.map(|mode| match mode {
            TlsMode::Disabled => service::TlsMode::Disabled,
            TlsMode::Simple => service::TlsMode::Simple,
            TlsMode::Mutual => service::TlsMode::Mutual,
        }),
        sni,
        names,
        trust,
        min_version: min_version.map(|version| match version {
            TlsVersion::Tls12 => service::TlsVersion::V1_2,
            TlsVersion::Tls13 => service::TlsVersion::V1_3,
        }),
        alpn: alpn.map(|offered| {
            let offered = offered.into_iter().map(|protocol| match protocol {
                Alpn::Http11 => service::Alpn::Http1,
                Alpn::H2 => service::Alpn::H2,
            });
            offered.collect()
        }),
        certificate,
    }
}
