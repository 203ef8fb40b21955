//! The configuration, and what is made of it once: the schema, the routes, the limits.

use crate::deadline::{self, Deadlines};
use crate::descriptor::FileSet;
use crate::request::write::Unknown;
use crate::response::{Absent, Enums, Style};
use crate::routes::{Defaults, Routes};
use crate::schema::{Names, Schema};
use crate::stream::Format;
use base64::Engine;
use prost::Message;
use std::time::Duration;

/// As much as the gateway holds for a filter unless it is told otherwise.
const MESSAGE_BYTES: u32 = 1 << 20;
/// A message, its JSON and the copies on the way have to fit into the memory of a filter.
const MOST_MESSAGE_BYTES: u32 = 16 << 20;

/// The configuration. Only `descriptors` has no default.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    descriptors: Option<String>,
    services: Option<Vec<String>>,
    default_paths: Option<bool>,
    unknown_paths: UnknownPaths,
    unknown_fields: Unknown,
    streams: Format,
    json: JsonConfig,
    deadline: DeadlineConfig,
    max_request_bytes: Option<u32>,
    max_response_bytes: Option<u32>,
}

/// What becomes of requests that mean no method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UnknownPaths {
    #[default]
    Refuse,
    /// They go on as they are: the API has other pages too.
    Pass,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct JsonConfig {
    names: NamesConfig,
    enums: EnumsConfig,
    absent: AbsentConfig,
}

#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum NamesConfig {
    #[default]
    Json,
    Proto,
}

#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum EnumsConfig {
    #[default]
    Names,
    Numbers,
}

#[derive(Debug, Clone, Copy, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum AbsentConfig {
    #[default]
    Omit,
    Write,
}

#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct DeadlineConfig {
    default: Option<String>,
    max: Option<String>,
    header: Option<String>,
}

/// What is wrong with a configuration.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mistake {
    pub(crate) pointer: String,
    pub(crate) detail: String,
}

/// A configuration that holds.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) schema: Schema,
    pub(crate) routes: Routes,
    pub(crate) unknown_paths: UnknownPaths,
    pub(crate) unknown_fields: Unknown,
    pub(crate) streams: Format,
    pub(crate) style: Style,
    pub(crate) deadlines: Deadlines,
    pub(crate) max_request_bytes: u32,
    pub(crate) max_response_bytes: u32,
}

impl Config {
    pub(crate) fn check(self) -> Result<Checked, Mistake> {
        let set = descriptors(self.descriptors.as_deref())?;
        self.check_services(&set)?;
        let names = match self.json.names {
            NamesConfig::Json => Names::Json,
            NamesConfig::Proto => Names::Proto,
        };
        let wrong = |detail| mistake("/descriptors", detail);
        let schema = Schema::build(&set, self.services.as_deref(), names).map_err(wrong)?;
        let defaults = if self.default_paths == Some(false) { Defaults::Hidden } else { Defaults::Exposed };
        let routes = Routes::build(&schema, defaults).map_err(wrong)?;
        if routes.is_empty() {
            let detail = "no method is annotated with google.api.http, and default paths are off: nothing could be called";
            return Err(mistake("/default_paths", detail));
        }
        let max_response_bytes = bytes("/max_response_bytes", self.max_response_bytes)?;
        Ok(Checked {
            schema,
            routes,
            unknown_paths: self.unknown_paths,
            unknown_fields: self.unknown_fields,
            streams: self.streams,
            style: Style {
                enums: match self.json.enums {
                    EnumsConfig::Names => Enums::Names,
                    EnumsConfig::Numbers => Enums::Numbers,
                },
                absent: match self.json.absent {
                    AbsentConfig::Omit => Absent::Omit,
                    AbsentConfig::Write => Absent::Write,
                },
                most: max_response_bytes as usize,
            },
            deadlines: self.deadline.check()?,
            max_request_bytes: bytes("/max_request_bytes", self.max_request_bytes)?,
            max_response_bytes,
        })
    }

    fn check_services(&self, set: &FileSet) -> Result<(), Mistake> {
        let known: Vec<String> = set
            .files
            .iter()
            .flat_map(|file| file.services.iter().map(|service| format!("{}.{}", file.package, service.name)))
            .map(|name| name.trim_start_matches('.').to_owned())
            .collect();
        if known.is_empty() {
            return Err(mistake("/descriptors", "there is no service in the set"));
        }
        let Some(services) = &self.services else { return Ok(()) };
        if services.is_empty() {
            return Err(mistake(
                "/services",
                "an empty list exposes nothing: name services, or leave the field out to expose all",
            ));
        }
        match services.iter().position(|service| !known.contains(service)) {
            None => Ok(()),
            Some(index) => {
                let detail = format!("{:?} is not in the set; these are: {}", services[index], known.join(", "));
                Err(mistake(&format!("/services/{index}"), detail))
            }
        }
    }
}

