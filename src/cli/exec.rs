//! `outrider exec`: the proxy around one command.
//!
//! The command runs as a child in our own process group, so that the terminal treats both as one job. Signals that
//! reach us alone are passed on; we end when it has ended, with its status.
//!
//! This is no init: orphans of the command are not collected. Where `exec` is the first process of a container, let the
//! container run an init before it.

use std::ffi::OsString;
use std::process::ExitCode;

use super::ConfigArg;

mod child;

/// Run a command with all of its traffic through the proxy
///
/// Starts the proxy, writes the CA bundle, then starts CMD with the variables that `outrider env` prints. Signals are
/// passed on to CMD; when it ends, the proxy ends with its status, or with 128+N where signal N ended it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  outrider exec -- curl https://api.weather.gov/")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,

    /// Hosts that CMD reaches without the proxy, instead of loopback, apps.internal and what NO_PROXY holds
    #[arg(long, value_name = "LIST")]
    no_proxy: Option<String>,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD", value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

pub(super) fn run(args: &Args) -> ExitCode {
    todo!("{args:?}")
}
