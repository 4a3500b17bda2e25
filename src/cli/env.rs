//! `outrider env`: the variables that an app needs.
//!
//! This file writes them for a shell, a program or a `.env` file; [`mod@variables`], which `exec` also uses,
//! lists them.

use std::process::ExitCode;
use std::sync::Arc;

use super::{ConfigArg, fail, loopback, note, print, tell};
use crate::app::is_on_platform;
use crate::auth::placeholder::environment::{self, ChangedVariable};
use crate::auth::placeholder::{are_shared, replaced, shared};
use crate::ca;
use crate::config::{Ca, Config, DestinationKeys, Listen, NoProxyHost};
use crate::error::ErrorChain;
use crate::secret::Snapshot;

pub(super) use variables::{NoProxy, USER};

use overruling::overruling;
use variables::variables;

mod overruling;
mod variables;

/// Print the variables that send an app through the proxy
///
/// They name the first TCP address of `listen`, and the bundle and truststore of `ca`, which `outrider run` writes
/// when it starts. If another user could change these files, they are left out with a warning. Existing values of
/// NO_PROXY, JAVA_TOOL_OPTIONS, NODE_OPTIONS and PHP_INI_SCAN_DIR are kept. Variables that some client heeds before
/// these are named in a warning. After an error the shell gets `false`, so that `eval` fails as well.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  eval \"$(outrider env)\" && curl https://api.weather.gov/")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,

    /// The format of the output
    #[arg(short, long, value_enum, default_value_t = Format::Sh)]
    format: Format,

    /// Hosts that the app reaches without the proxy, instead of `no_proxy` of the configuration and what NO_PROXY holds
    #[arg(long, value_name = "LIST")]
    no_proxy: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// `export NAME='value'`, for `eval` in a POSIX shell
    Sh,
    /// One JSON object
    Json,
    /// NAME=value, as the dotenv libraries and Docker Compose read it
    Dotenv,
}

/// Why no address can be given to an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreachable {
    #[error(
        "listen has no TCP address, and variables cannot name a Unix socket; \
         add one, for example 127.0.0.1:3128"
    )]
    NoAddress,

    #[error(
        "listen has port 0, which becomes a real one only when the proxy starts; \
         write a port, or use `outrider exec -- CMD`, which gives CMD the real one"
    )]
    NoPort,
}

/// Why the app cannot get placeholders.
#[derive(Debug, thiserror::Error)]
enum NoPlaceholders {
    #[error(
        "no placeholders for the secrets of the app: there is no folder for placeholders.json that only this user can \
         change; correct ca.bundle, or write placeholders: {{ mode: never }}"
    )]
    Folder,

    #[error(transparent)]
    Shared(#[from] shared::Error),
}

pub(super) fn run(args: &Args) -> ExitCode {
    let config = match args.config.load() {
        Ok((config, _)) => config,
        Err(problems) => {
            note(&problems.to_string());
            return args.format.refuse();
        }
    };
    let listen = match reached_at(&config.listen) {
        Ok(listen) => listen,
        Err(error) => {
            fail(&error.to_string());
            return args.format.refuse();
        }
    };
    let ca = trusted(&config.ca);
    let mut changed = match changed(&config, ca.as_ref()) {
        Ok(changed) => changed,
        Err(error) => {
            fail(&ErrorChain(&error).to_string());
            return args.format.refuse();
        }
    };
    let existing = |name: &str| match changed.iter().find(|(own, _)| own == name) {
        Some((_, value)) => value.clone(),
        None => std::env::var(name).ok(),
    };
    let no_proxy = NoProxy::of(args.no_proxy.as_deref(), &config.no_proxy);
    let variables = given(
        &listen,
        None,
        ca.as_ref(),
        no_proxy,
        "",
        &config.destinations,
        existing,
    );
    // These hold already what `changed` says of them.
    changed.retain(|(name, _)| !variables.iter().any(|(own, _)| own == name));
    let variables = variables
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Some(value)));
    print(&args.format.write(&variables.chain(changed).collect::<Vec<_>>()))
}

/// Returns the variables in which an app gets placeholders for secrets. One without a value has to be removed. `ca`: as
/// it can be trusted.
fn changed(config: &Config, ca: Option<&Ca>) -> Result<Vec<(String, Option<String>)>, NoPlaceholders> {
    if !are_shared(&config.placeholders, is_on_platform()) {
        return Ok(Vec::new());
    }
    let Some(ca) = ca else {
        // The app must not start with the secrets instead.
        return match replaced(config).as_slice() {
            [] => Ok(Vec::new()),
            _ => Err(NoPlaceholders::Folder),
        };
    };
    let secrets = Snapshot::of_process();
    let set = shared::agree(config, &ca.bundle, &secrets)?;
    let changed = environment::changes(&set, &config.placeholders, &secrets, std::env::vars_os());
    let text = |changed: ChangedVariable| {
        // What is no text cannot be printed, and is removed: it would hold a secret.
        let value = changed.value.and_then(|value| value.into_string().ok());
        changed.name.into_string().ok().map(|name| (name, value))
    };
    Ok(changed.into_iter().filter_map(text).collect())
}

