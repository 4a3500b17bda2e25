use std::os::unix::fs::PermissionsExt;

use super::*;

#[test]
fn the_files_name_the_bundle_and_are_written_once() {
    let folder = tempfile::tempdir().unwrap();
    let bundle = folder.path().join("my app/ca-bundle.pem");
    let files = ClientFiles::write(&bundle).unwrap();
    let ini = files.php.join("outrider.ini");
    let named = format!("openssl.cafile = \"{}\"", bundle.display());
    assert!(fs::read_to_string(&ini).unwrap().contains(&named));
    let wgetrc = fs::read_to_string(&files.wgetrc).unwrap();
    assert!(
        wgetrc.ends_with(&format!("ca_certificate = {}\n", bundle.display())),
        "{wgetrc}"
    );
    assert_eq!(fs::read_to_string(&files.node).unwrap(), AGENTS);
    let changed = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let before = [&ini, &files.wgetrc, &files.node].map(|path| changed(path));
    assert_eq!(ClientFiles::write(&bundle).unwrap(), files);
    assert_eq!(
        [&ini, &files.wgetrc, &files.node].map(|path| changed(path)),
        before
    );

    // What somebody has damaged is written anew.
    fs::write(&files.node, "process.exit(1)").unwrap();
    ClientFiles::write(&bundle).unwrap();
    assert_eq!(fs::read_to_string(&files.node).unwrap(), AGENTS);
    assert_eq!(
        fs::metadata(&files.node).unwrap().permissions().mode() & 0o777,
        0o644
    );
}

/// A command may go on as another user, who reads the bundle; without the module its Node would not start.
#[test]
fn who_can_read_the_bundle_can_read_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let files = ClientFiles::write(&folder.path().join("ca-bundle.pem")).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let made = folder.path().join("made");
    fs::create_dir(&made).unwrap();
    for path in [files.node.parent().unwrap(), &files.php] {
        // But for what the mask of the process takes away.
        assert_eq!(mode(path), mode(&made) & 0o755, "{path:?}");
    }
    for (own, copied) in [(0o644, 0o644), (0o640, 0o600), (0o600, 0o600)] {
        let path = folder.path().join("wgetrc");
        fs::write(&path, "proxy_password = x\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(own)).unwrap();
        assert_eq!(mode_as(&path), copied, "{own:o}");
    }
    assert_eq!(mode_as(Path::new("/no/such/wgetrc")), 0o644);
}

/// A second line in a file of settings would be a setting.
#[test]
fn a_place_that_a_client_reads_in_another_way_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "a\nallow_url_include = 1",
        "it's",
        "a\"b",
        "$HOME",
        "a:b",
        "back\\slash",
    ] {
        let bundle = folder.path().join(name).join("ca-bundle.pem");
        let told = ClientFiles::write(&bundle).unwrap_err().to_string();
        assert!(told.contains("name another place in ca.bundle"), "{name}: {told}");
        assert!(!bundle.parent().unwrap().exists(), "{name}");
    }
}

#[test]
fn settings_of_wget_that_were_there_are_kept_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("own"), "passive_ftp = on\nca_certificate = /corp.pem").unwrap();
    let first = wgetrc(&path("own"), "/bundle.pem");
    let expected = "passive_ftp = on\nca_certificate = /corp.pem\n# Written by outrider.\nca_certificate = /bundle.pem\n";
    assert_eq!(String::from_utf8(first.clone()).unwrap(), expected);
    // A command inside a command.
    fs::write(path("first"), &first).unwrap();
    let second = String::from_utf8(wgetrc(&path("first"), "/inner.pem")).unwrap();
    assert_eq!(second, expected.replace("/bundle.pem", "/inner.pem"));

    fs::write(path("long"), vec![b'#'; 70_000]).unwrap();
    for other in ["missing", "long", "."] {
        let text = String::from_utf8(wgetrc(&path(other), "/b.pem")).unwrap();
        assert_eq!(
            text, "# Written by outrider.\nca_certificate = /b.pem\n",
            "{other}"
        );
    }
}
