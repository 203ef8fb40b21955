//! A core module's exports: looked up once for each instance, called with numbers alone.

use super::{
    abi::{self, Abi, case, number, span},
    free_lists::FreeLists,
};
use crate::filter::{
    bindings::tidegate::filter::types::{BodyFlow, Flow, TrailerFlow},
    guest::Handed,
    instance::{Answer, Callback},
    state::State,
};
use wasmtime::{Instance, InstancePre, Result, Store, TypedFunc, WasmParams, WasmResults, bail};

const FLOWS: [Flow; 8] =
    [Flow::Done, Flow::Proceed, Flow::Trailers, Flow::Stream, Flow::Hold, Flow::Buffer, Flow::Reply, Flow::Reset];
const BODY_FLOWS: [BodyFlow; 6] =
    [BodyFlow::Forward, BodyFlow::Hold, BodyFlow::Drop, BodyFlow::SkipRest, BodyFlow::Reply, BodyFlow::Reset];
const TRAILER_FLOWS: [TrailerFlow; 3] = [TrailerFlow::Forward, TrailerFlow::Reply, TrailerFlow::Reset];

/// Exchange, whether there is a head, the head, the body, whether it ends or the trailers.
type Piece = (u32, u32, u32, u32, u32);

/// An instance's exports.
pub(in crate::filter) struct Guest {
    open: TypedFunc<(u32, u64, u32, u32), u32>,
    request_body: TypedFunc<Piece, u32>,
    request_trailers: TypedFunc<Piece, u32>,
    response_headers: TypedFunc<(u32, u32, u32, u32), u32>,
    response_body: TypedFunc<Piece, u32>,
    response_trailers: TypedFunc<Piece, u32>,
    close: TypedFunc<u32, ()>,
}

/// Starts an instance and has it read its configuration; the inner error is what it says against that.
pub(in crate::filter) fn start(
    store: &mut Store<State>,
    ready: &InstancePre<State>,
) -> Result<(Guest, std::result::Result<(), String>)> {
    let instance = ready.instantiate(&mut *store)?;
    let Some(memory) = instance.get_memory(&mut *store, "memory") else { bail!("it exports no memory") };
    let realloc = instance.get_typed_func(&mut *store, "cabi_realloc")?;
    store.data_mut().abi = Abi::new(memory, realloc);
    if let Some(initialize) = instance.get_func(&mut *store, "_initialize") {
        initialize.typed::<(), ()>(&*store)?.call(&mut *store, ())?;
    }
    let guest = Guest::of(store, &instance)?;
    store.data_mut().abi.free_lists = FreeLists::of(store, &instance)?;
    let configured = configure(store, &instance)?;
    Ok((guest, configured))
}

fn export<P: WasmParams, R: WasmResults>(store: &mut Store<State>, instance: &Instance, name: &str) -> Result<TypedFunc<P, R>> {
    instance.get_typed_func(store, &format!("{}#{name}", crate::filter::guest::HANDLER))
}

fn configure(store: &mut Store<State>, instance: &Instance) -> Result<std::result::Result<(), String>> {
    let configure = export::<(), u32>(store, instance, "configure")?;
    let post_return = instance.get_func(&mut *store, &format!("cabi_post_{}#configure", crate::filter::guest::HANDLER));
    let answer = configure.call(&mut *store, ())?;
    let mut lift = abi::answered(store)?;
    let result = lift.record::<12>(answer, 4)?;
    let configured = match number(result, 0) & 0xff {
        0 => Ok(()),
        1 => Err(lift.text(span(result, 4))?.to_owned()),
        _ => bail!("invalid expected discriminant"),
    };
    if let Some(post_return) = post_return {
        let post_return = post_return.typed(&*store)?;
        abi::tidy(store, &post_return, answer)?;
    }
    Ok(configured)
}

impl Guest {
    fn of(store: &mut Store<State>, instance: &Instance) -> Result<Self> {
        Ok(Self {
            open: export(store, instance, "open")?,
            request_body: export(store, instance, "on-request-body")?,
            request_trailers: export(store, instance, "on-request-trailers")?,
            response_headers: export(store, instance, "on-response-headers")?,
            response_body: export(store, instance, "on-response-body")?,
            response_trailers: export(store, instance, "on-response-trailers")?,
            close: export(store, instance, "close")?,
        })
    }

    /// Makes one callback.
    pub(in crate::filter) fn call(&self, store: &mut Store<State>, with: &Handed, callback: Callback) -> Result<Answer> {
        let exchange = with.exchange;
        let (has_head, head) = with.held.map_or((0, 0), |head| (1, head));
        let body = |end: bool| (exchange, has_head, head, with.body, end.into());
        let trailers = (exchange, has_head, head, with.body, with.trailers);
        Ok(match callback {
            Callback::Open { end } => {
                let flow = self.open.call(store, (exchange, with.id, with.head, end.into()))?;
                Answer::Head(case(&FLOWS, flow)?)
            }
            Callback::ResponseHeaders { status, end } => {
                let flow = self.response_headers.call(store, (exchange, status.into(), with.head, end.into()))?;
                Answer::Head(case(&FLOWS, flow)?)
            }
            Callback::RequestBody { end } => Answer::Body(case(&BODY_FLOWS, self.request_body.call(store, body(end))?)?),
            Callback::ResponseBody { end } => Answer::Body(case(&BODY_FLOWS, self.response_body.call(store, body(end))?)?),
            Callback::RequestTrailers => Answer::Trailers(case(&TRAILER_FLOWS, self.request_trailers.call(store, trailers)?)?),
            Callback::ResponseTrailers => {
                Answer::Trailers(case(&TRAILER_FLOWS, self.response_trailers.call(store, trailers)?)?)
            }
            Callback::Close => {
                self.close.call(store, exchange)?;
                Answer::Closed
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_in_the_contracts_order() {
        assert!(FLOWS.iter().zip(0u8..).all(|(flow, number)| *flow as u8 == number));
        assert!(BODY_FLOWS.iter().zip(0u8..).all(|(flow, number)| *flow as u8 == number));
        assert!(TRAILER_FLOWS.iter().zip(0u8..).all(|(flow, number)| *flow as u8 == number));
    }
}