/// Returns the bundle and truststore that an app can trust. Prints a note if they are not at the configured place.
pub(super) fn trusted(ca: &Ca) -> Option<Ca> {
    match ca::settle(ca) {
        Ok(settled) if settled.bundle.to_str().is_none() || settled.truststore.to_str().is_none() => {
            tell(&format!(
                "no CA bundle is named, so intercepted connections will not be trusted: the name {} is not \
                 UTF-8; name another place in ca.bundle and ca.truststore, or another TMPDIR",
                settled.bundle.display()
            ));
            None
        }
        Ok(settled) => {
            let (bundle, usual) = (settled.bundle.display(), ca.bundle.display());
            if settled.bundle != ca.bundle {
                tell(&format!(
                    "the CA bundle is {bundle} if the proxy runs as this user: others could change {usual}"
                ));
            }
            Some(settled)
        }
        Err(error) => {
            let error = ErrorChain(&error);
            tell(&format!(
                "no CA bundle is named, so intercepted connections will not be trusted: {error}"
            ));
            None
        }
    }
}

/// Returns the variables that an app is given ([`variables()`]), and writes the files that they name if these are missing.
/// Prints which variables of its environment some clients heed before these, and which hosts of its NO_PROXY lose the
/// credentials of `destinations`.
pub(super) fn given(
    listen: &str,
    password: Option<&str>,
    ca: Option<&Ca>,
    no_proxy: NoProxy<'_>,
    command: &str,
    destinations: &[Arc<DestinationKeys>],
    existing: impl Fn(&str) -> Option<String> + Copy,
) -> Vec<(&'static str, String)> {
    let files = ca.and_then(client_files);
    let variables = variables(listen, password, ca, files.as_ref(), no_proxy, command, existing);
    for (name, _) in &variables {
        if std::env::var_os(name).is_some_and(|value| value.to_str().is_none()) {
            tell(&format!(
                "{name} is replaced: what it held is not UTF-8, so nothing of it can be kept"
            ));
        }
    }
    for line in bypassed(&variables, no_proxy, destinations) {
        tell(&line);
    }
    for line in overruling(&variables, existing) {
        tell(&line);
    }
    variables
}

/// Returns a line for each entry of NO_PROXY that is not from the configuration, which `check` looks at, and takes calls past
/// a credential. A loopback address is meant.
fn bypassed(
    variables: &[(&'static str, String)],
    no_proxy: NoProxy<'_>,
    destinations: &[Arc<DestinationKeys>],
) -> Vec<String> {
    let list = variables.iter().find(|(name, _)| *name == "no_proxy");
    let is_own = |entry: &str| match no_proxy {
        NoProxy::Listed(listed) => listed.iter().any(|own| own.as_str() == entry),
        NoProxy::Only(_) => false,
    };
    let is_loopback = |entry: &str| NoProxyHost::parse(entry).is_some_and(|own| own.is_loopback());
    NoProxyHost::bypassing(list.map_or("", |(_, list)| list), destinations)
        .filter(|(entry, _)| *entry != "*" && !is_own(entry) && !is_loopback(entry))
        .map(|(entry, own)| {
            format!(
                "NO_PROXY holds `{entry}`: it takes calls past the proxy, and destinations.{} attaches nothing to them; take it \
                 out of NO_PROXY",
                own.name
            )
        })
        .collect()
}

/// Returns the files beside the bundle that some clients read, which are written if they are missing. Prints a note if
/// that fails.
fn client_files(ca: &Ca) -> Option<ca::ClientFiles> {
    let written = ca::ClientFiles::write(&ca.bundle);
    written
        .inspect_err(|error| {
            tell(&format!(
                "PHP's curl and wget will not trust intercepted connections, and agents of Node's libraries \
                 will call past the proxy: {}",
                ErrorChain(error)
            ));
        })
        .ok()
}

/// Returns the first TCP address with a known port. A wildcard address becomes loopback.
pub(super) fn reached_at(listen: &[Listen]) -> Result<String, Unreachable> {
    let addresses = listen.iter().filter_map(Listen::address);
    let Some(address) = addresses.clone().find(|address| address.port() != 0) else {
        return Err(match addresses.count() {
            0 => Unreachable::NoAddress,
            _ => Unreachable::NoPort,
        });
    };
    Ok(loopback(address).unwrap_or(address).to_string())
}

impl Format {
    /// Prints what makes `eval` fail. `eval` of no text would succeed, and the next command would not use the
    /// proxy.
    fn refuse(self) -> ExitCode {
        if self == Self::Sh {
            print("false\n");
        }
        ExitCode::FAILURE
    }

    /// Returns the output, in whole lines.
    fn write(self, variables: &[(String, Option<String>)]) -> String {
        let lines = |line: fn(&str, Option<&str>) -> String| {
            let lines = variables.iter().map(|(name, value)| line(name, value.as_deref()));
            lines.collect::<String>()
        };
        match self {
            Self::Sh => lines(|name, value| match value {
                Some(value) => format!("export {name}={}\n", shell_quoted(value)),
                None => format!("unset -v {name}\n"),
            }),
            Self::Dotenv => {
                lines(|name, value| format!("{name}={}\n", dotenv_quoted(value.unwrap_or_default())))
            }
            Self::Json => {
                let object: serde_json::Map<_, _> = variables
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone().into()))
                    .collect();
                format!("{:#}\n", serde_json::Value::Object(object))
            }
        }
    }
}

