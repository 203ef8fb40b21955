//! A filter's place on a route: which plugin runs there, what it is told and what it may choose.

use crate::{
    Mistake, Name,
    grants::{Grants, is_false},
    mistake::step,
    snapshot::Rows,
};
use std::collections::BTreeMap;

/// A filter's place on a route.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FilterUse {
    /// The plugin that is run.
    pub plugin: Name,
    /// What the filter is told when it starts, any JSON value. A Proxy-Wasm filter reads a string as its bytes are, and any
    /// other value as its text.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub config: serde_json::Value,
    /// What becomes of the exchange when the filter fails.
    #[serde(default)]
    pub on_error: OnError,
    /// Whether its exchanges share an instance of it.
    #[serde(default, skip_serializing_if = "Isolation::is_default")]
    pub isolation: Isolation,
    /// Whether it must emit an audit event on every exchange it sees; the record says so where it did not.
    #[serde(default, skip_serializing_if = "is_false")]
    pub required: bool,
    /// Of a Proxy-Wasm filter: whether it is shown requests or the bytes of tunnels. Modules do not say: what SDKs build
    /// exports the callbacks of both.
    #[serde(default, skip_serializing_if = "Traffic::is_default")]
    pub traffic: Traffic,
    /// What it may choose.
    #[serde(default, skip_serializing_if = "Grants::is_default")]
    pub grants: Grants,
    /// Of a Proxy-Wasm filter: which of the filters in its module it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub root_id: String,
    /// Of a Proxy-Wasm filter: which VM it runs in. Places that agree in plugin, `vm_id`, `vm_config` and `environment` share
    /// one on each worker; VMs of one `vm_id` share their data and queues.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub vm_id: String,
    /// Of a Proxy-Wasm filter: what its VM is told when it starts; a string as it is, any other JSON value as its text.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub vm_config: serde_json::Value,
    /// Of a Proxy-Wasm filter: the environment of its VM, values by names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
    /// Of a Proxy-Wasm filter: whether it is shown the body of a message whose head it has stopped. Otherwise the whole
    /// message waits with its head.
    #[serde(default, skip_serializing_if = "is_false")]
    pub allow_on_headers_stop_iteration: bool,
    /// Of a Proxy-Wasm filter: what it reads as the property `metadata`, a JSON object.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub metadata: serde_json::Map<String, serde_json::Value>,
}

/// How the world of a Proxy-Wasm module begins.
pub(crate) const PROXY_WASM: &str = "proxy-wasm ";
/// The most variables of an environment, and bytes of their names and values: what a program's own would rarely have.
const ENVIRONMENT: (usize, usize) = (64, 16 << 10);
/// The most bytes of `metadata` as JSON: it is read by each look-up.
const METADATA_BYTES: usize = 16 << 10;
/// The longest `root_id` and `vm_id`.
const ID_BYTES: usize = 256;

impl FilterUse {
    /// The filter at a place, with all else as it is by default.
    pub fn of(plugin: Name, config: serde_json::Value) -> Self {
        Self {
            plugin,
            config,
            on_error: OnError::default(),
            isolation: Isolation::default(),
            required: false,
            traffic: Traffic::default(),
            grants: Grants::default(),
            root_id: String::new(),
            vm_id: String::new(),
            vm_config: serde_json::Value::Null,
            environment: BTreeMap::new(),
            allow_on_headers_stop_iteration: false,
            metadata: serde_json::Map::new(),
        }
    }

    /// What decides whether a module starts here, as text: places that agree in it and in the module need be tried once.
    pub fn start(&self) -> String {
        let Self { config, traffic, root_id, vm_id, vm_config, environment, metadata, .. } = self;
        serde_json::json!([config, traffic, root_id, vm_id, vm_config, environment, metadata]).to_string()
    }

