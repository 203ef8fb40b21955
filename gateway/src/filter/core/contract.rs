//! Which core modules can be run as they are: those that say in their custom sections that they are of this very contract,
//! and whose imports and exports have the names that the host knows. In doubt a module is run as a component.

use crate::filter::{
    guest::HANDLER,
    inspect::{OUTBOUND, TYPES},
};
use std::collections::BTreeMap;
use wasmparser::{ExternalKind, Parser, Payload, TypeRef};
use wasmtime::{Module, Result};
use wit_component::{StringEncoding, WitPrinter, metadata::Bindgen};
use wit_parser::{InterfaceId, Resolve, TypeDefKind, WorldItem, WorldKey};

/// The contract as the SDK has it.
pub(super) const TEXT: &str = include_str!("../../../../sdk/wit/filter.wit");
/// What decides whether a module is run as it is: the contract, and the rules of this file. What was compiled by others is compiled
/// anew, since nobody looks at a module again that is archived.
pub(in crate::filter) const TERMS: &str = concat!(include_str!("../../../../sdk/wit/filter.wit"), include_str!("contract.rs"));
/// How the name of an import that drops a handle begins.
const DROP: &str = "[resource-drop]";

/// Exports that make another ABI of a module than the host speaks, as far as they are told by their names. What is not known
/// here is no part of any ABI, and nobody calls it.
const OTHERWISE: [&str; 6] = [
    "canonical_abi_realloc",
    "cabi_import_realloc",
    "cabi_export_realloc",
    "cabi_realloc_adapter",
    "__wasm_init_task",
    "__wasm_init_async_task",
];

/// The plain world.
pub(in crate::filter) struct Contract {
    /// What a filter may import, in the order of the world.
    imports: Vec<Interface>,
    handler: Interface,
}

/// One interface.
struct Interface {
    name: String,
    /// All that it says, so that two that are the same read alike.
    text: String,
    functions: Vec<String>,
    /// The imports that drop its handles.
    drops: Vec<String>,
}

impl Contract {
    /// This gateway's.
    pub(in crate::filter) fn read() -> Result<Self> {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("filter.wit", TEXT).map_err(|error| wasmtime::format_err!("{error:#}"))?;
        let world = resolve.select_world(&[package], Some("filter")).map_err(|error| wasmtime::format_err!("{error:#}"))?;
        let read = |item| Interface::read(&resolve, item);
        let world = &resolve.worlds[world];
        let handler = world.exports.iter().find_map(read).ok_or_else(|| wasmtime::format_err!("it exports nothing"))?;
        Ok(Self { imports: world.imports.iter().filter_map(read).collect(), handler })
    }

    /// Whether this core module, which could be made a component, can be run as it is.
    pub(in crate::filter) fn covers(&self, bytes: &[u8]) -> bool {
        let Ok((_, said)) = wit_component::metadata::decode(bytes) else { return false };
        self.is_kept_by(&said) && self.has_known_names(bytes).unwrap_or(false)
    }

    /// Whether the module's world is this one, word for word; it may know of `outbound`, too.
    fn is_kept_by(&self, said: &Bindgen) -> bool {
        let (resolve, world) = (&said.resolve, &said.resolve.worlds[said.world]);
        let kept = |item, known: &dyn Fn(&Interface) -> bool| Interface::read(resolve, item).is_some_and(|there| known(&there));
        let imported = |there: &Interface| {
            there.name == OUTBOUND || self.imports.iter().any(|ours| (&ours.name, &ours.text) == (&there.name, &there.text))
        };
        let exported = |there: &Interface| (&self.handler.name, &self.handler.text) == (&there.name, &there.text);
        let encodings = [(&said.metadata.import_encodings, &world.imports), (&said.metadata.export_encodings, &world.exports)];
        let plain_text = encodings.iter().all(|(encodings, items)| {
            items.keys().all(|key| {
                functions(resolve, key)
                    .all(|name| encodings.get(resolve, key, name).is_none_or(|encoding| encoding == StringEncoding::UTF8))
            })
        });
        plain_text
            && world.imports.iter().all(|item| kept(item, &imported))
            && !world.exports.is_empty()
            && world.exports.iter().all(|item| kept(item, &exported))
    }

