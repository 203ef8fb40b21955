//! Every decision found through the index equals one found by scanning all rules, on documents and requests drawn by a
//! small generator whose seeds are fixed: a failure names its seed.

use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};
use tidegate_policy::{
    Host, Identity, Name, Reason, Request, Rows, Snapshot, Target,
    identity::{Caller, Proof},
    path::Readings,
    rule::{Action, Rule},
    service::{Port, Protocol},
    snapshot::Mode,
    target::Form,
};

/// A linear congruential generator (Knuth's MMIX constants); its upper half is good enough to choose with.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % count
    }

    fn one<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.below(choices.len())]
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn some(&mut self, choices: &[&str]) -> Vec<String> {
        (0..1 + self.below(2)).map(|_| self.one(choices).to_owned()).collect()
    }
}

const SERVICES: [(&str, &str, u16, &str); 6] = [
    ("a", "a.example.com", 443, "https"),
    ("b", "*.example.com", 443, "https"),
    ("c", "*.deep.example.com", 80, "http"),
    ("d", "192.0.2.7", 8080, "http"),
    ("e", "e.example.net", 443, "grpc"),
    ("f", "f.example.net", 5432, "tcp"),
];
const HOSTS: [&str; 9] = [
    "a.example.com",
    "b.example.com",
    "x.deep.example.com",
    "y.x.deep.example.com",
    "192.0.2.7",
    "e.example.net",
    "f.example.net",
    "unknown.org",
    "192.0.2.8",
];
const PATTERNS: [&str; 9] = [
    "a.example.com",
    "*.example.com",
    "*.deep.example.com",
    "*.com",
    "192.0.2.7",
    "unknown.org",
    "*.org",
    "e.example.net",
    "*.x.deep.example.com",
];
const PRINCIPALS: [&str; 6] = [
    "spiffe://t/ns/shop/sa/one",
    "spiffe://t/ns/shop/sa/two",
    "spiffe://t/ns/back/sa/one",
    "user",
    "shop/user",
    "spiffe://t/ns/shop",
];
const PRINCIPAL_PATTERNS: [&str; 10] = [
    "spiffe://t/ns/shop/sa/one",
    "spiffe://t/ns/shop/*",
    "spiffe://t/*",
    "spiffe://t/ns/sh*",
    "*",
    "*/one",
    "user",
    "us*",
    "shop/*",
    "s*",
];
const PATHS: [&str; 12] = [
    "/",
    "/v1/charges",
    "/v1/charges/7",
    "/admin",
    "/v1/../admin",
    "//admin",
    "/v1%2fcharges",
    "/%61dmin",
    "/v1/%00",
    "/admin;x/y",
    "*",
    "",
];
const PATH_PATTERNS: [&str; 5] = ["/admin*", "/v1/*", "/v1/charges", "/*", "/v1/charges/*"];
const PORTS: [u16; 5] = [80, 443, 8080, 5432, 9999];

fn from(dice: &mut Dice) -> Value {
    let mut entry = json!({});
    if dice.chance(50) {
        entry["principals"] = json!(dice.some(&PRINCIPAL_PATTERNS));
    }
    if dice.chance(30) {
        entry["namespaces"] = json!(dice.some(&["shop", "back", "sh*", "*"]));
    }
    if dice.chance(20) {
        entry["service_accounts"] = json!(dice.some(&["one", "two", "*o"]));
    }
    if dice.chance(15) {
        entry["labels"] = json!({"tier": dice.one(&["gold", "g*", "*"])});
    }
    if dice.chance(15) || entry == json!({}) {
        entry["networks"] = json!(dice.some(&["10.0.0.0/8", "10.1.0.0/16", "fd00::/8", "0.0.0.0/0"]));
    }
    entry
}

fn to(dice: &mut Dice) -> Value {
    let mut entry = json!({});
    if dice.chance(40) {
        entry["services"] = json!(dice.some(&["a", "b", "c", "d", "e", "f"]));
    }
    if dice.chance(40) {
        entry["hosts"] = json!(dice.some(&PATTERNS));
    }
    if dice.chance(15) {
        entry["ports"] = json!([PORTS[dice.below(5)]]);
    }
    if dice.chance(20) {
        entry["methods"] = json!(dice.some(&["GET", "POST", "CONNECT"]));
    }
    if dice.chance(30) || entry == json!({}) {
        entry["paths"] = json!(dice.some(&PATH_PATTERNS));
    }
    entry
}

