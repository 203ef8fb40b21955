//! An issuer: whose JSON Web Tokens are believed.

use crate::Mistake;
use std::collections::BTreeMap;

/// Whose JSON Web Tokens (RFC 7519) are believed, and what their claims mean.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Issuer {
    /// The `iss` claim, exactly. No two issuers may share it.
    pub issuer: String,
    /// Audiences, of which one must be in `aud`. At least one.
    pub audiences: Vec<String>,
    /// The public keys, as a JSON Web Key Set (RFC 7517). Symmetric and private keys are refused.
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub jwks: serde_json::Value,
    /// How claims map to the caller's identity.
    #[serde(default)]
    pub claims: ClaimMapping,
}

/// Which claims say who the caller is. A dotted name walks into objects (`kubernetes.io` is tried whole first).
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimMapping {
    /// The claim that holds the principal.
    pub principal: String,
    /// The claim that holds the namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The claim that holds the service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Labels by name, each from a claim.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Default for ClaimMapping {
    fn default() -> Self {
        Self { principal: "sub".to_owned(), namespace: None, service_account: None, labels: BTreeMap::new() }
    }
}

impl Issuer {
    /// What is wrong with it by itself.
    pub(crate) fn check(&self) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        if self.issuer.is_empty() {
            mistakes.push(Mistake::at("/issuer", "is empty: write the `iss` claim of the tokens, exactly"));
        }
        if self.audiences.is_empty() {
            let detail = "name at least one audience, or any token of this issuer would be believed";
            mistakes.push(Mistake::at("/audiences", detail));
        }
        if self.claims.principal.is_empty() {
            mistakes.push(Mistake::at("/claims/principal", "is empty: name the claim that holds the principal, such as sub"));
        }
        match self.jwks.get("keys").and_then(serde_json::Value::as_array) {
            Some(keys) if !keys.is_empty() => {
                mistakes.extend(
                    keys.iter()
                        .enumerate()
                        .filter_map(|(at, key)| check_key(key).map(|why| Mistake::at(format!("/jwks/keys/{at}"), why))),
                );
            }
            _ => mistakes.push(Mistake::at("/jwks", "is not a key set: write {\"keys\": [...]} with at least one public key")),
        }
        mistakes
    }
}

/// Why a key is refused. The reason never shows what is in it.
fn check_key(key: &serde_json::Value) -> Option<&'static str> {
    let kind = key.get("kty").and_then(serde_json::Value::as_str);
    match kind {
        None => Some("is not a key: it has no `kty` (RFC 7517 section 4.1)"),
        Some("oct") => Some("is symmetric: whoever verifies with it could also sign; use an asymmetric key"),
        Some(_) if ["d", "p", "q", "k"].iter().any(|field| key.get(field).is_some()) => {
            Some("holds the private key: replace it, since it has been sent here, and send only the public half")
        }
        Some(_) => None,
    }
}
