//! `outrider exec`: the proxy around one command.
//!
//! The command runs as a child in our own process group, so that the terminal treats both as one job. Signals that
//! reach us alone are passed on; we end when it has ended, with its status.
//!
//! This is no init: orphans of the command are not collected. Where `exec` is the first process of a container, let the
//! container run an init before it.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use super::ConfigArg;
use super::env::{Unreachable, reached_at, variables};
use super::run::{fail, runtime, started};
use crate::app::{App, Error};
use crate::config::{Ca, Config};

mod child;

/// Run a command with all of its traffic through the proxy
///
/// Starts the proxy, writes the CA bundle, then starts CMD with the variables that `outrider env` prints. Port 0 in
/// `listen` is welcome. Signals are passed on to CMD; when it ends, the proxy ends with its status, or with 128+N where
/// signal N ended it. Where the configuration leaves ca.bundle at its default, CMD gets a bundle of its own.
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
    match serve(args) {
        Ok(Ok(code)) => ExitCode::from(code),
        Ok(Err(error)) => super::fail(&error.to_string()),
        Err(error) => fail(&error),
    }
}

/// The exit code of the command; or why it could not be told where the proxy is.
fn serve(args: &Args) -> Result<Result<u8, Unreachable>, Error> {
    runtime()?.block_on(async {
        // First of all, before somebody else changes what is ignored.
        let signals = child::Signals::catch()?;
        let (mut config, source) = args.config.load()?;
        // It lives as long as the command.
        let folder = tempfile::Builder::new().prefix("outrider-").tempdir()?;
        keep_apart(&mut config.ca, folder.path());
        let mut app = App::start(config, source)?;
        let addresses = app.addresses();
        let listen = match reached_at(&addresses.listen) {
            Ok(listen) => listen,
            Err(error) => return Ok(Err(error)),
        };
        eprintln!("{}", started(addresses));

        let existing = |name: &str| std::env::var(name).ok();
        let variables = variables(&listen, &addresses.ca, args.no_proxy.as_deref(), existing);
        let code = app
            .run(child::supervise(&args.command, variables, signals))
            .await?;
        // Whoever would still use the proxy is an orphan of a command that has ended: no reason to stay.
        Ok(Ok(code?))
    })
}

/// A bundle of its own for each command, unless the configuration names a place: at the default place it would replace
/// the bundle of whoever else runs, whose app would then trust the wrong authority.
fn keep_apart(ca: &mut Ca, folder: &Path) {
    let default = Config::embedded().ca;
    if ca.bundle == default.bundle {
        ca.bundle = folder.join("ca-bundle.pem");
    }
    if ca.truststore == default.truststore {
        ca.truststore = folder.join("truststore.p12");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_commands_do_not_share_the_default_bundle_but_a_named_one_stays() {
        let mut ca = Config::embedded().ca;
        keep_apart(&mut ca, Path::new("/tmp/outrider-x"));
        assert_eq!(ca.bundle, Path::new("/tmp/outrider-x/ca-bundle.pem"));
        assert_eq!(ca.truststore, Path::new("/tmp/outrider-x/truststore.p12"));

        ca.bundle = "/srv/named.pem".into();
        keep_apart(&mut ca, Path::new("/tmp/outrider-y"));
        assert_eq!(ca.bundle, Path::new("/srv/named.pem"));
    }
}
