//! What a person types.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod check;
mod completions;
mod demo;
mod env;
mod exec;
mod explain;
mod init;
mod run;
mod schema;

/// Attach the right credential to every outbound call of an app, and keep to its limits.
#[derive(Debug, Parser)]
#[command(name = "outrider", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Completions(completions::Args),
    Demo(demo::Args),
    Env(env::Args),
    Exec(exec::Args),
    Explain(explain::Args),
    Init(init::Args),
    Run(run::Args),
    Schema(schema::Args),
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Check(args) => check::run(&args),
        Command::Completions(args) => completions::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Env(args) => env::run(&args),
        Command::Exec(args) => exec::run(&args),
        Command::Explain(args) => explain::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Schema(args) => schema::run(&args),
    }
}
