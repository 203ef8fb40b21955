//! A test driver: runs a filter against scripted exchanges, natively, with a host of its own on the test's thread.
//!
//! A test scripts what caller and upstream send, and asks what the other side received ([`Scripted::upstream`],
//! [`Scripted::caller`]) and what the filter left behind. The driver keeps to what the gateway does: what it holds, drops,
//! shows and refuses. Limits on time, memory and size are only in the gateway, and so are its services and credentials:
//! every name that the script grants exists.
//!
//! ```
//! use tidegate_sdk::testing::{Driver, Message};
//! use tidegate_sdk::{Body, BodyFlow, ConfigError, Exchange, Filter, Flow, Headers, StatusCode};
//!
//! /// Writes bodies in capitals.
//! struct Shout;
//!
//! impl Filter for Shout {
//!     type Config = ();
//!     type State = ();
//!
//!     fn new((): ()) -> Result<Self, ConfigError> {
//!         Ok(Self)
//!     }
//!
//!     fn on_response(&self, _: &mut Exchange<()>, _: StatusCode, _: &mut Headers<'_>, _end: bool) -> Flow {
//!         Flow::Stream
//!     }
//!
//!     fn on_response_body(&self, _: &mut Exchange<()>, body: &mut Body<'_>, _end: bool) -> BodyFlow {
//!         let loud = body.bytes().to_ascii_uppercase();
//!         match body.replace(loud) {
//!             Ok(()) => BodyFlow::Forward,
//!             Err(_) => BodyFlow::Reset,
//!         }
//!     }
//! }
//!
//! let driver = Driver::<Shout>::new(serde_json::json!(null)).unwrap();
//! let exchange = driver.exchange().request([]).response(StatusCode::OK, Message::new([]).body(["good ", "morning"]));
//! assert_eq!(exchange.caller().unwrap().body, b"GOOD MORNING");
//! ```

mod direction;
mod exchange;
mod message;

pub use exchange::Scripted;
pub use message::{Chosen, Event, Message, Received, Secret};

use crate::{
    ConfigError, Exchange, Filter, config,
    host::{Answers, Gateway, World},
    outbound::{Answer, Call, CallError},
};
use std::{cell::Cell, rc::Rc, time::Duration};

/// A configured filter, with what outlives its exchanges: metrics, shared values, the clock.
#[derive(Debug)]
pub struct Driver<F: Filter> {
    filter: F,
    next: Cell<u64>,
    gateway: Rc<Gateway>,
}

impl<F: Filter> Driver<F> {
    /// Makes the filter from `config`, as the gateway would.
    pub fn new(config: serde_json::Value) -> Result<Self, ConfigError> {
        let gateway = Rc::new(Gateway::default());
        let mut world = World::of(&gateway);
        let entered = world.enter();
        let filter = config::start(config.to_string().as_bytes())?;
        drop(entered);
        Ok(Self { filter, next: Cell::new(1), gateway })
    }

    /// Grants the filter what its entry in the route does, such as `{"paths": ["/v1/*"], "credentials": ["payments-key"]}`.
    /// Without it nothing is granted.
    ///
    /// # Panics
    /// Where these are not grants, since the script is wrong then.
    #[must_use]
    pub fn grants(self, grants: serde_json::Value) -> Self {
        self.gateway.grants.replace(serde_json::from_value(grants).expect("grants in the script"));
        self
    }

    /// Answers the filter's own calls. Without it no service is registered.
    #[must_use]
    pub fn answers(self, answer: impl Fn(&Call) -> Result<Answer, CallError> + 'static) -> Self {
        self.gateway.answers.replace(Answers(Some(Box::new(answer))));
        self
    }

    /// Shares a value, as if another instance had set it.
    #[must_use]
    pub fn stores(self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.gateway.set(key, value.as_ref(), None);
        self
    }

    /// Begins an exchange. Several may be open at once.
    pub fn exchange(&self) -> Scripted<'_, F> {
        Scripted::begin(self, Exchange::begin(self.next.replace(self.next.get() + 1)))
    }

    /// Lets time pass. The clock begins at 0 and does not move by itself.
    pub fn advance(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.gateway.now_ns.set(self.gateway.now_ns.get().saturating_add(nanoseconds));
    }

    /// The shared value of `key`.
    pub fn stored(&self, key: &str) -> Option<Vec<u8>> {
        self.gateway.get(key).map(|entry| entry.value)
    }

    /// What the counter of this name has come to.
    pub fn counter(&self, name: &str) -> u64 {
        self.gateway.counters.borrow().get(name).copied().unwrap_or_default()
    }

    /// Where the gauge of this name stands.
    pub fn gauge(&self, name: &str) -> i64 {
        self.gateway.gauges.borrow().get(name).copied().unwrap_or_default()
    }

    /// The values that the histogram of this name has counted, in order.
    pub fn histogram(&self, name: &str) -> Vec<u64> {
        self.gateway.histograms.borrow().get(name).cloned().unwrap_or_default()
    }
}
