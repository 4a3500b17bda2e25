//! A host with other users: what they lay in the way of the bundle is neither written to nor named.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Stdio;

use crate::support::programs::{ProgramOutput, clean, outrider};
use crate::support::run;

const STRANGER: u32 = 65_534;

/// Makes a folder like `/tmp`.
fn shared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    folder
}

fn made(path: &Path, mode: u32) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn env(tmp: &Path) -> ProgramOutput {
    let file = tmp.join("env.yml");
    fs::write(&file, "listen: 127.0.0.1:3128\n").unwrap();
    run(outrider(["env", "--config"]).arg(&file).env("TMPDIR", tmp))
}

/// Returns the start-up line of `outrider run`.
fn started(tmp: &Path) -> String {
    let file = tmp.join("run.yml");
    fs::write(&file, "listen: 127.0.0.1:0\nadmin: false\n").unwrap();
    let mut child = outrider(["run", "--config"])
        .arg(&file)
        .env("TMPDIR", tmp)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = lines.map(Result::unwrap).find(|line| line.contains("proxy on"));
    child.kill().unwrap();
    child.wait().unwrap();
    said.unwrap()
}

/// Puts something at a path, as another user could.
type Placement = fn(&Path);

#[test]
fn what_another_user_could_change_is_not_where_the_bundle_is() {
    let us = rustix::process::geteuid().as_raw();
    let open: Placement = |path| made(path, 0o777);
    let link_to_open: Placement = |path| {
        made(&path.with_extension("there"), 0o777);
        symlink(path.with_extension("there"), path).unwrap();
    };
    let theirs: Placement = |path| {
        made(path, 0o755);
        chown(path, Some(STRANGER), None).unwrap();
    };
    let their_link: Placement = |path| {
        made(&path.with_extension("there"), 0o700);
        symlink(path.with_extension("there"), path).unwrap();
        lchown(path, Some(STRANGER), None).unwrap();
    };
    let their_file: Placement = |path| {
        made(path, 0o1777);
        fs::write(path.join("ca-bundle.pem"), "").unwrap();
        chown(path.join("ca-bundle.pem"), Some(STRANGER), None).unwrap();
    };
    let mut cases = vec![("open", open), ("link to open", link_to_open)];
    if us == 0 {
        cases.extend([
            ("theirs", theirs),
            ("their link", their_link),
            ("their file", their_file),
        ]);
    }
    for (case, lay) in cases {
        let tmp = shared();
        let (usual, other) = (
            tmp.path().join("outrider"),
            tmp.path().join(format!("outrider-{us}")),
        );
        lay(&usual);
        let bundle = other.join("ca-bundle.pem").display().to_string();
        // Before the proxy and after it, both come to the same place.
        let before = env(tmp.path());
        assert!(
            before.succeeded().stdout.contains(&bundle),
            "{case}: {}",
            before.stdout
        );
        let told = format!("the CA bundle is {bundle} if the proxy runs as this user");
        assert!(before.stderr.contains(&told), "{case}: {}", before.stderr);
        let said = started(tmp.path());
        assert!(said.ends_with(&format!("CA bundle {bundle}")), "{case}: {said}");
        assert!(
            fs::read_to_string(&bundle).unwrap().contains("BEGIN CERTIFICATE"),
            "{case}"
        );
        assert!(
            fs::metadata(other.join("truststore.p12")).unwrap().len() > 0,
            "{case}"
        );
        assert_eq!(env(tmp.path()).stdout, before.stdout, "{case}");

        // If that one is no better, the app is given no bundle, and standard error has the reason.
        fs::remove_dir_all(&other).unwrap();
        lay(&other);
        let none = env(tmp.path());
        assert!(none.succeeded().stdout.contains("https_proxy="), "{case}");
        for word in ["BUNDLE", "CERT", "CAINFO", "trustStore"] {
            assert!(!none.stdout.contains(word), "{case}: {}", none.stdout);
        }
        assert!(
            none.stderr.contains("no CA bundle is named"),
            "{case}: {}",
            none.stderr
        );
        started(tmp.path());
    }
}

