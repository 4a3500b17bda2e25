//! Keys and certificates under a password, as OpenSSL writes them in all its forms.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use yasna::models::ObjectIdentifier;
use yasna::{BERReader, DERWriter, Tag};

use super::*;

pub(super) const PASSWORD: &str = "canary-7f3a påsswørd €";

/// Every kind of key that can sign a handshake.
pub(super) const KINDS: [&[&str]; 5] = [
    &["-algorithm", "RSA"],
    &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
    &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
    &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"],
    &["-algorithm", "ED25519"],
];

/// What `-legacy` stands for in commands that do not know the option.
const OLD: [&str; 4] = ["-provider", "legacy", "-provider", "default"];

/// OpenSSL in a temporary folder; the passwords come from the environment.
pub(super) struct OpenSsl(TempDir);

impl OpenSsl {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// A folder with `key.pem` and its `cert.pem`.
    pub(super) fn with_pair(kind: &[&str]) -> Self {
        let openssl = Self::new();
        openssl.run(&[&["genpkey", "-out", "key.pem"], kind].concat());
        openssl.run(&[
            "req", "-x509", "-key", "key.pem", "-subj", "/CN=app", "-out", "cert.pem",
        ]);
        openssl
    }

    #[track_caller]
    pub(super) fn run(&self, arguments: &[&str]) {
        let output = (Command::new("openssl").args(arguments))
            .current_dir(self.0.path())
            .env("PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {told}");
    }

    /// `cert.pem` and `key.pem` as `pair.p12`.
    #[track_caller]
    pub(super) fn export(&self, options: &[&str]) -> Secret {
        let export = [
            "pkcs12", "-export", "-in", "cert.pem", "-inkey", "key.pem", "-out", "pair.p12",
        ];
        self.run(&[&export, options].concat());
        self.read("pair.p12")
    }

    pub(super) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(super) fn read(&self, name: &str) -> Secret {
        Secret::whole(Zeroizing::new(fs::read(self.path().join(name)).unwrap()))
    }

    /// The pair as it is in the clear.
    fn pair(&self) -> (PrivateKeyDer<'static>, CertificateDer<'static>) {
        let certificate = pem::certificates(&self.read("cert.pem")).unwrap().remove(0);
        (pem::private_key(&self.read("key.pem")).unwrap(), certificate)
    }
}

pub(super) fn password() -> Secret {
    secret(PASSWORD)
}

/// Display and Debug; neither may show what is secret.
fn words(error: &(impl fmt::Display + fmt::Debug)) -> String {
    let told = format!("{error} {error:?}");
    assert!(!told.contains(CANARY), "{told}");
    told
}

#[test]
fn encrypted_keys_of_every_kind_open_in_every_form() {
    for kind in KINDS {
        let openssl = OpenSsl::with_pair(kind);
        let (wanted, _) = openssl.pair();
        for form in [
            &["-v2", "aes-256-cbc"][..],
            &["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"],
            &["-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA384"],
            &[
                "-v2",
                "aes-256-cbc",
                "-v2prf",
                "hmacWithSHA512",
                "-iter",
                "100000",
            ],
            &["-v2", "des3", "-v2prf", "hmacWithSHA256"],
            &["-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA224"],
            &["-v2", "camellia-128-cbc", "-v2prf", "hmacWithSHA512-256"],
            &["-v2", "camellia-192-cbc"],
            &["-v2", "camellia-256-cbc"],
            &["-scrypt"],
            &[
                "-scrypt",
                "-scrypt_N",
                "1024",
                "-scrypt_r",
                "16",
                "-scrypt_p",
                "3",
            ],
            &["-v1", "PBE-SHA1-3DES"],
            &["-v1", "PBE-SHA1-2DES"],
            &["-v1", "PBE-SHA1-RC2-40"],
            &["-v1", "PBE-SHA1-RC2-128"],
        ] {
            let command = [
                &[
                    "pkcs8",
                    "-topk8",
                    "-in",
                    "key.pem",
                    "-out",
                    "locked.pem",
                    "-passout",
                    "env:PASSWORD",
                ],
                form,
                &OLD,
            ];
            openssl.run(&command.concat());
            let locked = openssl.read("locked.pem");
            let key = pem::unlocked_key(&locked, Some(&password()));
            assert_eq!(key.unwrap(), wanted, "{kind:?} {form:?}");
            let wrong = pem::unlocked_key(&locked, Some(&secret("another"))).unwrap_err();
            assert_eq!(wrong, pem::Error::WrongPassphrase, "{kind:?} {form:?}");
        }
    }
}

