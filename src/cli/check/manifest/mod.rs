//! `outrider check --manifest`: what is wrong with a manifest of `cf push` for an app beside outrider.
//!
//! The platform ignores keys it does not know, and tells other mistakes when the app is staged or not at all. Here each is
//! named with its line. [`keys`] says what the platform reads, [`command`] how a command starts outrider, [`sidecar`] what
//! a sidecar needs, [`procfile`] which process types a Procfile adds, [`needs`] what the app's outrider.yml asks of the
//! manifest. Values that `cf push` fills in, `((name))`,
//! are not known and not judged.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use super::{examine_written, note, refuse, warn};
use crate::config::{
    Config, ConfigSource, DEFAULT_FILE, Manifest, ManifestValue, Problem, Problems, entries_of,
};

use command::{Start, start_of};
use procfile::Procfile;

pub(in crate::cli) mod command;
mod keys;
mod needs;
mod procfile;
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
    procfile: Option<&'m Procfile>,
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
    let (procfiles, unread) = Procfile::of_all(&manifest, folder);
    let served = examine_all(&manifest, &procfiles, &mut found);
    for problems in &unread {
        refuse(problems);
    }
    let mut has_failed = !unread.is_empty();
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

/// What is wrong with a manifest whose configurations are not looked at, and what is probably wrong.
pub(in crate::cli) fn examine_alone(manifest: &Manifest, folder: &Path) -> (Problems, Problems) {
    let mut found = Findings::default();
    found.problems.all.extend(manifest.problems.all.iter().cloned());
    examine_all(manifest, &Procfile::of_all(manifest, folder).0, &mut found);
    (
        found.problems.located(&manifest.locations),
        found.warnings.located(&manifest.locations),
    )
}

/// An app of a manifest as `init` changes it.
pub(in crate::cli) struct ManifestApp {
    /// Its place in `applications`.
    pub(in crate::cli) index: usize,
    pub(in crate::cli) name: String,
    /// Where it runs outrider already.
    pub(in crate::cli) runs_by: Option<String>,
    /// The process types that a sidecar should serve: those of the variable, else those of the manifest that do not run
    /// outrider themselves.
    pub(in crate::cli) process_types: Vec<String>,
    /// Whether the profile script is told of them.
    pub(in crate::cli) has_variable: bool,
    /// How the memory of each is divided, for a person.
    pub(in crate::cli) memory: Vec<String>,
    pub(in crate::cli) folder: PathBuf,
}

/// Returns the apps of a manifest.
pub(in crate::cli) fn apps_of(manifest: &Manifest, folder: &Path) -> Vec<ManifestApp> {
    let (procfiles, _) = Procfile::of_all(manifest, folder);
    let all = manifest.root().get("applications").and_then(|apps| apps.items());
    let all = all.unwrap_or_default().into_iter().enumerate();
    let app = |(index, value): (usize, ManifestValue<'_>)| {
        let name = value
            .get("name")
            .and_then(|name| name.scalar().map(str::to_owned));
        let folder = folder_of(&value, folder);
        let procfile = procfiles.get(&value.path);
        let application = Application::of(value, procfile);
        let variable = application.variable(sidecar::PROCESS_TYPES);
        let written = variable.as_ref().and_then(|value| value.text());
        ManifestApp {
            index,
            name: name.unwrap_or_default(),
            runs_by: application.runs_by(),
            process_types: match written {
                Some(written) => entries_of(written).map(str::to_owned).collect(),
                None => application
                    .written_types()
                    .iter()
                    .map(|own| (*own).to_owned())
                    .collect(),
            },
            has_variable: variable.is_some(),
            memory: sidecar::shares(&application).iter().filter_map(told_of).collect(),
            folder,
        }
    };
    all.filter(|(_, value)| value.entries().is_some())
        .map(app)
        .collect()
}

/// Says what the memory of a process type becomes, where a sidecar takes some of it.
fn told_of(share: &sidecar::MemoryShare<'_>) -> Option<String> {
    let (own, sidecars) = (share.process_type.escape_debug(), share.sidecars);
    match share.whole {
        _ if sidecars == 0 => None,
        Some(whole) => Some(format!(
            "memory of `{own}`: {whole}M for the container, less {sidecars}M for sidecars, leaves the app {}M",
            whole.saturating_sub(sidecars)
        )),
        None => Some(format!(
            "memory of `{own}`: the sidecars take {sidecars}M of what the platform gives the container"
        )),
    }
}

