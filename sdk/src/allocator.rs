//! Where a filter's memory comes from. Whatever the gateway hands over is put where the filter's allocator makes room, so
//! a part of the cost of every call is this: the standard library's takes two to four times the instructions.

use talc::wasm::{WasmDynamicTalc, new_wasm_dynamic_allocator};

#[global_allocator]
static ALLOCATOR: WasmDynamicTalc = new_wasm_dynamic_allocator();
