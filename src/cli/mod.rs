//! The command line: subcommands, their arguments and their output.
#![warn(
    clippy::print_stderr,
    reason = "it panics where nobody reads; `note` does not"
)]

use std::io::{ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueHint};

use crate::config::{self, Config, ConfigSource, Problems};

mod admin_page;
mod check;
mod completions;
mod demo;
mod diff;
#[cfg(test)]
mod documents;
mod env;
mod evidence;
mod exec;
mod explain;
mod init;
mod learn;
mod package;
mod replace;
mod role;
mod run;
mod schema;

/// The version and the cryptography module.
const VERSION: &str = if cfg!(feature = "fips") {
    concat!(env!("CARGO_PKG_VERSION"), " (aws-lc-fips)")
} else {
    concat!(env!("CARGO_PKG_VERSION"), " (aws-lc-rs)")
};

/// Attach the right credential to every outbound call of an app, and keep to its limits.
#[derive(Debug, Parser)]
#[command(
    name = "outrider",
    version = VERSION,
    after_help = "\
Start here:
  outrider demo                          see it work, with nothing prepared
  outrider init                          write outrider.yml, then list a destination in it
  outrider check                         is it sound?
  outrider explain https://HOST/         what would happen to a request?
  outrider exec -- curl https://HOST/    run a command with all of its traffic through the proxy"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
#[command(defer = true)]
enum Command {
    Check(check::Args),
    Completions(completions::Args),
    Demo(demo::Args),
    Env(env::Args),
    Evidence(evidence::Args),
    Exec(exec::Args),
    Explain(explain::Args),
    Init(init::Args),
    Learn(learn::Args),
    Package(package::Args),
    Role(role::Args),
    Run(run::Args),
    Schema(schema::Args),
}

/// The configuration of a subcommand; flattened into its arguments.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConfigArg {
    /// The configuration file; else $OUTRIDER_CONFIG, else ./outrider.yml, else what is built in
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    config: Option<PathBuf>,
}

impl ConfigArg {
    /// Finds and reads the configuration.
    pub(crate) fn load(&self) -> Result<(Config, ConfigSource), Problems> {
        config::load_located(self.config.as_deref())
    }
}

/// Returns where a listener is reached on this machine, if it listens on loopback.
fn loopback(listener: SocketAddr) -> Option<SocketAddr> {
    match listener.ip() {
        ip if ip.is_loopback() => Some(listener),
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Some((Ipv4Addr::LOCALHOST, listener.port()).into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Some((Ipv6Addr::LOCALHOST, listener.port()).into()),
        _ => None,
    }
}

/// Prints to standard output. A reader that closes early, such as `head`, is not a failure.
fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => fail(&format!("cannot write: {error}")),
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}

/// Prints an error to standard error and returns the exit code for it.
fn fail(why: &str) -> ExitCode {
    tell(why);
    ExitCode::FAILURE
}

/// Says something beside the result.
fn tell(line: &str) {
    note(&format!("outrider: {line}"));
}

/// Prints a line to standard error. Where nobody reads it, or the disk is full, nobody is told: `eprintln!` would panic.
fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes the whole file or nothing.
fn write_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Returns the definition of the command line, for completions, tests and the list of all commands: with what each says of itself.
fn command() -> clap::Command {
    Cli::command().mut_subcommands(|one| {
        let mut built = one.clone();
        built.build();
        one.about(built.get_about().cloned().unwrap_or_default())
            .hide(built.is_hide_set())
    })
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    // Inlined here, each command would have a part of the frame, 48 kB that stay resident as long as this one runs.
    let run: Box<dyn FnOnce() -> ExitCode> = match parse() {
        Command::Check(args) => Box::new(move || check::run(&args)),
        Command::Completions(args) => Box::new(move || completions::run(&args)),
        Command::Demo(args) => Box::new(move || demo::run(&args)),
        Command::Env(args) => Box::new(move || env::run(&args)),
        Command::Evidence(args) => Box::new(move || evidence::run(&args)),
        Command::Exec(args) => Box::new(move || exec::run(&args)),
        Command::Explain(args) => Box::new(move || explain::run(&args)),
        Command::Init(args) => Box::new(move || init::run(&args)),
        Command::Learn(args) => Box::new(move || learn::run(&args)),
        Command::Package(args) => Box::new(move || package::run(&args)),
        Command::Role(args) => Box::new(move || role::run(&args)),
        Command::Run(args) => Box::new(move || run::run(&args)),
        Command::Schema(args) => Box::new(move || schema::run(&args)),
    };
    run()
}

/// Builds only the subcommand that is asked for: the others would take 100 kB of the program.
fn parse() -> Command {
    let mut definition = Cli::command();
    let first = std::env::args_os().nth(1).unwrap_or_default();
    if !definition.get_subcommands().any(|one| first == one.get_name()) {
        definition = command();
    }
    let cli = Cli::from_arg_matches(&definition.get_matches_mut());
    cli.unwrap_or_else(|error| error.format(&mut definition).exit())
        .command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::CRYPTO;

    #[test]
    fn the_version_names_the_cryptography_as_the_metrics_do() {
        assert_eq!(VERSION, format!("{} ({CRYPTO})", env!("CARGO_PKG_VERSION")));
    }
}
