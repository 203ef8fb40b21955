//! Every case of a refusal, and what a wish comes to.

use super::*;
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::SystemTime};
use tidegate_policy::{
    Identity, Request, Rows,
    service::{Alpn, TlsMode, TlsVersion, Trust},
    target::Form,
};

/// What wishes are held against, with grants to borrow.
struct Setting {
    snapshot: Snapshot,
    credentials: Credentials,
    permit: Permit,
    grants: Grants,
}

impl Setting {
    fn new(form: Form, host: &str, port: u16, grants: Value) -> Self {
        let mut rows = Rows::default();
        for (name, document) in services().as_object().expect("services") {
            let document = serde_json::from_value(document.clone()).expect("a service");
            rows.services.insert(name.parse().expect("a name"), Arc::new(document));
        }
        rows.rules.insert(
            "all".parse().expect("a name"),
            Arc::new(serde_json::from_value(json!({"action": "allow"})).expect("a rule")),
        );
        let credentials = credentials();
        rows.credentials = credentials.iter().map(|(name, credential)| (name.clone(), credential.kind())).collect();
        let snapshot = Snapshot::compile(&rows).expect("a snapshot");
        let target = Target { form, host: host.parse().expect("a host"), port };
        let (method, headers) = (::http::Method::GET, ::http::HeaderMap::new());
        let time = SystemTime::UNIX_EPOCH;
        let request = Request { target: &target, method: &method, path: "/", query: None, headers: &headers, time };
        let permit = snapshot.decide(&Identity::unknown(IpAddr::from([10, 0, 0, 1])), &request).expect("a permit");
        let grants = serde_json::from_value(grants).expect("grants");
        Self { snapshot, credentials: Credentials::of(&credentials), permit, grants }
    }

    fn terms(&self) -> Terms<'_> {
        let Self { snapshot, credentials, permit, grants } = self;
        Terms { snapshot, credentials, permit, grants }
    }
}

fn services() -> Value {
    let port = |number: u16, protocol: &str| json!([{"number": number, "protocol": protocol}]);
    let endpoints = json!([{"address": "192.0.2.1", "port": 8443}, {"address": "b.example"}]);
    json!({
        "bare": {"hosts": ["bare.example", "*.bare.example"], "ports": port(443, "https"), "resolution": "forward"},
        "full": {"hosts": ["full.example"], "ports": port(443, "https"), "endpoints": endpoints,
            "tls": {"mode": "mutual", "sni": "front.example", "names": ["one.example", "two.example"], "trust": "ca",
                "certificate": "own", "min_version": "1.3"}},
        "clear": {"hosts": ["clear.example"], "ports": port(443, "http")},
        "rpc": {"hosts": ["rpc.example"], "ports": port(443, "grpc"), "tls": {"mode": "disabled"}},
        "wild": {"hosts": ["*.wild.example"], "ports": port(443, "https"), "resolution": "forward"},
    })
}

fn credentials() -> BTreeMap<Name, Arc<Credential>> {
    let certificate = || Credential::Certificate { chain: "chain".to_owned(), key: "key".to_owned().into() };
    let secret = |text: &str| Credential::Secret { value: text.to_owned().into() };
    let all = [
        ("ca", Credential::Trust { pem: "one".to_owned() }),
        ("other-ca", Credential::Trust { pem: "two".to_owned() }),
        ("own", certificate()),
        ("tenant", certificate()),
        ("key", secret("s3cret")),
        ("broken", secret("two\nlines")),
    ];
    all.into_iter().map(|(name, credential)| (name.parse().expect("a name"), Arc::new(credential))).collect()
}

fn everything() -> Value {
    let services = ["bare", "full", "clear", "rpc", "wild"];
    json!({"services": services, "endpoints": true, "credentials": ["ca", "other-ca", "own", "tenant", "key", "broken"], "loosen_tls": true})
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn texts(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|text| (*text).to_owned()).collect())
}

fn mode(mode: TlsMode) -> TlsSettings {
    TlsSettings { mode: Some(mode), ..TlsSettings::default() }
}

/// What the settings come to on `host`, with and without `grants`.
fn tls(host: &str, grants: Value, settings: &TlsSettings) -> Result<Tls, Refusal> {
    let setting = Setting::new(Form::Plain, host, 443, grants);
    let mut wish = Wish::default();
    wish.originate_tls(settings, &setting.terms())?;
    Ok(*wish.tls.expect("TLS settings"))
}