fn rows(dice: &mut Dice) -> Rows {
    let mut rows = Rows { mode: if dice.chance(30) { Mode::Open } else { Mode::Registered }, ..Rows::default() };
    for (name, host, port, protocol) in SERVICES {
        let service = json!({"hosts": [host], "ports": [{"number": port, "protocol": protocol}],
            "resolution": if host.starts_with('*') { "forward" } else { "dns" }});
        rows.services.insert(name.parse().expect(name), Arc::new(serde_json::from_value(service).expect(name)));
    }
    for _ in 0..dice.below(30) {
        let mut rule = json!({"action": dice.one(&["allow", "allow", "deny", "report"])});
        if dice.chance(80) {
            rule["from"] = (0..1 + dice.below(2)).map(|_| from(dice)).collect();
        }
        if dice.chance(85) {
            rule["to"] = (0..1 + dice.below(2)).map(|_| to(dice)).collect();
        }
        if dice.chance(15) {
            rule["when"] = json!([{"from": "08:00", "until": "18:00"}]);
        }
        let name = format!("r{}", dice.below(1000));
        rows.rules.insert(name.parse().expect("a name"), Arc::new(serde_json::from_value(rule).expect("a rule")));
    }
    rows
}

fn identity(dice: &mut Dice) -> Identity {
    let source = dice.one(&["10.0.0.1", "10.1.0.1", "192.168.1.1", "fd00::1", "::ffff:10.0.0.9"]).parse().expect("an address");
    if dice.chance(25) {
        return Identity::unknown(source);
    }
    let mut maybe = |choices: &[&str]| dice.chance(70).then(|| Arc::<str>::from(dice.one(choices)));
    let mut caller = Caller {
        proof: Proof::Certificate,
        principal: maybe(&PRINCIPALS),
        namespace: maybe(&["shop", "back"]),
        service_account: maybe(&["one", "two"]),
        ..Caller::default()
    };
    if dice.chance(50) {
        caller.labels.insert("tier".to_owned(), dice.one(&["gold", "tin"]).to_owned());
    }
    Identity { source, caller: Arc::new(caller) }
}

/// The services' own table again, as the design page words it.
fn place(target: &Target) -> (Option<&'static str>, Result<Port, Reason>) {
    let holds = |pattern: &str| match (pattern.strip_prefix('*'), &target.host) {
        (Some(suffix), Host::Name(name)) => name.ends_with(suffix),
        (Some(_), Host::Address(_)) => false,
        (None, host) => host.to_string() == pattern,
    };
    let found =
        SERVICES.iter().filter(|(_, host, ..)| holds(host)).max_by_key(|(_, host, ..)| (!host.starts_with('*'), host.len()));
    let Some(&(name, _, number, protocol)) = found else { return (None, Err(Reason::UnregisteredHost)) };
    let protocol = match protocol {
        "https" => Protocol::Https,
        "http" => Protocol::Http,
        "grpc" => Protocol::Grpc,
        _ => Protocol::Tcp,
    };
    let port = Port { number, protocol };
    let encrypted = matches!(protocol, Protocol::Https | Protocol::Grpc);
    let answer = match (target.form, target.port == number) {
        (Form::Tunnel, true) => Ok(port),
        (Form::Plain, true) if protocol != Protocol::Tcp => Ok(port),
        (Form::Secure, true) if encrypted => Ok(port),
        (Form::Plain | Form::Secure, true) => Err(Reason::MalformedTarget),
        (Form::Plain, false) if target.port == 80 && encrypted => Ok(port),
        (_, false) => Err(Reason::UnregisteredHost),
    };
    (Some(name), answer)
}

struct Question<'a> {
    identity: &'a Identity,
    request: &'a Request<'a>,
    service: Option<&'a str>,
    port: Option<u16>,
}

impl Question<'_> {
    fn about(&self, rule: &Rule) -> bool {
        let target = self.request.target;
        let readings = if target.form == Form::Tunnel { Readings::None } else { Readings::of(self.request.path) };
        let on_path = |rule: &Rule, to: &tidegate_policy::selector::To| {
            let one = |path: &str| to.paths.iter().any(|pattern| pattern.matches(path));
            if rule.action == Action::Allow { readings.all(one) } else { readings.any(one) }
        };
        rule.to.is_empty()
            || rule.to.iter().any(|to| {
                (to.services.is_empty() || to.services.iter().any(|name| Some(name.as_str()) == self.service))
                    && (to.hosts.is_empty() || to.hosts.iter().any(|pattern| pattern.matches(&target.host)))
                    && (to.ports.is_empty() || to.ports.iter().any(|port| *port == target.port || Some(*port) == self.port))
                    && (to.methods.is_empty() || to.methods.iter().any(|method| method.matches(self.request.method)))
                    && (to.paths.is_empty() || on_path(rule, to))
            })
    }

    fn timely(&self, rule: &Rule) -> bool {
        rule.when.is_empty() || rule.when.iter().any(|window| window.holds(self.request.time.into()))
    }

    fn by(&self, rule: &Rule) -> bool {
        rule.from.is_empty() || rule.from.iter().any(|from| from.matches(self.identity))
    }
}

