use super::*;

/// A manifest without a fault.
const SOUND: &str = "\
version: 1
applications:
- name: app
  memory: 192M
  command: exec python3 app.py
  services: [partner]
  sidecars:
  - name: outrider
    process_types: [web]
    command: exec ./outrider run
    memory: 64M
";

const CONFIG: &str = "\
destinations:
  partner: { hosts: [partner.test], auth: { bearer: vcap:partner/token }, rate_limit: 5/s }
";

/// Problems and warnings of a manifest beside a configuration, and problems of that.
fn examined(manifest: &str, config: &str) -> (String, String, String) {
    examined_beside(manifest, config, None)
}

/// Does the same with a Procfile in the folder of the first app.
fn examined_beside(manifest: &str, config: &str, procfile: Option<&str>) -> (String, String, String) {
    let procfile = procfile.map(|text| Procfile::parse(text, "Procfile").unwrap());
    let procfiles = procfile
        .into_iter()
        .map(|one| ("applications[0]".to_owned(), one))
        .collect();
    let manifest = Manifest::parse(manifest, "m.yml").unwrap();
    let text = config;
    let config = Config::parse(text, "o.yml").map_err(|problems| problems.to_string());
    let config = config.unwrap();
    let (mut found, mut own) = (Findings::default(), Findings::default());
    for application in examine_all(&manifest, &procfiles, &mut found) {
        needs::examine(&application, &config, text, &mut found, &mut own);
    }
    (
        found.problems.located(&manifest.locations).to_string(),
        found.warnings.located(&manifest.locations).to_string(),
        own.problems.located(&config.locations).to_string(),
    )
}

fn told(manifest: &str) -> (String, String) {
    let (problems, warnings, _) = examined(manifest, CONFIG);
    (problems, warnings)
}

/// Whether a problem begins so, its column aside.
fn same_line(problem: &str, said: &str) -> bool {
    let parts = |text: &str| {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        Some((parts.next()?, parts.next()?, parts.nth(1)?))
    };
    match (parts(problem), parts(said)) {
        (Some((file, line, rest)), Some((own, at, wanted))) => {
            file == own && line == at && rest.starts_with(&wanted)
        }
        (_, _) => false,
    }
}

#[test]
fn nothing_is_said_of_a_sound_manifest() {
    assert_eq!(told(SOUND), (String::new(), String::new()));
    // As the platform reads them, with hyphens, and with what `cf push` fills in.
    for (from, to) in [
        ("  memory: 192M\n", "  memory: ((memory))\n"),
        (
            "  memory: 192M\n",
            "  memory: 192M\n  disk-quota: 1G\n  health-check-type: process\n",
        ),
        (
            "services: [partner]",
            "services: [{ name: instance, binding_name: partner }]",
        ),
        ("services: [partner]", "services: ((services))"),
        ("command: exec ./outrider run", "command: ((command))"),
        ("process_types: [web]", "process_types: ((types))"),
        ("version: 1\n", "x-defaults: &a { memory: 1G }\n"),
    ] {
        assert_eq!(
            told(&SOUND.replace(from, to)),
            (String::new(), String::new()),
            "{to}"
        );
    }
}

