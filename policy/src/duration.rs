//! Durations as operators write them: `"250ms"`, `"10s"`, `"5m"`, `"8h"`, `"7d"`.

use std::{fmt, str::FromStr, time::Duration};

/// A length of time written as a whole number and one unit: `ms`, `s`, `m`, `h` or `d`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(Duration);

impl Span {
    /// `length` as a span; below a millisecond it is cut off when written.
    pub const fn new(length: Duration) -> Self {
        Self(length)
    }

    /// The length.
    pub const fn length(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => 0,
        };
        number
            .parse::<u64>()
            .ok()
            .filter(|_| unit_ms > 0)
            .and_then(|count| count.checked_mul(unit_ms))
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| {
                format!("{text:?} is not a duration: write a whole number and one of ms, s, m, h, d, such as \"250ms\"")
            })
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0.as_millis();
        let (count, unit) = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")]
            .into_iter()
            .find(|(unit_ms, _)| ms > 0 && ms.is_multiple_of(*unit_ms))
            .map_or((ms, "ms"), |(unit_ms, unit)| (ms / unit_ms, unit));
        write!(f, "{count}{unit}")
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
