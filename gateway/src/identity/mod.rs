//! Who is calling: a bearer token before a client certificate before the source network's workload.

use crate::{fault::Fault, listen::Peer, live::Live};

use std::cell::RefCell;
use tidegate_policy::Identity;

/// The keys of every issuer, decoded.
#[derive(Debug, Default)]
pub struct Issuers;

/// Tokens that were verified, by their text's digest, so that a token is verified once per worker and lifetime.
#[derive(Debug, Default)]
pub struct TokenCache {
    #[expect(dead_code, reason = "filled in with the verification")]
    verified: RefCell<std::collections::HashMap<[u8; 32], ()>>,
}

/// Who is calling. Credentials that were brought and do not hold are a fault, never a lesser identity.
/// A header that was used is removed: `Proxy-Authorization` never leaves.
pub fn of(_live: &Live, _tokens: &TokenCache, _peer: &Peer, _headers: &mut ::http::HeaderMap) -> Result<Identity, Fault> {
    unimplemented!()
}
