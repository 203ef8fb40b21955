//! What filters may choose on a route, and what becomes of an exchange that they send to another service.

use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::SystemTime};
use tidegate_policy::{
    Denial, Identity, Name, Permit, Reason, Request, Rows, Snapshot, Target,
    credential::CredentialKind,
    grants::Grants,
    plugin::{Digest, Plugin},
    route::{FilterUse, Isolation},
    target::Form,
};

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn rows(value: &Value) -> Rows {
    fn of<T: serde::de::DeserializeOwned>(value: &Value, collection: &str) -> BTreeMap<Name, Arc<T>> {
        let documents = value[collection].as_object().into_iter().flatten();
        let read = |value: &Value| serde_json::from_value(value.clone()).unwrap_or_else(|why| panic!("{why}: {value}"));
        documents.map(|(key, value)| (name(key), Arc::new(read(value)))).collect()
    }
    let plugin = Plugin { digest: Digest::new([0; 32]), size_bytes: 1, world: String::new(), imports: Vec::new() };
    Rows {
        services: of(value, "services"),
        routes: of(value, "routes"),
        rules: of(value, "rules"),
        credentials: [(name("key"), CredentialKind::Secret)].into(),
        plugins: [(name("router"), Arc::new(plugin))].into(),
        ..Rows::default()
    }
}

fn services() -> Value {
    let port = |number: u16, protocol: &str| json!({"number": number, "protocol": protocol});
    json!({
        "near": {"hosts": ["near.example"], "ports": [port(443, "https")]},
        "far": {"hosts": ["*.far.example", "far.example", "other.far.example"], "ports": [port(8443, "https")], "resolution": "forward"},
        "clear": {"hosts": ["clear.example"], "ports": [port(443, "http")]},
        "wild": {"hosts": ["*.wild.example"], "ports": [port(443, "https")], "resolution": "forward"},
        "opaque": {"hosts": ["opaque.example"], "ports": [port(443, "tls")]},
        "pass": {"hosts": ["pass.example"], "ports": [port(443, "https")], "tls": {"mode": "passthrough"}},
    })
}

#[track_caller]
fn read(value: Value) -> FilterUse {
    serde_json::from_value(value).expect("a filter's place")
}

#[test]
fn a_filter_is_granted_nothing_unless_it_is_said() {
    let plain = read(json!({"plugin": "router"}));
    assert_eq!((plain.isolation, plain.required, &plain.grants), (Isolation::Shared, false, &Grants::default()));
    assert_eq!(serde_json::to_value(&plain).expect("JSON"), json!({"plugin": "router", "on_error": "deny"}));
    let full = json!({"plugin": "router", "on_error": "skip", "isolation": "exchange", "required": true, "grants": {
        "services": ["far"], "endpoints": true, "credentials": ["key"], "paths": ["/v1/*"], "loosen_tls": true}});
    assert_eq!(serde_json::to_value(read(full.clone())).expect("JSON"), full);
    for unknown in
        [json!({"plugin": "router", "grants": {"service": ["far"]}}), json!({"plugin": "router", "isolation": "thread"})]
    {
        assert!(serde_json::from_value::<FilterUse>(unknown.clone()).is_err(), "{unknown}");
    }
}

#[test]
fn a_rewritten_path_is_granted_in_every_reading() {
    let grants = read(json!({"plugin": "router", "grants": {"paths": ["/v1/*", "/health"]}})).grants;
    for (path, granted) in [
        ("/v1/charges", true),
        ("/health", true),
        ("/health/x", false),
        ("/v1/../admin", false),
        ("/v1/..%2fadmin", false),
        ("/v1/%zz", false),
        ("/v2", false),
    ] {
        assert_eq!(grants.permits_path(path), granted, "{path}");
    }
    assert!(!Grants::default().permits_path("/"));
}

