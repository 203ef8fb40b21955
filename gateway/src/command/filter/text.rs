//! A trial's report for people.

use std::fmt::Write as _;
use tidegate_gateway::trial::{AnsweredBy, Message, Piece, Report};

/// Most bytes of a piece of a body that are shown.
const SHOWN: usize = 400;

/// The report. Writing to a String cannot fail.
pub(super) fn of(report: &Report) -> String {
    let mut text = String::new();
    match &report.upstream {
        Some(message) => told(&mut text, "to the upstream", message),
        None => text.push_str("to the upstream: nothing\n"),
    }
    if let Some(chosen) = &report.chosen {
        chosen_by(&mut text, chosen);
    }
    let whose = match report.answered_by {
        AnsweredBy::Upstream => "to the caller, from the upstream",
        AnsweredBy::Filter => "to the caller, from the filter",
        AnsweredBy::Gateway => "to the caller, from the gateway",
        AnsweredBy::Nobody => "to the caller",
    };
    match &report.caller {
        Some(message) => told(&mut text, whose, message),
        None => text.push_str("to the caller: nothing, the connection is closed\n"),
    }
    if let Some(fault) = &report.fault {
        let _ = writeln!(text, "fault: {}: {}", fault.reason, fault.detail);
    }
    let filter = &report.filter;
    let _ = writeln!(text, "filter: {}, {} µs, {} KiB of memory", filter.outcome, filter.time_us, report.memory_bytes / 1024);
    if let Some(error) = &filter.error {
        let _ = writeln!(text, "  {error}");
    }
    for event in &filter.events {
        let phase = event.fields.get("phase").and_then(serde_json::Value::as_str).unwrap_or_default();
        let _ = writeln!(text, "event at {phase}: {}, {}", event.kind, event.outcome);
        for (name, value) in event.fields.iter().filter(|(name, _)| !matches!(name.as_str(), "at" | "phase")) {
            let _ = writeln!(text, "  {name} = {value}");
        }
    }
    for call in &report.calls {
        let answer = call.status.map_or("no such service is described".to_owned(), |status| status.to_string());
        let _ = writeln!(text, "call: {}: {answer}", call.line);
    }
    for line in &report.log {
        let _ = writeln!(text, "log, {}: {}", line.level, line.message);
    }
    for metric in &report.metrics {
        let _ = writeln!(text, "metric: {} = {}", metric.name, metric.value);
    }
    text
}

fn told(text: &mut String, whose: &str, message: &Message) {
    let _ = writeln!(text, "{whose}: {}", message.line);
    for (name, value) in &message.headers {
        let _ = writeln!(text, "  {name}: {value}");
    }
    for piece in &message.body {
        let _ = writeln!(text, "  body: {}", shown(piece));
    }
    for (name, value) in &message.trailers {
        let _ = writeln!(text, "  trailer {name}: {value}");
    }
    if !message.complete {
        text.push_str("  (broken off here)\n");
    }
}

/// A piece in one line, cut where it is long.
fn shown(piece: &Piece) -> String {
    match piece {
        Piece::Text(piece) => {
            let end = piece.floor_char_boundary(SHOWN.min(piece.len()));
            let rest = piece.len() - end;
            let cut = if rest == 0 { String::new() } else { format!(" and {rest} bytes more") };
            format!("{:?}{cut}", &piece[..end])
        }
        Piece::Binary { bytes, .. } => format!("{bytes} bytes that are no text (--json has them)"),
    }
}

fn chosen_by(text: &mut String, chosen: &tidegate_gateway::upstream::wish::Chosen) {
    if let Some(service) = &chosen.service {
        let _ = writeln!(text, "chosen: the service {service}");
    }
    if let Some(endpoint) = &chosen.endpoint {
        let _ = writeln!(text, "chosen: the endpoint {endpoint}");
    }
    if let Some(tls) = &chosen.tls {
        let tls = serde_json::to_string(tls).unwrap_or_default();
        let _ = writeln!(text, "chosen: TLS as {tls}");
    }
    for secret in &chosen.secrets {
        let _ = writeln!(text, "chosen: the header {}: {}<the secret {}>", secret.header, secret.prefix, secret.credential);
    }
}