#[test]
fn what_loosens_needs_its_grant_and_what_tightens_needs_none() {
    use Refusal::NotPermitted;
    let loosened = [
        ("bare.example", mode(TlsMode::Disabled)),
        ("full.example", mode(TlsMode::Disabled)),
        ("full.example", TlsSettings { min_version: Some(TlsVersion::V1_2), ..TlsSettings::default() }),
        ("full.example", TlsSettings { names: texts(&["one.example", "three.example"]), ..TlsSettings::default() }),
        // Without names the one that is sent is verified.
        ("full.example", TlsSettings { names: texts(&[]), sni: text("three.example"), ..TlsSettings::default() }),
        ("full.example", TlsSettings { trust: text("system"), ..TlsSettings::default() }),
        ("bare.example", TlsSettings { sni: text("else.example"), ..TlsSettings::default() }),
        ("bare.example", TlsSettings { names: texts(&["else.example"]), ..TlsSettings::default() }),
        ("rpc.example", TlsSettings { names: texts(&["else.example"]), ..mode(TlsMode::Simple) }),
    ];
    for (host, settings) in &loosened {
        let all_but = json!({"services": ["bare"], "endpoints": true, "credentials": ["ca", "own", "tenant"]});
        assert_eq!(tls(host, all_but, settings), Err(NotPermitted), "{host} {settings:?}");
        assert!(tls(host, json!({"loosen_tls": true}), settings).is_ok(), "{host} {settings:?}");
    }
    let free = [
        ("bare.example", TlsSettings { min_version: Some(TlsVersion::V1_3), ..TlsSettings::default() }),
        ("bare.example", TlsSettings { sni: text("tenant.bare.example"), ..TlsSettings::default() }),
        ("bare.example", TlsSettings { trust: text("system"), ..mode(TlsMode::Simple) }),
        ("full.example", TlsSettings { names: texts(&["two.example"]), sni: text("three.example"), ..TlsSettings::default() }),
        ("full.example", TlsSettings { trust: text("ca"), certificate: text("own"), ..mode(TlsMode::Mutual) }),
        ("full.example", TlsSettings { alpn: Some(vec![Alpn::Http1, Alpn::Http1]), ..mode(TlsMode::Simple) }),
        ("clear.example", mode(TlsMode::Disabled)),
        ("rpc.example", mode(TlsMode::Disabled)),
        ("rpc.example", mode(TlsMode::Simple)),
    ];
    for (host, settings) in &free {
        assert!(tls(host, json!({}), settings).is_ok(), "{host} {settings:?}: {:?}", tls(host, json!({}), settings));
    }
}

#[test]
fn names_are_kept_once_and_no_more_than_a_certificate_has() {
    let named = |names: Vec<String>| {
        let settings = TlsSettings { names: Some(names), ..TlsSettings::default() };
        tls("bare.example", json!({"loosen_tls": true}), &settings).map(|tls| tls.names.len())
    };
    let numbered = |count: usize| (0..count).map(|number| format!("n{number}.example"));
    assert_eq!(named(numbered(100).collect()), Ok(100));
    assert_eq!(named(numbered(100).flat_map(|name| vec![name; 1000]).collect()), Ok(100), "each of them once");
    assert_eq!(named(numbered(101).collect()), Err(Refusal::Conflict));
}

#[test]
fn credentials_are_used_where_they_are_granted() {
    let tenant = TlsSettings { certificate: text("tenant"), ..mode(TlsMode::Mutual) };
    let granted = || json!({"credentials": ["tenant", "other-ca"]});
    assert_eq!(tls("bare.example", json!({"credentials": ["own"]}), &tenant), Err(Refusal::NotPermitted));
    let made = tls("bare.example", granted(), &tenant).expect("it is granted");
    assert_eq!((made.mode, made.certificate.as_ref().map(Name::as_str)), (TlsMode::Mutual, Some("tenant")));
    let trust = TlsSettings { trust: text("other-ca"), ..TlsSettings::default() };
    assert_eq!(tls("full.example", json!({"loosen_tls": true}), &trust), Err(Refusal::NotPermitted));
    let made = tls("full.example", granted(), &trust).expect("it is granted");
    assert_eq!(made.trust, Trust::Credential("other-ca".parse().expect("a name")));
    assert_eq!((made.sni.map(|sni| sni.to_string()).as_deref(), made.min_version), (Some("front.example"), TlsVersion::V1_3));
    for (trust, certificate) in
        [("gone", "tenant"), ("tenant", "tenant"), ("other-ca", "gone"), ("other-ca", "key"), ("Ä", "tenant")]
    {
        let wrong = TlsSettings { trust: text(trust), certificate: text(certificate), ..mode(TlsMode::Mutual) };
        assert_eq!(tls("bare.example", everything(), &wrong), Err(Refusal::UnknownName), "{trust} {certificate}");
    }
}

