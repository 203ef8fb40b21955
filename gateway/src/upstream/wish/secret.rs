//! Secrets on their way into a request: written right before it is sent, gone from it as soon as the attempt is over.

use super::{Injection, Wish};
use crate::{credentials::Credentials, fault::Fault, http::Request, upstream::Connection};
use ::http::{HeaderValue, Method};
use bytes::Bytes;
use tidegate_policy::{Reason, credential::Credential};

/// A request that carries secrets, for as long as one attempt at sending it lasts.
#[derive(Debug)]
pub struct Carrying<'a> {
    request: &'a mut Request,
    wish: &'a Wish,
}

impl Wish {
    /// Writes the secrets into `request`, whose connection is to be `connection`.
    ///
    /// # Errors
    /// The connection is not one of TLS whose server was verified, the request would be echoed, or a secret is not there.
    pub fn carry<'a>(
        &'a self,
        request: &'a mut Request,
        connection: &Connection,
        credentials: &Credentials,
    ) -> Result<Carrying<'a>, Fault> {
        if connection.facts.tls_peer.is_none() {
            let detail = "a filter has a secret sent with this request, and it would leave in plaintext: \
                          originate TLS to the service, or keep the filter from its route";
            return Err(Fault::new(Reason::SecretExposed, detail));
        }
        if is_echoed(request.method()) {
            let method = request.method();
            let detail = format!("a filter has a secret sent with this request, and the answer to {method} would show it");
            return Err(Fault::new(Reason::SecretExposed, detail));
        }
        // From here on the guard's drop takes out whatever was written, whichever way the attempt ends.
        let carrying = Carrying { request, wish: self };
        for injection in &self.secrets {
            let value = injection.value(credentials).ok_or_else(|| {
                let detail = format!("the secret {} cannot be sent as a header: see its credential", injection.credential);
                Fault::new(Reason::Internal, detail)
            })?;
            carrying.request.headers_mut().insert(injection.header.clone(), value);
        }
        Ok(carrying)
    }
}

/// Whether a server answers with the request it got, so that the caller would read the secret: TRACE (RFC 9110 section 9.3.8),
/// and what IIS takes for the same.
fn is_echoed(method: &Method) -> bool {
    method == Method::TRACE || method.as_str().eq_ignore_ascii_case("TRACK")
}

impl Carrying<'_> {
    /// The request as it is sent.
    pub fn request(&mut self) -> &mut Request {
        self.request
    }
}

impl Drop for Carrying<'_> {
    fn drop(&mut self) {
        for injection in &self.wish.secrets {
            self.request.headers_mut().remove(&injection.header);
        }
    }
}

impl Injection {
    /// The header's value, marked so that no Debug output shows it and HTTP/2 keeps it in no table (RFC 7541 section 7.1.3).
    /// None where there is no such secret, or it holds what no header can.
    pub(super) fn value(&self, credentials: &Credentials) -> Option<HeaderValue> {
        let Some(Credential::Secret { value }) = credentials.find(self.credential.as_str()) else { return None };
        let text = [self.prefix.as_bytes(), value.reveal().as_bytes()].concat();
        let mut value = HeaderValue::from_maybe_shared(Bytes::from(text)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}
