//! Modules as text. Each has a memory, an allocator that only ever goes on, and the marker of an ABI; what it imports and
//! does is the test's to say. Texts lie in memory one behind the other, and are used by name.

use crate::{
    interpreter::types,
    setting::{Stage, module},
};
use serde_json::Value;
use std::{collections::BTreeMap, fmt::Write as _};
use tidegate_gateway::filter::Limits;
use tidegate_policy::publication::Module;

/// Where texts begin; below are the places for what host functions write.
const TEXTS: usize = 64;
/// Where the allocator begins.
const HEAP: usize = 16 << 10;

/// The host's functions, and the kinds of their parameters as scripts have them.
pub(crate) const IMPORTS: &[(&str, &str)] = &[
    ("proxy_log", "nt"),
    ("proxy_get_log_level", "o"),
    ("proxy_get_current_time_nanoseconds", "o"),
    ("proxy_set_tick_period_milliseconds", "n"),
    ("proxy_done", ""),
    ("proxy_set_effective_context", "n"),
    ("proxy_get_buffer_bytes", "nnnoo"),
    ("proxy_set_buffer_bytes", "nnnt"),
    ("proxy_get_buffer_status", "noo"),
    ("proxy_get_header_map_pairs", "noo"),
    ("proxy_set_header_map_pairs", "nm"),
    ("proxy_get_header_map_size", "no"),
    ("proxy_get_header_map_value", "ntoo"),
    ("proxy_add_header_map_value", "ntt"),
    ("proxy_replace_header_map_value", "ntt"),
    ("proxy_remove_header_map_value", "nt"),
    ("proxy_continue_stream", "n"),
    ("proxy_close_stream", "n"),
    ("proxy_send_local_response", "nttmn"),
    ("proxy_http_call", "tmtmno"),
    ("proxy_grpc_call", "tttmtno"),
    ("proxy_grpc_stream", "tttmo"),
    ("proxy_grpc_send", "ntn"),
    ("proxy_grpc_cancel", "n"),
    ("proxy_grpc_close", "n"),
    ("proxy_get_status", "ooo"),
    ("proxy_get_shared_data", "tooo"),
    ("proxy_set_shared_data", "ttn"),
    ("proxy_register_shared_queue", "to"),
    ("proxy_resolve_shared_queue", "tto"),
    ("proxy_enqueue_shared_queue", "nt"),
    ("proxy_dequeue_shared_queue", "noo"),
    ("proxy_define_metric", "nto"),
    ("proxy_increment_metric", "nl"),
    ("proxy_record_metric", "nl"),
    ("proxy_get_metric", "no"),
    ("proxy_get_property", "too"),
    ("proxy_set_property", "tt"),
    ("proxy_call_foreign_function", "ttoo"),
    ("proxy_get_configuration", "oo"),
    ("proxy_continue_request", ""),
    ("proxy_continue_response", ""),
    ("proxy_clear_route_cache", ""),
];

/// A module that is being written.
pub(crate) struct Text {
    abi: &'static str,
    texts: Vec<u8>,
    functions: String,
    allocate: String,
}

impl Default for Text {
    fn default() -> Self {
        Self::of("0_2_1")
    }
}

impl Text {
    /// A module of this ABI.
    pub(crate) fn of(abi: &'static str) -> Self {
        Self { abi, texts: Vec::new(), functions: String::new(), allocate: String::new() }
    }

    /// Has the allocator do this, too.
    pub(crate) fn allocating(mut self, code: &str) -> Self {
        self.allocate = self.filled(code);
        self
    }

    /// A function that it exports: its parameters and result, and its code, in which a text between backticks stands
    /// for where it lies and its length.
    pub(crate) fn on(mut self, name: &str, signature: &str, code: &str) -> Self {
        let code = self.filled(code);
        let _ = writeln!(self.functions, "(func (export \"{name}\") {signature} {code})");
        self
    }

    /// A callback about a request's head.
    pub(crate) fn on_request_headers(self, code: &str) -> Self {
        self.on("proxy_on_request_headers", "(param $context i32) (param $fields i32) (param $end i32) (result i32)", code)
    }

    /// A callback about a response's head.
    pub(crate) fn on_response_headers(self, code: &str) -> Self {
        self.on("proxy_on_response_headers", "(param $context i32) (param $fields i32) (param $end i32) (result i32)", code)
    }

    /// Other fields of the module, such as globals and functions of its own.
    pub(crate) fn with(mut self, fields: &str) -> Self {
        let fields = self.filled(fields);
        let _ = writeln!(self.functions, "{fields}");
        self
    }

    /// The module's bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut text = String::from("(module\n");
        for (name, parameters) in IMPORTS {
            let parameters = types(parameters);
            let short = name.strip_prefix("proxy_").unwrap();
            let _ = writeln!(text, "(import \"env\" \"{name}\" (func ${short} (param{parameters}) (result i32)))");
        }
        let data: String = self.texts.iter().map(|byte| format!("\\{byte:02x}")).collect();
        let _ = write!(
            text,
            "(memory (export \"memory\") 2)
            (data (i32.const {TEXTS}) \"{data}\")
            (global $heap (mut i32) (i32.const {HEAP}))
            (func $must (param $status i32) (if (local.get $status) (then (unreachable))))
            (func (export \"proxy_on_memory_allocate\") (param $size i32) (result i32)
                {}
                (global.get $heap)
                (global.set $heap (i32.add (global.get $heap) (local.get $size))))
            (func (export \"proxy_abi_version_{}\"))
            {})",
            self.allocate, self.abi, self.functions
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    /// The module.
    pub(crate) fn module(&self) -> Module {
        module(self.bytes().into())
    }

    /// `code` with each text between backticks replaced by its place and length; `\0` in it is a zero.
    fn filled(&mut self, code: &str) -> String {
        let mut filled = String::new();
        let mut rest = code;
        while let Some(begin) = rest.find('`') {
            let end = begin + 1 + rest[begin + 1..].find('`').expect("a text ends");
            let text = rest[begin + 1..end].replace("\\0", "\0");
            let at = TEXTS + self.texts.len();
            self.texts.extend_from_slice(text.as_bytes());
            let _ = write!(filled, "{}(i32.const {at}) (i32.const {})", &rest[..begin], text.len());
            rest = &rest[end + 1..];
        }
        assert!(TEXTS + self.texts.len() < HEAP, "texts and what is allocated do not meet");
        filled.push_str(rest);
        filled
    }
}

/// A route with these plugins.
pub(crate) fn stage(plugins: &[(&str, &Text)], filters: Value) -> Stage {
    stage_with(Limits::default(), plugins, filters)
}

pub(crate) fn stage_with(limits: Limits, plugins: &[(&str, &Text)], filters: Value) -> Stage {
    let modules: BTreeMap<_, _> = plugins.iter().map(|(name, text)| (name.parse().unwrap(), text.module())).collect();
    let mut stage = Stage::empty(limits);
    stage.publish_modules(&[("api", filters)], &modules);
    stage
}

/// A list of pairs as it lies in memory.
pub(crate) fn pairs(of: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = u32::try_from(of.len()).unwrap().to_le_bytes().to_vec();
    for length in of.iter().flat_map(|(name, value)| [name.len(), value.len()]) {
        bytes.extend(u32::try_from(length).unwrap().to_le_bytes());
    }
    for text in of.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend_from_slice(text.as_bytes());
        bytes.push(0);
    }
    bytes
}
