//! What a person types: check, explain, env, init, schema, completions, exec, demo.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::support::programs::{outrider, wait};
use crate::support::proxy::configuration;
use crate::support::{CANARY, Origin, PATIENCE, ProgramOutput, eventually, run};

/// Makes a folder with `outrider.yml` in it.
fn folder(yaml: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    fs::write(&file, yaml).unwrap();
    (folder, file)
}

/// Runs outrider in the folder of a configuration.
fn in_folder(yaml: &str, arguments: &[&str]) -> ProgramOutput {
    let (folder, _) = folder(yaml);
    run(outrider(arguments)
        .current_dir(folder.path())
        .env("TMPDIR", folder.path()))
}

#[test]
fn check_is_silent_where_all_is_well() {
    let yaml = "destinations: { weather: { hosts: [api.weather.test], auth: { bearer: env:TOKEN } } }\n";
    let (folder, _) = folder(yaml);
    let fine = run(outrider(["check"])
        .current_dir(folder.path())
        .env("TOKEN", "long-enough"));
    assert_eq!(
        (fine.code(), fine.stdout.as_str(), fine.stderr.as_str()),
        (0, "", ""),
        "{fine:?}"
    );
}

#[test]
fn check_reports_every_problem_with_its_place_and_its_remedy() {
    let wrong = in_folder(
        "listne: 127.0.0.1:3128\nworkers: many\ndestinations:\n  a:\n    hosts: [\"\"]\n    rate_limit: 5\n  b:\n    auth: { bearer: sesame }\n    probe: GET /\n",
        &["check"],
    );
    assert_eq!(wrong.code(), 1, "{wrong:?}");
    let text = format!("{}{}", wrong.stdout, wrong.stderr);
    for part in [
        "outrider.yml:1:1:",
        "listen",
        "outrider.yml:2:",
        "workers",
        "outrider.yml:5:",
        "hosts",
        "outrider.yml:6:",
        "rate_limit",
        "5/s",
        "outrider.yml:8:",
        "env:",
        "probe",
    ] {
        assert!(text.contains(part), "{part} is missing:\n{text}");
    }
    assert!(!text.contains("sesame"), "a secret is repeated:\n{text}");
    assert!(
        text.lines().filter(|line| line.contains("outrider.yml:")).count() >= 6,
        "{text}"
    );
}

/// A key of the language that does not work yet says so; none is silently ignored.
#[test]
fn keys_that_do_not_work_yet_say_so() {
    for yaml in [
        "doctor: { echo_url: \"https://echo.test/\" }\n",
        "destinations: { a: { hosts: [a.test], probe: GET / } }\n",
        "destinations: { a: { hosts: [a.test], auth: { pool: [{ bearer: env:T }] } } }\n",
    ] {
        let told = in_folder(yaml, &["check"]);
        assert_eq!(told.code(), 1, "{yaml}: {told:?}");
        let text = format!("{}{}", told.stdout, told.stderr);
        assert!(
            text.contains("outrider.yml:1:") && text.contains("not"),
            "{yaml}: {text}"
        );
    }
}

