//! `outrider run`: the proxy.

use std::process::ExitCode;

/// Run the proxy
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(args: &Args) -> ExitCode {
    todo!("{args:?}")
}
