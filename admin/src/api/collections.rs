//! The seven collections, all alike: list, read, put, delete. A plugin differs in what is sent: its module's bytes.

use super::{Limit, Room, Whole, json, page_limit, parameters, read_body, read_json, switch};
use crate::{
    auth::Caller,
    clock,
    control::Control,
    credential::sha256,
    noun::{Entry, Noun},
    problem::Problem,
    store::Row,
    write::{self, Action, Effect, Outcome, Precondition, Write, Written},
};
use axum::{
    Extension,
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use std::sync::Arc;
use tidegate_policy::{
    Mistake, Name,
    plugin::{Digest, Plugin},
    publication::Module,
};

/// An entry of a collection, as it is answered.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Item {
    name: String,
    /// The revision that last changed it; also its entity tag.
    revision: i64,
    created: String,
    updated: String,
    /// The document as it was put; of a credential and a plugin, the facts about it.
    document: serde_json::Value,
}

#[derive(serde::Serialize)]
struct Page {
    items: Vec<Item>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

#[derive(serde::Serialize)]
struct DryRun {
    dry_run: bool,
    outcome: Outcome,
    before: Option<serde_json::Value>,
    after: Option<serde_json::Value>,
}

type Shared = State<Arc<Control>>;
type Named = Result<Path<(String, String)>, PathRejection>;

/// `GET /v1/{collection}`
pub(crate) async fn list(
    State(control): Shared,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Problem> {
    let Path(collection) = path.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let noun = noun(&collection)?;
    let parameters = parameters(&uri, &["limit", "cursor"])?;
    let limit = page_limit(&parameters)?;
    let after = parameters.get("cursor").map_or("", String::as_str);
    // One more than asked for says whether there is another page.
    let rows = control.store.list(noun, after, i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1)).await;
    let mut rows = rows.map_err(|error| Problem::database("read the store", &error))?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.name.clone());
    let items = rows.into_iter().map(item).collect::<Result<_, _>>()?;
    json(StatusCode::OK, &Page { items, next })
}

/// `GET /v1/{collection}/{name}`
pub(crate) async fn read(State(control): Shared, path: Named, headers: HeaderMap) -> Result<Response, Problem> {
    let (noun, name) = named(path)?;
    let row = control.store.row(noun, name.as_str()).await.map_err(|error| Problem::database("read the store", &error))?;
    let row = row.ok_or_else(|| write::absent(noun, name.as_str()))?;
    let matches = |tag: &str| tag == "*" || tag.trim_start_matches("W/") == tag_of(&row);
    if tags(&headers, header::IF_NONE_MATCH).is_some_and(|known| known.split(',').any(|tag| matches(tag.trim()))) {
        return tagged(&row, StatusCode::NOT_MODIFIED.into_response());
    }
    tagged(&row, json(StatusCode::OK, &item(row.clone())?)?)
}

/// `PUT /v1/{collection}/{name}`
pub(crate) async fn put(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    path: Named,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let (noun, name) = named(path)?;
    let effect = effect(&uri)?;
    let precondition = precondition(&headers)?;
    let (entry, room) = match noun {
        Noun::Plugins => read_module(&control, &headers, body).await?,
        _ => {
            let Whole { bytes, room } = read_json(&control, &headers, body).await?;
            (noun.read(&bytes).map_err(Problem::mistakes)?, room)
        }
    };
    let action = Action::Put(entry);
    answer(effect, write::write(control, Write { noun, name, action, precondition, effect, caller, room }).await?)
}

/// `POST /v1/plugins/{name}`: the same as PUT, for those who think of an upload.
pub(crate) async fn upload(
    state: Shared,
    caller: Extension<Caller>,
    path: Named,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    match named(path)? {
        (Noun::Plugins, name) => put(state, caller, Ok(Path(("plugins".to_owned(), name.into()))), uri, headers, body).await,
        _ => Err(Problem::method("GET, HEAD, PUT, DELETE")),
    }
}

/// `DELETE /v1/{collection}/{name}`
pub(crate) async fn delete(
    State(control): Shared,
    Extension(caller): Extension<Caller>,
    path: Named,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (noun, name) = named(path)?;
    let effect = effect(&uri)?;
    let precondition = precondition(&headers)?;
    let write = Write { noun, name, action: Action::Delete, precondition, effect, caller, room: None };
    answer(effect, write::write(control, write).await?)
}

fn noun(collection: &str) -> Result<Noun, Problem> {
    Noun::named(collection).ok_or_else(|| {
        let known = Noun::ALL.map(Noun::as_str).join(", ");
        Problem::new(StatusCode::NOT_FOUND, format!("there is no collection {collection:?}; there are {known}"))
    })
}

