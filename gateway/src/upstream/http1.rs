//! The HTTP/1.1 exchange on an established connection: the seam to the codec.

pub(super) use crate::http::h1::client::{Exchanger, Recycle};
