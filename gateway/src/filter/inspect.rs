//! From uploaded bytes to a component of the right world, or every reason why they are not one.

use super::{
    component::guest::{self, Exports},
    core::contract::{Contract, plain_name},
    guest::{Calls, HANDLER, Ready},
    limits::Limits,
    proxy_wasm,
    state::State,
};
use std::borrow::Cow;
use tidegate_artefact::Native;
use tidegate_policy::route::Traffic;
use wasmparser::{Parser, Payload};
use wasmtime::{
    Engine, Module,
    component::{
        Component, Linker,
        types::{Component as ComponentType, ComponentItem},
    },
};

/// The world that filters are written for.
const WORLD: &str = "tidegate:filter/filter@0.1.0";
/// The same, with calls of their own.
const WORLD_WITH_OUTBOUND: &str = "tidegate:filter/filter-with-outbound@0.1.0";
/// What tells the two apart: its functions may suspend.
pub(super) const OUTBOUND: &str = "tidegate:filter/outbound@0.1.0";
/// Whose types the exports are of, so that every component imports it.
pub(super) const TYPES: &str = "tidegate:filter/types@0.1.0";
/// What a filter may import.
const OFFERED: [&str; 9] = [
    TYPES,
    "tidegate:filter/attributes@0.1.0",
    "tidegate:filter/message@0.1.0",
    "tidegate:filter/upstream@0.1.0",
    "tidegate:filter/audit@0.1.0",
    "tidegate:filter/telemetry@0.1.0",
    "tidegate:filter/kv@0.1.0",
    "tidegate:filter/host@0.1.0",
    OUTBOUND,
];

/// What inspection found in a module.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// The world, such as `tidegate:filter/filter@0.1.0`.
    pub world: String,
    /// The host interfaces it imports.
    pub imports: Vec<String>,
    /// The functions that it imports of them, as `interface.function`, such as `upstream.select-service`.
    pub functions: Vec<String>,
    /// What it exports.
    pub exports: Vec<String>,
}

/// A module ready to be started.
pub(super) struct Compiled {
    pub(super) inspection: Inspection,
    pub(super) code: Code,
}

impl Compiled {
    /// Whether it can be shown this traffic at all, and why not.
    pub(super) fn serves(&self, traffic: Traffic) -> Result<(), String> {
        match &self.code {
            Code::Typed(_) => Ok(()),
            Code::Proxy(ready) => ready.serves(traffic),
        }
    }
}

/// What it is.
pub(super) enum Code {
    Typed(Ready),
    Proxy(proxy_wasm::Ready),
}

/// What filters of each kind are linked to.
pub(super) struct Linkers {
    pub(super) component: Linker<State>,
    pub(super) core: wasmtime::Linker<State>,
    pub(super) contract: Contract,
    pub(super) proxy: proxy_wasm::Linkage,
}

/// Compiles `bytes`. Takes long, and cannot be interrupted.
pub(super) fn compile(engine: &Engine, limits: &Limits, bytes: &[u8]) -> Result<Native, Vec<String>> {
    let refused =
        |error: wasmtime::Error| vec![format!("it does not compile: {}; rebuild it with a current toolchain", line(&error))];
    check_size(bytes, limits)?;
    if Parser::is_core_wasm(bytes) && proxy_wasm::is_one(bytes) {
        return Module::from_binary(engine, bytes).map(Native::Module).map_err(refused);
    }
    let component = component_of(bytes)?;
    // It could be made a component, so it is of its world. Whether it has to run as one is another matter.
    if matches!(component, Cow::Owned(_)) && Contract::read().is_ok_and(|contract| contract.covers(bytes)) {
        return Module::from_binary(engine, bytes).map(Native::Module).map_err(refused);
    }
    Component::from_binary(engine, &component).map(Native::Component).map_err(refused)
}

/// Looks whether what was compiled is a filter, and links it to the host.
pub(super) fn ready(engine: &Engine, linkers: &Linkers, native: &Native) -> Result<Compiled, Vec<String>> {
    match native {
        Native::Component(component) => typed(engine, &linkers.component, component),
        Native::Module(module) if proxy_wasm::is_compiled(module) => {
            let (inspection, ready) = linkers.proxy.ready(module)?;
            Ok(Compiled { inspection, code: Code::Proxy(ready) })
        }
        Native::Module(module) => core(linkers, module),
    }
}

