//! A workload: how a caller is known when it brings no credentials.

use crate::{Mistake, selector::check_networks};
use ipnet::IpNet;
use std::collections::BTreeMap;

/// Callers known by the network they come from.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Workload {
    /// Where they come from; the longest prefix among all workloads wins, and no two may name the same network.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<String>))]
    pub networks: Vec<IpNet>,
    /// Who they are, such as `spiffe://cluster.local/ns/shop/sa/checkout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Their namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Their service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Their labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// How the principals begin by which filters call services themselves; nobody else may be taken for one.
pub const FILTERS: &str = "filter/";

impl Workload {
    /// What is wrong with it by itself.
    pub(crate) fn check(&self) -> Vec<Mistake> {
        let mut mistakes = check_networks("networks", &self.networks);
        if self.networks.is_empty() {
            mistakes.push(Mistake::at("/networks", "no caller comes from nowhere: name at least one network"));
        }
        if self.principal.as_deref().is_some_and(|principal| principal.starts_with(FILTERS)) {
            mistakes.push(Mistake::at("/principal", "principals that begin with filter/ are those of filters: choose another"));
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_taken_for_a_filter() {
        let workload = |principal: &str| Workload {
            networks: vec!["10.0.0.0/8".parse().expect("a network")],
            principal: Some(principal.to_owned()),
            namespace: None,
            service_account: None,
            labels: BTreeMap::new(),
        };
        assert!(workload("spiffe://cluster.local/ns/shop/sa/checkout").check().is_empty());
        assert_eq!(workload("filter/courier").check()[0].pointer, "/principal");
    }
}
