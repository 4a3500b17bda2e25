//! `outrider schema`: the JSON schema of the configuration.

use std::process::ExitCode;

use super::print;
use crate::config;

/// Print the JSON schema of the configuration
///
/// An editor that knows the schema completes keys, shows what they mean, and marks what is wrong while you type.
/// It is JSON Schema, draft 2020-12. What it cannot say, `outrider check` does.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  outrider schema > outrider.schema.json

  Then, for editors with the YAML language server, this as a line of outrider.yml:
  # yaml-language-server: $schema=outrider.schema.json")]
pub(super) struct Args {}

/// Prints it.
pub(super) fn run(_: &Args) -> ExitCode {
    print(&format!("{:#}\n", config::schema()))
}
