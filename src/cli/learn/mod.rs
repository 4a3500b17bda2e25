//! `outrider learn`: destinations for what `egress.default: observe` has let pass.
//!
//! The record is read from a running outrider or from its log ([`record`]), turned into new destinations ([`plan`]) and
//! added to the text of the file by `config`, which changes nothing else. What is written has been loaded before by the
//! code that loads it in `outrider run`. Existing destinations are never changed: with a host they would also give away
//! their credentials.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueHint;
use http::Uri;

use super::{ConfigArg, admin_page, diff, fail, loopback, print, replace, tell};
use crate::config::{
    Config, ConfigSource, DEFAULT_FILE, MergeError, NewDestination, Problems, add_destinations,
    destination_lines, locate,
};
use crate::error::ErrorChain;
use crate::policy::Policy;

use plan::{Plan, Wish};
use record::Record;

mod globs;
mod names;
mod plan;
mod record;
#[cfg(test)]
mod tests;

/// Make destinations of what egress.default: observe has let pass
///
/// Asks the running outrider what it has observed, or reads its JSON log, and shows as a diff which destinations would
/// allow exactly that: the hosts and ports that answered, without a credential. Destinations that are there already are
/// never changed. With --write the file is replaced, after the new one has been checked; comments, blank lines, quotes
/// and order stay. Exits with 0 also where nothing is new, and with 1 where the record cannot be read or the file cannot
/// be merged.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outrider learn                                   show what would be added to outrider.yml
  outrider learn --write                           add it
  outrider learn --from http://127.0.0.1:9901      ask another admin port than the configuration's
  cf logs my-app --recent | outrider learn -       from the log, where nothing can be asked")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,

    /// Where the record is: the admin port of an outrider; default: that of the configuration
    #[arg(long, value_name = "URL", conflicts_with = "log")]
    from: Option<String>,

    /// One destination of this name for all new hosts, instead of one for each
    #[arg(long, value_name = "NAME", conflicts_with = "paths")]
    name: Option<String>,

    /// Also list paths and methods, where all requests to a host were seen; identifiers in paths become *
    #[arg(long)]
    paths: bool,

    /// Change the file, instead of showing the difference only
    #[arg(short, long)]
    write: bool,

    /// A JSON log of outrider to read instead; - is standard input
    #[arg(value_name = "LOG", value_hint = ValueHint::FilePath)]
    log: Option<PathBuf>,
}

const NOTHING: &str =
    "nothing was observed; `egress.default: observe` has to be in force while the app sends its requests";

const NOTHING_LOGGED: &str = "no line of the log is about something observed; outrider writes them with `egress.default: \
                              observe`, `log.format: json` and `log.access: errors` or `all`";

/// Why nothing could be learned.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Config(Problems),
    #[error("{place} cannot be read")]
    Log { place: String, source: io::Error },
    #[error("{file} is left as it is")]
    Merge {
        file: String,
        new: Vec<NewDestination>,
        source: MergeError,
    },
    #[error(transparent)]
    Name(#[from] plan::NameError),
    #[error(
        "the configuration has {0}, so that there is no page to ask; name one with --from http://127.0.0.1:9901, or read \
         the log: outrider learn -"
    )]
    NoAdmin(&'static str),
    #[error("--from takes the address of an admin port, as in http://127.0.0.1:9901")]
    NoUrl,
    #[error(
        "no record at {at} ({cause}): an outrider has to run there, with `egress.default: observe`; another place is named \
         with --from, and a log is read with: outrider learn -"
    )]
    Page { at: String, cause: io::Error },
    #[error("with the new destinations the file would not be sound, and it is left as it is:\n{0}")]
    Unsound(Problems),
    #[error("{file} is left as it is")]
    Write {
        file: String,
        source: replace::ReplaceError,
    },
}

/// What is to be changed.
struct Base {
    config: Config,
    path: PathBuf,
    policy: Policy,
    /// Empty if there is no file yet.
    text: String,
}

pub(super) fn run(args: &Args) -> ExitCode {
    match learn(args) {
        Ok(code) => code,
        Err(error) => {
            let code = fail(&ErrorChain(&error).to_string());
            if let Error::Merge { new, .. } = &error {
                tell(&format!("the lines to add:\n\n{}", destination_lines(new)));
            }
            code
        }
    }
}

