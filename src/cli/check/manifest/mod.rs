//! `outrider check --manifest`: what is wrong with a manifest of `cf push` for an app beside outrider.
//!
//! The platform ignores keys it does not know, and tells other mistakes when the app is staged or not at all. Here each is
//! named with its line. [`keys`] says what the platform reads, [`command`] how a command starts outrider, [`sidecar`] what
//! a sidecar needs, [`needs`] what the app's outrider.yml asks of the manifest. Values that `cf push` fills in, `((name))`,
//! are not known and not judged.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{examine_written, note, refuse, warn};
use crate::config::{Config, ConfigSource, DEFAULT_FILE, Manifest, ManifestValue, Problem, Problems};

use command::{Start, start_of};

pub(in crate::cli) mod command;
mod keys;
mod needs;
mod sidecar;
#[cfg(test)]
mod tests;

/// The process type of an app whose manifest lists no others.
pub(in crate::cli) const WEB: &str = "web";

/// What was found: problems, and what is allowed and probably wrong.
#[derive(Debug, Default)]
struct Findings {
    problems: Problems,
    warnings: Problems,
}

/// One app of a manifest, as it concerns outrider.
struct Application<'m> {
    value: ManifestValue<'m>,
    /// Sidecars that run outrider.
    sidecars: Vec<ManifestValue<'m>>,
    /// A buildpack brings it.
    has_buildpack: bool,
    /// A process of the app runs it itself: it is no sidecar there, but a gateway, or the parent of its command.
    is_own: bool,
}

/// Checks a manifest, and the configuration of each of its apps that runs outrider, as it holds on the platform: no secret
/// is read. `explicit`: the configuration instead of that in the app's folder.
pub(super) fn run(path: &Path, explicit: Option<&Path>) -> ExitCode {
    let manifest = match Manifest::load(path) {
        Ok(manifest) => manifest,
        Err(problems) => return refuse(&problems),
    };
    let mut found = Findings::default();
    found.problems.all.extend(manifest.problems.all.iter().cloned());
    let folder = path.parent().unwrap_or_else(|| Path::new(""));
    let mut configs: BTreeMap<PathBuf, Result<(Config, String), Problems>> = BTreeMap::new();
    let served = examine_all(&manifest, &mut found);
    let mut has_failed = false;
    let mut told = Findings::default();
    for application in &served {
        let Some(file) = config_of(&application.value, folder, explicit) else {
            note(&format!(
                "note: {}: there is no {DEFAULT_FILE} in the app's folder, so the built-in default holds",
                application.value.path
            ));
            continue;
        };
        let is_new = !configs.contains_key(&file);
        let config = configs.entry(file.clone()).or_insert_with(|| load(&file));
        match config {
            Err(problems) => {
                if is_new {
                    refuse(problems);
                }
                has_failed = true;
            }
            Ok((config, text)) => {
                if is_new {
                    let (problems, warnings) = examine_written(config);
                    warn(&warnings);
                    if !problems.is_empty() {
                        refuse(&problems);
                        has_failed = true;
                    }
                }
                let mut ports = Findings::default();
                needs::examine(application, config, text, &mut found, &mut ports);
                let ports = ports.problems.located(&config.locations);
                if !ports.is_empty() {
                    refuse(&ports);
                    has_failed = true;
                }
            }
        }
    }
    told.problems = found.problems.located(&manifest.locations);
    told.warnings = found.warnings.located(&manifest.locations);
    warn(&told.warnings);
    if !told.problems.is_empty() {
        return refuse(&told.problems);
    }
    if has_failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

/// Examines the manifest alone. Returns the apps that run outrider.
fn examine_all<'m>(manifest: &'m Manifest, found: &mut Findings) -> Vec<Application<'m>> {
    keys::examine(&manifest.root(), found);
    let mut served = Vec::new();
    for value in manifest.applications() {
        let application = Application::of(value);
        sidecar::examine(&application, found);
        if application.has_outrider() {
            served.push(application);
        }
    }
    if served.is_empty() && !manifest.applications().is_empty() {
        found.problems.add(
            "applications",
            "nothing here runs outrider",
            "add the sidecar, or the buildpack: sidecar/README.md has both",
        );
    }
    served
}

/// Returns the configuration file of an app; `None` where it has no such file.
fn config_of(application: &ManifestValue<'_>, folder: &Path, explicit: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = explicit {
        return Some(path.to_owned());
    }
    let below = application.get("path").and_then(|path| path.text()).unwrap_or("");
    let own = folder.join(below).join(DEFAULT_FILE);
    // One that is there and cannot be read is a problem, and never passed over.
    own.symlink_metadata().is_ok().then_some(own)
}

fn load(file: &Path) -> Result<(Config, String), Problems> {
    let text = crate::config::read_text(file)?;
    Ok((ConfigSource::File(file.to_owned()).load_elsewhere()?, text))
}

impl Findings {
    /// Files a problem at a place that is not that of a value, such as a key.
    fn at(&mut self, path: String, at: (usize, usize), what: impl Into<String>, right: impl Into<String>) {
        self.problems.all.push(Problem {
            path,
            at: Some(at),
            what: what.into(),
            right: right.into(),
        });
    }
}

impl<'m> Application<'m> {
    fn of(value: ManifestValue<'m>) -> Self {
        let sidecars = value.get("sidecars").and_then(|sidecars| sidecars.items());
        let sidecars = sidecars.unwrap_or_default();
        let mut processes = vec![value.clone()];
        processes.extend(
            value
                .get("processes")
                .and_then(|list| list.items())
                .unwrap_or_default(),
        );
        let is_own = processes.iter().any(|process| {
            let command = process.get("command").and_then(|command| command.text());
            command.is_some_and(|command| start_of(command) != Start::Other)
        });
        Self {
            sidecars: sidecars.into_iter().filter(runs_outrider).collect(),
            has_buildpack: buildpacks(&value).iter().any(|one| is_ours(one)),
            is_own,
            value,
        }
    }

    fn has_outrider(&self) -> bool {
        self.has_buildpack || self.is_own || !self.sidecars.is_empty()
    }

    /// A variable of `env`.
    fn variable(&self, name: &str) -> Option<ManifestValue<'m>> {
        self.value.get("env")?.get(name)
    }
}

/// Returns the buildpacks of an app, in order.
fn buildpacks<'m>(application: &ManifestValue<'m>) -> Vec<ManifestValue<'m>> {
    let several = application.get("buildpacks").and_then(|list| list.items());
    several.unwrap_or_else(|| application.get("buildpack").into_iter().collect())
}

/// Whether a buildpack is outrider's, by its name or URL.
fn is_ours(buildpack: &ManifestValue<'_>) -> bool {
    buildpack.text().is_some_and(|text| text.contains("outrider"))
}

/// Whether a sidecar runs outrider: by its command, or by its name where the command is a script.
pub(in crate::cli) fn runs_outrider(sidecar: &ManifestValue<'_>) -> bool {
    let text = |key| sidecar.get(key).and_then(|value| value.text());
    let is_named = text("name").is_some_and(|name| name.contains("outrider"));
    is_named || text("command").is_some_and(|command| start_of(command) != Start::Other)
}
