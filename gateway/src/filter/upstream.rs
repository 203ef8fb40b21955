//! What filters choose for the way out: other services, endpoints, TLS and secrets, all by name. What may be chosen, and what
//! comes of it, is `upstream::wish`'s; here it is only asked for.

use super::{
    bindings::tidegate::filter::upstream::{self, Alpn, PolicyError, TlsMode, TlsSettings, TlsVersion},
    message::Kind,
    state::State,
};
use crate::upstream::wish::{self, Refusal, Terms, Wish};
use tidegate_policy::service;
use wasmtime::{
    Result,
    component::{HasSelf, Linker},
};

/// Offers the interface `upstream`.
pub(super) fn link(linker: &mut Linker<State>) -> Result<()> {
    upstream::add_to_linker::<_, HasSelf<_>>(linker, |state| state)
}

impl upstream::Host for State {
    fn select_service(&mut self, name: String) -> Result<Result<(), PolicyError>> {
        Ok(self.wish(|wish, terms| wish.select_service(&name, terms)))
    }

    fn select_endpoint(&mut self, address: String, port: u16) -> Result<Result<(), PolicyError>> {
        Ok(self.wish(|wish, terms| wish.select_endpoint(&address, port, terms)))
    }

    fn originate_tls(&mut self, settings: TlsSettings) -> Result<Result<(), PolicyError>> {
        Ok(self.wish(|wish, terms| wish.originate_tls(&wished(settings), terms)))
    }

    fn inject_secret(&mut self, header: String, credential: String, prefix: String) -> Result<Result<(), PolicyError>> {
        Ok(self.wish(|wish, terms| wish.inject_secret(&header, &credential, &prefix, terms)))
    }
}

impl State {
    /// Wishes for something, as long as the request's head is here.
    fn wish(&mut self, make: impl FnOnce(&mut Wish, &Terms<'_>) -> Result<(), Refusal>) -> Result<(), PolicyError> {
        let Self { known, grants, lent, metrics, .. } = self;
        let line = lent.line_mut().filter(|line| line.kind == Kind::Request);
        let (Some(known), Some(line)) = (known, line) else {
            return Err(PolicyError::TooLate);
        };
        let terms = Terms { snapshot: known.snapshot(), credentials: known.credentials(), permit: known.permit(), grants };
        make(line.wish.get_or_insert_default(), &terms).map_err(|refusal| {
            metrics.wishes_refused.add(1);
            match refusal {
                Refusal::UnknownName => PolicyError::UnknownName,
                Refusal::NotPermitted => PolicyError::NotPermitted,
                Refusal::Conflict => PolicyError::Conflict,
                Refusal::Invalid => PolicyError::Invalid,
            }
        })
    }
}

fn wished(settings: TlsSettings) -> wish::TlsSettings {
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
