//! `init --manifest`: a sidecar is added to a manifest that is there, and nothing else is changed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::programs::is_not_packaged;

/// Names and texts; what is between the marks is added.
const SHAPES: &str = include_str!("../src/config/sidecar/shapes.txt");

const MANIFEST: &str = "\
# Ours.
applications:
- name: app # the only one
  path: app
  memory: 192M
";

const ADDED: &str = "  sidecars:
  - name: outrider
    process_types: [web]
    command: exec ./outrider run
    memory: 64M
";

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_outrider"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_clear()
        .env("HOME", folder)
        .stdin(Stdio::null());
    command
}

fn init(folder: &Path, further: &[&str]) -> (Option<i32>, String, String) {
    let arguments = [&["init", "--manifest", "manifest.yml"], further].concat();
    told(command(folder, &arguments).output().unwrap())
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// A folder with a manifest.
fn with(text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("manifest.yml"), text).unwrap();
    folder
}

fn read(folder: &tempfile::TempDir) -> String {
    fs::read_to_string(folder.path().join("manifest.yml")).unwrap()
}

/// Another reader of YAML sees the old manifest and the entry, and a second run adds nothing.
#[test]
fn each_shape_gets_the_entry_once() {
    if is_not_packaged("ruby") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = |name: String| folder.path().join(name);
    let mut count = 0;
    for (i, shape) in SHAPES.split("=== ").skip(1).enumerate() {
        let (name, marked) = shape.split_once('\n').unwrap();
        let (head, rest) = marked.split_once('«').unwrap();
        let (added, tail) = rest.split_once('»').unwrap();
        let (before, after) = (format!("{head}{tail}"), format!("{head}{added}{tail}"));
        fs::write(path(format!("{i}.before")), &before).unwrap();
        fs::write(path(format!("{i}.after")), &before).unwrap();
        let file = format!("{i}.after");
        let app = if before.contains("((name))") {
            "((name))"
        } else {
            "app"
        };
        let run = || {
            let arguments = [
                "init",
                "--manifest",
                &file,
                "--app",
                app,
                "--process-types",
                "web",
                "--write",
            ];
            told(command(folder.path(), &arguments).output().unwrap())
        };
        let (code, diff, said) = run();
        assert_eq!(code, Some(0), "{name}: {said}");
        assert!(
            diff.starts_with(&format!("--- {file}\n+++ {file}\n@@ ")),
            "{name}: {diff}"
        );
        assert_eq!(fs::read_to_string(path(file.clone())).unwrap(), after, "{name}");
        let (code, diff, said) = run();
        assert_eq!((code, diff.as_str()), (Some(0), ""), "{name}: {said}");
        assert!(
            said.contains("runs outrider already, as applications[0].sidecars["),
            "{name}: {said}"
        );
        assert_eq!(fs::read_to_string(path(file)).unwrap(), after, "{name}");
        count = i + 1;
    }
    assert!(count >= 25);
    let script = r##"
        entry = { "name" => "outrider", "process_types" => ["web"], "command" => "exec ./outrider run", "memory" => "64M" }
        ARGV[0].to_i.times do |i|
          before, after = %w[before after].map { |kind| YAML.load(File.read("#{i}.#{kind}"), aliases: true) }
          app = after["applications"][0]
          at = app["sidecars"].index(entry) or abort "#{i}: no entry"
          app["sidecars"].delete_at(at)
          [app, before["applications"][0]].each { |one| one.delete("sidecars") if [nil, []].include?(one["sidecars"]) }
          abort "#{i}: something else has changed" unless before == after
        end
        puts "alike"
    "##;
    let mut ruby = Command::new("ruby");
    ruby.args(["-ryaml", "-e", script, &count.to_string()])
        .current_dir(folder.path());
    assert_eq!(
        told(ruby.output().unwrap()),
        (Some(0), "alike\n".to_owned(), String::new())
    );
}

