//! `outrider schema`: the JSON schema of the configuration.

use std::process::ExitCode;

/// Print the JSON schema of the configuration
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(args: &Args) -> ExitCode {
    todo!("{args:?}")
}
