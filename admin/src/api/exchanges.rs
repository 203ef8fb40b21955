//! `GET /v1/exchanges`: the records, newest first by pages, or as they come (server-sent events).

use super::{json, page_limit, parameters, switch};
use crate::{
    clock,
    control::Control,
    problem::Problem,
    records::{News, Records},
};
use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header},
    response::Response,
};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};
use tidegate_policy::{Reason, exchange::Verdict};
use tokio::{
    sync::{OwnedSemaphorePermit, broadcast, watch},
    time::Instant,
};

/// Bytes of records read for one page. A filter that matches little answers with what was found and a cursor to go on from.
const SCAN_BYTES: usize = 64 << 20;
/// Most batches that are read at once: a page that the newest one fills reads no other, and one that looks for few records among
/// many asks less often.
const READ_AHEAD: u32 = 16;
/// What a batch counts as there that cannot be read: as much as a full one.
const UNREADABLE_BYTES: usize = 256 << 10;
/// Quiet for longer than this, a comment keeps proxies from ending the stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Which records are asked for.
#[derive(Debug, Default)]
struct Filter {
    workload: Option<String>,
    service: Option<String>,
    verdict: Option<Verdict>,
    reason: Option<Reason>,
    since_us: Option<i64>,
    until_us: Option<i64>,
}

/// The parts of a record that a filter looks at.
#[derive(serde::Deserialize)]
struct Seen<'a> {
    #[serde(borrow)]
    time: Cow<'a, str>,
    #[serde(borrow, default)]
    workload: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    service: Option<Cow<'a, str>>,
    #[serde(default)]
    verdict: Option<Verdict>,
    #[serde(default)]
    reason: Option<Reason>,
}

#[derive(serde::Serialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    /// Where to go on; absent when there is nothing older.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// A place in the store: line `line` of batch `batch`, lines counted from its beginning, those before it still to be read.
#[derive(Debug, Clone, Copy)]
struct Place {
    batch: i64,
    line: usize,
}

/// `GET /v1/exchanges`
pub(crate) async fn list(State(control): State<Arc<Control>>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let known = ["workload", "service", "verdict", "reason", "since", "until", "limit", "cursor", "follow"];
    let parameters = parameters(&uri, &known)?;
    let filter = Filter::of(&parameters)?;
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if switch(&parameters, "follow")? || accepted.contains("text/event-stream") {
        return follow(&control, filter);
    }
    let from = match parameters.get("cursor") {
        None => Place { batch: i64::MAX, line: usize::MAX },
        Some(cursor) => place(cursor)?,
    };
    json(StatusCode::OK, &page(&control.records, &filter, from, page_limit(&parameters)?).await?)
}

async fn page(records: &Records, filter: &Filter, from: Place, limit: usize) -> Result<Page, Problem> {
    let between = (filter.since_us.unwrap_or(i64::MIN), filter.until_us.unwrap_or(i64::MAX));
    let mut items = Vec::new();
    let (mut at, mut scanned, mut ahead) = (from, 0, 1);
    loop {
        let batches = records.store.newest(at.batch, between, ahead).await;
        let batches = batches.map_err(|error| Problem::database("read the records", &error))?;
        if batches.is_empty() {
            return Ok(Page { items, next: None });
        }
        for batch in batches {
            let number = batch.number;
            let before = if number == at.batch { at.line } else { usize::MAX };
            let rest = match batch.lines() {
                Ok(lines) => {
                    scanned += lines.len();
                    collect((number, &lines), before, filter, limit, &mut items)
                }
                Err(error) => {
                    scanned += UNREADABLE_BYTES;
                    records.metrics.batches_unreadable.add(1);
                    tracing::error!(number, error, "a batch of exchange records in exchanges.db is damaged and left out");
                    None
                }
            };
            at = rest.unwrap_or(Place { batch: number - 1, line: usize::MAX });
            if rest.is_some() || items.len() == limit || scanned >= SCAN_BYTES {
                let next = (at.batch > 0).then(|| format!("{}.{}", at.batch, at.line));
                return Ok(Page { items, next });
            }
            // Unpacking and looking take a while, and others are answered by the same thread.
            tokio::task::yield_now().await;
        }
        ahead = (ahead * 4).min(READ_AHEAD);
    }
}

/// Adds a batch's matching records before line `before`, newest first; the place to go on from if the page is full first.
fn collect(
    (batch, lines): (i64, &[u8]),
    before: usize,
    filter: &Filter,
    limit: usize,
    items: &mut Vec<Box<RawValue>>,
) -> Option<Place> {
    let lines: Vec<&[u8]> = lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).collect();
    for (index, line) in lines.iter().enumerate().take(before).rev() {
        if !filter.matches(line) {
            continue;
        }
        if let Ok(record) = serde_json::from_slice::<Box<RawValue>>(line) {
            items.push(record);
        }
        if items.len() == limit {
            return (index > 0).then_some(Place { batch, line: index });
        }
    }
    None
}

fn place(cursor: &str) -> Result<Place, Problem> {
    cursor
        .split_once('.')
        .and_then(|(batch, line)| Some(Place { batch: batch.parse().ok()?, line: line.parse().ok()? }))
        .ok_or_else(|| Problem::new(StatusCode::BAD_REQUEST, "the cursor is not one of ours: use `next` of the page before"))
}

