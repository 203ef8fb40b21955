//! The API's handlers, one file for each noun, and how requests are read.

pub(crate) mod collections;
pub(crate) mod docs;
pub(crate) mod exchanges;
pub(crate) mod explain;
pub(crate) mod status;

use crate::{control::Control, problem::Problem};
use axum::{
    body::Body,
    extract::Query,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a body may be, and how large.
struct Limit {
    bytes: usize,
    setting: &'static str,
}

/// Most bytes beyond the limit that are read and thrown away. A caller that is still sending when it is refused sees a
/// broken connection and not the reason, so an upload that is only somewhat too large is heard out.
const DISCARDED_BYTES: usize = 128 << 20;

/// A part of what the bodies of all requests may take together, held as long as this is there.
type Room = Option<OwnedSemaphorePermit>;

/// A body that was read.
struct Whole {
    bytes: Bytes,
    room: Room,
}

/// A body as far as it is read.
#[derive(Default)]
struct Kept {
    bytes: BytesMut,
    room: Room,
}

/// Why a body was not kept.
enum Refused {
    TooLarge,
    NoRoom,
    Broken,
}

/// Reads a whole body within its limits of size and time.
async fn read_body(control: &Control, body: Body, limit: Limit) -> Result<Whole, Problem> {
    let collecting = collect(body, limit.bytes, &control.bodies);
    match tokio::time::timeout(control.settings.api_body_timeout, collecting).await {
        Ok(Ok(whole)) => Ok(whole),
        Ok(Err(Refused::TooLarge)) => {
            let detail = format!("the body is larger than {} bytes; the setting {} allows more", limit.bytes, limit.setting);
            Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail))
        }
        Ok(Err(Refused::NoRoom)) => {
            control.metrics.bodies_refused.add(1);
            let detail =
                "the bodies of other requests take all the memory there is for them (setting api_body_bytes); try again";
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
        Ok(Err(Refused::Broken)) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body ended before its announced length")),
        Err(_) => {
            let detail = "the body did not arrive in time; the setting api_body_timeout allows more";
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

/// The body's bytes, at most so many, where there is room for them.
async fn collect(mut body: Body, most: usize, bodies: &Arc<Semaphore>) -> Result<Whole, Refused> {
    let (mut kept, mut refused, mut discarded) = (Kept::default(), None, 0);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Refused::Broken)?.into_data() else { continue };
        if refused.is_none() {
            refused = kept.add(&data, most, bodies).err();
        }
        if refused.is_some() {
            kept = Kept::default();
            discarded += data.len();
        }
        if discarded > DISCARDED_BYTES {
            break;
        }
    }
    match refused {
        Some(refused) => Err(refused),
        None => Ok(Whole { bytes: kept.bytes.freeze(), room: kept.room }),
    }
}

impl Kept {
    fn add(&mut self, data: &[u8], most: usize, bodies: &Arc<Semaphore>) -> Result<(), Refused> {
        if data.len() > most - self.bytes.len() {
            return Err(Refused::TooLarge);
        }
        let more = u32::try_from(data.len()).map_err(|_| Refused::TooLarge)?;
        let more = Arc::clone(bodies).try_acquire_many_owned(more).map_err(|_| Refused::NoRoom)?;
        match &mut self.room {
            Some(room) => room.merge(more),
            None => self.room = Some(more),
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
}

/// Reads a JSON body. One without a content type is taken for JSON.
async fn read_json(control: &Control, headers: &HeaderMap, body: Body) -> Result<Whole, Problem> {
    let kind = headers.get(header::CONTENT_TYPE).map_or("application/json", |kind| kind.to_str().unwrap_or("?"));
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if essence != "application/json" && !(essence.starts_with("application/") && essence.ends_with("+json")) {
        let detail = format!(
            "a JSON document is needed and the content type is {kind:?}: send `content-type: application/json` (curl: --json, or -H 'content-type: application/json')"
        );
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let limit = Limit { bytes: control.settings.document_bytes, setting: "document_bytes" };
    read_body(control, body, limit).await
}

/// The query's parameters; one that is not `known`, or stands twice, is refused.
fn parameters(uri: &Uri, known: &[&str]) -> Result<BTreeMap<String, String>, Problem> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("the query cannot be read: {error}")))?;
    let mut parameters = BTreeMap::new();
    for (name, value) in pairs {
        if !known.contains(&name.as_str()) {
            let detail = format!("the query parameter {name:?} is not known here; known are {}", known.join(", "));
            return Err(Problem::new(StatusCode::BAD_REQUEST, detail));
        }
        if parameters.insert(name.clone(), value).is_some() {
            return Err(Problem::new(StatusCode::BAD_REQUEST, format!("the query parameter {name:?} stands twice: keep one")));
        }
    }
    Ok(parameters)
}

/// How many items a page may have.
fn page_limit(parameters: &BTreeMap<String, String>) -> Result<usize, Problem> {
    let Some(text) = parameters.get("limit") else { return Ok(DEFAULT_PAGE) };
    text.parse()
        .ok()
        .filter(|limit| (1..=MAX_PAGE).contains(limit))
        .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, format!("limit={text} is not a page size: give 1 to {MAX_PAGE}")))
}

/// A page that is read at a glance, and one that is still answered at once.
const DEFAULT_PAGE: usize = 100;
const MAX_PAGE: usize = 1000;

/// Whether a parameter that is a switch is on.
fn switch(parameters: &BTreeMap<String, String>, name: &str) -> Result<bool, Problem> {
    match parameters.get(name).map(String::as_str) {
        None | Some("false" | "0") => Ok(false),
        Some("true" | "1" | "") => Ok(true),
        Some(other) => Err(Problem::new(StatusCode::BAD_REQUEST, format!("{name}={other} is neither true nor false"))),
    }
}

/// An answer in JSON, indented for the people who read it, with a final newline.
fn json(status: StatusCode, value: &impl serde::Serialize) -> Result<Response, Problem> {
    let mut text = serde_json::to_string_pretty(value).map_err(|error| Problem::internal("write its answer", &error))?;
    text.push('\n');
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
