//! `outrider exec`: runs one command behind the proxy.
//!
//! The command is a child in our process group, so that the terminal treats both as one job. Signals that only
//! we receive are passed on, except SIGHUP, which reloads the configuration. We end when the command has ended,
//! with its status.
//!
//! This is not an init: orphans of the command are not reaped. If `exec` is the first process of a container,
//! let the container run an init before it.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use zeroize::Zeroizing;

use super::env::{NoProxy, USER, Unreachable, given, reached_at, trusted};
use super::run::{fail, runtime, started};
use super::{ConfigArg, note};
use crate::app::{self, App, PlaceholderSource};
use crate::auth::placeholder::environment::{self, ChangedVariable};
use crate::auth::placeholder::{NoRandom, PlaceholderSet};
use crate::clients::CommandClient;
use crate::config::{Ca, Config, PlaceholderMode};
use crate::secret::Snapshot;

use child::ChildProcess;

mod child;
mod heed;

/// Run a command with all of its traffic through the proxy
///
/// Starts the proxy, writes the CA bundle, then starts CMD with the variables that `outrider env` prints. Port
/// 0 in `listen` is allowed. The proxy asks for a random password, which these variables carry, so that other
/// users of the host cannot use it. Secrets that destinations take from variables or bound services are replaced by
/// placeholders in the environment of CMD, and come back in the requests to these destinations. SIGHUP reloads the
/// configuration; other signals are passed on to CMD. When CMD ends, the proxy ends with its status, or with 128+N if
/// signal N ended it. If the configuration leaves ca.bundle at its default, CMD gets a private bundle.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  outrider exec -- curl https://api.weather.gov/\n  outrider exec --check -- node app.js"
)]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,

    /// Hosts that CMD reaches without the proxy, instead of `no_proxy` of the configuration and what NO_PROXY holds
    #[arg(long, value_name = "LIST")]
    no_proxy: Option<String>,

    /// Serve every user of this host who reaches the proxy, for a CMD that cannot send the password (Java)
    #[arg(long)]
    no_password: bool,

    /// Leave the secrets that destinations use in the environment of CMD, instead of placeholders
    #[arg(long)]
    keep_secrets: bool,

    /// Do not run CMD: say what its runtime (Node, Python, Java, PHP …) heeds of the variables, try a request and its trust,
    /// and show the last refusals of the outrider that runs
    #[arg(long)]
    check: bool,

    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD", value_hint = clap::ValueHint::CommandWithArguments)]
    command: Vec<OsString>,
}