/// Each mistake with its line: what is written instead, and what is said.
#[test]
fn every_mistake_is_named_with_its_line() {
    let long = format!("command: exec ./outrider run --config {}", "x".repeat(4096));
    let long_name = format!("- name: outrider{}\n    process", "x".repeat(255));
    for (from, to, said) in [
        (
            "command: exec ./outrider run",
            "command: ./outrider run",
            "m.yml:10:14: applications[0].sidecars[0].command: the shell stays between",
        ),
        (
            "command: exec ./outrider run",
            "command: ./start-outrider.sh",
            "m.yml:10:14: applications[0].sidecars[0].command: the shell stays",
        ),
        (
            "command: exec ./outrider run",
            "command: exec ./outrider",
            "m.yml:10:14: applications[0].sidecars[0].command: outrider ends at once",
        ),
        (
            "command: exec ./outrider run",
            "command: outrider exec -- x",
            "m.yml:10:14: applications[0].sidecars[0].command: `outrider exec` is for one",
        ),
        (
            "exec ./outrider run",
            "exec ./outrider run --listen $PORT",
            "m.yml:10:14: applications[0].sidecars[0].command: $PORT is the app's",
        ),
        (
            "command: exec ./outrider run",
            &long,
            "m.yml:10:14: applications[0].sidecars[0].command: 4125 characters long",
        ),
        (
            "- name: outrider\n    process",
            &long_name,
            "m.yml:8:11: applications[0].sidecars[0].name: 263 characters long",
        ),
        (
            "    command: exec ./outrider run\n",
            "",
            "m.yml:8:5: applications[0].sidecars[0]: `command` is missing",
        ),
        (
            "process_types: [web]",
            "process_type: [web]",
            "m.yml:9:5: applications[0].sidecars[0].process_type: the platform ignores this key; did you mean `process_types`?",
        ),
        (
            "process_types: [web]",
            "process-types: [web]",
            "m.yml:9:5: applications[0].sidecars[0].process-types: the platform ignores this key; did you mean `process_types`?",
        ),
        (
            "process_types: [web]",
            "process_types: []",
            "m.yml:9:20: applications[0].sidecars[0].process_types: an empty list",
        ),
        (
            "process_types: [web]",
            "process_types: web",
            "m.yml:9:20: applications[0].sidecars[0].process_types: has to be a list, but is a text; write process_types: [web]",
        ),
        (
            "process_types: [web]",
            "process_types: [wep]",
            "m.yml:9:21: applications[0].sidecars[0].process_types[0]: the app has no process type `wep`; did you mean `web`?",
        ),
        (
            "process_types: [web]",
            "process_types: [web, worker]",
            "m.yml:9:20: applications[0].sidecars[0].process_types: the profile script does not know that worker has the sidecar, and does not wait for it; write OUTRIDER_PROCESS_TYPES: \"web,worker\" under env",
        ),
        (
            "  services",
            "  env: { OUTRIDER_PROCESS_TYPES: 'web, worker' }\n  services",
            "m.yml:6:34: applications[0].env.OUTRIDER_PROCESS_TYPES: the profile script waits for a sidecar in worker",
        ),
        (
            "    memory: 64M\n",
            "    memory: 64M\n    env: { A: b }\n",
            "m.yml:12:5: applications[0].sidecars[0].env: the platform ignores this key; a sidecar has command",
        ),
        (
            "    memory: 64M\n",
            "    memory: 64M\n    health-check-type: none\n",
            "m.yml:12:5: applications[0].sidecars[0].health-check-type: the platform ignores this key",
        ),
        (
            "memory: 64M",
            "memory: 64",
            "m.yml:11:13: applications[0].sidecars[0].memory: not a size that the platform knows",
        ),
        (
            "memory: 64M",
            "memory: 192M",
            "m.yml:4:11: applications[0].memory: 192M of the process type `web`, and its sidecars take 192M of them",
        ),
        (
            "memory: 192M",
            "memory: 64M",
            "m.yml:4:11: applications[0].memory: 64M of the process type",
        ),
        (
            "memory: 64M\n",
            "memory: 64M\n  - { name: b, command: exec b, process_types: [web], memory: 0.125G }\n",
            "m.yml:12:63: applications[0].sidecars[1].memory: not a size",
        ),
        (
            "memory: 64M\n",
            "memory: 64M\n  - { name: b, command: exec b, process_types: [web], memory: 128M }\n",
            "m.yml:4:11: applications[0].memory: 192M of the process type `web`, and its sidecars take 192M",
        ),
        (
            "memory: 64M\n",
            "memory: 64M\n  - { name: outrider, command: exec ./outrider run, process_types: [web], memory: 1M }\n",
            "m.yml:12:5: applications[0].sidecars[1]: a second sidecar that runs outrider",
        ),
        (
            "memory: 64M\n",
            "memory: 64M\n  - { name: outrider, command: exec b, process_types: [web] }\n",
            "m.yml:12:13: applications[0].sidecars[1].name: another sidecar has this name",
        ),
        (
            "  services",
            "  env: { HTTPS_PROXY: 'http://127.0.0.1:3128' }\n  services",
            "m.yml:6:10: applications[0].env.HTTPS_PROXY: holds also while the app is staged",
        ),
        (
            "  services",
            "  env: { http_proxy: x }\n  services",
            "m.yml:6:10: applications[0].env.http_proxy: holds also",
        ),
        (
            "  services",
            "  env: { NO_PROXY: 'a.test, partner.test' }\n  services",
            "m.yml:6:20: applications[0].env.NO_PROXY: `partner.test` takes calls past the proxy, and",
        ),
        (
            "  services",
            "  env: { no_proxy: '*' }\n  services",
            "m.yml:6:20: applications[0].env.no_proxy: `*` takes calls past the proxy",
        ),
        (
            "  services",
            "  env: { PORT: 3000 }\n  services",
            "m.yml:6:10: applications[0].env.PORT: the platform sets it itself",
        ),
        (
            "  services",
            "  env: { VCAP_SERVICES: x }\n  services",
            "m.yml:6:10: applications[0].env.VCAP_SERVICES: the platform sets it",
        ),
        (
            "  services",
            "  env: [A]\n  services",
            "m.yml:6:8: applications[0].env: has to be a mapping, but is a list",
        ),
        (
            "services: [partner]",
            "services: []",
            "m.yml:6:13: applications[0].services: outrider.yml needs the bound service `partner` (destinations.partner.auth.bearer); add `- partner`",
        ),
        (
            "  services: [partner]\n",
            "",
            "m.yml:3:3: applications[0]: outrider.yml needs the bound service `partner`",
        ),
        (
            "  services",
            "  instance: 3\n  services",
            "m.yml:6:3: applications[0].instance: the platform ignores this key; did you mean `instances`?",
        ),
        (
            "  services",
            "  domain: x.test\n  services",
            "m.yml:6:3: applications[0].domain: the platform ignores this key; write routes: [{ route: HOST.DOMAIN }]",
        ),
        (
            "  services",
            "  buildpacks: [python_buildpack, outrider_buildpack]\n  services",
            "m.yml:6:33: applications[0].buildpacks[1]: the last buildpack has to start the app",
        ),
        (
            "  services",
            "  buildpacks: [outrider_buildpack, python_buildpack]\n  services",
            "m.yml:9:5: applications[0].sidecars[0]: the buildpack registers the sidecar itself",
        ),
        (
            "  services",
            "  buildpack: a\n  buildpacks: [b]\n  services",
            "m.yml:6:14: applications[0].buildpack: the platform refuses it beside",
        ),
        (
            "  services",
            "  processes: [{ memory: 1G }]\n  services",
            "m.yml:6:15: applications[0].processes[0]: `type` is missing",
        ),
        (
            "  services",
            "  processes: [{ type: web }, { type: web }]\n  services",
            "m.yml:6:38: applications[0].processes[1].type: stands twice",
        ),
        (
            "  services",
            "  processes: [{ type: web, memory: 64M }]\n  services",
            "m.yml:6:36: applications[0].processes[0].memory: 64M of the process type `web`",
        ),
        (
            "- name: app\n  memory: 192M",
            "- memory: 192M",
            "m.yml:3:3: applications[0]: `name` is missing",
        ),
        (
            "version: 1",
            "version: 2",
            "m.yml:1:10: version: the platform knows version 1 only",
        ),
        (
            "applications:",
            "application:",
            "m.yml:2:1: application: the platform ignores this key; did you mean `applications`?",
        ),
        ("exec ./outrider run", "exec ./other", "m.yml"),
    ] {
        let text = SOUND.replacen(from, to, 1);
        assert_ne!(text, SOUND, "{from}");
        let (problems, _) = told(&text);
        if to == "exec ./other" {
            // It is outrider's by its name.
            assert_eq!(problems, "", "{to}");
            continue;
        }
        assert!(
            problems.lines().any(|line| same_line(line, said)),
            "{to}\n{problems}\nwanted {said}"
        );
        // Each is said once.
        let mut lines: Vec<_> = problems.lines().collect();
        lines.dedup();
        assert_eq!(lines.len(), problems.lines().count(), "{problems}");
    }
}