impl Filter {
    fn of(parameters: &BTreeMap<String, String>) -> Result<Self, Problem> {
        let time = |name: &str| {
            let parse = |text: &String| {
                clock::parse_rfc3339_us(text).ok_or_else(|| {
                    Problem::new(
                        StatusCode::BAD_REQUEST,
                        format!("{name}={text} is not a time: write it as 2026-01-31T12:00:00Z"),
                    )
                })
            };
            parameters.get(name).map(parse).transpose()
        };
        Ok(Self {
            workload: parameters.get("workload").cloned(),
            service: parameters.get("service").cloned(),
            verdict: word(parameters, "verdict")?,
            reason: word(parameters, "reason")?,
            since_us: time("since")?,
            until_us: time("until")?,
        })
    }

    fn matches(&self, line: &[u8]) -> bool {
        // Text that is nowhere in the line is in none of its fields; this saves reading most lines of a rare match.
        let contains = |text: &Option<String>| {
            text.as_ref().is_none_or(|text| text.contains(['"', '\\']) || memchr::memmem::find(line, text.as_bytes()).is_some())
        };
        if !contains(&self.workload) || !contains(&self.service) {
            return false;
        }
        let Ok(seen) = serde_json::from_slice::<Seen<'_>>(line) else { return false };
        let same = |wanted: &Option<String>, is: &Option<Cow<'_, str>>| wanted.is_none() || wanted.as_deref() == is.as_deref();
        let within = || {
            let time = clock::parse_rfc3339_us(&seen.time).unwrap_or(0);
            self.since_us.is_none_or(|since| since <= time) && self.until_us.is_none_or(|until| time <= until)
        };
        same(&self.workload, &seen.workload)
            && same(&self.service, &seen.service)
            && (self.verdict.is_none() || self.verdict == seen.verdict)
            && (self.reason.is_none() || self.reason == seen.reason)
            && within()
    }
}

fn word<T: serde::de::DeserializeOwned>(parameters: &BTreeMap<String, String>, name: &str) -> Result<Option<T>, Problem> {
    let Some(text) = parameters.get(name) else { return Ok(None) };
    let read = serde_json::from_value(serde_json::Value::String(text.clone()));
    read.map(Some).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("{name}={text}: {error}")))
}

/// A follower and its place.
struct Follower {
    news: broadcast::Receiver<News>,
    stopping: watch::Receiver<bool>,
    filter: Filter,
    records: Arc<Control>,
    /// Records seen or known to be missed so far; none before the first batch.
    next: Option<u64>,
    _permit: OwnedSemaphorePermit,
}

fn follow(control: &Arc<Control>, filter: Filter) -> Result<Response, Problem> {
    let permit = Arc::clone(&control.records.followers).try_acquire_owned().map_err(|_| {
        let detail = format!(
            "{} callers follow the records already; the setting exchange_followers allows more",
            control.settings.exchange_followers
        );
        Problem::new(StatusCode::TOO_MANY_REQUESTS, detail)
    })?;
    let follower = Follower {
        news: control.records.follow(),
        stopping: control.stopping.subscribe(),
        filter,
        records: Arc::clone(control),
        next: None,
        _permit: permit,
    };
    // A first piece at once tells the caller that it is following.
    let first = futures_util::stream::iter([Ok::<_, std::convert::Infallible>(Bytes::from_static(b": following\n\n"))]);
    let rest = futures_util::stream::unfold(follower, |mut follower| async move {
        let piece = follower.piece().await?;
        Some((Ok(piece), follower))
    });
    let mut response = Response::new(Body::from_stream(futures_util::StreamExt::chain(first, rest)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

impl Follower {
    /// The next piece of the stream; `None` at its end.
    async fn piece(&mut self) -> Option<Bytes> {
        let quiet = Instant::now() + KEEP_ALIVE;
        loop {
            let news = tokio::select! {
                news = self.news.recv() => news,
                _ = self.stopping.wait_for(|stopping| *stopping) => return None,
                () = tokio::time::sleep_until(quiet) => return Some(Bytes::from_static(b": still here\n\n")),
            };
            match news {
                Ok(news) => {
                    let piece = self.written(&news);
                    if !piece.is_empty() {
                        return Some(Bytes::from(piece));
                    }
                }
                // How many records that were is known with the next batch.
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    fn written(&mut self, news: &News) -> Vec<u8> {
        let mut piece = Vec::new();
        let missed = self.next.map_or(0, |next| news.before.saturating_sub(next));
        if missed > 0 {
            self.records.metrics.records_missed.add(missed);
            piece.extend_from_slice(format!("event: missed\ndata: {{\"records\":{missed}}}\n\n").as_bytes());
        }
        self.next = Some(news.before + u64::from(news.batch.count));
        for line in news.batch.lines.split(|&byte| byte == b'\n').filter(|line| !line.is_empty() && self.filter.matches(line)) {
            piece.extend_from_slice(b"event: exchange\ndata: ");
            piece.extend_from_slice(line);
            piece.extend_from_slice(b"\n\n");
        }
        piece
    }
}