#[test]
fn what_contradicts_or_makes_no_sense_is_refused_whatever_is_granted() {
    use Refusal::{Conflict, Invalid};
    let rows = [
        ("bare.example", TlsSettings { certificate: text("tenant"), ..TlsSettings::default() }, Conflict),
        ("bare.example", TlsSettings { certificate: text("tenant"), ..mode(TlsMode::Simple) }, Conflict),
        ("bare.example", TlsSettings { certificate: text("tenant"), ..mode(TlsMode::Disabled) }, Conflict),
        ("bare.example", mode(TlsMode::Mutual), Conflict),
        ("bare.example", mode(TlsMode::Passthrough), Conflict),
        ("clear.example", mode(TlsMode::Simple), Conflict),
        ("clear.example", TlsSettings { sni: text("clear.example"), ..TlsSettings::default() }, Conflict),
        ("rpc.example", TlsSettings { sni: text("rpc.example"), ..TlsSettings::default() }, Conflict),
        ("rpc.example", TlsSettings { alpn: Some(vec![Alpn::Http1]), ..mode(TlsMode::Simple) }, Conflict),
        ("bare.example", TlsSettings { sni: text("192.0.2.1"), ..TlsSettings::default() }, Invalid),
        ("bare.example", TlsSettings { sni: text("no name"), ..TlsSettings::default() }, Invalid),
        ("bare.example", TlsSettings { names: texts(&["bare.example", "*.example"]), ..TlsSettings::default() }, Invalid),
    ];
    for (host, settings, refusal) in &rows {
        assert_eq!(tls(host, everything(), settings), Err(*refusal), "{host} {settings:?}");
    }
    let promised = Setting::new(Form::Secure, "bare.example", 443, everything());
    let mut wish = Wish::default();
    assert_eq!(wish.originate_tls(&mode(TlsMode::Disabled), &promised.terms()), Err(Conflict), "an https URL was asked for");
    assert!(wish.is_empty(), "what is refused leaves nothing behind");
}

#[test]
fn the_last_to_choose_something_wins_and_the_rest_stays() {
    let setting = Setting::new(Form::Plain, "bare.example", 443, everything());
    let terms = setting.terms();
    let mut wish = Wish::default();
    let tenant = TlsSettings { certificate: text("tenant"), sni: text("a.bare.example"), ..mode(TlsMode::Mutual) };
    wish.originate_tls(&tenant, &terms).expect("the first filter's");
    let stricter = TlsSettings { min_version: Some(TlsVersion::V1_3), sni: text("b.bare.example"), ..TlsSettings::default() };
    wish.originate_tls(&stricter, &terms).expect("the second filter's");
    let made = wish.tls.clone().expect("settings");
    assert_eq!(made.certificate.as_ref().map(Name::as_str), Some("tenant"));
    assert_eq!((made.sni.map(|sni| sni.to_string()).as_deref(), made.min_version), (Some("b.bare.example"), TlsVersion::V1_3));
    wish.originate_tls(&mode(TlsMode::Disabled), &terms).expect("it is granted");
    let further = TlsSettings { sni: text("a.bare.example"), ..TlsSettings::default() };
    assert_eq!(wish.originate_tls(&further, &terms), Err(Refusal::Conflict), "there is no TLS any more");
    wish.originate_tls(&mode(TlsMode::Simple), &terms).expect("and now there is");
    assert_eq!(wish.tls.as_deref(), Some(&crate::upstream::tls::unsaid()), "as registered");
}

