//! What a module exports: checked once when it is uploaded, looked up once for each instance.

use super::{abi::Version, host::Exit, seat::Wants, state::State};
use crate::filter::message::Kind;
use wasmtime::{ExternType, Instance, Module, Result, Store, TypedFunc, ValType};

/// The marker's name, up to the version.
pub(super) const MARKER: &str = "proxy_abi_version_";

/// A callback's name, how many parameters it may have, and whether it answers. All are numbers of 32 bits.
type Signature = (&'static str, &'static [usize], bool);

/// Every function that the host calls. None but an allocator has to be there.
const CALLED: [Signature; 38] = [
    ("_initialize", &[0], false),
    ("_start", &[0], false),
    ("main", &[2], true),
    ("__main_void", &[0], true),
    ("malloc", &[1], true),
    ("proxy_on_memory_allocate", &[1], true),
    ("proxy_on_context_create", &[2], false),
    ("proxy_on_vm_start", &[2], true),
    ("proxy_validate_configuration", &[2], true),
    ("proxy_on_configure", &[2], true),
    ("proxy_on_tick", &[1], false),
    ("proxy_on_done", &[1], true),
    ("proxy_on_log", &[1], false),
    ("proxy_on_delete", &[1], false),
    ("proxy_on_request_headers", &[2, 3], true),
    ("proxy_on_request_body", &[3], true),
    ("proxy_on_request_trailers", &[2], true),
    ("proxy_on_request_metadata", &[2], true),
    ("proxy_on_response_headers", &[2, 3], true),
    ("proxy_on_response_body", &[3], true),
    ("proxy_on_response_trailers", &[2], true),
    ("proxy_on_response_metadata", &[2], true),
    ("proxy_on_new_connection", &[1], true),
    ("proxy_on_downstream_data", &[3], true),
    ("proxy_on_upstream_data", &[3], true),
    ("proxy_on_downstream_connection_close", &[2], false),
    ("proxy_on_upstream_connection_close", &[2], false),
    ("proxy_on_http_call_response", &[5], false),
    ("proxy_on_grpc_receive_initial_metadata", &[3], false),
    ("proxy_on_grpc_create_initial_metadata", &[3], false),
    ("proxy_on_grpc_receive", &[3], false),
    ("proxy_on_grpc_receive_trailing_metadata", &[3], false),
    ("proxy_on_grpc_close", &[3], false),
    ("proxy_on_queue_ready", &[2], false),
    ("proxy_on_foreign_function", &[3], false),
    ("proxy_get_id", &[0], true),
    ("proxy_on_request_done", &[1], false),
    ("proxy_on_response_done", &[1], false),
];

/// The version that a module's marker says; none where there is no marker, an error where there is no such version.
pub(super) fn version<'a>(exports: impl Iterator<Item = &'a str>) -> Option<std::result::Result<Version, String>> {
    let markers = exports.filter_map(|name| name.strip_prefix(MARKER));
    // Of several the newest is what its SDK prefers.
    let newest = markers.max_by_key(|rest| Version::of_marker(rest))?;
    Some(Version::of_marker(newest).ok_or_else(|| {
        format!("it is written for Proxy-Wasm ABI {}, and 0.1.0, 0.2.0 and 0.2.1 are served", newest.replace('_', "."))
    }))
}

/// What is wrong with the exports of `module`, all of it.
pub(super) fn check(module: &Module) -> Vec<String> {
    let mut reasons = Vec::new();
    if !matches!(module.get_export("memory"), Some(ExternType::Memory(_))) {
        reasons.push("it exports no memory named `memory`, where every argument of the host's functions lies".to_owned());
    }
    let has = |name: &str| module.get_export(name).is_some();
    if !has("malloc") && !has("proxy_on_memory_allocate") {
        reasons
            .push("it exports no allocator: build it with an SDK, or export `proxy_on_memory_allocate` or `malloc`".to_owned());
    }
    for (name, parameters, answers) in CALLED {
        match module.get_export(name) {
            None => {}
            // An export that is none of the ABI's may be called as it likes.
            Some(ExternType::Func(_)) if matches!(name, "main" | "__main_void" | "_start") => {}
            Some(ExternType::Func(function)) => {
                let (given, answered) = (function.params(), function.results());
                let plain = given.chain(answered).all(|value| matches!(value, ValType::I32));
                let fits =
                    parameters.contains(&function.params().len()) && function.results().len() == usize::from(answers) && plain;
                if !fits {
                    reasons
                        .push(format!("its export {name} has another signature than the ABI's; rebuild it with a current SDK"));
                }
            }
            Some(_) => reasons.push(format!("its export {name} is no function; rebuild it with a current SDK")),
        }
    }
    reasons
}

