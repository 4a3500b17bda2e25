//! `outrider run`: starts the proxy. `exec` and `demo` use its parts.

use std::process::ExitCode;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArg, note, tell};
use crate::app::{Addresses, App, Error, PlaceholderSource, Termination};
use crate::clients::CommandClient;
use crate::error::ErrorChain;

/// Run the proxy
///
/// Without --config, the configuration is $OUTRIDER_CONFIG, else ./outrider.yml, else a built-in default that
/// tunnels everything except private and metadata networks. SIGHUP reloads it, and so does a change of the
/// file. SIGTERM and SIGINT let requests in flight finish; a second signal does not.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  outrider run --config outrider.yml")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn serve(args: &Args) -> Result<(), Error> {
    runtime()?.block_on(async {
        // First, so that no signal meets the default handler. The app itself listens for SIGHUP.
        let mut termination = Termination::new()?;
        let _hangup = signal(SignalKind::hangup())?;
        let (config, source) = args.config.load()?;
        let mut app = tokio::select! {
            app = App::start(config, source, CommandClient::default(), PlaceholderSource::Shared) => app?,
            () = termination.wait() => return Ok(()),
        };
        note(&started(app.addresses()));
        app.run(termination.wait()).await?;
        app.drain(termination.wait()).await;
        Ok(())
    })
}

/// Builds the runtime of the main thread, which serves reloads and the admin port, but no requests.
pub(super) fn runtime() -> Result<Runtime, Error> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Returns the line that says where the proxy, the metrics and the CA bundle are.
pub(super) fn started(addresses: &Addresses) -> String {
    let listen: Vec<_> = addresses.listen.iter().map(ToString::to_string).collect();
    let admin = addresses
        .admin
        .map(|admin| format!(", metrics on http://{admin}/metrics"))
        .unwrap_or_default();
    format!(
        "outrider {}: proxy on {}{admin}, CA bundle {}",
        env!("CARGO_PKG_VERSION"),
        listen.join(" and "),
        addresses.ca.bundle.display(),
    )
}

/// Prints why the proxy did not start. Problems of the configuration are printed as by `outrider check`, one a
/// line.
pub(super) fn fail(error: &Error) -> ExitCode {
    match error {
        Error::Config(problems) => note(&problems.to_string()),
        other => tell(&ErrorChain(other).to_string()),
    }
    ExitCode::FAILURE
}
