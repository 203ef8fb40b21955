//! Payment card numbers: 13 to 19 digits whose last one is the check digit of the others (ISO/IEC 7812-1, annex B).

use crate::{bytes::after, find::At};

/// Fewest and most digits of a card number.
const DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
/// Fewest digits between two separators: issuers group by four and more, dates and clocks by two.
const GROUP: usize = 3;

/// Bytes that a card number can begin with. No issuer has 0; 1 is what timestamps begin with, and the issuers that have it
/// (air travel) print no card numbers of their own any more.
pub(crate) const fn begins(byte: u8) -> bool {
    matches!(byte, b'2'..=b'9')
}

/// Whether a card number begins at `at`.
pub(crate) fn at(text: &[u8], at: usize, end: bool) -> At {
    // Inside a longer number, a word such as a hash, or behind a decimal point it is none.
    let fraction = after(text, at, |byte| byte == b'.') && after(text, at - 1, |byte| byte.is_ascii_digit());
    if after(text, at, |byte| byte.is_ascii_alphanumeric()) || fraction {
        return At::Nothing;
    }
    let mut digits = [0_u8; 19];
    let mut count = 0;
    let mut group = 0;
    let mut found = At::Nothing;
    let mut position = at;
    loop {
        match text.get(position) {
            Some(byte) if byte.is_ascii_digit() => {
                if count == digits.len() {
                    return found;
                }
                digits[count] = byte - b'0';
                count += 1;
                group += 1;
                position += 1;
            }
            None if !end => return At::Incomplete,
            next => {
                let closed = match ends(text, position, next.copied(), end) {
                    Some(closed) => closed,
                    None => return At::Incomplete,
                };
                if closed && DIGITS.contains(&count) && holds(&digits[..count]) {
                    found = At::Found { span: at..position, tail: None };
                }
                let separated = matches!(next, Some(b' ' | b'-')) && group >= GROUP;
                match text.get(position + 1) {
                    Some(byte) if separated && byte.is_ascii_digit() => position += 1,
                    None if separated && !end => return At::Incomplete,
                    _ => return found,
                }
                group = 0;
            }
        }
    }
}

/// Whether a number that ends before `position` ends there as a card number does: no letter follows, and no decimals.
/// `None` where that cannot be said yet.
fn ends(text: &[u8], position: usize, next: Option<u8>, end: bool) -> Option<bool> {
    match next {
        Some(b'.') => match text.get(position + 1) {
            Some(byte) => Some(!byte.is_ascii_digit()),
            None if end => Some(true),
            None => None,
        },
        Some(byte) => Some(!byte.is_ascii_alphanumeric()),
        None => Some(true),
    }
}

/// The check of Luhn.
fn holds(digits: &[u8]) -> bool {
    let doubled = |digit: u8| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| u32::from(if index % 2 == 1 { doubled(*digit) } else { *digit }))
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use crate::find::tests::found;

    #[test]
    fn card_numbers_are_found() {
        for (text, card) in [
            ("4111111111111111", "4111111111111111"),
            ("pay 4111 1111 1111 1111 now", "4111 1111 1111 1111"),
            ("5555-5555-5555-4444.", "5555-5555-5555-4444"),
            ("amex 3782 822463 10005", "3782 822463 10005"),
            ("(4222222222222)", "4222222222222"),
            ("6304000000000000 0", "6304000000000000 0"),
            ("4111111111111111 12", "4111111111111111"),
            ("expires 1229 card 4111 1111 1111 1111 123", "4111 1111 1111 1111"),
            ("1234 4111111111111111", "4111111111111111"),
            ("id_4111111111111111", "4111111111111111"),
            ("-4111111111111111", "4111111111111111"),
        ] {
            assert_eq!(found("card", text), [card], "{text}");
        }
    }

    #[test]
    fn numbers_that_are_no_cards_are_left_alone() {
        for text in [
            "4111111111111112",
            "41111111111111111111",
            "0000000000000000",
            "1763716325001",
            "0.4111111111111111",
            "4111111111111111.25",
            "a4111111111111111",
            "4111111111111111f",
            "2025-11-21-09-12-33-123",
            "411111111111",
            "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
            "4111  1111  1111  1111",
        ] {
            assert!(found("card", text).is_empty(), "{text}");
        }
    }

    #[test]
    fn two_cards_are_two() {
        assert_eq!(found("card", "4111111111111111 5555555555554444"), ["4111111111111111", "5555555555554444"]);
        assert_eq!(found("card", "4111111111111111,5555555555554444").len(), 2);
    }
}
