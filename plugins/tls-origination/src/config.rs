//! The configuration, and which rule an exchange falls under. Pure.

use matching::{Facts, Selector};
use tidegate_sdk::{
    ConfigError,
    upstream::{Tls, TlsMode},
};

/// Most rules: they are gone through one by one.
const RULES: usize = 1024;

/// The configuration.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    rules: Vec<Rule>,
    #[serde(default)]
    plaintext: Plaintext,
}

/// What becomes of the exchanges that it is about.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    #[serde(default)]
    when: Selector,
    tls: Option<Tls>,
    #[serde(default)]
    refuse: bool,
}

/// What becomes of an exchange that would go on in plaintext.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Plaintext {
    /// It is refused.
    #[default]
    Refuse,
    /// It goes on.
    Allow,
}

/// A configuration that holds.
#[derive(Debug)]
pub(crate) struct Checked {
    rules: Vec<(Selector, Then)>,
    plaintext: Plaintext,
}

/// What a rule says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Then {
    Originate(Tls),
    Refuse,
}

impl Config {
    pub(crate) fn check(self) -> Result<Checked, ConfigError> {
        if self.rules.is_empty() || self.rules.len() > RULES {
            return Err(ConfigError::new("/rules", format!("give 1 to {RULES} rules")));
        }
        let mut rules: Vec<(Selector, Then)> = Vec::new();
        for (index, rule) in self.rules.into_iter().enumerate() {
            let at = format!("/rules/{index}");
            if let Some(before) = rules.iter().position(|(when, _)| when.is_empty()) {
                return Err(ConfigError::new(at, format!("it is never reached: rule {before} is about everything")));
            }
            rule.when.check(&format!("{at}/when"))?;
            let then = match (rule.tls, rule.refuse) {
                (Some(tls), false) => {
                    check_tls(&tls, self.plaintext)
                        .map_err(|(field, detail)| ConfigError::new(format!("{at}/tls{field}"), detail))?;
                    Then::Originate(tls)
                }
                (None, true) => Then::Refuse,
                (Some(_), true) => return Err(ConfigError::new(format!("{at}/refuse"), "it also says how TLS is originated")),
                (None, false) => return Err(ConfigError::new(at, "say how TLS is originated (\"tls\"), or \"refuse\": true")),
            };
            rules.push((rule.when, then));
        }
        Ok(Checked { rules, plaintext: self.plaintext })
    }
}

impl Checked {
    /// The first rule that is about the exchange, with its place.
    pub(crate) fn rule(&self, facts: &impl Facts) -> Option<(usize, &Then)> {
        self.rules.iter().enumerate().find(|(_, (when, _))| when.matches(facts)).map(|(index, (_, then))| (index, then))
    }

    /// Whether an exchange may go on whose request will be sent with TLS or without, as `tls` says where it says so, and
    /// otherwise as `registered` does. What is not known counts as plaintext.
    pub(crate) fn allows(&self, tls: Option<&Tls>, registered: Option<bool>) -> bool {
        let encrypted = match tls.and_then(|tls| tls.mode) {
            Some(TlsMode::Disabled) => false,
            Some(TlsMode::Simple | TlsMode::Mutual) => true,
            None => registered == Some(true),
        };
        encrypted || self.plaintext == Plaintext::Allow
    }
}

/// What is wrong with it in itself: the field, and a sentence. Names of credentials are checked by the gateway.
fn check_tls(tls: &Tls, plaintext: Plaintext) -> Result<(), (&'static str, String)> {
    let mistake = |field, detail: &str| Err((field, detail.to_owned()));
    if *tls == Tls::default() {
        return mistake("", "it says nothing: give at least one of mode, sni, names, trust, min_version, alpn and certificate");
    }
    if tls.mode == Some(TlsMode::Disabled) {
        if plaintext == Plaintext::Refuse {
            return mistake("/mode", "plaintext is refused (\"plaintext\"): what this rule is about could never go on");
        }
        if *tls != (Tls { mode: tls.mode, ..Tls::default() }) {
            return mistake("", "there is nothing else to say of TLS where it is disabled");
        }
    }
    if tls.mode == Some(TlsMode::Simple) && tls.certificate.is_some() {
        return mistake("/certificate", "a certificate is shown where the mode is \"mutual\"");
    }
    let names = tls.names.iter().flatten();
    if let Some(name) = tls.sni.iter().chain(names).find(|name| !is_host(name)) {
        let field = if tls.sni.as_ref() == Some(name) { "/sni" } else { "/names" };
        return mistake(field, &format!("{name:?} is not a host name"));
    }
    if tls.names.as_ref().is_some_and(Vec::is_empty) {
        return mistake("/names", "an empty list would believe no certificate: give a name, or leave it out");
    }
    if tls.alpn.as_ref().is_some_and(Vec::is_empty) {
        return mistake("/alpn", "an empty list offers nothing: give \"h2\", \"http/1.1\" or both, or leave it out");
    }
    let credentials = [("/trust", &tls.trust), ("/certificate", &tls.certificate)];
    match credentials.iter().find(|(_, name)| name.as_ref().is_some_and(String::is_empty)) {
        Some((field, _)) => mistake(field, "name a credential"),
        None => Ok(()),
    }
}

