//! The configuration as it is written, checked once; every mistake is pointed at.

use crate::origins::{Allowed, Credentials, Origins, is_origin};
use tidegate_sdk::ConfigError;

/// The configuration. Only `origins` is required, for nobody should allow every page by leaving something out.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    origins: Vec<String>,
    #[serde(default)]
    request_headers: Vec<String>,
    #[serde(default)]
    expose_headers: Vec<String>,
    #[serde(default)]
    credentials: bool,
    max_age: Option<String>,
}

/// Most origins, and most headers of a kind.
const LIST: usize = 64;
/// What gRPC-Web clients send that a browser asks about first.
const REQUEST_HEADERS: [&str; 5] = ["content-type", "x-grpc-web", "x-user-agent", "grpc-timeout", "authorization"];
/// What gRPC-Web clients read of an answer without messages.
const EXPOSED_HEADERS: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];
/// How long a browser remembers a preflight, in seconds: what the strictest browsers allow at most.
const MAX_AGE: u64 = 7200;

impl Config {
    pub(crate) fn check(self) -> Result<Origins, ConfigError> {
        let mistake = |pointer: &str, detail: &str| Err(ConfigError::new(pointer, detail));
        if self.origins.len() > LIST {
            return mistake("/origins", &format!("at most {LIST} origins are compared"));
        }
        let any = self.origins.iter().any(|origin| origin == "*");
        if any && self.origins.len() > 1 {
            return mistake("/origins", "\"*\" allows every page; name either it or origins");
        }
        if any && self.credentials {
            return mistake("/credentials", "browsers send credentials to named origins only, and `origins` says \"*\"");
        }
        if let Some(index) = self.origins.iter().position(|origin| origin != "*" && !is_origin(origin)) {
            let detail =
                format!("{:?} is not an origin as browsers send it, such as \"https://app.example\"", self.origins[index]);
            return mistake(&format!("/origins/{index}"), &detail);
        }
        let max_age = match self.max_age.as_deref().map(seconds) {
            None => MAX_AGE,
            Some(Some(seconds)) => seconds,
            Some(None) => {
                return mistake("/max_age", "a duration from \"0s\" to \"24h\" is expected, such as \"10m\"");
            }
        };
        Ok(Origins {
            allowed: if any { Allowed::Any } else { Allowed::These(self.origins) },
            credentials: if self.credentials { Credentials::Allowed } else { Credentials::Omitted },
            request_headers: headers("/request_headers", &REQUEST_HEADERS, &self.request_headers)?,
            exposed_headers: headers("/expose_headers", &EXPOSED_HEADERS, &self.expose_headers)?,
            max_age: max_age.to_string(),
        })
    }
}

/// The names that are always listed, and those that are configured.
fn headers(at: &str, always: &[&str], configured: &[String]) -> Result<String, ConfigError> {
    if configured.len() > LIST {
        return Err(ConfigError::new(at, format!("at most {LIST} headers are listed")));
    }
    let mut names: Vec<String> = always.iter().map(|name| (*name).to_owned()).collect();
    for (index, name) in configured.iter().enumerate() {
        // Without "*", which browsers read as every header.
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'+-.^_`|~".contains(&byte);
        if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
            let detail = format!("{name:?} is not a header name (RFC 9110 section 5.1)");
            return Err(ConfigError::new(format!("{at}/{index}"), detail));
        }
        let name = name.to_ascii_lowercase();
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names.join(", "))
}

/// A duration in whole seconds, up to a day.
fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|character: char| !character.is_ascii_digit())?);
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(unit).filter(|seconds| *seconds <= 24 * 3600)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(config: Value) -> Result<Origins, ConfigError> {
        serde_json::from_value::<Config>(config).unwrap().check()
    }

    #[test]
    fn what_is_configured_is_told() {
        let origins = check(json!({
            "origins": ["https://app.example"], "request_headers": ["X-Tenant", "Content-Type"], "expose_headers": ["x-id"],
            "credentials": true, "max_age": "10m",
        }))
        .unwrap();
        assert_eq!(origins.request_headers, "content-type, x-grpc-web, x-user-agent, grpc-timeout, authorization, x-tenant");
        assert_eq!(origins.exposed().1, "grpc-status, grpc-message, grpc-status-details-bin, x-id");
        assert_eq!((origins.max_age.as_str(), origins.credentials), ("600", Credentials::Allowed));
        assert_eq!(check(json!({"origins": []})).unwrap().max_age, "7200");
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let rows = [
            (json!({"origins": ["https://a.example", "b"]}), "/origins/1"),
            (json!({"origins": ["*", "https://a.example"]}), "/origins"),
            (json!({"origins": ["*"], "credentials": true}), "/credentials"),
            (json!({"origins": [], "request_headers": ["a", "b c"]}), "/request_headers/1"),
            (json!({"origins": [], "expose_headers": ["*"]}), "/expose_headers/0"),
            (json!({"origins": [], "max_age": "10"}), "/max_age"),
            (json!({"origins": [], "max_age": "25h"}), "/max_age"),
            (json!({"origins": [], "max_age": "-1s"}), "/max_age"),
        ];
        for (config, pointer) in rows {
            assert_eq!(check(config.clone()).expect_err(&config.to_string()).pointer(), pointer, "{config}");
        }
    }
}