/// The configuration is found by flag, by variable, in the folder, and else built in.
#[test]
fn the_configuration_is_found_in_its_order() {
    let (folder, file) = folder("listne: here\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let by_folder = run(outrider(["check"]).current_dir(folder.path()));
    assert_eq!(by_folder.code(), 1);
    let by_variable = run(outrider(["check"])
        .current_dir(elsewhere.path())
        .env("OUTRIDER_CONFIG", &file));
    assert_eq!(by_variable.code(), 1);
    let good = elsewhere.path().join("good.yml");
    fs::write(&good, "workers: 1\n").unwrap();
    let by_flag = run(outrider(["check", "--config"])
        .arg(&good)
        .current_dir(folder.path())
        .env("OUTRIDER_CONFIG", &file));
    assert_eq!(by_flag.code(), 0, "{by_flag:?}");
    let built_in = run(outrider(["check"]).current_dir(tempfile::tempdir().unwrap().path()));
    assert_eq!(built_in.code(), 0, "{built_in:?}");
    let missing = run(&mut outrider(["check", "--config", "nowhere.yml"]));
    assert_ne!(missing.code(), 0);
    assert!(
        format!("{}{}", missing.stdout, missing.stderr).contains("nowhere.yml"),
        "{missing:?}"
    );
}

#[test]
fn explain_says_what_would_happen_and_why() {
    let yaml = "destinations:\n  partner:\n    hosts: [partner.test]\n    auth: { bearer: env:TOKEN }\n    methods: [GET]\n    rate_limit: 5/s\n  blind:\n    hosts: [\"*.blind.test\"]\n    mode: tunnel\n";
    let (folder, _) = folder(yaml);
    let explain = |arguments: &[&str]| {
        let mut command = outrider(["explain"]);
        run(command
            .args(arguments)
            .current_dir(folder.path())
            .env("TOKEN", CANARY))
    };
    for (arguments, code, parts) in [
        (
            &["https://partner.test/x"][..],
            0,
            &["partner", "intercept", "bearer", "env:TOKEN", "5/s"][..],
        ),
        (&["http://partner.test/x"], 0, &["partner", "upgrade"]),
        (&["https://a.blind.test/"], 0, &["blind", "tunnel"]),
        (
            &["--method", "POST", "https://partner.test/x"],
            1,
            &["partner", "POST"],
        ),
        (&["https://elsewhere.test/"], 1, &["refused", "unlisted"]),
        (&["http://169.254.169.254/"], 1, &["169.254.169.254"]),
    ] {
        let told = explain(arguments);
        assert_eq!(told.code(), code, "{arguments:?}: {told:?}");
        for part in parts {
            assert!(
                told.stdout.contains(part),
                "{arguments:?}: no {part} in {}",
                told.stdout
            );
        }
        assert!(!format!("{told:?}").contains(CANARY), "{told:?}");
    }
}

/// Without a file everything is tunnelled but private and metadata networks.
#[test]
fn the_built_in_configuration_is_safe() {
    let folder = tempfile::tempdir().unwrap();
    for (url, code, part) in [
        ("https://api.weather.test/", 0, "tunnel"),
        ("https://10.0.0.1/", 1, "private"),
        ("https://169.254.169.254/", 1, "169.254.169.254"),
        ("https://127.0.0.1/", 1, "loopback"),
    ] {
        let told = run(outrider(["explain", url]).current_dir(folder.path()));
        assert_eq!(told.code(), code, "{url}: {told:?}");
        assert!(told.stdout.contains(part), "{url}: {}", told.stdout);
    }
}

#[test]
fn env_prints_every_variable_in_every_format() {
    let place = tempfile::tempdir().unwrap();
    let bundle = place.path().join("ours/ca.pem").display().to_string();
    let yaml = &format!("listen: 127.0.0.1:4128\nca: {{ bundle: {bundle} }}\n");
    let sh = in_folder(yaml, &["env"]);
    let names = [
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "NODE_USE_ENV_PROXY",
        "AWS_CA_BUNDLE",
        "GIT_SSL_CAINFO",
        "PIP_CERT",
    ];
    let json: serde_json::Value =
        serde_json::from_str(&in_folder(yaml, &["env", "--format", "json"]).succeeded().stdout).unwrap();
    let dotenv = in_folder(yaml, &["env", "--format", "dotenv"]);
    for name in names {
        assert!(
            sh.succeeded().stdout.contains(&format!("export {name}=")),
            "{name}: {}",
            sh.stdout
        );
        assert!(
            dotenv
                .succeeded()
                .stdout
                .lines()
                .any(|line| line.starts_with(&format!("{name}="))),
            "{name}: {}",
            dotenv.stdout
        );
        assert!(json[name].is_string(), "{name}: {json}");
    }
    assert_eq!(json["https_proxy"], "http://127.0.0.1:4128");
    assert_eq!(json["SSL_CERT_FILE"], bundle);
    // What is printed is what a shell understands.
    let shell = run(std::process::Command::new("sh")
        .arg("-c")
        .arg(format!("{}\necho \"$https_proxy $SSL_CERT_FILE\"", sh.stdout)));
    assert_eq!(
        shell.succeeded().stdout,
        format!("http://127.0.0.1:4128 {bundle}\n")
    );
}

#[test]
fn init_writes_a_starter_once() {
    let folder = tempfile::tempdir().unwrap();
    let init = || run(outrider(["init"]).current_dir(folder.path()));
    init().succeeded();
    let text = fs::read_to_string(folder.path().join("outrider.yml")).unwrap();
    assert!(text.contains('#'), "{text}");
    let check = run(outrider(["check"]).current_dir(folder.path()));
    assert_eq!(check.code(), 0, "{check:?}");
    fs::write(folder.path().join("outrider.yml"), "mine: yes\n").unwrap();
    let again = init();
    assert_ne!(again.code(), 0, "{again:?}");
    assert!(again.stderr.contains("outrider.yml"), "{again:?}");
    assert_eq!(
        fs::read_to_string(folder.path().join("outrider.yml")).unwrap(),
        "mine: yes\n"
    );
}

#[test]
fn schema_and_completions_are_printed() {
    let schema: serde_json::Value =
        serde_json::from_str(&run(&mut outrider(["schema"])).succeeded().stdout).unwrap();
    assert!(schema["properties"]["destinations"].is_object(), "{schema}");
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            run(&mut outrider(["completions", shell]))
                .succeeded()
                .stdout
                .contains("outrider"),
            "{shell}"
        );
    }
}

