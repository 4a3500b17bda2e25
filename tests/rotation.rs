//! Secrets that are renewed while the proxy runs: nothing fails, nothing old is used for anything new.

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};

use crate::support::openssl::SServer;
use crate::support::partner::Partner;
use crate::support::pki::server_params;
use crate::support::programs::clean;
use crate::support::{Identity, Nginx, Origin, Pki, Proxy, TOKEN, Wire, eventually, run};

/// Makes a certificate of this serial number.
pub(crate) fn numbered(pki: &Pki, serial: u64) -> Identity {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "app");
    params.serial_number = Some(SerialNumber::from(serial));
    pki.issue("numbered", params)
}

/// A folder in which a platform keeps a pair, and renews it as Cloud Foundry does: each file by renaming, the
/// key first.
pub(crate) struct Platform {
    folder: tempfile::TempDir,
}

impl Platform {
    pub(crate) fn new(first: &Identity) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let platform = Self { folder };
        platform.renew(first, Duration::ZERO);
        platform
    }

    /// Replaces the pair; for the time `apart` the new key is beside the old certificate.
    pub(crate) fn renew(&self, pair: &Identity, apart: Duration) {
        std::fs::write(self.path("instance.key.tmp"), &pair.key).unwrap();
        std::fs::write(self.path("instance.crt.tmp"), &pair.cert).unwrap();
        std::fs::rename(self.path("instance.key.tmp"), self.path("instance.key")).unwrap();
        thread::park_timeout(apart);
        std::fs::rename(self.path("instance.crt.tmp"), self.path("instance.crt")).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts a proxy whose destination uses the instance identity.
    pub(crate) fn proxy(&self, pki: &Pki, authority: &str, extra: &str) -> Proxy {
        let yaml = format!(
            "destinations:\n  partner: {{ hosts: [\"{authority}\"], tls: {{ ca: \"file:{}\", \
             client_certificate: instance_identity }} }}\n{extra}",
            pki.ca().display()
        );
        let variable = |name: &str| self.path(name).display().to_string();
        let env = [
            ("CF_INSTANCE_CERT", &*variable("instance.crt")),
            ("CF_INSTANCE_KEY", &*variable("instance.key")),
        ];
        Proxy::start_with(&yaml, &env)
    }
}

/// The result of one request.
struct RequestResult {
    start: Instant,
    status: u16,
    serial: u64,
}

pub(crate) fn descriptors(proxy: &Proxy) -> usize {
    proxy.metric("process_open_fds", &[]) as usize
}

fn rotations(proxy: &Proxy) -> usize {
    proxy.log().matches("secrets rotated").count()
}

pub(crate) fn failed_reloads(proxy: &Proxy) -> f64 {
    proxy.metric("outrider_config_reloads_total", &[("result", "failed")])
}