#[test]
fn a_manifest_in_which_nothing_runs_outrider_says_so() {
    let without = &SOUND[..SOUND.find("  sidecars").unwrap()];
    let (problems, _) = told(without);
    assert!(
        problems.starts_with("m.yml:3:3: applications: nothing here runs outrider"),
        "{problems}"
    );
    for sound in [
        without.replace("exec python3 app.py", "./outrider exec -- python3 app.py"),
        without.replace("exec python3 app.py", "./outrider run"),
        without.replace(
            "  services",
            "  buildpacks: [outrider_buildpack, python_buildpack]\n  services",
        ),
    ] {
        assert_eq!(told(&sound).0, "", "{sound}");
    }
    // One app of two has it: the other may not need it.
    let both = format!("{SOUND}- name: other\n  memory: 64M\n");
    assert_eq!(told(&both), (String::new(), String::new()));
}

#[test]
fn what_may_be_meant_is_a_warning() {
    for (from, to, said) in [
        (
            "    memory: 64M\n",
            "",
            "m.yml:8:5: applications[0].sidecars[0]: without `memory` the app is told",
        ),
        (
            "  services",
            "  processes: [{ type: web }, { type: worker }]\n  services",
            "m.yml:6:30: applications[0].processes[1]: the process type `worker` has no sidecar",
        ),
        (
            "services: [partner]",
            "services: [own-partner]",
            "m.yml:6:13: applications[0].services: outrider.yml needs the bound service `partner`",
        ),
        (
            "  services",
            "  instances: 3\n  services",
            "m.yml:6:14: applications[0].instances: each of 3 instances takes the whole rate_limit of partner",
        ),
        (
            "  services",
            "  docker: { image: a/b }\n  services",
            "m.yml:6:11: applications[0].docker: profile scripts do not run",
        ),
        (
            "  services",
            "  lifecycle: cnb\n  services",
            "m.yml:6:14: applications[0].lifecycle: profile scripts do not run",
        ),
    ] {
        let (problems, warnings) = told(&SOUND.replacen(from, to, 1));
        assert_eq!(problems, "", "{to}");
        assert!(same_line(&warnings, said), "{to}\n{warnings}");
    }
    let served =
        "  processes: [{ type: web }, { type: worker, command: ./outrider exec -- work }]\n  services";
    assert_eq!(
        told(&SOUND.replacen("  services", served, 1)),
        (String::new(), String::new())
    );
}

