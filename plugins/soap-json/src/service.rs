//! The service as it was configured, and the two conversions that an exchange needs. Knows HTTP's words, not the gateway.

use crate::{
    answer::Expected,
    compose::{Form, Null, Version, Writing},
    convert::{Reading, Types},
    fault::Statuses,
    json::{self, Json, point},
    names::Namespaces,
    operations::{self, Call, Operation},
    parse::{self, is_utf8},
    problem::{Mistake, Problem},
};

/// A checked configuration.
#[derive(Debug)]
pub(crate) struct Service {
    pub(crate) version: Version,
    /// Path and query of the service.
    pub(crate) path: String,
    pub(crate) form: Form,
    pub(crate) null: Null,
    pub(crate) types: Types,
    pub(crate) namespaces: Namespaces,
    pub(crate) headers: Vec<String>,
    pub(crate) understood: Vec<String>,
    pub(crate) statuses: Statuses,
    pub(crate) limits: Limits,
    pub(crate) operations: Vec<Operation>,
}

/// Bounds on documents in both directions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) depth: usize,
    pub(crate) elements: usize,
    pub(crate) attributes: usize,
}

/// Levels that an envelope has around what the caller sees: envelope, body.
const AROUND: usize = 2;

/// What stands where a response's body is expected.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answered {
    /// An envelope, to be read.
    Envelope,
    /// Nothing that needs reading: it passes as it is.
    AsItIs,
    /// Something else; the caller gets this in its place.
    Other(Problem),
}

impl Service {
    /// The operation that a request is, with the members that its target brings.
    pub(crate) fn call(&self, method: &str, path: &str, query: &str) -> Result<Call, Problem> {
        operations::find(&self.operations, method, path, query)
    }