#[test]
fn every_subcommand_has_help_with_an_example() {
    let all = run(&mut outrider(["--help"]));
    for name in [
        "run",
        "exec",
        "check",
        "explain",
        "env",
        "demo",
        "init",
        "schema",
        "completions",
    ] {
        assert!(all.succeeded().stdout.contains(name), "{name}: {}", all.stdout);
        let help = run(&mut outrider([name, "--help"]));
        let text = &help.succeeded().stdout;
        assert!(
            text.contains("Example") && text.contains(&format!("outrider {name}")),
            "{name}: {text}"
        );
        let about = text.lines().next().unwrap();
        let listed = |line: &str| line.trim_start().starts_with(name) && line.ends_with(about);
        assert!(all.stdout.lines().any(listed), "{name}: {about}: {}", all.stdout);
    }
    assert_eq!(run(&mut outrider(["no-such-thing"])).code(), 2);
}

/// Fourteen lines are all that one mutual-TLS destination needs.
#[test]
fn fourteen_lines_are_enough() {
    let pki = crate::support::Pki::new();
    let client = pki.client("app");
    let yaml = format!(
        "destinations:\n  partner:\n    hosts: [partner.test]\n    tls:\n      client_certificate:\n        cert: file:{}\n        key: file:{}\n      ca: file:{}\n",
        client.cert_path.display(),
        client.key_path.display(),
        pki.ca().display()
    );
    assert!(yaml.lines().count() <= 14);
    assert_eq!(in_folder(&yaml, &["check"]).code(), 0);
}

/// Makes a folder with a configuration for `exec`: free ports, files in the folder.
fn exec_folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("outrider.yml");
    fs::write(&file, configuration("log: { format: json }", folder.path())).unwrap();
    (folder, file)
}

#[test]
fn exec_ends_with_the_status_of_its_command() {
    let (folder, file) = exec_folder();
    let exec = |command: &[&str]| {
        let mut outrider = outrider(["exec", "--config"]);
        outrider
            .arg(&file)
            .arg("--")
            .args(command)
            .env("TMPDIR", folder.path());
        run(&mut outrider)
    };
    assert_eq!(exec(&["true"]).code(), 0);
    assert_eq!(exec(&["sh", "-c", "exit 42"]).code(), 42);
    assert_eq!(exec(&["sh", "-c", "kill -TERM $$"]).code(), 128 + 15);
    assert_eq!(exec(&["sh", "-c", "kill -KILL $$"]).code(), 128 + 9);
    assert_eq!(exec(&["no-such-command-anywhere"]).code(), 127);
    let script = folder.path().join("not-executable");
    fs::write(&script, "#!/bin/sh\n").unwrap();
    assert_eq!(exec(&[script.to_str().unwrap()]).code(), 126);
    let all = exec(&[
        "sh",
        "-c",
        "echo out; echo err >&2; cat; test -s \"$SSL_CERT_FILE\" && echo \"$https_proxy\"",
    ]);
    assert!(
        all.succeeded().stdout.starts_with("out\nhttp://outrider:"),
        "{all:?}"
    );
    assert!(all.stderr.contains("err\n"), "{all:?}");
    assert!(!all.stdout.contains(":0\n"), "the real port is not told: {all:?}");
}