fn is_host(name: &str) -> bool {
    !name.is_empty() && name.len() <= 253 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn check(config: Value) -> Result<Checked, String> {
        let config: Config = serde_json::from_value(config).map_err(|error| error.to_string())?;
        config.check().map_err(|error| error.to_string())
    }

    struct Host(&'static str);

    impl Facts for Host {
        fn attribute(&self, name: &str) -> Option<String> {
            (name == "target.host").then(|| self.0.to_owned())
        }

        fn header(&self, _: &str) -> Vec<Vec<u8>> {
            Vec::new()
        }
    }

    #[test]
    fn the_first_rule_that_matches_wins() {
        let checked = check(json!({"rules": [
            {"when": {"hosts": ["old.example.com"]}, "refuse": true},
            {"when": {"hosts": ["*.example.com"]}, "tls": {"min_version": "1.3"}},
            {"tls": {"sni": "front.example.net"}},
        ]}))
        .unwrap();
        let rule = |host| checked.rule(&Host(host)).map(|(index, _)| index);
        assert_eq!((rule("old.example.com"), rule("new.example.com"), rule("example.org")), (Some(0), Some(1), Some(2)));
        assert_eq!(checked.rule(&Host("old.example.com")), Some((0, &Then::Refuse)));
    }

    #[test]
    fn plaintext_is_refused_unless_it_is_allowed() {
        let strict = check(json!({"rules": [{"tls": {"min_version": "1.3"}}]})).unwrap();
        let lenient = check(json!({"rules": [{"tls": {"min_version": "1.3"}}], "plaintext": "allow"})).unwrap();
        let mode = |mode| Tls { mode: Some(mode), ..Tls::default() };
        for (tls, registered, wanted) in [
            (None, Some(true), true),
            (None, Some(false), false),
            (None, None, false),
            (Some(Tls::default()), Some(false), false),
            (Some(Tls::default()), Some(true), true),
            (Some(mode(TlsMode::Simple)), Some(false), true),
            (Some(mode(TlsMode::Mutual)), None, true),
            (Some(mode(TlsMode::Disabled)), Some(true), false),
        ] {
            assert_eq!(strict.allows(tls.as_ref(), registered), wanted, "{tls:?} {registered:?}");
            assert!(lenient.allows(tls.as_ref(), registered));
        }
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let tls = |tls: Value| json!({"rules": [{"tls": tls}]});
        for (config, wanted) in [
            (json!({"rules": []}), "/rules: "),
            (json!({"rules": [{}]}), "/rules/0: say how"),
            (json!({"rules": [{"tls": {"mode": "simple"}, "refuse": true}]}), "/rules/0/refuse: "),
            (json!({"rules": [{"refuse": true}, {"refuse": true}]}), "/rules/1: it is never reached: rule 0"),
            (json!({"rules": [{"when": {"headers": {"a b": "c"}}, "refuse": true}]}), "/rules/0/when/headers/a b: "),
            (json!({"rules": [{"refuse": true}], "plaintext": "maybe"}), "unknown variant `maybe`"),
            (tls(json!({})), "/rules/0/tls: it says nothing"),
            (tls(json!({"mode": "disabled"})), "/rules/0/tls/mode: "),
            (tls(json!({"mode": "simple", "certificate": "a"})), "/rules/0/tls/certificate: "),
            (tls(json!({"sni": "a b"})), "/rules/0/tls/sni: "),
            (tls(json!({"names": ["a.example", ""]})), "/rules/0/tls/names: "),
            (tls(json!({"names": []})), "/rules/0/tls/names: "),
            (tls(json!({"alpn": []})), "/rules/0/tls/alpn: "),
            (tls(json!({"trust": ""})), "/rules/0/tls/trust: "),
            (tls(json!({"min_version": "1.1"})), "unknown variant `1.1`"),
            (tls(json!({"cert": "a"})), "unknown field `cert`"),
        ] {
            let mistake = check(config.clone()).unwrap_err();
            assert!(mistake.contains(wanted), "{config}: {mistake}");
        }
        let disabled = json!({"rules": [{"tls": {"mode": "disabled", "sni": "a.example"}}], "plaintext": "allow"});
        assert!(check(disabled).unwrap_err().contains("/rules/0/tls: "));
    }
}
