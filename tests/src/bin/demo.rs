//! The main job, shown: an external API is registered over REST, and a pod's traffic leaves through the gate.
//!
//! Run it with `make demo`. It starts the built gateway on an empty data directory, the sample API and a small name server,
//! and from then on uses public interfaces only: REST with the admin token, and the proxy port with curl. It ends with
//! status 0 only if everything was as it says.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tidegate_tests::{Gateway, Options, Rest, dns::NameServer, gateway::build_directory, plugins, until};

const PRINCIPAL: &str = "spiffe://cluster.local/ns/shop/sa/checkout";

/// One thing the pod sends, and what has to become of it.
struct Step {
    what: &'static str,
    method: &'static str,
    url: &'static str,
    status: u16,
    reason: &'static str,
}

const STEPS: [Step; 5] = [
    Step {
        what: "plain HTTP; the gateway originates TLS",
        method: "POST",
        url: "http://api.example.com/v1/charges",
        status: 200,
        reason: "allowed_by_rule",
    },
    Step {
        what: "an https:// URL, through CONNECT",
        method: "POST",
        url: "https://api.example.com/v1/charges",
        status: 200,
        reason: "allowed_by_rule",
    },
    Step {
        what: "a request that no rule allows",
        method: "GET",
        url: "http://api.example.com/v1/refunds",
        status: 403,
        reason: "no_rule_allows",
    },
    Step {
        what: "a host that nobody registered",
        method: "GET",
        url: "http://unknown.example.com/",
        status: 403,
        reason: "unregistered_host",
    },
    Step {
        what: "a registered name with a forbidden address",
        method: "GET",
        url: "http://evil.example.com/",
        status: 403,
        reason: "address_refused",
    },
];

/// A child process that ends with the demonstration.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may be gone already.
        let _: std::io::Result<()> = self.0.kill();
        let _: std::io::Result<std::process::ExitStatus> = self.0.wait();
    }
}

fn say(text: impl std::fmt::Display) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("nobody reads what the demonstration says")
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let ca_file = folder.path().join("api-ca.pem");
    let (_api, api_port) = sample_api(folder.path(), &ca_file).await?;
    let names = NameServer::start().await;
    names.set("api.example.com", &["127.0.0.1"]);
    names.set("evil.example.com", &["169.254.169.254"]);
    let gateway = Gateway::start(&Options::default().flag("--resolver", names.address)).await;
    let proxy = format!("http://{}", gateway.addresses.proxy);
    say(format_args!("gateway      proxy {proxy}, REST http://{}", gateway.addresses.admin))?;
    say(format_args!("external API https://127.0.0.1:{api_port} as api.example.com, with an authority of its own\n"))?;

    let rest = gateway.rest();
    register(&rest, &std::fs::read_to_string(&ca_file)?, api_port).await?;

    say("\n2. As the pod, with curl through the proxy port")?;
    let mut all_so = true;
    for step in &STEPS {
        all_so &= send(step, &proxy, &ca_file)?;
    }

    say("\n3. The records it left, from GET /v1/exchanges")?;
    let records = until("five records", async || {
        let records = rest.records("").await;
        (records.len() >= STEPS.len()).then_some(records)
    })
    .await;
    all_so &= show(&records)?;
    ensure!(all_so, "not everything was as it should be; the gateway said:\n{}", gateway.output());
    say("\nAll of it was so.")
}

/// Starts the sample API and waits until it says where it listens.
async fn sample_api(folder: &Path, ca_file: &Path) -> anyhow::Result<(Running, u16)> {
    let address_file: PathBuf = folder.join("address");
    let child = Command::new(build_directory().join("sample-api"))
        .args(["--listen", "127.0.0.1:0", "--name", "api.example.com", "--ca-file"])
        .arg(ca_file)
        .arg("--address-file")
        .arg(&address_file)
        .stdout(Stdio::null())
        .spawn()
        .context("the sample API is not built: run `make demo`, which builds it")?;
    let running = Running(child);
    let address: std::net::SocketAddr =
        until("the sample API to listen", async || std::fs::read_to_string(&address_file).ok()?.parse().ok()).await;
    Ok((running, address.port()))
}