/// Examines the manifest and the Procfiles, which are those of the apps by their places. Returns the apps that run outrider.
fn examine_all<'m>(
    manifest: &'m Manifest,
    procfiles: &'m BTreeMap<String, Procfile>,
    found: &mut Findings,
) -> Vec<Application<'m>> {
    keys::examine(&manifest.root(), found);
    let mut served = Vec::new();
    for value in manifest.applications() {
        let procfile = procfiles.get(&value.path);
        let application = Application::of(value, procfile);
        sidecar::examine(&application, found);
        if application.has_outrider() {
            served.push(application);
        }
    }
    if served.is_empty() && !manifest.applications().is_empty() {
        found.problems.add(
            "applications",
            "nothing here runs outrider",
            "run outrider init --manifest on it, or add the buildpack",
        );
    }
    served
}

/// Returns the configuration file of an app; `None` where it has no such file.
fn config_of(application: &ManifestValue<'_>, folder: &Path, explicit: Option<&Path>) -> Option<PathBuf> {
    if let Some(path) = explicit {
        return Some(path.to_owned());
    }
    let own = folder_of(application, folder).join(DEFAULT_FILE);
    // One that is there and cannot be read is a problem, and never passed over.
    own.symlink_metadata().is_ok().then_some(own)
}

/// Returns the folder of an app; `path` starts from that of the manifest.
pub(in crate::cli) fn folder_of(application: &ManifestValue<'_>, folder: &Path) -> PathBuf {
    match application.get("path").and_then(|path| path.text()) {
        Some(below) => folder.join(below),
        None => folder.to_owned(),
    }
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
    fn of(value: ManifestValue<'m>, procfile: Option<&'m Procfile>) -> Self {
        let sidecars = value.get("sidecars").and_then(|sidecars| sidecars.items());
        let sidecars = sidecars.unwrap_or_default();
        let mut application = Self {
            sidecars: sidecars.into_iter().filter(runs_outrider).collect(),
            has_buildpack: buildpacks(&value).iter().any(|one| is_ours(one)),
            is_own: false,
            procfile,
            value,
        };
        let types = application.process_types();
        application.is_own = types.into_iter().any(|own| application.is_around(own));
        application
    }

    /// The entries of a list of it; none where it is not written.
    fn list(&self, key: &str) -> Vec<ManifestValue<'m>> {
        let list = self.value.get(key).and_then(|list| list.items());
        list.unwrap_or_default()
    }

    /// The entry of `processes` for a process type.
    fn process(&self, own: &str) -> Option<ManifestValue<'m>> {
        let mut all = self.list("processes").into_iter();
        all.find(|process| process.get("type").and_then(|name| name.text()) == Some(own))
    }

    /// The process types of `processes`.
    fn listed_types(&self) -> impl Iterator<Item = &'m str> + use<'m> {
        let all = self.list("processes").into_iter();
        all.filter_map(|process| process.get("type")?.text())
    }

    /// The process types that are written: `web`, those of `processes`, and those of the Procfile.
    fn process_types(&self) -> BTreeSet<&'m str> {
        let further = self.procfile.into_iter().flat_map(Procfile::types);
        self.listed_types().chain(further).chain([WEB]).collect()
    }

    /// The process types of the manifest that do not run outrider themselves; `web` first.
    fn written_types(&self) -> Vec<&'m str> {
        let mut types = vec![WEB];
        types.extend(self.listed_types().filter(|own| *own != WEB));
        types.retain(|own| !self.is_around(own));
        types
    }

    /// The start command of a process type, as far as it is written: that of the manifest goes before that of the Procfile.
    fn command_of(&self, own: &str) -> Option<&'m str> {
        let written = self
            .process(own)
            .and_then(|process| process.get("command"))
            .or_else(|| self.value.get("command").filter(|_| own == WEB));
        match written.filter(|command| !command.is_null()) {
            Some(command) => command.text(),
            None => self.procfile.and_then(|procfile| procfile.command(own)),
        }
    }

    /// Whether the command of a process type runs outrider itself.
    fn is_around(&self, own: &str) -> bool {
        let command = self.command_of(own);
        command.is_some_and(|command| start_of(command) != Start::Other)
    }

    fn has_outrider(&self) -> bool {
        self.has_buildpack || self.is_own || !self.sidecars.is_empty()
    }

    /// Where outrider runs already, for a person.
    fn runs_by(&self) -> Option<String> {
        match self.sidecars.first() {
            Some(sidecar) => Some(format!("as {}", sidecar.path)),
            None if self.has_buildpack => Some("by its buildpack".to_owned()),
            None if self.written_types().is_empty() => Some("in its command".to_owned()),
            None => None,
        }
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
