//! Which operation a request is: by method and path, with what the path and the query contribute to its arguments.

use crate::{hints::Hints, json::Json, problem::Problem};
use percent_encoding::percent_decode_str;

/// One operation of the service, as callers reach it.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) method: String,
    pub(crate) template: Template,
    /// Query parameters that become members.
    pub(crate) query: Vec<String>,
    pub(crate) element: String,
    pub(crate) namespace: String,
    pub(crate) action: String,
    /// The local name that the answer's element must have.
    pub(crate) response: Option<String>,
    pub(crate) hints: Hints,
}

/// A path with `{name}` for segments that become members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(Vec<Segment>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Member(String),
}

/// A request's operation and the members that its target brings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) operation: usize,
    pub(crate) members: Vec<(String, Json)>,
}

/// Finds the operation; the first one that fits counts.
pub(crate) fn find(operations: &[Operation], method: &str, path: &str, query: &str) -> Result<Call, Problem> {
    let segments = segments(path);
    let fits = |operation: &Operation| segments.as_ref().and_then(|segments| operation.template.members(segments));
    let mut allowed: Vec<&str> = Vec::new();
    for (index, operation) in operations.iter().enumerate() {
        let Some(mut members) = fits(operation) else { continue };
        if operation.method == method {
            members.extend(parameters(operation, query)?);
            return Ok(Call { operation: index, members });
        }
        if !allowed.contains(&operation.method.as_str()) {
            allowed.push(&operation.method);
        }
    }
    if allowed.is_empty() {
        return Err(Problem::new(404, "no such operation", "no operation of the SOAP service is configured for this path"));
    }
    let detail = format!("operations at this path are called by {}", allowed.join(", "));
    let mut problem = Problem::new(405, "the operation is called by another method", detail);
    problem.allow = Some(allowed.join(", "));
    Err(problem)
}

impl Template {
    /// Reads a template; the names in braces are checked by the caller.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let Some(segments) = text.starts_with('/').then(|| text[1..].split('/')) else {
            return Err("a path begins with `/`".to_owned());
        };
        let segments = segments.map(|segment| match segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(name) => Ok(Segment::Member(name.to_owned())),
            None if segment.contains(['{', '}', '?', '#']) || segment.chars().any(char::is_control) => {
                Err(format!("{segment:?} is not a segment: write it decoded, without a query, or `{{name}}` as a whole"))
            }
            None => Ok(Segment::Literal(segment.to_owned())),
        });
        segments.collect::<Result<_, _>>().map(Self)
    }

    /// The names in braces.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Member(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    /// Whether every path that fits one fits the other.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.0.len() == other.0.len()
            && self.0.iter().zip(&other.0).all(|pair| match pair {
                (Segment::Literal(one), Segment::Literal(other)) => one == other,
                (Segment::Member(_), Segment::Member(_)) => true,
                _ => false,
            })
    }

    fn members(&self, path: &[String]) -> Option<Vec<(String, Json)>> {
        if path.len() != self.0.len() {
            return None;
        }
        let mut members = Vec::new();
        for (segment, text) in self.0.iter().zip(path) {
            match segment {
                Segment::Literal(literal) if literal == text => {}
                Segment::Member(name) if !text.is_empty() => members.push((name.clone(), Json::Text(text.clone()))),
                Segment::Literal(_) | Segment::Member(_) => return None,
            }
        }
        Some(members)
    }
}

/// The path's segments, decoded. Nothing, where one is not UTF-8.
fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    path.split('/').map(|segment| percent_decode_str(segment).decode_utf8().ok().map(|text| text.into_owned())).collect()
}

