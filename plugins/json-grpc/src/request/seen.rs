//! Which fields of a message a caller has given already: a name that comes twice, or two members of one oneof, would let two
//! readers understand the request differently.

use crate::schema::Field;

/// A set of small numbers.
#[derive(Debug, Default)]
struct Bits {
    first: u64,
    more: Vec<u64>,
}

#[derive(Debug, Default)]
pub(crate) struct Seen {
    fields: Bits,
    oneofs: Bits,
}

impl Seen {
    /// Notes the field at this place of its message, or says why it may not come.
    pub(crate) fn note(&mut self, field: &Field, index: u16) -> Result<(), &'static str> {
        if !self.fields.insert(index) {
            return Err("the field is given twice");
        }
        match field.oneof {
            Some(oneof) if !self.oneofs.insert(oneof) => Err("another field of the same oneof is given too"),
            _ => Ok(()),
        }
    }
}

impl Bits {
    /// Whether the number was new.
    fn insert(&mut self, number: u16) -> bool {
        let word = match usize::from(number / 64) {
            0 => &mut self.first,
            word => {
                if self.more.len() < word {
                    self.more.resize(word, 0);
                }
                &mut self.more[word - 1]
            }
        };
        let bit = 1 << (number % 64);
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_new_once() {
        let mut bits = Bits::default();
        for number in [0, 63, 64, 127, 128, 1000, u16::MAX] {
            assert!(bits.insert(number), "{number}");
            assert!(!bits.insert(number), "{number}");
        }
    }
}
