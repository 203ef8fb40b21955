//! XML into elements, under guard: no DOCTYPE, so no entity but XML's own five is ever known, nothing is fetched or expanded, and
//! every count has a bound. What is lenient in the reader is checked here.

use crate::names::{is_character, split};
use quick_xml::{
    XmlVersion,
    escape::{resolve_predefined_entity, unescape},
    events::{BytesDecl, BytesRef, BytesStart, Event},
    name::{NamespaceError, NamespaceResolver, QName, ResolveResult},
    reader::NsReader,
};
use std::{collections::BTreeSet, fmt, rc::Rc};

/// An element with what it holds. Comments are left out; text is all the text directly in it, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Element {
    pub(crate) name: Name,
    pub(crate) attributes: Vec<(Name, String)>,
    pub(crate) text: String,
    pub(crate) children: Vec<Element>,
}

/// A name as XML means it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) namespace: Option<Rc<str>>,
    pub(crate) local: String,
}

/// What a document may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) depth: usize,
    /// Elements and attributes.
    pub(crate) elements: usize,
    /// Of one element, namespace declarations among them.
    pub(crate) attributes: usize,
}

/// Why a document is refused, as a sentence about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal(String);

/// Most namespace declarations in scope at once; each name looks through them.
const NAMESPACES_IN_SCOPE: usize = 64;
/// Longest name, with its prefix.
const NAME_BYTES: usize = 256;

/// Reads a whole document.
pub(crate) fn document(bytes: &[u8], bounds: Bounds) -> Result<Element, Refusal> {
    if bytes.starts_with(b"\xfe\xff")
        || bytes.starts_with(b"\xff\xfe")
        || bytes.starts_with(b"<\0")
        || bytes.starts_with(b"\0<")
    {
        return refuse("it is UTF-16; only UTF-8 is understood");
    }
    let text = std::str::from_utf8(bytes).or_else(|_| refuse("it is not UTF-8, the only encoding that is understood"))?;
    if let Some(odd) = text.chars().find(|character| !is_character(*character)) {
        return refuse(format!("it has the character U+{:04X}, which XML does not allow", u32::from(odd)));
    }
    let mut reader = NsReader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    reader.config_mut().expand_empty_elements = true;
    reader.resolver_mut().set_max_namespace_bindings(NAMESPACES_IN_SCOPE);
    let mut builder = Builder { bounds, nodes: 0, open: Vec::new(), root: None, namespaces: BTreeSet::new(), began: false };
    loop {
        let event = reader.read_event().map_err(unreadable)?;
        let first = !std::mem::replace(&mut builder.began, true);
        match event {
            Event::Start(start) => builder.open(&start, reader.resolver())?,
            Event::End(_) => builder.close(),
            Event::Text(text) if text.contains("]]>") => return refuse("it is not well-formed XML: `]]>` in text"),
            Event::Text(text) => builder.text(&text.xml10_content())?,
            Event::CData(text) if builder.open.is_empty() => {
                return refuse(format!("it has {} bytes of text outside of its root element", text.len()));
            }
            Event::CData(text) => builder.text(&text.xml10_content())?,
            Event::GeneralRef(reference) => match resolve_predefined_entity(&reference) {
                Some(text) => builder.text(text)?,
                None => builder.text(referred(&reference)?.encode_utf8(&mut [0; 4]))?,
            },
            Event::Decl(declaration) if first => declared(&declaration)?,
            Event::Decl(_) => return refuse("it is not well-formed XML: a declaration that is not at the start"),
            Event::DocType(_) => return refuse("it has a DOCTYPE; SOAP has none, and nothing of it is read"),
            Event::PI(_) => return refuse("it has a processing instruction; SOAP has none"),
            Event::Comment(_) => {}
            Event::Eof => break,
            // With `expand_empty_elements` there are none.
            Event::Empty(_) => return refuse("it is not well-formed XML"),
        }
    }
    match builder.root {
        Some(root) if builder.open.is_empty() => Ok(root),
        Some(_) | None if !builder.open.is_empty() => refuse("it ends before its elements do"),
        _ => refuse("it has no element"),
    }
}

impl Element {
    /// Its only child of this name.
    pub(crate) fn child(&self, namespace: Option<&str>, local: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name.is(namespace, local))
    }
}