/// K3, "It must show" of rotation: 200 requests a second while the pair is renewed every two seconds in the
/// platform's order, with a moment in which key and certificate do not fit. No request fails, every one that
/// begins after a renewal shows the new certificate, no descriptor stays open. `OUTRIDER_TEST_ROTATION_SECONDS`
/// makes it longer.
#[test]
fn renewals_under_load_fail_no_request() {
    let seconds = std::env::var("OUTRIDER_TEST_ROTATION_SECONDS").map_or(10, |text| text.parse().unwrap());
    let pki = Pki::new();
    let nginx = Nginx::demanding(&pki, false);
    let pairs: Vec<_> = (0..=seconds / 2).map(|n| numbered(&pki, FIRST + n)).collect();
    let platform = Platform::new(&pairs[0]);
    let proxy = platform.proxy(&pki, &nginx.authority(), "");
    let url = format!("http://{}/serial", nginx.authority());
    let serial = |text: &str| u64::from_str_radix(text.split(' ').next().unwrap(), 16).unwrap_or(0);
    eventually("a start", || proxy.page("/readyz").status == 200);
    let before = descriptors(&proxy);
    assert_eq!(serial(&proxy.get(&url).text()), FIRST);

    let begin = Instant::now();
    let met = Mutex::new(Vec::new());
    let is_over = AtomicBool::new(false);
    // From when on each pair was complete.
    let mut renewals = vec![(begin, FIRST)];
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (proxy, url, met, is_over) = (&proxy, &url, &met, &is_over);
            scope.spawn(move || {
                // Half of the clients keep their connection, half make one for each request.
                let mut kept = (client % 2 == 0).then(|| proxy.wire());
                for n in 0_u32.. {
                    let due = begin + PACE * n + PACE * client / CLIENTS;
                    while let Some(wait) = due.checked_duration_since(Instant::now()) {
                        thread::park_timeout(wait);
                    }
                    if is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let start = Instant::now();
                    let answer = match &mut kept {
                        Some(wire) => wire.ask(format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n")),
                        None => proxy.get(url),
                    };
                    met.lock().unwrap().push(RequestResult {
                        start,
                        status: answer.status,
                        serial: serial(&answer.text()),
                    });
                }
            });
        }
        for (n, pair) in (1..).zip(&pairs[1..]) {
            let due = begin + n * Duration::from_secs(2) - APART;
            while let Some(wait) = due.checked_duration_since(Instant::now()) {
                thread::park_timeout(wait);
            }
            platform.renew(pair, APART);
            renewals.push((Instant::now(), FIRST + u64::from(n)));
        }
        let last = renewals[renewals.len() - 1].1;
        let is_last = |met: &RequestResult| met.serial == last;
        eventually("the last renewal", || met.lock().unwrap().iter().any(is_last));
        is_over.store(true, Ordering::Relaxed);
    });

    let met = met.into_inner().unwrap();
    let failed = met.iter().filter(|met| met.status != 200).count();
    assert_eq!(failed, 0, "of {}", met.len());
    // How long after a renewal a request still showed what was before it.
    let late = |met: &RequestResult| {
        let missed = renewals
            .iter()
            .find(|(at, serial)| *at <= met.start && *serial > met.serial);
        missed.map_or(Duration::ZERO, |(at, _)| met.start - *at)
    };
    let latest = met.iter().map(late).max().unwrap();
    let shown: BTreeSet<_> = met.iter().map(|met| met.serial).collect();
    println!(
        "{} requests in {:?}, {} renewals, {} certificates shown, the old one at most {latest:?} after a renewal",
        met.len(),
        begin.elapsed(),
        renewals.len() - 1,
        shown.len(),
    );
    assert!(latest < Duration::from_millis(1500), "{latest:?}");
    assert_eq!(shown, renewals.iter().map(|(_, serial)| *serial).collect());
    assert!(met.len() as u64 >= seconds * 150, "{} requests", met.len());

    // Half a pair is no fault.
    assert_eq!(rotations(&proxy), pairs.len() - 1);
    assert_eq!(failed_reloads(&proxy), 0.0);
    for word in ["\"ERROR\"", "\"WARN\""] {
        assert!(!proxy.log().contains(word), "{}", proxy.log());
    }
    // Idle connections of identities that are gone are swept away, and after one more renewal that is all of them.
    platform.renew(&pairs[0], APART);
    eventually("no descriptor more than before", || descriptors(&proxy) <= before);
    println!("descriptors: {before} before, {} after", descriptors(&proxy));
}

