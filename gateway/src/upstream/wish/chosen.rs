//! A wish as people read it: names, never key material.

use super::Wish;
use tidegate_policy::service::Tls;

/// What filters chose, by name.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Chosen {
    /// Another service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// One of its endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// TLS as it would be originated, all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// The secrets that would be written into the request.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<ChosenSecret>,
}

/// A secret, by its credential's name.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ChosenSecret {
    /// The header it would be in.
    pub header: String,
    /// What would be before it.
    pub prefix: String,
    /// The credential.
    pub credential: String,
}

impl Wish {
    /// What was chosen, by name.
    pub fn chosen(&self) -> Chosen {
        let secret = |injection: &super::Injection| ChosenSecret {
            header: injection.header.to_string(),
            prefix: injection.prefix.clone(),
            credential: injection.credential.to_string(),
        };
        Chosen {
            service: self.service().map(ToString::to_string),
            endpoint: self.endpoint().map(|place| format!("{}:{}", place.host, place.port)),
            tls: self.tls().cloned(),
            secrets: self.secrets.iter().map(secret).collect(),
        }
    }
}