type Answer = (Reason, Option<Name>, Vec<Name>);

fn scan(rows: &Rows, question: &Question<'_>, port: Result<Port, Reason>) -> Answer {
    let all = |action| rows.rules.iter().filter(move |(_, rule)| rule.action == action);
    let meets = |rule: &Rule| question.about(rule) && question.timely(rule) && question.by(rule);
    let first = |action| all(action).find(|(_, rule)| meets(rule)).map(|(name, _)| name.clone());
    let reports = all(Action::Report).filter(|(_, rule)| meets(rule)).map(|(name, _)| name.clone()).collect();
    if let Some(name) = first(Action::Deny) {
        return (Reason::DeniedByRule, Some(name), reports);
    }
    match (port, rows.mode) {
        (Err(Reason::UnregisteredHost), Mode::Open) | (Ok(_), _) => {}
        (Err(reason), _) => return (reason, None, reports),
    }
    if let Some(name) = first(Action::Allow) {
        return (Reason::AllowedByRule, Some(name), reports);
    }
    if rows.mode == Mode::Open {
        return (Reason::OpenMode, None, reports);
    }
    let provable = |rule: &Rule| {
        rule.from.iter().any(|from| {
            !(from.principals.is_empty()
                && from.namespaces.is_empty()
                && from.service_accounts.is_empty()
                && from.labels.is_empty())
        })
    };
    let unknown = question.identity.caller.proof == Proof::None;
    let challenged = all(Action::Allow).any(|(_, rule)| question.about(rule) && question.timely(rule) && provable(rule));
    let reason = if unknown && challenged { Reason::CredentialsRequired } else { Reason::NoRuleAllows };
    (reason, None, reports)
}

#[test]
fn the_index_decides_as_a_scan_does() {
    let headers = http::HeaderMap::new();
    let mut seen = std::collections::BTreeMap::<Reason, u32>::new();
    for seed in 0..400 {
        let dice = &mut Dice(seed);
        let rows = rows(dice);
        let snapshot = Snapshot::compile(&rows).unwrap_or_else(|mistakes| panic!("seed {seed}: {mistakes:?}"));
        for nth in 0..100 {
            let form = [Form::Plain, Form::Secure, Form::Tunnel][dice.below(3)];
            let target = Target { form, host: dice.one(&HOSTS).parse().expect("a host"), port: PORTS[dice.below(5)] };
            let method = [http::Method::GET, http::Method::POST, http::Method::CONNECT][dice.below(3)].clone();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(dice.below(1_000_000) as u64 * 60);
            let path = dice.one(&PATHS);
            let request = Request { target: &target, method: &method, path, query: None, headers: &headers, time };
            let identity = identity(dice);
            let (service, port) = place(&target);
            let question =
                Question { identity: &identity, request: &request, service, port: port.ok().map(|port| port.number) };
            let answer: Answer = match snapshot.decide(&identity, &request) {
                Ok(permit) => (permit.reason(), permit.rule().cloned(), permit.reports().to_vec()),
                Err(denial) => (denial.reason, denial.rule.clone(), denial.reports.clone()),
            };
            assert_eq!(
                answer,
                scan(&rows, &question, port),
                "seed {seed}, request {nth}: {request:?} by {identity:?}\n{:#?}",
                rows.rules
            );
            *seen.entry(answer.0).or_default() += 1;
        }
    }
    // A generator that never reaches an outcome proves nothing about it.
    for reason in [
        Reason::AllowedByRule,
        Reason::OpenMode,
        Reason::DeniedByRule,
        Reason::MalformedTarget,
        Reason::UnregisteredHost,
        Reason::CredentialsRequired,
        Reason::NoRuleAllows,
    ] {
        assert!(seen.get(&reason).is_some_and(|count| *count > 100), "{reason} came up too rarely: {seen:?}");
    }
}
