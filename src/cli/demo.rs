//! `outrider demo`: the main job with nothing prepared.

use std::process::ExitCode;

/// Show the main job on this machine, with nothing prepared
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(args: &Args) -> ExitCode {
    todo!("{args:?}")
}
