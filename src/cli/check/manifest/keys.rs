//! Which keys the platform reads; it ignores others without a word.

use super::Findings;
use crate::config::{ManifestValue, nearest};

/// Of an app; hyphens count as underscores.
const APPLICATION: [&str; 34] = [
    "buildpack",
    "buildpacks",
    "cnb_credentials",
    "command",
    "default_route",
    "disk_quota",
    "docker",
    "env",
    "features",
    "health_check_http_endpoint",
    "health_check_interval",
    "health_check_invocation_timeout",
    "health_check_timeout",
    "health_check_type",
    "instances",
    "lifecycle",
    "log_rate_limit_per_second",
    "memory",
    "metadata",
    "name",
    "no_route",
    // Read by the cf command line itself.
    "path",
    "processes",
    "random_route",
    "readiness_health_check_http_endpoint",
    "readiness_health_check_interval",
    "readiness_health_check_invocation_timeout",
    "readiness_health_check_type",
    "routes",
    "services",
    "sidecars",
    "stack",
    "timeout",
    "user",
];

/// Of an entry of `processes`; hyphens count as underscores.
const PROCESS: [&str; 17] = [
    "command",
    "disk_quota",
    "health_check_http_endpoint",
    "health_check_interval",
    "health_check_invocation_timeout",
    "health_check_timeout",
    "health_check_type",
    "instances",
    "log_rate_limit_per_second",
    "memory",
    "readiness_health_check_http_endpoint",
    "readiness_health_check_interval",
    "readiness_health_check_invocation_timeout",
    "readiness_health_check_type",
    "timeout",
    "type",
    "user",
];

/// Of an entry of `sidecars`, exactly as here.
const SIDECAR: [&str; 4] = ["command", "memory", "name", "process_types"];

/// Keys of earlier platforms, and what replaces them.
const FORMER: [(&str, &str); 6] = [
    ("domain", "write routes: [{ route: HOST.DOMAIN }]"),
    ("domains", "write routes: [{ route: HOST.DOMAIN }]"),
    ("host", "write routes: [{ route: HOST.DOMAIN }]"),
    ("hosts", "write routes: [{ route: HOST.DOMAIN }]"),
    ("inherit", "use an anchor: `<<: *NAME`"),
    ("no_hostname", "write routes: [{ route: DOMAIN }]"),
];

/// Finds keys that the platform ignores, and values of the wrong kind.
pub(super) fn examine(root: &ManifestValue<'_>, found: &mut Findings) {
    let Some(entries) = root.entries() else {
        return found.problems.add(
            "",
            format!("a manifest has to be a mapping, but is {}", root.kind()),
            "write `applications:` and an app below it",
        );
    };
    for entry in &entries {
        let known = ["applications", "version", "space"];
        // Others are often there for their anchors.
        if !known.contains(&entry.key)
            && let Some(meant) = nearest(entry.key, known.into_iter())
        {
            let right = format!("did you mean `{meant}`?");
            found.at(
                entry.value.path.clone(),
                entry.at,
                "the platform ignores this key",
                right,
            );
        }
    }
    if let Some(version) = root.get("version")
        && version.text() != Some("1")
        && !version.is_open()
    {
        found.problems.add(
            version.path,
            "the platform knows version 1 only",
            "write version: 1",
        );
    }
    let Some(applications) = root.get("applications") else {
        return found.problems.add(
            "",
            "`applications` is missing",
            "write `applications:` and an app below it",
        );
    };
    let Some(items) = applications.items().filter(|items| !items.is_empty()) else {
        let what = format!("has to be a list of apps, but is {}", applications.kind());
        return found
            .problems
            .add(applications.path, what, "write `- name: NAME` below it");
    };
    for application in &items {
        application_keys(application, found);
    }
}

