//! What most tests begin with: a gateway, the name server it asks, an authority for the external APIs, and an operator.

use crate::{
    Gateway, Options, Raw, Rest,
    api::{Api, Speaks},
    certificates::Authority,
    dns::NameServer,
    raw::Reply,
    wait::within,
};
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// A gateway and what stands around it.
pub struct World {
    /// The gateway.
    pub gateway: Gateway,
    /// The operator.
    pub rest: Rest,
    /// The name server that the gateway asks.
    pub names: NameServer,
    /// Who signs the external APIs' certificates; the gateway knows it as the credential `api-ca`.
    pub authority: Authority,
}

/// The source address of callers that the workload `pod` stands for.
pub const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 7, 7));
/// A source address of callers of whom nothing is known.
pub const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 9, 9));
/// The principal of the workload `pod`.
pub const POD_PRINCIPAL: &str = "spiffe://cluster.local/ns/shop/sa/checkout";

impl World {
    /// Everything started, nothing registered but the authority and the workload `pod`.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// As [`World::start`], with options of the test's own.
    pub async fn start_with(options: Options) -> Self {
        let names = NameServer::start().await;
        let gateway = Gateway::start(&options.flag("--resolver", names.address)).await;
        Self::around(gateway, names, Authority::new("External APIs")).await
    }

    /// What stands around a gateway that runs already.
    pub async fn around(gateway: Gateway, names: NameServer, authority: Authority) -> Self {
        let rest = gateway.rest();
        rest.register("credentials", "api-ca", &json!({"kind": "trust", "pem": authority.pem()})).await;
        let pod = json!({
            "networks": [format!("{POD}/32")], "principal": POD_PRINCIPAL,
            "namespace": "shop", "service_account": "checkout", "labels": {"app": "checkout"},
        });
        rest.register("workloads", "pod", &pod).await;
        Self { gateway, rest, names, authority }
    }

    /// An API over TLS with a good certificate for `host`, HTTP/2 and HTTP/1.1.
    pub async fn api(&self, host: &str) -> Api {
        let leaf = self.authority.server(&[host]);
        Api::start(Speaks::Tls(leaf.server_config(&["h2", "http/1.1"]))).await
    }

    /// Registers `api` as `name` with the one host `host`, and an allow rule for everyone to reach it.
    pub async fn open(&self, name: &str, host: &str, api: SocketAddr) {
        self.rest.register("services", name, &service(host, api)).await;
        self.allow(name).await;
    }

    /// Registers a plaintext HTTP/1.1 API as `name`, and an allow rule for everyone to reach it.
    pub async fn open_plain(&self, name: &str, host: &str, api: SocketAddr) {
        self.rest.register("services", name, &plain_service(host, api)).await;
        self.allow(name).await;
    }

    /// Lets everyone reach the service `name`.
    pub async fn allow(&self, name: &str) {
        let rule = json!({"action": "allow", "to": [{"services": [name]}]});
        self.rest.register("rules", &format!("allow-{name}"), &rule).await;
        self.in_force().await;
    }

    /// Waits until the last write is in force on every worker.
    pub async fn in_force(&self) {
        let wanted = self.rest.revision() as f64;
        within(crate::gateway::IN_FORCE_WITHIN, "the last change to be in force", async || {
            (self.gateway.metric("tidegate_revision", "").await >= wanted).then_some(())
        })
        .await;
    }

    /// A raw connection to the plaintext proxy listener, from the pod's address.
    pub async fn pod(&self) -> Raw {
        Raw::connect_from(POD, self.gateway.addresses.proxy).await
    }

    /// A pod of another tenant, at `source`: a workload of this name with the label `tenant`. It becomes known with the next
    /// change that is in force.
    pub async fn tenant(&self, name: &str, source: Ipv4Addr) -> Tenant {
        let workload = json!({
            "networks": [format!("{source}/32")], "principal": format!("spiffe://cluster.local/ns/{name}/sa/app"),
            "namespace": name, "service_account": "app", "labels": {"tenant": name},
        });
        self.rest.register("workloads", name, &workload).await;
        Tenant { source: IpAddr::V4(source), proxy: self.gateway.addresses.proxy }
    }

    /// A raw connection to the plaintext proxy listener, from an address that nothing is known of.
    pub async fn stranger(&self) -> Raw {
        Raw::connect_from(STRANGER, self.gateway.addresses.proxy).await
    }

    /// What the pod gets for `GET url` in absolute form.
    pub async fn get(&self, url: &str) -> Reply {
        let host = url.split('/').nth(2).unwrap_or_default().to_owned();
        self.pod().await.get(url, &host, "").await
    }
}

/// A pod of a tenant.
#[derive(Debug, Clone, Copy)]
pub struct Tenant {
    source: IpAddr,
    proxy: SocketAddr,
}

impl Tenant {
    /// What it gets for `GET url` in absolute form, with these header lines.
    pub async fn get(&self, url: &str, headers: &str) -> Reply {
        let host = url.split('/').nth(2).unwrap_or_default().to_owned();
        Raw::connect_from(self.source, self.proxy).await.get(url, &host, headers).await
    }
}

/// A service at `host`, https on port 443, that is really at `api`, believed through `api-ca`.
pub fn service(host: &str, api: SocketAddr) -> Value {
    json!({
        "hosts": [host], "ports": [{"number": 443, "protocol": "https"}], "resolution": "static",
        "endpoints": [{"address": api.ip().to_string(), "port": api.port()}], "networks": ["127.0.0.0/8"],
        "tls": {"mode": "simple", "trust": "api-ca"},
    })
}

/// A service at `host`, plain HTTP on port 80, that is really at `api`.
pub fn plain_service(host: &str, api: SocketAddr) -> Value {
    json!({
        "hosts": [host], "ports": [{"number": 80, "protocol": "http"}], "resolution": "static",
        "endpoints": [{"address": api.ip().to_string(), "port": api.port()}], "networks": ["127.0.0.0/8"],
    })
}

/// `document` with the value at `pointer` put in place of what is there.
///
/// # Panics
/// When the pointer's parent is not there.
#[must_use]
pub fn with(mut document: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer begins with a slash");
    let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent:?}"));
    match parent {
        Value::Object(object) => {
            object.insert(key.to_owned(), value);
        }
        Value::Array(list) => {
            let at: usize = key.parse().expect("an index");
            list[at] = value;
        }
        _ => panic!("{pointer}: no parent"),
    }
    document
}