    /// What is wrong with it on a route of `service`, beside `rows`.
    pub(crate) fn check(&self, service: &Name, rows: &Rows) -> Vec<Mistake> {
        let mut mistakes = Vec::new();
        match rows.plugins.get(&self.plugin) {
            None => {
                let detail = format!("there is no plugin {}: upload it first", self.plugin);
                mistakes.push(Mistake::at("/plugin", detail));
            }
            Some(plugin) if plugin.world.starts_with(PROXY_WASM) => self.check_proxy_wasm(&mut mistakes),
            Some(plugin) => self.check_typed(&plugin.world, &mut mistakes),
        }
        let granted = self.grants.check(service, rows);
        mistakes.extend(granted.into_iter().map(|mistake| mistake.under("/grants")));
        mistakes
    }

    fn check_typed(&self, world: &str, mistakes: &mut Vec<Mistake>) {
        let given = [
            ("/traffic", !self.traffic.is_default()),
            ("/root_id", !self.root_id.is_empty()),
            ("/vm_id", !self.vm_id.is_empty()),
            ("/vm_config", !self.vm_config.is_null()),
            ("/environment", !self.environment.is_empty()),
            ("/allow_on_headers_stop_iteration", self.allow_on_headers_stop_iteration),
            ("/metadata", !self.metadata.is_empty()),
        ];
        let detail = format!("is for Proxy-Wasm filters, and {} is one of {world}: leave it out", self.plugin);
        mistakes.extend(given.into_iter().filter(|(_, given)| *given).map(|(pointer, _)| Mistake::at(pointer, &*detail)));
    }

    fn check_proxy_wasm(&self, mistakes: &mut Vec<Mistake>) {
        if self.isolation == Isolation::Exchange {
            let detail = "a Proxy-Wasm filter shares its VM: leave it out, and give it a vm_id to part it from other places";
            mistakes.push(Mistake::at("/isolation", detail));
        }
        for (pointer, id) in [("/root_id", &self.root_id), ("/vm_id", &self.vm_id)] {
            if id.len() > ID_BYTES {
                mistakes.push(Mistake::at(pointer, format!("has {} bytes: give at most {ID_BYTES}", id.len())));
            }
        }
        for (name, value) in &self.environment {
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                let detail = "a variable has a name without '=', and neither name nor value has a zero byte";
                mistakes.push(Mistake::at(format!("/environment/{}", step(name)), detail));
            }
        }
        let (most, most_bytes) = ENVIRONMENT;
        let bytes: usize = self.environment.iter().map(|(name, value)| name.len() + value.len()).sum();
        if self.environment.len() > most || bytes > most_bytes {
            let detail = format!("has more than {most} variables or {most_bytes} bytes: put it into vm_config");
            mistakes.push(Mistake::at("/environment", detail));
        }
        let bytes = serde_json::Value::from(self.metadata.clone()).to_string().len();
        if bytes > METADATA_BYTES {
            mistakes.push(Mistake::at("/metadata", format!("has {bytes} bytes as JSON: give at most {METADATA_BYTES}")));
        }
    }
}

/// What of its route's traffic a filter is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Traffic {
    /// Requests and their responses, those within a tunnel to a port that speaks HTTP in the clear among them.
    #[default]
    Requests,
    /// The bytes of tunnels.
    Tunnels,
    /// Both.
    Both,
}

impl Traffic {
    /// Whether this is shown to it.
    #[must_use]
    pub fn covers(self, traffic: Self) -> bool {
        self == Self::Both || self == traffic
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether the exchanges of a worker share an instance of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Isolation {
    /// One instance serves many exchanges.
    #[default]
    Shared,
    /// Each exchange has an instance of its own, which no other has used or will use. It costs some 30 microseconds.
    Exchange,
}

impl Isolation {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What becomes of an exchange whose filter failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnError {
    /// It is refused as `filter_failed`.
    #[default]
    Deny,
    /// It goes on without the filter, and the record says so.
    Skip,
}
