use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair};

use super::*;
use crate::config::Environment;

/// Writes `NAME.crt` and `NAME.key`, a pair for clients.
fn pair(folder: &Path, name: &str) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(vec![format!("{name}.test")]).unwrap();
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    fs::write(
        folder.join(format!("{name}.crt")),
        parameters.self_signed(&key).unwrap().pem(),
    )
    .unwrap();
    let path = folder.join(format!("{name}.key"));
    fs::write(&path, key.serialize_pem()).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
}

/// Reads a text, for which `$DIR` is the folder.
fn config(text: &str, folder: &Path) -> Config {
    let look_up = |name: &str| (name == "DIR").then(|| folder.into());
    let config = Config::parse_in(text, "a.yml", Environment::new(&look_up));
    config.map_err(|problems| problems.to_string()).unwrap()
}

/// Problems and warnings of a text, as they are printed, `DIR` for the folder.
fn examined(text: &str, folder: &Path, variables: &[(&str, &str)]) -> (String, String) {
    let snapshot = Snapshot::of_variables(variables.iter().copied());
    let (problems, warnings) = examine(&config(text, folder), &snapshot, SystemTime::now());
    let shown = |problems: &Problems| problems.to_string().replace(&folder.display().to_string(), "DIR");
    (shown(&problems), shown(&warnings))
}

const PARTNER: &str = "\
destinations:
  partner:
    hosts: [partner.test]
    auth: { bearer: env:TOKEN }
    tls:
      client_certificate: { cert: file:$DIR/a.crt, key: file:$DIR/a.key }
      ca_extra: file:$DIR/a.crt
";

#[test]
fn nothing_is_said_where_nothing_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "a");
    let (problems, warnings) = examined(PARTNER, folder.path(), &[("TOKEN", "long-enough")]);
    assert_eq!((problems.as_str(), warnings.as_str()), ("", ""));
}

/// What leaves with requests and would not be found in an answer.
#[test]
fn a_secret_too_short_to_be_looked_for_is_told() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "a");
    let (problems, warnings) = examined(PARTNER, folder.path(), &[("TOKEN", "1234567")]);
    assert_eq!(problems, "");
    assert!(
        warnings
            .contains("destinations.partner.auth.bearer: env:TOKEN is too short to be looked for in answers"),
        "{warnings}"
    );
    assert!(!warnings.contains("1234567"), "{warnings}");
}

#[test]
fn a_list_of_revoked_certificates_is_read_and_its_end_is_told() {
    use rcgen::{BasicConstraints, CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, SerialNumber};

    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "a");
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new([]).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let params = CertificateRevocationListParams {
        this_update: rcgen::date_time_ymd(2020, 1, 1),
        next_update: rcgen::date_time_ymd(2020, 1, 8),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = params.signed_by(&Issuer::from_params(&parameters, &key)).unwrap();
    fs::write(folder.path().join("old.crl"), list.pem().unwrap()).unwrap();

    let with = |crl: &str| format!("{PARTNER}      crl: [file:$DIR/{crl}]\n");
    let (problems, warnings) = examined(&with("old.crl"), folder.path(), &[("TOKEN", "long-enough")]);
    assert_eq!(problems, "");
    assert!(
        warnings.contains("destinations.partner.tls.crl: the list of ")
            && warnings.contains("was to be renewed by 2020-01-08T00:00:00Z"),
        "{warnings}"
    );
    let (problems, _) = examined(&with("a.crt"), folder.path(), &[("TOKEN", "long-enough")]);
    assert!(
        problems.contains("destinations.partner.tls.crl: there is no list of revoked certificates in it"),
        "{problems}"
    );
}

#[test]
fn every_secret_that_is_missing_is_told_at_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let (problems, _) = examined(PARTNER, folder.path(), &[]);
    let lines: Vec<_> = problems.lines().collect();
    assert_eq!(lines.len(), 4, "{problems}");
    for (line, start) in lines.iter().zip([
        "a.yml:4:21: destinations.partner.auth.bearer: env:TOKEN: the environment variable is not set, or empty; ",
        "a.yml:6:35: destinations.partner.tls.client_certificate.cert: file:DIR/a.crt: DIR/a.crt cannot be read; it has to be there, ",
        "a.yml:6:57: destinations.partner.tls.client_certificate.key: file:DIR/a.key: DIR/a.key cannot be read; it has to be there, ",
        "a.yml:7:17: destinations.partner.tls.ca_extra: file:DIR/a.crt: DIR/a.crt cannot be read; it has to be there, ",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn a_key_of_another_certificate_is_told() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "a");
    pair(folder.path(), "b");
    let text = PARTNER.replace("a.key", "b.key");
    let (problems, _) = examined(&text, folder.path(), &[("TOKEN", "long-enough")]);
    let start =
        "a.yml:6:7: destinations.partner.tls.client_certificate: the key of file:DIR/b.key does not belong";
    assert!(
        problems.lines().count() == 1 && problems.starts_with("a.yml:6:"),
        "{problems}"
    );
    assert!(problems.contains(&start["a.yml:6:7: ".len()..]), "{problems}");
}