/// A core module that is of the plain world, which is known since it was compiled.
fn core(linkers: &Linkers, module: &Module) -> Result<Compiled, Vec<String>> {
    let ready = linkers.core.instantiate_pre(module).map_err(|error| vec![other_version(&error)])?;
    let (imports, functions) = linkers.contract.imported(module);
    let inspection = Inspection { world: WORLD.to_owned(), imports, functions, exports: vec![HANDLER.to_owned()] };
    Ok(Compiled { inspection, code: Code::Typed(Ready::Core(ready)) })
}

fn other_version(error: &wasmtime::Error) -> String {
    format!("it was built for another version of {WORLD}: {}; rebuild it with this gateway's sdk/wit", line(error))
}

fn typed(engine: &Engine, linker: &Linker<State>, component: &Component) -> Result<Compiled, Vec<String>> {
    let component_type = component.component_type();
    let imports = check_world(engine, &component_type)?;
    let exports = Exports::of(component).map_err(|reason| vec![reason])?;
    let pre = linker.instantiate_pre(component).map_err(|error| vec![other_version(&error)])?;
    let (world, calls) = match imports.iter().any(|import| import == OUTBOUND) {
        false => (WORLD, Calls::Plain),
        true => (WORLD_WITH_OUTBOUND, Calls::Suspending),
    };
    let functions = functions(engine, &component_type);
    let exported = component_type.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let inspection = Inspection { world: world.to_owned(), imports, functions, exports: exported };
    Ok(Compiled { inspection, code: Code::Typed(Ready::Component(guest::Ready { pre, exports, calls })) })
}

/// The bytes as a component: as they are, or encoded from a core module that says in a custom section how.
fn component_of(bytes: &[u8]) -> Result<Cow<'_, [u8]>, Vec<String>> {
    if Parser::is_component(bytes) {
        return Ok(Cow::Borrowed(bytes));
    }
    if !Parser::is_core_wasm(bytes) {
        return Err(vec!["it is not a WebAssembly binary: upload the .wasm file that cargo made".to_owned()]);
    }
    check_core(&Core::read(bytes)?)?;
    wit_component::ComponentEncoder::default()
        .module(bytes)
        .and_then(|encoder| encoder.validate(true).encode())
        .map(Cow::Owned)
        .map_err(|error| {
            vec![format!("it cannot be made a component of {WORLD}: {error:#}; rebuild it with this gateway's sdk/wit")]
        })
}

fn check_size(bytes: &[u8], limits: &Limits) -> Result<(), Vec<String>> {
    if bytes.len() <= limits.module_bytes {
        return Ok(());
    }
    Err(vec![format!(
        "it has {} bytes, over the limit of {} (setting filter_module_bytes); build it with opt-level \"s\" and strip it",
        bytes.len(),
        limits.module_bytes
    )])
}

/// What a core module says of itself.
#[derive(Debug, Default)]
struct Core {
    /// Whether it says how it is to be made a component.
    typed: bool,
    /// Its imports that no component of ours can have, as `module.name`.
    foreign: Vec<String>,
}

