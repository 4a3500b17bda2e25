//! `outrider evidence`: what the author of a system security plan needs to know about this configuration and build.
//!
//! Facts about ten controls of NIST SP 800-53 are gathered once ([`facts`]) and written as Markdown or as an OSCAL
//! component definition. Equal input makes equal bytes, so that the result can be kept in git and compared: nothing
//! in it depends on when or where it was written, but for certificates that have ended since.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use clap::ValueHint;
use data_encoding::HEXLOWER;

use self::facts::{Control, ReadableSecrets, Subject, gather};
use super::{ConfigArg, fail, note, print, write_file};
use crate::config::{Config, ConfigSource, Problems, locate};
use crate::policy::Policy;
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;
use crate::telemetry::{CRYPTO, REVISION};
use crate::units::{LAST_DATE, rfc3339};

mod boundary;
mod channels;
mod cryptography;
mod facts;
mod flows;
mod identities;
mod inbound;
mod markdown;
mod oscal;
mod records;
#[cfg(test)]
mod tests;

/// When it was written, for builds that can be repeated: seconds since 1970.
const DATE_VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// Write evidence about controls of NIST SP 800-53, for a system security plan
///
/// Says of AC-4, AU-2, AU-3, IA-3, IA-5, SC-7, SC-8, SC-12, SC-13 and SI-4 what the configuration and this build really do, each
/// with the setting and its line, the metric or the log field that proves it; and plainly what is not met. Secrets are read
/// to learn when they end, and never shown. Equal input makes equal output. Its date is that of the configuration file, or
/// $SOURCE_DATE_EPOCH.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  outrider evidence --output evidence.md
  SOURCE_DATE_EPOCH=$(git log -1 --format=%ct -- outrider.yml) outrider evidence --offline --format oscal")]
pub(super) struct Args {
    #[command(flatten)]
    config: ConfigArg,

    /// The format of the output
    #[arg(short, long, value_enum, default_value_t = EvidenceFormat::Markdown)]
    format: EvidenceFormat,

    /// Where to write it, instead of standard output; what is there is replaced
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    output: Option<PathBuf>,

    /// Read no secret: their environment, files and services are elsewhere
    #[arg(long)]
    offline: bool,

    /// What the component is called; two apps in one plan need two names
    #[arg(long, default_value = "outrider")]
    name: String,

    /// Who answers for the configuration: an office or a person
    #[arg(long, value_name = "NAME")]
    prepared_by: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum EvidenceFormat {
    /// For people
    Markdown,
    /// An OSCAL 1.1 component definition, as JSON
    Oscal,
}

/// All that is written.
struct Report {
    /// The component, as the plan calls it.
    name: String,
    prepared_by: Option<String>,
    /// What was described, and by which build: words and values, in the order in which they are shown.
    origin: Vec<(&'static str, String)>,
    /// `None`: there is no file.
    file: Option<ConfigFile>,
    modified: SystemTime,
    controls: Vec<Control>,
}

/// The file that is described.
struct ConfigFile {
    /// Without its folder, which differs from machine to machine.
    name: String,
    /// SHA-256 in hexadecimal digits.
    hash: String,
}

/// Writes the evidence.
pub(super) fn run(args: &Args) -> ExitCode {
    let report = match report(args) {
        Ok(report) => report,
        Err(NoReport::Problems(problems)) => {
            note(&problems.to_string());
            return ExitCode::FAILURE;
        }
        Err(other) => return fail(&other.to_string()),
    };
    let text = match args.format {
        EvidenceFormat::Markdown => markdown::write(&report),
        EvidenceFormat::Oscal => oscal::write(&report),
    };
    let Some(path) = &args.output else {
        return print(&text);
    };
    match write_file(path, text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!(
            "{} cannot be written: {error}; name a file in a folder that can be written with --output",
            path.display()
        )),
    }
}

/// Why there is no evidence.
#[derive(Debug, thiserror::Error)]
enum NoReport {
    #[error("{DATE_VARIABLE} is not a number of seconds since 1970; write one, or leave it out")]
    Date,

