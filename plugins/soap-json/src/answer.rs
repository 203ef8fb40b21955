//! The service's envelope: found in the document, checked, and its one element or its fault turned into what the caller gets.

use crate::{
    compose::Version,
    convert::Reading,
    fault::{Fault, Statuses},
    json::Json,
    parse::{self, Element},
    problem::Problem,
};

/// What a service's envelope is read with.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) version: Version,
    /// The local name that the answer must have, where one is configured.
    pub(crate) response: Option<&'a str>,
    /// Header entries, as JSON would name them, that may say `mustUnderstand`.
    pub(crate) understood: &'a [String],
    pub(crate) statuses: &'a Statuses,
    pub(crate) bounds: parse::Bounds,
    pub(crate) reading: Reading<'a>,
}

impl Expected<'_> {
    /// The answer's JSON, or the problem that stands in its place: the service's fault, or why its answer cannot be read.
    pub(crate) fn read(&self, document: &[u8], status: u16) -> Result<Json, Problem> {
        let document = parse::document(document, self.bounds).map_err(|refusal| Problem::response(refusal.to_string()))?;
        let (version, body) = self.body(document).map_err(Problem::response)?;
        let mut elements = body.children.into_iter();
        let element = match (elements.next(), elements.next()) {
            (None, _) if !body.text.trim_ascii().is_empty() => {
                return Err(Problem::response("its body holds text where an element is expected"));
            }
            (None, _) => return Ok(Json::Object(Vec::new())),
            (Some(fault), None) if fault.name.is(Some(version.namespace()), "Fault") => {
                let problem = Fault::read(fault).problem(status, self.statuses, &self.reading);
                return Err(problem.unwrap_or_else(Problem::response));
            }
            (Some(element), None) => element,
            (Some(_), Some(_)) => {
                return Err(Problem::response(
                    "its body holds several elements; only one is understood (document/literal or rpc/literal)",
                ));
            }
        };
        if version != self.version {
            return Err(Problem::response("its envelope is of another version of SOAP than `version` says"));
        }
        if let Some(response) = self.response.filter(|response| *response != element.name.local) {
            return Err(Problem::response(format!("its body does not hold the element {response:?} that `response` names")));
        }
        if status >= 400 {
            return Err(Problem::response(format!("it answered with status {status} and no fault")));
        }
        match self.reading.content(element, &mut Vec::new()).map_err(Problem::response)? {
            // An operation that answers nothing: its element is empty, and callers expect an object.
            Json::Text(text) if text.trim_ascii().is_empty() => Ok(Json::Object(Vec::new())),
            json => Ok(json),
        }
    }

    fn body(&self, envelope: Element) -> Result<(Version, Element), String> {
        let versions = [Version::Soap11, Version::Soap12];
        let version = versions.into_iter().find(|version| envelope.name.is(Some(version.namespace()), "Envelope"));
        let Some(version) = version else { return Err("its root element is not a SOAP 1.1 or 1.2 envelope".to_owned()) };
        let namespace = Some(version.namespace());
        if let Some(header) = envelope.child(namespace, "Header") {
            self.understand(version, header)?;
        }
        let mut bodies = envelope.children.into_iter().filter(|child| child.name.is(namespace, "Body"));
        match (bodies.next(), bodies.next()) {
            (Some(body), None) => Ok((version, body)),
            _ => Err("its envelope does not have one body".to_owned()),
        }
    }

    /// A header entry that says it must be understood, to this receiver, and is not known, makes the whole unreadable (SOAP 1.1
    /// section 4.2.3, SOAP 1.2 part 1 section 5.2.3).
    fn understand(&self, version: Version, header: &Element) -> Result<(), String> {
        let namespace = Some(version.namespace());
        for entry in &header.children {
            let attribute = |local: &str| {
                entry.attributes.iter().find(|(name, _)| name.is(namespace, local)).map(|(_, value)| value.trim())
            };
            let must = attribute("mustUnderstand").is_some_and(|value| matches!(value, "1" | "true"));
            let elsewhere = attribute("actor")
                .or_else(|| attribute("role"))
                .is_some_and(|role| !role.is_empty() && !role.ends_with("/next") && !role.ends_with("/ultimateReceiver"));
            let name = self.reading.key(&entry.name);
            if must && !elsewhere && !self.understood.contains(&name) {
                return Err(format!("its header {name:?} must be understood and is not named under `understood`"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{convert::Types, hints::Hints, names::Namespaces};

    const SOAP11: &str = "http://schemas.xmlsoap.org/soap/envelope/";
    const SOAP12: &str = "http://www.w3.org/2003/05/soap-envelope";

    fn read(document: &str, status: u16) -> Result<String, Problem> {
        let (hints, statuses) = (Hints::default(), Statuses::default());
        let namespaces = Namespaces::new(vec![("c".to_owned(), "urn:c".to_owned())]);
        let expected = Expected {
            version: Version::Soap11,
            response: Some("GetResponse"),
            understood: &["c:Known".to_owned()],
            statuses: &statuses,
            bounds: parse::Bounds { depth: 20, elements: 100, attributes: 20 },
            reading: Reading { namespaces: &namespaces, hints: &hints, types: Types::Drop },
        };
        let mut out = String::new();
        expected.read(document.as_bytes(), status)?.write(&mut out);
        Ok(out)
    }

    fn envelope(namespace: &str, header: &str, body: &str) -> String {
        format!("<e:Envelope xmlns:e='{namespace}' xmlns:c='urn:c'>{header}<e:Body>{body}</e:Body></e:Envelope>")
    }

    const ANSWER: &str = "<c:GetResponse><a>1</a></c:GetResponse>";

    #[test]
    fn answers_are_read() {
        let rows = [
            ("", ANSWER, r#"{"a":"1"}"#),
            ("<e:Header><c:Any>x</c:Any></e:Header>", ANSWER, r#"{"a":"1"}"#),
            ("<e:Header><c:Known e:mustUnderstand='1'/></e:Header>", ANSWER, r#"{"a":"1"}"#),
            ("<e:Header><c:Any e:mustUnderstand='0'/></e:Header>", ANSWER, r#"{"a":"1"}"#),
            ("<e:Header><c:Any e:mustUnderstand='1' e:actor='urn:other'/></e:Header>", ANSWER, r#"{"a":"1"}"#),
            ("", "", "{}"),
            ("", " <GetResponse/> ", "{}"),
            ("", "<GetResponse>7</GetResponse>", "\"7\""),
        ];
        for (header, body, json) in rows {
            assert_eq!(read(&envelope(SOAP11, header, body), 200).as_deref(), Ok(json), "{header} {body}");
        }
    }

    #[test]
    fn what_is_not_an_answer_is_a_problem() {
        let fault = "<e:Fault><faultcode>e:Client</faultcode><faultstring>no</faultstring></e:Fault>";
        let rows = [
            ("a fault", envelope(SOAP11, "", fault), 500, 400, "no"),
            ("a fault of the other version", envelope(SOAP12, "", fault), 500, 400, "no"),
            ("a fault with 200", envelope(SOAP11, "", fault), 200, 400, "no"),
            ("the other version", envelope(SOAP12, "", ANSWER), 200, 502, "`version`"),
            ("another element", envelope(SOAP11, "", "<Other/>"), 200, 502, "`response`"),
            ("two elements", envelope(SOAP11, "", "<GetResponse/><GetResponse/>"), 200, 502, "several elements"),
            ("text", envelope(SOAP11, "", "x"), 200, 502, "holds text"),
            ("an error without a fault", envelope(SOAP11, "", ANSWER), 500, 502, "no fault"),
            (
                "an unknown header",
                envelope(SOAP11, "<e:Header><c:Any e:mustUnderstand='1'/></e:Header>", ANSWER),
                200,
                502,
                "\"c:Any\"",
            ),
            ("no envelope", "<html/>".to_owned(), 200, 502, "not a SOAP"),
            ("an envelope of nothing", "<Envelope/>".to_owned(), 200, 502, "not a SOAP"),
            ("no body", format!("<Envelope xmlns='{SOAP11}'/>"), 200, 502, "one body"),
            ("two bodies", format!("<Envelope xmlns='{SOAP11}'><Body/><Body/></Envelope>"), 200, 502, "one body"),
            ("a DOCTYPE", format!("<!DOCTYPE x>{}", envelope(SOAP11, "", ANSWER)), 200, 502, "DOCTYPE"),
        ];
        for (what, document, answered, status, detail) in rows {
            let problem = read(&document, answered).expect_err(what);
            assert_eq!(problem.status, status, "{what}: {problem:?}");
            assert!(problem.detail.contains(detail), "{what}: {problem:?}");
        }
    }
}
