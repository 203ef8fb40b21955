//! The first line of the message at hand: method and path of a request, status of a response. It can be changed as long as
//! the head is here: in the callback for the head, and while the head is held.
//!
//! ```
//! # use tidegate_sdk::{*, testing::{Driver, Message}};
//! # struct Example;
//! # impl Filter for Example {
//! #     type Config = (); type State = (); fn new((): ()) -> Result<Self, ConfigError> { Ok(Self) }
//! fn on_request(&self, _: &mut Exchange<()>, _: &mut Headers<'_>, _end: bool) -> Flow {
//!     match message::rewrite(Method::POST, "/v2/orders?dry_run=true") {
//!         Ok(()) => Flow::Proceed,
//!         Err(error) => Flow::Reply(Reply::new(StatusCode::BAD_GATEWAY).details(error.to_string())),
//!     }
//! }
//! # }
//! # let driver = || Driver::<Example>::new(serde_json::json!(null)).unwrap();
//! let driver = driver().grants(serde_json::json!({"paths": ["/v2/*"]}));
//! assert_eq!(driver.exchange().request([]).rewritten(), Some(("POST", "/v2/orders?dry_run=true")));
//! ```

use crate::host;
use std::fmt;

/// Why a first line was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineError {
    /// Not a method, not a path that begins with `/`, not a status of 200 to 599.
    Invalid,
    /// The route's `grants.paths` does not name this path.
    NotPermitted,
    /// The head has gone on, or it is the other kind of message that is at hand.
    TooLate,
}

/// Sends the request on with this method, and this path with its query. The route must grant the path (`grants.paths`).
pub fn rewrite(method: impl AsRef<str>, path_and_query: impl AsRef<str>) -> Result<(), LineError> {
    host::rewrite(method.as_ref(), path_and_query.as_ref())
}

/// Sends the response on with this status: a number, or an [`http::StatusCode`].
pub fn set_status(status: impl Into<u16>) -> Result<(), LineError> {
    host::set_status(status.into())
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Invalid => "the method, path or status is not valid",
            Self::NotPermitted => "the route does not grant this path: name it in grants.paths",
            Self::TooLate => "the head of the message has gone on",
        })
    }
}

impl std::error::Error for LineError {}