#[test]
fn endpoints_are_the_services_own() {
    let setting = Setting::new(Form::Plain, "full.example", 443, json!({"endpoints": true}));
    let none = Setting::new(Form::Plain, "full.example", 443, json!({"loosen_tls": true}));
    let rows = [
        ("192.0.2.1", 8443, Ok(())),
        ("B.example", 443, Ok(())),
        ("192.0.2.1", 443, Err(Refusal::UnknownName)),
        ("b.example", 8443, Err(Refusal::UnknownName)),
        ("full.example", 443, Err(Refusal::UnknownName)),
        ("192.0.2.1", 0, Err(Refusal::Invalid)),
        ("0x7f.1", 443, Err(Refusal::Invalid)),
    ];
    for (address, port, expected) in rows {
        let mut wish = Wish::default();
        assert_eq!(wish.select_endpoint(address, port, &setting.terms()), expected, "{address}:{port}");
        assert_eq!(wish.endpoint.is_some() && wish.binds(), expected.is_ok());
        let refused = wish.select_endpoint(address, port, &none.terms());
        assert_eq!(refused, expected.and(Err(Refusal::NotPermitted)), "{address}:{port}");
    }
}

#[test]
fn another_service_comes_before_what_belongs_to_it() {
    let setting = Setting::new(Form::Plain, "bare.example", 443, everything());
    let few = Setting::new(Form::Plain, "bare.example", 443, json!({"services": ["clear"]}));
    let mut wish = Wish::default();
    assert_eq!(wish.select_service("gone", &setting.terms()), Err(Refusal::UnknownName));
    assert_eq!(wish.select_service("full", &few.terms()), Err(Refusal::NotPermitted));
    assert_eq!(wish.select_service("wild", &setting.terms()), Err(Refusal::Conflict), "it has no host to go to");
    assert_eq!(wish.select_service("bare", &few.terms()), Ok(()), "it goes there anyway");
    assert!(wish.is_empty());
    wish.select_service("full", &setting.terms()).expect("it is granted");
    assert_eq!(wish.service().map(Name::as_str), Some("full"));
    assert!(!wish.is_about(&setting.permit), "nothing is dialled before it is decided again");
    wish.select_endpoint("192.0.2.1", 8443, &setting.terms()).expect("an endpoint of the chosen service");
    assert_eq!(wish.select_service("bare", &setting.terms()), Err(Refusal::Conflict), "the endpoint is not its");
    assert!(!wish.is_about(&setting.permit));

    let mut wish = Wish::default();
    wish.originate_tls(&mode(TlsMode::Simple), &setting.terms()).expect("as registered");
    assert!(wish.is_about(&setting.permit));
    assert_eq!(wish.select_service("full", &setting.terms()), Err(Refusal::Conflict), "the settings are not for it");
}

#[test]
fn secrets_are_named_granted_and_fit_for_a_header() {
    let setting = Setting::new(Form::Plain, "bare.example", 443, everything());
    let none = Setting::new(Form::Plain, "bare.example", 443, json!({"credentials": ["own"]}));
    let mut wish = Wish::default();
    let rows = [
        ("authorization", "gone", "Bearer ", Refusal::UnknownName),
        ("authorization", "tenant", "Bearer ", Refusal::UnknownName),
        ("host", "key", "", Refusal::Invalid),
        ("content-length", "key", "", Refusal::Invalid),
        ("proxy-authorization", "key", "", Refusal::Invalid),
        (":path", "key", "", Refusal::Invalid),
        ("no header", "key", "", Refusal::Invalid),
        ("authorization", "key", "Bearer\r\n", Refusal::Invalid),
        ("authorization", "broken", "Bearer ", Refusal::Invalid),
    ];
    for (header, credential, prefix, refusal) in rows {
        assert_eq!(wish.inject_secret(header, credential, prefix, &setting.terms()), Err(refusal), "{header} {credential}");
    }
    assert_eq!(wish.inject_secret("x-key", "key", "", &none.terms()), Err(Refusal::NotPermitted));
    assert!(wish.is_empty());
    wish.inject_secret("X-Key", "key", "first ", &setting.terms()).expect("it is granted");
    wish.inject_secret("x-key", "key", "second ", &setting.terms()).expect("the last one wins");
    assert_eq!(wish.secrets.len(), 1);
    let value = wish.secrets[0].value(&setting.credentials).expect("a value");
    assert!(value == "second s3cret" && value.is_sensitive());
    for more in 1..SECRETS {
        wish.inject_secret(&format!("x-key-{more}"), "key", "", &setting.terms()).expect("there is room");
    }
    assert_eq!(wish.inject_secret("x-one-more", "key", "", &setting.terms()), Err(Refusal::Conflict));
    assert!(!format!("{wish:?} {setting:?}", setting = setting.credentials).contains("s3cret"));
}
