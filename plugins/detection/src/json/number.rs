//! Numbers of JSON as text (RFC 8259 section 6).

/// Most digits of a number that is written out.
const DIGITS: usize = 32;

/// Sign, whole part, fraction and exponent, where it is a number.
struct Number<'a> {
    whole: &'a str,
    fraction: &'a str,
    exponent: &'a str,
}

fn parts(text: &str) -> Option<Number<'_>> {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) =
        text.split_once(['e', 'E']).map_or((text, None), |(mantissa, exponent)| (mantissa, Some(exponent)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(whole, fraction)| (whole, Some(fraction)));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = exponent.map(|exponent| exponent.strip_prefix(['+', '-']).unwrap_or(exponent));
    let holds = digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && unsigned.is_none_or(digits);
    holds.then_some(Number { whole, fraction: fraction.unwrap_or_default(), exponent: exponent.unwrap_or_default() })
}

/// Whether the text is a number.
pub(super) fn is_number(text: &str) -> bool {
    parts(text).is_some()
}

/// The number's digits without fraction and exponent, where it has one of them and is a whole number all the same.
pub(crate) fn as_integer(text: &str) -> Option<String> {
    let number = parts(text)?;
    if number.fraction.is_empty() && number.exponent.is_empty() {
        return None;
    }
    let exponent: i32 = if number.exponent.is_empty() { 0 } else { number.exponent.parse().ok()? };
    let digits = format!("{}{}", number.whole, number.fraction);
    let point = i32::try_from(number.whole.len()).ok()?.checked_add(exponent)?;
    let point = usize::try_from(point).ok().filter(|point| *point <= DIGITS)?;
    let (whole, beyond) = digits.split_at(point.min(digits.len()));
    let written = format!("{whole:0<point$}");
    let trimmed = written.trim_start_matches('0');
    (beyond.bytes().all(|byte| byte == b'0') && !trimmed.is_empty()).then(|| trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_from_words() {
        for text in ["0", "-1", "10.50", "1e5", "1E+05", "-0.0e-1"] {
            assert!(is_number(text), "{text}");
        }
        for text in ["", "-", "01", "1.", ".5", "1e", "+1", "NaN", "1e5e5", "0x10", "1-2"] {
            assert!(!is_number(text), "{text}");
        }
    }

    #[test]
    fn whole_numbers_are_written_out() {
        for (text, wanted) in [
            ("4.1e3", Some("4100")),
            ("4100.00", Some("4100")),
            ("-41.5e1", Some("415")),
            ("0.0041e6", Some("4100")),
            ("4100e-2", Some("41")),
            ("4100", None),
            ("41.5", None),
            ("0.0", None),
            ("1e400", None),
            ("1e99999999999", None),
        ] {
            assert_eq!(as_integer(text).as_deref(), wanted, "{text}");
        }
    }
}