#[test]
fn the_difference_is_shown_and_nothing_changed_without_a_word() {
    let folder = with(MANIFEST);
    let (code, diff, said) = init(folder.path(), &[]);
    assert_eq!(code, Some(0));
    let shown = ADDED.replace("\n ", "\n+ ");
    assert_eq!(
        diff,
        format!(
            "--- manifest.yml\n+++ manifest.yml\n@@ -3,3 +3,8 @@\n - name: app # the only one\n   path: app\n   memory: 192M\n+{shown}"
        )
    );
    assert_eq!(
        said,
        "outrider: memory of `web`: 192M for the container, less 64M for sidecars, leaves the app 128M\n\
         outrider: manifest.yml is not changed; to change it, run the same command with --write\n"
    );
    assert_eq!(read(&folder), MANIFEST);

    let (code, _, said) = init(folder.path(), &["--write"]);
    assert_eq!(code, Some(0));
    assert!(
        said.ends_with("manifest.yml is changed. Next: sidecar/install app, then outrider check --manifest manifest.yml\n"),
        "{said}"
    );
    assert_eq!(read(&folder), format!("{MANIFEST}{ADDED}"));
    let check = command(folder.path(), &["check", "--manifest", "manifest.yml"]);
    let (code, problems, _) = told({ check }.output().unwrap());
    assert_eq!((code, problems.as_str()), (Some(0), ""));
}

/// At a terminal, which `script` plays, the person is asked, and only a yes is a yes.
#[test]
fn a_person_is_asked() {
    for (answer, is_changed) in [
        ("y\n", true),
        ("YES\n", true),
        ("n\n", false),
        ("\n", false),
        ("yeah\n", false),
    ] {
        let folder = with(MANIFEST);
        let program = format!("{} init --manifest manifest.yml", env!("CARGO_BIN_EXE_outrider"));
        let mut script = Command::new("script")
            .args(["-qec", &program, "/dev/null"])
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        script.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
        let (code, shown, _) = told(script.wait_with_output().unwrap());
        assert_eq!(code, Some(0), "{shown}");
        let question = shown.find("change manifest.yml? [y/N]").unwrap();
        assert!(shown[..question].contains("+  - name: outrider"), "{shown}");
        assert_eq!(read(&folder) != MANIFEST, is_changed, "{answer:?}: {shown}");
    }
}