#[test]
fn an_encrypted_key_is_read_as_people_have_it() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    let (wanted, _) = openssl.pair();
    openssl.run(&[
        "pkcs8",
        "-topk8",
        "-in",
        "key.pem",
        "-out",
        "locked.pem",
        "-passout",
        "env:PASSWORD",
    ]);
    let text = |name| String::from_utf8(openssl.read(name).expose().to_vec()).unwrap();
    let (locked, certificate, plain) = (text("locked.pem"), text("cert.pem"), text("key.pem"));
    for (form, text) in [
        ("escaped", locked.replace('\n', "\\n")),
        ("CRLF", locked.replace('\n', "\r\n")),
        ("folded into one line", locked.replace('\n', " ")),
        ("behind its certificate", format!("{certificate}{locked}")),
        // Somebody took the encryption off and left the passphrase where it was.
        ("plain", plain.clone()),
    ] {
        let key = pem::unlocked_key(&secret(&text), Some(&password()));
        assert_eq!(key.unwrap(), wanted, "{form}");
    }
    assert_eq!(pem::unlocked_key(&secret(&plain), None).unwrap(), wanted);
}

#[test]
fn an_encrypted_key_that_stays_locked_says_why() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    for (name, form) in [
        ("locked.pem", &["-v2", "aes-256-cbc"][..]),
        (
            "scrypt.pem",
            &["-scrypt", "-scrypt_N", "16384", "-scrypt_p", "100"],
        ),
        ("md5.pem", &["-v1", "PBE-MD5-DES"]),
    ] {
        let command = [
            "pkcs8",
            "-topk8",
            "-in",
            "key.pem",
            "-out",
            name,
            "-passout",
            "env:PASSWORD",
        ];
        openssl.run(&[&command, form, &OLD].concat());
    }
    let text = |name| String::from_utf8(openssl.read(name).expose().to_vec()).unwrap();
    let locked = text("locked.pem");
    let plain = text("key.pem");
    let (cut, shortened) = (&locked[..120], locked.replacen('M', "", 1));
    for (case, text, has_passphrase, wanted) in [
        (
            "no passphrase",
            locked.clone(),
            false,
            "there is no passphrase; name it under `passphrase`",
        ),
        (
            "scrypt",
            text("scrypt.pem"),
            true,
            "encrypted with scrypt (N=16384, r=8, p=100) of more work or memory than is spent here",
        ),
        (
            "MD5",
            text("md5.pem"),
            true,
            "encrypted with PBE-MD5-DES, which is not understood; \
             `openssl pkey -provider legacy -provider default -in FILE -aes256 -out NEW.pem`",
        ),
        (
            "MD5, no passphrase",
            text("md5.pem"),
            false,
            "`openssl pkey -provider legacy -provider default -in FILE -out NEW.pem`",
        ),
        ("cut short", cut.to_owned(), true, "damaged"),
        ("a letter lost", shortened, true, "damaged"),
        ("two locked", format!("{locked}{locked}"), true, "2 private keys"),
        (
            "one locked, one not",
            format!("{locked}{plain}"),
            true,
            "2 private keys",
        ),
        ("no key", text("cert.pem"), true, "blocks found: CERTIFICATE"),
    ] {
        let passphrase = has_passphrase.then(password);
        let told = words(&pem::unlocked_key(&secret(&text), passphrase.as_ref()).unwrap_err());
        assert!(told.contains(wanted), "{case}: {told}");
    }
}

#[test]
fn pkcs12_of_every_kind_opens_in_every_form() {
    for kind in KINDS {
        let openssl = OpenSsl::with_pair(kind);
        let (key, certificate) = openssl.pair();
        let password_of = ["-passout", "env:PASSWORD"];
        for form in [
            // OpenSSL 3, 1.1, and what Java and Windows write.
            &[][..],
            &["-legacy"],
            &[
                "-legacy",
                "-certpbe",
                "PBE-SHA1-RC2-128",
                "-keypbe",
                "PBE-SHA1-2DES",
            ],
            &[
                "-certpbe",
                "PBE-SHA1-3DES",
                "-keypbe",
                "PBE-SHA1-3DES",
                "-macalg",
                "sha1",
            ],
            &[
                "-certpbe",
                "aes-128-cbc",
                "-keypbe",
                "aes-192-cbc",
                "-macalg",
                "sha512",
                "-iter",
                "10000",
            ],
            &["-certpbe", "NONE", "-keypbe", "NONE", "-macalg", "sha384"],
            &["-nomac", "-name", "a friendly name"],
            &["-macalg", "sha224", "-certpbe", "camellia-128-cbc"],
            &["-macalg", "SHA512-256", "-keypbe", "camellia-256-cbc"],
        ] {
            let file = openssl.export(&[&password_of, form].concat());
            let base64 = data_encoding::BASE64_MIME.encode(file.expose());
            let escaped = base64.trim().replace("\r\n", "\\n");
            let armoured = format!("a line before\n-----BEGIN PKCS12-----\n{base64}-----END PKCS12-----\n");
            for written in [&file, &secret(&base64), &secret(&escaped), &secret(&armoured)] {
                let pkcs12::Bundle {
                    certificates,
                    key: own,
                } = pkcs12::open(written, Some(&password())).unwrap();
                assert_eq!(own, key, "{kind:?} {form:?}");
                assert_eq!(
                    certificates,
                    std::slice::from_ref(&certificate),
                    "{kind:?} {form:?}"
                );
            }
        }
    }
}