/// Keys and files that a password opens are opened, as the proxy would.
#[test]
fn what_no_password_opens_is_told() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "a");
    let openssl = |arguments: &[&str]| {
        let mut command = std::process::Command::new("openssl");
        let output = command
            .args(arguments)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    openssl(&[
        "pkcs8",
        "-topk8",
        "-in",
        "a.key",
        "-passout",
        "pass:sesame",
        "-out",
        "locked.key",
    ]);
    openssl(&[
        "pkcs12",
        "-export",
        "-in",
        "a.crt",
        "-inkey",
        "a.key",
        "-passout",
        "pass:sesame",
        "-out",
        "a.p12",
    ]);
    let pem = "{ cert: file:$DIR/a.crt, key: file:$DIR/locked.key";
    for (certificate, told) in [
        (format!("{pem}, passphrase: env:RIGHT }}"), ""),
        (
            format!("{pem} }}"),
            "client_certificate.key: the private key is encrypted and there is no passphrase; ",
        ),
        (
            format!("{pem}, passphrase: env:WRONG }}"),
            "client_certificate.key: the passphrase does not open ",
        ),
        (
            format!("{pem}, passphrase: env:NONE }}"),
            "client_certificate.passphrase: env:NONE: ",
        ),
        ("{ pkcs12: file:$DIR/a.p12, password: env:RIGHT }".into(), ""),
        (
            "{ pkcs12: file:$DIR/a.p12 }".into(),
            "client_certificate.pkcs12: the PKCS#12 file has a password; ",
        ),
        (
            "{ pkcs12: file:$DIR/a.p12, password: env:WRONG }".into(),
            "client_certificate.pkcs12: wrong password for the PKCS#12 file; ",
        ),
        (
            "instance_identity".into(),
            "client_certificate: the secret cannot be read: CF_INSTANCE_CERT is not set, ",
        ),
    ] {
        let text = format!(
            "destinations: {{ d: {{ hosts: [a.test], tls: {{ client_certificate: {certificate} }} }} }}"
        );
        let (problems, _) = examined(&text, folder.path(), &[("RIGHT", "sesame"), ("WRONG", "simsim")]);
        let count = usize::from(!told.is_empty());
        assert_eq!(problems.lines().count(), count, "{certificate}: {problems}");
        assert!(
            problems.contains(told) && !problems.contains("simsim"),
            "{certificate}: {problems}"
        );
    }
}

#[test]
fn what_is_no_certificate_no_key_and_no_field_value_is_told_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "a");
    fs::copy(folder.path().join("a.key"), folder.path().join("a.crt")).unwrap();
    let (problems, _) = examined(PARTNER, folder.path(), &[("TOKEN", "hunter2")]);
    assert!(
        problems.contains("client_certificate.cert: there is no certificate in it"),
        "{problems}"
    );

    let text = "destinations: { d: { hosts: [a.test], auth: { bearer: env:TOKEN } } }";
    let (problems, _) = examined(text, folder.path(), &[("TOKEN", "hunter2\nhunter2")]);
    assert!(
        problems.starts_with("a.yml:1:20: destinations.d: env:TOKEN: byte 8 is "),
        "{problems}"
    );
    assert!(!problems.contains("hunter2"), "{problems}");
}

#[test]
fn problems_of_the_policy_and_of_secrets_are_told_together() {
    let text = "\
destinations:
  d:
    hosts: [a.test]
    auth: { bearer: env:TOKEN }
    upgrade: true
    insecure_attach_over_http: true
";
    let folder = tempfile::tempdir().unwrap();
    let (problems, _) = examined(text, folder.path(), &[]);
    let lines: Vec<_> = problems.lines().collect();
    assert_eq!(lines.len(), 2, "{problems}");
    assert!(
        lines[0].starts_with("a.yml:4:21: destinations.d.auth.bearer: "),
        "{problems}"
    );
    assert!(
        lines[1].starts_with("a.yml:6:32: destinations.d.insecure_attach_over_http: "),
        "{problems}"
    );
}

