//! Names: which ones XML allows, and which namespace a prefix of the JSON stands for.

/// Namespaces that every envelope may use, with the prefixes that configurations cannot take.
pub(crate) const XSI: &str = "http://www.w3.org/2001/XMLSchema-instance";
const XSD: &str = "http://www.w3.org/2001/XMLSchema";
const XML: &str = "http://www.w3.org/XML/1998/namespace";
/// Prefixes with a fixed meaning: `soap` is the envelope's namespace, `op` the operation's.
pub(crate) const RESERVED: [&str; 6] = ["soap", "op", "xsi", "xsd", "xml", "xmlns"];

/// The prefixes that names in JSON may have.
#[derive(Debug, Default)]
pub(crate) struct Namespaces {
    configured: Vec<(String, String)>,
}

impl Namespaces {
    /// Prefixes and namespaces that were checked.
    pub(crate) fn new(configured: Vec<(String, String)>) -> Self {
        Self { configured }
    }

    /// Whether names may have this prefix.
    pub(crate) fn knows(&self, prefix: &str) -> bool {
        matches!(prefix, "soap" | "xsi" | "xml") || self.configured.iter().any(|(known, _)| known == prefix)
    }

    /// The prefix that names of this namespace have in JSON.
    pub(crate) fn prefix(&self, namespace: &str) -> Option<&str> {
        match namespace {
            XSI => Some("xsi"),
            XML => Some("xml"),
            _ => self.configured.iter().find(|(_, known)| known == namespace).map(|(prefix, _)| prefix.as_str()),
        }
    }

    /// The declarations that the envelope opens with, besides its own.
    pub(crate) fn declarations(&self) -> impl Iterator<Item = (&str, &str)> {
        let configured = self.configured.iter().map(|(prefix, namespace)| (prefix.as_str(), namespace.as_str()));
        [("xsi", XSI), ("xsd", XSD)].into_iter().chain(configured)
    }
}

/// Splits `prefix:local`; both parts must be names without a colon (`NCName`).
pub(crate) fn split(name: &str) -> Option<(Option<&str>, &str)> {
    match name.split_once(':') {
        Some((prefix, local)) => (is_ncname(prefix) && is_ncname(local)).then_some((Some(prefix), local)),
        None => is_ncname(name).then_some((None, name)),
    }
}

/// Whether this is a name without a colon (Namespaces in XML 1.0, `NCName`).
pub(crate) fn is_ncname(name: &str) -> bool {
    let mut characters = name.chars();
    characters.next().is_some_and(starts_name) && characters.all(continues_name)
}

/// Whether XML 1.0 can carry this character at all (`Char`).
pub(crate) fn is_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..)
}

/// XML 1.0, `NameStartChar` without the colon.
fn starts_name(character: char) -> bool {
    matches!(character,
        'A'..='Z' | '_' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}' | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}'
        | '\u{37f}'..='\u{1fff}' | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}'
        | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}' | '\u{10000}'..='\u{effff}')
}

/// XML 1.0, `NameChar` without the colon.
fn continues_name(character: char) -> bool {
    starts_name(character)
        || matches!(character, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}' | '\u{203f}'..='\u{2040}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_are_names() {
        for name in ["a", "_", "été", "a-b.c", "価格", "a1"] {
            assert!(is_ncname(name), "{name}");
        }
        for name in ["", "1a", "-a", "a b", "a>b", "a:b", "a/", "a\"", "a=", "\u{d7}", "a\u{0}"] {
            assert!(!is_ncname(name), "{name:?}");
        }
        assert_eq!(split("c:Item"), Some((Some("c"), "Item")));
        for name in [":a", "a:", "a:b:c", "a: b"] {
            assert_eq!(split(name), None, "{name:?}");
        }
    }

    #[test]
    fn characters_are_those_of_xml_1_0() {
        for character in ['\0', '\u{1}', '\u{b}', '\u{1f}', '\u{fffe}', '\u{ffff}'] {
            assert!(!is_character(character), "{character:?}");
        }
        for character in ['\t', '\n', '\r', ' ', '\u{7f}', '\u{fffd}', '😀'] {
            assert!(is_character(character), "{character:?}");
        }
    }
}
