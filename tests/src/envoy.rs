//! A real Envoy with Proxy-Wasm filters, to compare the gateway with: one worker, on ports that the system picks, found through its
//! admin interface. `tests/envoy` installs it in target/envoy.

use crate::{gateway::build_directory, wait::until};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// What of a message's body a filter may hold, here and there.
pub const HELD_BYTES: usize = 64 * 1024;

/// Where a module runs: a listener of Envoy's, a service with a route of the gateway's.
#[derive(Debug, Clone)]
pub struct Place {
    /// Its name, which is also the name of the virtual machine: places share none.
    pub name: &'static str,
    /// The module.
    pub module: PathBuf,
    /// What the plugin is configured with.
    pub configuration: &'static str,
    /// The server that its requests go to, where that is not the first of all.
    pub upstream: Option<&'static str>,
    /// What further plugins of the module are configured with that are behind it, in the same virtual machine.
    pub behind: &'static [&'static str],
    /// Whether exchanges go on without a filter that failed.
    pub fails_open: bool,
    /// Whether the body is shown to a filter that stopped at the headers.
    pub on_headers_stop: OnHeadersStop,
}

impl Place {
    /// What its plugins are configured with, in the order in which they see requests.
    pub fn configurations(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.configuration).chain(self.behind.iter().copied())
    }
}

/// What becomes of the body while a filter holds the head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnHeadersStop {
    /// Everything waits.
    StopAll,
    /// The filter is shown it.
    GoOn,
}

/// A server that exchanges and calls of filters go to.
#[derive(Debug, Clone, Copy)]
pub struct Cluster {
    /// Its name.
    pub name: &'static str,
    /// Where it is.
    pub address: SocketAddr,
    /// Which version of HTTP it is spoken to in.
    pub version: http::Version,
}

/// A running Envoy; ended when dropped.
pub struct Envoy {
    child: Child,
    directory: TempDir,
    listeners: BTreeMap<String, SocketAddr>,
}

/// The installed Envoy; nothing, and a line that says so, where there is none.
pub fn installed() -> Option<PathBuf> {
    let given = std::env::var_os("TIDEGATE_ENVOY").map(PathBuf::from);
    let target = build_directory().parent().expect("a profile's folder lies in the target folder").join("envoy/envoy");
    let found = given.or_else(|| target.exists().then_some(target));
    if found.is_none() {
        use std::io::Write;
        let _: std::io::Result<()> =
            writeln!(std::io::stderr().lock(), "SKIPPED: no Envoy to compare with; make envoy installs it");
    }
    found
}

impl Envoy {
    /// Starts `program` with a listener for each place, whose requests go to the first of `clusters` unless it says otherwise, and waits until it is ready.
    ///
    /// # Panics
    /// When it ends instead; what it printed is in the message.
    pub async fn start(program: &Path, places: &[Place], clusters: &[Cluster]) -> Self {
        let directory = tempfile::Builder::new().prefix("envoy-").tempdir().expect("a temporary directory can be made");
        let file = |name: &str| directory.path().join(name);
        std::fs::write(file("envoy.json"), configuration(places, clusters).to_string())
            .expect("a temporary file can be written");
        let said = std::fs::File::create(file("said")).expect("a temporary file can be made");
        let child = Command::new(program)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning", "--config-path"])
            .arg(file("envoy.json"))
            .arg("--admin-address-path")
            .arg(file("admin"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said)
            .spawn();
        let child = child.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let mut envoy = Self { child, directory, listeners: BTreeMap::new() };
        let admin: SocketAddr = until("Envoy to say where its admin interface is", async || {
            envoy.assert_runs();
            std::fs::read_to_string(envoy.directory.path().join("admin")).ok()?.trim().parse().ok()
        })
        .await;
        envoy.listeners = until("Envoy to be ready", async || {
            envoy.assert_runs();
            let ready = crate::rest::ask(admin, "GET", "/ready", &[], Vec::new()).await.ok()?;
            if ready.status != 200 {
                return None;
            }
            Some(listeners(&crate::rest::ask(admin, "GET", "/listeners?format=json", &[], Vec::new()).await.ok()?.json()))
        })
        .await;
        assert_eq!(envoy.listeners.len(), places.len(), "a place without a listener:\n{}", envoy.said());
        envoy
    }

    /// Where requests for a place are sent.
    pub fn address(&self, place: &str) -> SocketAddr {
        *self.listeners.get(place).unwrap_or_else(|| panic!("no listener of the name {place:?}"))
    }

    /// What it has printed.
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("said")).unwrap_or_default()
    }

    fn assert_runs(&mut self) {
        if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
            panic!("Envoy ended with {status} instead of starting:\n{}", self.said());
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // It may have ended by itself, and a test that is unwinding must not fail twice.
        let _: std::io::Result<()> = self.child.kill();
        let _: std::io::Result<std::process::ExitStatus> = self.child.wait();
        if std::thread::panicking() {
            use std::io::Write;
            let _: std::io::Result<()> = writeln!(std::io::stderr().lock(), "--- Envoy said:\n{}", self.said());
        }
    }
}