#[test]
fn what_is_more_open_than_it_may_be_meant_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "a");
    fs::set_permissions(folder.path().join("a.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let text = "\
egress: { deny_networks: [private] }
destinations:
  d:
    hosts: [a.test, '*.b.test', 'b.test:*']
    auth: { bearer: env:TOKEN }
    upgrade: false
    insecure_attach_over_http: true
    tls:
      client_certificate: { cert: file:$DIR/a.crt, key: file:$DIR/a.key }
  plain: { hosts: ['*.c.test'] }
  e: { hosts: [d.test], upgrade: false, insecure_attach_over_http: true, headers: { set: { X-Key: env:TOKEN } } }
";
    let (problems, warnings) = examined(text, folder.path(), &[("TOKEN", "long-enough")]);
    assert_eq!(problems, "");
    let lines: Vec<_> = warnings.lines().collect();
    assert_eq!(lines.len(), 6, "{warnings}");
    for (line, start) in lines.iter().zip([
        "a.yml:1:26: egress.deny_networks: these networks are denied although the list does not name them: \
         link-local, loopback, multicast, metadata, reserved; ",
        "a.yml:4:21: destinations.d.hosts[1]: every host under *.b.test gets the credential; ",
        "a.yml:4:33: destinations.d.hosts[2]: whatever listens at b.test:* gets the credential; ",
        "a.yml:7:32: destinations.d.insecure_attach_over_http: the credential may leave in clear; ",
        "a.yml:9:57: destinations.d.tls.client_certificate.key: DIR/a.key can be read by every user",
        "a.yml:11:68: destinations.e.insecure_attach_over_http: the credential may leave in clear; ",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
}

/// Who left a class out on purpose is told that it is denied all the same; who only adds a block hears nothing.
#[test]
fn a_list_of_denied_networks_that_takes_nothing_away_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    for (egress, told) in [
        ("{}", &[][..]),
        ("{ deny_networks: [203.0.113.0/24] }", &[]),
        (
            "{ deny_networks: [private, link-local, loopback, multicast, metadata, reserved] }",
            &[],
        ),
        (
            "{ deny_networks: [private, link-local, multicast, metadata, reserved], allow_networks: [loopback] }",
            &[],
        ),
        (
            "{ deny_networks: [] }",
            &["does not name them: private, link-local, loopback, multicast, metadata, reserved; name all"],
        ),
        (
            "{ deny_networks: [metadata, 203.0.113.0/24], allow_networks: [private] }",
            &[
                "does not name them: link-local, loopback, multicast, reserved; name all classes or none; to open one, add it to egress.allow_networks",
            ],
        ),
        (
            "{ allow_networks: [loopback, metadata] }",
            &["egress.allow_networks[1]: the metadata services of the platform can be reached"],
        ),
    ] {
        let (problems, warnings) = examined(&format!("egress: {egress}\n"), folder.path(), &[]);
        assert_eq!(problems, "");
        assert_eq!(warnings.lines().count(), told.len(), "{egress}: {warnings}");
        for part in told {
            assert!(warnings.contains(part), "{egress}: {warnings}");
        }
    }
}

/// E5: a tunnel that passes untouched carries no credential; the author who wrote one beside it should know.
#[test]
fn a_limit_that_does_nothing_or_too_much_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let warned = |keys: &str| {
        let text = format!("destinations: {{ d: {{ hosts: [a.test], {keys} }} }}");
        examined(&text, folder.path(), &[]).1
    };
    let zero = warned("rate_limit: [5/s, 0/m]");
    assert!(
        zero.contains("destinations.d.rate_limit[1]: a rate of zero"),
        "{zero}"
    );
    let idle = warned("priority: [{ class: low }], rate_limit: 5/s");
    assert!(
        idle.contains("destinations.d.priority: nobody waits here"),
        "{idle}"
    );
    for keys in [
        "rate_limit: 5/s",
        "priority: [{ class: low }], rate_limit: 5/s, on_limit: wait 1s",
    ] {
        assert_eq!(warned(keys), "", "{keys}");
    }
}

#[test]
fn a_credential_that_no_tunnel_carries_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "a");
    let identity = "tls: { client_certificate: { cert: file:$DIR/a.crt, key: file:$DIR/a.key } }";
    for (written, idle) in [
        ("auth: { bearer: env:TOKEN }", Some("auth")),
        ("headers: { set: { X-A: b } }", Some("headers")),
        (identity, Some("tls")),
        ("methods: [GET]", Some("methods")),
        ("paths: [/a], methods: [GET]", Some("methods, paths")),
        ("rate_limit: 5/s, concurrency: 2", None),
        ("tls: {}", None),
    ] {
        for mode in ["auto", "intercept", "tunnel"] {
            let text = format!(
                "destinations: {{ d: {{ hosts: [a.test], mode: {mode}, {written} }} }}\nplaceholders: {{ mode: never }}"
            );
            let (problems, warnings) = examined(&text, folder.path(), &[("TOKEN", "long-enough")]);
            let expected = idle.filter(|_| mode == "tunnel").map_or_else(String::new, |idle| {
                format!(
                    "a.yml:1:45: destinations.d.mode: tunnels of https:// pass untouched, so they get nothing of {idle}; \
                     remove mode, or mode: intercept, to have it for every request"
                )
            });
            assert_eq!(
                (problems.as_str(), warnings.as_str()),
                ("", expected.as_str()),
                "{text}"
            );
        }
    }
}

