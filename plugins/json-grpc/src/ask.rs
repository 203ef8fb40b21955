//! The request's direction: is it a call, does its head fit, and what goes to the API in its place.

use crate::config::{Checked, UnknownPaths};
use crate::framing;
use crate::problem::Problem;
use crate::request::{self, Parts, Refusal};
use crate::routes::{Body as Bound, Found};
use crate::stream::Format;
use tidegate_sdk::{Body, Headers, attributes, log, message};

/// A request whose body is awaited.
#[derive(Debug)]
pub(crate) struct Asking {
    /// The place of its binding in the routes.
    pub(crate) binding: usize,
    /// What the path says for the variables of its template.
    variables: Vec<String>,
    query: String,
    /// How the caller wants a stream.
    pub(crate) format: Format,
}

/// What of the head is asked for, in one call to the host.
const ASKED: [&str; 6] = ["content-type", "content-length", "content-encoding", "accept", "grpc-timeout", ""];
const LAST: usize = ASKED.len() - 1;

/// Looks at the head. Nothing where the request is not for us; it goes on as it is.
pub(crate) fn begin(api: &Checked, head: &mut Headers<'_>, end: bool) -> Result<Option<Asking>, Problem> {
    let mut asked = ASKED;
    asked[LAST] = api.deadlines.header.as_deref().unwrap_or("grpc-timeout");
    let values: Vec<Option<String>> = head.get_many(&asked).into_iter().map(|value| value.map(text)).collect();
    let value = |index: usize| values.get(index).and_then(|value| value.as_deref());
    let content_type = value(0).unwrap_or_default();
    // Whoever speaks gRPC already needs no conversion.
    if is(content_type, "application/grpc") {
        return Ok(None);
    }
    let method = attributes::text("request.method").unwrap_or_default();
    let path = attributes::text("request.path").unwrap_or_default();
    let (binding, variables) = match api.routes.find(&method, &path) {
        Found::Call(place, captures) => (place, captures.values(api.routes.binding(place)).map_err(Problem::refused)?),
        _ if api.unknown_paths == UnknownPaths::Pass => return Ok(None),
        Found::WrongMethod(allowed) => return Err(Problem::method_not_allowed(&method, &allowed)),
        Found::Nothing => return Err(Problem::new(404, format!("{method} {path} is no method of the API"))),
    };
    let call = &api.schema.methods()[api.routes.binding(binding).method];
    if call.client_streaming {
        let detail = format!("{} takes a stream of messages, which this filter does not convert: call it by gRPC", call.path);
        return Err(Problem::new(501, detail));
    }
    if !end {
        check_body(api, content_type, value(1), value(2))?;
    }
    let header = value(LAST).filter(|_| api.deadlines.header.is_some());
    let timeout = api.deadlines.timeout(header, value(4)).map_err(|detail| Problem::new(400, detail))?;
    let format = api.streams.accepted(value(3).unwrap_or_default());
    let query = attributes::text("request.query").unwrap_or_default();
    send_to(&call.path)?;
    rewrite_head(head, timeout.as_deref())?;
    Ok(Some(Asking { binding, variables, query, format }))
}

/// Puts the message into the body's place.
pub(crate) fn convert(api: &Checked, asking: &Asking, body: &mut Body<'_>) -> Result<(), Problem> {
    let too_large =
        || Problem::new(413, format!("the message is larger than the {} bytes that are taken", api.max_request_bytes));
    if body.len() > u64::from(api.max_request_bytes) {
        return Err(too_large());
    }
    let binding = api.routes.binding(asking.binding);
    let json = body.take();
    if binding.body == Bound::None && !json.is_empty() {
        let refusal =
            Refusal::new(request::Place::Body(String::new()), "this call has no body: its fields are in path and query");
        return Err(Problem::refused(refusal));
    }
    let parts = Parts { variables: &asking.variables, query: &asking.query, body: &json };
    let frame = request::convert(&api.schema, binding, api.unknown_fields, &parts).map_err(Problem::refused)?;
    if frame.len() > api.max_request_bytes as usize + framing::HEADER {
        return Err(too_large());
    }
    body.replace(frame).map_err(|_| too_large())
}

/// A request of gRPC ends with its message: trailers have no meaning there.
pub(crate) fn drop_trailers(trailers: &mut Headers<'_>) -> Result<(), Problem> {
    let names: Vec<String> = trailers.entries().into_iter().map(|(name, _)| name).collect();
    let changes = names.iter().fold(trailers.change(), |changes, name| changes.remove(name));
    changes.apply().map_err(|error| Problem::new(400, format!("the trailers cannot be left out: {error}")))
}

fn check_body(api: &Checked, content_type: &str, length: Option<&str>, encoding: Option<&str>) -> Result<(), Problem> {
    let (kind, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
    let kind = kind.trim().to_ascii_lowercase();
    if !kind.is_empty() && kind != "application/json" && !(kind.starts_with("application/") && kind.ends_with("+json")) {
        return Err(Problem::new(415, format!("the body is {kind}, but application/json is what is converted")));
    }
    let charset = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
    });
    if let Some(charset) = charset.filter(|charset| !["utf-8", "utf8"].contains(&charset.to_ascii_lowercase().as_str())) {
        return Err(Problem::new(415, format!("the body is in the character set {charset:?}, but JSON is in UTF-8")));
    }
    if let Some(encoding) = encoding.filter(|encoding| !encoding.eq_ignore_ascii_case("identity")) {
        return Err(Problem::new(415, format!("the body is encoded with {encoding:?}: send it as it is")));
    }
    if length.and_then(|length| length.parse::<u64>().ok()).is_some_and(|length| length > u64::from(api.max_request_bytes)) {
        return Err(Problem::new(413, format!("the body is larger than the {} bytes that are taken", api.max_request_bytes)));
    }
    Ok(())
}

fn send_to(path: &str) -> Result<(), Problem> {
    message::rewrite("POST", path).map_err(|error| {
        log::error(&format!("a call of {path} cannot be sent: {error}"));
        Problem::new(500, format!("the route does not let this filter call {path}"))
    })
}

fn rewrite_head(head: &mut Headers<'_>, timeout: Option<&str>) -> Result<(), Problem> {
    let changes = head
        .change()
        .insert("content-type", "application/grpc")
        .insert("grpc-accept-encoding", "identity")
        .remove("accept")
        .remove("accept-encoding")
        .remove("content-encoding")
        .remove("grpc-encoding");
    let changes = match timeout {
        Some(timeout) => changes.insert("grpc-timeout", timeout),
        None => changes.remove("grpc-timeout"),
    };
    changes.apply().map_err(|error| Problem::new(431, format!("the head cannot be converted: {error}")))
}

/// Whether a content type is this one, or one that says more, such as `application/grpc+proto`.
pub(crate) fn is(content_type: &str, kind: &str) -> bool {
    content_type.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
}

/// Header values as text; what is not UTF-8 in them matches nothing.
pub(crate) fn text(value: Vec<u8>) -> String {
    String::from_utf8(value).unwrap_or_else(|odd| String::from_utf8_lossy(odd.as_bytes()).into_owned())
}
