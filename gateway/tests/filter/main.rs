//! Filters as they are uploaded, run by the host as routes run them.

mod hostile;
mod lifecycle;
mod setting;
mod upload;
