//! Write filters for the Tidegate egress gateway.
//!
//! A filter sees the requests and responses of the routes it is put on, as much of them as it asks for: heads, bodies piece by
//! piece or whole, trailers. It may read and change them, answer in the upstream's place, choose where a request goes and how
//! TLS is originated, ask what the gateway knows of the exchange, count, share values, and leave audit events in its record. All of
//! it is one trait, [`Filter`], whose methods have an example each.
//!
//! ```
//! use tidegate_sdk::{ConfigError, Exchange, Filter, Flow, Headers, Reply, StatusCode};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(deny_unknown_fields)]
//! pub struct Config {
//!     /// Callers must name a team.
//!     header: String,
//! }
//!
//! pub struct RequireTeam(Config);
//!
//! impl Filter for RequireTeam {
//!     type Config = Config;
//!     type State = ();
//!
//!     fn new(config: Config) -> Result<Self, ConfigError> {
//!         Ok(Self(config))
//!     }
//!
//!     fn on_request(&self, _: &mut Exchange<()>, headers: &mut Headers<'_>, _end: bool) -> Flow {
//!         if headers.contains(&self.0.header) {
//!             return Flow::Proceed;
//!         }
//!         Flow::Reply(Reply::new(StatusCode::FORBIDDEN).body("name your team").details("no team named"))
//!     }
//! }
//!
//! tidegate_sdk::export!(RequireTeam);
//!
//! // The same filter, natively, without any WebAssembly:
//! use tidegate_sdk::testing::Driver;
//! let driver = Driver::<RequireTeam>::new(serde_json::json!({"header": "x-team"})).unwrap();
//! assert!(driver.exchange().request([]).replied().is_some());
//! assert!(driver.exchange().request([("x-team", "checkout")]).replied().is_none());
//! ```
//!
//! | for | there is |
//! | --- | --- |
//! | the message at hand | [`Headers`], [`Body`], [`Trailers`], [`message`] |
//! | an answer of the filter's own | [`Reply`] |
//! | where the request goes, TLS origination, secrets | [`upstream`] |
//! | what the gateway knows, and what filters tell each other | [`attributes`] |
//! | what is remembered and measured | [`audit`], [`log`], [`metrics`] |
//! | what instances share | [`kv`] |
//! | requests of the filter's own | [`outbound`] |
//!
//! Build it as a `cdylib` with `cargo build --release --target wasm32-unknown-unknown` and upload what cargo made.
//! On every other target the crate is its own small host, so that `cargo test` runs a filter natively: see [`testing`].

/// The README's example is compiled with the others.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

#[cfg(all(target_arch = "wasm32", feature = "allocator"))]
mod allocator;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod bindings;
#[cfg(target_arch = "wasm32")]
#[doc(hidden)]
pub mod glue;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;

pub mod attributes;
pub mod audit;
mod body;
pub mod clock;
mod config;
mod filter;
mod flow;
#[cfg(any(test, all(target_arch = "wasm32", feature = "allocator")))]
mod free_lists;
mod headers;
mod host;
pub mod kv;
pub mod log;
pub mod message;
pub mod metrics;
pub mod outbound;
mod reply;
pub mod upstream;

pub use body::{Body, BodyError, Trailers};
pub use config::{ConfigError, pointer_step};
pub use filter::{Exchange, Filter};
pub use flow::{BodyFlow, Flow, TrailerFlow};
pub use headers::{Changes, HeaderError, Headers};
pub use http::{HeaderName, HeaderValue, Method, StatusCode};
pub use reply::Reply;

/// Random bytes of cryptographic quality, at most 4096.
pub fn random(count: u32) -> Vec<u8> {
    host::random(count)
}

/// Makes a type that implements [`Filter`] the filter of this module. Call it once, at the root of a `cdylib` crate.
#[cfg(target_arch = "wasm32")]
#[macro_export]
macro_rules! export {
    ($filter:ty) => {
        ::std::thread_local! {
            static TIDEGATE_FILTER: $crate::glue::Place<$filter> = const { $crate::glue::Place::new() };
        }
        #[doc(hidden)]
        pub struct TidegateFilter;
        impl $crate::glue::Installed for TidegateFilter {
            type Filter = $filter;
            fn place() -> &'static ::std::thread::LocalKey<$crate::glue::Place<$filter>> {
                &TIDEGATE_FILTER
            }
        }
        #[doc(hidden)]
        pub type TidegateComponent = $crate::glue::Component<TidegateFilter>;
        $crate::bindings::export!(TidegateComponent with_types_in $crate::bindings);
    };
}

/// Makes a type that implements [`Filter`] the filter of this module. Call it once, at the root of a `cdylib` crate.
/// Natively there is nothing to export; the type is only checked.
#[cfg(not(target_arch = "wasm32"))]
#[macro_export]
macro_rules! export {
    ($filter:ty) => {
        const _: () = {
            const fn is_a_filter<F: $crate::Filter>() {}
            is_a_filter::<$filter>()
        };
    };
}
