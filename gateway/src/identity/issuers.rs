//! Verification keys, decoded once per publication, and what a verified token says about its bearer.

use super::invalid;
use crate::fault::Fault;
use foldhash::HashMap;
use jsonwebtoken::{
    Algorithm, AlgorithmFamily, DecodingKey, Header, Validation,
    errors::ErrorKind,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse},
};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use tidegate_policy::{
    Name, Snapshot,
    identity::{Caller, Proof},
    issuer::{ClaimMapping, Issuer},
    workload::FILTERS,
};

/// By how much clocks may differ, in seconds. 30 s: machines that keep time at all are closer than that.
const LEEWAY_SECONDS: u64 = 30;

/// The keys of every issuer, decoded.
#[derive(Debug, Default)]
pub struct Issuers {
    /// Changes whenever any issuer does, so that what was verified before is verified again.
    pub(super) generation: u64,
    by_name: BTreeMap<Name, Arc<Issuer>>,
    by_issuer: HashMap<String, Arc<Verifier>>,
}

#[derive(Debug)]
struct Verifier {
    name: Name,
    keys: Vec<Key>,
    audiences: Vec<String>,
    issuer: String,
    claims: ClaimMapping,
}

struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?}, {:?})", self.id, self.algorithms)
    }
}

impl Issuers {
    /// Decodes the keys of every issuer. Keys that cannot be used (symmetric ones among them) are left out and logged.
    /// Where no issuer changed, `before` goes on, and with it what workers have verified.
    pub fn prepare(snapshot: &Snapshot, before: &Self) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let by_name: BTreeMap<Name, Arc<Issuer>> =
            snapshot.issuers().map(|(name, issuer)| (name.clone(), Arc::clone(issuer))).collect();
        if by_name == before.by_name {
            return Self { generation: before.generation, by_name, by_issuer: before.by_issuer.clone() };
        }
        let by_issuer = by_name
            .iter()
            .map(|(name, issuer)| {
                let verifier = Verifier {
                    name: name.clone(),
                    keys: keys(name, &issuer.jwks),
                    audiences: issuer.audiences.clone(),
                    issuer: issuer.issuer.clone(),
                    claims: issuer.claims.clone(),
                };
                (issuer.issuer.clone(), Arc::new(verifier))
            })
            .collect();
        Self { generation: NEXT.fetch_add(1, Ordering::Relaxed), by_name, by_issuer }
    }

    /// Verifies `token`: its bearer, and when it expires in seconds since 1970.
    pub(super) fn verify(&self, token: &str) -> Result<(Caller, u64), Fault> {
        let not_a_token = || invalid("the token in Proxy-Authorization is not a JSON Web Token");
        let header = jsonwebtoken::decode_header(token).map_err(|_| not_a_token())?;
        // Unverified, and used for nothing but finding the keys to verify with.
        let claimed: Map<String, Value> = jsonwebtoken::dangerous::insecure_decode_claims(token).map_err(|_| not_a_token())?;
        let issuer = claimed.get("iss").and_then(Value::as_str).ok_or_else(|| invalid("the token names no issuer (iss)"))?;
        let verifier = self
            .by_issuer
            .get(issuer)
            .ok_or_else(|| invalid("the token's issuer is not registered: register it, or use another token"))?;
        let claims = verifier.check(token, &header)?;
        let expires = claims.get("exp").and_then(Value::as_f64).map_or(0, |seconds| seconds as u64);
        Ok((verifier.caller(claims), expires))
    }
}

