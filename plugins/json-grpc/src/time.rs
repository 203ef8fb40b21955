//! `google.protobuf.Timestamp` and `google.protobuf.Duration` as text, both ways: RFC 3339 and seconds with an `s`. Strict, as the
//! JSON mapping has it.

use std::fmt::Write;

/// 0001-01-01T00:00:00Z, the first moment that a Timestamp may say.
const FIRST: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z, the last one.
const LAST: i64 = 253_402_300_799;
/// Ten thousand years, the longest Duration.
const LONGEST: i64 = 315_576_000_000;

/// Seconds and nanoseconds, of a moment (since 1970) or of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanos: i32,
}

/// Reads `2026-11-21T09:12:10.5Z`, or with an offset such as `+01:00`.
pub(crate) fn timestamp(text: &str) -> Option<Time> {
    let mut rest = text.as_bytes();
    let year = digits(&mut rest, 4)?;
    let month = skip(&mut rest, b'-').and_then(|()| digits(&mut rest, 2))?;
    let day = skip(&mut rest, b'-').and_then(|()| digits(&mut rest, 2))?;
    let hour = skip(&mut rest, b'T').and_then(|()| digits(&mut rest, 2))?;
    let minute = skip(&mut rest, b':').and_then(|()| digits(&mut rest, 2))?;
    let second = skip(&mut rest, b':').and_then(|()| digits(&mut rest, 2))?;
    let nanos = if skip(&mut rest, b'.').is_some() { fraction(&mut rest)? } else { 0 };
    let offset = match rest {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), after @ ..] => {
            rest = after;
            let hours = digits(&mut rest, 2)?;
            let minutes = skip(&mut rest, b':').and_then(|()| digits(&mut rest, 2))?;
            if hours > 23 || minutes > 59 || !rest.is_empty() {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days_since_1970(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset;
    (FIRST..=LAST).contains(&seconds).then_some(Time { seconds, nanos })
}

/// Writes a moment, or says that it is none.
pub(crate) fn put_timestamp(out: &mut String, time: Time) -> Result<(), &'static str> {
    if !(FIRST..=LAST).contains(&time.seconds) || !(0..1_000_000_000).contains(&time.nanos) {
        return Err("is outside the years 1 to 9999 that a Timestamp may have");
    }
    let (year, month, day) = date(time.seconds.div_euclid(86_400));
    let second = time.seconds.rem_euclid(86_400);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let written = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}");
    put_fraction(out, time.nanos);
    out.push('Z');
    written.map_err(|_| "cannot be written")
}

/// Reads `3.5s`, `-0.25s`.
pub(crate) fn duration(text: &str) -> Option<Time> {
    let number = text.strip_suffix('s')?;
    let negative = number.starts_with('-');
    let number = number.strip_prefix('-').unwrap_or(number);
    let (seconds, nanos) = match number.split_once('.') {
        None => (number, 0),
        Some((seconds, fraction_digits)) => {
            let mut rest = fraction_digits.as_bytes();
            let nanos = fraction(&mut rest)?;
            if !rest.is_empty() {
                return None;
            }
            (seconds, nanos)
        }
    };
    if seconds.is_empty() || seconds.len() > 12 || !seconds.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = seconds.parse().ok().filter(|seconds| *seconds <= LONGEST)?;
    Some(if negative { Time { seconds: -seconds, nanos: -nanos } } else { Time { seconds, nanos } })
}

/// Writes a span, or says that it is none.
pub(crate) fn put_duration(out: &mut String, time: Time) -> Result<(), &'static str> {
    let one_sign = time.seconds == 0 || time.nanos == 0 || (time.seconds < 0) == (time.nanos < 0);
    if time.seconds.unsigned_abs() > LONGEST as u64 || time.nanos.unsigned_abs() > 999_999_999 || !one_sign {
        return Err("is outside what a Duration may have");
    }
    if time.seconds < 0 || time.nanos < 0 {
        out.push('-');
    }
    let written = write!(out, "{}", time.seconds.unsigned_abs());
    put_fraction(out, time.nanos.abs());
    out.push('s');
    written.map_err(|_| "cannot be written")
}

fn skip(rest: &mut &[u8], expected: u8) -> Option<()> {
    let (first, after) = rest.split_first()?;
    (*first == expected).then(|| *rest = after)
}