fn application_keys(application: &ManifestValue<'_>, found: &mut Findings) {
    if !is_mapping(application, found) {
        return;
    }
    unknown(application, &APPLICATION, true, found);
    match application.get("name") {
        None => found
            .problems
            .add(application.path.as_str(), "`name` is missing", "write name: NAME"),
        Some(name) if name.text().is_none() && !name.is_open() => {
            found
                .problems
                .add(name.path, "has to be a text", "write name: NAME");
        }
        Some(_) => {}
    }
    if application.get("buildpack").is_some() && application.get("buildpacks").is_some() {
        found.problems.add(
            format!("{}.buildpack", application.path),
            "the platform refuses it beside `buildpacks`",
            "keep buildpacks",
        );
    }
    let mut types: Vec<&str> = Vec::new();
    for process in listed(application, "processes", found) {
        if !is_mapping(&process, found) {
            continue;
        }
        unknown(&process, &PROCESS, true, found);
        match process.get("type").and_then(|one| one.text()) {
            Some(one) if types.contains(&one) => {
                found.problems.add(
                    format!("{}.type", process.path),
                    "stands twice",
                    "keep one of them",
                );
            }
            Some(one) => types.push(one),
            None if process.get("type").is_some_and(|one| one.is_open()) => {}
            None => found
                .problems
                .add(process.path, "`type` is missing", "write type: worker"),
        }
    }
    for sidecar in listed(application, "sidecars", found) {
        if is_mapping(&sidecar, found) {
            unknown(&sidecar, &SIDECAR, false, found);
        }
    }
    variables(application, found);
}

/// Finds variables that the platform refuses, and proxies that would hold where no sidecar runs.
fn variables(application: &ManifestValue<'_>, found: &mut Findings) {
    let Some(env) = application.get("env").filter(|env| !env.is_null()) else {
        return;
    };
    let Some(entries) = env.entries() else {
        let what = format!("has to be a mapping, but is {}", env.kind());
        return found.problems.add(env.path, what, "write `NAME: value` below it");
    };
    for entry in entries {
        let name = entry.key;
        if name == "PORT" || name.starts_with("VCAP_") || name.starts_with("VMC") {
            let what = "the platform sets it itself, and refuses it here";
            found.at(entry.value.path, entry.at, what, "give it another name");
        } else if ["http_proxy", "https_proxy", "all_proxy"].contains(&&*name.to_ascii_lowercase()) {
            found.at(
                entry.value.path,
                entry.at,
                "holds also while the app is staged and in tasks, where no sidecar runs, so that buildpacks cannot download",
                "remove it: the profile script sets it where the sidecar runs",
            );
        }
    }
}

/// Returns the items of a list of an app.
fn listed<'m>(application: &ManifestValue<'m>, key: &str, found: &mut Findings) -> Vec<ManifestValue<'m>> {
    let Some(written) = application.get(key).filter(|written| !written.is_null()) else {
        return Vec::new();
    };
    written.items().unwrap_or_else(|| {
        let what = format!("has to be a list, but is {}", written.kind());
        found
            .problems
            .add(written.path, what, "write `- ` before each entry");
        Vec::new()
    })
}

fn is_mapping(value: &ManifestValue<'_>, found: &mut Findings) -> bool {
    let is_mapping = value.entries().is_some();
    if !is_mapping {
        let what = format!("has to be a mapping, but is {}", value.kind());
        found
            .problems
            .add(value.path.as_str(), what, "write `key: value` lines");
    }
    is_mapping
}

/// Files each key that is not in the list. `hyphens`: the platform takes them for underscores.
fn unknown(mapping: &ManifestValue<'_>, known: &[&'static str], hyphens: bool, found: &mut Findings) {
    for entry in mapping.entries().unwrap_or_default() {
        let plain = entry.key.replace('-', "_");
        let read = if hyphens { plain.as_str() } else { entry.key };
        if known.contains(&read) {
            continue;
        }
        let former = FORMER.iter().find(|(key, _)| hyphens && *key == plain);
        let right = match (former, nearest(&plain, known.iter().copied())) {
            (Some((_, right)), _) => (*right).to_owned(),
            (None, Some(meant)) => format!("did you mean `{meant}`?"),
            (None, None) if !hyphens => format!("a sidecar has {} and nothing else", known.join(", ")),
            (None, None) => "remove it".to_owned(),
        };
        found.at(entry.value.path, entry.at, "the platform ignores this key", right);
    }
}