/// K3: what is under way ends under the old identity; what begins takes neither its connection nor its session.
#[test]
fn a_renewal_leaves_what_is_under_way_alone() {
    let (open, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let partner = Partner::with(move |wire| {
        while let Ok(request) = wire.request() {
            if request.target() == "/slow" {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf");
                let _ = gate.lock().unwrap().recv();
                wire.send("done");
            } else {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
        }
    });
    let other = Origin::plain();
    let mut yaml = partner.yaml("");
    yaml.push_str(&format!(
        "  other: {{ hosts: [\"other.test:{}\"] }}\n",
        other.port()
    ));
    let proxy = Proxy::start_with(&yaml, &[("TOKEN", TOKEN)]);
    let other_url = format!("http://other.test:{}/", other.port());
    let mut slow = proxy.wire();
    slow.send(format!(
        "GET {} HTTP/1.1\r\nHost: x\r\n\r\n",
        partner.url("/slow")
    ));
    while slow.read_line() != "\r\n" {}
    assert_eq!(slow.read_exact(4).unwrap(), b"half");
    let ask_both = |wires: &mut [Wire; 2]| {
        for (wire, url) in wires.iter_mut().zip([partner.url("/quick"), other_url.clone()]) {
            assert_eq!(
                wire.ask(format!("GET {url} HTTP/1.1\r\nHost: x\r\n\r\n")).status,
                200
            );
        }
    };
    let mut wires = [proxy.wire(), proxy.wire()];
    ask_both(&mut wires);
    ask_both(&mut wires);

    let fresh = numbered(&partner.pki, FIRST);
    std::fs::rename(&fresh.key_path, &partner.client.key_path).unwrap();
    std::fs::rename(&fresh.cert_path, &partner.client.cert_path).unwrap();
    eventually("the renewal", || rotations(&proxy) == 1);
    ask_both(&mut wires);
    open.send(()).unwrap();
    assert_eq!(slow.read_exact(4).unwrap(), b"done");

    let seen = partner.origin.seen();
    let serials: Vec<_> = seen
        .iter()
        .map(|seen| seen.client.as_ref().unwrap().1.clone())
        .collect();
    let newest = format!("{FIRST:x}").to_lowercase();
    let plain = |serial: &String| serial.replace(':', "").to_lowercase();
    assert_eq!(seen.len(), 3, "{serials:?}");
    assert_eq!(plain(&serials[2]), newest, "{serials:?}");
    assert!(
        serials[..2].iter().all(|serial| plain(serial) != newest),
        "{serials:?}"
    );
    assert!(!seen[2].resumed, "a session of the old identity was resumed");
    // A destination whose secrets are as before keeps its connection.
    assert_eq!(other.seen().len(), 1);
    assert!(proxy.log().contains("\"expires\":\"4096-"), "{}", proxy.log());
}

/// K3: the way in which folders of secrets are mounted: one link is swapped, and key, certificate, authority
/// and token are others at once.
#[test]
fn a_swapped_folder_renews_everything_in_it() {
    let (old, new) = (Pki::named("old"), Pki::named("new"));
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let mut origins = Vec::new();
    for (version, pki, token) in [("v1", &old, "canary-2f6b-one"), ("v2", &new, "canary-2f6b-two")] {
        let pair = numbered(pki, FIRST);
        std::fs::create_dir(path(version)).unwrap();
        for (name, text) in [
            ("tls.key", &pair.key),
            ("tls.crt", &pair.cert),
            ("token", &token.to_owned()),
        ] {
            std::fs::write(path(version).join(name), text).unwrap();
        }
        std::fs::copy(pki.ca(), path(version).join("ca.crt")).unwrap();
        origins.push(Origin::https(
            pki.demanding(&pki.server("partner.test")),
            crate::support::origin::ok,
        ));
    }
    symlink("v1", path("..data")).unwrap();
    for name in ["tls.key", "tls.crt", "token", "ca.crt"] {
        symlink(Path::new("..data").join(name), path(name)).unwrap();
    }
    let file = |name: &str| format!("\"file:{}\"", path(name).display());
    let proxy = Proxy::start(&format!(
        "destinations:\n  partner:\n    hosts: [\"partner.test:{}\", \"partner.test:{}\"]\n    auth: {{ bearer: {} }}\n    \
         tls: {{ ca: {}, client_certificate: {{ cert: {}, key: {} }} }}\n",
        origins[0].port(),
        origins[1].port(),
        file("token"),
        file("ca.crt"),
        file("tls.crt"),
        file("tls.key"),
    ));
    assert_eq!(proxy.get(&origins[0].url("/")).status, 200);
    assert_eq!(proxy.get(&origins[1].url("/")).status, 502);

    symlink("v2", path("..next")).unwrap();
    std::fs::rename(path("..next"), path("..data")).unwrap();
    eventually("the renewal", || rotations(&proxy) == 1);
    assert_eq!(proxy.get(&origins[1].url("/")).status, 200);
    assert_eq!(proxy.get(&origins[0].url("/")).status, 502);
    let raw = origins[1].raw();
    assert!(
        raw.contains("canary-2f6b-two") && !raw.contains("canary-2f6b-one"),
        "{raw}"
    );
    assert_eq!(failed_reloads(&proxy), 0.0);
}

/// K3: a key without its certificate is reported once, and fixed without anybody's help. A broken configuration
/// beside it does not keep the pair from being used.
#[test]
fn half_a_pair_that_stays_is_reported_once() {
    let pki = Pki::new();
    let nginx = Nginx::demanding(&pki, false);
    let platform = Platform::new(&numbered(&pki, FIRST));
    let proxy = platform.proxy(&pki, &nginx.authority(), "");
    let url = format!("http://{}/serial", nginx.authority());
    let is_shown = |serial: u64| {
        let text = proxy.get(&url).text();
        text.starts_with(&format!("{serial:X} ")) || text.starts_with(&format!("0{serial:X} "))
    };
    assert!(is_shown(FIRST));

    let fresh = numbered(&pki, FIRST + 1);
    std::fs::write(platform.path("instance.key"), &fresh.key).unwrap();
    let told = || proxy.log().matches("changed secrets cannot be used").count();
    eventually("a word about it", || told() == 1);
    let log = proxy.log();
    assert!(
        log.contains("two halves of one pair") && log.contains("\"partner\""),
        "{log}"
    );
    assert_eq!(failed_reloads(&proxy), 1.0);
    let refused = [("kind", "client_certificate"), ("result", "failed")];
    assert_eq!(proxy.metric("outrider_credential_refresh_total", &refused), 1.0);
    // Nor does a reload that somebody asks for break what works.
    proxy.signal(rustix::process::Signal::HUP);
    eventually("the reload", || proxy.log().contains("configuration reloaded"));
    assert!(is_shown(FIRST));

    std::fs::write(proxy.config_file(), "destinations: [").unwrap();
    eventually("the fault", || proxy.log().contains("configuration not reloaded"));
    std::fs::write(platform.path("instance.crt"), &fresh.cert).unwrap();
    eventually("the renewal", || rotations(&proxy) == 1);
    assert!(is_shown(FIRST + 1));
    assert_eq!(told(), 1);
}

/// K3: the expiry of a certificate is reported in time, but not at each start if a platform renews it every day.
#[test]
fn the_expiry_of_a_certificate_is_reported_in_time() {
    let pki = Pki::new();
    let now = time::OffsetDateTime::now_utc();
    let issue = |name: &str, from: time::Duration, until: time::Duration| {
        let mut params = CertificateParams::default();
        (params.not_before, params.not_after) = (now + from, now + until);
        pki.issue(name, params)
    };
    let day = time::Duration::DAY;
    let soon = issue("soon", -300 * day, 20 * day);
    let late = issue("late", -300 * day, 65 * day);
    let over = issue("over", -300 * day, -day);
    let daily = issue("daily", -day / 2, day / 2);
    let destinations: String = [("soon", &soon), ("late", &late), ("over", &over)]
        .iter()
        .map(|(name, pair)| {
            format!(
                "  {name}: {{ hosts: [{name}.test], tls: {{ client_certificate: {} }} }}\n",
                pair.yaml()
            )
        })
        .collect();
    let platform = Platform::new(&daily);
    let proxy = platform.proxy(&pki, "partner.test:443", &destinations);
    let told = |destination: &str| -> Vec<String> {
        let named = format!("\"destination\":\"{destination}\"");
        let is_warning =
            |line: &&str| line.contains("\"WARN\"") && line.contains("expire") && line.contains(&named);
        proxy
            .log()
            .lines()
            .filter(is_warning)
            .map(str::to_owned)
            .collect()
    };
    eventually("a word about the end", || !told("soon").is_empty());
    assert!(
        told("soon")[0].contains("expires soon") && told("soon")[0].contains("19days"),
        "{:?}",
        told("soon")
    );
    assert!(
        told("over")[0].contains("expired") && told("over").len() == 1,
        "{:?}",
        told("over")
    );
    assert_eq!(
        (told("late").len(), told("partner").len()),
        (0, 0),
        "{}",
        proxy.log()
    );

    // In its place comes one that lives: the metric follows.
    let renewed = issue("renewed", -day, 365 * day);
    std::fs::rename(&renewed.key_path, &soon.key_path).unwrap();
    std::fs::rename(&renewed.cert_path, &soon.cert_path).unwrap();
    eventually("the renewal", || rotations(&proxy) == 1);
    let labels = [("destination", "soon"), ("kind", "client_certificate")];
    let expiry = proxy.metric("outrider_credential_expiry_timestamp_seconds", &labels);
    let refreshed = [labels[0], labels[1], ("result", "done")];
    assert_eq!(proxy.metric("outrider_credential_refresh_total", &refreshed), 1.0);
    let end: time::OffsetDateTime = now + 365 * day;
    assert_eq!(expiry, end.unix_timestamp() as f64);
    assert_eq!(told("soon").len(), 1);
    assert!(proxy.log().contains("\"certificate\":"), "{}", proxy.log());
}

/// H6, "It must show" of handshakes: `openssl s_server` verifies keys of each kind, from each container, in TLS 1.2
/// and 1.3.
#[test]
fn openssl_verifies_every_kind_of_key_from_every_container() {
    let pki = Pki::new();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: String| folder.path().join(name).display().to_string();
    let openssl = |arguments: &[&str]| {
        run(clean("openssl").args(arguments)).succeeded();
    };
    let mut certificates = Vec::new();
    for (kind, arguments) in [
        ("rsa", &["-algorithm", "RSA"][..]),
        (
            "p256",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
        ),
        (
            "p384",
            &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
        ),
        ("ed25519", &["-algorithm", "ED25519"]),
    ] {
        let key = path(format!("{kind}.key"));
        openssl(&[&["genpkey", "-out", &key], arguments].concat());
        let pair = KeyPair::from_pem(&std::fs::read_to_string(&key).unwrap()).unwrap();
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("client of {kind}"));
        let cert = pki.issue_for(kind, params, &pair).cert_path.display().to_string();
        let (locked, new, old) = (
            path(format!("{kind}.enc")),
            path(format!("{kind}.p12")),
            path(format!("{kind}.pfx")),
        );
        openssl(&[
            "pkcs8",
            "-topk8",
            "-in",
            &key,
            "-out",
            &locked,
            "-passout",
            "pass:canary-2f6b",
        ]);
        let export = [
            "pkcs12",
            "-export",
            "-in",
            &cert,
            "-inkey",
            &key,
            "-passout",
            "pass:canary-2f6b",
            "-out",
        ];
        openssl(&[&export[..], &[&new]].concat());
        openssl(&[&export[..], &[&old, "-legacy"]].concat());
        for (form, yaml) in [
            ("pem", format!("{{ cert: \"file:{cert}\", key: \"file:{key}\" }}")),
            (
                "locked",
                format!("{{ cert: \"file:{cert}\", key: \"file:{locked}\", passphrase: env:PASSWORD }}"),
            ),
            (
                "p12",
                format!("{{ pkcs12: \"file:{new}\", password: env:PASSWORD }}"),
            ),
            (
                "old-p12",
                format!("{{ pkcs12: \"file:{old}\", password: env:PASSWORD }}"),
            ),
        ] {
            certificates.push((format!("{form}-{kind}"), format!("client of {kind}"), yaml));
        }
    }
    let hosts: Vec<_> = certificates
        .iter()
        .map(|(name, ..)| format!("{name}.test"))
        .collect();
    let names: Vec<_> = hosts.iter().map(String::as_str).collect();
    let server = pki.issue("server", server_params(&names));
    let ca = pki.ca().display().to_string();
    let demanding = ["-Verify", "2", "-verify_return_error", "-CAfile", &ca];
    let servers = ["-tls1_2", "-tls1_3"].map(|version| {
        (
            version,
            SServer::start(&server, &[&demanding[..], &[version]].concat()),
        )
    });
    let mut yaml = format!(
        "dns: {{ hosts: {{ {} }} }}\ndestinations:\n",
        hosts
            .iter()
            .map(|host| format!("{host}: 127.0.0.1"))
            .collect::<Vec<_>>()
            .join(", ")
    );
    for (name, _, certificate) in &certificates {
        yaml.push_str(&format!(
            "  {name}: {{ hosts: [\"{name}.test:{}\", \"{name}.test:{}\"], tls: {{ ca: \"file:{}\", client_certificate: {certificate} }} }}\n",
            servers[0].1.port(),
            servers[1].1.port(),
            ca
        ));
    }
    let proxy = Proxy::start_with(&yaml, &[("PASSWORD", "canary-2f6b")]);
    for (version, server) in &servers {
        for (name, subject, _) in &certificates {
            let answer = proxy.get(&format!("http://{name}.test:{}/", server.port()));
            let (text, case) = (answer.text(), format!("{name} {version}"));
            assert_eq!(answer.status, 200, "{case}: {text}");
            // Whom it does not trust it does not answer.
            let shown = text.replace(" = ", "=");
            assert!(
                shown.contains(&format!("Subject: CN={subject}\n")),
                "{case}: {text}"
            );
        }
    }
}

const FIRST: u64 = 0x5a00_0001;
const CLIENTS: u32 = 8;
/// Of one client: 25 requests a second.
const PACE: Duration = Duration::from_millis(40);
/// For how long the new key lies beside the old certificate.
const APART: Duration = Duration::from_millis(100);
