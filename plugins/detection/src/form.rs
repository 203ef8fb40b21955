//! Masks forms that come in chunks (`application/x-www-form-urlencoded`, as the URL standard writes them): each name and each
//! value is decoded for the detectors and masked in place.

use crate::{encoded::Encoded, find::Detectors, mask::Mask};

/// One form in the course of being masked.
#[derive(Debug, Default)]
pub struct FormMasker {
    text: Encoded,
    /// An escape that has begun.
    escape: Vec<u8>,
}

impl FormMasker {
    /// Takes the next bytes and appends to `out` what may go on by now, at most [`crate::LONGEST`] bytes staying behind
    /// (each of which may be written as an escape). With `end` all of it may, and another form may begin.
    pub fn feed(&mut self, detectors: &Detectors, mask: &Mask, bytes: &[u8], end: bool, out: &mut Vec<u8>) {
        let mut rest = bytes;
        while let Some(byte) = rest.first().copied() {
            if !self.escape.is_empty() && byte.is_ascii_hexdigit() {
                self.escape.push(byte);
                self.escaped(detectors, mask, out);
                rest = &rest[1..];
                continue;
            }
            self.literal(detectors, mask, out);
            let length = match byte {
                b'&' | b'=' => {
                    self.text.end(detectors, mask.form(), &[], out);
                    out.push(byte);
                    1
                }
                b'+' => {
                    self.text.decoded(detectors, mask.form(), b"+", b" ", out);
                    1
                }
                b'%' => {
                    self.escape.push(byte);
                    1
                }
                _ => {
                    let special = |byte: &u8| matches!(byte, b'&' | b'=' | b'+' | b'%');
                    let length = rest.iter().position(special).unwrap_or(rest.len());
                    self.text.plain(detectors, mask.form(), &rest[..length], out);
                    length
                }
            };
            rest = &rest[length..];
        }
        if end {
            self.literal(detectors, mask, out);
            self.text.end(detectors, mask.form(), &[], out);
        } else {
            self.text.pause(detectors, mask.form(), out);
        }
    }

    /// How many things each detector has found so far, in the order of [`Detectors::names`].
    pub fn counts(&self) -> &[u32] {
        self.text.counts()
    }

    /// How many bytes are held back.
    pub fn held(&self) -> usize {
        self.text.held() + self.escape.len()
    }

    /// Takes the escape, if it is whole now.
    fn escaped(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        let octet = match self.escape.get(1..).map(std::str::from_utf8) {
            Some(Ok(digits)) if digits.len() == 2 => u8::from_str_radix(digits, 16).ok(),
            _ => None,
        };
        if let Some(octet) = octet {
            self.text.decoded(detectors, mask.form(), &self.escape, &[octet], out);
            self.escape.clear();
        }
    }

    /// An escape that does not go on means itself.
    fn literal(&mut self, detectors: &Detectors, mask: &Mask, out: &mut Vec<u8>) {
        if !self.escape.is_empty() {
            let escape = std::mem::take(&mut self.escape);
            self.text.plain(detectors, mask.form(), &escape, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::find::tests::detectors;
    use serde_json::json;

    #[test]
    fn names_and_values_are_masked_in_place() {
        let detectors = detectors(json!(["card", "email"]));
        let mask = Mask::new("({detector}) é&", &detectors);
        for (form, wanted) in [
            ("email=bob%40example.com&x=%20%C3%A9+1", "email=%28email%29+%C3%A9%26&x=%20%C3%A9+1"),
            ("card=4111+1111%2B&b", "card=4111+1111%2B&b"),
            ("card=4111+1111+1111+1111&b", "card=%28card%29+%C3%A9%26&b"),
            ("%34111111111111111", "%28card%29+%C3%A9%26"),
            ("bob%40example.com=1", "%28email%29+%C3%A9%26=1"),
            ("a=%&b=%4&c=%zz%", "a=%&b=%4&c=%zz%"),
            ("a=4111&b=111111111111", "a=4111&b=111111111111"),
            ("", ""),
        ] {
            let mut out = Vec::new();
            FormMasker::default().feed(&detectors, &mask, form.as_bytes(), true, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), wanted, "{form}");
        }
    }
}
