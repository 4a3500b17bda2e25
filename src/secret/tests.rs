use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::pem;
use super::roots::SystemRoots;
use super::*;

pub(crate) mod damaged;
mod forms;
mod locked;
mod snapshot;

const CANARY: &str = "canary-7f3a";

fn vcap(path: &str) -> SecretRef {
    let mut parts = path.split('/').map(str::to_owned);
    SecretRef::Vcap {
        service: parts.next().unwrap(),
        keys: parts.collect(),
    }
}

fn text(secret: Result<Secret, Error>) -> String {
    String::from_utf8(secret.unwrap().expose().to_vec()).unwrap()
}

/// Display and Debug of an error and of its sources.
fn told(error: &Error) -> String {
    let mut told = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        told += &format!(" {inner} {inner:?}");
        source = inner.source();
    }
    told
}

const DOCUMENT: &str = r#"{
  "user-provided": [
    {"name": "partner", "instance_name": "partner", "binding_name": null, "tags": ["shared"],
     "credentials": {"token": "canary-7f3a", "port": 8443, "live": true, "none": null,
                     "nested": {"deep": {"key": "below"}}, "list": ["first", "second"]}},
    {"name": "bound-as", "instance_name": "weather", "binding_name": "bound-as", "tags": ["shared", "partner"],
     "credentials": {"token": "of weather"}}
  ],
  "aws-elasticache-redis": [
    {"name": "cache", "instance_name": "cache", "binding_name": null, "tags": ["redis"],
     "credentials": {"uri": "rediss://:canary-7f3a@h:1"}}
  ]
}"#;

