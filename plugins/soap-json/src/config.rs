//! The configuration as it is written, checked once into a [`Service`]; every mistake is pointed at.

use crate::{
    compose::{Form, Null, Version},
    convert::Types,
    fault::Statuses,
    hints::{Hints, Path},
    names::{Namespaces, RESERVED, is_ncname, split},
    operations::{Operation, Template},
    parse,
    service::{Limits, Service},
};
use serde::Deserialize;
use std::collections::BTreeMap;
use tidegate_sdk::{ConfigError, pointer_step};

/// The configuration. `version`, `path` and `operations` are required.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    version: VersionName,
    path: String,
    operations: Vec<OperationConfig>,
    namespace: Option<String>,
    #[serde(default)]
    form: FormName,
    #[serde(default)]
    null: NullName,
    #[serde(default)]
    types: bool,
    #[serde(default)]
    namespaces: BTreeMap<String, String>,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    understood: Vec<String>,
    #[serde(default)]
    faults: BTreeMap<String, u16>,
    #[serde(default)]
    limits: LimitsConfig,
    #[serde(default)]
    arrays: Vec<String>,
    #[serde(default)]
    numbers: Vec<String>,
    #[serde(default)]
    booleans: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OperationConfig {
    method: String,
    path: String,
    element: String,
    namespace: Option<String>,
    action: Option<String>,
    response: Option<String>,
    #[serde(default)]
    query: Vec<String>,
    #[serde(default)]
    arrays: Vec<String>,
    #[serde(default)]
    numbers: Vec<String>,
    #[serde(default)]
    booleans: Vec<String>,
    #[serde(default)]
    order: BTreeMap<String, Vec<String>>,
}

#[derive(Debug, Deserialize)]
enum VersionName {
    #[serde(rename = "1.1")]
    Soap11,
    #[serde(rename = "1.2")]
    Soap12,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FormName {
    #[default]
    Qualified,
    Unqualified,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NullName {
    #[default]
    Nil,
    Omit,
}

/// Bounds on documents in both directions. The filter's memory and its time for a callback are the reasons for the highest.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LimitsConfig {
    bytes: usize,
    depth: usize,
    elements: usize,
    attributes: usize,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { bytes: 512 << 10, depth: 32, elements: 10_000, attributes: 32 }
    }
}

/// Most operations of a route, and most hints of a kind, names or headers in one list.
const LIST: usize = 256;
/// Longest text of a namespace, an action or a path.
const TEXT_BYTES: usize = 2048;

impl Config {
    /// The service that is meant.
    pub(crate) fn check(self) -> Result<Service, ConfigError> {
        let limits = self.limits.check()?;
        let namespaces = namespaces(self.namespaces)?;
        target(&self.path)?;
        if let Some(namespace) = &self.namespace {
            plain("/namespace", namespace)?;
        }
        short("/headers", self.headers.len())?;
        for (index, header) in self.headers.iter().enumerate() {
            header_entry(header, limits.bounds()).map_err(|detail| ConfigError::new(format!("/headers/{index}"), detail))?;
        }
        let shared = Hints {
            arrays: paths("/arrays", &self.arrays)?,
            numbers: paths("/numbers", &self.numbers)?,
            booleans: paths("/booleans", &self.booleans)?,
            order: Vec::new(),
        };
        if self.operations.is_empty() {
            return Err(ConfigError::new("/operations", "a service has at least one operation"));
        }
        short("/operations", self.operations.len())?;
        let mut operations: Vec<Operation> = Vec::with_capacity(self.operations.len());
        for (index, config) in self.operations.into_iter().enumerate() {
            let at = format!("/operations/{index}");
            let operation = config.check(self.namespace.as_deref(), &shared, &namespaces).map_err(|error| error.within(&at))?;
            let same = |other: &Operation| other.method == operation.method && other.template.is_same(&operation.template);
            if let Some(first) = operations.iter().position(same) {
                return Err(ConfigError::new(format!("{at}/path"), format!("operation {first} has the same method and path")));
            }
            operations.push(operation);
        }
        Ok(Service {
            version: match self.version {
                VersionName::Soap11 => Version::Soap11,
                VersionName::Soap12 => Version::Soap12,
            },
            path: self.path,
            form: match self.form {
                FormName::Qualified => Form::Qualified,
                FormName::Unqualified => Form::Unqualified,
            },
            null: match self.null {
                NullName::Nil => Null::Nil,
                NullName::Omit => Null::Omit,
            },
            types: if self.types { Types::Keep } else { Types::Drop },
            understood: understood(self.understood, &namespaces)?,
            namespaces,
            headers: self.headers,
            statuses: statuses(self.faults)?,
            limits,
            operations,
        })
    }
}