/// Why the command does not run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    App(#[from] app::Error),

    #[error(transparent)]
    Child(#[from] child::Error),

    #[error("no folder for the CA bundle: {0}; set TMPDIR to a folder that can be written")]
    Folder(io::Error),

    #[error("the system has no random bytes for a password; look into its log")]
    Random,

    #[error(transparent)]
    Placeholders(#[from] NoRandom),

    #[error(transparent)]
    Unreachable(#[from] Unreachable),
}

pub(super) fn run(args: &Args) -> ExitCode {
    match serve(args) {
        Ok(code) => ExitCode::from(code),
        Err(Error::App(error)) => fail(&error),
        Err(error @ (Error::Folder(_) | Error::Random | Error::Placeholders(_) | Error::Unreachable(_))) => {
            super::fail(&error.to_string())
        }
        Err(Error::Child(error)) => {
            super::fail(&error.to_string());
            ExitCode::from(error.code())
        }
    }
}

/// Runs the proxy and the command. Returns the exit code of the command.
fn serve(args: &Args) -> Result<u8, Error> {
    runtime()?.block_on(async {
        let (mut config, source) = args.config.load().map_err(app::Error::from)?;
        // Removed when the command has ended.
        let folder = tempfile::Builder::new().prefix("outrider-").tempdir();
        let folder = folder.map_err(Error::Folder)?;
        use_private_bundle(&mut config.ca, folder.path());
        let running = if args.check {
            heed::prepare(&mut config)
        } else {
            None
        };
        let password = (!args.no_password).then(password).transpose()?;
        let clients = match password.as_deref() {
            Some(password) => CommandClient::basic(USER, password),
            None => CommandClient::default(),
        };
        let secrets = Snapshot::of_process();
        let set = placeholders(args, &config, &secrets)?;
        let changed = match &set {
            Some(set) => environment::changes(set, &config.placeholders, &secrets, std::env::vars_os()),
            None => Vec::new(),
        };
        drop(secrets);
        let (listed, destinations) = (config.no_proxy.clone(), config.destinations.clone());
        let mut app = App::start(config, source, clients, PlaceholderSource::Given(set)).await?;
        let addresses = app.addresses();
        let listen = reached_at(&addresses.listen)?;
        note(&started(addresses));

        if let Some(line) = told(&changed) {
            note(&line);
        }
        let existing = |name: &str| match changed.iter().find(|changed| changed.name == name) {
            Some(changed) => changed.value.as_ref()?.to_str().map(str::to_owned),
            None => std::env::var(name).ok(),
        };
        let password = password.as_deref().map(String::as_str);
        // One that could not be written, as on a full disk, has been told of. Clients that are pointed at it would trust
        // nothing at all.
        let ca = trusted(&addresses.ca).filter(|ca| ca.bundle.is_file() && ca.truststore.is_file());
        let no_proxy = NoProxy::of(args.no_proxy.as_deref(), &listed);
        let words: Vec<_> = args.command.iter().map(|word| word.to_string_lossy()).collect();
        let variables = given(
            &listen,
            password,
            ca.as_ref(),
            no_proxy,
            &words.join(" "),
            &destinations,
            existing,
        )
        .into_iter()
        .map(|(name, value)| (name.into(), Some(value.into())));
        let changed = changed.into_iter().map(|changed| (changed.name, changed.value));
        let all: Vec<(OsString, Option<OsString>)> = changed.chain(variables).collect();
        if args.check {
            let trial = heed::Trial {
                app: &app,
                folder: folder.path(),
                variables: &all,
            };
            let code = heed::check(&args.command, trial).await;
            heed::tell_refusals(running);
            return Ok(code);
        }
        let child = ChildProcess::start(&args.command, all)?;
        // Only orphans of the command could use the proxy after it has ended: no reason to drain.
        let code = app.run(child.end()).await??;
        app.report_last().await;
        Ok(code)
    })
}

/// Returns the placeholders for the command. `None`: it gets the secrets.
fn placeholders(
    args: &Args,
    config: &Config,
    secrets: &Snapshot,
) -> Result<Option<Arc<PlaceholderSet>>, NoRandom> {
    if args.keep_secrets || config.placeholders.mode == PlaceholderMode::Never {
        return Ok(None);
    }
    let set = PlaceholderSet::of(config, secrets, |_| None)?;
    Ok((!set.is_empty()).then(|| Arc::new(set)))
}

/// Returns the line that says what is changed in the environment of the command.
fn told(changed: &[ChangedVariable]) -> Option<String> {
    let names = |is_copy: bool| {
        let names = changed.iter().filter(|changed| changed.is_copy == is_copy);
        let names: Vec<_> = names.map(|changed| changed.name.to_string_lossy()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let copies = names(true)
        .map(|names| format!(", also in {names}"))
        .unwrap_or_default();
    names(false).map(|names| {
        format!(
            "outrider: the command gets placeholders instead of {names}{copies}; in its requests they become the secrets \
             (--keep-secrets turns it off)"
        )
    })
}

/// Returns 256 random bits of the system, in letters that need no escape in a URL.
fn password() -> Result<Zeroizing<String>, Error> {
    let mut bytes = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| Error::Random)?;
    Ok(Zeroizing::new(BASE64URL_NOPAD.encode(&*bytes)))
}

/// Moves the bundle and the truststore to `folder`, unless the configuration names a place. At the default
/// place they would replace those of another proxy, whose app would then trust the wrong authority.
fn use_private_bundle(ca: &mut Ca, folder: &Path) {
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
        use_private_bundle(&mut ca, Path::new("/tmp/outrider-x"));
        assert_eq!(ca.bundle, Path::new("/tmp/outrider-x/ca-bundle.pem"));
        assert_eq!(ca.truststore, Path::new("/tmp/outrider-x/truststore.p12"));

        ca.bundle = "/srv/named.pem".into();
        use_private_bundle(&mut ca, Path::new("/tmp/outrider-y"));
        assert_eq!(ca.bundle, Path::new("/srv/named.pem"));
    }
}
