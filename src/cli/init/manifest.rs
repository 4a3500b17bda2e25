//! `outrider init --manifest`: the sidecar in a manifest that is there.
//!
//! `config` adds the lines and makes sure that nothing else changes; `check --manifest` says whether the result is sound.
//! Here is decided which app gets what, and the person is asked.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::check::manifest::{ManifestApp, WEB, apps_of, examine_alone};
use crate::cli::{diff, fail, print, replace, tell};
use crate::config::{
    Manifest, MergeError, NewSidecar, Problem, Problems, add_sidecar, read_text, sidecar_lines,
};
use crate::error::ErrorChain;

/// What the sidecar is to be.
#[derive(Debug, clap::Args)]
pub(super) struct SidecarArgs {
    /// The app that gets the sidecar, where the manifest has several
    #[arg(long, value_name = "NAME", requires = "manifest")]
    app: Option<String>,

    /// The process types that it serves; default: web, and those that the manifest lists
    #[arg(long, value_name = "TYPES", requires = "manifest", value_delimiter = ',')]
    process_types: Vec<String>,

    /// Its part of the app's memory
    #[arg(long, value_name = "SIZE", requires = "manifest", default_value = "64M")]
    memory: String,

    /// Change the manifest without asking
    #[arg(short, long, requires = "manifest")]
    write: bool,
}

/// Why a manifest is left as it is.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Manifest(Problems),
    #[error("{file} is left as it is")]
    Merge {
        file: String,
        new: Box<NewSidecar>,
        source: MergeError,
    },
    #[error("{file} has no app `{name}`; there {}: {}", if apps.len() == 1 { "is" } else { "are" }, apps.join(", "))]
    NoApp {
        file: String,
        name: String,
        apps: Vec<String>,
    },
    #[error("{file} has several apps; name one with --app: {}", apps.join(", "))]
    SeveralApps { file: String, apps: Vec<String> },
    #[error("with the sidecar the manifest would not be sound, and it is left as it is:\n{0}")]
    Unsound(Problems),
    #[error("{file} is left as it is")]
    Write {
        file: String,
        source: replace::ReplaceError,
    },
}

pub(super) fn run(path: &Path, args: &SidecarArgs) -> ExitCode {
    match add(path, args) {
        Ok(code) => code,
        Err(error) => {
            let code = fail(&ErrorChain(&error).to_string());
            if let Error::Merge { new, .. } = &error {
                tell(&format!("the lines to add to the app:\n\n{}", sidecar_lines(new)));
            }
            code
        }
    }
}

fn add(path: &Path, args: &SidecarArgs) -> Result<ExitCode, Error> {
    let file = path.display().to_string();
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let text = read_text(path).map_err(without_advice)?;
    let manifest = Manifest::parse(&text, &file).map_err(Error::Manifest)?;
    let (before, _) = examine_alone(&manifest, folder);
    let apps = apps_of(&manifest, folder);
    if apps.is_empty() || !manifest.problems.all.is_empty() {
        return Err(Error::Manifest(before));
    }
    let app = match chosen(&apps, args.app.as_deref(), &file)? {
        Chosen::One(app) => app,
        Chosen::None(reason) => {
            tell(&format!("{file} is left as it is: {reason}"));
            return Ok(ExitCode::SUCCESS);
        }
    };
    let new = NewSidecar::of(app, args);
    let merged = add_sidecar(&text, app.index, &new).map_err(|source| Error::Merge {
        file: file.clone(),
        new: Box::new(new),
        source,
    })?;
    let after = Manifest::parse(&merged, &file).map_err(Error::Unsound)?;
    let (mut problems, warnings) = examine_alone(&after, folder);
    let is_old = |one: &Problem| before.all.iter().any(|known| known.what == one.what);
    problems.all.retain(|one| !is_old(one));
    if !problems.is_empty() {
        return Err(Error::Unsound(problems));
    }
    print(&diff::unified(&text, &merged, &file));
    for warning in warnings.to_string().lines() {
        tell(&format!("warning: {warning}"));
    }
    for line in apps_of(&after, folder)
        .iter()
        .filter(|one| one.index == app.index)
        .flat_map(|one| &one.memory)
    {
        tell(line);
    }
    if !(args.write || is_wanted(&file)) {
        tell(&format!(
            "{file} is not changed; to change it, run the same command with --write"
        ));
        return Ok(ExitCode::SUCCESS);
    }
    replace::replace(path, &text, &merged).map_err(|source| Error::Write {
        file: file.clone(),
        source,
    })?;
    let folder = if app.folder.as_os_str().is_empty() {
        PathBuf::from(".")
    } else {
        app.folder.clone()
    };
    tell(&format!(
        "{file} is changed. Next: sidecar/install {}, then outrider check --manifest {file}",
        folder.display()
    ));
    Ok(ExitCode::SUCCESS)
}

/// The advice for a configuration that is not there is to write one, which helps nobody here.
fn without_advice(mut problems: Problems) -> Error {
    for problem in &mut problems.all {
        problem.right = "name the manifest that you push".to_owned();
    }
    Error::Manifest(problems)
}

/// Which app gets the sidecar.
enum Chosen<'a> {
    One(&'a ManifestApp),
    /// None needs it; with the reason.
    None(String),
}

/// Chooses the app that is named, or the only one.
fn chosen<'a>(apps: &'a [ManifestApp], name: Option<&str>, file: &str) -> Result<Chosen<'a>, Error> {
    let names = || apps.iter().map(|app| shown(&app.name)).collect();
    let file = || file.to_owned();
    let app = match (name, apps) {
        (Some(name), _) => apps
            .iter()
            .find(|app| app.name == name)
            .ok_or_else(|| Error::NoApp {
                file: file(),
                name: shown(name),
                apps: names(),
            })?,
        (None, [only]) => only,
        (None, _) if apps.iter().all(|app| app.runs_by.is_some()) => {
            return Ok(Chosen::None("each of its apps runs outrider already".to_owned()));
        }
        (None, _) => {
            return Err(Error::SeveralApps {
                file: file(),
                apps: names(),
            });
        }
    };
    Ok(match &app.runs_by {
        Some(place) => Chosen::None(format!("`{}` runs outrider already, {place}", shown(&app.name))),
        None => Chosen::One(app),
    })
}

/// Returns the name of an app without what would steer a terminal.
fn shown(name: &str) -> String {
    name.replace(char::is_control, "\u{fffd}")
}

impl NewSidecar {
    /// The entry that `check --manifest` finds sound.
    fn of(app: &ManifestApp, args: &SidecarArgs) -> Self {
        let process_types = if args.process_types.is_empty() {
            app.process_types.clone()
        } else {
            args.process_types.clone()
        };
        // Without it the profile script waits for a sidecar in `web` alone.
        let is_told = app.has_variable || process_types == [WEB];
        Self {
            name: "outrider".to_owned(),
            variable: (!is_told).then(|| ("OUTRIDER_PROCESS_TYPES", process_types.join(","))),
            process_types,
            command: "exec ./outrider run".to_owned(),
            memory: args.memory.clone(),
        }
    }
}

/// Asks at the terminal. Where nobody could read the question, or answer it, the answer is no.
fn is_wanted(file: &str) -> bool {
    if !(io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()) {
        return false;
    }
    let mut answer = String::new();
    let _ = write!(io::stderr(), "change {file}? [y/N] ");
    io::stdin().read_line(&mut answer).is_ok()
        && ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str())
}