    /// Whether everything that it imports is a function of this contract, and everything that the host calls is there.
    fn has_known_names(&self, bytes: &[u8]) -> wasmparser::Result<bool> {
        let mut exports = BTreeMap::new();
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::ImportSection(section) => {
                    for import in section.into_imports() {
                        let import = import?;
                        if !matches!(import.ty, TypeRef::Func(_)) || !self.offers(import.module, import.name) {
                            return Ok(false);
                        }
                    }
                }
                // It would run before the host knows its memory.
                Payload::StartSection { .. } => return Ok(false),
                Payload::ExportSection(section) => {
                    for export in section {
                        let export = export?;
                        exports.insert(export.name, export.kind);
                    }
                }
                _ => {}
            }
        }
        let has = |name: &str, kind| exports.get(name) == Some(&kind);
        let called = self.handler.functions.iter().all(|name| has(&format!("{HANDLER}#{name}"), ExternalKind::Func));
        // One function alone answers with something that has to be tidied up.
        let tidies_up = |name: &str| name.strip_prefix("cabi_post_").is_some_and(|of| of != format!("{HANDLER}#configure"));
        let otherwise = exports
            .keys()
            .any(|name| OTHERWISE.contains(name) || name.starts_with('[') || name.starts_with("cm32p2") || tidies_up(name));
        Ok(called && !otherwise && has("memory", ExternalKind::Memory) && has("cabi_realloc", ExternalKind::Func))
    }

    fn offers(&self, module: &str, name: &str) -> bool {
        let interface = self.imports.iter().find(|interface| interface.name == module);
        interface.is_some_and(|found| found.functions.iter().chain(&found.drops).any(|known| known == name))
    }

    /// The interfaces and the functions that `module` imports, as its component would have them.
    pub(in crate::filter) fn imported(&self, module: &Module) -> (Vec<String>, Vec<String>) {
        let (mut interfaces, mut functions) = (Vec::new(), Vec::new());
        for Interface { name, functions: known, .. } in &self.imports {
            let of_it = || module.imports().filter(|import| import.module() == name);
            if name == TYPES || of_it().next().is_some() {
                interfaces.push(name.clone());
            }
            let used = known.iter().filter(|function| of_it().any(|import| import.name() == *function));
            functions.extend(used.map(|function| plain_name(name, function)));
        }
        (interfaces, functions)
    }
}

/// A function with the plain name of its interface. Of `[method]headers.get` and the like the kind is no news.
pub(in crate::filter) fn plain_name(interface: &str, function: &str) -> String {
    let interface = interface.rsplit('/').next().unwrap_or(interface).split('@').next().unwrap_or(interface);
    format!("{interface}.{}", function.rsplit(']').next().unwrap_or(function))
}

impl Interface {
    /// What a world imports or exports, where it is an interface that has a name.
    fn read(resolve: &Resolve, (key, item): (&WorldKey, &WorldItem)) -> Option<Self> {
        let (WorldKey::Interface(_), WorldItem::Interface { id, .. }) = (key, item) else { return None };
        let interface = &resolve.interfaces[*id];
        let resources = interface.types.iter().filter(|(_, id)| matches!(resolve.types[**id].kind, TypeDefKind::Resource));
        // The order that they have in components.
        let of_resources = interface.functions.iter().filter(|(_, function)| function.kind.resource().is_some());
        let by_themselves = interface.functions.iter().filter(|(_, function)| function.kind.resource().is_none());
        Some(Self {
            name: resolve.id_of(*id)?,
            text: text(resolve, *id)?,
            functions: of_resources.chain(by_themselves).map(|(name, _)| name.clone()).collect(),
            drops: resources.map(|(name, _)| format!("{DROP}{name}")).collect(),
        })
    }
}

fn text(resolve: &Resolve, id: InterfaceId) -> Option<String> {
    let mut printer = WitPrinter::default();
    printer.emit_docs(false);
    printer.print_interface(resolve, id).ok()?;
    Some(printer.output.to_string())
}

fn functions<'a>(resolve: &'a Resolve, key: &WorldKey) -> impl Iterator<Item = &'a String> + use<'a> {
    let interface = match key {
        WorldKey::Interface(id) => Some(&resolve.interfaces[*id]),
        WorldKey::Name(_) => None,
    };
    interface.into_iter().flat_map(|interface| interface.functions.keys())
}
