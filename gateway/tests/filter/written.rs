//! Filters written as text: compiling one takes milliseconds, where one that cargo made takes a debug build half a second.

use crate::setting::module;
use tidegate_policy::publication::Module;
use wit_component::StringEncoding;

/// The contract as the SDK has it.
pub(crate) const CONTRACT: &str = include_str!("../../../sdk/wit/filter.wit");

/// A filter's module, by what it has beyond what each has: the import that gives a head back, as `$drop`, and an export for every
/// callback. Those about bodies and trailers are not expected.
pub(crate) struct Text<'a> {
    /// Further imports.
    pub(crate) imports: &'a str,
    pub(crate) pages: &'a str,
    /// Globals, data, and functions of its own.
    pub(crate) fields: &'a str,
    pub(crate) realloc: &'a str,
    /// What `configure` answers is at 0, where the memory is zero: no error.
    pub(crate) configure: &'a str,
    /// The request's head is `$h`, and `$n` a local number.
    pub(crate) open: &'a str,
    /// The response's head is `$h`.
    pub(crate) response: &'a str,
    pub(crate) close: &'a str,
}

impl Text<'_> {
    /// The module, as cargo would have made it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let Self { imports, pages, fields, realloc, configure, open, response, close } = self;
        let unexpected = ["request-body", "request-trailers", "response-body", "response-trailers"].map(|callback| {
            format!(
                r#"(func (export "tidegate:filter/handler@0.1.0#on-{callback}")
                (param i32 i32 i32 i32 i32) (result i32) unreachable)"#
            )
        });
        embedded(&format!(
            r#"(module
            (import "tidegate:filter/types@0.1.0" "[resource-drop]headers" (func $drop (param i32)))
            {imports}
            (memory (export "memory") {pages})
            {fields}
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) {realloc})
            (func (export "tidegate:filter/handler@0.1.0#configure") (result i32) {configure})
            (func (export "tidegate:filter/handler@0.1.0#open")
                (param $exchange i32) (param i64) (param $h i32) (param i32) (result i32) (local $n i32) {open})
            (func (export "tidegate:filter/handler@0.1.0#on-response-headers")
                (param i32 i32) (param $h i32) (param i32) (result i32) {response})
            (func (export "tidegate:filter/handler@0.1.0#close") (param i32) {close})
            {})"#,
            unexpected.concat()
        ))
    }
}

/// What a filter does in its callbacks, as text. A number that is pushed is the answer, in the order of `flow` in the contract.
pub(crate) struct Parts<'a> {
    pub(crate) configure: &'a str,
    pub(crate) open: &'a str,
    pub(crate) response: &'a str,
    pub(crate) close: &'a str,
}

/// It is done with each exchange at its head.
impl Default for Parts<'_> {
    fn default() -> Self {
        Self { configure: "i32.const 0", open: DONE, response: "unreachable", close: "unreachable" }
    }
}

pub(crate) const DONE: &str = "i32.const 0";
pub(crate) const PROCEED: &str = "i32.const 1";
pub(crate) const REPLY: &str = "i32.const 6";

/// The smallest filter as a module, as cargo would have made it. `configure` is the body of its function of that name.
pub(crate) fn smallest(configure: &str) -> Vec<u8> {
    written(&Parts { configure, ..Parts::default() })
}

/// A filter of these parts, as cargo would have made it.
pub(crate) fn written(parts: &Parts<'_>) -> Vec<u8> {
    let after_drop = |callback: &str| format!("(call $drop (local.get $h)) {callback}");
    let text = Text {
        imports: "",
        pages: "1",
        fields: "",
        realloc: "i32.const 1024",
        configure: parts.configure,
        open: &after_drop(parts.open),
        response: &after_drop(parts.response),
        close: parts.close,
    };
    text.bytes()
}

/// This module, which says of itself that it is of the plain world.
pub(crate) fn embedded(text: &str) -> Vec<u8> {
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_str("filter.wit", CONTRACT).unwrap();
    let world = resolve.select_world(&[package], Some("filter")).unwrap();
    let mut bytes = wat::parse_str(text).unwrap();
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8).unwrap();
    bytes
}

/// Another module that does the same: with a custom section that holds `number`.
pub(crate) fn variant(of: &[u8], number: u32) -> Module {
    let mut bytes = of.to_vec();
    bytes.extend_from_slice(&[0, 6, 1, b'v']);
    bytes.extend_from_slice(&number.to_le_bytes());
    module(bytes.into())
}
