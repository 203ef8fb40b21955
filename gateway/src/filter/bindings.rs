//! What `bindgen!` makes of the contract in `sdk/wit`: the host traits to implement and the exports to call.

wasmtime::component::bindgen!({
    path: "../sdk/wit",
    world: "filter",
    imports: { default: trappable },
    with: { "tidegate:filter/types.headers": super::state::HeadersView },
});