#[test]
fn the_mode_and_a_link_stay() {
    let folder = with(MANIFEST);
    let path = |name: &str| folder.path().join(name);
    fs::rename(path("manifest.yml"), path("real.yml")).unwrap();
    fs::set_permissions(path("real.yml"), fs::Permissions::from_mode(0o640)).unwrap();
    std::os::unix::fs::symlink("real.yml", path("manifest.yml")).unwrap();
    assert_eq!(init(folder.path(), &["-w"]).0, Some(0));
    assert!(path("manifest.yml").symlink_metadata().unwrap().is_symlink());
    assert_eq!(
        fs::metadata(path("real.yml")).unwrap().permissions().mode() & 0o7777,
        0o640
    );
    assert_eq!(
        fs::read_to_string(path("real.yml")).unwrap(),
        format!("{MANIFEST}{ADDED}")
    );
    // Nothing is left behind.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// A manifest may be a stranger's, and what is said of it stands in a log or on a terminal.
#[test]
fn the_name_of_an_app_steers_no_terminal() {
    let folder = with("applications:\n- name: \"a\\e[2J\\n\"\n- name: b\n");
    let said = init(folder.path(), &["--write"]).2;
    assert!(said.ends_with("--app: a\u{fffd}[2J\u{fffd}, b\n"), "{said:?}");
}

#[test]
fn of_several_apps_one_is_named() {
    let text = "applications:\n- name: a\n- name: b\n  buildpacks: [outrider_buildpack, x]\n- name: c\n  command: outrider exec -- x\n";
    let folder = with(text);
    let (code, diff, said) = init(folder.path(), &["--write"]);
    assert_eq!((code, diff.as_str()), (Some(1), ""));
    assert_eq!(
        said,
        "outrider: manifest.yml has several apps; name one with --app: a, b, c\n"
    );
    let (code, _, said) = init(folder.path(), &["--write", "--app", "d"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        "outrider: manifest.yml has no app `d`; there are: a, b, c\n"
    );
    for (app, place) in [("b", "by its buildpack"), ("c", "in its command")] {
        let (code, _, said) = init(folder.path(), &["--write", "--app", app]);
        assert_eq!(code, Some(0));
        assert_eq!(
            said,
            format!("outrider: manifest.yml is left as it is: `{app}` runs outrider already, {place}\n")
        );
    }
    assert_eq!(read(&folder), text);
    assert_eq!(init(folder.path(), &["--write", "--app", "a"]).0, Some(0));
    assert_eq!(
        read(&folder),
        text.replace("- name: b", &format!("{ADDED}- name: b"))
    );
    let (code, _, said) = init(folder.path(), &["--write"]);
    assert_eq!(code, Some(0));
    assert!(said.contains("each of its apps runs outrider already"), "{said}");
}

/// The sidecar serves what the manifest lists, or what the profile script waits for, or what is asked for.
#[test]
fn process_types_are_those_of_the_manifest() {
    let processes = "  processes:\n  - type: worker\n    memory: 1G\n  - type: clock\n    command: ./outrider exec -- tick\n";
    let (listed, variable) = (
        "process_types: [web, worker]",
        "  env:\n    OUTRIDER_PROCESS_TYPES: \"web,worker\"\n",
    );
    let folder = with(&format!("{MANIFEST}{processes}"));
    let (code, _, said) = init(folder.path(), &["--write"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("memory of `worker`: 1024M for the container"),
        "{said}"
    );
    let added = ADDED.replace("process_types: [web]", listed);
    assert_eq!(read(&folder), format!("{MANIFEST}{processes}{added}{variable}"));

    let folder = with(&format!("{MANIFEST}{variable}"));
    assert_eq!(init(folder.path(), &["--write"]).0, Some(0));
    assert_eq!(read(&folder), format!("{MANIFEST}{variable}{added}"));

    let folder = with(MANIFEST);
    let asked = ["--write", "--process-types", "web,worker", "--memory", "32M"];
    let (code, _, said) = init(folder.path(), &asked);
    assert_eq!(code, Some(0));
    assert!(said.contains("warning: manifest.yml:8:26: applications[0].sidecars[0].process_types[1]: no process type `worker`"), "{said}");
    assert_eq!(
        read(&folder),
        format!("{MANIFEST}{}{variable}", added.replace("64M", "32M"))
    );
    // What the profile script is told already is not changed by a second list.
    let folder = with(&format!("{MANIFEST}{variable}"));
    let (code, _, said) = init(folder.path(), &["--write", "--process-types", "web"]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("the profile script waits for a sidecar in worker"),
        "{said}"
    );
}

/// What would not be sound, or cannot be added alone, is not added; the lines are told where a person can add them.
#[test]
fn what_cannot_be_added_is_refused_with_the_reason() {
    let small = MANIFEST.replace("192M", "64M");
    let folder = with(&small);
    let (code, diff, said) = init(folder.path(), &["--write"]);
    assert_eq!((code, diff.as_str(), read(&folder)), (Some(1), "", small));
    assert!(
        said.contains("manifest.yml:5:11: applications[0].memory: 64M of the process type `web`, and its sidecars take 64M of them; write more"),
        "{said}"
    );
    assert_eq!(init(folder.path(), &["--write", "--memory", "32M"]).0, Some(0));
    for (text, further, reason) in [
        (
            MANIFEST,
            &["--memory", "64"][..],
            "applications[0].sidecars[0].memory: not a size",
        ),
        (MANIFEST, &["--process-types", "wep"], "did you mean `web`?"),
        (
            "applications:\n- name: app\n  sidecars:\n  - name: logs\n    command: exec logs\n    process_types: [web]\n  sidecars: []\n",
            &[],
            "manifest.yml:7:3: applications[0].sidecars: stands twice; the first one is on line 3",
        ),
        ("name: app\n", &[], "`applications` is missing"),
        ("applications: [\n", &[], "manifest.yml:"),
        ("", &[], "nothing is written in this file; write `applications:`"),
    ] {
        let folder = with(text);
        let (code, diff, said) = init(folder.path(), &[&["--write"], further].concat());
        assert_eq!((code, diff.as_str()), (Some(1), ""), "{said}");
        assert!(said.contains(reason), "{said}");
        assert_eq!(read(&folder), text);
    }
    let shared = "x-all: &all\n  sidecars: []\napplications:\n- name: app\n  <<: *all\n";
    let folder = with(shared);
    let (code, diff, said) = init(folder.path(), &["--write"]);
    assert_eq!(
        (code, diff.as_str(), read(&folder).as_str()),
        (Some(1), "", shared)
    );
    assert!(
        said.contains("manifest.yml is left as it is: the file is written in a way"),
        "{said}"
    );
    assert!(
        said.ends_with(&format!("the lines to add to the app:\n\n{ADDED}\n")),
        "{said}"
    );
    fs::remove_file(folder.path().join("manifest.yml")).unwrap();
    let (code, _, said) = init(folder.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(
        said.contains("manifest.yml: cannot be read") && said.contains("name the manifest that you push"),
        "{said}"
    );
    // The two kinds of `init` do not mix.
    let mixed = command(folder.path(), &["init", "--write"]).output().unwrap();
    assert_eq!(mixed.status.code(), Some(2));
}