/// What `module` wants to see of a direction after its head.
pub(super) fn wants(module: &Module, kind: Kind) -> Wants {
    let (body, trailers) = match kind {
        Kind::Request => ("proxy_on_request_body", "proxy_on_request_trailers"),
        Kind::Response => ("proxy_on_response_body", "proxy_on_response_trailers"),
    };
    match (module.get_export(body), module.get_export(trailers)) {
        (Some(_), _) => Wants::Pieces,
        (None, Some(_)) => Wants::Trailers,
        (None, None) => Wants::Nothing,
    }
}

/// Which callbacks `module` has, those of requests and those of tunnels.
pub(super) fn heard(module: &Module) -> (bool, bool) {
    let any = |starts: &[&str]| module.exports().any(|export| starts.iter().any(|start| export.name().starts_with(start)));
    let connection = ["proxy_on_new_connection", "proxy_on_downstream_", "proxy_on_upstream_"];
    (any(&["proxy_on_request_", "proxy_on_response_"]), any(&connection))
}

/// An instance's exports.
pub(super) struct Guest {
    pub(super) context_create: Option<TypedFunc<(u32, u32), ()>>,
    pub(super) vm_start: Option<TypedFunc<(u32, u32), u32>>,
    pub(super) validate_configuration: Option<TypedFunc<(u32, u32), u32>>,
    pub(super) configure: Option<TypedFunc<(u32, u32), u32>>,
    pub(super) tick: Option<TypedFunc<u32, ()>>,
    pub(super) done: Option<TypedFunc<u32, u32>>,
    pub(super) log: Option<TypedFunc<u32, ()>>,
    pub(super) delete: Option<TypedFunc<u32, ()>>,
    pub(super) request: Direction,
    pub(super) response: Direction,
    pub(super) connection: Connection,
    pub(super) http_call_response: Option<OnAnswer>,
    pub(super) grpc_initial_metadata: Option<TypedFunc<(u32, u32, u32), ()>>,
    pub(super) grpc_receive: Option<TypedFunc<(u32, u32, u32), ()>>,
    pub(super) grpc_trailing_metadata: Option<TypedFunc<(u32, u32, u32), ()>>,
    pub(super) grpc_close: Option<TypedFunc<(u32, u32, u32), ()>>,
    pub(super) queue_ready: Option<TypedFunc<(u32, u32), ()>>,
}

/// Root context, call, and the numbers of headers, body bytes and trailers.
type OnAnswer = TypedFunc<(u32, u32, u32, u32, u32), ()>;

/// What an instance wants to see of a tunnel.
pub(super) struct Connection {
    pub(super) new: Option<TypedFunc<u32, u32>>,
    pub(super) downstream_data: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(super) upstream_data: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(super) downstream_close: Option<TypedFunc<(u32, u32), ()>>,
    pub(super) upstream_close: Option<TypedFunc<(u32, u32), ()>>,
}

/// What an instance wants to see of one direction.
pub(super) struct Direction {
    pub(super) headers: Option<Head>,
    pub(super) body: Option<TypedFunc<(u32, u32, u32), u32>>,
    pub(super) trailers: Option<TypedFunc<(u32, u32), u32>>,
}

/// The callback about a head.
pub(super) enum Head {
    /// ABI 0.1.0 does not say whether more follows.
    Short(TypedFunc<(u32, u32), u32>),
    Full(TypedFunc<(u32, u32, u32), u32>),
}

impl Head {
    pub(super) fn call(&self, store: &mut Store<State>, context: u32, fields: u32, end: bool) -> Result<u32> {
        match self {
            Self::Short(function) => function.call(store, (context, fields)),
            Self::Full(function) => function.call(store, (context, fields, end.into())),
        }
    }
}