impl Name {
    pub(crate) fn is(&self, namespace: Option<&str>, local: &str) -> bool {
        self.local == local && self.namespace.as_deref() == namespace
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the reader does not go on. Its own words about limits are for those who call it.
fn unreadable(error: quick_xml::Error) -> Refusal {
    Refusal(match error {
        quick_xml::Error::Namespace(NamespaceError::TooManyBindings(most)) => {
            format!("it has more than {most} namespace declarations in scope at once")
        }
        error => format!("it is not well-formed XML: {error}"),
    })
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal(why.into()))
}

/// What the XML declaration says.
fn declared(declaration: &BytesDecl<'_>) -> Result<(), Refusal> {
    match declaration.xml_version() {
        Ok(XmlVersion::Explicit1_0) => {}
        _ => return refuse("it is not XML 1.0"),
    }
    match declaration.encoding() {
        None => Ok(()),
        Some(Ok(encoding)) if is_utf8(&encoding) => Ok(()),
        Some(_) => refuse("its declaration names another encoding than UTF-8, the only one that is understood"),
    }
}

/// Whether a name of an encoding stands for UTF-8 or for a part of it.
pub(crate) fn is_utf8(encoding: &str) -> bool {
    ["utf-8", "utf8", "us-ascii", "ascii"].iter().any(|known| encoding.eq_ignore_ascii_case(known))
}

/// The character that a reference stands for, other than XML's five.
fn referred(reference: &BytesRef<'_>) -> Result<char, Refusal> {
    match reference.resolve_char_ref() {
        Ok(Some(character)) if is_character(character) => Ok(character),
        Ok(Some(_)) | Err(_) => refuse("it refers to a character that XML does not allow"),
        Ok(None) => refuse("it refers to an entity; only lt, gt, amp, apos and quot are known without a DOCTYPE"),
    }
}

struct Builder {
    bounds: Bounds,
    /// Elements and attributes so far.
    nodes: usize,
    open: Vec<Element>,
    root: Option<Element>,
    /// Each namespace once, for documents have few and elements many.
    namespaces: BTreeSet<Rc<str>>,
    began: bool,
}

impl Builder {
    fn open(&mut self, start: &BytesStart<'_>, resolver: &NamespaceResolver) -> Result<(), Refusal> {
        if self.open.len() >= self.bounds.depth {
            return refuse(format!("its elements are nested deeper than {} (`limits.depth`)", self.bounds.depth));
        }
        self.count()?;
        if self.root.is_some() {
            return refuse("it has a second root element");
        }
        let (namespace, _) = resolver.resolve_element(start.name());
        let name = self.name(start.name(), namespace)?;
        let attributes = self.attributes(start, resolver)?;
        self.open.push(Element { name, attributes, text: String::new(), children: Vec::new() });
        Ok(())
    }

    /// One element or attribute more: they cost about the same.
    fn count(&mut self) -> Result<(), Refusal> {
        self.nodes += 1;
        if self.nodes > self.bounds.elements {
            return refuse(format!("it has more than {} elements and attributes (`limits.elements`)", self.bounds.elements));
        }
        Ok(())
    }

    fn attributes(&mut self, start: &BytesStart<'_>, resolver: &NamespaceResolver) -> Result<Vec<(Name, String)>, Refusal> {
        let mut attributes = Vec::new();
        for (count, attribute) in start.attributes().enumerate() {
            if count >= self.bounds.attributes {
                return refuse(format!("an element has more than {} attributes (`limits.attributes`)", self.bounds.attributes));
            }
            self.count()?;
            let attribute = attribute.map_err(|error| Refusal(format!("it is not well-formed XML: {error}")))?;
            if attribute.value.contains('<') {
                return refuse("it is not well-formed XML: `<` in an attribute");
            }
            let value = attribute
                .normalized_value(XmlVersion::Explicit1_0)
                .or_else(|_| refuse("an attribute refers to an entity, or to a character that XML does not allow"))?;
            if !value.chars().all(is_character) {
                return refuse("an attribute refers to a character that XML does not allow");
            }
            if attribute.key.as_namespace_binding().is_some() {
                continue;
            }
            let (namespace, _) = resolver.resolve_attribute(attribute.key);
            let name = self.name(attribute.key, namespace)?;
            if attributes.iter().any(|(other, _)| *other == name) {
                return refuse("an element has the same attribute twice");
            }
            attributes.push((name, value.into_owned()));
        }
        Ok(attributes)
    }

