//! What a sidecar needs to work: names and lengths that the platform wants, a command that becomes outrider, its share of
//! the memory, and the right process types.

use std::collections::BTreeSet;

use super::command::{Start, ends_by_exec, start_of};
use super::{Application, Findings, Procfile, WEB, buildpacks, is_ours};
use crate::config::{ManifestValue, entries_of, nearest};

/// Characters that the platform takes at most.
const LONGEST_NAME: usize = 255;
const LONGEST_COMMAND: usize = 4096;

/// The variable by which the profile script knows which processes have the sidecar.
pub(super) const PROCESS_TYPES: &str = "OUTRIDER_PROCESS_TYPES";

/// How the memory of a process type is divided, in megabytes.
pub(super) struct MemoryShare<'m> {
    pub(super) process_type: &'m str,
    /// As far as it is written.
    pub(super) whole: Option<u64>,
    pub(super) sidecars: u64,
    /// Where it is written.
    place: String,
}

/// Examines the sidecars of an app, and the buildpack.
pub(super) fn examine(application: &Application<'_>, found: &mut Findings) {
    let all = application.value.get("sidecars").and_then(|list| list.items());
    let all = all.unwrap_or_default();
    let mut names: Vec<&str> = Vec::new();
    for sidecar in &all {
        form(sidecar, &mut names, found);
    }
    for sidecar in &application.sidecars {
        starts(sidecar, found);
        types(application, sidecar, found);
    }
    if let [_, second, ..] = &*application.sidecars {
        found.problems.add(
            second.path.as_str(),
            "a second sidecar that runs outrider: both want the same ports",
            "keep one, with all process types",
        );
    }
    memory(application, &all, found);
    buildpack(application, found);
    if !application.sidecars.is_empty() || application.has_buildpack {
        script(application, found);
    }
}

/// Examines what the platform itself wants of a sidecar.
fn form<'m>(sidecar: &ManifestValue<'m>, names: &mut Vec<&'m str>, found: &mut Findings) {
    let path = |key: &str| format!("{}.{key}", sidecar.path);
    for (key, most, right) in [
        ("name", LONGEST_NAME, "write name: outrider"),
        ("command", LONGEST_COMMAND, "write command: exec ./outrider run"),
    ] {
        match sidecar.get(key) {
            None => found
                .problems
                .add(sidecar.path.as_str(), format!("`{key}` is missing"), right),
            Some(value) if value.is_open() => {}
            Some(value) => match value.text().map(|text| text.chars().count()) {
                None | Some(0) => found.problems.add(value.path, "has to be a text", right),
                Some(length) if length > most => found.problems.add(
                    value.path,
                    format!("{length} characters long"),
                    format!("the platform takes {most}; put a longer command into a script"),
                ),
                Some(_) => {}
            },
        }
    }
    if let Some(name) = sidecar.get("name").and_then(|name| name.text()) {
        if names.contains(&name) {
            found.problems.add(
                path("name"),
                "another sidecar has this name",
                "give it another one",
            );
        }
        names.push(name);
    }
    match sidecar.get("process_types") {
        None => {
            // A key that means it is told as one that the platform ignores.
            let right = "write process_types: [web]";
            found
                .problems
                .add(sidecar.path.as_str(), "`process_types` is missing", right);
        }
        Some(types) if types.is_open() => {}
        Some(types) => match types.items() {
            Some(items) if !items.is_empty() => {
                for item in items
                    .iter()
                    .filter(|item| item.text().is_none() && !item.is_open())
                {
                    found.problems.add(
                        item.path.as_str(),
                        "has to be a text",
                        "write process_types: [web]",
                    );
                }
            }
            Some(_) => found
                .problems
                .add(types.path, "an empty list", "write process_types: [web]"),
            None => found.problems.add(
                types.path.as_str(),
                format!("has to be a list, but is {}", types.kind()),
                format!("write process_types: [{}]", types.text().unwrap_or(WEB)),
            ),
        },
    }
}