impl Guest {
    /// What it wants to see of this direction.
    pub(super) fn direction(&self, kind: Kind) -> &Direction {
        match kind {
            Kind::Request => &self.request,
            Kind::Response => &self.response,
        }
    }

    /// The exports of `instance`, whose module was checked.
    pub(super) fn of(store: &mut Store<State>, instance: &Instance) -> Self {
        macro_rules! export {
            ($name:literal) => {
                instance.get_typed_func(&mut *store, $name).ok()
            };
        }
        let memory = instance.get_memory(&mut *store, "memory");
        let allocator = export!("proxy_on_memory_allocate").or_else(|| export!("malloc"));
        let state = store.data_mut();
        (state.memory, state.allocator) = (memory, allocator);
        let head = |full: Option<TypedFunc<_, _>>, short: Option<TypedFunc<_, _>>| {
            full.map(Head::Full).or_else(|| short.map(Head::Short))
        };
        Self {
            context_create: export!("proxy_on_context_create"),
            vm_start: export!("proxy_on_vm_start"),
            validate_configuration: export!("proxy_validate_configuration"),
            configure: export!("proxy_on_configure"),
            tick: export!("proxy_on_tick"),
            done: export!("proxy_on_done"),
            log: export!("proxy_on_log"),
            delete: export!("proxy_on_delete"),
            request: Direction {
                headers: head(export!("proxy_on_request_headers"), export!("proxy_on_request_headers")),
                body: export!("proxy_on_request_body"),
                trailers: export!("proxy_on_request_trailers"),
            },
            response: Direction {
                headers: head(export!("proxy_on_response_headers"), export!("proxy_on_response_headers")),
                body: export!("proxy_on_response_body"),
                trailers: export!("proxy_on_response_trailers"),
            },
            connection: Connection {
                new: export!("proxy_on_new_connection"),
                downstream_data: export!("proxy_on_downstream_data"),
                upstream_data: export!("proxy_on_upstream_data"),
                downstream_close: export!("proxy_on_downstream_connection_close"),
                upstream_close: export!("proxy_on_upstream_connection_close"),
            },
            http_call_response: export!("proxy_on_http_call_response"),
            grpc_initial_metadata: export!("proxy_on_grpc_receive_initial_metadata"),
            grpc_receive: export!("proxy_on_grpc_receive"),
            grpc_trailing_metadata: export!("proxy_on_grpc_receive_trailing_metadata"),
            grpc_close: export!("proxy_on_grpc_close"),
            queue_ready: export!("proxy_on_queue_ready"),
        }
    }
}

/// Runs what a module does before the host calls it for the first time, as reactors and commands have it.
pub(super) fn initialize(store: &mut Store<State>, instance: &Instance) -> Result<()> {
    if let Ok(initialize) = instance.get_typed_func::<(), ()>(&mut *store, "_initialize") {
        initialize.call(&mut *store, ())?;
        if let Ok(main) = instance.get_typed_func::<(u32, u32), u32>(&mut *store, "main") {
            main.call(&mut *store, (0, 0))?;
        } else if let Ok(main) = instance.get_typed_func::<(), u32>(&mut *store, "__main_void") {
            main.call(&mut *store, ())?;
        }
    } else if let Ok(start) = instance.get_typed_func::<(), ()>(&mut *store, "_start") {
        match start.call(&mut *store, ()) {
            // Commands end so when all is well.
            Err(error) if error.downcast_ref::<Exit>().is_some_and(|exit| exit.0 == 0) => {}
            started => started?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_marker_counts() {
        let version = |names: &[&str]| version(names.iter().copied());
        assert_eq!(version(&["memory", "proxy_on_log"]), None);
        assert_eq!(version(&["proxy_abi_version_0_1_0", "proxy_abi_version_0_2_0"]), Some(Ok(Version::V0_2_0)));
        assert_eq!(version(&["proxy_abi_version_0_2_100"]), Some(Ok(Version::V0_2_1)));
        let refusal = version(&["proxy_abi_version_0_3_0"]).unwrap().unwrap_err();
        assert!(refusal.contains("0.3.0"), "{refusal}");
    }
}