#[test]
fn ports_that_are_taken_in_a_container_are_named_in_the_configuration() {
    for (config, said) in [
        (
            "listen: 127.0.0.1:8080",
            "o.yml:1:9: listen: port 8080 is the app's $PORT",
        ),
        (
            "listen: [127.0.0.1:1, 127.0.0.1:8080]",
            "o.yml:1:23: listen[1]: port 8080 is",
        ),
        (
            "admin: 127.0.0.1:2222",
            "o.yml:1:8: admin: port 2222 is the platform's ssh",
        ),
        (
            "admin: 127.0.0.1:61443",
            "o.yml:1:8: admin: port 61443 is the platform's Envoy",
        ),
        (
            "tcp: { db: { listen: 127.0.0.1:8080, to: db.test:5432 } }",
            "o.yml:1:22: tcp.db.listen: port 8080",
        ),
    ] {
        let (_, _, own) = examined(SOUND, config);
        assert!(same_line(&own, said), "{config}: {own}");
        assert_eq!(own.lines().count(), 1, "{own}");
    }
    assert_eq!(examined(SOUND, "listen: 127.0.0.1:3128").2, "");
    // Where outrider is the app, its port is $PORT.
    let gateway = "applications: [{ name: gate, command: ./outrider run }]";
    let config = "listen: 0.0.0.0:8080\nclients: { app: { basic: env:PASSWORD } }";
    assert_eq!(examined(gateway, config).2, "");
}

