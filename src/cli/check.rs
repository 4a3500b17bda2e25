//! `outrider check`: every problem of a configuration at once.

use std::process::ExitCode;

/// Check a configuration and list every problem in it
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(args: &Args) -> ExitCode {
    todo!("{args:?}")
}