/// The same services in the three forms of the platform.
fn three_forms(folder: &Path) -> Vec<(&'static str, Snapshot)> {
    let file = folder.join("vcap_services");
    fs::write(&file, DOCUMENT).unwrap();
    let root = folder.join("bindings");
    for (path, content) in [
        ("partner/instance_name", "partner"),
        ("partner/tags", r#"["shared"]"#),
        ("partner/token", CANARY),
        ("partner/port", "8443"),
        ("partner/live", "true"),
        ("partner/nested", r#"{"deep":{"key":"below"}}"#),
        ("partner/list", r#"["first","second"]"#),
        ("bound-as/instance-name", "weather"),
        ("bound-as/tags", r#"["shared","partner"]"#),
        ("bound-as/token", "of weather"),
        ("cache/tags", "redis"),
        ("cache/uri", "rediss://:canary-7f3a@h:1"),
    ] {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    fs::create_dir(root.join("..data")).unwrap();
    vec![
        (
            "VCAP_SERVICES",
            Snapshot::of_variables([("VCAP_SERVICES", DOCUMENT)]),
        ),
        (
            "VCAP_SERVICES_FILE_PATH",
            Snapshot::of_variables([("VCAP_SERVICES_FILE_PATH", &file)]),
        ),
        (
            "SERVICE_BINDING_ROOT",
            Snapshot::of_variables([("SERVICE_BINDING_ROOT", &root)]),
        ),
    ]
}

#[test]
fn bound_services_read_alike_in_all_three_forms() {
    let folder = TempDir::new().unwrap();
    for (form, snapshot) in three_forms(folder.path()) {
        for (path, wanted) in [
            ("partner/token", CANARY),       // the instance named partner, not the one tagged so
            ("weather/token", "of weather"), // instance name beside a binding name
            ("bound-as/token", "of weather"),
            ("redis/uri", "rediss://:canary-7f3a@h:1"), // tag
            ("partner/port", "8443"),
            ("partner/live", "true"),
            ("partner/nested/deep/key", "below"),
            ("partner/list/1", "second"),
        ] {
            assert_eq!(text(snapshot.read(&vcap(path))), wanted, "{form} {path}");
        }
    }
}

#[test]
fn an_error_lists_names_and_never_values() {
    let folder = TempDir::new().unwrap();
    for (form, snapshot) in three_forms(folder.path()) {
        for (path, wanted) in [
            ("shared/token", "partner, weather"),
            ("nobody/token", "cache, partner, weather"),
            ("partner/tokem", "`tokem`"),
            ("partner/tokem", "token"),
            ("partner/nested/deep", "an object"),
            ("partner/nested/shallow", "deep"),
            ("partner/token/too/far", "partner/token/too/far"),
        ] {
            let error = snapshot.read(&vcap(path)).unwrap_err();
            let told = told(&error);
            assert!(told.contains(wanted), "{form} {path}: {told}");
            assert!(!told.contains(CANARY), "{form} {path}: {told}");
        }
    }
}

#[test]
fn the_first_place_that_is_set_counts() {
    let folder = TempDir::new().unwrap();
    let other = folder.path().join("services");
    fs::write(
        &other,
        r#"{"l": [{"name": "partner", "credentials": {"token": "of the file"}}]}"#,
    )
    .unwrap();
    let snapshot = Snapshot::of_variables([
        ("VCAP_SERVICES", DOCUMENT),
        ("VCAP_SERVICES_FILE_PATH", other.to_str().unwrap()),
        ("SERVICE_BINDING_ROOT", ""),
    ]);
    assert_eq!(text(snapshot.read(&vcap("partner/token"))), "of the file");
    assert_eq!(snapshot.files(&vcap("partner/token")), [other]);
}

#[test]
fn a_key_cannot_leave_its_binding() {
    let folder = TempDir::new().unwrap();
    let snapshot = three_forms(folder.path()).pop().unwrap().1;
    for key in ["..", ".", "", "../cache/uri", "/etc/hostname"] {
        let reference = SecretRef::Vcap {
            service: "partner".into(),
            keys: vec![key.into()],
        };
        assert!(
            matches!(snapshot.read(&reference), Err(Error::UnknownKey { .. })),
            "{key}"
        );
        let within = |path: &PathBuf| path.starts_with(folder.path().join("bindings/partner"));
        assert!(snapshot.files(&reference).iter().all(within), "{key}");
    }
    assert_eq!(
        snapshot.files(&vcap("weather/token")),
        [folder.path().join("bindings/bound-as/token")]
    );
}

#[test]
fn broken_service_documents_are_refused_without_a_quotation() {
    for (document, place) in [
        (r#"{"a": [ "canary-7f3a" "#, "VCAP_SERVICES"),
        (r#""canary-7f3a""#, "VCAP_SERVICES"),
        ("canary-7f3a", "line 1"),
    ] {
        let snapshot = Snapshot::of_variables([("VCAP_SERVICES", document)]);
        let told = told(&snapshot.read(&vcap("partner/token")).unwrap_err());
        assert!(told.contains(place) && !told.contains(CANARY), "{told}");
    }
    let nothing = Snapshot::of_variables::<String, String>([]);
    assert!(matches!(
        nothing.read(&vcap("partner/token")),
        Err(Error::Unbound { .. })
    ));
}

#[test]
fn variables_and_files_are_trimmed_of_line_ends_only() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("token");
    for (written, wanted) in [
        ("a", "a"),
        ("a\n", "a"),
        ("a\r\n\r\n", "a"),
        (" a \n", " a "),
        ("a\nb\n", "a\nb"),
    ] {
        fs::write(&path, written).unwrap();
        let snapshot = Snapshot::of_variables([("TOKEN", written)]);
        assert_eq!(
            text(snapshot.read(&SecretRef::File(path.clone()))),
            wanted,
            "{written:?}"
        );
        assert_eq!(
            text(snapshot.read(&SecretRef::Env("TOKEN".into()))),
            wanted,
            "{written:?}"
        );
    }
}

#[test]
fn what_cannot_be_a_secret_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let file = |name: &str| SecretRef::File(path(name));
    fs::write(path("empty"), "\r\n\n").unwrap();
    fs::write(path("large"), vec![b'x'; 1024 * 1024 + 1]).unwrap();
    fs::write(path("largest"), vec![b'x'; 1024 * 1024]).unwrap();
    let snapshot = Snapshot::of_variables([("EMPTY", "")]);

    assert!(matches!(snapshot.read(&file("empty")), Err(Error::Empty { .. })));
    assert!(matches!(
        snapshot.read(&file("large")),
        Err(Error::TooLarge { .. })
    ));
    assert_eq!(
        snapshot.read(&file("largest")).unwrap().expose().len(),
        1024 * 1024
    );
    assert!(matches!(
        snapshot.read(&file("missing")),
        Err(Error::Unreadable { .. })
    ));
    assert!(matches!(
        snapshot.read(&SecretRef::File(folder.path().into())),
        Err(Error::NotFile { .. })
    ));
    // A device would be read for ever.
    assert!(matches!(
        snapshot.read(&SecretRef::File("/dev/zero".into())),
        Err(Error::NotFile { .. })
    ));
    for name in ["EMPTY", "UNSET", "", "A=B", "A\0B"] {
        assert!(
            matches!(
                snapshot.read(&SecretRef::Env(name.into())),
                Err(Error::Unset { .. })
            ),
            "{name}"
        );
        assert!(matches!(
            Snapshot::of_process().read(&SecretRef::Env(name.into())),
            Err(Error::Unset { .. })
        ));
    }
}

#[test]
fn a_secret_readable_by_everyone_is_warned_of() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("key.pem");
    fs::write(&path, CANARY).unwrap();
    let warnings = |mode| {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        Snapshot::of_process().warnings(&SecretRef::File(path.clone()))
    };
    assert_eq!(warnings(0o600), []);
    assert_eq!(warnings(0o640), []);
    assert_eq!(
        warnings(0o644),
        [SecretWarning::WorldReadable {
            path: path.clone(),
            mode: 0o644
        }]
    );
    assert!(warnings(0o644)[0].to_string().contains("chmod 600"));
}

#[test]
fn debug_shows_no_secret() {
    let secret = Secret::new(Zeroizing::new(CANARY.into()));
    assert_eq!(format!("{secret:?}"), "Secret(redacted)");
    let snapshot = Snapshot::of_variables([("TOKEN", CANARY), ("VCAP_SERVICES", DOCUMENT)]);
    assert!(!format!("{snapshot:?}").contains(CANARY));
    assert!(format!("{snapshot:?}").contains("TOKEN"));
}

#[test]
fn long_lists_of_names_are_cut() {
    let names = NameList((0..30).map(|i| format!("service-{i:02}")).collect());
    assert!(names.to_string().ends_with("service-19 and 10 more"));
    assert_eq!(NameList::default().to_string(), "none");
}

/// A self-signed certificate and its key, in PKCS#8 PEM.
fn pair() -> (String, String) {
    let pair = rcgen::generate_simple_self_signed(["partner.test".to_owned()]).unwrap();
    (pair.cert.pem(), pair.signing_key.serialize_pem())
}

fn secret(text: &str) -> Secret {
    Secret::new(Zeroizing::new(text.as_bytes().to_vec()))
}

#[test]
fn pem_is_read_as_people_have_it() {
    let (certificate, key) = pair();
    let wanted_certificates = pem::certificates(&secret(&certificate)).unwrap();
    let wanted_key = pem::private_key(&secret(&key)).unwrap();
    let both = format!("{certificate}\n{key}");
    for (form, text) in [
        ("both in one", both.clone()),
        ("CRLF", both.replace('\n', "\r\n")),
        ("CR", both.replace('\n', "\r")),
        ("escaped", both.replace('\n', "\\n")),
        ("escaped CRLF", both.replace('\n', "\\r\\n")),
        ("folded into one line", both.replace('\n', " ")),
        ("indented", both.replace('\n', "\n    ")),
        (
            "text around",
            format!("Bag Attributes\n  friendlyName: x\n{both}\ntrailing --- text\n"),
        ),
        ("comment before", format!("# - a - comment -----\n{both}")),
        ("byte order mark", format!("\u{feff}{both}")),
    ] {
        assert_eq!(
            pem::certificates(&secret(&text)).unwrap(),
            wanted_certificates,
            "{form}"
        );
        assert_eq!(pem::private_key(&secret(&text)).unwrap(), wanted_key, "{form}");
    }
}

#[test]
fn pem_that_does_not_do_says_what_would() {
    let (certificate, key) = pair();
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let older = key.replace("PRIVATE KEY", "RSA PRIVATE KEY").replace(
        "KEY-----\n",
        "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-256-CBC,00\n\n",
    );
    for (form, text, wanted) in [
        ("encrypted", encrypted, "`openssl pkey -provider legacy"),
        ("encrypted, older form", older, "openssl pkey -in"),
        ("certificate only", certificate, "blocks found: CERTIFICATE"),
        ("no PEM", CANARY.to_owned(), "blocks found: none"),
        ("cut short", key[..key.len() / 2].to_owned(), "damaged"),
        ("not base64", key.replacen("\nM", "\n!", 1), "damaged"),
        ("two keys", format!("{key}{key}"), "2 private keys"),
        (
            "a label with a value",
            format!("-----BEGIN {CANARY}-----\n-----END {CANARY}-----\n"),
            "blocks found: none",
        ),
    ] {
        let error = pem::private_key(&secret(&text)).unwrap_err();
        assert!(error.to_string().contains(wanted), "{form}: {error}");
        let told = format!("{error} {error:?}");
        assert!(
            !told.contains(CANARY) && !told.contains(key.lines().nth(1).unwrap()),
            "{form}: {told}"
        );
    }
    let error = pem::certificates(&secret(&key)).unwrap_err();
    assert!(error.to_string().contains("blocks found: PRIVATE KEY"), "{error}");
}

#[test]
fn system_roots_come_from_the_environment_but_never_from_our_own_bundle() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::write(path("corporate.pem"), pair().0).unwrap();
    fs::write(path("own.pem"), pair().0.repeat(2)).unwrap();
    std::os::unix::fs::symlink(path("own.pem"), path("link.pem")).unwrap();
    fs::create_dir(path("platform")).unwrap();
    fs::write(path("platform/a.crt"), pair().0).unwrap();

    let roots = |file: &str, platform: &str| {
        let variable = |name: &str| {
            if name.is_empty() {
                PathBuf::new()
            } else {
                path(name)
            }
        };
        let snapshot = Snapshot::of_variables([
            ("SSL_CERT_FILE", variable(file)),
            ("CF_SYSTEM_CERT_PATH", variable(platform)),
        ]);
        SystemRoots::new(&snapshot, &path("own.pem"))
    };
    let count = |file: &str, platform: &str| roots(file, platform).read().certificates().count();

    let system = count("", "");
    assert_eq!(count("corporate.pem", ""), 1);
    assert_eq!(count("corporate.pem", "platform"), 2);
    assert_eq!(count("own.pem", ""), system);
    assert_eq!(count("link.pem", ""), system);
    assert_eq!(count("own.pem", "platform"), system + 1);
    assert_eq!(roots("corporate.pem", "platform").anchors().roots().len(), 2);

    let missing = roots("missing.pem", "").read();
    assert_eq!(missing.certificates().count(), 0);
    assert_eq!(missing.problems.len(), 1);
}

/// Distributions keep each root in a file, under a second name by its hash, and once more in one file of all.
#[test]
fn a_root_that_stands_in_several_places_is_taken_once() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (one, other, spaced) = (pair().0, pair().0, pair().0);
    fs::create_dir(path("certs")).unwrap();
    fs::write(
        path("all.pem"),
        format!(
            "# all\n{one}\r\n{}{}",
            (other.replace("CERTIFICATE", "X509 CERTIFICATE")).replace('\n', " \r\n"),
            spaced.replace('g', " g")
        ),
    )
    .unwrap();
    fs::write(path("certs/one.pem"), &one).unwrap();
    std::os::unix::fs::symlink("one.pem", path("certs/0a1b2c3d.0")).unwrap();
    std::os::unix::fs::symlink("gone.pem", path("certs/4e5f6a7b.0")).unwrap();
    fs::write(path("certs/private.pem"), pair().1).unwrap();
    let snapshot = Snapshot::of_variables([
        ("SSL_CERT_FILE", path("all.pem")),
        ("SSL_CERT_DIR", path("certs")),
    ]);
    let read = SystemRoots::new(&snapshot, &path("own.pem")).read();
    let wanted = [one, other, spaced].map(|text| pem::certificates(&secret(&text)).unwrap().remove(0));
    let mut wanted: Vec<_> = wanted.iter().map(AsRef::as_ref).collect();
    wanted.sort_unstable();
    assert_eq!(read.certificates().collect::<Vec<_>>(), wanted);
    assert!(read.problems.is_empty(), "{:?}", read.problems);
}

#[test]
fn damaged_roots_are_told_and_cost_no_others() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("roots.pem");
    let good = pair().0;
    let begin = "-----BEGIN CERTIFICATE-----\n";
    for (text, count) in [
        (format!("{begin}!!!!\n-----END CERTIFICATE-----\n{good}"), 1),
        (format!("{good}{begin}MIIB"), 1),
        (format!("{begin}MIIB"), 0),
    ] {
        fs::write(&path, &text).unwrap();
        let snapshot = Snapshot::of_variables([("SSL_CERT_FILE", &path)]);
        let read = SystemRoots::new(&snapshot, Path::new("own.pem")).read();
        assert_eq!(
            (read.certificates().count(), read.problems.len()),
            (count, 1),
            "{text}"
        );
        assert_eq!(read.problems[0].place, path);
    }
}

/// What a client of the app trusts is in the bundle, and no upstream is verified with it. The authority of an
/// earlier start is in neither, wherever its bundle lies.
#[test]
fn what_clients_trust_is_for_the_app_alone() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (system, corporate, other) = (pair().0, pair().0, pair().0);
    let earlier = {
        let mut params = rcgen::CertificateParams::default();
        let name = format!("{}0badcafe", roots::AUTHORITY_NAME);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    };
    fs::write(path("system.pem"), &system).unwrap();
    fs::write(path("corporate.pem"), format!("{corporate}{system}")).unwrap();
    fs::write(path("earlier.pem"), format!("{earlier}{system}")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    fs::write(path("folder/other.pem"), &other).unwrap();
    fs::write(path("own.pem"), &earlier).unwrap();
    // OpenSSL, and so most clients, would take nothing of a bundle with it.
    let damaged = "-----BEGIN CERTIFICATE-----\nMAMCAQU=\n-----END CERTIFICATE-----\n";
    fs::write(path("damaged.pem"), format!("{damaged}{corporate}")).unwrap();
    fs::write(path("corporate.txt"), corporate.replace('\n', " ")).unwrap();
    fs::write(path("folder/notes.txt"), "of nobody").unwrap();
    for (variables, count, problems) in [
        (&[("REQUESTS_CA_BUNDLE", "corporate.pem")][..], 2, 0),
        (
            &[
                ("REQUESTS_CA_BUNDLE", "corporate.pem"),
                ("CURL_CA_BUNDLE", "corporate.pem"),
            ],
            2,
            0,
        ),
        (
            &[
                ("NODE_EXTRA_CA_CERTS", "corporate.pem"),
                ("REQUESTS_CA_BUNDLE", "folder"),
            ],
            3,
            0,
        ),
        (&[("PIP_CERT", "own.pem"), ("AWS_CA_BUNDLE", "earlier.pem")], 1, 0),
        (&[("REQUESTS_CA_BUNDLE", "damaged.pem")], 2, 1),
        (&[("REQUESTS_CA_BUNDLE", "corporate.txt")], 1, 1),
        (
            &[("SSL_CERT_FILE", "earlier.pem"), ("GIT_SSL_CAINFO", "gone.pem")],
            1,
            1,
        ),
        (
            &[
                ("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", "folder/other.pem"),
                ("DENO_CERT", "corporate.pem"),
            ],
            3,
            0,
        ),
    ] {
        let system = [("SSL_CERT_FILE", path("system.pem"))];
        let variables = variables.iter().map(|(name, file)| (*name, path(file)));
        let snapshot = Snapshot::of_variables(system.into_iter().chain(variables.clone()));
        let roots = SystemRoots::new(&snapshot, &path("own.pem"));
        let told: Vec<_> = variables.collect();
        let read = roots.read();
        assert_eq!(
            (read.certificates().count(), read.problems.len()),
            (count, problems),
            "{told:?}"
        );
        assert_eq!(roots.anchors().roots().len(), 1, "{told:?}");
        assert_eq!(
            roots.read().certificates().count(),
            count,
            "read after the anchors: {told:?}"
        );
    }
}

/// An empty file may be one that is being written.
#[test]
fn a_password_may_be_empty_where_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    fs::write(&file, "\n").unwrap();
    let services = r#"{"user-provided":[{"name":"partner","credentials":{"password":"","key":"x"}}]}"#;
    let snapshot = Snapshot::of_variables([
        ("EMPTY", ""),
        ("LINE", "\n"),
        ("FULL", "p"),
        ("VCAP_SERVICES", services),
    ]);
    let vcap = |key: &str| SecretRef::Vcap {
        service: "partner".to_owned(),
        keys: vec![key.to_owned()],
    };
    for (reference, password) in [
        (SecretRef::Env("EMPTY".into()), Some("")),
        (SecretRef::Env("LINE".into()), Some("")),
        (SecretRef::Env("FULL".into()), Some("p")),
        (SecretRef::Env("UNSET".into()), None),
        (SecretRef::Env(String::new()), None),
        (vcap("password"), Some("")),
        (vcap("key"), Some("x")),
        (vcap("absent"), None),
        (SecretRef::File(file), None),
    ] {
        let read = snapshot.read_password(&reference);
        let read = read
            .as_ref()
            .map(|secret| str::from_utf8(secret.expose()).unwrap());
        assert_eq!(read.ok(), password, "{reference}");
    }
}
