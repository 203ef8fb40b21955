//! What came of a trial, for people and for programs.

use crate::{
    fault::Fault,
    filter::Host,
    http::body::Body,
    telemetry::page::{Kind, Page},
    upstream::wish::Chosen,
};
use base64::Engine as _;
use http::HeaderMap;
use http_body_util::BodyExt as _;
use tidegate_policy::exchange::FilterFacts;

/// What came of a trial.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    /// What went to the upstream; nothing where the filter, or its failure, ended the exchange before.
    pub upstream: Option<Message>,
    /// What came back to the caller.
    pub caller: Option<Message>,
    /// Whose answer that is.
    pub answered_by: AnsweredBy,
    /// What the filter chose for the way out.
    pub chosen: Option<Chosen>,
    /// Why the exchange ended, where it did not end well.
    pub fault: Option<Ended>,
    /// What the record says of the filter: outcome, time, error and audit events.
    pub filter: FilterFacts<'static>,
    /// The requests of its own that it made.
    pub calls: Vec<Made>,
    /// What it wrote to the log.
    pub log: Vec<Logged>,
    /// What it counted.
    pub metrics: Vec<Metric>,
    /// Bytes of its instance's memory.
    pub memory_bytes: u64,
}

/// Who answered the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredBy {
    /// The upstream; the filter may have changed it.
    Upstream,
    /// The filter, in the upstream's place.
    Filter,
    /// The gateway, because something failed.
    Gateway,
    /// Nobody: the connection is closed.
    Nobody,
}

/// Why an exchange ended.
#[derive(Debug, serde::Serialize)]
pub struct Ended {
    /// The reason, from the closed list.
    pub reason: &'static str,
    /// In a sentence.
    pub detail: String,
}

/// A message as one side received it.
#[derive(Debug, serde::Serialize)]
pub struct Message {
    /// Its first line, without the version.
    pub line: String,
    /// Its fields.
    pub headers: Vec<(String, String)>,
    /// The pieces in which its body came.
    pub body: Vec<Piece>,
    /// Its trailers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<(String, String)>,
    /// Whether it came to its end.
    pub complete: bool,
}

/// A piece of a body.
#[derive(Debug, serde::Serialize)]
#[serde(untagged)]
pub enum Piece {
    /// One that is text.
    Text(String),
    /// Any other.
    Binary {
        /// What it is.
        base64: String,
        /// How many bytes that are.
        bytes: u64,
    },
}

/// A request of the filter's own.
#[derive(Debug, serde::Serialize)]
pub struct Made {
    /// Its first line.
    pub line: String,
    /// The status it was answered with; none where nothing that is described fits.
    pub status: Option<u16>,
}

/// A log message.
#[derive(Debug, serde::Serialize)]
pub struct Logged {
    /// Its level.
    pub level: String,
    /// What it says.
    pub message: String,
}

/// A metric of the filter's own.
#[derive(Debug, serde::Serialize)]
pub struct Metric {
    /// Its name; of a histogram, with `_sum` and `_count`.
    pub name: String,
    /// Its value.
    pub value: f64,
}

impl Report {
    /// Whether the filter failed: trapped, ran out of something, or answered what the gateway does not accept.
    pub fn failed(&self) -> bool {
        matches!(&*self.filter.outcome, "failed" | "skipped")
    }
}

impl Message {
    /// Reads the body to its end; the fault that broke it off, where one did.
    pub(super) async fn read(line: String, headers: &HeaderMap, mut body: Body) -> (Self, Option<Fault>) {
        let mut message = Self { line, headers: pairs(headers), body: Vec::new(), trailers: Vec::new(), complete: false };
        while let Some(frame) = body.frame().await {
            match frame.map(http_body::Frame::into_data) {
                Ok(Ok(data)) if data.is_empty() => {}
                Ok(Ok(data)) => message.body.push(Piece::of(&data)),
                Ok(Err(other)) => message.trailers = other.into_trailers().map(|trailers| pairs(&trailers)).unwrap_or_default(),
                Err(fault) => return (message, Some(fault)),
            }
        }
        message.complete = true;
        (message, None)
    }
}

impl Message {
    /// Bytes of its body.
    pub(super) fn body_bytes(&self) -> u64 {
        self.body.iter().map(Piece::len).sum()
    }
}

impl Piece {
    fn len(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::Binary { bytes, .. } => *bytes,
        }
    }

    fn of(data: &[u8]) -> Self {
        match std::str::from_utf8(data) {
            Ok(text) => Self::Text(text.to_owned()),
            Err(_) => Self::Binary { base64: base64::engine::general_purpose::STANDARD.encode(data), bytes: data.len() as u64 },
        }
    }
}

fn pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())).collect()
}

/// What the filter has counted, from the page that a gateway would show.
pub(super) fn metrics(host: &Host) -> Vec<Metric> {
    let mut page = Page::default();
    host.write(&mut page);
    let own = page.families().iter().filter(|family| family.name.starts_with("tidegate_plugin_"));
    let samples = own.flat_map(|family| family.samples.iter().map(move |sample| (family.kind, sample)));
    let readable = samples.filter(|(kind, sample)| *kind != Kind::Histogram || sample.suffix != "_bucket");
    let named = readable.filter_map(|(_, sample)| {
        let (_, name) = sample.labels.iter().find(|(label, _)| *label == "metric")?;
        Some(Metric { name: format!("{name}{}", sample.suffix), value: sample.value })
    });
    named.collect()
}