/// In a folder that everybody may write, anybody can create the file first.
#[test]
fn a_named_file_that_anybody_could_lay_is_named_once_it_is_there() {
    let tmp = shared();
    let (bundle, truststore) = (tmp.path().join("ca.pem"), tmp.path().join("ca.p12"));
    let file = tmp.path().join("named.yml");
    let (pem, p12) = (bundle.display(), truststore.display());
    let text = format!("listen: 127.0.0.1:0\nadmin: false\nca: {{ bundle: {pem}, truststore: {p12} }}\n");
    fs::write(&file, text.replace(":0\n", ":3128\n")).unwrap();
    let env = || run(outrider(["env", "--config"]).arg(&file));
    let early = env();
    assert!(!early.succeeded().stdout.contains("CERT"), "{}", early.stdout);
    assert!(
        early.stderr.contains("can be changed by other users"),
        "{}",
        early.stderr
    );

    let other = tmp.path().join("run.yml");
    fs::write(&other, text).unwrap();
    let exec = run(outrider(["exec", "--config"]).arg(&other).args(["--", "env"]));
    assert!(
        exec.succeeded().stdout.contains(&format!("SSL_CERT_FILE={pem}")),
        "{}",
        exec.stdout
    );
    assert!(env().stdout.contains(&format!("SSL_CERT_FILE='{pem}'")));
}

/// Where no placeholders can be agreed on, the app must not start with the secrets instead.
#[test]
fn without_a_place_for_placeholders_no_app_starts_with_the_secrets() {
    let tmp = shared();
    let file = tmp.path().join("env.yml");
    let (pem, p12) = (tmp.path().join("ca.pem"), tmp.path().join("ca.p12"));
    let env = |more: &str| {
        let (pem, p12) = (pem.display(), p12.display());
        let text =
            format!("ca: {{ bundle: {pem}, truststore: {p12} }}\nplaceholders: {{ mode: always }}\n{more}\n");
        fs::write(&file, text).unwrap();
        run(outrider(["env", "--config"])
            .arg(&file)
            .env("OWN", "canary-2f6b-own"))
    };
    let refused = env("destinations: { a: { hosts: [a.test], auth: { bearer: env:OWN } } }");
    assert_eq!((refused.code(), &*refused.stdout), (1, "false\n"));
    assert!(refused.stderr.contains("no placeholders"), "{}", refused.stderr);
    // Without a secret to replace, nothing is missing.
    assert!(env("").succeeded().stdout.contains("HTTP_PROXY="));
}

#[test]
fn exec_says_why_it_names_no_bundle() {
    let tmp = tempfile::tempdir().unwrap();
    fs::set_permissions(tmp.path(), Permissions::from_mode(0o777)).unwrap();
    let file = tmp.path().join("exec.yml");
    fs::write(&file, "listen: 127.0.0.1:0\nadmin: false\n").unwrap();
    let ran = run(outrider(["exec", "--config"])
        .arg(&file)
        .args(["--", "env"])
        .env("TMPDIR", tmp.path()));
    assert!(
        !ran.succeeded().stdout.contains("SSL_CERT_FILE"),
        "{}",
        ran.stdout
    );
    assert!(ran.stderr.contains("no CA bundle is named"), "{}", ran.stderr);
}

/// `eval` of nothing succeeds, and the command after it would call past the proxy.
#[test]
fn a_shell_does_not_go_on_where_env_fails() {
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("bad.yml");
    for text in ["egress: { defualt: deny }\n", "listen: 127.0.0.1:0\n"] {
        fs::write(&file, text).unwrap();
        let env = run(outrider(["env", "--config"]).arg(&file));
        for script in ["eval \"$1\" && echo went on", "set -e; eval \"$1\"; echo went on"] {
            let shell = run(std::process::Command::new("sh").args(["-c", script, "sh", &env.stdout]));
            assert_eq!(shell.stdout, "", "{text}: {script}");
        }
        for format in ["json", "dotenv"] {
            let env = run(outrider(["env", "--format", format, "--config"]).arg(&file));
            assert_eq!(env.stdout, "", "{text}");
        }
    }
}

