//! SOAP faults of both versions into problem+json, with the status that says the same in HTTP.

use crate::{convert::Reading, json::Json, parse::Element, problem::Problem};

/// What a fault says, whichever version it is of.
#[derive(Debug)]
pub(crate) struct Fault {
    /// The code's local name, then those of its subcodes from the outer to the inner.
    codes: Vec<String>,
    reason: String,
    /// Who failed, as far as it is said: members `actor`, `node` and `role`.
    places: Vec<(String, Json)>,
    detail: Option<Element>,
}

/// Statuses by code, subcode or the name of an element in the fault's detail.
#[derive(Debug, Default)]
pub(crate) struct Statuses(pub(crate) Vec<(String, u16)>);

/// What a fault without a reason says, since problems have one.
const NO_REASON: &str = "the fault gives no reason";
/// Most subcodes that are read.
const SUBCODES: usize = 8;

impl Fault {
    /// Reads `faultcode`, `faultstring`, `faultactor` and `detail` (1.1), or `Code`, `Reason`, `Node`, `Role` and `Detail` (1.2).
    /// Names count without their namespace, for services disagree about it.
    pub(crate) fn read(fault: Element) -> Self {
        let mut read = Self { codes: Vec::new(), reason: NO_REASON.to_owned(), places: Vec::new(), detail: None };
        for part in fault.children {
            match part.name.local.as_str() {
                "faultcode" => read.codes.push(code(&part.text)),
                "Code" => read.codes.extend(codes(&part)),
                "faultstring" => read.say(&part.text),
                "Reason" => read.say(reason(&part)),
                name @ ("faultactor" | "Node" | "Role") if !part.text.trim().is_empty() => {
                    let name = if name == "faultactor" { "actor".to_owned() } else { name.to_lowercase() };
                    read.places.push((name, Json::Text(part.text.trim().to_owned())));
                }
                "detail" | "Detail" => read.detail = Some(part),
                _ => {}
            }
        }
        read
    }

    /// The problem that tells the caller. `status` is what the service answered with.
    pub(crate) fn problem(self, status: u16, statuses: &Statuses, reading: &Reading<'_>) -> Result<Problem, String> {
        let status = self.status(status, statuses);
        let mut problem = Problem::new(status, "the SOAP service answered with a fault", self.reason);
        problem.is_fault = true;
        let mut codes = self.codes.into_iter().map(Json::Text);
        problem.members.extend(codes.next().map(|code| ("code".to_owned(), code)));
        let subcodes: Vec<_> = codes.collect();
        if !subcodes.is_empty() {
            problem.members.push(("subcodes".to_owned(), Json::Array(subcodes)));
        }
        problem.members.extend(self.places);
        if let Some(detail) = self.detail {
            match reading.content(detail, &mut vec!["fault".to_owned()])? {
                Json::Null => {}
                Json::Text(text) if text.trim().is_empty() => {}
                content => problem.members.push(("fault".to_owned(), content)),
            }
        }
        Ok(problem)
    }

    fn say(&mut self, reason: &str) {
        let reason = reason.trim();
        if !reason.is_empty() {
            self.reason = reason.to_owned();
        }
    }

    /// What the configuration says for the most specific name that it knows; else what the service answered with, where that
    /// says more than SOAP's usual 500; else what the code says.
    fn status(&self, answered: u16, statuses: &Statuses) -> u16 {
        let details = self.detail.iter().flat_map(|detail| &detail.children).map(|child| child.name.local.as_str());
        let codes = self.codes.iter().rev().flat_map(|code| dotted(code));
        if let Some(status) = details.chain(codes).find_map(|name| statuses.of(name)) {
            return status;
        }
        match (answered, self.codes.first().map(|code| code.split('.').next().unwrap_or(code))) {
            (401..=499 | 501..=599, _) => answered,
            (_, Some("Client" | "Sender")) => 400,
            // It is the gateway that wrote the envelope: the caller cannot mend that.
            (_, Some("VersionMismatch" | "MustUnderstand" | "DataEncodingUnknown")) => 502,
            _ => 500,
        }
    }
}

impl Statuses {
    fn of(&self, name: &str) -> Option<u16> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, status)| *status)
    }
}

/// A code, and with SOAP 1.1's dots every code that it refines, the most specific first.
fn dotted(code: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(code), |code| code.rsplit_once('.').map(|(before, _)| before))
}

/// The code's local name: prefixes are the document's own business.
fn code(text: &str) -> String {
    let text = text.trim();
    text.rsplit_once(':').map_or(text, |(_, local)| local).to_owned()
}

/// `Value`, and that of each `Subcode` in it.
fn codes(code_element: &Element) -> Vec<String> {
    let mut codes = Vec::new();
    let mut at = Some(code_element);
    while let Some(element) = at.filter(|_| codes.len() <= SUBCODES) {
        let part = |name: &str| element.children.iter().find(|child| child.name.local == name);
        codes.extend(part("Value").map(|value| code(&value.text)));
        at = part("Subcode");
    }
    codes
}

