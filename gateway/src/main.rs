//! The `tidegate` program: reads the settings, starts the control plane and the data plane, and ends both in order.

mod command;

use std::process::ExitCode;

/// Many small allocations of many threads that end where they began: mimalloc serves them from per-thread pages, and
/// gives memory back to the system more readily than the C library's allocator does.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    command::run()
}
