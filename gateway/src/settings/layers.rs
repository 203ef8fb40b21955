//! Reading the layers, lowest first, and gathering every mistake on the way.

use super::{DEFINITIONS, Definition, Settings};
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

/// Where settings come from.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The file, where one was named.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub environment: BTreeMap<OsString, OsString>,
    /// Flags that were given, by setting.
    pub flags: BTreeMap<&'static str, String>,
}

/// Everything that is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(pub Vec<String>);

struct Reading {
    settings: Settings,
    /// Where each setting's value came from, for those that were set.
    origins: BTreeMap<&'static str, String>,
    mistakes: Vec<String>,
}

/// Reads all layers.
///
/// # Errors
/// All mistakes of all layers, each with its setting and its source.
pub fn read(sources: &Sources) -> Result<Settings, Mistakes> {
    let mut reading = Reading { settings: Settings::default(), origins: BTreeMap::new(), mistakes: Vec::new() };
    if let Some(path) = &sources.file {
        reading.file(path);
    }
    reading.environment(&sources.environment);
    for definition in DEFINITIONS {
        if let Some(text) = sources.flags.get(definition.name) {
            reading.set(definition, text, format!("flag --{}", definition.flag()));
        }
    }
    for (name, detail) in reading.settings.contradictions() {
        let origin = reading.origins.get(name).map(|origin| format!(" ({origin})")).unwrap_or_default();
        reading.mistakes.push(format!("{name}{origin}: {detail}"));
    }
    if reading.mistakes.is_empty() { Ok(reading.settings) } else { Err(Mistakes(reading.mistakes)) }
}

impl Reading {
    fn set(&mut self, definition: &Definition, text: &str, origin: String) {
        match (definition.read)(&mut self.settings, text) {
            Ok(()) => drop(self.origins.insert(definition.name, origin)),
            Err(detail) => self.mistakes.push(format!("{} ({origin}): {detail}", definition.name)),
        }
    }

    fn file(&mut self, path: &Path) {
        let shown = path.display();
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => return self.mistakes.push(format!("config: the file {shown} cannot be read ({error})")),
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => return self.mistakes.push(format!("config: the file {shown} is not TOML: {error}")),
        };
        for (key, value) in table {
            let origin = format!("file {shown}");
            let Some(definition) = DEFINITIONS.iter().find(|definition| definition.name == key) else {
                let hint = nearest(&key).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
                self.mistakes.push(format!("{key} ({origin}): there is no such setting{hint}"));
                continue;
            };
            match written(&value) {
                Some(text) => self.set(definition, &text, origin),
                None => self.mistakes.push(format!(
                    "{key} ({origin}): give one value of the kind {}, not a {}",
                    definition.kind,
                    value.type_str()
                )),
            }
        }
    }

    /// Unknown variables are left alone: Kubernetes sets `TIDEGATE_PORT` and its like for a service of that name.
    fn environment(&mut self, variables: &BTreeMap<OsString, OsString>) {
        for definition in DEFINITIONS {
            let own = definition.variable();
            // The name that every OpenTelemetry exporter reads; our own goes before it.
            let standard = (definition.name == "otlp_endpoint").then(|| "OTEL_EXPORTER_OTLP_ENDPOINT".to_owned());
            let found = [Some(own), standard].into_iter().flatten().find_map(|name| {
                let value = variables.get(&OsString::from(&name))?;
                Some((name, value))
            });
            let Some((name, value)) = found else { continue };
            let origin = format!("environment {name}");
            match value.to_str() {
                Some(text) => self.set(definition, text, origin),
                None => self.mistakes.push(format!("{} ({origin}): the value is not UTF-8", definition.name)),
            }
        }
    }
}

/// A value of the file as flags write it.
fn written(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(choice) => Some(choice.to_string()),
        toml::Value::Array(values) => Some(values.iter().map(|value| value.as_str()).collect::<Option<Vec<_>>>()?.join(",")),
        toml::Value::Datetime(_) | toml::Value::Table(_) => None,
    }
}

/// The setting whose name is most like `key`, if it is much like it.
fn nearest(key: &str) -> Option<&'static str> {
    let key = key.replace('-', "_");
    let distance = |name: &str| {
        let shared = name.chars().zip(key.chars()).take_while(|(one, other)| one == other).count();
        let back = name.chars().rev().zip(key.chars().rev()).take_while(|(one, other)| one == other).count();
        name.len().max(key.len()).saturating_sub(shared + back)
    };
    DEFINITIONS.iter().map(|definition| definition.name).min_by_key(|name| distance(name)).filter(|name| distance(name) <= 3)
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|mistake| writeln!(f, "{mistake}"))
    }
}

