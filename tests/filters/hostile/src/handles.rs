//! Uses handles that are no longer lent. Natively there are none, and nothing is done.

#[cfg(not(target_arch = "wasm32"))]
pub(super) use native::*;
#[cfg(target_arch = "wasm32")]
pub(super) use wasm::*;

#[cfg(not(target_arch = "wasm32"))]
mod native {
    pub(crate) fn keep_head() {}

    pub(crate) fn keep_body() {}

    pub(crate) fn kept_are_used() {}
}

#[cfg(target_arch = "wasm32")]
mod wasm {
    use std::{cell::Cell, mem::ManuallyDrop};
    use tidegate_sdk::bindings::tidegate::filter::types;

    /// What was kept in an earlier phase.
    #[derive(Clone, Copy)]
    enum Kept {
        Head,
        Body,
    }

    std::thread_local! {
        static KEPT: Cell<Option<Kept>> = const { Cell::new(None) };
    }

    /// Numbers that were never lent, or no longer are: those of a callback are small, or grow from one to the next.
    const STALE: [u32; 3] = [1 << 24, (1 << 24) + 1, (1 << 24) + 2];

    pub(crate) fn keep_head() {
        KEPT.set(Some(Kept::Head));
    }

    pub(crate) fn keep_body() {
        KEPT.set(Some(Kept::Body));
    }

    pub(crate) fn kept_are_used() {
        let Some(kept) = KEPT.take() else { return };
        for handle in STALE {
            // SAFETY: none, which is the point.
            let length = match kept {
                Kept::Head => {
                    let stale = ManuallyDrop::new(unsafe { types::Headers::from_handle(handle) });
                    stale.get("user-agent").map_or(0, |value| value.len() as u64)
                }
                Kept::Body => ManuallyDrop::new(unsafe { types::Body::from_handle(handle) }).len(),
            };
            crate::report("kept", "values", length);
        }
    }
}