#[test]
fn forms_that_are_no_manifest_are_told_and_nothing_panics() {
    for text in [
        "[]",
        "a",
        "applications:",
        "applications: {}",
        "applications: []",
        "applications: [a]",
        "applications: [[]]",
        "applications: [{ name: a, sidecars: x }]",
        "applications: [{ name: a, sidecars: [x] }]",
        "applications: [{ name: a, processes: [x], env: x, services: x, buildpacks: x }]",
        "applications: [{ name: [], sidecars: [{ name: {}, command: [], process_types: {}, memory: [] }] }]",
        "applications: [{ name: a, sidecars: [{ name: outrider, command: 'exec ./outrider run', process_types: [[]] }] }]",
        "applications: [{ name: a, memory: 99999999999999999999T }]",
        "applications: [{ name: a, memory: 18446744073709551615T, sidecars: [{ name: outrider }] }]",
        "<<: x",
        "? [a]\n: b",
    ] {
        let Ok(manifest) = Manifest::parse(text, "m.yml") else {
            continue;
        };
        let mut found = Findings::default();
        examine_all(&manifest, &BTreeMap::new(), &mut found);
        assert!(!found.problems.is_empty(), "{text}");
    }
}

/// Where the manifest names no command, those of the Procfile count; each of its types may have the sidecar.
#[test]
fn a_procfile_is_looked_at_where_the_manifest_names_nothing() {
    let bare = SOUND.replace("  command: exec python3 app.py\n", "");
    let both = bare.replace("[web]", "[web, worker]").replace(
        "  services",
        "  env: { OUTRIDER_PROCESS_TYPES: 'web,worker' }\n  services",
    );
    assert_ne!(bare, SOUND);
    for (manifest, procfile, said) in [
        (&*bare, "web: gunicorn app", ""),
        (SOUND, "worker: celery", ""),
        (&*both, "web: gunicorn app\nworker: celery", ""),
        (
            &*both,
            "web: gunicorn app",
            "m.yml:9:27: applications[0].sidecars[0].process_types[1]: no process type `worker` is listed here or in the Procfile",
        ),
        (
            &*bare,
            "worker: celery",
            "m.yml:8:20: applications[0].sidecars[0].process_types[0]: neither the manifest nor the Procfile names a command for `web`",
        ),
        (
            &*bare,
            "web: exec ./outrider exec -- gunicorn app",
            "m.yml:8:20: applications[0].sidecars[0].process_types[0]: the command of `web` runs outrider itself",
        ),
        // The manifest's own command goes before it.
        (SOUND, "web: exec ./outrider exec -- gunicorn app", ""),
        (
            &*bare.replace(
                "  services",
                "  processes: [{ type: web, command: exec x }]\n  services",
            ),
            "web: ./outrider run",
            "",
        ),
    ] {
        let (problems, warnings, _) = examined_beside(manifest, CONFIG, Some(procfile));
        assert_eq!(problems, "", "{procfile}");
        assert!(
            (said.is_empty() && warnings.is_empty()) || (!said.is_empty() && same_line(&warnings, said)),
            "{procfile}\n{warnings}"
        );
    }
    // A type that is misspelt.
    let wrong = both.replace("worker", "workr");
    let (problems, ..) = examined_beside(&wrong, CONFIG, Some("web: a\nworker: b"));
    assert!(problems.contains("did you mean `worker`?"), "{problems}");
    // Without a sidecar, outrider may run in the command.
    let without = &bare[..bare.find("  sidecars").unwrap()];
    let (problems, ..) = examined_beside(without, CONFIG, Some("web: ./outrider exec -- gunicorn app"));
    assert_eq!(problems, "");
    let (problems, ..) = examined_beside(without, CONFIG, Some("web: gunicorn app"));
    assert!(problems.contains("nothing here runs outrider"), "{problems}");
}
