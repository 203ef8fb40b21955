//! Every way of saying who one is, against real signatures.

use super::*;
use crate::listen::Peer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};
use tidegate_policy::{
    Rows, Snapshot,
    identity::{Caller, Proof},
};

struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

fn elliptic(id: &str) -> Signer {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
    let point = pair.public_key().as_ref();
    let jwk = json!({"kty": "EC", "crv": "P-256", "kid": id, "use": "sig",
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])});
    let der = pair.to_pkcs8v1().expect("a document");
    Signer { algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(der.as_ref()), jwk }
}

fn edwards() -> Signer {
    let pair = Ed25519KeyPair::generate().expect("a key");
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key().as_ref())});
    let der = pair.to_pkcs8v1().expect("a document");
    Signer { algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(der.as_ref()), jwk }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs()
}

impl Signer {
    fn token(&self, change: impl FnOnce(&mut Value)) -> String {
        let mut claims = json!({"iss": "https://issuer.example", "aud": "tidegate", "sub": "checkout", "exp": now() + 600,
            "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "checkout-sa"}}, "team": "payments"});
        change(&mut claims);
        let mut header = Header::new(self.algorithm);
        header.kid = self.jwk["kid"].as_str().map(str::to_owned);
        encode(&header, &claims, &self.key).expect("a token")
    }
}

fn live(keys: &[&Value], audience: &str, before: &Live) -> Live {
    let issuer = json!({"issuer": "https://issuer.example", "audiences": [audience], "jwks": {"keys": keys},
        "claims": {"namespace": "kubernetes.io.namespace", "service_account": "kubernetes.io.serviceaccount.name", "labels": {"team": "team"}}});
    let workload = json!({"networks": ["10.1.0.0/16"], "principal": "by-network"});
    let mut rows = Rows::default();
    rows.issuers.insert("main".parse().expect("a name"), Arc::new(serde_json::from_value(issuer).expect("an issuer")));
    rows.workloads.insert("pods".parse().expect("a name"), Arc::new(serde_json::from_value(workload).expect("a workload")));
    let snapshot = Snapshot::compile(&rows).expect("a snapshot");
    Live { issuers: Issuers::prepare(&snapshot, &before.issuers), snapshot: Arc::new(snapshot), ..Live::default() }
}

fn peer(certificate: Option<Caller>) -> Peer {
    let address: SocketAddr = "10.1.2.3:4567".parse().expect("an address");
    Peer { address, local: address, certificate: certificate.map(Arc::new), server_name: None }
}

fn with(values: &[String]) -> HeaderMap {
    values.iter().map(|value| (PROXY_AUTHORIZATION, HeaderValue::from_str(value).expect("a value"))).collect()
}

fn bearer(live: &Live, cache: &TokenCache, token: &str) -> Result<Identity, Fault> {
    of(live, cache, &peer(None), &mut with(&[format!("Bearer {token}")]))
}

#[test]
fn token_before_certificate_before_network() {
    let signer = elliptic("one");
    let (live, cache) = (live(&[&signer.jwk], "tidegate", &Live::default()), TokenCache::default());
    let certificate = Caller { proof: Proof::Certificate, principal: Some("by-certificate".into()), ..Caller::default() };
    let principal = |peer: &Peer, headers: &mut HeaderMap| {
        let identity = of(&live, &cache, peer, headers).expect("an identity");
        assert!(!headers.contains_key(PROXY_AUTHORIZATION));
        identity.caller.principal.as_deref().map(str::to_owned)
    };
    let token = signer.token(|_| {});
    assert_eq!(
        principal(&peer(Some(certificate.clone())), &mut with(&[format!("bearer  {token}")])).as_deref(),
        Some("checkout")
    );
    assert_eq!(principal(&peer(Some(certificate)), &mut HeaderMap::new()).as_deref(), Some("by-certificate"));
    assert_eq!(principal(&peer(None), &mut HeaderMap::new()).as_deref(), Some("by-network"));
}

#[test]
fn claims_say_who_it_is() {
    for signer in [elliptic("one"), edwards()] {
        let live = live(&[&signer.jwk], "tidegate", &Live::default());
        let caller = bearer(&live, &TokenCache::default(), &signer.token(|_| {})).expect("an identity").caller;
        assert_eq!(caller.proof, Proof::Token { issuer: "main".parse().expect("a name") });
        assert_eq!((caller.namespace.as_deref(), caller.service_account.as_deref()), (Some("shop"), Some("checkout-sa")));
        assert_eq!(caller.labels["team"], "payments");
        assert_eq!(caller.claims["aud"], "tidegate");
    }
}

#[test]
fn the_password_of_basic_may_be_the_token() {
    let signer = elliptic("one");
    let live = live(&[&signer.jwk], "tidegate", &Live::default());
    let value = format!("Basic {}", STANDARD.encode(format!("anyone:{}", signer.token(|_| {}))));
    let identity = of(&live, &TokenCache::default(), &peer(None), &mut with(&[value])).expect("an identity");
    assert_eq!(identity.caller.principal.as_deref(), Some("checkout"));
}

#[test]
fn what_does_not_hold_is_refused_and_removed() {
    let (signer, other) = (elliptic("one"), elliptic("one"));
    let live = live(&[&signer.jwk], "tidegate", &Live::default());
    let good = signer.token(|_| {});
    let cut = &good[..good.len() - 6];
    let secret = encode(
        &Header::new(Algorithm::HS256),
        &json!({"iss": "https://issuer.example", "aud": "tidegate", "sub": "x", "exp": now() + 600}),
        &EncodingKey::from_secret(signer.jwk["x"].as_str().expect("text").as_bytes()),
    );
    let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), good.split('.').nth(1).expect("claims"));
    let cases: Vec<(&str, Vec<String>)> = vec![
        ("more than once", vec![format!("Bearer {good}"), format!("Bearer {good}")]),
        ("malformed", vec![format!("Digest {good}")]),
        ("malformed", vec!["Bearer".to_owned()]),
        ("malformed", vec!["Bearer ".to_owned()]),
        ("malformed", vec!["Basic !!!".to_owned()]),
        ("not a JSON Web Token", vec!["Bearer nonsense".to_owned()]),
        ("not a JSON Web Token", vec![format!("Bearer {unsigned}")]),
        ("signature", vec![format!("Bearer {}", other.token(|_| {}))]),
        ("signature", vec![format!("Bearer {cut}")]),
        ("key or an algorithm", vec![format!("Bearer {}", secret.expect("a token"))]),
        ("key or an algorithm", vec![format!("Bearer {}", elliptic("two").token(|_| {}))]),
        ("not registered", vec![format!("Bearer {}", signer.token(|claims| claims["iss"] = json!("https://else.example")))]),
        ("names no issuer", vec![format!("Bearer {}", signer.token(|claims| claims["iss"] = Value::Null))]),
        ("audience", vec![format!("Bearer {}", signer.token(|claims| claims["aud"] = json!("else")))]),
        ("expired", vec![format!("Bearer {}", signer.token(|claims| claims["exp"] = json!(now() - 60)))]),
        ("not valid yet", vec![format!("Bearer {}", signer.token(|claims| claims["nbf"] = json!(now() + 60)))]),
        (
            "lacks the claim exp",
            vec![format!("Bearer {}", signer.token(|claims| drop(claims.as_object_mut().and_then(|all| all.remove("exp")))))],
        ),
    ];
    for (expected, values) in cases {
        let mut headers = with(&values);
        let fault = of(&live, &TokenCache::default(), &peer(None), &mut headers).expect_err(expected);
        assert_eq!(fault.reason(), Reason::CredentialsInvalid, "{expected}");
        assert!(fault.detail().contains(expected), "{expected}: {fault}");
        assert!(!fault.detail().contains(&good[..20]), "no token in a sentence: {fault}");
        assert!(!headers.contains_key(PROXY_AUTHORIZATION), "{expected}");
    }
}