/// Examines the command of outrider's sidecar.
fn starts(sidecar: &ManifestValue<'_>, found: &mut Findings) {
    let Some(command) = sidecar.get("command") else {
        return;
    };
    let Some(text) = command.text() else { return };
    let shell = "the shell stays between the platform and outrider, so SIGTERM does not reach it and requests are cut";
    match start_of(text) {
        Start::Run { by_exec: false } => {
            found
                .problems
                .add(command.path.as_str(), shell, "write command: exec ./outrider run");
        }
        Start::Other if !ends_by_exec(text) => {
            found
                .problems
                .add(command.path.as_str(), shell, "write exec before the last command");
        }
        Start::Useless => found.problems.add(
            command.path.as_str(),
            "outrider ends at once, and the platform restarts the app again and again",
            "write command: exec ./outrider run",
        ),
        Start::Around => found.problems.add(
            command.path.as_str(),
            "`outrider exec` is for one command, and ends with it",
            "write command: exec ./outrider run",
        ),
        Start::Run { by_exec: true } | Start::Other => {}
    }
    if ["$PORT", "${PORT", "$VCAP_APP_PORT", "${VCAP_APP_PORT"]
        .iter()
        .any(|variable| text.contains(variable))
    {
        found.problems.add(
            command.path,
            "$PORT is the app's port: a sidecar gets none for itself",
            "set `listen` in outrider.yml, as in 127.0.0.1:3128",
        );
    }
}

/// Compares the process types of the sidecar with those of the app, and with those that the profile script knows.
fn types(application: &Application<'_>, sidecar: &ManifestValue<'_>, found: &mut Findings) {
    let Some(written) = sidecar.get("process_types") else {
        return;
    };
    let Some(items) = written.items() else { return };
    let Some(listed) = items
        .iter()
        .map(ManifestValue::text)
        .collect::<Option<BTreeSet<_>>>()
    else {
        return;
    };
    let known = application.process_types();
    for item in &items {
        let Some(own) = item.text() else { continue };
        if known.contains(own) {
            match application.procfile {
                // The sidecar has the ports that the configuration names.
                _ if application.is_around(own) => found.warnings.add(
                    item.path.as_str(),
                    format!("the command of `{own}` runs outrider itself, and both want the same ports"),
                    "take outrider out of the command, or this process type out of the list",
                ),
                Some(procfile) if own == WEB && !names_web(application, procfile) => found.warnings.add(
                    item.path.as_str(),
                    "neither the manifest nor the Procfile names a command for `web`",
                    "right where a buildpack brings it; else add it to the Procfile",
                ),
                Some(_) | None => {}
            }
            continue;
        }
        match (nearest(own, known.iter().copied()), application.procfile) {
            (Some(meant), _) => found.problems.add(
                item.path.as_str(),
                format!("the app has no process type `{own}`"),
                format!("did you mean `{meant}`?"),
            ),
            (None, Some(_)) => found.warnings.add(
                item.path.as_str(),
                format!("no process type `{own}` is listed here or in the Procfile"),
                "right where a buildpack brings it; else remove it",
            ),
            (None, None) => found.warnings.add(
                item.path.as_str(),
                format!("no process type `{own}` is listed here"),
                "right where a Procfile or a buildpack brings it; else remove it",
            ),
        }
    }
    for process in application.list("processes") {
        let Some(own) = process.get("type").and_then(|own| own.text()) else {
            continue;
        };
        if !listed.contains(own) && !application.is_around(own) {
            found.warnings.add(
                process.path.as_str(),
                format!("the process type `{own}` has no sidecar, so its calls fail"),
                format!("add it to {} and to {PROCESS_TYPES}", written.path),
            );
        }
    }
    agree(application, &written, &listed, found);
}

/// Whether a command for `web` is written somewhere, or may be filled in.
fn names_web(application: &Application<'_>, procfile: &Procfile) -> bool {
    let process = application.process(WEB);
    procfile.command(WEB).is_some()
        || application.value.get("command").is_some()
        || process.is_some_and(|process| process.get("command").is_some())
}

/// Compares what the sidecar serves with what the profile script is told.
fn agree(
    application: &Application<'_>,
    written: &ManifestValue<'_>,
    listed: &BTreeSet<&str>,
    found: &mut Findings,
) {
    let variable = application.variable(PROCESS_TYPES);
    if variable.as_ref().is_some_and(ManifestValue::is_open) {
        return;
    }
    let told = variable.as_ref().and_then(|value| value.text()).unwrap_or(WEB);
    let told: BTreeSet<&str> = entries_of(told).collect();
    let place = variable.as_ref().unwrap_or(written).path.clone();
    let joined = |all: Vec<&str>| all.join(", ");
    let untold: Vec<&str> = listed.difference(&told).copied().collect();
    if !untold.is_empty() {
        let all = listed.iter().copied().collect::<Vec<_>>().join(",");
        found.problems.add(
            place.as_str(),
            format!(
                "the profile script does not know that {} has the sidecar, and does not wait for it",
                joined(untold)
            ),
            format!("write {PROCESS_TYPES}: \"{all}\" under env"),
        );
    }
    let unserved: Vec<&str> = told.difference(listed).copied().collect();
    if !unserved.is_empty() {
        let right = match variable {
            Some(_) => format!("take it out of {PROCESS_TYPES}, or add it to process_types"),
            None => format!("add it to process_types, or write {PROCESS_TYPES} under env"),
        };
        found.problems.add(
            place,
            format!(
                "the profile script waits for a sidecar in {}, which process_types does not list",
                joined(unserved)
            ),
            right,
        );
    }
}

