//! What a decision costs at 100, 10,000 and 100,000 services and rules, and what compiling that many costs.
//!
//! Run it with `cargo bench -p tidegate-policy`. Each figure is the median of eleven rounds; memory is what
//! the whole process holds, documents and snapshot together.

use std::{
    collections::BTreeMap,
    hint::black_box,
    io::Write,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tidegate_policy::{
    Identity, Name, Request, Rows, Snapshot, Target,
    identity::{Caller, Proof},
    target::Form,
};

/// Resident memory of this process in MiB, 0 where the operating system does not say (anything but Linux).
fn resident_mib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()).and_then(|kib| kib.parse::<usize>().ok()).unwrap_or(0) / 1024
}

const ROUNDS: usize = 11;
const DECISIONS: usize = 20_000;

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "{:<34} {:>8} {:>12} {:>12} {:>10} {:>10}",
        "rules", "count", "ns/decision", "ns/denial", "compile ms", "MiB"
    )?;
    for count in [100, 10_000, 100_000] {
        measure(&mut out, "one service and one rule each", count, &each(count))?;
    }
    measure(&mut out, "one service, a principal each", 100_000, &principals(100_000))?;
    measure(&mut out, "one service, a principal prefix each", 100_000, &folders(100_000))?;
    measure(&mut out, "a host suffix each", 100_000, &suffixes(100_000))
}

/// Rows, and the questions asked of them: host, principal, path.
struct Case {
    rows: Rows,
    asked: Vec<(String, String)>,
}

fn measure(out: &mut impl Write, what: &str, count: usize, case: &Case) -> std::io::Result<()> {
    let began = Instant::now();
    let Ok(snapshot) = Snapshot::compile(&case.rows) else { return Err(std::io::Error::other("the rows do not compile")) };
    let compiled = began.elapsed();
    let mib = resident_mib();
    let allowed = median(&snapshot, &case.asked, true);
    let denied = median(&snapshot, &case.asked, false);
    let (nanoseconds, denial) = (per_decision(allowed), per_decision(denied));
    writeln!(out, "{what:<36} {count:>6} {nanoseconds:>12} {denial:>12} {:>10} {mib:>10}", compiled.as_millis())
}

fn per_decision(round: Duration) -> u128 {
    round.as_nanos() / DECISIONS as u128
}

fn median(snapshot: &Snapshot, asked: &[(String, String)], known: bool) -> Duration {
    let headers = http::HeaderMap::new();
    let questions: Vec<(Identity, Target)> = asked
        .iter()
        .map(|(host, principal)| {
            let caller = Caller {
                proof: Proof::Certificate,
                principal: Some(Arc::from(if known { principal.as_str() } else { "spiffe://elsewhere/nobody" })),
                namespace: Some(Arc::from("shop")),
                service_account: Some(Arc::from("checkout")),
                ..Caller::default()
            };
            let identity = Identity { source: [10, 0, 0, 1].into(), caller: Arc::new(caller) };
            (identity, Target { form: Form::Plain, host: host.parse().expect("a host"), port: 443 })
        })
        .collect();
    let time = SystemTime::now();
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for (identity, target) in questions.iter().cycle().take(DECISIONS) {
                let method = &http::Method::POST;
                let request = Request { target, method, path: "/v1/charges/17", query: None, headers: &headers, time };
                let answer = black_box(snapshot.decide(black_box(identity), black_box(&request)));
                assert_eq!(answer.is_ok(), known, "the benchmark measures something else than it says");
            }
            began.elapsed()
        })
        .collect();
    rounds.sort();
    rounds[ROUNDS / 2]
}

fn json<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> Arc<T> {
    Arc::new(serde_json::from_value(value).expect("a document"))
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn service(host: &str) -> serde_json::Value {
    let resolution = if host.starts_with('*') { "forward" } else { "dns" };
    serde_json::json!({"hosts": [host], "ports": [{"number": 443, "protocol": "https"}], "resolution": resolution})
}

fn principal(at: usize) -> String {
    format!("spiffe://cluster.local/ns/shop/sa/checkout-{at}")
}

/// Every seventh or so of the things there are, so that look-ups do not run in cache.
fn sample(count: usize, host: impl Fn(usize) -> String) -> Vec<(String, String)> {
    (0..10_000).map(|nth| nth * 7919 % count).map(|at| (host(at), principal(at))).collect()
}

fn each(count: usize) -> Case {
    let host = |at: usize| format!("api-{at}.partner-{}.example.com", at % 97);
    let mut rows = Rows::default();
    for at in 0..count {
        let key = name(&format!("service-{at}"));
        rows.services.insert(key.clone(), json(service(&host(at))));
        let rule = serde_json::json!({"action": "allow", "from": [{"principals": [principal(at)]}],
            "to": [{"services": [key], "methods": ["POST"], "paths": ["/v1/charges*"]}]});
        rows.rules.insert(name(&format!("rule-{at}")), json(rule));
    }
    Case { rows, asked: sample(count, host) }
}

fn one_service(rules: impl Iterator<Item = serde_json::Value>, count: usize) -> Case {
    let services = BTreeMap::from([(name("payments"), json(service("api.payments.example")))]);
    let rules = rules.zip(0..).map(|(rule, at)| (name(&format!("rule-{at}")), json(rule))).collect();
    let rows = Rows { services, rules, ..Rows::default() };
    Case { rows, asked: sample(count, |_| "api.payments.example".to_owned()) }
}

fn principals(count: usize) -> Case {
    let rule = |at| serde_json::json!({"action": "allow", "from": [{"principals": [principal(at)]}], "to": [{"services": ["payments"]}]});
    one_service((0..count).map(rule), count)
}

fn folders(count: usize) -> Case {
    let rule = |at| {
        serde_json::json!({"action": "allow", "from": [{"principals": [format!("spiffe://cluster.local/ns/team-{at}/*")]}],
            "to": [{"services": ["payments"]}]})
    };
    let mut case = one_service((0..count).map(rule), count);
    for (at, (_, principal)) in case.asked.iter_mut().enumerate() {
        *principal = format!("spiffe://cluster.local/ns/team-{}/sa/checkout", at * 7919 % count);
    }
    case
}

fn suffixes(count: usize) -> Case {
    let mut rows = Rows::default();
    rows.services.insert(name("everything"), json(service("*.example.com")));
    for at in 0..count {
        let rule = serde_json::json!({"action": "allow", "from": [{"principals": [principal(at)]}],
            "to": [{"hosts": [format!("*.partner-{at}.example.com")]}]});
        rows.rules.insert(name(&format!("rule-{at}")), json(rule));
    }
    Case { rows, asked: sample(count, |at| format!("api.partner-{at}.example.com")) }
}
