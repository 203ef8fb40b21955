//! Finds what should not leave or enter: payment cards, e-mail addresses, keys, and whatever an operator describes.
//!
//! Pure: it knows nothing of exchanges, and never keeps or hands out what it found, only which detector found it and where.
//! A detector decides on a bounded number of bytes, so that a stream is held back by no more than that, and what is found
//! never depends on how the stream was cut into chunks.

mod bytes;
mod card;
mod email;
mod encoded;
mod find;
mod form;
mod json;
mod keys;
mod mask;
mod pattern;
mod scanner;
mod setting;
mod steps;
mod text;
mod value;

pub use find::{Detectors, LONGEST};
pub use form::FormMasker;
pub use json::{JsonMasker, JsonWalk, Kind, NotJson, Visitor};
pub use mask::Mask;
pub use setting::Setting;
pub use text::TextMasker;