/// Adds up the memory of the sidecars of each process type: the platform refuses what leaves the app nothing.
fn memory(application: &Application<'_>, sidecars: &[ManifestValue<'_>], found: &mut Findings) {
    for value in sidecars
        .iter()
        .chain(&application.list("processes"))
        .chain([&application.value])
        .filter_map(|one| one.setting("memory"))
    {
        if let Some(text) = value.text()
            && megabytes(text).is_none()
        {
            found.problems.add(
                value.path,
                "not a size that the platform knows",
                "write a number and a unit, as in 64M or 1G",
            );
        }
    }
    for sidecar in application
        .sidecars
        .iter()
        .filter(|own| own.get("memory").is_none())
    {
        found.warnings.add(
            sidecar.path.as_str(),
            "without `memory` the app is told that all of the container's memory is its own (Java sizes its heap by it)",
            "write memory: 64M",
        );
    }
    for share in shares(application) {
        if let Some(whole) = share.whole
            && share.sidecars >= whole
            && share.sidecars > 0
        {
            found.problems.add(
                share.place,
                format!(
                    "{whole}M of the process type `{}`, and its sidecars take {}M of them",
                    share.process_type, share.sidecars
                ),
                "write more: it is the memory of the whole container",
            );
        }
    }
}

/// Returns how the memory of each process type is divided.
pub(super) fn shares<'m>(application: &Application<'m>) -> Vec<MemoryShare<'m>> {
    let sidecars = application.list("sidecars");
    let size = |value: &ManifestValue<'_>| value.text().and_then(megabytes);
    let share = |own: &'m str| {
        let written = application
            .process(own)
            .and_then(|process| process.setting("memory"))
            // Of other types the platform takes its default.
            .or_else(|| application.value.setting("memory").filter(|_| own == WEB));
        let serving = sidecars.iter().filter(|sidecar| {
            let types = sidecar.get("process_types").and_then(|types| types.items());
            types.is_some_and(|types| types.iter().any(|one| one.text() == Some(own)))
        });
        let taken = serving.filter_map(|sidecar| size(&sidecar.setting("memory")?));
        MemoryShare {
            process_type: own,
            whole: written.as_ref().and_then(size),
            sidecars: taken.fold(0, u64::saturating_add),
            place: written.map_or_else(|| application.value.path.clone(), |value| value.path),
        }
    };
    let types = application.process_types();
    types.into_iter().map(share).collect()
}

/// Returns the megabytes of a size as the platform reads it; a part of one counts as none.
fn megabytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_uppercase();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let kilobytes = 1 << 10;
    match unit {
        "B" => Some(number / kilobytes / kilobytes),
        "K" | "KB" => Some(number / kilobytes),
        "M" | "MB" => Some(number),
        "G" | "GB" => number.checked_mul(kilobytes),
        "T" | "TB" => number.checked_mul(kilobytes * kilobytes),
        _ => None,
    }
}

/// Examines where outrider's buildpack stands.
fn buildpack(application: &Application<'_>, found: &mut Findings) {
    let all = buildpacks(&application.value);
    let Some(at) = all.iter().position(is_ours) else {
        return;
    };
    if at + 1 == all.len() {
        found.problems.add(
            all[at].path.as_str(),
            "the last buildpack has to start the app, which this one does not",
            "name the app's own buildpack after it",
        );
    }
    for sidecar in &application.sidecars {
        found.problems.add(
            sidecar.path.as_str(),
            "the buildpack registers the sidecar itself, and two of one name are refused",
            "remove it here, or the buildpack",
        );
    }
}

/// Warns where the platform runs no profile scripts.
fn script(application: &Application<'_>, found: &mut Findings) {
    let lifecycle = application.value.get("lifecycle");
    let is_cnb = lifecycle.as_ref().and_then(|own| own.text()) == Some("cnb");
    let place = match application.value.get("docker") {
        Some(docker) => docker,
        None if is_cnb => match lifecycle {
            Some(lifecycle) => lifecycle,
            None => return,
        },
        None => return,
    };
    found.warnings.add(
        place.path,
        "profile scripts do not run here, so nothing sends the app through the proxy",
        "start the app by `eval \"$(outrider env)\" && exec CMD`",
    );
}
