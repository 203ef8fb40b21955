//! A well-behaved header filter: reads three headers in two calls, writes one to the request and one to the response.
//! Five host calls in two callbacks, which is what the cost of a filter is measured with.

use tidegate_sdk::{ConfigError, Exchange, Filter, Flow, Headers, StatusCode, attributes};

/// Its configuration.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What the stamp says.
    value: String,
}

impl Default for Config {
    fn default() -> Self {
        Self { value: "stamped".to_owned() }
    }
}

/// The filter.
#[derive(Debug)]
pub struct Stamp(Config);

impl Filter for Stamp {
    type Config = Config;
    type State = ();

    fn new(config: Config) -> Result<Self, ConfigError> {
        if config.value.is_empty() {
            return Err(ConfigError::new("/value", "a stamp says something"));
        }
        Ok(Self(config))
    }

    fn on_request(&self, _: &mut Exchange<()>, headers: &mut Headers<'_>, _end: bool) -> Flow {
        let agent = headers.get("user-agent");
        let service = attributes::get("service");
        let value = if agent.is_some() || service.is_some() { self.0.value.as_str() } else { "anonymous" };
        // What the host refuses is left as it was: this filter has no opinion on it.
        let _ = headers.insert("x-stamp", value);
        Flow::Proceed
    }

    fn on_response(&self, _: &mut Exchange<()>, _: StatusCode, headers: &mut Headers<'_>, _end: bool) -> Flow {
        if headers.get("content-type").is_some() {
            let _ = headers.insert("x-stamp", self.0.value.as_str());
        }
        // There is nothing to log, so no third callback is needed.
        Flow::Done
    }
}

tidegate_sdk::export!(Stamp);