fn named(path: Named) -> Result<(Noun, Name), Problem> {
    let Path((collection, name)) = path.map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))?;
    let noun = noun(&collection)?;
    let name = name.parse().map_err(|detail: String| Problem::new(StatusCode::BAD_REQUEST, detail))?;
    Ok((noun, name))
}

fn effect(uri: &Uri) -> Result<Effect, Problem> {
    let dry_run = switch(&parameters(uri, &["dry_run"])?, "dry_run")?;
    Ok(if dry_run { Effect::DryRun } else { Effect::Commit })
}

fn precondition(headers: &HeaderMap) -> Result<Precondition, Problem> {
    match (tags(headers, header::IF_MATCH).as_deref(), tags(headers, header::IF_NONE_MATCH).as_deref()) {
        (None, None) => Ok(Precondition::None),
        (Some("*"), None) => Ok(Precondition::Present),
        (Some(tags), None) => {
            // A weak tag never matches here (RFC 9110 section 13.1.1), and one of another form is none of ours.
            let revision = |tag: &str| tag.trim().trim_matches('"').parse().ok();
            Ok(Precondition::Revisions(tags.split(',').filter_map(revision).collect()))
        }
        (None, Some("*")) => Ok(Precondition::Absent),
        _ => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "a change takes `If-Match: \"<revision>\"` or `If-None-Match: *`, one of them",
        )),
    }
}

/// The field's entity tags; several lines of it are one list (RFC 9110 section 5.2).
fn tags(headers: &HeaderMap, name: header::HeaderName) -> Option<String> {
    let lines: Vec<_> = headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("?").trim()).collect();
    (!lines.is_empty()).then(|| lines.join(","))
}

/// Reads and inspects a module. Any content type but JSON is taken: the bytes themselves say what they are.
async fn read_module(control: &Arc<Control>, headers: &HeaderMap, body: Body) -> Result<(Entry, Room), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("multipart/") || kind.starts_with("application/json") {
        let detail = format!(
            "a plugin is sent as the bytes of its module and the content type is {kind:?}: use curl --data-binary @filter.wasm -H 'content-type: application/wasm'"
        );
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let limit = Limit { bytes: control.settings.module_bytes, setting: "filter_module_bytes" };
    let Whole { bytes, room } = read_body(control, body, limit).await?;
    if bytes.is_empty() {
        return Err(Problem::mistakes(vec![Mistake::at("", "the body is empty: send the bytes of a WebAssembly module")]));
    }
    let plane = Arc::clone(&control.plane);
    let inspecting = tokio::task::spawn_blocking(move || (plane.inspect(&bytes), Digest::new(sha256(&bytes)), bytes));
    let (inspected, digest, bytes) = inspecting.await.map_err(|error| Problem::internal("inspect this module", &error))?;
    let inspection =
        inspected.map_err(|reasons| Problem::mistakes(reasons.into_iter().map(|reason| Mistake::at("", reason)).collect()))?;
    let size_bytes = bytes.len() as u64;
    let plugin = Plugin { digest, size_bytes, world: inspection.world, imports: inspection.imports };
    Ok((Entry::Plugin(Arc::new(plugin), Module::here(digest, &*bytes)), room))
}

fn answer(effect: Effect, written: Written) -> Result<Response, Problem> {
    if effect == Effect::DryRun {
        let document = |row: Option<Row>| row.map(|row| raw(row.document)).transpose();
        let (before, after) = (document(written.before)?, document(written.after)?);
        return json(StatusCode::OK, &DryRun { dry_run: true, outcome: written.outcome, before, after });
    }
    match (written.after, written.outcome) {
        (Some(row), Outcome::Created) => tagged(&row, json(StatusCode::CREATED, &item(row.clone())?)?),
        (Some(row), _) => tagged(&row, json(StatusCode::OK, &item(row.clone())?)?),
        (None, _) => Ok(StatusCode::NO_CONTENT.into_response()),
    }
}

fn item(row: Row) -> Result<Item, Problem> {
    Ok(Item {
        name: row.name,
        revision: row.revision,
        created: clock::rfc3339(row.created_ms),
        updated: clock::rfc3339(row.updated_ms),
        document: raw(row.document)?,
    })
}

fn raw(document: String) -> Result<serde_json::Value, Problem> {
    serde_json::from_str(&document).map_err(|error| Problem::internal("read what is stored", &error))
}

fn tag_of(row: &Row) -> String {
    format!("\"{}\"", row.revision)
}

fn tagged(row: &Row, mut response: Response) -> Result<Response, Problem> {
    let tag = HeaderValue::try_from(tag_of(row)).map_err(|error| Problem::internal("write its answer", &error))?;
    response.headers_mut().insert(header::ETAG, tag);
    Ok(response)
}
