//! A filter's exports: looked up once for each module, called with a store that may suspend or with one that may not.

use super::{
    bindings::tidegate::filter::types::{BodyFlow, Flow, TrailerFlow},
    lent::{BodyView, HeadersView},
    state::State,
};
use wasmtime::{
    Result, Store,
    component::{Component, ComponentExportIndex, ComponentNamedList, Instance, Lift, Lower, Resource, TypedFunc},
};

/// What a filter exports.
pub(super) const HANDLER: &str = "tidegate:filter/handler@0.1.0";

type Headers = Resource<HeadersView>;
type Body = Resource<BodyView>;
type OnBody = TypedFunc<(u32, Option<Headers>, Body, bool), (BodyFlow,)>;
type OnTrailers = TypedFunc<(u32, Option<Headers>, Body, Headers), (TrailerFlow,)>;

/// Where a module's exports are.
#[derive(Clone, Copy)]
pub(super) struct Exports {
    configure: ComponentExportIndex,
    open: ComponentExportIndex,
    request_body: ComponentExportIndex,
    request_trailers: ComponentExportIndex,
    response_headers: ComponentExportIndex,
    response_body: ComponentExportIndex,
    response_trailers: ComponentExportIndex,
    close: ComponentExportIndex,
}

/// An instance's exports.
pub(super) struct Guest {
    pub(super) configure: TypedFunc<(), (Result<(), String>,)>,
    pub(super) open: TypedFunc<(u32, u64, Headers, bool), (Flow,)>,
    pub(super) request_body: OnBody,
    pub(super) request_trailers: OnTrailers,
    pub(super) response_headers: TypedFunc<(u32, u16, Headers, bool), (Flow,)>,
    pub(super) response_body: OnBody,
    pub(super) response_trailers: OnTrailers,
    pub(super) close: TypedFunc<(u32,), ()>,
}

/// Whether an instance's calls may suspend. That is a property of its store, which wasmtime enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Calls {
    Plain,
    Suspending,
}

impl Exports {
    /// The exports of `component`; an error names the one that is missing.
    pub(super) fn of(component: &Component) -> Result<Self, String> {
        let handler = component.get_export_index(None, HANDLER).ok_or_else(|| missing(HANDLER))?;
        let function = |name: &str| component.get_export_index(Some(&handler), name).ok_or_else(|| missing(name));
        Ok(Self {
            configure: function("configure")?,
            open: function("open")?,
            request_body: function("on-request-body")?,
            request_trailers: function("on-request-trailers")?,
            response_headers: function("on-response-headers")?,
            response_body: function("on-response-body")?,
            response_trailers: function("on-response-trailers")?,
            close: function("close")?,
        })
    }
}

fn missing(name: &str) -> String {
    format!("it does not export {name} of {HANDLER}; rebuild it with this gateway's sdk/wit")
}

impl Guest {
    /// The exports of `instance`; an error where they are of another type.
    pub(super) fn of(store: &mut Store<State>, instance: &Instance, exports: &Exports) -> Result<Self> {
        Ok(Self {
            configure: instance.get_typed_func(&mut *store, exports.configure)?,
            open: instance.get_typed_func(&mut *store, exports.open)?,
            request_body: instance.get_typed_func(&mut *store, exports.request_body)?,
            request_trailers: instance.get_typed_func(&mut *store, exports.request_trailers)?,
            response_headers: instance.get_typed_func(&mut *store, exports.response_headers)?,
            response_body: instance.get_typed_func(&mut *store, exports.response_body)?,
            response_trailers: instance.get_typed_func(&mut *store, exports.response_trailers)?,
            close: instance.get_typed_func(&mut *store, exports.close)?,
        })
    }
}

/// How an export is called, by what its store may do.
pub(super) trait Enter {
    /// Calls an export.
    async fn enter<P, R>(store: &mut Store<State>, function: &TypedFunc<P, R>, with: P) -> Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static;
}

/// In a store whose calls never suspend.
pub(super) struct Plainly;

/// In one whose calls may.
pub(super) struct Suspendably;

impl Enter for Plainly {
    async fn enter<P, R>(store: &mut Store<State>, function: &TypedFunc<P, R>, with: P) -> Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        function.call(store, with)
    }
}

impl Enter for Suspendably {
    async fn enter<P, R>(store: &mut Store<State>, function: &TypedFunc<P, R>, with: P) -> Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        function.call_async(store, with).await
    }
}