#[test]
fn pkcs12_without_a_password_needs_none() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    let (key, _) = openssl.pair();
    for form in [
        &["-passout", "pass:"][..],
        &["-passout", "pass:", "-legacy"],
        &["-passout", "pass:", "-nomac"],
    ] {
        let file = openssl.export(form);
        assert_eq!(pkcs12::open(&file, None).unwrap().key, key, "{form:?}");
    }
}

#[test]
fn pkcs12_brings_its_chain() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    let file = openssl.export(&["-passout", "env:PASSWORD", "-certfile", "cert.pem"]);
    assert_eq!(
        pkcs12::open(&file, Some(&password())).unwrap().certificates.len(),
        2
    );
}

#[test]
fn pkcs12_that_does_not_do_says_what_would() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    let with_password = ["-passout", "env:PASSWORD"];
    let whole = openssl.export(&with_password);
    let unproven = openssl.export(&[&with_password[..], &["-nomac"]].concat());
    let no_key = openssl.export(&[&with_password[..], &["-nokeys"]].concat());
    openssl.run(&[
        "pkcs12",
        "-export",
        "-nocerts",
        "-inkey",
        "key.pem",
        "-out",
        "k.p12",
        "-passout",
        "env:PASSWORD",
    ]);
    let no_certificate = openssl.read("k.p12");
    let rc4 = openssl.export(&[&with_password[..], &["-legacy", "-certpbe", "PBE-SHA1-RC4-128"]].concat());
    let cut = Secret::whole(Zeroizing::new(
        whole.expose()[..whole.expose().len() - 9].to_vec(),
    ));
    let pem = openssl.read("cert.pem");
    let right = || Some(password());
    for (case, file, password, wanted) in [
        (
            "wrong",
            &whole,
            Some(secret("another")),
            "wrong password for the PKCS#12 file",
        ),
        (
            "wrong, no MAC",
            &unproven,
            Some(secret("another")),
            "wrong password for the PKCS#12 file",
        ),
        ("none", &whole, None, "has a password; name it under `password`"),
        (
            "none, no MAC",
            &unproven,
            None,
            "has a password; name it under `password`",
        ),
        ("no key", &no_key, right(), "no private key in the PKCS#12"),
        (
            "no certificate",
            &no_certificate,
            right(),
            "no certificate in the PKCS#12",
        ),
        (
            "RC4",
            &rc4,
            right(),
            "protected by PBE-SHA1-RC4-128, which is not understood; `openssl pkcs12 -legacy -in FILE -out NEW.pem`",
        ),
        ("cut short", &cut, right(), "damaged or cut short"),
        ("PEM", &pem, right(), "neither PKCS#12 nor base64 of it"),
        (
            "text",
            &secret("nonsense"),
            right(),
            "neither PKCS#12 nor base64 of it",
        ),
    ] {
        let told = pkcs12::open(file, password.as_ref())
            .err()
            .map(|error| words(&error));
        assert!(
            told.as_ref().is_some_and(|told| told.contains(wanted)),
            "{case}: {told:?}"
        );
    }
}

/// As `openssl pkcs12 -twopass` writes it, and gpgsm 2.2.40 by mistake, for some salts.
#[test]
fn a_password_that_fits_the_mac_only_is_not_called_wrong() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    let script = "printf 'mac-password\nmac-password\nother-one\nother-one\n' | \
                  setsid --wait openssl pkcs12 -export -twopass -inkey key.pem -in cert.pem -out two.p12";
    let mut command = Command::new("sh");
    let output = command
        .args(["-c", script])
        .current_dir(openssl.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let file = openssl.read("two.p12");
    for (password, wanted) in [
        ("mac-password", pkcs12::Error::OtherPassword),
        ("other-one", pkcs12::Error::WrongPassword),
    ] {
        let told = pkcs12::open(&file, Some(&secret(password))).err();
        assert_eq!(told, Some(wanted), "{password}");
    }
}