    fn close(&mut self) {
        let Some(mut element) = self.open.pop() else { return };
        if !element.children.is_empty() && element.text.trim_ascii().is_empty() {
            // What elements are indented with.
            element.text = String::new();
        }
        match self.open.last_mut() {
            Some(parent) => parent.children.push(element),
            None => self.root = Some(element),
        }
    }

    fn text(&mut self, text: &str) -> Result<(), Refusal> {
        match self.open.last_mut() {
            Some(element) => {
                element.text.push_str(text);
                Ok(())
            }
            None if text.chars().all(|character| character.is_ascii_whitespace()) => Ok(()),
            None => refuse("it has text outside of its root element"),
        }
    }

    fn name(&mut self, name: QName<'_>, namespace: ResolveResult<'_>) -> Result<Name, Refusal> {
        let Some((_, local)) = (name.0.len() <= NAME_BYTES).then(|| split(name.0)).flatten() else {
            return refuse(format!("it has a name that XML does not allow, or one longer than {NAME_BYTES} bytes"));
        };
        let namespace = match namespace {
            ResolveResult::Unbound => None,
            ResolveResult::Bound(namespace) if namespace.0.contains('&') => {
                Some(self.namespace(&unescape(namespace.0).or_else(|_| refuse("a namespace refers to an entity"))?))
            }
            ResolveResult::Bound(namespace) => Some(self.namespace(namespace.0)),
            ResolveResult::Unknown(_) => return refuse("it has a name whose prefix is not declared"),
        };
        Ok(Name { namespace, local: local.to_owned() })
    }

