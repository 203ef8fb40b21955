//! An issuer of JSON Web Tokens: signs with ES256, publishes its key as a JSON Web Key Set.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// An issuer of tokens.
pub struct TokenIssuer {
    key: EcdsaKeyPair,
    /// What it calls itself.
    pub name: String,
}

impl TokenIssuer {
    /// A new issuer with a key of its own.
    pub fn new(name: &str) -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let document = document.expect("a key can be made");
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).expect("a key of our own");
        Self { key, name: name.to_owned() }
    }

    /// Its public key, as an issuer's `jwks`.
    pub fn jwks(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let coordinate = |range| URL_SAFE_NO_PAD.encode(&point[range]);
        json!({"keys": [{
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "test-1",
            "x": coordinate(1..33), "y": coordinate(33..65),
        }]})
    }

    /// What an operator registers: this issuer, tokens for `tidegate`, and what its claims mean.
    pub fn document(&self) -> Value {
        json!({
            "issuer": self.name, "audiences": ["tidegate"], "jwks": self.jwks(),
            "claims": {"principal": "sub", "namespace": "namespace", "service_account": "service_account",
                       "labels": {"app": "app"}},
        })
    }

    /// A token for `principal` that is good for an hour.
    pub fn token(&self, principal: &str) -> String {
        self.sign(&json!({
            "iss": self.name, "aud": "tidegate", "sub": principal, "namespace": "shop", "app": "checkout",
            "exp": seconds_from_now(3600),
        }))
    }

    /// A token for `principal` that ran out an hour ago.
    pub fn expired(&self, principal: &str) -> String {
        self.sign(&json!({"iss": self.name, "aud": "tidegate", "sub": principal, "exp": seconds_from_now(-3600)}))
    }

    /// A token for `principal` that is meant for somebody else.
    pub fn for_another_audience(&self, principal: &str) -> String {
        self.sign(&json!({"iss": self.name, "aud": "elsewhere", "sub": principal, "exp": seconds_from_now(3600)}))
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        let head = json!({"alg": "ES256", "typ": "JWT", "kid": "test-1"});
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(head.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).expect("a key signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn seconds_from_now(offset: i64) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs();
    now.saturating_add_signed(offset)
}