impl Core {
    fn read(bytes: &[u8]) -> Result<Self, Vec<String>> {
        let broken = |error: wasmparser::BinaryReaderError| {
            vec![format!("it is damaged at byte {}: {}; upload it again", error.offset(), error.message())]
        };
        let mut core = Self::default();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload.map_err(broken)? {
                Payload::CustomSection(section) => core.typed |= section.name().starts_with("component-type"),
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        let import = import.map_err(broken)?;
                        if !import.module.starts_with("tidegate:") && !import.module.starts_with('[') {
                            core.foreign.push(format!("{}.{}", import.module, import.name));
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(core)
    }
}

fn check_core(core: &Core) -> Result<(), Vec<String>> {
    let mut reasons = Vec::new();
    if !core.typed {
        reasons.push(format!(
            "it is a core module without a component-type section and without a proxy_abi_version_ export, so it is neither kind of filter: build it with tidegate-sdk or another wit-bindgen for {WORLD}, or with a Proxy-Wasm SDK"
        ));
    }
    reasons.extend(few(&core.foreign).map(|name| {
        let hint = if name.starts_with("wasi_") { "; build it for wasm32-unknown-unknown, filters have no WASI" } else { "" };
        format!("it imports {name}, which the gateway does not offer{hint}")
    }));
    if reasons.is_empty() { Ok(()) } else { Err(reasons) }
}

fn check_world(engine: &Engine, component: &ComponentType) -> Result<Vec<String>, Vec<String>> {
    let mut reasons = Vec::new();
    let imports: Vec<String> = component.imports(engine).map(|(name, _)| name.to_owned()).collect();
    let foreign: Vec<_> = imports.iter().filter(|name| !OFFERED.contains(&name.as_str())).cloned().collect();
    reasons.extend(few(&foreign).map(|name| format!("it imports {name}, which the gateway does not offer")));
    if !reasons.is_empty() {
        reasons.push(format!("what the gateway offers is {}", OFFERED.join(", ")));
    }
    let exports: Vec<String> = component.exports(engine).map(|(name, _)| name.to_owned()).collect();
    if !exports.iter().any(|name| name == HANDLER) {
        let found = if exports.is_empty() { "nothing".to_owned() } else { few(&exports).collect::<Vec<_>>().join(", ") };
        reasons.push(format!("it does not export {HANDLER}, which every filter does; it exports {found}"));
    }
    if reasons.is_empty() { Ok(imports) } else { Err(reasons) }
}

/// The first of many names, cut to a length that a person reads: an answer is not to be larger than what it is about.
fn few(names: &[String]) -> impl Iterator<Item = String> {
    const MOST: usize = 20;
    const LENGTH: usize = 200;
    let more = names.len().checked_sub(MOST).filter(|more| *more > 0).map(|more| format!("{more} more"));
    let cut = |name: &String| match name.char_indices().nth(LENGTH) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.clone(),
    };
    names.iter().take(MOST).map(cut).chain(more)
}

/// The functions that are imported, each with the plain name of its interface.
fn functions(engine: &Engine, component: &ComponentType) -> Vec<String> {
    let mut functions = Vec::new();
    for (interface, import) in component.imports(engine) {
        let ComponentItem::ComponentInstance(instance) = import.ty else { continue };
        for (name, export) in instance.exports(engine) {
            if matches!(export.ty, ComponentItem::ComponentFunc(_)) {
                functions.push(plain_name(interface, name));
            }
        }
    }
    functions
}

/// An error and its causes in one line.
pub(super) fn line(error: &wasmtime::Error) -> String {
    format!("{error:#}").replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile_error(bytes: &[u8]) -> Vec<String> {
        compile(&Engine::default(), &Limits::default(), bytes).err().unwrap()
    }

    /// A core module of one section.
    fn module(section: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = b"\0asm\x01\0\0\0".to_vec();
        bytes.push(section);
        bytes.push(u8::try_from(content.len()).unwrap());
        bytes.extend_from_slice(content);
        bytes
    }

    fn text(content: &str) -> Vec<u8> {
        let mut bytes = vec![u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content.as_bytes());
        bytes
    }

    #[test]
    fn what_is_no_filter_is_told_apart() {
        let reasons = |bytes: &[u8]| compile_error(bytes).join("\n");
        assert!(reasons(b"").contains("not a WebAssembly binary"));
        assert!(reasons(b"#!/bin/sh").contains("not a WebAssembly binary"));
        assert!(reasons(b"\0asm\x01\0\0\0").contains("component-type"));
        assert!(reasons(b"\0asm\x01\0\0\0\x07\x7f").contains("damaged"));
        assert!(reasons(&vec![0; (32 << 20) + 1]).contains("filter_module_bytes"));
    }

    #[test]
    fn foreign_imports_are_named() {
        let mut import = vec![1];
        import.extend(text("wasi_snapshot_preview1"));
        import.extend(text("fd_write"));
        import.extend([0, 0]);
        let reasons = compile_error(&module(2, &import));
        assert!(reasons.iter().any(|reason| reason.contains("wasi_snapshot_preview1.fd_write")), "{reasons:?}");
        assert!(reasons.iter().any(|reason| reason.contains("component-type")), "{reasons:?}");
    }
}
