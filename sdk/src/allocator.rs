//! Where a filter's memory comes from. Whatever the gateway hands over is put where the filter's allocator makes room, so
//! that it is a part of what each call costs.

use crate::free_lists::FreeLists;
use talc::wasm::{WasmDynamicTalc, new_wasm_dynamic_allocator};

#[global_allocator]
static ALLOCATOR: FreeLists<WasmDynamicTalc> = FreeLists::before(new_wasm_dynamic_allocator());

/// Where its free lists are, for the gateway, which asks once.
#[expect(unsafe_code, reason = "a name that the gateway knows")]
#[unsafe(no_mangle)]
extern "C" fn tidegate_free_lists() -> *const () {
    (&raw const ALLOCATOR).cast()
}