impl OperationConfig {
    fn check(self, namespace: Option<&str>, shared: &Hints, namespaces: &Namespaces) -> Result<Operation, ConfigError> {
        let mistake = |field: &str, detail: String| ConfigError::new(format!("/{field}"), detail);
        if self.method.is_empty() || !self.method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            return Err(mistake("method", format!("{:?} is not a method; they are written in capitals", self.method)));
        }
        let template = Template::read(&self.path).map_err(|detail| mistake("path", detail))?;
        for (field, name) in [("element", Some(&self.element)), ("response", self.response.as_ref())] {
            if let Some(name) = name.filter(|name| !is_ncname(name)) {
                return Err(mistake(field, format!("{name:?} is not the name of an element without its prefix")));
            }
        }
        let Some(namespace) = self.namespace.as_deref().or(namespace) else {
            let detail = "the operation needs a namespace, its own or the one under `/namespace`; \"\" stands for none";
            return Err(mistake("namespace", detail.to_owned()));
        };
        plain("/namespace", namespace)?;
        let action = self.action.unwrap_or_default();
        plain("/action", &action)?;
        if action.contains(['"', '\\']) || !action.is_ascii() {
            return Err(mistake("action", "an action is an ASCII URI without quotes".to_owned()));
        }
        let mut members: Vec<&str> = Vec::new();
        for (field, name) in
            template.names().map(|name| ("path", name)).chain(self.query.iter().map(|name| ("query", name.as_str())))
        {
            match split(name.strip_prefix('@').unwrap_or(name)) {
                None => return Err(mistake(field, format!("{name:?} is not a name that XML allows"))),
                Some((Some(prefix), _)) if !namespaces.knows(prefix) => {
                    return Err(mistake(field, format!("{prefix:?} is no prefix of `/namespaces`")));
                }
                Some(_) if members.contains(&name) => return Err(mistake(field, format!("{name:?} is named twice"))),
                Some(_) => members.push(name),
            }
        }
        let hints = Hints {
            arrays: joined(&shared.arrays, paths("/arrays", &self.arrays)?),
            numbers: joined(&shared.numbers, paths("/numbers", &self.numbers)?),
            booleans: joined(&shared.booleans, paths("/booleans", &self.booleans)?),
            order: order("/order", self.order)?,
        };
        Ok(Operation {
            method: self.method,
            template,
            query: self.query,
            element: self.element,
            namespace: namespace.to_owned(),
            action,
            response: self.response,
            hints,
        })
    }
}

impl LimitsConfig {
    fn check(self) -> Result<Limits, ConfigError> {
        let rows = [
            ("bytes", self.bytes, 1 << 20),
            ("depth", self.depth, 64),
            ("elements", self.elements, 50_000),
            ("attributes", self.attributes, 256),
        ];
        for (field, value, highest) in rows {
            if !(1..=highest).contains(&value) {
                return Err(ConfigError::new(format!("/limits/{field}"), format!("{value} is not between 1 and {highest}")));
            }
        }
        Ok(Limits { bytes: self.bytes, depth: self.depth, elements: self.elements, attributes: self.attributes })
    }
}

fn namespaces(configured: BTreeMap<String, String>) -> Result<Namespaces, ConfigError> {
    short("/namespaces", configured.len())?;
    let mut checked: Vec<(String, String)> = Vec::with_capacity(configured.len());
    for (prefix, namespace) in configured {
        let at = format!("/namespaces{}", pointer_step(&prefix));
        plain(&at, &namespace)?;
        let detail = match () {
            () if !is_ncname(&prefix) => "this is not a prefix that XML allows".to_owned(),
            () if RESERVED.contains(&prefix.as_str()) => format!("the prefixes {} have a meaning already", RESERVED.join(", ")),
            () if namespace.is_empty() => "a prefix stands for a namespace".to_owned(),
            () if checked.iter().any(|(_, other)| *other == namespace) => "another prefix stands for this namespace".to_owned(),
            () => {
                checked.push((prefix, namespace));
                continue;
            }
        };
        return Err(ConfigError::new(at, detail));
    }
    Ok(Namespaces::new(checked))
}

