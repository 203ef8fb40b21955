//! Elements into JSON, by the convention of the README: children by name, repeated ones as arrays, attributes as `@name`, text
//! beside either as `#text`, what is nil as null, and types only where a hint says so.

use crate::{
    hints::{Hints, Kind},
    json::{Json, is_number},
    names::{Namespaces, XSI},
    parse::{Element, Name},
};
use std::{collections::BTreeMap, rc::Rc};

/// How names and types are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Reading<'a> {
    pub(crate) namespaces: &'a Namespaces,
    pub(crate) hints: &'a Hints,
    /// Whether `xsi:type` and the like are kept as attributes.
    pub(crate) types: Types,
}

/// Whether attributes about types reach the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Types {
    Keep,
    Drop,
}

/// Attributes of these namespaces speak of types and encodings, not of the data.
const ABOUT_TYPES: [&str; 5] = [
    XSI,
    "http://schemas.xmlsoap.org/soap/envelope/",
    "http://schemas.xmlsoap.org/soap/encoding/",
    "http://www.w3.org/2003/05/soap-envelope",
    "http://www.w3.org/2003/05/soap-encoding",
];

impl Reading<'_> {
    /// The content of an element whose path is `path`: an object, a scalar or null. The error is a sentence for the caller.
    pub(crate) fn content(&self, element: Element, path: &mut Vec<String>) -> Result<Json, String> {
        let nil = is_nil(&element);
        let mut members = self.attributes(&element.attributes, path)?;
        let leaf = element.children.is_empty();
        let mut groups: Vec<Group> = Vec::new();
        // Found by name in a tree, so that a thousand names cost no million comparisons.
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for child in element.children {
            let key = self.key(&child.name);
            match places.get(&key).and_then(|place| groups.get_mut(*place)) {
                Some(group) if group.namespace == child.name.namespace => group.elements.push(child),
                Some(_) => return Err(ambiguous(path, &key)),
                None => {
                    places.insert(key.clone(), groups.len());
                    groups.push(Group { key, namespace: child.name.namespace.clone(), elements: vec![child] });
                }
            }
        }
        for group in groups {
            let value = self.group(&group.key, group.elements, path)?;
            members.push((group.key, value));
        }
        let absent = self.hints.empty_arrays(path).filter(|name| !nil && !places.contains_key(*name));
        members.extend(absent.map(|name| (name.to_owned(), Json::Array(Vec::new()))));
        match () {
            () if nil && members.is_empty() => Ok(Json::Null),
            () if nil => Ok(with_text(members, Json::Null)),
            () if members.is_empty() => self.text(element.text, path),
            () if leaf && !element.text.trim_ascii().is_empty() => {
                let text = self.text(element.text, path)?;
                Ok(with_text(members, text))
            }
            () if !element.text.is_empty() && !leaf => Ok(with_text(members, Json::Text(element.text))),
            () => Ok(Json::Object(members)),
        }
    }

    fn group(&self, key: &str, mut elements: Vec<Element>, path: &mut Vec<String>) -> Result<Json, String> {
        path.push(key.to_owned());
        let value = match elements.pop() {
            Some(only) if elements.is_empty() && !self.hints.repeats(path) => self.content(only, path),
            last => {
                let values = elements.into_iter().chain(last).map(|element| self.content(element, path));
                values.collect::<Result<_, _>>().map(Json::Array)
            }
        };
        path.pop();
        value
    }

    fn attributes(&self, attributes: &[(Name, String)], path: &mut Vec<String>) -> Result<Vec<(String, Json)>, String> {
        let mut members: Vec<(String, Json)> = Vec::with_capacity(attributes.len());
        for (name, value) in attributes {
            let about_types = name.namespace.as_deref().is_some_and(|namespace| ABOUT_TYPES.contains(&namespace));
            if about_types && (self.types == Types::Drop || name.is(Some(XSI), "nil")) {
                continue;
            }
            let key = format!("@{}", self.key(name));
            if members.iter().any(|(other, _)| *other == key) {
                return Err(ambiguous(path, &key));
            }
            path.push(key.clone());
            let value = self.text(value.clone(), path);
            path.pop();
            members.push((key, value?));
        }
        Ok(members)
    }

    /// The member's name: the local name, behind a prefix where the configuration has one for the namespace.
    pub(crate) fn key(&self, name: &Name) -> String {
        match name.namespace.as_deref().and_then(|namespace| self.namespaces.prefix(namespace)) {
            Some(prefix) => format!("{prefix}:{}", name.local),
            None => name.local.clone(),
        }
    }

    fn text(&self, text: String, path: &[String]) -> Result<Json, String> {
        let trimmed = text.trim_ascii();
        match self.hints.kind(path) {
            Kind::Text => Ok(Json::Text(text)),
            Kind::Number | Kind::Boolean if trimmed.is_empty() => Ok(Json::Null),
            Kind::Boolean => match trimmed {
                "true" | "1" => Ok(Json::Bool(true)),
                "false" | "0" => Ok(Json::Bool(false)),
                _ => Err(format!("the value at {} is not the boolean that `booleans` says it is", shown(path))),
            },
            Kind::Number => match number(trimmed) {
                Some(number) => Ok(Json::Number(number)),
                None => Err(format!("the value at {} is not the number that `numbers` says it is", shown(path))),
            },
        }
    }
}