fn listeners(answer: &Value) -> BTreeMap<String, SocketAddr> {
    let statuses = answer["listener_statuses"].as_array().cloned().unwrap_or_default();
    let named = statuses.iter().filter_map(|status| {
        let address = &status["local_address"]["socket_address"];
        let port = u16::try_from(address["port_value"].as_u64()?).ok()?;
        Some((status["name"].as_str()?.to_owned(), SocketAddr::new(address["address"].as_str()?.parse().ok()?, port)))
    });
    named.collect()
}

const EXTENSIONS: &str = "type.googleapis.com/envoy.extensions";

fn configuration(places: &[Place], clusters: &[Cluster]) -> Value {
    let first = clusters.first().expect("a server that requests go to").name;
    json!({
        "admin": {"address": address(SocketAddr::from(([127, 0, 0, 1], 0)))},
        // The wasm extension, and nothing of the environment that other tests share.
        "static_resources": {
            "listeners": places.iter().map(|place| listener(place, first)).collect::<Vec<_>>(),
            "clusters": clusters.iter().map(cluster).collect::<Vec<_>>(),
        },
    })
}

fn address(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

fn listener(place: &Place, cluster: &str) -> Value {
    let cluster = place.upstream.unwrap_or(cluster);
    let routes = json!({"match": {"prefix": "/"}, "route": {"cluster": cluster, "timeout": "20s"}});
    let router = json!({
        "name": "router",
        "typed_config": {"@type": format!("{EXTENSIONS}.filters.http.router.v3.Router"), "suppress_envoy_headers": true},
    });
    let filters = place.configurations().map(|configuration| wasm(place, configuration)).chain([router]);
    let manager = json!({
        "@type": format!("{EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": place.name,
        // Nothing of its own in requests and answers where it can be left out.
        "generate_request_id": false,
        "skip_xff_append": true,
        "server_header_transformation": "PASS_THROUGH",
        "http_protocol_options": {"enable_trailers": true},
        "route_config": {"name": "all", "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [routes]}]},
        "http_filters": filters.collect::<Vec<_>>(),
    });
    json!({
        "name": place.name,
        "address": address(SocketAddr::from(([127, 0, 0, 1], 0))),
        "per_connection_buffer_limit_bytes": HELD_BYTES,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    })
}

fn wasm(place: &Place, configuration: &str) -> Value {
    let text = |text: &str| json!({"@type": "type.googleapis.com/google.protobuf.StringValue", "value": text});
    let config = json!({
        "name": place.name,
        "root_id": "shapes",
        "failure_policy": if place.fails_open { "FAIL_OPEN" } else { "FAIL_CLOSED" },
        "allow_on_headers_stop_iteration": place.on_headers_stop == OnHeadersStop::GoOn,
        "configuration": text(configuration),
        "vm_config": {
            "vm_id": place.name,
            "runtime": "envoy.wasm.runtime.v8",
            "configuration": text("of the machine"),
            "environment_variables": {"key_values": {"TIDE": "ebb"}},
            "code": {"local": {"filename": place.module.display().to_string()}},
        },
    });
    json!({"name": "wasm", "typed_config": {"@type": format!("{EXTENSIONS}.filters.http.wasm.v3.Wasm"), "config": config}})
}

fn cluster(cluster: &Cluster) -> Value {
    let endpoint = json!({"endpoint": {"address": address(cluster.address)}});
    let options = if cluster.version == http::Version::HTTP_2 {
        json!({"http2_protocol_options": {}})
    } else {
        json!({"http_protocol_options": {"enable_trailers": true}})
    };
    let protocol = "upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": cluster.name,
        "type": "STATIC",
        "connect_timeout": "2s",
        "per_connection_buffer_limit_bytes": HELD_BYTES,
        "load_assignment": {"cluster_name": cluster.name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        "typed_extension_protocol_options": {
            format!("envoy.extensions.{protocol}"): {"@type": format!("{EXTENSIONS}.{protocol}"), "explicit_http_config": options},
        },
    })
}
