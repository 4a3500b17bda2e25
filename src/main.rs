//! The `outrider` program: runs the command line and returns its exit code.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Returns freed memory to the system; glibc's allocator keeps it, and `limits.memory` is compared with
/// resident memory.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    outrider::cli::main()
}