/// Children of one name.
struct Group {
    key: String,
    namespace: Option<Rc<str>>,
    elements: Vec<Element>,
}

fn with_text(mut members: Vec<(String, Json)>, text: Json) -> Json {
    members.push(("#text".to_owned(), text));
    Json::Object(members)
}

fn is_nil(element: &Element) -> bool {
    let nil = element.attributes.iter().find(|(name, _)| name.is(Some(XSI), "nil"));
    nil.is_some_and(|(_, value)| matches!(value.trim_ascii(), "true" | "1")) && element.children.is_empty()
}

/// An XML number (`xs:decimal`, `xs:double`) in JSON's grammar, digit by digit: no plus sign, no leading zeros, a digit on
/// either side of the point. `INF` and `NaN` are none.
fn number(text: &str) -> Option<String> {
    if is_number(text) {
        return Some(text.to_owned());
    }
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(unsigned) => ("-", unsigned),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = unsigned.split_at(unsigned.find(['e', 'E']).unwrap_or(unsigned.len()));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}{exponent}")).filter(|number| is_number(number))
}

fn ambiguous(path: &[String], key: &str) -> String {
    let name = key.trim_start_matches('@');
    format!(
        "at {} there is {key:?} of two namespaces; give one of them a prefix under `namespaces` to tell {name:?} apart",
        shown(path)
    )
}

