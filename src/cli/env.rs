//! `outrider env`: the variables that an app needs.

use std::process::ExitCode;

/// Print the variables that send an app through the proxy
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(args: &Args) -> ExitCode {
    todo!("{args:?}")
}