    /// Whether a request's body is what can be read. `None` stands for a header that is not there.
    pub(crate) fn accepts(&self, content_type: Option<&str>, encoding: Option<&str>) -> Result<(), Problem> {
        let unsupported = |detail: &str| Err(Problem::new(415, "the request's body is not understood", detail));
        if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
            return unsupported("send the body without a content encoding");
        }
        let media = MediaType::read(content_type.unwrap_or_default());
        if media.essence != "application/json" && !media.essence.ends_with("+json") {
            return unsupported("send JSON, as application/json");
        }
        if media.charset.is_some_and(|charset| !is_utf8(charset)) {
            return unsupported("send UTF-8, the only encoding that is understood");
        }
        Ok(())
    }

    /// The envelope for a call with this body; an empty one is none.
    pub(crate) fn envelope(&self, call: &Call, body: &[u8]) -> Result<String, Problem> {
        let operation = self.operation(call.operation)?;
        let arguments = self.arguments(call, body).map_err(Problem::request)?;
        let writing = Writing {
            version: self.version,
            form: self.form,
            null: self.null,
            namespaces: &self.namespaces,
            headers: &self.headers,
            hints: &operation.hints,
            element: &operation.element,
            namespace: &operation.namespace,
        };
        writing.envelope(arguments).map_err(Problem::request)
    }

    /// The headers that an envelope is sent with: content type, and the action where the version has a header for it.
    pub(crate) fn request_headers(&self, operation: usize) -> Result<Vec<(&'static str, String)>, Problem> {
        let action = &self.operation(operation)?.action;
        Ok(match self.version {
            Version::Soap11 => vec![
                ("content-type", "text/xml; charset=utf-8".to_owned()),
                ("soapaction", format!("\"{action}\"")),
                ("accept", "text/xml, application/xml".to_owned()),
            ],
            Version::Soap12 => {
                let action = if action.is_empty() { String::new() } else { format!("; action=\"{action}\"") };
                vec![
                    ("content-type", format!("application/soap+xml; charset=utf-8{action}")),
                    ("accept", "application/soap+xml, application/xml".to_owned()),
                ]
            }
        })
    }

    /// What a response is, by its head.
    pub(crate) fn answered(&self, status: u16, content_type: Option<&str>, encoding: Option<&str>, empty: bool) -> Answered {
        let media = MediaType::read(content_type.unwrap_or_default());
        let is_xml = matches!(media.essence.as_str(), "text/xml" | "application/xml" | "application/soap+xml");
        let unreadable = |detail: String| Answered::Other(Problem::response(detail));
        match () {
            // What has no body has nothing to convert, whatever its status says.
            () if empty || (300..400).contains(&status) => Answered::AsItIs,
            () if !is_xml && status >= 400 => Answered::Other(Problem::new(
                status,
                "the SOAP service answered with an error",
                format!("it answered with status {status} and no envelope"),
            )),
            () if !is_xml => unreadable(format!("it is {:?}, not an envelope", media.essence)),
            () if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case("identity")) => {
                unreadable("it has a content encoding, although none was asked for".to_owned())
            }
            () if media.charset.is_some_and(|charset| !is_utf8(charset)) => {
                unreadable("its content type names another encoding than UTF-8, the only one that is understood".to_owned())
            }
            () => Answered::Envelope,
        }
    }

    /// The JSON of an operation's envelope.
    pub(crate) fn answer(&self, operation: usize, status: u16, body: &[u8]) -> Result<String, Problem> {
        let operation = self.operation(operation)?;
        let expected = Expected {
            version: self.version,
            response: operation.response.as_deref(),
            understood: &self.understood,
            statuses: &self.statuses,
            bounds: self.limits.bounds(),
            reading: Reading { namespaces: &self.namespaces, hints: &operation.hints, types: self.types },
        };
        let mut out = String::with_capacity(body.len());
        expected.read(body, status)?.write(&mut out);
        Ok(out)
    }

    /// A request's body is larger than `limits.bytes`.
    pub(crate) fn too_large(&self) -> Problem {
        let detail = format!("the body has more than {} bytes (`limits.bytes`)", self.limits.bytes);
        Problem::new(413, "the request is too large", detail)
    }

    /// An answer's body is larger than `limits.bytes`.
    pub(crate) fn answer_too_large(&self) -> Problem {
        Problem::response(format!("it has more than {} bytes (`limits.bytes`)", self.limits.bytes))
    }

    /// The members of the target and of the body together.
    fn arguments(&self, call: &Call, body: &[u8]) -> Result<Vec<(String, Json)>, Mistake> {
        let mut arguments = call.members.clone();
        if body.trim_ascii().is_empty() {
            return Ok(arguments);
        }
        let bounds = json::Bounds { depth: self.limits.depth, values: self.limits.elements };
        match Json::read(body, bounds)? {
            Json::Null => {}
            Json::Object(members) => {
                for (name, value) in members {
                    if call.members.iter().any(|(other, _)| *other == name) {
                        let mut pointer = String::new();
                        point(&mut pointer, &name);
                        return Err(Mistake::new(pointer, "the path or the query says this already"));
                    }
                    arguments.push((name, value));
                }
            }
            other => return Err(Mistake::new("", format!("an operation's arguments are an object, not {}", other.kind()))),
        }
        Ok(arguments)
    }

    fn operation(&self, index: usize) -> Result<&Operation, Problem> {
        let lost = || Problem::new(500, "the operation is not known", "the exchange lost its operation");
        self.operations.get(index).ok_or_else(lost)
    }
}

impl Limits {
    pub(crate) fn bounds(self) -> parse::Bounds {
        parse::Bounds { depth: self.depth + AROUND, elements: self.elements, attributes: self.attributes }
    }
}

/// A content type: type and subtype in lower case, and its charset.
struct MediaType<'a> {
    essence: String,
    charset: Option<&'a str>,
}

