//! `outrider completions`: shell completions.

use std::process::ExitCode;

/// Print shell completions
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(args: &Args) -> ExitCode {
    todo!("{args:?}")
}
