//! What `wit-bindgen` makes of the contract. Not for filters: they use the types at the root of the crate.

wit_bindgen::generate!({
    path: "wit",
    world: "filter",
    pub_export_macro: true,
    export_macro_name: "export",
    default_bindings_module: "tidegate_sdk::bindings",
    generate_all,
    ownership: Borrowing { duplicate_if_necessary: true },
});
