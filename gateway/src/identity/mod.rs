//! Who is calling: a bearer token before a client certificate before the source network's workload. Credentials that were
//! brought and do not hold are refused, never overlooked.

pub mod certificate;
mod issuers;
mod networks;
mod token;

pub use issuers::Issuers;
pub use token::{Metrics, Settings, TokenCache};

use crate::{fault::Fault, listen::Peer, live::Live};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::header::PROXY_AUTHORIZATION;
use std::{borrow::Cow, sync::Arc};
use tidegate_policy::{Identity, Reason};

/// Who is calling. Credentials that were brought and do not hold are a fault, never a lesser identity.
/// `Proxy-Authorization` is removed in every case: it never leaves.
///
/// Two schemes are understood: `Bearer <token>` (RFC 6750), and `Basic` (RFC 7617) whose password is the token and whose
/// user name is not looked at, because many clients know no other way to authenticate to a proxy (`curl --proxy-user any:$TOKEN`).
pub fn of(live: &Live, tokens: &TokenCache, peer: &Peer, headers: &mut http::HeaderMap) -> Result<Identity, Fault> {
    let source = peer.address.ip().to_canonical();
    if let Some(token) = brought(headers)? {
        let caller = tokens.caller(&live.issuers, &token)?;
        return Ok(Identity { source, caller });
    }
    if let Some(caller) = &peer.certificate {
        return Ok(Identity { source, caller: Arc::clone(caller) });
    }
    Ok(tokens.networks.caller_at(&live.snapshot, source))
}

/// The token that was brought, if any.
fn brought(headers: &mut http::HeaderMap) -> Result<Option<String>, Fault> {
    if !headers.contains_key(PROXY_AUTHORIZATION) {
        return Ok(None);
    }
    let count = headers.get_all(PROXY_AUTHORIZATION).iter().count();
    let value = headers.remove(PROXY_AUTHORIZATION);
    if count > 1 {
        return Err(invalid("Proxy-Authorization was sent more than once: send one token"));
    }
    let malformed =
        || invalid("Proxy-Authorization is malformed: send `Bearer <token>`, or `Basic` with the token as the password");
    let value = value.ok_or_else(malformed)?;
    let (scheme, rest) = value.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(malformed)?;
    let rest = rest.trim_matches(' ');
    let token = if scheme.eq_ignore_ascii_case("bearer") {
        rest.to_owned()
    } else if scheme.eq_ignore_ascii_case("basic") {
        let decoded = STANDARD.decode(rest).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(malformed)?;
        decoded.split_once(':').map(|(_, password)| password.to_owned()).ok_or_else(malformed)?
    } else {
        return Err(malformed());
    };
    if token.is_empty() { Err(malformed()) } else { Ok(Some(token)) }
}

fn invalid(detail: impl Into<Cow<'static, str>>) -> Fault {
    Fault::new(Reason::CredentialsInvalid, detail)
}

#[cfg(test)]
mod tests;
