//! Where a request wants to go: its target in any of its forms, brought into the one canonical form that is decided on.

use crate::fault::Fault;
use ::http::{HeaderValue, Method, Request, Version, header, uri::Authority};
use std::{cell::RefCell, rc::Rc};
use tidegate_policy::{Host, Reason, Target, target::Form};

/// A target with its authority as it is written in `Host`.
#[derive(Debug, Clone)]
pub struct Canonical {
    /// The target.
    pub target: Target,
    /// Its host, and its port where that is not the scheme's own.
    pub authority: HeaderValue,
}

/// The last target of a connection, by the exact text that named it: most requests of a connection name the same one.
#[derive(Debug, Default)]
pub struct Cache(RefCell<Option<Last>>);

/// What was named, and how.
#[derive(Debug)]
struct Last {
    form: Form,
    text: Vec<u8>,
    canonical: Rc<Canonical>,
}

/// The target of a request: absolute form, origin form by `Host`, authority form for CONNECT, or HTTP/2's
/// pseudo-header fields. A `Host` beside an authority must name the same host and port.
pub fn of<B>(request: &Request<B>, cache: &Cache) -> Result<Rc<Canonical>, Fault> {
    let tunnel = *request.method() == Method::CONNECT;
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    // HTTP/1.1's head was refused for these already (RFC 9112 section 3.2); HTTP/2's codec lets them through.
    if hosts.next().is_some() {
        return Err(malformed("the request has more than one Host field"));
    }
    if request.uri().path() == "*" && *request.method() != Method::OPTIONS {
        return Err(malformed("the target * is for OPTIONS alone"));
    }
    let Some(authority) = request.uri().authority() else {
        let host = host.ok_or_else(|| malformed("the request names no host: it has neither an authority nor a Host field"))?;
        return canonical(Form::Plain, host.as_bytes(), cache);
    };
    let form = match request.uri().scheme_str() {
        _ if tunnel => Form::Tunnel,
        Some("http") => Form::Plain,
        Some("https") => Form::Secure,
        Some(_) => return Err(malformed("only http and https targets are forwarded; use CONNECT for anything else")),
        None if request.version() == Version::HTTP_2 => Form::Plain,
        None => return Err(malformed("the request target has an authority and no scheme")),
    };
    let named = canonical(form, authority.as_str().as_bytes(), cache)?;
    match host {
        Some(host) if host.as_bytes() != authority.as_str().as_bytes() => agree(&named, host, form)?,
        _ => {}
    }
    Ok(named)
}

/// The target of a request that comes through a tunnel to `tunnel`. It must name the same host; a port it does not write
/// is the tunnel's.
pub fn within<B>(request: &Request<B>, cache: &Cache, tunnel: &Target) -> Result<Rc<Canonical>, Fault> {
    if *request.method() == Method::CONNECT {
        return Err(malformed("a tunnel cannot be opened within a tunnel"));
    }
    let named = of(request, cache)?;
    let Target { form, host, port } = &named.target;
    if *form != Form::Plain || *host != tunnel.host || ![tunnel.port, default_port(Form::Plain)].contains(port) {
        let detail = "the request names another host or port than the CONNECT it came through";
        return Err(Fault::new(Reason::AuthorityMismatch, detail));
    }
    if *port == tunnel.port {
        return Ok(named);
    }
    let target = Target { port: tunnel.port, ..named.target.clone() };
    Ok(Rc::new(Canonical { authority: authority_of(&target)?, target }))
}

fn agree(named: &Canonical, host: &HeaderValue, form: Form) -> Result<(), Fault> {
    let other = parse(form, host.as_bytes())?;
    // CONNECT's Host is often written without the port (RFC 9110 section 7.2 says with): the host must agree.
    let port_agrees = other.port == named.target.port || (form == Form::Tunnel && other.port == 0);
    if other.host == named.target.host && port_agrees {
        return Ok(());
    }
    let detail = "the request's authority and its Host field name different hosts or ports";
    Err(Fault::new(Reason::AuthorityMismatch, detail))
}

fn canonical(form: Form, text: &[u8], cache: &Cache) -> Result<Rc<Canonical>, Fault> {
    if let Some(last) = &*cache.0.borrow()
        && last.form == form
        && last.text == text
    {
        return Ok(Rc::clone(&last.canonical));
    }
    let target = parse(form, text)?;
    if target.port == 0 {
        return Err(malformed("a tunnel's target must have a port, as in CONNECT api.example.com:443"));
    }
    let canonical = Rc::new(Canonical { authority: authority_of(&target)?, target });
    *cache.0.borrow_mut() = Some(Last { form, text: text.to_vec(), canonical: Rc::clone(&canonical) });
    Ok(canonical)
}

/// Host and port; a tunnel without a port has port 0.
fn parse(form: Form, text: &[u8]) -> Result<Target, Fault> {
    let authority = Authority::try_from(text).map_err(|_| malformed("the target's authority is not a host and a port"))?;
    if text.contains(&b'@') {
        return Err(malformed("user information in a target is refused"));
    }
    let bare = authority.host();
    let given = &authority.as_str()[bare.len()..];
    let port = match given.strip_prefix(':') {
        None if given.is_empty() => default_port(form),
        Some("") => default_port(form),
        Some(digits) if digits.len() <= 5 && digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err(malformed("the target's port is not one of 1 to 65535")),
        },
        _ => return Err(malformed("the target's port is not one of 1 to 65535")),
    };
    let host: Host = bare.parse().map_err(|detail: String| Fault::new(Reason::MalformedTarget, detail))?;
    Ok(Target { form, host, port })
}

fn default_port(form: Form) -> u16 {
    match form {
        Form::Plain => 80,
        Form::Secure => 443,
        Form::Tunnel => 0,
    }
}

pub(super) fn authority_of(target: &Target) -> Result<HeaderValue, Fault> {
    let host = match &target.host {
        Host::Address(std::net::IpAddr::V6(address)) => format!("[{address}]"),
        host => host.to_string(),
    };
    let text = if target.port == default_port(target.form) { host } else { format!("{host}:{}", target.port) };
    HeaderValue::try_from(text).map_err(|_| malformed("the target's host cannot be written in a Host field"))
}

fn malformed(detail: &'static str) -> Fault {
    Fault::new(Reason::MalformedTarget, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_codec_of_http_2_lets_through_is_refused() {
        let rows = [
            ("http://api.example/v1", &["api.example"][..], true),
            ("http://api.example/v1", &["api.example", "api.example"], false),
            ("http://api.example/v1", &["api.example", "other.example"], false),
            ("/v1", &["api.example", "other.example"], false),
            ("*", &["api.example"], false),
        ];
        for (target, hosts, passes) in rows {
            let mut request = ::http::Request::get(target).version(Version::HTTP_2);
            for host in hosts {
                request = request.header(header::HOST, *host);
            }
            let named = of(&request.body(()).unwrap(), &Cache::default());
            assert_eq!(named.is_ok(), passes, "{target} {hosts:?}");
            assert!(named.is_ok_and(|named| passes && named.authority == "api.example") || !passes);
        }
    }
}