impl DeadlineConfig {
    fn check(self) -> Result<Deadlines, Mistake> {
        let duration = |pointer: &str, text: Option<String>| -> Result<Option<Duration>, Mistake> {
            let Some(text) = text else { return Ok(None) };
            let duration = deadline::read(&text).filter(|duration| !duration.is_zero());
            let detail = || format!("{text:?} is not a duration such as \"250ms\", \"10s\" or \"2m\"");
            duration.map(Some).ok_or_else(|| mistake(pointer, detail()))
        };
        let header = self.header.map(|name| name.to_ascii_lowercase());
        let is_token =
            |name: &String| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        if let Some(name) = header.as_ref().filter(|name| !is_token(name)) {
            return Err(mistake("/deadline/header", format!("{name:?} is not a header name")));
        }
        Ok(Deadlines {
            default: duration("/deadline/default", self.default)?,
            max: duration("/deadline/max", self.max)?,
            header: header.map(Into::into),
        })
    }
}

fn descriptors(text: Option<&str>) -> Result<FileSet, Mistake> {
    const HOW: &str = "make one with `protoc --include_imports --descriptor_set_out=api.pb` and `base64 -w0 api.pb`";
    let wrong = |detail: String| mistake("/descriptors", detail);
    let text = text.ok_or_else(|| wrong(format!("a descriptor set in base64 is needed: {HOW}")))?;
    // Tools wrap lines.
    let text: String = text.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes = bytes.map_err(|error| wrong(format!("this is not base64 ({error}): {HOW}")))?;
    FileSet::decode(bytes.as_slice()).map_err(|error| wrong(format!("this is not a FileDescriptorSet ({error}): {HOW}")))
}

fn bytes(pointer: &str, value: Option<u32>) -> Result<u32, Mistake> {
    let value = value.unwrap_or(MESSAGE_BYTES);
    if (1..=MOST_MESSAGE_BYTES).contains(&value) {
        return Ok(value);
    }
    Err(mistake(pointer, format!("{value} is not from 1 to {MOST_MESSAGE_BYTES} bytes")))
}

fn mistake(pointer: &str, detail: impl Into<String>) -> Mistake {
    Mistake { pointer: pointer.to_owned(), detail: detail.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use serde_json::{Value, json};

    fn encoded(set: &[u8]) -> String {
        base64::engine::general_purpose::STANDARD.encode(set)
    }

    fn check(config: Value) -> Result<Checked, Mistake> {
        serde_json::from_value::<Config>(config).unwrap().check()
    }

    #[test]
    fn a_descriptor_set_is_enough() {
        let text = encoded(&samples::set("shop.proto"));
        let wrapped: Vec<_> = text.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
        for descriptors in [text.clone(), wrapped.join("\n")] {
            let checked = check(json!({"descriptors": descriptors})).unwrap();
            assert_eq!(checked.schema.methods().len(), 10);
            assert_eq!((checked.max_request_bytes, checked.max_response_bytes), (1 << 20, 1 << 20));
        }
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let set = encoded(&samples::set("shop.proto"));
        let with = |name: &str, value: Value| {
            let mut config = json!({"descriptors": set});
            config[name] = value;
            config
        };
        let bare = encoded(&samples::set_of(r#"syntax = "proto3"; message M {} service S { rpc A(M) returns (M); }"#));
        let cases = [
            (json!({}), "/descriptors", "a descriptor set in base64 is needed: make one with `protoc"),
            (json!({"descriptors": "ä"}), "/descriptors", "this is not base64"),
            (json!({"descriptors": "AAAA"}), "/descriptors", "this is not a FileDescriptorSet"),
            (json!({"descriptors": ""}), "/descriptors", "there is no service in the set"),
            (
                json!({"descriptors": encoded(&samples::set("everything.proto"))}),
                "/descriptors",
                "there is no service in the set",
            ),
            (with("services", json!([])), "/services", "an empty list exposes nothing"),
            (with("services", json!(["shop.v1.Orders", "shop.v1.Nope"])), "/services/1", "these are: shop.v1.Orders"),
            (json!({"descriptors": bare, "default_paths": false}), "/default_paths", "nothing could be called"),
            (with("deadline", json!({"default": "soon"})), "/deadline/default", "\"soon\" is not a duration"),
            (with("deadline", json!({"max": "0s"})), "/deadline/max", "\"0s\" is not a duration"),
            (with("deadline", json!({"header": "a b"})), "/deadline/header", "\"a b\" is not a header name"),
            (with("max_request_bytes", json!(0)), "/max_request_bytes", "0 is not from 1 to"),
            (with("max_response_bytes", json!(1 << 30)), "/max_response_bytes", "is not from 1 to 16777216 bytes"),
        ];
        for (config, pointer, detail) in cases {
            let mistake = check(config).expect_err(detail);
            assert_eq!(mistake.pointer, pointer, "{mistake:?}");
            assert!(mistake.detail.contains(detail), "{mistake:?}");
        }
    }

    #[test]
    fn only_the_named_services_are_exposed() {
        let set = samples::set_of(
            r#"syntax = "proto3"; import "google/api/annotations.proto"; message M { string a = 1; }
            service One { rpc A(M) returns (M) { option (google.api.http) = { get: "/same" }; } }
            service Two { rpc A(M) returns (M) { option (google.api.http) = { get: "/same" }; } }"#,
        );
        let mistake = check(json!({"descriptors": encoded(&set)})).unwrap_err();
        assert!(mistake.detail.ends_with("both annotated with the same method and path: choose services"), "{mistake:?}");
        let checked = check(json!({"descriptors": encoded(&set), "services": ["Two"]})).unwrap();
        assert_eq!(checked.schema.methods().len(), 1);
        assert_eq!(&*checked.schema.methods()[0].path, "/Two/A");
    }
}
