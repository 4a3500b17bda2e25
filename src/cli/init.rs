//! `outrider init`: a starter configuration.

use std::process::ExitCode;

/// Write a commented starter outrider.yml
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(args: &Args) -> ExitCode {
    todo!("{args:?}")
}
