//! Filters as core modules, which is what toolchains make of them before they become components: the same functions with
//! the canonical ABI written out, at a fraction of the cost. Who may be run so is the `contract`'s to say; everything else
//! remains a component.

pub(super) mod abi;
mod calls;
pub(super) mod contract;
mod free_lists;
pub(super) mod guest;
mod message;
mod upstream;

use super::state::State;
use wasmtime::{Engine, Linker, Result};

/// A linker that offers all functions of the plain world under the names that core modules know them by.
pub(super) fn linker(engine: &Engine) -> Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    message::link(&mut linker)?;
    calls::link(&mut linker)?;
    upstream::link(&mut linker)?;
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use super::{contract::Contract, *};
    use crate::filter::{engine, guest::HANDLER};
    use wasmtime::Module;
    use wit_component::{StringEncoding, embed_component_metadata};
    use wit_parser::{Function, Resolve, WorldItem, abi::AbiVariant, abi::WasmType};

    /// The type of a function, as wit-component has it.
    fn signature(resolve: &Resolve, variant: AbiVariant, function: &Function) -> String {
        let signature = resolve.wasm_signature(variant, function);
        let kind = |kind: &WasmType| match kind {
            WasmType::I64 | WasmType::PointerOrI64 => "i64",
            WasmType::I32 | WasmType::Pointer | WasmType::Length => "i32",
            WasmType::F32 | WasmType::F64 => panic!("there are none in the contract"),
        };
        let list = |kinds: &[WasmType]| kinds.iter().map(kind).collect::<Vec<_>>().join(" ");
        format!("(param {}) (result {})", list(&signature.params), list(&signature.results))
    }

    /// A module that imports everything that there is in a contract of this text.
    fn whole(contract: &str, world: &str, encoding: StringEncoding) -> Vec<u8> {
        let mut resolve = Resolve::default();
        let package = resolve.push_str("filter.wit", contract).unwrap();
        let world = resolve.select_world(&[package], Some(world)).unwrap();
        let interfaces = |items: &[&WorldItem]| -> Vec<_> {
            let ids =
                items.iter().map(|item| if let WorldItem::Interface { id, .. } = item { *id } else { panic!("{item:?}") });
            ids.collect()
        };
        let (mut imports, mut exports) = (String::new(), String::new());
        for id in interfaces(&resolve.worlds[world].imports.values().collect::<Vec<_>>()) {
            let name = resolve.id_of(id).unwrap();
            for (function, it) in &resolve.interfaces[id].functions {
                let kind = signature(&resolve, AbiVariant::GuestImport, it);
                imports.push_str(&format!("(import \"{name}\" \"{function}\" (func {kind}))"));
            }
            for (resource, _) in resolve.interfaces[id].types.iter().filter(|(name, _)| RESOURCES.contains(&name.as_str())) {
                imports.push_str(&format!("(import \"{name}\" \"[resource-drop]{resource}\" (func (param i32)))"));
            }
        }
        for id in interfaces(&resolve.worlds[world].exports.values().collect::<Vec<_>>()) {
            for (function, it) in &resolve.interfaces[id].functions {
                let kind = signature(&resolve, AbiVariant::GuestExport, it);
                exports.push_str(&format!("(func (export \"{HANDLER}#{function}\") {kind} unreachable)"));
            }
        }
        let text = format!(
            "(module {imports} (memory (export \"memory\") 1) {exports}
            (func (export \"cabi_realloc\") (param i32 i32 i32 i32) (result i32) unreachable))"
        );
        let mut bytes = wat::parse_str(text).unwrap();
        embed_component_metadata(&mut bytes, &resolve, world, encoding).unwrap();
        bytes
    }

    const RESOURCES: [&str; 5] = ["headers", "body", "counter", "gauge", "histogram"];

    #[test]
    fn all_of_the_contract_is_offered_with_its_types() {
        let engine = Engine::new(&engine::config()).unwrap();
        let bytes = whole(contract::TEXT, "filter", StringEncoding::UTF8);
        assert!(Contract::read().unwrap().covers(&bytes));
        let module = Module::new(&engine, bytes).unwrap();
        assert_eq!(module.imports().len(), 43);
        linker(&engine).unwrap().instantiate_pre(&module).map(drop).unwrap();
    }

    #[test]
    fn what_differs_is_left_to_components() {
        let contract = Contract::read().unwrap();
        let changed = |from: &str, to: &str| {
            assert!(contract::TEXT.contains(from), "{from}");
            whole(&contract::TEXT.replace(from, to), "filter", StringEncoding::UTF8)
        };
        assert!(contract.covers(&changed("/// Wire bytes;", "/// Bytes;")), "comments are not what counts");
        // All of these have the same imports and exports, number by number.
        for (from, to) in [
            ("enum outcome { allowed, denied,", "enum outcome { denied, allowed,"),
            ("enum tls-version { tls12, tls13 }", "enum tls-version { tls12, tls13, tls14 }"),
            ("delta: s64", "delta: u64"),
            ("set-status: func(status: u16)", "set-status: func(status: u32)"),
            ("record entry { value: bytes, version: u64 }", "record entry { value: bytes, version: s64 }"),
        ] {
            assert!(!contract.covers(&changed(from, to)), "{to}");
        }
        assert!(!contract.covers(&changed("@0.1.0", "@0.1.1")), "another version");
        assert!(!contract.covers(&whole(contract::TEXT, "filter-with-outbound", StringEncoding::UTF8)), "calls that suspend");
        assert!(!contract.covers(&whole(contract::TEXT, "filter", StringEncoding::UTF16)), "other texts");
    }
}