#[test]
fn a_place_of_our_own_is_as_ever() {
    let tmp = shared();
    let bundle = tmp.path().join("outrider/ca-bundle.pem").display().to_string();
    assert!(env(tmp.path()).succeeded().stdout.contains(&bundle));
    let said = started(tmp.path());
    assert!(said.ends_with(&format!("CA bundle {bundle}")), "{said}");
    assert_eq!(env(tmp.path()).stderr, "");
}

/// The authority of the command is read by what the command becomes.
#[test]
fn a_command_that_goes_on_as_another_user_finds_the_files() {
    if rustix::process::geteuid().as_raw() != 0 {
        return;
    }
    let tmp = shared();
    let file = tmp.path().join("outrider.yml");
    fs::write(&file, "listen: 127.0.0.1:0\nadmin: false\n").unwrap();
    let read = "cat \"$SSL_CERT_FILE\" \"${NODE_OPTIONS#--require }\" \"$SYSTEM_WGETRC\" \"${PHP_INI_SCAN_DIR#:}/outrider.ini\"";
    let done = run(outrider(["exec", "--config"])
        .arg(&file)
        .args([
            "--",
            "setpriv",
            "--reuid=65534",
            "--clear-groups",
            "sh",
            "-ec",
            read,
        ])
        .env("TMPDIR", tmp.path()));
    for part in [
        "BEGIN CERTIFICATE",
        "use strict",
        "ca_certificate = ",
        "curl.cainfo",
    ] {
        assert!(done.succeeded().stdout.contains(part), "{part}: {}", done.stderr);
    }
}

/// What cannot be kept or named is said, and the rest goes on.
#[test]
fn what_is_not_text_is_told() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("outrider.yml");
    fs::write(&file, "listen: 127.0.0.1:3128\n").unwrap();
    let odd = OsStr::from_bytes(b"-Dx=\xff");
    let done = run(outrider(["env", "--config"])
        .arg(&file)
        .env("TMPDIR", tmp.path())
        .env("JAVA_TOOL_OPTIONS", odd));
    assert!(done.succeeded().stdout.contains("SSL_CERT_FILE="));
    assert!(
        done.stderr.contains("JAVA_TOOL_OPTIONS is replaced"),
        "{}",
        done.stderr
    );

    let done = run(outrider(["env", "--config"])
        .arg(&file)
        .env("TMPDIR", tmp.path().join(odd)));
    assert!(
        done.succeeded().stdout.contains("https_proxy="),
        "{}",
        done.stderr
    );
    assert!(!done.stdout.contains("CERT"), "{}", done.stdout);
    assert!(
        done.stderr.contains("is not UTF-8; name another place"),
        "{}",
        done.stderr
    );
}

/// Where the disk is full, connections that are not intercepted work all the same.
#[test]
fn a_bundle_that_could_not_be_written_is_not_named() {
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("outrider.yml");
    fs::write(&file, "listen: 127.0.0.1:0\nadmin: false\n").unwrap();
    // The roots of the system are longer than a file may be here.
    let limited = "trap '' XFSZ; ulimit -f 20; exec \"$0\" exec --config \"$1\" -- env";
    let done = run(clean("sh")
        .args(["-c", limited, env!("CARGO_BIN_EXE_outrider")])
        .arg(&file)
        .env("TMPDIR", tmp.path()));
    assert!(
        done.succeeded().stdout.contains("https_proxy="),
        "{}",
        done.stderr
    );
    assert!(!done.stdout.contains("SSL_CERT_FILE="), "{}", done.stdout);
    assert!(!done.stdout.contains("trustStore="), "{}", done.stdout);
    assert!(
        done.stderr.contains("the CA bundle cannot be written"),
        "{}",
        done.stderr
    );
}
