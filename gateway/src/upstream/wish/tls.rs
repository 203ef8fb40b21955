//! How a filter's settings change what a service registers of TLS, and which changes loosen it.

use super::{Going, Refusal, Terms, granted};
use crate::upstream::tls::unsaid;
use tidegate_policy::{
    Host, Name,
    credential::CredentialKind,
    service::{Alpn, Protocol, Service, Tls, TlsMode, TlsVersion, Trust},
    target::Form,
};

/// Names that one certificate may bear, of which a filter may list that many: public authorities issue none with more than a hundred.
const NAMES: usize = 100;

/// What a filter wants changed; an absent field is as it was.
#[derive(Debug, Clone, Default)]
pub struct TlsSettings {
    /// Whether and how; `Passthrough` is for no filter to choose.
    pub mode: Option<TlsMode>,
    /// The server name that is sent.
    pub sni: Option<String>,
    /// Names of which the certificate must bear one; none means the server name sent.
    pub names: Option<Vec<String>>,
    /// A credential of kind `trust`, or `system`.
    pub trust: Option<String>,
    /// The lowest version.
    pub min_version: Option<TlsVersion>,
    /// Protocols offered, in order.
    pub alpn: Option<Vec<Alpn>>,
    /// A credential of kind `certificate`.
    pub certificate: Option<String>,
}

impl TlsSettings {
    /// Whether it says anything that only TLS has.
    fn asks_for_tls(&self) -> bool {
        let Self { mode: _, sni, names, trust, min_version, alpn, certificate } = self;
        sni.is_some() || names.is_some() || trust.is_some() || min_version.is_some() || alpn.is_some() || certificate.is_some()
    }
}

/// What TLS to `going` is to be: `settings` over what was wished `before`, over what the service registers.
pub(super) fn changed(
    settings: &TlsSettings,
    going: &Going<'_>,
    before: Option<&Tls>,
    terms: &Terms<'_>,
) -> Result<Tls, Refusal> {
    let registered = going.service.and_then(|service| service.tls.clone()).unwrap_or_else(unsaid);
    if settings.mode == Some(TlsMode::Disabled) {
        return disabled(settings, going, registered, terms);
    }
    let encrypted = matches!(going.port.protocol, Protocol::Https | Protocol::Grpc);
    if !encrypted || settings.mode == Some(TlsMode::Passthrough) {
        return Err(Refusal::Conflict);
    }
    let mut tls = match before {
        Some(before) if before.mode != TlsMode::Disabled => before.clone(),
        // Where a filter before turned TLS off, its settings mean nothing; who turns it on begins with what is registered.
        Some(_) if settings.mode.is_none() => return Err(Refusal::Conflict),
        Some(_) | None => registered.clone(),
    };
    if let Some(mode) = settings.mode {
        tls.mode = mode;
    }
    if !matches!(tls.mode, TlsMode::Simple | TlsMode::Mutual) {
        return Err(Refusal::Conflict);
    }
    names(settings, going, &registered, terms, &mut tls)?;
    trust(settings, &registered, terms, &mut tls)?;
    certificate(settings, &registered, terms, &mut tls)?;
    if let Some(version) = settings.min_version {
        permit(version >= registered.min_version || terms.grants.loosen_tls)?;
        tls.min_version = version;
    }
    if let Some(alpn) = &settings.alpn {
        tls.alpn.clear();
        for protocol in alpn {
            if !tls.alpn.contains(protocol) {
                tls.alpn.push(*protocol);
            }
        }
        if going.port.protocol == Protocol::Grpc && !alpn.is_empty() && !alpn.contains(&Alpn::H2) {
            return Err(Refusal::Conflict);
        }
    }
    Ok(tls)
}