#[test]
fn clocks_may_differ_a_little() {
    let signer = elliptic("one");
    let live = live(&[&signer.jwk], "tidegate", &Live::default());
    let token = signer.token(|claims| claims["exp"] = json!(now() - 5));
    bearer(&live, &TokenCache::default(), &token).expect("within the leeway");
}

#[test]
fn symmetric_and_unknown_keys_are_left_out() {
    let signer = elliptic("one");
    let snapshot_keys = [json!({"kty": "oct", "k": "c2VjcmV0"}), json!({"kty": "odd"}), signer.jwk.clone()];
    let jwks = json!({"keys": snapshot_keys});
    assert_eq!(issuers::usable_keys(&jwks), 1);
}

#[test]
fn a_token_is_verified_once_until_issuers_change() {
    let signer = elliptic("one");
    let metrics = Arc::new(Metrics::default());
    let cache = TokenCache::new(Settings { tokens: 2, ..Settings::default() }, Arc::clone(&metrics));
    let first = live(&[&signer.jwk], "tidegate", &Live::default());
    let token = signer.token(|_| {});
    for _ in 0..3 {
        bearer(&first, &cache, &token).expect("an identity");
    }
    assert_eq!((metrics.tokens_verified.value(), metrics.tokens_cached.value()), (1, 2));
    let same = live(&[&signer.jwk], "tidegate", &first);
    bearer(&same, &cache, &token).expect("an identity");
    assert_eq!(metrics.tokens_verified.value(), 1, "nothing about issuers changed");

    for index in 0..10 {
        bearer(&same, &cache, &signer.token(|claims| claims["n"] = json!(index))).expect("an identity");
        assert!(metrics.tokens_remembered.value() <= 2);
    }
    bearer(&same, &cache, &token).expect("an identity");
    let changed = live(&[&signer.jwk], "another", &same);
    bearer(&changed, &cache, &token).expect_err("another audience now");
}
