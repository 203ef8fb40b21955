//! The `tidegate` program: reads the settings, starts the control plane and the data plane, and ends both in order.

mod command;

use std::process::ExitCode;

/// Many small allocations that end on the thread where they began: jemalloc gives out what was freed last, which is still in the
/// cache (decision 0015). `.cargo/config.toml` says how it begins.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    command::run()
}