fn disabled(settings: &TlsSettings, going: &Going<'_>, registered: Tls, terms: &Terms<'_>) -> Result<Tls, Refusal> {
    // Whoever asks for an https URL is promised TLS, whatever the route grants.
    if settings.asks_for_tls() || going.target.form == Form::Secure {
        return Err(Refusal::Conflict);
    }
    let encrypted = matches!(going.port.protocol, Protocol::Https | Protocol::Grpc);
    let originated = encrypted && matches!(registered.mode, TlsMode::Simple | TlsMode::Mutual);
    permit(!originated || terms.grants.loosen_tls)?;
    Ok(Tls { mode: TlsMode::Disabled, certificate: None, ..registered })
}

/// The server name and those that the certificate may bear. Where no names are listed the one that is sent is verified, so
/// changing that changes both.
fn names(settings: &TlsSettings, going: &Going<'_>, registered: &Tls, terms: &Terms<'_>, tls: &mut Tls) -> Result<(), Refusal> {
    if settings.sni.is_none() && settings.names.is_none() {
        return Ok(());
    }
    let host = |text: &String| text.parse::<Host>().map_err(|_| Refusal::Invalid);
    if let Some(sni) = &settings.sni {
        let sni = host(sni)?;
        // RFC 6066 section 3: a server name is no address.
        if matches!(sni, Host::Address(_)) {
            return Err(Refusal::Invalid);
        }
        tls.sni = Some(sni);
    }
    if let Some(names) = &settings.names {
        tls.names.clear();
        for name in names {
            let name = host(name)?;
            if tls.names.contains(&name) {
                continue;
            }
            if tls.names.len() == NAMES {
                return Err(Refusal::Conflict);
            }
            tls.names.push(name);
        }
    }
    let sent = tls.sni.as_ref().unwrap_or(&going.target.host);
    let verified = if tls.names.is_empty() { std::slice::from_ref(sent) } else { tls.names.as_slice() };
    let own = verified.iter().all(|name| is_own(name, registered, going.service, &going.target.host));
    permit(own || terms.grants.loosen_tls)
}

/// Whether `name` is one that the service's certificate may bear by its own document: a listed one, else the server name
/// that the document sends, else the requested host or any other host of the service.
fn is_own(name: &Host, registered: &Tls, service: Option<&Service>, requested: &Host) -> bool {
    match (&registered.names[..], &registered.sni) {
        ([], None) => name == requested || service.is_some_and(|service| service.hosts.iter().any(|host| host.matches(name))),
        ([], Some(sni)) => name == sni,
        (names, _) => names.contains(name),
    }
}

fn trust(settings: &TlsSettings, registered: &Tls, terms: &Terms<'_>, tls: &mut Tls) -> Result<(), Refusal> {
    let Some(text) = &settings.trust else { return Ok(()) };
    tls.trust = match (text.as_str(), &registered.trust) {
        ("system", own) => {
            permit(*own == Trust::System || terms.grants.loosen_tls)?;
            Trust::System
        }
        (name, Trust::Credential(own)) if own.as_str() == name => registered.trust.clone(),
        (name, _) => Trust::Credential(granted(name, CredentialKind::Trust, terms)?),
    };
    Ok(())
}

fn certificate(settings: &TlsSettings, registered: &Tls, terms: &Terms<'_>, tls: &mut Tls) -> Result<(), Refusal> {
    if let Some(name) = &settings.certificate {
        tls.certificate = match registered.certificate.as_ref().filter(|own| own.as_str() == name) {
            Some(own) => Some(own.clone()),
            None => Some(granted(name, CredentialKind::Certificate, terms)?),
        };
    }
    match (tls.mode, &tls.certificate) {
        (TlsMode::Mutual, None) => Err(Refusal::Conflict),
        (TlsMode::Simple, Some(_)) if settings.certificate.is_some() => Err(Refusal::Conflict),
        (TlsMode::Simple, Some::<Name>(_)) => {
            tls.certificate = None;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn permit(permitted: bool) -> Result<(), Refusal> {
    if permitted { Ok(()) } else { Err(Refusal::NotPermitted) }
}
