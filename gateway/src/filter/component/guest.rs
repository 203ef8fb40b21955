//! A component's exports: looked up once for each module, called with a store that may suspend or with one that may not.

use crate::filter::{
    bindings::tidegate::filter::types::{BodyFlow, Flow, TrailerFlow},
    guest::{Calls, HANDLER, Handed},
    instance::{Answer, Callback},
    lent::{BodyView, HeadersView},
    state::State,
};
use wasmtime::{
    Result, Store,
    component::{Component, ComponentExportIndex, ComponentNamedList, Instance, InstancePre, Lift, Lower, Resource, TypedFunc},
};

type Headers = Resource<HeadersView>;
type Body = Resource<BodyView>;
type OnBody = TypedFunc<(u32, Option<Headers>, Body, bool), (BodyFlow,)>;
type OnTrailers = TypedFunc<(u32, Option<Headers>, Body, Headers), (TrailerFlow,)>;

/// A component that can be started.
pub(in crate::filter) struct Ready {
    pub(in crate::filter) pre: InstancePre<State>,
    pub(in crate::filter) exports: Exports,
    pub(in crate::filter) calls: Calls,
}

/// Where a component's exports are.
#[derive(Clone, Copy)]
pub(in crate::filter) struct Exports {
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
pub(in crate::filter) struct Guest {
    calls: Calls,
    open: TypedFunc<(u32, u64, Headers, bool), (Flow,)>,
    request_body: OnBody,
    request_trailers: OnTrailers,
    response_headers: TypedFunc<(u32, u16, Headers, bool), (Flow,)>,
    response_body: OnBody,
    response_trailers: OnTrailers,
    close: TypedFunc<(u32,), ()>,
}

/// Starts an instance and has it read its configuration; the inner error is what it says against that.
pub(in crate::filter) async fn start(
    store: &mut Store<State>,
    ready: &Ready,
) -> Result<(Guest, std::result::Result<(), String>)> {
    let instance = match ready.calls {
        Calls::Plain => ready.pre.instantiate(&mut *store)?,
        Calls::Suspending => ready.pre.instantiate_async(&mut *store).await?,
    };
    let guest = Guest::of(store, &instance, ready)?;
    let configure = instance.get_typed_func::<(), (std::result::Result<(), String>,)>(&mut *store, ready.exports.configure)?;
    let (configured,) = match ready.calls {
        Calls::Plain => configure.call(store, ())?,
        Calls::Suspending => configure.call_async(store, ()).await?,
    };
    Ok((guest, configured))
}

impl Exports {
    /// The exports of `component`; an error names the one that is missing.
    pub(in crate::filter) fn of(component: &Component) -> std::result::Result<Self, String> {
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
    fn of(store: &mut Store<State>, instance: &Instance, ready: &Ready) -> Result<Self> {
        let exports = &ready.exports;
        Ok(Self {
            calls: ready.calls,
            open: instance.get_typed_func(&mut *store, exports.open)?,
            request_body: instance.get_typed_func(&mut *store, exports.request_body)?,
            request_trailers: instance.get_typed_func(&mut *store, exports.request_trailers)?,
            response_headers: instance.get_typed_func(&mut *store, exports.response_headers)?,
            response_body: instance.get_typed_func(&mut *store, exports.response_body)?,
            response_trailers: instance.get_typed_func(&mut *store, exports.response_trailers)?,
            close: instance.get_typed_func(&mut *store, exports.close)?,
        })
    }

    /// Makes one callback.
    pub(in crate::filter) async fn call(&self, store: &mut Store<State>, with: &Handed, callback: Callback) -> Result<Answer> {
        match self.calls {
            Calls::Plain => self.call_as::<Plainly>(store, with, callback).await,
            Calls::Suspending => self.call_as::<Suspendably>(store, with, callback).await,
        }
    }

    async fn call_as<E: Enter>(&self, store: &mut Store<State>, with: &Handed, callback: Callback) -> Result<Answer> {
        let exchange = with.exchange;
        let (head, body) = (Resource::new_borrow(with.head), Resource::new_borrow(with.body));
        let held = with.held.map(Resource::new_borrow);
        let trailers = Resource::new_borrow(with.trailers);
        Ok(match callback {
            Callback::Open { end } => {
                let with = (exchange, with.id, head, end);
                Answer::Head(E::enter(store, &self.open, with).await?.0)
            }
            Callback::RequestBody { end } => {
                let with = (exchange, held, body, end);
                Answer::Body(E::enter(store, &self.request_body, with).await?.0)
            }
            Callback::RequestTrailers => {
                let with = (exchange, held, body, trailers);
                Answer::Trailers(E::enter(store, &self.request_trailers, with).await?.0)
            }
            Callback::ResponseHeaders { status, end } => {
                let with = (exchange, status, head, end);
                Answer::Head(E::enter(store, &self.response_headers, with).await?.0)
            }
            Callback::ResponseBody { end } => {
                let with = (exchange, held, body, end);
                Answer::Body(E::enter(store, &self.response_body, with).await?.0)
            }
            Callback::ResponseTrailers => {
                let with = (exchange, held, body, trailers);
                Answer::Trailers(E::enter(store, &self.response_trailers, with).await?.0)
            }
            Callback::Close => {
                E::enter(store, &self.close, (exchange,)).await?;
                Answer::Closed
            }
        })
    }
}

/// How an export is called, by what its store may do.
trait Enter {
    /// Calls an export.
    async fn enter<P, R>(store: &mut Store<State>, function: &TypedFunc<P, R>, with: P) -> Result<R>
    where
        P: ComponentNamedList + Lower + Send + Sync,
        R: ComponentNamedList + Lift + Send + Sync + 'static;
}

/// In a store whose calls never suspend.
struct Plainly;

/// In one whose calls may.
struct Suspendably;

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
