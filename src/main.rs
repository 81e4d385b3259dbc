//! The `holdline` command.

use std::process::ExitCode;

/// Gives the memory of closed pipes back to the system; how soon is set in `.cargo/config.toml`.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    holdline::cli::main()
}
