//! Masks a JSON value that is already read.

use crate::{
    find::{Detectors, Progress},
    json::as_integer,
    mask::Mask,
};
use serde_json::Value;
use std::borrow::Cow;

impl Detectors {
    /// Masks every string and number of the value, at any depth; keys stay as they are.
    pub fn mask_value(&self, mask: &Mask, value: &mut Value) {
        match value {
            Value::Null | Value::Bool(_) => {}
            Value::String(text) => {
                if let Cow::Owned(masked) = self.masked(mask, text) {
                    *text = masked;
                }
            }
            Value::Number(number) => {
                if let Some(detector) = self.first_in_number(&mut Progress::default(), &number.to_string()) {
                    *value = Value::from(mask.text(detector));
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.mask_value(mask, value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.mask_value(mask, value)),
        }
    }

    /// The detector that finds something in a number, however it is written: `4.111111111111111e15` is a card number too.
    pub(crate) fn first_in_number(&self, progress: &mut Progress, number: &str) -> Option<usize> {
        self.first_by(progress, number).or_else(|| self.first_by(progress, &as_integer(number)?))
    }
}
