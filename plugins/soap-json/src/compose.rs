//! JSON into an envelope, by the convention of the README. Every name is checked and every character escaped, so that no value
//! becomes markup.

use crate::{
    hints::Hints,
    json::{Json, point},
    names::{Namespaces, is_character, split},
    problem::Mistake,
};

/// The version of SOAP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Soap11,
    Soap12,
}

/// Whether the elements inside of the operation's are of its namespace (`elementFormDefault`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Qualified,
    Unqualified,
}

/// What becomes of null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Null {
    /// An element with `xsi:nil`.
    Nil,
    /// No element.
    Omit,
}

/// How envelopes are written.
#[derive(Debug)]
pub(crate) struct Writing<'a> {
    pub(crate) version: Version,
    pub(crate) form: Form,
    pub(crate) null: Null,
    pub(crate) namespaces: &'a Namespaces,
    /// The envelope's header entries, as XML.
    pub(crate) headers: &'a [String],
    pub(crate) hints: &'a Hints,
    /// The operation's element and its namespace.
    pub(crate) element: &'a str,
    pub(crate) namespace: &'a str,
}

impl Version {
    /// The envelope's namespace.
    pub(crate) fn namespace(self) -> &'static str {
        match self {
            Self::Soap11 => "http://schemas.xmlsoap.org/soap/envelope/",
            Self::Soap12 => "http://www.w3.org/2003/05/soap-envelope",
        }
    }
}

impl Writing<'_> {
    /// The envelope that calls the operation with these members.
    pub(crate) fn envelope(&self, arguments: Vec<(String, Json)>) -> Result<String, Mistake> {
        let mut out = String::with_capacity(1024);
        out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soap:Envelope");
        declare("soap", self.version.namespace(), &mut out);
        for (prefix, namespace) in self.namespaces.declarations() {
            declare(prefix, namespace, &mut out);
        }
        out.push('>');
        if !self.headers.is_empty() {
            out.push_str("<soap:Header>");
            self.headers.iter().for_each(|header| out.push_str(header));
            out.push_str("</soap:Header>");
        }
        out.push_str("<soap:Body>");
        let (tag, declaration) = match self.form {
            _ if self.namespace.is_empty() => (self.element.to_owned(), None),
            Form::Qualified => (self.element.to_owned(), Some("xmlns")),
            Form::Unqualified => (format!("op:{}", self.element), Some("xmlns:op")),
        };
        let mut body = Body { writing: self, out, path: Vec::new(), pointer: String::new() };
        body.element(&tag, declaration.map(|name| (name, self.namespace)), arguments)?;
        let mut out = body.out;
        out.push_str("</soap:Body></soap:Envelope>");
        Ok(out)
    }
}

fn declare(prefix: &str, namespace: &str, out: &mut String) {
    out.push_str(" xmlns:");
    out.push_str(prefix);
    out.push_str("=\"");
    escape(namespace, Place::Attribute, out);
    out.push('"');
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Text,
    Attribute,
}

/// Appends text as XML; what a reader would normalise away is written as a reference.
fn escape(text: &str, place: Place, out: &mut String) {
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' if place == Place::Attribute => out.push_str("&quot;"),
            '\n' if place == Place::Attribute => out.push_str("&#10;"),
            '\t' if place == Place::Attribute => out.push_str("&#9;"),
            '\r' => out.push_str("&#13;"),
            _ => out.push(character),
        }
    }
}

struct Body<'a> {
    writing: &'a Writing<'a>,
    out: String,
    path: Vec<String>,
    pointer: String,
}

/// Most bytes of an envelope: what the gateway lets a filter make of a body by default. A name is written twice for each item of
/// a list, so that a small document could grow to more than the filter's memory.
const ENVELOPE_BYTES: usize = 1 << 20;