/// Where requests go: path and query as they are sent.
fn target(path: &str) -> Result<(), ConfigError> {
    let sendable = path.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\'));
    if !path.starts_with('/') || !sendable || path.len() > TEXT_BYTES {
        return Err(ConfigError::new(
            "/path",
            format!("{path:?} is not a path (and query) as it is sent, such as \"/services/orders\""),
        ));
    }
    Ok(())
}

/// An entry of the envelope's header stands for itself: one element with its own declarations, in a namespace.
fn header_entry(header: &str, bounds: parse::Bounds) -> Result<(), String> {
    if header.starts_with("<?") || header.starts_with('\u{feff}') {
        return Err("a header entry has no XML declaration".to_owned());
    }
    let entry = parse::document(header.as_bytes(), bounds).map_err(|refusal| format!("this XML cannot be used: {refusal}"))?;
    match entry.name.namespace {
        Some(namespace) if !namespace.is_empty() => Ok(()),
        _ => Err("a header entry's element is in a namespace, which it declares itself".to_owned()),
    }
}

fn understood(names: Vec<String>, namespaces: &Namespaces) -> Result<Vec<String>, ConfigError> {
    short("/understood", names.len())?;
    let wrong = |name: &String| !split(name).is_some_and(|(prefix, _)| prefix.is_none_or(|prefix| namespaces.knows(prefix)));
    match names.iter().position(wrong) {
        Some(index) => {
            let detail = format!("{:?} is not a name, or its prefix is not under `/namespaces`", names[index]);
            Err(ConfigError::new(format!("/understood/{index}"), detail))
        }
        None => Ok(names),
    }
}

fn statuses(faults: BTreeMap<String, u16>) -> Result<Statuses, ConfigError> {
    short("/faults", faults.len())?;
    let at = |name: &str| format!("/faults{}", pointer_step(name));
    for (name, status) in &faults {
        if !is_ncname(name) {
            let detail = "faults are known by a code, a subcode or the name of a detail's element, without prefixes";
            return Err(ConfigError::new(at(name), detail));
        }
        if !(400..=599).contains(status) {
            return Err(ConfigError::new(at(name), format!("{status} is not the status of an error")));
        }
    }
    Ok(Statuses(faults.into_iter().collect()))
}

fn paths(at: &str, texts: &[String]) -> Result<Vec<Path>, ConfigError> {
    short(at, texts.len())?;
    let path = |(index, text): (usize, &String)| match Path::read(text) {
        Ok(_) if text.is_empty() => Err(ConfigError::new(format!("{at}/{index}"), "a path has at least one name")),
        Ok(path) => Ok(path),
        Err(detail) => Err(ConfigError::new(format!("{at}/{index}"), detail)),
    };
    texts.iter().enumerate().map(path).collect()
}

fn order(at: &str, order: BTreeMap<String, Vec<String>>) -> Result<Vec<(Path, Vec<String>)>, ConfigError> {
    short(at, order.len())?;
    let one = |(text, names): (String, Vec<String>)| {
        let at = format!("{at}{}", pointer_step(&text));
        let path = Path::read(&text).map_err(|detail| ConfigError::new(at.as_str(), detail))?;
        short(&at, names.len())?;
        match names.iter().position(|name| split(name).is_none()) {
            Some(index) => Err(ConfigError::new(format!("{at}/{index}"), format!("{:?} is not a name", names[index]))),
            None => Ok((path, names)),
        }
    };
    order.into_iter().map(one).collect()
}

fn joined(shared: &[Path], own: Vec<Path>) -> Vec<Path> {
    shared.iter().cloned().chain(own).collect()
}

fn short(at: &str, count: usize) -> Result<(), ConfigError> {
    if count > LIST { Err(ConfigError::new(at, format!("at most {LIST} are understood"))) } else { Ok(()) }
}