impl Verifier {
    fn check(&self, token: &str, header: &Header) -> Result<Map<String, Value>, Fault> {
        if header.crit.as_ref().is_some_and(|names| !names.is_empty()) {
            return Err(invalid("the token has critical extensions (crit), none of which is understood"));
        }
        let mut validation = Validation::new(header.alg);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_audience(&self.audiences);
        validation.validate_nbf = true;
        validation.leeway = LEEWAY_SECONDS;
        let fits = |key: &&Key| {
            key.algorithms.contains(&header.alg)
                && header.kid.as_ref().is_none_or(|id| key.id.as_ref().is_none_or(|own| own == id))
        };
        let mut failure = None;
        for key in self.keys.iter().filter(fits) {
            match jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, &validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => failure = Some(error),
                Err(error) => return Err(invalid(sentence(error.kind()))),
            }
        }
        match failure {
            Some(error) => Err(invalid(sentence(error.kind()))),
            None => Err(invalid("the token is signed with a key or an algorithm that its issuer's key set does not hold")),
        }
    }

    fn caller(&self, claims: Map<String, Value>) -> Caller {
        let shared = |path: &String| text(&claims, path).map(Arc::from);
        Caller {
            proof: Proof::Token { issuer: self.name.clone() },
            // An issuer says who its callers are, but not that they are one of the gateway's filters.
            principal: shared(&self.claims.principal).filter(|name: &Arc<str>| !name.starts_with(FILTERS)),
            namespace: self.claims.namespace.as_ref().and_then(shared),
            service_account: self.claims.service_account.as_ref().and_then(shared),
            labels: self.claims.labels.iter().filter_map(|(label, path)| Some((label.clone(), text(&claims, path)?))).collect(),
            claims,
        }
    }
}

/// The text of a claim. The name is tried whole, then as a path of which each step may itself hold dots.
fn text(claims: &Map<String, Value>, path: &str) -> Option<String> {
    match claims.get(path) {
        Some(Value::String(text)) => return Some(text.clone()),
        Some(Value::Number(number)) => return Some(number.to_string()),
        Some(Value::Bool(truth)) => return Some(truth.to_string()),
        Some(Value::Null | Value::Array(_) | Value::Object(_)) | None => {}
    }
    path.match_indices('.').find_map(|(at, _)| match claims.get(&path[..at]) {
        Some(Value::Object(inner)) => text(inner, &path[at + 1..]),
        _ => None,
    })
}

fn keys(issuer: &Name, jwks: &Value) -> Vec<Key> {
    let listed = jwks.get("keys").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let usable = listed.iter().enumerate().filter_map(|(index, value)| match key(value) {
        Ok(key) => Some(key),
        Err(why) => {
            tracing::warn!(%issuer, index, why, "a key of an issuer's key set is left out");
            None
        }
    });
    usable.collect()
}

fn key(value: &Value) -> Result<Key, &'static str> {
    let jwk: Jwk = serde_json::from_value(value.clone()).map_err(|_| "it is not a JSON Web Key")?;
    if matches!(jwk.common.public_key_use, Some(PublicKeyUse::Encryption)) {
        return Err("it is for encryption");
    }
    // The algorithm follows from the key, never from the token alone: a public key must not serve as an HMAC secret.
    let mut algorithms = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa.algorithms().to_vec(),
        AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return Err("its curve is neither P-256 nor P-384"),
        },
        AlgorithmParameters::OctetKeyPair(parameters) if parameters.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
        AlgorithmParameters::OctetKeyPair(_) => return Err("its curve is not Ed25519"),
        AlgorithmParameters::OctetKey(_) => return Err("it is symmetric"),
        _ => return Err("its kind is not known"),
    };
    if let Some(stated) = jwk.common.key_algorithm {
        algorithms.retain(|algorithm| format!("{algorithm:?}") == format!("{stated:?}"));
    }
    if algorithms.is_empty() {
        return Err("its `alg` does not fit its kind");
    }
    let key = DecodingKey::from_jwk(&jwk).map_err(|_| "its parameters cannot be read")?;
    Ok(Key { id: jwk.common.key_id, algorithms, key })
}

fn sentence(kind: &ErrorKind) -> String {
    match kind {
        ErrorKind::InvalidSignature => "the token's signature does not hold".to_owned(),
        ErrorKind::ExpiredSignature => "the token has expired: fetch a new one".to_owned(),
        ErrorKind::ImmatureSignature => "the token is not valid yet (nbf): check the clocks".to_owned(),
        ErrorKind::InvalidAudience => "the token is for another audience (aud)".to_owned(),
        ErrorKind::InvalidIssuer => "the token is from another issuer (iss)".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => format!("the token lacks the claim {claim}"),
        _ => "the token cannot be verified".to_owned(),
    }
}

/// How many keys of a key set can be used.
#[cfg(test)]
pub(super) fn usable_keys(jwks: &Value) -> usize {
    keys(&"test".parse().expect("a name"), jwks).len()
}
