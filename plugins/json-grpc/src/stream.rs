//! A stream of messages as one JSON body: lines (NDJSON) or the elements of an array. Also, which of them a caller gets.

/// How the messages of a stream are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Format {
    /// A line for each.
    #[default]
    Ndjson,
    /// One array of all.
    Array,
}

impl Format {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Ndjson => "application/x-ndjson",
            Self::Array => "application/json",
        }
    }

    /// What the caller's `Accept` asks for, or the configured one where it asks for neither.
    pub(crate) fn accepted(self, accept: &str) -> Self {
        let mut best = (0.0, self);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let format = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
                "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Self::Ndjson,
                "application/json" => Self::Array,
                "*/*" | "application/*" => self,
                _ => continue,
            };
            let quality = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            let quality = quality.map_or(1.0, |text| text.parse::<f32>().unwrap_or(0.0));
            if quality > best.0 {
                best = (quality, format);
            }
        }
        best.1
    }
}

/// A body that is being written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sequence {
    format: Format,
    begun: bool,
    failed: bool,
}

impl Sequence {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, begun: false, failed: false }
    }

    /// What stands before the next message.
    pub(crate) fn before(&mut self, out: &mut Vec<u8>) {
        if self.format == Format::Array {
            out.push(if self.begun { b',' } else { b'[' });
        }
        self.begun = true;
    }

    /// What stands after a message.
    pub(crate) fn after(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
    }

    /// What stands after the last message, and is all there is when none came.
    pub(crate) fn end(&self, out: &mut Vec<u8>) {
        match (self.format, self.begun) {
            (Format::Ndjson, _) => {}
            (Format::Array, true) => out.extend_from_slice(b"]\n"),
            (Format::Array, false) => out.extend_from_slice(b"[]\n"),
        }
    }

    /// A failure after messages have gone: the last line or element says so, as `{"error": …}`.
    pub(crate) fn fail(&mut self, error: &[u8], out: &mut Vec<u8>) {
        self.before(out);
        out.extend_from_slice(b"{\"error\":");
        out.extend_from_slice(error);
        out.push(b'}');
        self.after(out);
        self.end(out);
        self.failed = true;
    }

    /// Whether the failure has been written, and with it the end.
    pub(crate) const fn has_failed(&self) -> bool {
        self.failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(format: Format, messages: &[&str], error: Option<&str>) -> String {
        let (mut sequence, mut out) = (Sequence::new(format), Vec::new());
        for message in messages {
            sequence.before(&mut out);
            out.extend_from_slice(message.as_bytes());
            sequence.after(&mut out);
        }
        match error {
            Some(error) => sequence.fail(error.as_bytes(), &mut out),
            None => sequence.end(&mut out),
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn messages_are_lines_or_elements() {
        assert_eq!(body(Format::Ndjson, &["{}", "{\"a\":1}"], None), "{}\n{\"a\":1}\n");
        assert_eq!(body(Format::Array, &["{}", "{\"a\":1}"], None), "[{}\n,{\"a\":1}\n]\n");
        assert_eq!(body(Format::Ndjson, &[], None), "");
        assert_eq!(body(Format::Array, &[], None), "[]\n");
        assert_eq!(body(Format::Ndjson, &["{}"], Some("{\"code\":2}")), "{}\n{\"error\":{\"code\":2}}\n");
        assert_eq!(body(Format::Array, &["{}"], Some("{\"code\":2}")), "[{}\n,{\"error\":{\"code\":2}}\n]\n");
        assert_eq!(body(Format::Array, &[], Some("{}")), "[{\"error\":{}}\n]\n");
    }

    #[test]
    fn callers_choose() {
        let cases = [
            ("", Format::Ndjson, Format::Ndjson),
            ("*/*", Format::Array, Format::Array),
            ("application/x-ndjson", Format::Array, Format::Ndjson),
            ("Application/JSON; charset=utf-8", Format::Ndjson, Format::Array),
            ("application/json;q=0.5, application/x-ndjson", Format::Array, Format::Ndjson),
            ("application/x-ndjson;q=0, application/json;q=0.1", Format::Ndjson, Format::Array),
            ("text/html, */*;q=0.8", Format::Array, Format::Array),
            ("text/html", Format::Ndjson, Format::Ndjson),
            ("application/json;q=oops", Format::Ndjson, Format::Ndjson),
        ];
        for (accept, configured, expected) in cases {
            assert_eq!(configured.accepted(accept), expected, "{accept:?}");
        }
    }
}