impl Body<'_> {
    /// An element with these members: attributes, text, children.
    fn element(&mut self, tag: &str, declaration: Option<(&str, &str)>, members: Vec<(String, Json)>) -> Result<(), Mistake> {
        self.out.push('<');
        self.out.push_str(tag);
        if let Some((name, namespace)) = declaration {
            self.attribute(name, namespace);
        }
        let mut text = None;
        let mut children = Vec::with_capacity(members.len());
        for (name, value) in members {
            match name.strip_prefix('@') {
                Some(attribute) => self.at(&name, |body| body.attribute_of(attribute, value))?,
                None if name == "#text" => text = Some(value),
                None => children.push((name, value)),
            }
        }
        let text = match text {
            Some(Json::Null) if children.is_empty() => {
                self.attribute("xsi:nil", "true");
                None
            }
            Some(value) => Some(self.at("#text", |body| body.scalar(value))?).filter(|text| !text.is_empty()),
            None => None,
        };
        if text.is_none() && children.is_empty() {
            self.out.push_str("/>");
            return Ok(());
        }
        self.out.push('>');
        escape(&text.unwrap_or_default(), Place::Text, &mut self.out);
        for (name, value) in self.ordered(children) {
            self.at(&name, |body| {
                let tag = body.tag(&name)?;
                body.path.push(name.clone());
                let written = body.children(tag, value);
                body.path.pop();
                written
            })?;
        }
        self.close(tag);
        Ok(())
    }

    /// A member's elements: one, or one for each item.
    fn children(&mut self, tag: &str, value: Json) -> Result<(), Mistake> {
        match value {
            Json::Array(items) => {
                for (index, item) in items.into_iter().enumerate() {
                    self.at(&index.to_string(), |body| match item {
                        Json::Array(_) => Err(body.mistake("XML has no arrays in arrays; name the inner one by an object")),
                        item => body.child(tag, item),
                    })?;
                }
                Ok(())
            }
            value => self.child(tag, value),
        }
    }

    fn child(&mut self, tag: &str, value: Json) -> Result<(), Mistake> {
        if self.out.len() > ENVELOPE_BYTES {
            return Err(self.mistake("the envelope would be larger than 1 MiB: send less, or shorter names"));
        }
        match value {
            Json::Object(members) => self.element(tag, None, members),
            Json::Null if self.writing.null == Null::Omit => Ok(()),
            Json::Null => self.element(tag, None, vec![("#text".to_owned(), Json::Null)]),
            value => {
                let text = self.scalar(value)?;
                self.out.push('<');
                self.out.push_str(tag);
                self.out.push('>');
                escape(&text, Place::Text, &mut self.out);
                self.close(tag);
                Ok(())
            }
        }
    }

    fn attribute_of(&mut self, name: &str, value: Json) -> Result<(), Mistake> {
        let name = self.tag(name)?;
        if name == "xmlns" || name.starts_with("op:") {
            return Err(self.mistake("namespaces are declared by the configuration alone"));
        }
        if value == Json::Null {
            return Ok(());
        }
        let text = self.scalar(value)?;
        self.attribute(name, &text);
        Ok(())
    }

    fn attribute(&mut self, name: &str, value: &str) {
        self.out.push(' ');
        self.out.push_str(name);
        self.out.push_str("=\"");
        escape(value, Place::Attribute, &mut self.out);
        self.out.push('"');
    }

    fn close(&mut self, tag: &str) {
        self.out.push_str("</");
        self.out.push_str(tag);
        self.out.push('>');
    }

    /// A name that XML allows, whose prefix is declared.
    fn tag<'n>(&self, name: &'n str) -> Result<&'n str, Mistake> {
        match split(name) {
            Some((None, _)) => Ok(name),
            Some((Some(prefix), _)) if self.writing.namespaces.knows(prefix) => Ok(name),
            Some((Some(prefix), _)) => {
                Err(self
                    .mistake(format!("the prefix {prefix:?} is none of those that the route configures under `namespaces`")))
            }
            None => Err(self.mistake("this is not a name that XML allows")),
        }
    }

    fn scalar(&self, value: Json) -> Result<String, Mistake> {
        match value {
            Json::Text(text) => match text.chars().find(|character| !is_character(*character)) {
                Some(odd) => Err(self.mistake(format!("XML cannot carry the character U+{:04X}", u32::from(odd)))),
                None => Ok(text),
            },
            Json::Number(text) => Ok(text),
            Json::Bool(value) => Ok(value.to_string()),
            Json::Null => Ok(String::new()),
            Json::Array(_) | Json::Object(_) => Err(self.mistake(format!("text is expected here, not {}", value.kind()))),
        }
    }

    /// The members in the schema's order where one is configured; the others follow as they came.
    fn ordered(&self, mut members: Vec<(String, Json)>) -> Vec<(String, Json)> {
        let order = self.writing.hints.order(&self.path);
        members.sort_by_key(|(name, _)| order.iter().position(|first| first == name).unwrap_or(order.len()));
        members
    }

    /// Does something to the member of this name; mistakes point there.
    fn at<T>(&mut self, name: &str, act: impl FnOnce(&mut Self) -> Result<T, Mistake>) -> Result<T, Mistake> {
        let parent = self.pointer.len();
        point(&mut self.pointer, name);
        let done = act(self);
        self.pointer.truncate(parent);
        done
    }

    fn mistake(&self, detail: impl Into<String>) -> Mistake {
        Mistake::new(self.pointer.as_str(), detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hints::Path, json, parse};

    fn namespaces() -> Namespaces {
        Namespaces::new(vec![("c".to_owned(), "urn:c?a&b".to_owned())])
    }

    fn writing<'a>(namespaces: &'a Namespaces, hints: &'a Hints, headers: &'a [String]) -> Writing<'a> {
        Writing {
            version: Version::Soap11,
            form: Form::Qualified,
            null: Null::Nil,
            namespaces,
            headers,
            hints,
            element: "Get",
            namespace: "urn:op",
        }
    }

    fn members(text: &str) -> Vec<(String, Json)> {
        match Json::read(text.as_bytes(), json::Bounds { depth: 20, values: 1000 }).unwrap() {
            Json::Object(members) => members,
            other => panic!("{other:?}"),
        }
    }

    /// What stands in the body.
    fn body(writing: &Writing<'_>, text: &str) -> Result<String, Mistake> {
        let envelope = writing.envelope(members(text))?;
        let bounds = parse::Bounds { depth: 30, elements: 1000, attributes: 30 };
        parse::document(envelope.as_bytes(), bounds).expect("a document that a strict reader takes");
        let (_, body) = envelope.split_once("<soap:Body>").unwrap();
        Ok(body.strip_suffix("</soap:Body></soap:Envelope>").unwrap().to_owned())
    }

    #[test]
    fn a_small_document_does_not_become_a_large_one() {
        let (namespaces, hints) = (namespaces(), Hints::default());
        let name = "n".repeat(1000);
        let many = vec![(name, Json::Array(vec![Json::Number("1".to_owned()); 10_000]))];
        let mistake = writing(&namespaces, &hints, &[]).envelope(many).unwrap_err();
        assert!(mistake.detail.contains("1 MiB"), "{mistake:?}");
        assert!(mistake.pointer.starts_with("/nnn"), "it says where");
    }

    #[test]
    fn json_becomes_elements() {
        let (namespaces, hints) = (namespaces(), Hints::default());
        let writing = writing(&namespaces, &hints, &[]);
        let rows = [
            (r#"{}"#, r#"<Get xmlns="urn:op"/>"#),
            (r#"{"z":1.10,"a":true,"m":"x"}"#, r#"<Get xmlns="urn:op"><z>1.10</z><a>true</a><m>x</m></Get>"#),
            (r#"{"a":["1",2,{"b":3}]}"#, r#"<Get xmlns="urn:op"><a>1</a><a>2</a><a><b>3</b></a></Get>"#),
            (r#"{"a":[],"b":{}}"#, r#"<Get xmlns="urn:op"><b/></Get>"#),
            (r##"{"a":{"@x":1,"#text":"t","@c:y":"z"}}"##, r#"<Get xmlns="urn:op"><a x="1" c:y="z">t</a></Get>"#),
            (r#"{"@id":"7","c:a":{"b":""}}"#, r#"<Get xmlns="urn:op" id="7"><c:a><b></b></c:a></Get>"#),
            (
                r##"{"a":null,"b":{"@x":null,"#text":null}}"##,
                r#"<Get xmlns="urn:op"><a xsi:nil="true"/><b xsi:nil="true"/></Get>"#,
            ),
            (r##"{"a":{"b":1,"#text":"t"}}"##, r#"<Get xmlns="urn:op"><a>t<b>1</b></a></Get>"#),
            (r#"{"a":"</Get><x y=\"&'\">]]>"}"#, r#"<Get xmlns="urn:op"><a>&lt;/Get&gt;&lt;x y="&amp;'"&gt;]]&gt;</a></Get>"#),
            (r#"{"@a":"\"><x>\n\t'"}"#, r#"<Get xmlns="urn:op" a="&quot;&gt;&lt;x&gt;&#10;&#9;'"/>"#),
            ("{\"a\":\"1\\r\\n2\"}", "<Get xmlns=\"urn:op\"><a>1&#13;\n2</a></Get>"),
            (r#"{"a":{"@xsi:type":"c:T","b":1}}"#, r#"<Get xmlns="urn:op"><a xsi:type="c:T"><b>1</b></a></Get>"#),
        ];
        for (text, wanted) in rows {
            assert_eq!(body(&writing, text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn the_envelope_is_as_configured() {
        let (namespaces, headers) = (namespaces(), ["<h:T xmlns:h=\"urn:h\">x</h:T>".to_owned()]);
        let order = vec![
            (Path::read("").unwrap(), vec!["b".to_owned(), "a".to_owned()]),
            (Path::read("a").unwrap(), vec!["y".to_owned()]),
        ];
        let hints = Hints { order, ..Hints::default() };
        let mut writing = writing(&namespaces, &hints, &headers);
        let envelope = writing.envelope(members(r#"{"x":1,"a":[{"x":1,"y":2}],"b":3}"#)).unwrap();
        let wanted = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\" \
                      xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" xmlns:xsd=\"http://www.w3.org/2001/XMLSchema\" \
                      xmlns:c=\"urn:c?a&amp;b\"><soap:Header><h:T xmlns:h=\"urn:h\">x</h:T></soap:Header><soap:Body><Get xmlns=\"urn:op\">\
                      <b>3</b><a><y>2</y><x>1</x></a><x>1</x></Get></soap:Body></soap:Envelope>";
        assert_eq!(envelope, wanted);
        writing.version = Version::Soap12;
        writing.form = Form::Unqualified;
        writing.null = Null::Omit;
        assert!(writing.envelope(Vec::new()).unwrap().contains("xmlns:soap=\"http://www.w3.org/2003/05/soap-envelope\""));
        let text = r#"{"a":null,"b":[null,1]}"#;
        assert_eq!(body(&writing, text).as_deref(), Ok(r#"<op:Get xmlns:op="urn:op"><b>1</b></op:Get>"#));
        writing.namespace = "";
        assert_eq!(body(&writing, "{}").as_deref(), Ok("<Get/>"));
    }

    #[test]
    fn mistakes_are_pointed_at() {
        let (namespaces, hints) = (namespaces(), Hints::default());
        let writing = writing(&namespaces, &hints, &[]);
        let rows = [
            (r#"{"a b":1}"#, "/a b", "not a name"),
            (r#"{"a><x":1}"#, "/a><x", "not a name"),
            (r#"{"":1}"#, "/", "not a name"),
            (r##"{"#other":1}"##, "/#other", "not a name"),
            (r#"{"a":{"@x y":1}}"#, "/a/@x y", "not a name"),
            (r#"{"@xmlns":"urn:x"}"#, "/@xmlns", "configuration alone"),
            (r#"{"@xmlns:c":"urn:x"}"#, "/@xmlns:c", "\"xmlns\" is none"),
            (r#"{"q:a":1}"#, "/q:a", "\"q\" is none"),
            (r#"{"a":[1,[2]]}"#, "/a/1", "arrays in arrays"),
            (r#"{"a":{"@b":{"c":1}}}"#, "/a/@b", "text is expected here, not an object"),
            (r##"{"a":{"#text":[]}}"##, "/a/#text", "text is expected here, not an array"),
            (r#"{"a":[{"b":"\u0000"}]}"#, "/a/0/b", "U+0000"),
            (r#"{"@a":"\uffff"}"#, "/@a", "U+FFFF"),
        ];
        for (text, pointer, detail) in rows {
            let mistake = body(&writing, text).unwrap_err();
            assert_eq!(mistake.pointer, pointer, "{text}: {mistake:?}");
            assert!(mistake.detail.contains(detail), "{text}: {mistake:?}");
        }
    }
}
