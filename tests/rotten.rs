//! Key files that are damaged, made to do harm, or never end: their destination is refused, everything else works.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rcgen::CertificateParams;
use rustix::process::Signal;

use crate::support::programs::clean;
use crate::support::{Origin, Pki, Proxy, eventually, run};

/// A client's pair in a folder, in the forms that a password protects.
struct KeyFiles {
    folder: tempfile::TempDir,
}

impl KeyFiles {
    fn new(pki: &Pki) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let client = pki.issue("client", CertificateParams::default());
        let store = Self { folder };
        let (cert, key) = (client.cert_path.display(), client.key_path.display());
        let export =
            format!("pkcs12 -export -in {cert} -inkey {key} -passout pass:canary-2f6b -iter 65537 -out");
        for (command, name) in [(&export, "whole.p12"), (&export, "other.p12")] {
            let path = store.path(name).display().to_string();
            let arguments = command.split(' ').chain([&*path]);
            run(clean("openssl").args(arguments)).succeeded();
        }
        store
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        replace(&path, bytes);
        path
    }

    /// Returns the store with a count of iterations that takes seconds, and a matching MAC.
    fn slow(&self) -> Vec<u8> {
        let mut bytes = self.read("whole.p12");
        let mut found = 0;
        for start in 0..bytes.len() - 5 {
            if bytes[start..start + 5] == [0x02, 0x03, 0x01, 0x00, 0x01] {
                // 5,000,000.
                bytes[start + 2..start + 5].copy_from_slice(&[0x4c, 0x4b, 0x40]);
                found += 1;
            }
        }
        assert!(found > 0);
        bytes
    }
}

/// Replaces the file in one step, as usual for renewals.
fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// Encodes a short DER value.
fn value(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    [&[tag, u8::try_from(content.len()).unwrap()][..], &content].concat()
}

/// Encodes an unknown algorithm whose parameters claim to be larger than the file; a reader must skip them.
fn algorithm(length: &[u8]) -> Vec<u8> {
    value(0x30, &[&[0x06, 0x01, 0x2a], &[0x04], length, &[0x00]])
}

/// Returns a store that is complete except for its MAC algorithm.
fn too_long(length: &[u8]) -> Vec<u8> {
    let nothing = value(0x04, &[]);
    let content = value(0x30, &[&[0x06, 0x01, 0x2a], &value(0xa0, &[&nothing])]);
    let proof = value(0x30, &[&value(0x30, &[&algorithm(length), &nothing]), &nothing]);
    value(0x30, &[&[0x02, 0x01, 0x03], &content, &proof])
}

#[test]
fn a_rotten_key_file_costs_its_destination_only() {
    let pki = Pki::new();
    let store = KeyFiles::new(&pki);
    let origin = Origin::plain();
    let whole = store.read("whole.p12");
    let long = [0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0];
    let rotten_key = {
        let der = value(0x30, &[&algorithm(&long), &[0x04, 0x01, 0x00]]);
        let text = data_encoding::BASE64.encode(&der);
        format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{text}\n-----END ENCRYPTED PRIVATE KEY-----\n")
    };
    store.write("key.pem", rotten_key.as_bytes());
    store.write("cut.p12", &whole[..whole.len() / 2]);
    store.write("long.p12", &too_long(&long));
    store.write("large.p12", &too_long(&[0x84, 0xff, 0xff, 0xff, 0xff]));
    let pipe = store.path("pipe.p12");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());

    let cert = pki.issue("other", CertificateParams::default()).cert_path;
    let mut certificates = ["cut", "long", "large", "pipe"]
        .map(|name| {
            let path = store.path(&format!("{name}.p12"));
            (
                name,
                format!(
                    "{{ pkcs12: \"file:{}\", password: env:PASSWORD }}",
                    path.display()
                ),
            )
        })
        .to_vec();
    let key = store.path("key.pem");
    certificates.push((
        "key",
        format!(
            "{{ cert: \"file:{}\", key: \"file:{}\", passphrase: env:PASSWORD }}",
            cert.display(),
            key.display()
        ),
    ));
    let mut yaml = format!(
        "destinations:\n  good: {{ hosts: [\"{}\"], upgrade: false }}\n",
        origin.authority()
    );
    for (name, certificate) in &certificates {
        yaml.push_str(&format!(
            "  {name}: {{ hosts: [{name}.test], tls: {{ client_certificate: {certificate} }} }}\n"
        ));
    }
    let mut proxy = Proxy::start_with(&yaml, &[("PASSWORD", "canary-2f6b")]);
    assert_eq!(proxy.get(&origin.url("/")).status, 200);
    for (name, _) in &certificates {
        let answer = proxy.get(&format!("http://{name}.test/"));
        assert_eq!(answer.status, 502, "{name}: {}", answer.text());
    }
    assert_eq!(proxy.page("/metrics").status, 200);
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    proxy.signal(Signal::TERM);
    assert!(proxy.exit().success());
}

#[test]
fn a_rotten_store_that_is_rotated_in_keeps_nothing_from_working() {
    let pki = Pki::new();
    let store = KeyFiles::new(&pki);
    let origin = Origin::plain();
    let whole = store.read("whole.p12");
    let path = store.write("own.p12", &whole);
    let yaml = format!(
        "destinations:\n  good: {{ hosts: [\"{}\"], upgrade: false }}\n  sick: {{ hosts: [sick.test], tls: {{ \
         client_certificate: {{ pkcs12: \"file:{}\", password: env:PASSWORD }} }} }}\n",
        origin.authority(),
        path.display()
    );
    let mut proxy = Proxy::start_with(&yaml, &[("PASSWORD", "canary-2f6b")]);
    let rotten = [
        too_long(&[0x88, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xf0]),
        store.slow(),
    ];
    for (told, (rotten, mended)) in rotten.iter().zip([store.read("other.p12"), whole]).enumerate() {
        replace(&path, rotten);
        let mut longest = Duration::ZERO;
        eventually("the new secret is refused", || {
            let start = Instant::now();
            assert_eq!(proxy.page("/metrics").status, 200);
            longest = longest.max(start.elapsed());
            proxy.log().matches("changed secrets cannot be used").count() > told
        });
        // What takes seconds is not done where the operator's door is served.
        assert!(longest < Duration::from_secs(1), "{longest:?}");
        assert_eq!(proxy.get(&origin.url("/")).status, 200);
        replace(&path, &mended);
        eventually("the mended one is in use", || {
            proxy.log().matches("secrets rotated").count() > told
        });
    }
    // While such a one is being opened.
    replace(&path, &store.slow());
    proxy.signal(Signal::TERM);
    assert!(proxy.exit().success());
}