fn plain(at: &str, text: &str) -> Result<(), ConfigError> {
    if text.len() > TEXT_BYTES || text.chars().any(|character| character.is_control() || character.is_whitespace()) {
        return Err(ConfigError::new(at, format!("at most {TEXT_BYTES} bytes without spaces and control characters")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(changes: Value) -> Result<Service, ConfigError> {
        let mut config = json!({
            "version": "1.1", "path": "/soap", "namespace": "urn:a", "namespaces": {"c": "urn:c"},
            "operations": [{"method": "POST", "path": "/a/{id}", "element": "A", "query": ["q"]}],
        });
        for (pointer, value) in changes.as_object().unwrap() {
            match config.pointer_mut(pointer) {
                Some(place) => *place = value.clone(),
                None => {
                    let (parent, name) = pointer.rsplit_once('/').unwrap();
                    config.pointer_mut(parent).unwrap()[name] = value.clone();
                }
            }
        }
        serde_json::from_value::<Config>(config).unwrap().check()
    }

    #[test]
    fn a_whole_configuration_holds() {
        let service = check(json!({
            "/version": "1.2", "/form": "unqualified", "/null": "omit", "/types": true, "/understood": ["c:Security"],
            "/headers": ["<h:T xmlns:h='urn:h'>x</h:T>"], "/faults": {"Client.Missing": 404}, "/limits": {"depth": 8},
            "/arrays": ["**/item"], "/numbers": ["a/@b"], "/booleans": ["*"],
            "/operations/0/order": {"": ["b", "a"], "a/b": ["c:x"]}, "/operations/0/action": "urn:a#A",
        }))
        .unwrap();
        assert_eq!((service.limits.depth, service.limits.attributes), (8, 32));
        assert_eq!(service.operations[0].hints.order.len(), 2);
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let rows = [
            ("/path", json!("soap"), "/path"),
            ("/path", json!("/so ap"), "/path"),
            ("/path", json!("/soap#x"), "/path"),
            ("/namespace", json!("urn a"), "/namespace"),
            ("/namespace", Value::Null, "/operations/0/namespace"),
            ("/operations", json!([]), "/operations"),
            ("/operations/0/method", json!("post"), "/operations/0/method"),
            ("/operations/0/path", json!("a"), "/operations/0/path"),
            ("/operations/0/path", json!("/{a b}"), "/operations/0/path"),
            ("/operations/0/path", json!("/{a}/{a}"), "/operations/0/path"),
            ("/operations/0/path", json!("/{x:a}"), "/operations/0/path"),
            ("/operations/0/query", json!(["id"]), "/operations/0/query"),
            ("/operations/0/element", json!("c:A"), "/operations/0/element"),
            ("/operations/0/element", json!("A/><B"), "/operations/0/element"),
            ("/operations/0/response", json!(""), "/operations/0/response"),
            ("/operations/0/action", json!("a\"b"), "/operations/0/action"),
            ("/operations/0/action", json!("a\r\nb"), "/operations/0/action"),
            ("/operations/0/arrays", json!(["a", "b//c"]), "/operations/0/arrays/1"),
            ("/operations/0/order", json!({"a/b": ["x", "x y"]}), "/operations/0/order/a~1b/1"),
            ("/arrays", json!([""]), "/arrays/0"),
            ("/numbers", json!(["a", "@"]), "/numbers/1"),
            ("/booleans", json!(["a b"]), "/booleans/0"),
            ("/namespaces", json!({"soap": "urn:x"}), "/namespaces/soap"),
            ("/namespaces", json!({"a/b": "urn:x"}), "/namespaces/a~1b"),
            ("/namespaces", json!({"a": ""}), "/namespaces/a"),
            ("/namespaces", json!({"a": "urn:x", "b": "urn:x"}), "/namespaces/b"),
            ("/headers", json!(["<h:T>x</h:T>"]), "/headers/0"),
            ("/headers", json!(["<T>x</T>"]), "/headers/0"),
            ("/headers", json!(["<?xml version='1.0'?><T xmlns='u'/>"]), "/headers/0"),
            ("/headers", json!(["<!DOCTYPE a><T xmlns='u'/>"]), "/headers/0"),
            ("/understood", json!(["q:A"]), "/understood/0"),
            ("/faults", json!({"Client": 200}), "/faults/Client"),
            ("/faults", json!({"s:Client": 404}), "/faults/s:Client"),
            ("/limits", json!({"depth": 65}), "/limits/depth"),
            ("/limits", json!({"bytes": 0}), "/limits/bytes"),
        ];
        for (pointer, value, wanted) in rows {
            let mistake = check(json!({pointer: value})).expect_err(pointer);
            assert_eq!(mistake.pointer(), wanted, "{pointer} {value}: {mistake:?}");
        }
        let twice = json!([
            {"method": "GET", "path": "/a/{x}", "element": "A"}, {"method": "GET", "path": "/a/{y}", "element": "B"},
        ]);
        assert_eq!(check(json!({"/operations": twice})).unwrap_err().pointer(), "/operations/1/path");
    }
}
