//! `outrider exec`: the proxy around one command.

use std::process::ExitCode;

/// Run a command with all of its traffic through the proxy
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(args: &Args) -> ExitCode {
    todo!("{args:?}")
}