#[test]
fn a_certificate_that_has_expired_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    pair(folder.path(), "a");
    let config = config(PARTNER, folder.path());
    // Certificates of the test are valid until the year 4096.
    let later = SystemTime::now() + Duration::from_secs(2_500 * 31_557_600);
    let (problems, warnings) = examine(
        &config,
        &Snapshot::of_variables([("TOKEN", "long-enough")]),
        later,
    );
    assert!(problems.is_empty(), "{problems}");
    assert!(
        warnings
            .to_string()
            .contains("destinations.partner.tls.client_certificate: expired 4096-"),
        "{warnings}"
    );
}

/// Certificates may name any year; those before 1970 made the program panic.
#[test]
fn a_certificate_of_any_year_is_told_of() {
    for (from, until, wanted) in [
        (1950, 1965, "expired 1965-01-01T00:00:00Z"),
        (1, 2, "expired 0002-01-01T00:00:00Z"),
        (9998, 9999, "not valid before 9998-01-01T00:00:00Z"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        pair(folder.path(), "a");
        let key = KeyPair::from_pem(&fs::read_to_string(folder.path().join("a.key")).unwrap()).unwrap();
        let mut parameters = CertificateParams::new(vec!["a.test".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
        let certificate = parameters.self_signed(&key).unwrap().pem();
        fs::write(folder.path().join("a.crt"), certificate).unwrap();
        let (problems, warnings) = examined(PARTNER, folder.path(), &[("TOKEN", "long-enough")]);
        assert_eq!(problems, "");
        assert!(warnings.contains(wanted), "{warnings}");
    }
}

/// BoringSSL takes no certificate for an address from us, unless the configuration leaves addresses out.
#[test]
fn intercepted_addresses_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let told = |hosts: &str, more: &str, ca: &str| {
        let text = format!("{ca}destinations: {{ d: {{ hosts: [{hosts}], {more} }} }}");
        let (problems, warnings) = examined(&text, folder.path(), &[("TOKEN", "long-enough")]);
        assert_eq!(problems, "");
        warnings
    };
    let auth = "auth: { bearer: env:TOKEN }";
    for host in [
        "52.222.122.97",
        "\"52.222.122.97:8443\"",
        "\"[2600::1]\"",
        "52.222.0.0/16",
    ] {
        let both = format!("partner.test, {host}");
        let warning = told(&both, auth, "");
        assert!(
            warning.contains("destinations.d.hosts: https to ") && warning.contains("BoringSSL"),
            "{host}: {warning}"
        );
        assert!(warning.contains("ca.constraints: names"), "{host}: {warning}");
        // Its TLS is the app's own.
        assert!(!told(&both, "mode: tunnel", "").contains("BoringSSL"), "{host}");
        for constraints in ["names", "none"] {
            let ca = format!("ca: {{ constraints: {constraints} }}\n");
            assert!(!told(&both, auth, &ca).contains("BoringSSL"), "{host}");
        }
    }
    assert_eq!(told("partner.test", auth, ""), "");
}

/// Deny wins, so one of the two lines does nothing.
#[test]
fn a_pattern_that_is_allowed_and_denied_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let text = "destinations: { a: { hosts: [b.test, a.test] }, no: { hosts: [A.test], deny: true } }";
    let (problems, warnings) = examined(text, folder.path(), &[]);
    assert_eq!(problems, "");
    assert!(
        warnings.contains("destinations.a.hosts[1]: destinations.no denies a.test, so it is refused"),
        "{warnings}"
    );
}

#[test]
fn a_placeholder_that_nothing_replaces_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let text = "destinations: { a: { hosts: [a.test], auth: { bearer: env:TOKEN }, mode: tunnel } }\n";
    let told = |more: &str| {
        examined(
            &format!("{text}{more}"),
            folder.path(),
            &[("TOKEN", "long-enough")],
        )
        .1
    };
    let of_tunnels = "the app may have a placeholder for env:TOKEN, and in tunnels of https:// nothing is put in its place";
    assert!(told("").contains(of_tunnels), "{}", told(""));
    for off in [
        "placeholders: { mode: never }",
        "placeholders: { keep: [env:TOKEN] }",
    ] {
        assert!(!told(off).contains(of_tunnels), "{off}: {}", told(off));
    }
    let unused = told(
        "placeholders: { keep: [env:KEEP], remove: [env:REMOVE], shapes: { env:SHAPE: { prefix: a } } }",
    );
    for reference in ["env:KEEP", "env:REMOVE", "env:SHAPE"] {
        assert!(
            unused.contains(&format!("no destination uses {reference}")),
            "{unused}"
        );
    }
}

