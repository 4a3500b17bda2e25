//! `outrider run`: the proxy. Also what `exec` and `demo` need to run one.

use std::process::ExitCode;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::ConfigArg;
use crate::app::{Addresses, App, Error, Termination};
use crate::config::Listen;
use crate::proxy::Clients;
use crate::telemetry::log::Chain;

/// Run the proxy
///
/// Without --config, the configuration is $OUTRIDER_CONFIG, else ./outrider.yml, else a built-in default that tunnels
/// everything except private and metadata networks. SIGHUP reloads it, and so does a change of the file; SIGTERM and
/// SIGINT let what is going on finish, a second one does not.
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
        // First of all, so that no signal finds the default handler. SIGHUP is listened to by the app itself.
        let mut termination = Termination::new()?;
        let _hangup = signal(SignalKind::hangup())?;
        let (config, source) = args.config.load()?;
        let mut app = tokio::select! {
            app = App::start(config, source, Clients::default()) => app?,
            () = termination.wait() => return Ok(()),
        };
        eprintln!("{}", started(app.addresses()));
        app.run(termination.wait()).await?;
        app.drain(termination.wait()).await;
        Ok(())
    })
}

/// The runtime of the main thread: changes and the admin port, no requests.
pub(super) fn runtime() -> Result<Runtime, Error> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// The one line that says where everything is.
pub(super) fn started(addresses: &Addresses) -> String {
    let listen: Vec<_> = addresses.listen.iter().map(door).collect();
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

fn door(listen: &Listen) -> String {
    match listen {
        Listen::Tcp(address) => address.to_string(),
        Listen::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Says why nothing started. Problems of the configuration come a line each, as from `outrider check`.
pub(super) fn fail(error: &Error) -> ExitCode {
    match error {
        Error::Config(problems) => eprintln!("{problems}"),
        other => eprintln!("outrider: {}", Chain(other)),
    }
    ExitCode::FAILURE
}