/// Quotes for a POSIX shell: within single quotes only the quote itself is special.
fn shell_quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

/// Quotes for a `.env` file. Single quotes are literal in every dialect; a value with one needs double quotes
/// and escapes.
fn dotenv_quoted(value: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_./:,@%+-".contains(c);
    if value.chars().all(is_plain) {
        return value.to_owned();
    }
    if !value.contains(['\'', '\n']) {
        return format!("'{value}'");
    }
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '\n' => quoted.push_str("\\n"),
            '"' | '\\' | '$' | '`' => quoted.extend(['\\', c]),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A hostile path or NO_PROXY must not run a command in the shell that evaluates our output.
    const HOSTILE: &[&str] = &[
        "",
        "plain",
        "with space",
        "$(touch /tmp/owned)`id`$HOME",
        "it's",
        "'; exit 3; '",
        "\"double\" \\back",
        "a|b;c&d #e\nsecond line",
    ];

    #[test]
    fn a_shell_gets_every_value_back_as_it_was() {
        for value in HOSTILE {
            let text = Format::Sh.write(&[("OUTRIDER_TEST".to_owned(), Some((*value).to_owned()))]);
            let script = format!("set -eu; {text} printf %s \"$OUTRIDER_TEST\"");
            let output = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert!(output.status.success(), "{value:?}");
            assert_eq!(String::from_utf8(output.stdout).unwrap(), *value);
        }
    }

    #[test]
    fn json_is_one_object() {
        let variables: Vec<_> = HOSTILE
            .iter()
            .map(|value| ("NAME".to_owned(), Some((*value).to_owned())))
            .collect();
        for variable in variables {
            let text = Format::Json.write(std::slice::from_ref(&variable));
            let read: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(read, serde_json::json!({ "NAME": variable.1 }));
        }
    }

    #[test]
    fn dotenv_quotes_only_what_needs_it() {
        for (value, expected) in [
            ("http://127.0.0.1:3128", "N=http://127.0.0.1:3128\n"),
            ("a b|c", "N='a b|c'\n"),
            ("$(id)", "N='$(id)'\n"),
            ("it's $HOME", "N=\"it's \\$HOME\"\n"),
            ("", "N=\n"),
        ] {
            assert_eq!(
                Format::Dotenv.write(&[("N".to_owned(), Some(value.to_owned()))]),
                expected
            );
        }
    }

    #[test]
    fn hosts_of_the_users_own_list_that_lose_a_credential_are_told() {
        let attached = "auth: { bearer: env:TOKEN }";
        let text = format!(
            "no_proxy: [localhost, a.test]\ndestinations:\n  a: {{ hosts: [a.test], {attached} }}\n  \
             b: {{ hosts: [\"*.b.test\"], {attached} }}\n  c: {{ hosts: [c.test] }}\n  d: {{ hosts: [127.0.0.1], {attached} }}\n"
        );
        let config = Config::parse(&text, "a.yml").unwrap();
        for (list, told) in [
            // `check` tells of the list of the configuration.
            ("localhost,a.test", ""),
            ("c.test,other.test,127.0.0.1,*", ""),
            ("x.b.test", "`x.b.test`"),
            ("*.b.test", "`*.b.test`"),
            ("test", "`test`"),
        ] {
            let lines = bypassed(
                &[("no_proxy", list.to_owned())],
                NoProxy::of(None, &config.no_proxy),
                &config.destinations,
            );
            assert_eq!(lines.len(), usize::from(!told.is_empty()), "{list}: {lines:?}");
            assert!(lines.join("").contains(told), "{list}: {lines:?}");
        }
        let only = [("no_proxy", "a.test".to_owned())];
        assert_eq!(
            bypassed(&only, NoProxy::Only("a.test"), &config.destinations).len(),
            1
        );
    }

    #[test]
    fn the_first_tcp_address_is_given_and_a_wildcard_becomes_loopback() {
        let tcp = |text: &str| Listen::Tcp(text.parse().unwrap());
        let unix = || Listen::Unix("/tmp/outrider.sock".into());
        for (listen, expected) in [
            (vec![tcp("127.0.0.1:3128")], Ok("127.0.0.1:3128")),
            (vec![unix(), tcp("0.0.0.0:8081")], Ok("127.0.0.1:8081")),
            (vec![tcp("[::]:8081")], Ok("[::1]:8081")),
            (vec![tcp("127.0.0.1:0"), tcp("127.0.0.1:9")], Ok("127.0.0.1:9")),
            (vec![tcp("127.0.0.1:0")], Err(Unreachable::NoPort)),
            (vec![unix()], Err(Unreachable::NoAddress)),
        ] {
            assert_eq!(reached_at(&listen), expected.map(str::to_owned), "{listen:?}");
        }
    }
}