fn learn(args: &Args) -> Result<ExitCode, Error> {
    let base = Base::read(&args.config)?;
    let record = match &args.log {
        Some(log) => from_log(log)?,
        None => from_page(args.from.as_deref(), base.config.admin)?,
    };
    let wish = match (&args.name, args.paths) {
        (Some(name), _) => Wish::Named(name.clone()),
        (None, true) => Wish::Paths,
        (None, false) => Wish::Hosts,
    };
    let plan = Plan::of(&record, &base.policy, &wish)?;
    for note in &plan.notes {
        tell(note);
    }
    let file = base.path.display().to_string();
    if plan.observed == 0 {
        tell(match args.log {
            None => NOTHING,
            Some(_) => NOTHING_LOGGED,
        });
        return Ok(ExitCode::SUCCESS);
    }
    if plan.new.is_empty() {
        tell(&format!(
            "nothing to add: {} of {} observed are in {file}",
            plan.covered, plan.observed
        ));
        return Ok(ExitCode::SUCCESS);
    }
    let merged = add_destinations(&base.text, &plan.new).map_err(|source| Error::Merge {
        file: file.clone(),
        new: plan.new.clone(),
        source,
    })?;
    let checked = Config::parse(&merged, &file).and_then(|config| Policy::compile(&config));
    checked.map_err(Error::Unsound)?;
    let code = print(&diff::unified(&base.text, &merged, &file));
    if !args.write {
        tell(&format!(
            "{file} is not changed yet; to change it, run the same command with --write"
        ));
        return Ok(code);
    }
    replace::replace(&base.path, &base.text, &merged).map_err(|source| Error::Write {
        file: file.clone(),
        source,
    })?;
    tell(&format!(
        "{file} is changed. When a further run adds nothing: set egress.default: deny"
    ));
    Ok(code)
}

impl Base {
    /// Reads the file. Without a file the new one has the destinations alone, so that it denies everything else.
    fn read(arg: &ConfigArg) -> Result<Self, Error> {
        let (path, text) = match locate(arg.config.as_deref()) {
            ConfigSource::Embedded => (PathBuf::from(DEFAULT_FILE), String::new()),
            ConfigSource::File(path) => {
                let text = crate::config::read_text(&path).map_err(Error::Config)?;
                (path, text)
            }
        };
        let config = if text.is_empty() && !path.exists() {
            Ok(Config::embedded())
        } else {
            Config::parse(&text, &path.display().to_string())
        };
        let compiled = config.and_then(|config| Ok((Policy::compile(&config)?, config)));
        let (policy, config) = compiled.map_err(Error::Config)?;
        Ok(Self {
            config,
            path,
            policy,
            text,
        })
    }
}

fn from_log(log: &Path) -> Result<Record, Error> {
    let is_input = log.as_os_str() == "-";
    let read = if is_input {
        Record::of_log(io::stdin().lock())
    } else {
        File::open(log).and_then(|file| Record::of_log(io::BufReader::new(file)))
    };
    read.map_err(|source| Error::Log {
        place: if is_input {
            "standard input".to_owned()
        } else {
            log.display().to_string()
        },
        source,
    })
}

fn from_page(from: Option<&str>, admin: Option<SocketAddr>) -> Result<Record, Error> {
    let (address, host) = match from {
        Some(url) => address_of(url)?,
        None => match admin {
            None => return Err(Error::NoAdmin("admin: false")),
            Some(address) if address.port() == 0 => return Err(Error::NoAdmin("port 0 for admin")),
            Some(address) => {
                let address = loopback(address).unwrap_or(address);
                (address, address.to_string())
            }
        },
    };
    let page = admin_page::fetch(address, &host, "/observed");
    let page = page.and_then(|page| Record::of_page(&page).ok_or_else(|| io::ErrorKind::InvalidData.into()));
    page.map_err(|cause| Error::Page {
        at: format!("http://{host}/observed"),
        cause,
    })
}

/// Returns the address of an admin port, and the host and port as they are written.
fn address_of(url: &str) -> Result<(SocketAddr, String), Error> {
    let uri: Uri = url.parse().map_err(|_| Error::NoUrl)?;
    let is_plain = uri.scheme_str() == Some("http") && matches!(uri.path(), "/" | "" | "/observed");
    let authority = uri
        .authority()
        .filter(|authority| is_plain && !authority.as_str().contains('@'));
    let authority = authority.ok_or(Error::NoUrl)?;
    let port = authority.port_u16().unwrap_or(80);
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    let found = (name, port).to_socket_addrs().ok().and_then(|mut all| all.next());
    found
        .map(|address| (address, authority.to_string()))
        .ok_or(Error::NoUrl)
}
