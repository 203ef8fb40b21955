//! How long a call may take: from the configuration, from a header of the caller's, from the caller's own `grpc-timeout`; and what
//! the API is told of it.

use std::time::Duration;

/// What the configuration says of deadlines.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Deadlines {
    /// Where the caller names none.
    pub(crate) default: Option<Duration>,
    /// The most that a caller gets.
    pub(crate) max: Option<Duration>,
    /// The header with which callers of REST say it.
    pub(crate) header: Option<Box<str>>,
}

impl Deadlines {
    /// The value of `grpc-timeout` for the API, nothing where nobody asks for one. The caller's header counts before the caller's
    /// `grpc-timeout`; the error says which of them cannot be read.
    pub(crate) fn timeout(&self, header: Option<&str>, grpc_timeout: Option<&str>) -> Result<Option<String>, String> {
        let asked = match (header, grpc_timeout) {
            (Some(text), _) => {
                let name = self.header.as_deref().unwrap_or_default();
                Some(
                    read(text)
                        .ok_or_else(|| format!("{name}: {text:?} is not a duration such as \"250ms\", \"2.5s\" or \"2m\""))?,
                )
            }
            (None, Some(text)) => Some(
                read_grpc(text)
                    .ok_or_else(|| format!("grpc-timeout: {text:?} is not a timeout such as \"250m\" or \"10S\""))?,
            ),
            (None, None) => self.default,
        };
        let least = asked.into_iter().chain(self.max).min();
        Ok(least.map(write_grpc))
    }
}

/// Reads `250ms`, `2.5s`, `2m`, `1h`.
pub(crate) fn read(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit = text.find(|character: char| !character.is_ascii_digit() && character != '.')?;
    let (number, unit) = text.split_at(unit);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || whole.len() > 12 || fraction.len() > 9 || fraction.contains('.') || number.ends_with('.') {
        return None;
    }
    let nanos_of_unit: u64 = match unit {
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    // In 128 bits, where nine digits of an hour's nanoseconds fit.
    let nanos: u128 = format!("{whole}{fraction}").parse().ok()?;
    let nanos = nanos * u128::from(nanos_of_unit) / 10u128.pow(fraction.len() as u32);
    u64::try_from(nanos).ok().map(Duration::from_nanos)
}

/// Reads what gRPC has: at most eight digits and a unit.
fn read_grpc(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// Writes it in the coarsest unit that says it exactly, else in the finest that eight digits hold, rounded up: a deadline must not
/// end before its time.
fn write_grpc(duration: Duration) -> String {
    const LIMIT: u128 = 100_000_000;
    const UNITS: [(u128, char); 6] =
        [(3_600_000_000_000, 'H'), (60_000_000_000, 'M'), (1_000_000_000, 'S'), (1_000_000, 'm'), (1000, 'u'), (1, 'n')];
    let nanos = duration.as_nanos();
    let fits = |(size, _): &(u128, char)| nanos.div_ceil(*size) < LIMIT;
    // Servers and logs know seconds better than minutes and hours.
    let exact = UNITS[2..].iter().filter(|unit| fits(unit)).find(|(size, _)| nanos.is_multiple_of(*size));
    match exact.or_else(|| UNITS.iter().rev().find(|unit| fits(unit))) {
        Some((size, unit)) => format!("{}{unit}", nanos.div_ceil(*size)),
        None => format!("{}H", LIMIT - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let cases = [
            ("250ms", 250_000_000),
            ("2.5s", 2_500_000_000),
            (" 2m ", 120_000_000_000),
            ("0.5h", 1_800_000_000_000),
            ("0s", 0),
            ("1.000001s", 1_000_001_000),
        ];
        for (text, nanos) in cases {
            assert_eq!(read(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in ["", "5", "s", ".5s", "5.s", "1.2.3s", "-1s", "5 s", "5d", "1e3s", "999999999999h", "1S"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        for (text, expected) in [("10S", 10_000), ("250m", 250), ("99999999n", 99), ("2M", 120_000), ("1H", 3_600_000)] {
            assert_eq!(read_grpc(text).map(|duration| duration.as_millis()), Some(expected), "{text}");
        }
        for text in ["", "S", "10", "10s", "123456789m", "-1S", "1.5S", "１S"] {
            assert_eq!(read_grpc(text), None, "{text:?}");
        }
    }

    #[test]
    fn the_plainest_unit_is_written() {
        let cases = [
            (Duration::ZERO, "0S"),
            (Duration::from_millis(250), "250m"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_secs(10), "10S"),
            (Duration::from_secs(100), "100S"),
            (Duration::from_nanos(1_000_001), "1000001n"),
            (Duration::from_nanos(100_000_000_001), "100001m"),
            (Duration::from_secs(3600 * 24 * 365 * 300), "2628000H"),
        ];
        for (duration, expected) in cases {
            assert_eq!(write_grpc(duration), expected);
        }
    }

    #[test]
    fn callers_get_no_more_than_the_most() {
        let deadlines = Deadlines {
            default: Some(Duration::from_secs(5)),
            max: Some(Duration::from_secs(20)),
            header: Some("x-timeout".into()),
        };
        let cases = [
            (None, None, "5S"),
            (Some("1s"), None, "1S"),
            (None, Some("2S"), "2S"),
            (Some("1s"), Some("2S"), "1S"),
            (Some("1h"), None, "20S"),
            (None, Some("1H"), "20S"),
        ];
        for (header, grpc, expected) in cases {
            assert_eq!(deadlines.timeout(header, grpc), Ok(Some(expected.to_owned())), "{header:?} {grpc:?}");
        }
        assert!(deadlines.timeout(Some("soon"), None).unwrap_err().starts_with("x-timeout: \"soon\" is not"));
        assert!(deadlines.timeout(None, Some("soon")).unwrap_err().starts_with("grpc-timeout: "));
        assert_eq!(Deadlines::default().timeout(None, None), Ok(None));
        let capped = Deadlines { max: Some(Duration::from_secs(1)), ..Deadlines::default() };
        assert_eq!(capped.timeout(None, None), Ok(Some("1S".to_owned())), "a most is one for those too who ask for nothing");
    }
}