/// Step 1: everything an operator registers.
async fn register(rest: &Rest, ca: &str, api_port: u16) -> anyhow::Result<()> {
    say("1. Registered over REST")?;
    let service = json!({
        "hosts": ["api.example.com"],
        "ports": [{"number": 443, "protocol": "https"}],
        // Where the API really is; on this machine, so its private network has to be named.
        "endpoints": [{"address": "api.example.com", "port": api_port}],
        "networks": ["127.0.0.0/8"],
        "tls": {"mode": "simple", "sni": "api.example.com", "names": ["api.example.com"], "trust": "api-ca"},
    });
    let evil = json!({"hosts": ["evil.example.com"], "ports": [{"number": 80, "protocol": "http"}]});
    let workload = json!({
        "networks": ["127.0.0.0/8"], "principal": PRINCIPAL, "namespace": "shop", "service_account": "checkout",
    });
    // A tunnel has no path that the gateway could see, so CONNECT is allowed in its own words.
    let allow = json!({
        "action": "allow",
        "from": [{"namespaces": ["shop"]}],
        "to": [
            {"services": ["api"], "methods": ["POST"], "paths": ["/v1/charges"]},
            {"services": ["api"], "methods": ["CONNECT"], "ports": [443]},
        ],
    });
    let allow_evil = json!({"action": "allow", "from": [{"namespaces": ["shop"]}], "to": [{"services": ["evil"]}]});
    put(rest, "credentials", "api-ca", &json!({"kind": "trust", "pem": ca})).await?;
    put(rest, "services", "api", &service).await?;
    put(rest, "services", "evil", &evil).await?;
    put(rest, "workloads", "checkout", &workload).await?;
    put(rest, "rules", "allow-charges", &allow).await?;
    put(rest, "rules", "allow-evil", &allow_evil).await?;
    let module = plugins::module("audit");
    let size = module.len();
    let uploaded = rest.upload("audit", module).await;
    ensure!(matches!(uploaded.status, 200 | 201), "the filter was refused: {}", uploaded.text());
    say(format_args!("   {} POST /v1/plugins/audit ({size} bytes of WebAssembly)", uploaded.status))?;
    put(rest, "routes", "api", &json!({"service": "api", "filters": [{"plugin": "audit"}]})).await
}

async fn put(rest: &Rest, collection: &str, name: &str, document: &Value) -> anyhow::Result<()> {
    let reply = rest.put(&format!("/v1/{collection}/{name}"), document).await;
    ensure!(matches!(reply.status, 200 | 201), "{collection}/{name} was refused: {}", reply.text());
    say(format_args!("   {} PUT  /v1/{collection}/{name}", reply.status))
}

/// Sends one request with curl and prints what it got. Whether that is what it had to get.
fn send(step: &Step, proxy: &str, ca_file: &Path) -> anyhow::Result<bool> {
    let output = Command::new("curl")
        .args(["-sS", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code} %header{x-tidegate-reason}"])
        .args(["-X", step.method, "-x", proxy, "--noproxy", "", "--cacert"])
        .arg(ca_file)
        .args((step.method == "POST").then_some(["-d", "amount=100"]).into_iter().flatten())
        .arg(step.url)
        .output()
        .context("curl cannot be run: install it (make demo does)")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let (status, reason) = said.split_once(' ').unwrap_or((&said, ""));
    // An answer of the API itself carries no reason of the gateway's.
    let expected_reason = if step.status == 200 { "" } else { step.reason };
    let so = output.status.success() && status == step.status.to_string() && reason == expected_reason;
    let mark = if so { "as it should be" } else { "NOT AS IT SHOULD BE" };
    let reason = if reason.is_empty() { "-" } else { reason };
    let Step { method, url, what, .. } = step;
    say(format_args!("   {status} {reason:<18} {method:<5} {url:<36} {mark}: {what}"))?;
    if !output.status.success() {
        say(format_args!("       curl: {}", String::from_utf8_lossy(&output.stderr).trim()))?;
    }
    Ok(so)
}

/// Prints the record of each step and the audit events in it. Whether they are what they had to be.
fn show(records: &[Value]) -> anyhow::Result<bool> {
    let mut so = true;
    let mut audited = false;
    for step in &STEPS {
        let Some(record) = records.iter().find(|record| is_of(record, step)) else {
            so = false;
            say(format_args!("   NOT AS IT SHOULD BE: no record of {} {}", step.method, step.url))?;
            continue;
        };
        say(format_args!(
            "   {} {:<8} {:<18} {:<8} {:<38} rule {:<14} by {}",
            record["status"],
            text(record, "verdict"),
            text(record, "reason"),
            text(record, "method"),
            text(record, "target"),
            text(record, "rule"),
            text(record, "workload"),
        ))?;
        if let Some(version) = record["endpoint"]["tls_version"].as_str() {
            let (address, peer) = (text(&record["endpoint"], "address"), text(&record["endpoint"], "tls_peer"));
            say(format_args!("       sent to {address} over {version}, verified as {peer}"))?;
        }
        for event in record["filters"].as_array().into_iter().flatten().flat_map(|filter| filter["events"].as_array()).flatten()
        {
            audited = true;
            say(format_args!("       audit event: {event}"))?;
        }
        so &= record["reason"] == step.reason && record["status"] == step.status && record["workload"] == PRINCIPAL;
    }
    if !audited {
        say("   NOT AS IT SHOULD BE: no audit event is in any record")?;
    }
    if records.len() != STEPS.len() {
        say(format_args!("   NOT AS IT SHOULD BE: {} requests left {} records", STEPS.len(), records.len()))?;
    }
    Ok(so && audited && records.len() == STEPS.len())
}

/// Whether `record` is the one that `step` left: a tunnel's target has no scheme and no path, and names its port.
fn is_of(record: &Value, step: &Step) -> bool {
    let target = match step.url.strip_prefix("https://") {
        Some(rest) => format!("{}:443", rest.split('/').next().unwrap_or_default()),
        None => step.url.replacen(".com/", ".com:80/", 1),
    };
    record["target"] == target.as_str()
}

fn text<'a>(record: &'a Value, key: &str) -> &'a str {
    record[key].as_str().unwrap_or("-")
}