/// The English text, or the first: what logs and problems are in elsewhere.
fn reason(element: &Element) -> &str {
    let is_english = |text: &&Element| {
        text.attributes.iter().any(|(name, value)| {
            name.local == "lang" && value.get(..2).is_some_and(|language| language.eq_ignore_ascii_case("en"))
        })
    };
    let texts = || element.children.iter().filter(|child| child.name.local == "Text");
    texts().find(is_english).or_else(|| texts().next()).map_or("", |text| &text.text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        convert::Types,
        hints::{Hints, Path},
        names::Namespaces,
        parse,
    };

    fn problem(xml: &str, answered: u16) -> serde_json::Value {
        let bounds = parse::Bounds { depth: 40, elements: 100, attributes: 20 };
        let element = parse::document(xml.as_bytes(), bounds).unwrap();
        let statuses = [("Client.Missing", 404), ("QuotaExceeded", 429), ("Retry", 503), ("Server", 502)];
        let statuses = Statuses(statuses.map(|(name, status)| (name.to_owned(), status)).to_vec());
        let hints = Hints { arrays: vec![Path::read("fault/Errors/Error").unwrap()], ..Hints::default() };
        let namespaces = Namespaces::default();
        let reading = Reading { namespaces: &namespaces, hints: &hints, types: Types::Drop };
        let problem = Fault::read(element).problem(answered, &statuses, &reading).unwrap();
        let body: serde_json::Value = serde_json::from_str(&problem.body()).unwrap();
        assert_eq!(body["status"], problem.status);
        body
    }

    #[test]
    fn faults_of_1_1_become_problems() {
        let body = problem(
            "<s:Fault xmlns:s='u'><faultcode>s:Client.Missing.Order</faultcode><faultstring xml:lang='en'> no such order </faultstring>\
             <faultactor>urn:a</faultactor><detail><e:Errors xmlns:e='v'><Error>7</Error></e:Errors></detail></s:Fault>",
            500,
        );
        let wanted = serde_json::json!({
            "title": "the SOAP service answered with a fault", "status": 404, "detail": "no such order",
            "code": "Client.Missing.Order", "actor": "urn:a", "fault": {"Errors": {"Error": ["7"]}},
        });
        assert_eq!(body, wanted);
    }

    #[test]
    fn faults_of_1_2_become_problems() {
        let body = problem(
            "<s:Fault xmlns:s='u' xmlns:m='v'><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>m:Bad</s:Value><s:Subcode>\
             <s:Value>m:Retry</s:Value></s:Subcode></s:Subcode></s:Code><s:Reason><s:Text xml:lang='de'>nein</s:Text>\
             <s:Text xml:lang='en-GB'>no</s:Text></s:Reason><s:Node>urn:n</s:Node><s:Role>urn:r</s:Role><s:Detail/></s:Fault>",
            500,
        );
        let wanted = serde_json::json!({
            "title": "the SOAP service answered with a fault", "status": 503, "detail": "no", "code": "Sender",
            "subcodes": ["Bad", "Retry"], "node": "urn:n", "role": "urn:r",
        });
        assert_eq!(body, wanted);
    }

    #[test]
    fn every_fault_has_a_status() {
        let fault = |code: &str, detail: &str| {
            format!("<Fault><faultcode>x:{code}</faultcode><detail><d:{detail} xmlns:d='u'/></detail></Fault>")
        };
        let rows = [
            ("Client", "Other", 500, 400),
            ("Client.Other", "Other", 500, 400),
            ("Client.Missing", "Other", 500, 404),
            ("Client.Missing.Deep", "Other", 200, 404),
            ("Client", "QuotaExceeded", 500, 429),
            ("Client.Missing", "QuotaExceeded", 500, 429),
            ("Client", "Other", 403, 403),
            ("Sender", "Other", 400, 400),
            ("Server.Busy", "Other", 500, 502),
            ("Receiver", "Other", 500, 500),
            ("Receiver", "Other", 503, 503),
            ("Receiver", "Other", 200, 500),
            ("VersionMismatch", "Other", 500, 502),
            ("MustUnderstand", "Other", 500, 502),
            ("Odd", "Other", 400, 500),
        ];
        for (code, detail, answered, status) in rows {
            assert_eq!(problem(&fault(code, detail), answered)["status"], status, "{code} {detail} {answered}");
        }
        assert_eq!(problem("<Fault/>", 500)["detail"], NO_REASON);
        let deep = format!("<Fault><Code>{}{}</Code></Fault>", "<Subcode><Value>a</Value>".repeat(30), "</Subcode>".repeat(30));
        assert_eq!(problem(&deep, 500)["subcodes"].as_array().unwrap().len(), SUBCODES);
    }
}