/// Signals reach the command; the proxy outlives it and serves it to the end.
#[test]
fn exec_passes_signals_on_and_outlives_its_command() {
    let (folder, file) = exec_folder();
    let origin = Origin::plain();
    let yaml = format!("destinations: {{ p: {{ hosts: [\"{}\"] }} }}", origin.authority());
    fs::write(&file, configuration(&yaml, folder.path())).unwrap();
    let marker = folder.path().join("ready");
    let script = format!(
        "trap 'curl -s -o /dev/null -w \"%{{http_code}}\" {}; exit 7' TERM; touch {}; while :; do sleep 0.05; done",
        origin.url("/last-words"),
        marker.display()
    );
    let mut command = outrider(["exec", "--config"]);
    command
        .arg(&file)
        .args(["--", "sh", "-c", &script])
        .env("TMPDIR", folder.path());
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the command runs", || marker.exists());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let status = wait(&mut child, PATIENCE).expect("exec to end");
    assert_eq!(status.code(), Some(7));
    let said = std::io::read_to_string(child.stdout.take().unwrap()).unwrap();
    assert_eq!(said, "200");
    assert!(origin.raw().contains("/last-words"));
}

/// SIGHUP reloads, and the command hears nothing of it; what `nohup` ignores the command ignores, too.
#[test]
fn exec_reloads_on_sighup_and_does_not_pass_it_on() {
    let (folder, file) = exec_folder();
    let [script, ready, heard] = ["script", "ready", "heard"].map(|name| folder.path().join(name));
    fs::write(
        &script,
        format!(
            "trap 'echo HUP >> {heard}' HUP; trap 'echo TERM >> {heard}; exit 7' TERM; touch {ready}\n\
             while :; do sleep 0.05; done\n",
            heard = heard.display(),
            ready = ready.display()
        ),
    )
    .unwrap();
    // The tests may have been started with HUP ignored, and an ignored signal stays ignored.
    let mut command = crate::support::programs::clean("env");
    command
        .args([
            "--default-signal=HUP",
            env!("CARGO_BIN_EXE_outrider"),
            "exec",
            "--config",
        ])
        .arg(&file)
        .args(["--", "sh"])
        .arg(&script);
    let log = folder.path().join("log");
    let mut child = command
        .env("TMPDIR", folder.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    eventually("the command runs", || ready.exists());
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let told = || fs::read_to_string(&log).unwrap();
    eventually("a reload", || told().contains("configuration reloaded"));
    // Had HUP been passed on, the shell would have trapped it by the time that it traps this one.
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(wait(&mut child, PATIENCE).expect("exec to end").code(), Some(7));
    assert_eq!(fs::read_to_string(&heard).unwrap(), "TERM\n");

    for (through, is_ignored) in [(&["env", "--default-signal=HUP"][..], false), (&["nohup"], true)] {
        let mut command = crate::support::programs::clean(through[0]);
        command.args(&through[1..]);
        command
            .arg(env!("CARGO_BIN_EXE_outrider"))
            .args(["exec", "--config"]);
        command
            .arg(&file)
            .args(["--", "grep", "SigIgn", "/proc/self/status"]);
        let ran = run(command.env("TMPDIR", folder.path()));
        let mask = ran.succeeded().stdout.split_whitespace().last().unwrap();
        let mask = u64::from_str_radix(mask, 16).unwrap();
        assert_eq!(mask & 1 == 1, is_ignored, "{through:?}: {ran:?}");
    }
}

/// The main job with nothing prepared.
#[test]
fn the_demo_shows_all_its_steps() {
    let folder = tempfile::tempdir().unwrap();
    let demo = run(outrider(["demo"])
        .current_dir(folder.path())
        .env("TMPDIR", folder.path()));
    let story = demo.succeeded().stdout.to_lowercase();
    for part in [
        "alone",
        "certificate required",
        "behind the proxy",
        "403 destination_ip_prohibited",
        "429",
        "/metrics",
    ] {
        assert!(story.contains(part), "{part}: {story}");
    }
    assert!(
        !story.contains("panicked") && !demo.stderr.contains("panicked"),
        "{demo:?}"
    );
}
