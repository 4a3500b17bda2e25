//! The `outrider` program: parse the command line, run it, choose the exit code.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// Gives freed memory back to the system, which glibc's allocator keeps: `limits.memory` is judged by what is resident.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    outrider::cli::main()
}
