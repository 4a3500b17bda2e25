//! `outrider explain`: the verdict on a URL, and why.

use std::process::ExitCode;

/// Say what would happen to a request, and why
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(args: &Args) -> ExitCode {
    todo!("{args:?}")
}