    /// The configuration would not start.
    #[error(transparent)]
    Problems(#[from] Problems),

    #[error("--{option} is empty, or has control characters; write a name on one line")]
    Name { option: &'static str },
}

fn report(args: &Args) -> Result<Report, NoReport> {
    for (option, name) in [
        ("name", Some(&args.name)),
        ("prepared-by", args.prepared_by.as_ref()),
    ] {
        if name.is_some_and(|name| name.trim().is_empty() || name.chars().any(char::is_control)) {
            return Err(NoReport::Name { option });
        }
    }
    let source = locate(args.config.config.as_deref());
    let text = source.file().map(crate::config::read_text).transpose()?;
    let config = match (&source, &text) {
        (ConfigSource::File(path), Some(text)) => {
            let name = path.display().to_string();
            if args.offline {
                Config::parse_elsewhere(text, &name)?
            } else {
                Config::parse(text, &name)?
            }
        }
        (ConfigSource::Embedded, _) | (ConfigSource::File(_), None) => Config::embedded(),
    };
    let policy = Policy::compile(&config)?;
    let snapshot = Snapshot::of_process();
    let roots = SystemRoots::new(&snapshot, &config.ca.bundle);
    let secrets = ReadableSecrets {
        snapshot: &snapshot,
        roots: &roots,
        now: SystemTime::now(),
    };
    let subject = Subject {
        config: &config,
        policy: &policy,
        is_built_in: source == ConfigSource::Embedded,
        secrets: (!args.offline).then_some(secrets),
    };
    let file = text.as_ref().zip(source.file()).map(|(text, path)| ConfigFile {
        name: file_name(path),
        hash: HEXLOWER.encode(digest::digest(&digest::SHA256, text.as_bytes()).as_ref()),
    });
    let date = std::env::var_os(DATE_VARIABLE).filter(|date| !date.is_empty());
    let modified = match date {
        Some(date) => {
            let seconds = date.to_str().and_then(|date| date.trim().parse().ok());
            let seconds = seconds.filter(|seconds| (0..=LAST_DATE).contains(seconds));
            UNIX_EPOCH + Duration::from_secs(seconds.ok_or(NoReport::Date)?.unsigned_abs())
        }
        None => modified(source.file()),
    };
    Ok(Report {
        name: args.name.trim().to_owned(),
        prepared_by: args.prepared_by.as_ref().map(|name| name.trim().to_owned()),
        origin: origin(file.as_ref(), args.offline),
        file,
        modified,
        controls: gather(&subject),
    })
}

/// Returns when the configuration was changed last. Without a file it is part of the program.
fn modified(file: Option<&Path>) -> SystemTime {
    let path = file.map_or_else(std::env::current_exe, |path| Ok(path.to_owned()));
    let modified = path.and_then(fs::metadata).and_then(|data| data.modified());
    modified.unwrap_or(UNIX_EPOCH)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .map_or_else(|| path.display().to_string(), |name| name.display().to_string())
}

/// Returns what was described, and by which build.
fn origin(file: Option<&ConfigFile>, is_offline: bool) -> Vec<(&'static str, String)> {
    let libc = if cfg!(target_env = "musl") {
        "musl"
    } else {
        "glibc"
    };
    let profile = if cfg!(debug_assertions) {
        "debug build"
    } else {
        "release build"
    };
    let mut origin = vec![
        ("outrider version", env!("CARGO_PKG_VERSION").to_owned()),
        ("revision", REVISION.to_owned()),
        (
            "build",
            format!(
                "{}, {}, {libc}, {profile}",
                std::env::consts::OS,
                std::env::consts::ARCH
            ),
        ),
        (
            "cryptographic module",
            format!("{CRYPTO}, AWS-LC {}", aws_lc_rs::awslc_version()),
        ),
    ];
    match file {
        Some(file) => origin.extend([
            ("configuration", file.name.clone()),
            ("configuration sha256", file.hash.clone()),
        ]),
        None => origin.push(("configuration", "the built-in default".to_owned())),
    }
    let secrets = if is_offline {
        "not read (--offline)"
    } else {
        "read, to learn when they end"
    };
    origin.push(("secrets", secrets.to_owned()));
    origin
}

impl Report {
    /// Returns the date of the document.
    fn date(&self) -> String {
        rfc3339(self.modified)
    }

    /// Returns the name of the file in front of a line number.
    fn file_name(&self) -> &str {
        self.file.as_ref().map_or("", |file| &file.name)
    }
}