fn digits(rest: &mut &[u8], count: usize) -> Option<i64> {
    let (text, after) = rest.split_at_checked(count)?;
    *rest = after;
    text.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

/// One to nine digits after a point, as nanoseconds.
fn fraction(rest: &mut &[u8]) -> Option<i32> {
    let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let value = digits(rest, count)? as i32;
    Some(value * 10i32.pow(9 - count as u32))
}

/// None, three, six or nine digits.
fn put_fraction(out: &mut String, nanos: i32) {
    let text = format!(".{nanos:09}");
    let length = match nanos {
        0 => 0,
        _ if nanos % 1_000_000 == 0 => 4,
        _ if nanos % 1000 == 0 => 7,
        _ => 10,
    };
    out.push_str(&text[..length]);
}

const fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days before this year, counted from the year 1.
const fn days_before_year(year: i64) -> i64 {
    let past = year - 1;
    past * 365 + past.div_euclid(4) - past.div_euclid(100) + past.div_euclid(400)
}

/// Days from the first of January of the year 1 to that of 1970.
const EPOCH: i64 = days_before_year(1970);

fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
    days_before_year(year) - EPOCH + months + day - 1
}

/// Year, month and day of a day since 1970, in the years that a Timestamp may have.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    // Never too late, and at most a year early.
    let mut year = days * 400 / 146_097 + 1;
    if days_before_year(year) > days {
        year -= 1;
    } else if days_before_year(year + 1) <= days {
        year += 1;
    }
    let mut rest = days - days_before_year(year);
    let mut month = 1;
    while rest >= days_of(year, month) {
        rest -= days_of(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(
        put: fn(&mut String, Time) -> Result<(), &'static str>,
        seconds: i64,
        nanos: i32,
    ) -> Result<String, &'static str> {
        let mut out = String::new();
        put(&mut out, Time { seconds, nanos }).map(|()| out)
    }

    #[test]
    fn moments_are_read_and_written() {
        let cases = [
            ("1970-01-01T00:00:00Z", 0, 0),
            ("0001-01-01T00:00:00Z", FIRST, 0),
            ("9999-12-31T23:59:59.999999999Z", LAST, 999_999_999),
            ("2000-02-29T12:00:00Z", 951_825_600, 0),
            ("1969-12-31T23:59:59.500Z", -1, 500_000_000),
            ("2026-11-21T09:12:10.000001Z", 1_795_252_330, 1000),
        ];
        for (text, seconds, nanos) in cases {
            assert_eq!(timestamp(text), Some(Time { seconds, nanos }), "{text}");
            assert_eq!(written(put_timestamp, seconds, nanos).as_deref(), Ok(text));
        }
        assert_eq!(timestamp("1970-01-01T01:30:00+01:30"), Some(Time::default()));
        assert_eq!(timestamp("1969-12-31T23:00:00.1-01:00"), Some(Time { seconds: 0, nanos: 100_000_000 }));
    }

    #[test]
    fn every_day_survives() {
        for day in (FIRST / 86_400)..=(LAST / 86_400) {
            let (year, month, day_of_month) = date(day);
            assert!((1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day_of_month), "{day}");
            assert_eq!(days_since_1970(year, month, day_of_month), day);
        }
    }

    #[test]
    fn what_is_no_moment_is_refused() {
        let cases = [
            "",
            "2026-11-21",
            "2026-11-21T09:12:10",
            "2026-11-21t09:12:10Z",
            "2026-11-21T09:12:10z",
            "2026-11-21 09:12:10Z",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-00T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:60:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00.1234567890Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:59:59-00:01",
            "2026-01-01T00:00:00+24:00",
            "2026-01-01T00:00:00+0100",
            "2026-01-01T00:00:00ZZ",
            "２026-01-01T00:00:00Z",
            "-026-01-01T00:00:00Z",
        ];
        for text in cases {
            assert_eq!(timestamp(text), None, "{text:?}");
        }
        for (seconds, nanos) in [(FIRST - 1, 0), (LAST + 1, 0), (0, -1), (0, 1_000_000_000), (i64::MIN, 0)] {
            assert!(written(put_timestamp, seconds, nanos).is_err(), "{seconds} {nanos}");
        }
    }

    #[test]
    fn spans_are_read_and_written() {
        let cases = [
            ("0s", 0, 0),
            ("1.500s", 1, 500_000_000),
            ("-1.500s", -1, -500_000_000),
            ("-0.000000001s", 0, -1),
            ("315576000000s", LONGEST, 0),
        ];
        for (text, seconds, nanos) in cases {
            assert_eq!(duration(text), Some(Time { seconds, nanos }), "{text}");
            assert_eq!(written(put_duration, seconds, nanos).as_deref(), Ok(text));
        }
        assert_eq!(duration("1.5s"), Some(Time { seconds: 1, nanos: 500_000_000 }));
        for text in ["", "s", "1", "1.s", ".5s", "+1s", "1m", "1 s", "1.5.5s", "315576000001s", "--1s", "1.1234567890s"] {
            assert_eq!(duration(text), None, "{text:?}");
        }
        for (seconds, nanos) in [(1, -1), (-1, 1), (LONGEST + 1, 0), (0, i32::MIN), (i64::MIN, 0)] {
            assert!(written(put_duration, seconds, nanos).is_err(), "{seconds} {nanos}");
        }
    }
}
