//! From uploaded bytes to a Proxy-Wasm module that can be run, or every reason why it cannot.

use super::{
    abi::Version,
    guest::{self, MARKER},
    host::{self, Offered},
    memory::Call,
    seat::Wants,
    state::State,
};
use crate::filter::{
    inspect::{Inspection, line},
    message::Kind,
};
use std::collections::BTreeSet;
use tidegate_policy::route::Traffic;
use wasmparser::{Parser, Payload};
use wasmtime::{Engine, ExternType, FuncType, InstancePre, Linker, Module, Val, ValType};

/// What the guest is told by functions of WASI that no filter needs: that they are not there.
const NOT_THERE: i32 = 52;

/// A module that can be run.
pub(in crate::filter) struct Ready {
    pub(super) version: Version,
    pub(super) pre: InstancePre<State>,
    /// What it wants to see of each direction.
    pub(super) request: Wants,
    pub(super) response: Wants,
    /// Which callbacks it has, those of requests and those of tunnels.
    heard: (bool, bool),
}

impl Ready {
    /// Whether it can be shown this traffic at all, and why not.
    pub(in crate::filter) fn serves(&self, traffic: Traffic) -> Result<(), String> {
        match (traffic, self.heard) {
            (Traffic::Tunnels | Traffic::Both, (_, false)) => Err("it has no callbacks for tunnels, such as \
                proxy_on_downstream_data: leave traffic out of the filter's entry"
                .to_owned()),
            (Traffic::Requests, (false, true)) => {
                Err("all its callbacks are for tunnels: set \"traffic\": \"tunnels\" in the filter's entry".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// What modules are linked to.
pub(in crate::filter) struct Linkage(Offered);

/// Whether these bytes, which are a core module's, are a Proxy-Wasm module: by what they export.
pub(in crate::filter) fn is_one(bytes: &[u8]) -> bool {
    let sections = Parser::new(0).parse_all(bytes).map_while(Result::ok);
    let mut exports = sections.filter_map(|payload| match payload {
        Payload::ExportSection(exports) => Some(exports),
        _ => None,
    });
    exports.any(|section| section.into_iter().flatten().any(|export| export.name.starts_with(MARKER)))
}

/// Whether this module, which was compiled before, is one.
pub(in crate::filter) fn is_compiled(module: &Module) -> bool {
    module.exports().any(|export| export.name().starts_with(MARKER))
}

impl Linkage {
    pub(in crate::filter) fn new(engine: &Engine) -> wasmtime::Result<Self> {
        Offered::all(engine).map(Self)
    }

    /// Looks whether `module` fits the host, and links it.
    pub(in crate::filter) fn ready(&self, module: &Module) -> Result<(Inspection, Ready), Vec<String>> {
        let exported: Vec<&str> = module.exports().map(|export| export.name()).collect();
        let version = match guest::version(exported.iter().copied()) {
            Some(Ok(version)) => version,
            Some(Err(reason)) => return Err(vec![reason]),
            None => return Err(vec![format!("it exports no {MARKER}… that would say which ABI it is written for")]),
        };
        let mut reasons = guest::check(module);
        let linker = self.fitting(module, &mut reasons);
        if !reasons.is_empty() {
            return Err(reasons);
        }
        let pre = linker.instantiate_pre(module).map_err(|error| {
            vec![format!("it was built for another host than Proxy-Wasm's: {}; rebuild it with a current SDK", line(&error))]
        })?;
        let modules: BTreeSet<&str> = module.imports().map(|import| import.module()).collect();
        let functions = module.imports().map(|import| format!("{}.{}", import.module(), import.name()));
        let inspection = Inspection {
            world: format!("proxy-wasm {}", version.as_str()),
            imports: modules.into_iter().map(str::to_owned).collect(),
            functions: functions.collect(),
            exports: exported.into_iter().map(str::to_owned).collect(),
        };
        let (request, response) = (guest::wants(module, Kind::Request), guest::wants(module, Kind::Response));
        Ok((inspection, Ready { version, pre, request, response, heard: guest::heard(module) }))
    }

    /// The linker with what this module imports beyond it: the functions of WASI that no filter needs, each of them saying
    /// so, and three of ABI 0.1.0 whose result not every toolchain knows of.
    fn fitting(&self, module: &Module, reasons: &mut Vec<String>) -> Linker<State> {
        let mut linker = self.0.linker.clone();
        linker.allow_shadowing(true);
        for import in module.imports() {
            let (from, name) = (import.module(), import.name());
            let ExternType::Func(function) = import.ty() else {
                reasons.push(format!("it imports {from}.{name}, which is no function; the host offers functions only"));
                continue;
            };
            let defined = match from {
                _ if self.0.has(from, name) && !(from == "env" && function.results().len() == 0) => Ok(()),
                "wasi_snapshot_preview1" | "wasi_unstable" => {
                    linker.func_new(from, name, function.clone(), not_there(&function)).map(drop)
                }
                "env" if self.0.has(from, name) => host::without_answer(&mut linker, name),
                _ => {
                    reasons.push(format!("it imports {from}.{name}, which is no function of Proxy-Wasm; build it without"));
                    Ok(())
                }
            };
            if let Err(error) = defined {
                reasons.push(format!("its import {from}.{name} cannot be offered: {}", line(&error)));
            }
        }
        linker
    }
}

/// A function that answers that it is not there, where it can answer at all.
fn not_there(function: &FuncType) -> impl Fn(Call<'_>, &[Val], &mut [Val]) -> wasmtime::Result<()> + Send + Sync + 'static {
    let zeros: Vec<ValType> = function.results().collect();
    move |_, _, results| {
        for (result, kind) in results.iter_mut().zip(&zeros) {
            *result = match kind {
                ValType::I32 => Val::I32(NOT_THERE),
                other => Val::default_for_ty(other).unwrap_or(Val::I32(NOT_THERE)),
            };
        }
        Ok(())
    }
}