impl<'a> MediaType<'a> {
    fn read(text: &'a str) -> Self {
        let mut parts = text.split(';');
        let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let charset = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
        });
        Self { essence, charset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn service(changes: &[(&str, serde_json::Value)]) -> Service {
        let mut config = serde_json::json!({
            "version": "1.1", "path": "/soap", "namespace": "urn:a", "namespaces": {"c": "urn:c"},
            "operations": [{"method": "POST", "path": "/a/{id}", "element": "Get", "action": "urn:a#Get", "numbers": ["**/n"]}],
        });
        for (name, value) in changes {
            config[name] = value.clone();
        }
        serde_json::from_value::<Config>(config).unwrap().check().unwrap()
    }

    fn call(members: &[(&str, &str)]) -> Call {
        let member = |(name, value): &(&str, &str)| ((*name).to_owned(), Json::Text((*value).to_owned()));
        Call { operation: 0, members: members.iter().map(member).collect() }
    }

    #[test]
    fn the_target_and_the_body_are_the_arguments() {
        let service = service(&[]);
        let called = service.call("POST", "/a/7", "").unwrap();
        let body = |body: &str| service.envelope(&called, body.as_bytes());
        for text in ["", " \n", "null", "{}"] {
            assert!(body(text).unwrap().contains("<Get xmlns=\"urn:a\"><id>7</id></Get>"), "{text:?}");
        }
        assert!(body("{\"x\":1}").unwrap().contains("<id>7</id><x>1</x>"));
        let rows = [("{\"id\":8}", 400, "path or the query"), ("[1]", 400, "not an array"), ("{\"a\":", 400, "not JSON")];
        for (text, status, detail) in rows {
            let problem = body(text).unwrap_err();
            assert!(problem.status == status && problem.detail.contains(detail), "{text}: {problem:?}");
        }
    }

    #[test]
    fn requests_say_what_they_are() {
        let service = service(&[]);
        let rows = [
            (Some("application/json"), None, None),
            (Some("Application/JSON ; Charset=\"UTF-8\""), Some("Identity"), None),
            (Some("application/merge-patch+json"), None, None),
            (None, None, Some("send JSON")),
            (Some("text/xml"), None, Some("send JSON")),
            (Some("application/json;charset=iso-8859-1"), None, Some("send UTF-8")),
            (Some("application/json"), Some("gzip"), Some("content encoding")),
        ];
        for (kind, encoding, refused) in rows {
            let problem = service.accepts(kind, encoding).err();
            assert_eq!(problem.is_some(), refused.is_some(), "{kind:?} {encoding:?}: {problem:?}");
            if let (Some(problem), Some(detail)) = (problem, refused) {
                assert!(problem.status == 415 && problem.detail.contains(detail), "{problem:?}");
            }
        }
    }

    #[test]
    fn responses_say_what_they_are() {
        let service = service(&[]);
        let envelope = [
            (200, Some("text/xml; charset=utf-8"), None),
            (500, Some("application/soap+xml; charset=\"UTF-8\"; action=\"x\""), None),
            (200, Some("Text/XML"), Some("identity")),
        ];
        for (status, kind, encoding) in envelope {
            assert_eq!(service.answered(status, kind, encoding, false), Answered::Envelope, "{status} {kind:?}");
        }
        for (status, empty) in [(202, true), (204, true), (302, false), (304, true), (401, true), (500, true)] {
            assert_eq!(service.answered(status, None, None, empty), Answered::AsItIs, "{status}");
        }
        let other = [
            (503, Some("text/html"), None, 503, "status 503"),
            (401, None, None, 401, "status 401"),
            (200, Some("text/html"), None, 502, "\"text/html\""),
            (200, Some("multipart/related; type=\"text/xml\""), None, 502, "multipart/related"),
            (200, None, None, 502, "not an envelope"),
            (200, Some("text/xml"), Some("gzip"), 502, "content encoding"),
            (200, Some("text/xml; charset=ISO-8859-1"), None, 502, "UTF-8"),
            (200, Some("text/xml; charset=utf-16"), None, 502, "UTF-8"),
        ];
        for (status, kind, encoding, wanted, detail) in other {
            match service.answered(status, kind, encoding, false) {
                Answered::Other(problem) => {
                    assert!(problem.status == wanted && problem.detail.contains(detail), "{status} {kind:?}: {problem:?}");
                }
                other => panic!("{status} {kind:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn each_version_has_its_headers() {
        let wanted = [
            ("content-type", "text/xml; charset=utf-8"),
            ("soapaction", "\"urn:a#Get\""),
            ("accept", "text/xml, application/xml"),
        ];
        assert_eq!(service(&[]).request_headers(0).unwrap(), wanted.map(|(name, value)| (name, value.to_owned())));
        let headers = service(&[("version", "1.2".into())]).request_headers(0).unwrap();
        assert_eq!(headers[0].1, "application/soap+xml; charset=utf-8; action=\"urn:a#Get\"");
        assert!(headers.iter().all(|(name, _)| *name != "soapaction"));
    }

    /// A small generator of pseudo-random numbers (SplitMix64), so that a failure happens again.
    struct Random(u64);

    impl Random {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
        }

        fn text(&mut self) -> String {
            let pieces =
                ["a", "é", "<", "&", "]]>", "\"", "'", " ", "\n", "\r", "\r\n", "\t", "😀", "&amp;", "<!--", "\\", "0"];
            // Never blank as a whole: blank text beside children is what elements are indented with.
            (0..self.below(6)).map(|_| pieces[self.below(pieces.len())]).chain(["x"]).collect()
        }

        /// What survives the way there and back by the convention: no empty arrays, no arrays of one, no empty objects.
        fn value(&mut self, depth: usize) -> Json {
            match self.below(if depth == 0 { 2 } else { 5 }) {
                0 => Json::Text(self.text()),
                1 => Json::Null,
                2 => Json::Array((0..2 + self.below(3)).map(|_| self.item(depth - 1)).collect()),
                _ => self.object(depth - 1),
            }
        }

        fn item(&mut self, depth: usize) -> Json {
            match self.value(depth) {
                Json::Array(_) => Json::Text(self.text()),
                other => other,
            }
        }

        fn object(&mut self, depth: usize) -> Json {
            let attributes = (0..self.below(3)).map(|n| (format!("@a{n}"), Json::Text(self.text()))).collect::<Vec<_>>();
            let children = (0..1 + self.below(4)).map(|n| (format!("{}m{n}", ["", "c:"][n % 2]), self.value(depth)));
            let mut members: Vec<_> = attributes.into_iter().chain(children.collect::<Vec<_>>()).collect();
            if self.below(4) == 0 {
                members.push(("#text".to_owned(), Json::Text(self.text())));
            }
            Json::Object(members)
        }
    }

    /// An envelope that the service would have sent with these members.
    fn sent(service: &Service, members: &Json) -> String {
        let mut body = String::new();
        members.write(&mut body);
        service.envelope(&call(&[]), body.as_bytes()).unwrap()
    }

    #[test]
    fn what_goes_there_comes_back() {
        let service = service(&[]);
        let mut random = Random(7);
        for round in 0..2000 {
            let members = random.object(4);
            let envelope = sent(&service, &members);
            let mut wanted = String::new();
            members.write(&mut wanted);
            assert_eq!(service.answer(0, 200, envelope.as_bytes()), Ok(wanted), "round {round}: {envelope}");
        }
    }

    #[test]
    fn spoilt_documents_are_read_or_refused_and_nothing_else() {
        let service = service(&[]);
        let mut random = Random(11);
        let pieces: [&[u8]; 12] =
            [b"<", b">", b"&", b"\"", b"/", b"<!DOCTYPE a>", b"]]>", b"<![CDATA[", b"&x;", b"\xff", b"\0", b" xmlns='"];
        let mut refused = 0;
        for _ in 0..3000 {
            let mut envelope = sent(&service, &random.object(3)).into_bytes();
            for _ in 0..=random.below(3) {
                let at = random.below(envelope.len());
                let end = at + random.below(envelope.len() - at).min(random.below(8));
                envelope.splice(at..end, pieces[random.below(pieces.len())].iter().copied());
            }
            match service.answer(0, 200, &envelope) {
                Ok(json) => assert!(serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}"),
                Err(problem) => {
                    refused += 1;
                    assert!((400..=599).contains(&problem.status));
                }
            }
        }
        assert!(refused > 2000, "only {refused} were refused");
    }
}