fn shown(path: &[String]) -> String {
    if path.is_empty() { "the operation's element".to_owned() } else { format!("`{}`", path.join("/")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hints::Path, parse};

    fn hints() -> Hints {
        let paths = |paths: &[&str]| paths.iter().map(|path| Path::read(path).unwrap()).collect();
        Hints {
            arrays: paths(&["orders/order", "tags"]),
            numbers: paths(&["**/price", "**/@n", "count"]),
            booleans: paths(&["**/paid"]),
            order: Vec::new(),
        }
    }

    fn convert(xml: &str, types: Types) -> Result<String, String> {
        let namespaces = Namespaces::new(vec![("c".to_owned(), "urn:c".to_owned())]);
        let hints = hints();
        let bounds = parse::Bounds { depth: 20, elements: 100, attributes: 20 };
        let document = format!("<r xmlns:xsi='{XSI}' xmlns='urn:d' xmlns:c='urn:c' xmlns:o='urn:o'>{xml}</r>");
        let element = parse::document(document.as_bytes(), bounds).map_err(|refusal| refusal.to_string())?;
        let reading = Reading { namespaces: &namespaces, hints: &hints, types };
        let mut out = String::new();
        reading.content(element, &mut Vec::new())?.write(&mut out);
        Ok(out)
    }

    #[test]
    fn elements_become_json() {
        let rows = [
            ("text", "<a> b </a>", r#"{"a":" b ","tags":[]}"#),
            ("order and repetition", "<z>1</z><a>2</a><z>3</z>", r#"{"z":["1","3"],"a":"2","tags":[]}"#),
            ("an empty element", "<a/><b> </b>", r#"{"a":"","b":" ","tags":[]}"#),
            ("an array of one", "<tags>x</tags>", r#"{"tags":["x"]}"#),
            ("a nested array of none", "<orders/>", r#"{"orders":{"order":[]},"tags":[]}"#),
            (
                "a nested array of one",
                "<orders> <order><price>1</price></order> </orders><tags/>",
                r#"{"orders":{"order":[{"price":1}]},"tags":[""]}"#,
            ),
            (
                "attributes",
                "<a b='1' c:d='2'>t</a><e f='3'/>",
                r##"{"a":{"@b":"1","@c:d":"2","#text":"t"},"e":{"@f":"3"},"tags":[]}"##,
            ),
            ("a number beside an attribute", "<price n='07'>1.50</price>", r##"{"price":{"@n":7,"#text":1.50},"tags":[]}"##),
            ("numbers", "<count>+01.10</count><a><price>-.5</price></a>", r#"{"count":1.10,"a":{"price":-0.5},"tags":[]}"#),
            ("no number", "<count/><price> </price>", r#"{"count":null,"price":null,"tags":[]}"#),
            ("booleans", "<paid>1</paid><x><paid> false </paid></x>", r#"{"paid":true,"x":{"paid":false},"tags":[]}"#),
            (
                "nil",
                "<a xsi:nil='true'/><b xsi:nil='1' c='d'/><e xsi:nil='0'>f</e>",
                r##"{"a":null,"b":{"@c":"d","#text":null},"e":"f","tags":[]}"##,
            ),
            ("a nil parent of arrays", "<orders xsi:nil='true'/>", r#"{"orders":null,"tags":[]}"#),
            ("known and unknown namespaces", "<c:a>1</c:a><a>2</a><o:b>3</o:b>", r#"{"c:a":"1","a":"2","b":"3","tags":[]}"#),
            ("types", "<a xsi:type='c:T'>1</a>", r#"{"a":"1","tags":[]}"#),
            ("language", "<a xml:lang='en'>x</a>", r##"{"a":{"@xml:lang":"en","#text":"x"},"tags":[]}"##),
            ("mixed content", "<a>one<b>two</b>three</a>", r##"{"a":{"b":"two","#text":"onethree"},"tags":[]}"##),
        ];
        for (what, xml, json) in rows {
            assert_eq!(convert(xml, Types::Drop).as_deref(), Ok(json), "{what}");
        }
        let typed = convert("<a xsi:type='c:T' xsi:nil='false'>1</a>", Types::Keep);
        assert_eq!(typed.as_deref(), Ok(r##"{"a":{"@xsi:type":"c:T","#text":"1"},"tags":[]}"##));
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let rows = [
            ("<o:a/><a/>", "two namespaces"),
            ("<a b='1' o:b='2'/>", "two namespaces"),
            ("<count>many</count>", "`count` is not the number"),
            ("<price>INF</price>", "is not the number"),
            ("<price>1,5</price>", "is not the number"),
            ("<paid>yes</paid>", "is not the boolean"),
        ];
        for (xml, why) in rows {
            let error = convert(xml, Types::Drop).unwrap_err();
            assert!(error.contains(why), "{xml}: {error}");
        }
    }

    #[test]
    fn numbers_of_xml_become_numbers_of_json() {
        let rows = [
            ("007", Some("7")),
            ("+5", Some("5")),
            (".50", Some("0.50")),
            ("5.", Some("5")),
            ("-00", Some("-0")),
            ("1.E5", Some("1E5")),
            ("+1.5e-3", Some("1.5e-3")),
            ("12345678901234567890.10", Some("12345678901234567890.10")),
            (".", None),
            ("", None),
            ("-", None),
            ("--1", None),
            ("1e", None),
            ("NaN", None),
            ("-INF", None),
            ("1 2", None),
            ("0x1", None),
        ];
        for (text, wanted) in rows {
            assert_eq!(number(text).as_deref(), wanted, "{text:?}");
        }
    }
}
