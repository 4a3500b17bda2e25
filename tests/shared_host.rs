//! A host with other users: what they lay in the way of the bundle is neither written to nor named.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::Stdio;

use crate::support::programs::{Run, outrider};
use crate::support::run;

const STRANGER: u32 = 65_534;

/// A folder like `/tmp`.
fn shared() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o1777)).unwrap();
    folder
}

fn made(path: &Path, mode: u32) {
    fs::create_dir(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn env(tmp: &Path) -> Run {
    let file = tmp.join("env.yml");
    fs::write(&file, "listen: 127.0.0.1:3128\n").unwrap();
    run(outrider(["env", "--config"]).arg(&file).env("TMPDIR", tmp))
}

/// What `outrider run` says when it has started.
fn started(tmp: &Path) -> String {
    let file = tmp.join("run.yml");
    fs::write(&file, "listen: 127.0.0.1:0\nadmin: false\n").unwrap();
    let mut child = (outrider(["run", "--config"]).arg(&file).env("TMPDIR", tmp))
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

/// What a stranger has laid at a path.
type Laid = fn(&Path);

#[test]
fn what_another_user_could_change_is_not_where_the_bundle_is() {
    let us = rustix::process::geteuid().as_raw();
    let open: Laid = |path| made(path, 0o777);
    let link_to_open: Laid = |path| {
        made(&path.with_extension("there"), 0o777);
        symlink(path.with_extension("there"), path).unwrap();
    };
    let theirs: Laid = |path| {
        made(path, 0o755);
        chown(path, Some(STRANGER), None).unwrap();
    };
    let their_link: Laid = |path| {
        made(&path.with_extension("there"), 0o700);
        symlink(path.with_extension("there"), path).unwrap();
        lchown(path, Some(STRANGER), None).unwrap();
    };
    let their_file: Laid = |path| {
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
        assert_eq!(before.stderr, "", "{case}");
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

        // Where that one is no better, the app is told of no bundle, and a person why.
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

#[test]
fn a_place_of_our_own_is_as_ever() {
    let tmp = shared();
    let bundle = tmp.path().join("outrider/ca-bundle.pem").display().to_string();
    assert!(env(tmp.path()).succeeded().stdout.contains(&bundle));
    let said = started(tmp.path());
    assert!(said.ends_with(&format!("CA bundle {bundle}")), "{said}");
    assert_eq!(env(tmp.path()).stderr, "");
}