/// PBMAC1 (RFC 9579), which this OpenSSL does not write yet: put together by hand, computed by it.
#[test]
fn the_newest_proof_is_checked_too() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    let (key, _) = openssl.pair();
    let unproven = openssl.export(&["-passout", "env:PASSWORD", "-nomac"]);
    let content = yasna::parse_der(unproven.expose(), |reader| {
        reader.read_sequence(|parts| {
            parts.next().read_u8()?;
            parts.next().read_sequence(|parts| {
                parts.next().read_oid()?;
                let content = |reader: BERReader<'_, '_>| reader.read_bytes();
                parts.next().read_tagged(Tag::context(0), content)
            })
        })
    });
    let content = content.unwrap();
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let derived = format!("hexpass:{}", hex(PASSWORD.as_bytes()));
    let options = ["-keylen", "32", "-kdfopt", "digest:SHA512", "-kdfopt", &derived];
    let more = [
        "-kdfopt",
        "hexsalt:0102030405060708",
        "-kdfopt",
        "iter:999",
        "-binary",
        "-out",
        "mac.key",
        "PBKDF2",
    ];
    openssl.run(&[&["kdf"], &options[..], &more].concat());
    fs::write(openssl.path().join("content"), &content).unwrap();
    let mac_key = format!("hexkey:{}", hex(openssl.read("mac.key").expose()));
    let command = [
        "mac", "-digest", "SHA256", "-macopt", &mac_key, "-in", "content", "-binary", "-out", "mac", "HMAC",
    ];
    openssl.run(&command);
    let mac = openssl.read("mac");

    let oid = |text: &str| {
        ObjectIdentifier::from_slice(&text.split('.').map(|n| n.parse().unwrap()).collect::<Vec<_>>())
    };
    let algorithm = |writer: DERWriter<'_>, name: &str, parameters: &dyn Fn(DERWriter<'_>)| {
        writer.write_sequence(|parts| {
            parts.next().write_oid(&oid(name));
            parameters(parts.next());
        });
    };
    let file = yasna::construct_der(|writer| {
        writer.write_sequence(|parts| {
            parts.next().write_u8(3);
            parts.next().write_sequence(|parts| {
                parts.next().write_oid(&oid("1.2.840.113549.1.7.1"));
                parts
                    .next()
                    .write_tagged(Tag::context(0), |writer| writer.write_bytes(&content));
            });
            parts.next().write_sequence(|parts| {
                parts.next().write_sequence(|parts| {
                    algorithm(parts.next(), "1.2.840.113549.1.5.14", &|writer| {
                        writer.write_sequence(|parts| {
                            algorithm(parts.next(), "1.2.840.113549.1.5.12", &|writer| {
                                writer.write_sequence(|parts| {
                                    parts.next().write_bytes(&[1, 2, 3, 4, 5, 6, 7, 8]);
                                    parts.next().write_u32(999);
                                    parts.next().write_u32(32);
                                    algorithm(parts.next(), "1.2.840.113549.2.11", &|writer| {
                                        writer.write_null()
                                    });
                                });
                            });
                            algorithm(parts.next(), "1.2.840.113549.2.9", &|writer| writer.write_null());
                        });
                    });
                    parts.next().write_bytes(mac.expose());
                });
                // Without meaning here, but they have to be there.
                parts.next().write_bytes(b"NOT USED");
                parts.next().write_u32(1);
            });
        });
    });
    let file = Secret::whole(Zeroizing::new(file));
    assert_eq!(pkcs12::open(&file, Some(&password())).unwrap().key, key);
    let wrong = pkcs12::open(&file, Some(&secret("another"))).err();
    assert_eq!(wrong, Some(pkcs12::Error::WrongPassword));
}

#[test]
fn a_line_end_at_the_end_of_a_binary_file_is_its_own() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("pair.p12");
    fs::write(&path, b"0\x03\x02\x01\x0a").unwrap();
    let reference = SecretRef::File(path.clone());
    let read = || Snapshot::of_process().read_binary(&reference);
    assert_eq!(read().unwrap().expose(), b"0\x03\x02\x01\x0a");
    fs::write(&path, b" \n").unwrap();
    assert!(matches!(read(), Err(Error::Empty { .. })));
}
