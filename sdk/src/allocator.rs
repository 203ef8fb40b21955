//! Where a filter's memory comes from. Whatever the gateway hands over is put where the filter's allocator makes room, so
//! that it is a part of what each call costs.

use talc::wasm::{WasmDynamicTalc, new_wasm_dynamic_allocator};

#[global_allocator]
static ALLOCATOR: WasmDynamicTalc = new_wasm_dynamic_allocator();
