//! What `bindgen!` makes of the contract in `sdk/wit`: its types and the host traits. The exports are in `guest`, since one
//! instance's may suspend and another's may not.

wasmtime::component::bindgen!({
    path: "../sdk/wit",
    world: "filter",
    imports: { default: trappable },
    with: {
        "tidegate:filter/types.headers": super::lent::HeadersView,
        "tidegate:filter/types.body": super::lent::BodyView,
    },
});