impl std::error::Error for Mistakes {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write as _, time::Duration};

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        file
    }

    fn sources(text: &str, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> (tempfile::NamedTempFile, Sources) {
        let file = file(text);
        let sources = Sources {
            file: Some(file.path().to_owned()),
            environment: environment.iter().map(|(name, value)| (name.into(), value.into())).collect(),
            flags: flags.iter().map(|(name, value)| (*name, (*value).to_owned())).collect(),
        };
        (file, sources)
    }

    #[test]
    fn flags_go_before_the_environment_and_that_before_the_file() {
        let (_file, sources) = sources(
            "workers = 2\ndrain_timeout = \"5s\"\nresolver = [\"192.0.2.1\", \"[2001:db8::1]:5353\"]\nmode = \"open\"",
            &[("TIDEGATE_WORKERS", "3"), ("TIDEGATE_DRAIN_TIMEOUT", "6s"), ("TIDEGATE_PORT", "tcp://10.0.0.1:7070")],
            &[("workers", "4")],
        );
        let settings = read(&sources).unwrap();
        assert_eq!(settings.workers.workers, 4);
        assert_eq!(settings.workers.drain_timeout, Duration::from_secs(6));
        assert_eq!(settings.mode, tidegate_policy::snapshot::Mode::Open);
        assert_eq!(settings.upstream.resolve.servers, ["192.0.2.1:53".parse().unwrap(), "[2001:db8::1]:5353".parse().unwrap()]);
    }

    #[test]
    fn every_mistake_is_reported_with_its_setting_and_its_source() {
        let (file, sources) = sources(
            "workers = \"many\"\nworkerz = 2\nmode = { open = true }\nmtls_key = \"key.pem\"",
            &[("TIDEGATE_DRAIN_TIMEOUT", "soon"), ("TIDEGATE_MAX_CONNECTIONS", "0")],
            &[("proxy_listen", "3128")],
        );
        let Mistakes(mistakes) = read(&sources).unwrap_err();
        let path = file.path().display();
        let expected = [
            format!("workers (file {path}): \"many\" is not a whole number"),
            format!("workerz (file {path}): there is no such setting; did you mean workers?"),
            format!("mode (file {path}): give one value of the kind registered|open, not a table"),
            "drain_timeout (environment TIDEGATE_DRAIN_TIMEOUT): \"soon\" is not a duration".to_owned(),
            "proxy_listen (flag --proxy-listen): \"3128\" is not an address with a port".to_owned(),
            "max_connections (environment TIDEGATE_MAX_CONNECTIONS): 0 would let nothing through".to_owned(),
            "mtls_certificate: is needed too".to_owned(),
            "mtls_client_ca: is needed too".to_owned(),
        ];
        for start in &expected {
            assert!(mistakes.iter().any(|mistake| mistake.starts_with(start.as_str())), "{start}\nis not in\n{mistakes:#?}");
        }
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:#?}");
    }

    #[test]
    fn a_missing_file_and_broken_toml_are_mistakes() {
        let missing = Sources { file: Some("/nonexistent/tidegate.toml".into()), ..Sources::default() };
        assert!(read(&missing).unwrap_err().0[0].contains("/nonexistent/tidegate.toml cannot be read"));
        let (_file, broken) = sources("workers = ", &[], &[]);
        assert!(read(&broken).unwrap_err().0[0].contains("is not TOML"));
    }

    #[test]
    fn the_standard_otlp_variable_is_read_after_ours() {
        let (_file, both) =
            sources("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1"), ("TIDEGATE_OTLP_ENDPOINT", "http://b:2")], &[]);
        assert_eq!(read(&both).unwrap().otlp.endpoint.as_deref(), Some("http://b:2"));
        let (_file, one) = sources("", &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:1")], &[]);
        assert_eq!(read(&one).unwrap().otlp.endpoint.as_deref(), Some("http://a:1"));
    }

    #[test]
    fn every_default_can_be_written_and_read_back() {
        let settings = Settings::default();
        for definition in DEFINITIONS {
            let text = (definition.show)(&settings);
            let mut read = settings.clone();
            (definition.read)(&mut read, &text).unwrap_or_else(|error| panic!("{}: {error}", definition.name));
            assert_eq!((definition.show)(&read), text, "{}", definition.name);
        }
    }

    #[test]
    fn the_page_of_settings_is_the_tables() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
        if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
            std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs")).unwrap();
            std::fs::write(path, super::super::document()).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap_or_default();
        assert!(page == super::super::document(), "docs/settings.md is not the table's: run this test with UPDATE_SNAPSHOTS=1");
    }
}