/// The members that the query brings, in the order that the configuration names them in.
fn parameters(operation: &Operation, query: &str) -> Result<Vec<(String, Json)>, Problem> {
    let refused = |detail: String| Problem::new(400, "the query cannot be sent to the SOAP service", detail);
    let mut values: Vec<Vec<Json>> = operation.query.iter().map(|_| Vec::new()).collect();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (Some(name), Some(value)) = (decoded(name), decoded(value)) else {
            return Err(refused("a parameter is not UTF-8".to_owned()));
        };
        let Some(known) = operation.query.iter().position(|known| *known == name) else {
            return Err(refused(format!("the operation has no parameter {name:?}")));
        };
        values[known].push(Json::Text(value));
    }
    let members = operation.query.iter().zip(values).filter_map(|(name, mut values)| match values.len() {
        0 => None,
        1 => values.pop().map(|only| (name.clone(), only)),
        _ => Some((name.clone(), Json::Array(values))),
    });
    Ok(members.collect())
}

fn decoded(text: &str) -> Option<String> {
    let spaced = text.replace('+', " ");
    percent_decode_str(&spaced).decode_utf8().ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operation(method: &str, path: &str, query: &[&str]) -> Operation {
        Operation {
            method: method.to_owned(),
            template: Template::read(path).unwrap(),
            query: query.iter().map(|name| (*name).to_owned()).collect(),
            element: String::new(),
            namespace: String::new(),
            action: String::new(),
            response: None,
            hints: Hints::default(),
        }
    }

    #[test]
    fn requests_find_their_operation() {
        let operations = [
            operation("POST", "/orders", &[]),
            operation("GET", "/orders/latest", &[]),
            operation("GET", "/orders/{id}", &["fields", "lang"]),
            operation("DELETE", "/orders/{id}", &[]),
            operation("GET", "/a b/{x}/{y}", &[]),
        ];
        let member = |name: &str, value: &str| (name.to_owned(), Json::Text(value.to_owned()));
        let both = Json::Array(vec![Json::Text("a b".to_owned()), Json::Text("c&d".to_owned())]);
        let rows = [
            ("POST", "/orders", "", 0, vec![]),
            ("GET", "/orders/latest", "", 1, vec![]),
            ("GET", "/orders/7", "", 2, vec![member("id", "7")]),
            ("GET", "/orders/%C3%A9%2F1", "lang=de", 2, vec![member("id", "é/1"), member("lang", "de")]),
            (
                "GET",
                "/orders/7",
                "lang=&fields=a+b&&fields=c%26d",
                2,
                vec![member("id", "7"), ("fields".to_owned(), both), member("lang", "")],
            ),
            ("DELETE", "/orders/latest", "", 3, vec![member("id", "latest")]),
            ("GET", "/a%20b/1/2", "", 4, vec![member("x", "1"), member("y", "2")]),
        ];
        for (method, path, query, operation, members) in rows {
            assert_eq!(find(&operations, method, path, query), Ok(Call { operation, members }), "{method} {path}?{query}");
        }
        let rows = [
            ("GET", "/other", "", 404, "no operation"),
            ("POST", "/orders/", "", 404, "no operation"),
            ("GET", "/orders/%ff", "", 404, "no operation"),
            ("GET", "*", "", 404, "no operation"),
            ("PUT", "/orders/7", "", 405, "GET, DELETE"),
            ("post", "/orders", "", 405, "POST"),
            ("GET", "/orders/7", "langs=de", 400, "\"langs\""),
            ("POST", "/orders", "a", 400, "\"a\""),
            ("GET", "/orders/7", "lang=%ff", 400, "UTF-8"),
        ];
        for (method, path, query, status, detail) in rows {
            let problem = find(&operations, method, path, query).unwrap_err();
            assert_eq!(problem.status, status, "{method} {path}: {problem:?}");
            assert!(problem.detail.contains(detail), "{method} {path}: {problem:?}");
            assert_eq!(problem.allow.is_some(), status == 405);
        }
    }

    #[test]
    fn templates_are_checked() {
        for text in ["", "a", "/a?b", "/{a", "/x{a}", "/a\nb", "/a#b"] {
            assert!(Template::read(text).is_err(), "{text}");
        }
        let same = |one, other| Template::read(one).unwrap().is_same(&Template::read(other).unwrap());
        assert!(same("/a/{b}", "/a/{c}"));
        assert!(!same("/a/{b}", "/a/b"));
        assert!(!same("/a", "/a/"));
    }
}