    fn namespace(&mut self, namespace: &str) -> Rc<str> {
        if let Some(known) = self.namespaces.get(namespace) {
            return Rc::clone(known);
        }
        let new: Rc<str> = namespace.into();
        self.namespaces.insert(Rc::clone(&new));
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { depth: 5, elements: 12, attributes: 4 };

    fn read(text: &str) -> Result<Element, Refusal> {
        document(text.as_bytes(), BOUNDS)
    }

    #[test]
    fn names_text_and_attributes_are_what_xml_means() {
        let root = read(
            "\u{feff}<?xml version=\"1.0\" encoding=\"Utf-8\"?>\n<!-- a --><p:a xmlns:p=\"urn:p&amp;q\" xmlns=\"urn:d\" \
             p:x=\"1 &lt; 2\" y=\"a\tb&#9;c\">\n  <b>one&#x20;&amp;<!-- . --> <![CDATA[<two>]]>\r\n</b><c xmlns=\"\"/>\n</p:a>\n",
        )
        .unwrap();
        assert!(root.name.is(Some("urn:p&q"), "a"), "{root:?}");
        let attributes: Vec<_> =
            root.attributes.iter().map(|(name, value)| (name.namespace.as_deref(), &*name.local, &**value)).collect();
        assert_eq!(attributes, [(Some("urn:p&q"), "x", "1 < 2"), (None, "y", "a b\tc")]);
        assert_eq!((root.text.as_str(), root.children.len()), ("", 2));
        assert_eq!(root.child(Some("urn:d"), "b").unwrap().text, "one & <two>\n");
        assert!(root.children[1].name.is(None, "c"));
    }

    #[test]
    fn attacks_and_broken_documents_are_refused() {
        let bomb = "<!DOCTYPE a [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;&a;\">]><a>&b;</a>";
        let external = "<!DOCTYPE a [<!ENTITY x SYSTEM \"file:///etc/passwd\">]><a>&x;</a>";
        let rows = [
            ("a DOCTYPE alone", "<!DOCTYPE a><a/>", "DOCTYPE"),
            ("entity expansion", bomb, "DOCTYPE"),
            ("an external entity", external, "DOCTYPE"),
            ("an external DTD", "<!DOCTYPE a SYSTEM \"http://evil.example/x.dtd\"><a/>", "DOCTYPE"),
            ("a DOCTYPE inside", "<a><!DOCTYPE a><b/></a>", "DOCTYPE"),
            ("an unknown entity", "<a>&x;</a>", "entity"),
            ("one in an attribute", "<a b='&x;'/>", "entity"),
            ("one in a namespace", "<a xmlns='&x;'/>", "entity"),
            ("a character reference to nothing", "<a>&#0;</a>", "does not allow"),
            ("one to a control character", "<a>&#x1;</a>", "does not allow"),
            ("one in an attribute", "<a b='&#2;'/>", "does not allow"),
            ("a control character", "<a>\u{1}</a>", "U+0001"),
            ("depth", "<a><b><c><d><e><f/></e></d></c></b></a>", "`limits.depth`"),
            ("many elements", "<a><b/><b/><b/><b/><b/><b/><b/><b/><b/><b/><b/><b/></a>", "`limits.elements`"),
            (
                "many elements with attributes",
                "<a><b c='' d=''/><b c='' d=''/><b c='' d=''/><b c='' d=''/></a>",
                "`limits.elements`",
            ),
            ("many attributes", "<a b='' c='' d='' e='' f=''/>", "`limits.attributes`"),
            ("many namespaces", "<a xmlns:b='b' xmlns:c='c' xmlns:d='d' xmlns:e='e' xmlns:f='f'/>", "`limits.attributes`"),
            ("a processing instruction", "<?xml-stylesheet href='x'?><a/>", "processing instruction"),
            ("two roots", "<a/><b/>", "second root"),
            ("text before the root", "x<a/>", "outside"),
            ("text behind the root", "<a/>x", "outside"),
            ("CDATA behind the root", "<a/><![CDATA[x]]>", "outside"),
            ("nothing", "", "no element"),
            ("a comment alone", "<!-- a -->", "no element"),
            ("half a document", "<a><b></b>", "ends before"),
            ("half a tag", "<a><b", "well-formed"),
            ("wrong end", "<a></b>", "well-formed"),
            ("only an end", "</a>", "well-formed"),
            ("an attribute twice", "<a b='1' b='2'/>", "well-formed"),
            ("twice by its namespace", "<a xmlns:p='u' xmlns:q='u' p:b='1' q:b='2'/>", "twice"),
            ("no quotes", "<a b=1/>", "well-formed"),
            ("a tag in an attribute", "<a b='<c>'/>", "`<` in an attribute"),
            ("a lone ampersand", "<a>b & c</a>", "well-formed"),
            ("an undeclared prefix", "<p:a/>", "prefix"),
            ("an undeclared prefix of an attribute", "<a p:b='1'/>", "prefix"),
            ("no name", "<a><1/></a>", "name"),
            ("an odd name", "<a\u{d7}/>", "name"),
            ("two colons", "<a xmlns:b='u' b:c:d='1'/>", "name"),
            ("XML 1.1", "<?xml version='1.1'?><a/>", "XML 1.0"),
            ("Latin 1", "<?xml version='1.0' encoding='ISO-8859-1'?><a/>", "UTF-8"),
            ("a late declaration", " <?xml version='1.0'?><a/>", "declaration"),
            ("a nested declaration", "<a><?xml version='1.0'?></a>", "declaration"),
        ];
        for (what, text, why) in rows {
            let refusal = read(text).expect_err(what).to_string();
            assert!(refusal.contains(why), "{what}: {refusal}");
        }
        let long = format!("<{}/>", "a".repeat(NAME_BYTES + 1));
        assert!(read(&long).unwrap_err().to_string().contains("name"));
        let many: String = (0..40).map(|n| format!("<a xmlns:p{n}='u{n}' xmlns:q{n}='v{n}'>")).collect();
        let bounds = Bounds { depth: 100, elements: 100, attributes: 4 };
        let refusal = document(many.as_bytes(), bounds).unwrap_err().to_string();
        assert_eq!(refusal, "it has more than 64 namespace declarations in scope at once");
    }

    #[test]
    fn other_encodings_are_refused_as_such() {
        let wide: Vec<u8> = "\u{feff}<a/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, why) in [(&wide[..], "UTF-16"), (&wide[2..], "UTF-16"), (b"<a>\xe9</a>", "not UTF-8")] {
            let refusal = document(bytes, BOUNDS).unwrap_err().to_string();
            assert!(refusal.contains(why), "{refusal}");
        }
    }

    #[test]
    fn no_prefix_of_a_document_is_a_document() {
        let text = "<?xml version='1.0'?><a b='1'>x&amp;<c>é</c><![CDATA[y]]><!-- z --></a>";
        read(text).unwrap();
        for end in 0..text.len() {
            assert!(document(&text.as_bytes()[..end], BOUNDS).is_err(), "{end}");
        }
    }
}
