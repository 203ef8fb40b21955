//! An issuer: whose JSON Web Tokens are believed.

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
