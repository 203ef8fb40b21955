//! What `wit-bindgen` makes of the contract. Not for filters: they use the types at the root of the crate.
//!
//! The larger world is generated for every filter. What a filter never calls is not in its module, so only those that call
//! `outbound::send` import that interface, and the gateway sees by its imports which world a filter is of.

wit_bindgen::generate!({
    path: "wit",
    world: "filter-with-outbound",
    pub_export_macro: true,
    export_macro_name: "export",
    default_bindings_module: "tidegate_sdk::bindings",
    generate_all,
    ownership: Borrowing { duplicate_if_necessary: true },
});
