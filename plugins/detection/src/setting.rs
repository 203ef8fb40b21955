//! How detectors are configured: a list of names and patterns, the same in every filter.

use crate::{
    find::{BUILTIN, Builtin, Detectors},
    pattern::Pattern,
};
use serde::{Deserialize, Deserializer, de};
use tidegate_sdk::ConfigError;

/// Most patterns of one configuration: each has an automaton of its own, and filters have little memory.
const PATTERNS: usize = 16;
const _: () = assert!(PATTERNS + BUILTIN.len() <= 32, "each detector has a bit of its own");
/// The group that stands for every key and token.
const KEYS: &str = "keys";

/// A list of detectors as it is configured, not yet checked: names of built-in ones, the group `keys`, and patterns of the
/// operator's own as `{"name": …, "pattern": …}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Setting(Vec<Wanted>);

#[derive(Debug, Clone)]
enum Wanted {
    Named(String),
    Own(Own),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Own {
    name: String,
    pattern: String,
}

impl Setting {
    /// Every detector that comes with the crate.
    pub fn all() -> Self {
        Self(BUILTIN.iter().map(|(name, _)| Wanted::Named((*name).to_owned())).collect())
    }

    /// The detectors, compiled. `pointer` says where in the configuration the list stands.
    pub fn check(self, pointer: &str) -> Result<Detectors, ConfigError> {
        let mut builtins: Vec<(String, Builtin)> = Vec::new();
        let mut patterns: Vec<(String, Pattern)> = Vec::new();
        for (index, wanted) in self.0.into_iter().enumerate() {
            let at = |field: &str, detail: String| ConfigError::new(format!("{pointer}/{index}{field}"), detail);
            match wanted {
                Wanted::Named(name) => {
                    for (name, builtin) in named(&name).ok_or_else(|| at("", unknown(&name)))? {
                        if !builtins.iter().any(|(known, _)| known == name) {
                            builtins.push(((*name).to_owned(), *builtin));
                        }
                    }
                }
                Wanted::Own(own) => {
                    check_name(&own.name).map_err(|detail| at("/name", detail))?;
                    if patterns.iter().any(|(known, _)| *known == own.name) {
                        return Err(at("/name", format!("{:?} is the name of another pattern", own.name)));
                    }
                    if patterns.len() == PATTERNS {
                        return Err(at("", format!("at most {PATTERNS} patterns are looked for")));
                    }
                    let pattern = Pattern::new(&own.pattern).map_err(|detail| at("/pattern", detail))?;
                    patterns.push((own.name, pattern));
                }
            }
        }
        Ok(Detectors::new(builtins, patterns))
    }
}

/// The built-in detectors that a name stands for.
fn named(name: &str) -> Option<&'static [(&'static str, Builtin)]> {
    /// What the group of keys leaves out.
    const OTHERS: usize = 2;
    match BUILTIN.iter().position(|(known, _)| *known == name) {
        Some(index) => Some(&BUILTIN[index..=index]),
        None => (name == KEYS).then_some(&BUILTIN[OTHERS..]),
    }
}

fn unknown(name: &str) -> String {
    let names: Vec<_> = BUILTIN.iter().map(|(name, _)| *name).chain([KEYS]).collect();
    format!("there is no detector {name:?}; there are {}, and patterns as {{\"name\": …, \"pattern\": …}}", names.join(", "))
}

fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        return Err(format!("{name:?} is not a name: 1 to 64 lower-case letters, digits, dashes and underscores"));
    }
    match named(name) {
        Some(_) => Err(format!("{name:?} is the name of a detector that is there already")),
        None => Ok(()),
    }
}

impl<'de> Deserialize<'de> for Wanted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

/// Told apart by hand, so that a mistake inside a pattern is pointed at; an untagged enum would only say that nothing fits.
struct Visitor;

impl<'de> de::Visitor<'de> for Visitor {
    type Value = Wanted;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a detector's name or a pattern as {\"name\": …, \"pattern\": …}")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Wanted, E> {
        Ok(Wanted::Named(name.to_owned()))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Wanted, A::Error> {
        Own::deserialize(de::value::MapAccessDeserializer::new(map)).map(Wanted::Own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(setting: Value) -> Result<Detectors, String> {
        let setting: Setting = serde_json::from_value(setting).map_err(|error| error.to_string())?;
        setting.check("/detectors").map_err(|error| error.to_string())
    }

    #[test]
    fn names_groups_and_patterns_are_detectors() {
        let detectors = check(json!(["keys", {"name": "employee", "pattern": "EMP-[0-9]{6}"}, "card", "jwt"])).unwrap();
        let names = detectors.names();
        assert_eq!(names.len(), 10, "each once: {names:?}");
        assert_eq!((names[0].as_str(), names[8].as_str(), names[9].as_str()), ("aws_key", "card", "employee"));
        assert!(check(json!([])).unwrap().is_empty());
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let own = |name: &str, pattern: &str| json!({"name": name, "pattern": pattern});
        for (setting, wanted) in [
            (json!(["card", "cards"]), "/detectors/1: there is no detector \"cards\""),
            (json!([own("a b", "x")]), "/detectors/0/name: "),
            (json!([own("card", "x")]), "/detectors/0/name: \"card\" is the name of a detector"),
            (json!([own("a", "x"), own("a", "y")]), "/detectors/1/name: "),
            (json!([own("a", "x+")]), "/detectors/0/pattern: its matches have no greatest length"),
            (json!([{"name": "a"}]), "missing field `pattern`"),
            (json!([{"name": "a", "pattern": "x", "flags": "i"}]), "unknown field `flags`"),
            (json!([7]), "expected a detector's name"),
            (
                json!(
                    vec![own("a", "x"); 1].into_iter().chain((0..16).map(|n| own(&format!("p{n}"), "x"))).collect::<Vec<_>>()
                ),
                "/detectors/16: at most 16",
            ),
        ] {
            let mistake = check(setting.clone()).unwrap_err();
            assert!(mistake.contains(wanted), "{setting}: {mistake}");
        }
    }
}