#[test]
fn observing_is_told_until_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let (problems, warnings) = examined("egress: { default: observe }", folder.path(), &[]);
    assert_eq!(problems, "");
    assert!(
        warnings.contains("egress.default: every public host passes, and is recorded"),
        "{warnings}"
    );
    assert_eq!(examined("egress: { default: tunnel }", folder.path(), &[]).1, "");
}

/// Certificates are public: those of parents and of the listener, a folder of them included.
#[test]
fn certificates_of_parents_and_of_the_listener_are_no_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir_all(at("roots/below")).unwrap();
    for name in ["a", "b"] {
        pair(folder.path(), name);
        fs::copy(at(&format!("{name}.crt")), at(&format!("roots/{name}.crt"))).unwrap();
    }
    for name in ["a.crt", "b.crt", "roots/a.crt", "roots/b.crt", "roots/below"] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let text = "\
listen_tls: { cert: file:$DIR/b.crt, key: file:$DIR/b.key }
clients: { partner: { certificate: CN=partner, ca: file:$DIR/a.crt } }
egress:
  parent:
    - { url: https://one.test:1, tls: { ca: file:$DIR/a.crt, client_certificate: { cert: file:$DIR/a.crt, key: file:$DIR/a.key } } }
    - https://two.test:2
  parent_ca: file:$DIR/roots
destinations:
  own: { hosts: [own.test], parent: https://three.test:3 }
";
    let (problems, warnings) = examined(text, folder.path(), &[]);
    assert_eq!((problems.as_str(), warnings.as_str()), ("", ""));

    for name in ["a.key", "b.key"] {
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let (_, warnings) = examined(text, folder.path(), &[]);
    let lines: Vec<_> = warnings.lines().collect();
    assert_eq!(lines.len(), 2, "{warnings}");
    for (line, start) in lines.iter().zip([
        "a.yml:1:43: listen_tls.key: DIR/b.key can be read by every user",
        "a.yml:5:112: egress.parent[0].tls.client_certificate.key: DIR/a.key can be read by every user",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
}

#[test]
fn what_is_wrong_with_a_parent_is_told_once_under_its_own_key() {
    let folder = tempfile::tempdir().unwrap();
    let text = "\
egress:
  parent: https://one.test:1
  parent_ca: file:$DIR/none.pem
destinations:
  own: { hosts: [own.test], parent: [env:NONE, \"https://three.test:3\"] }
  other: { hosts: [other.test], parent: \"https://three.test:3\" }
";
    let (problems, _) = examined(text, folder.path(), &[]);
    let lines: Vec<_> = problems.lines().collect();
    assert_eq!(lines.len(), 2, "{problems}");
    for (line, start) in lines.iter().zip([
        "a.yml:3:14: egress.parent_ca: the certificate cannot be read: file:DIR/none.pem: ",
        "a.yml:5:38: destinations.own.parent[0]: the secret cannot be read: env:NONE: ",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
    pair(folder.path(), "a");
    let text = "listen_tls: { cert: file:$DIR/none.crt, key: file:$DIR/a.key }\nclients: { app: { basic: env:PW } }\n";
    let (problems, _) = examined(text, folder.path(), &[("PW", "long-enough")]);
    let start = "a.yml:1:21: listen_tls.cert: the certificate cannot be read: file:DIR/none.crt: ";
    assert!(problems.starts_with(start), "{problems}");
}