#[test]
fn what_is_granted_must_exist_and_be_reachable() {
    let grants = json!({"services": ["far", "gone", "wild", "opaque"], "credentials": ["key", "none"]});
    let filters = json!([{"plugin": "router"}, {"plugin": "router", "grants": grants}]);
    let rows = rows(&json!({"services": services(), "routes": {"r": {"service": "near", "filters": filters}}}));
    let mistakes = Snapshot::compile(&rows).expect_err("mistakes");
    let pointers: Vec<_> = mistakes.iter().map(|mistake| mistake.pointer.as_str()).collect();
    assert_eq!(
        pointers,
        ["credentials/1", "services/1", "services/2", "services/3"].map(|at| format!("/routes/r/filters/1/grants/{at}")),
        "{mistakes:#?}"
    );
}

fn again(rules: Value, form: Form, path: &str, service: &str) -> Result<Permit, Box<Denial>> {
    let routes = json!({
        "near": {"service": "near", "retries": {"attempts": 1}},
        "far": {"service": "far", "filters": [{"plugin": "router"}]},
    });
    let snapshot =
        Snapshot::compile(&rows(&json!({"services": services(), "rules": rules, "routes": routes}))).expect("a snapshot");
    let target = Target { form, host: "near.example".parse().expect("a host"), port: 443 };
    let (method, headers) = (http::Method::GET, http::HeaderMap::new());
    let request =
        Request { target: &target, method: &method, path, query: None, headers: &headers, time: SystemTime::UNIX_EPOCH };
    let identity = Identity::unknown([10, 0, 0, 1].into());
    let permit = snapshot.decide(&identity, &request).expect("the caller's own request is allowed");
    snapshot.decide_again(&permit, &identity, &request, service)
}

#[test]
fn another_service_needs_a_rule_of_its_own() {
    let near = json!({"action": "allow", "to": [{"services": ["near"]}]});
    let watch = json!({"action": "report", "to": [{"services": ["near"]}]});
    let rules = |far: Value| json!({"near": near, "far": far, "watch": watch});
    let allowed = rules(json!({"action": "allow", "to": [{"services": ["far"], "paths": ["/v1/*"]}]}));
    let permit = again(allowed.clone(), Form::Secure, "/v1/x", "far").expect("it is allowed");
    assert_eq!(permit.target().host.to_string(), "far.example", "the first host that is no pattern");
    assert_eq!((permit.target().port, permit.port().number, permit.target().form), (8443, 8443, Form::Secure));
    assert_eq!(permit.service().map(|service| service.name.as_str()), Some("far"));
    assert_eq!(permit.rule().map(Name::as_str), Some("far"));
    assert_eq!(permit.route().map(|route| route.name.as_str()), Some("near"), "the route whose filters chose");
    assert_eq!(permit.reports(), [name("watch")], "what was reported of the first decision stays");

    let denial = again(allowed.clone(), Form::Secure, "/v2", "far").expect_err("another path");
    assert_eq!((denial.reason, denial.rule.clone(), denial.reports), (Reason::NoRuleAllows, None, vec![name("watch")]));
    assert_eq!(denial.service.map(|service| service.name.to_string()).as_deref(), Some("far"));
    let denied = rules(json!({"action": "deny", "to": [{"hosts": ["far.example"]}]}));
    let denial = again(denied, Form::Plain, "/v1/x", "far").expect_err("a rule denies it");
    assert_eq!((denial.reason, denial.rule), (Reason::DeniedByRule, Some(name("far"))));

    let all = json!({"all": {"action": "allow"}});
    for (form, service, reason) in [
        (Form::Secure, "clear", Reason::MalformedTarget),
        (Form::Plain, "pass", Reason::MalformedTarget),
        (Form::Plain, "wild", Reason::UnregisteredHost),
        (Form::Plain, "opaque", Reason::UnregisteredHost),
        (Form::Plain, "gone", Reason::UnregisteredHost),
    ] {
        assert_eq!(again(all.clone(), form, "/", service).err().map(|denial| denial.reason), Some(reason), "{service}");
    }
    assert!(again(all, Form::Plain, "/", "clear").is_ok());
}
