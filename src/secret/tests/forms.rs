//! One certificate, one key and one list in every form in which somebody may have written them.

use super::locked::{KINDS, OpenSsl, PASSWORD, password};
use super::*;

/// How a text, or what is in it, may have been wrapped.
fn wrapped(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let base64 = data_encoding::BASE64.encode(bytes);
    let mime = data_encoding::BASE64_MIME.encode(bytes);
    let mut forms = vec![
        ("as it is", bytes.to_vec()),
        ("base64", base64.clone().into_bytes()),
        ("base64 in lines", mime.clone().into_bytes()),
        (
            "base64 in lines that were escaped",
            mime.trim().replace("\r\n", "\\n").into_bytes(),
        ),
        (
            "base64url",
            data_encoding::BASE64URL_NOPAD.encode(bytes).into_bytes(),
        ),
        (
            "base64 twice",
            data_encoding::BASE64.encode(base64.as_bytes()).into_bytes(),
        ),
    ];
    let texts = match std::str::from_utf8(bytes) {
        Ok(text) => {
            forms.push(("escaped", text.replace('\n', "\\n").into_bytes()));
            forms.push(("CRLF", text.replace('\n', "\r\n").into_bytes()));
            forms.push((
                "text around",
                format!("before - -----\n{text}after\n").into_bytes(),
            ));
            vec![text.to_owned(), base64, mime]
        }
        Err(_) => vec![base64, mime],
    };
    for text in texts {
        let wide = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<u8>>();
        let (little, big) = (wide(u16::to_le_bytes), wide(u16::to_be_bytes));
        forms.push(("UTF-8 with a mark", [b"\xef\xbb\xbf", text.as_bytes()].concat()));
        forms.push(("UTF-16LE with a mark", [b"\xff\xfe", &little[..]].concat()));
        forms.push(("UTF-16BE with a mark", [b"\xfe\xff", &big[..]].concat()));
        let in_base64 = data_encoding::BASE64.encode(&[b"\xff\xfe", &little[..]].concat());
        forms.push(("base64 of UTF-16", in_base64.into_bytes()));
        forms.push(("UTF-16LE", little));
        forms.push(("UTF-16BE", big));
    }
    forms
}

/// As [`Snapshot::read_binary`] has it.
fn whole(bytes: &[u8]) -> Secret {
    Secret::whole(Zeroizing::new(bytes.to_vec()))
}

fn run(openssl: &OpenSsl, arguments: &str) {
    openssl.run(&arguments.split(' ').collect::<Vec<_>>());
}

#[test]
fn a_certificate_is_read_in_every_form() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    let pem = openssl.read("cert.pem");
    let text = std::str::from_utf8(pem.expose()).unwrap().to_owned();
    let wanted = pem::certificates(&pem).unwrap();
    for arguments in [
        "x509 -in cert.pem -outform DER -out cert.der",
        "x509 -in cert.pem -trustout -addtrust clientAuth -setalias ours -out trusted.pem",
        "crl2pkcs7 -nocrl -certfile cert.pem -out bundle.pem",
        "crl2pkcs7 -nocrl -certfile cert.pem -outform DER -out bundle.p7b",
        "cms -sign -signer cert.pem -inkey key.pem -nodetach -binary -in cert.pem -outform PEM -out signed.pem",
        // The same in BER, whose lengths are not told.
        "cms -sign -signer cert.pem -inkey key.pem -nodetach -binary -stream -in cert.pem -outform DER -out signed.der",
    ] {
        run(&openssl, arguments);
    }
    fs::write(
        openssl.path().join("x509.pem"),
        text.replace("CERTIFICATE", "X509 CERTIFICATE"),
    )
    .unwrap();
    let bundle = String::from_utf8(openssl.read("bundle.pem").expose().to_vec()).unwrap();
    for (name, label) in [
        ("iis.pem", "CERTIFICATE"),
        ("cms.pem", "CMS"),
        ("older.pem", "PKCS #7 SIGNED DATA"),
    ] {
        fs::write(openssl.path().join(name), bundle.replace("PKCS7", label)).unwrap();
    }
    for name in [
        "cert.pem",
        "x509.pem",
        "trusted.pem",
        "bundle.pem",
        "iis.pem",
        "cms.pem",
        "older.pem",
        "cert.der",
        "bundle.p7b",
        "signed.pem",
        "signed.der",
    ] {
        for (form, bytes) in wrapped(openssl.read(name).expose()) {
            let found = pem::certificates(&whole(&bytes));
            assert_eq!(found.as_ref(), Ok(&wanted), "{name}, {form}");
        }
    }
    let der = openssl.read("cert.der");
    let twice = pem::certificates(&whole(&[der.expose(), b"\n", der.expose()].concat())).unwrap();
    assert_eq!(twice, [wanted.clone(), wanted].concat());
}

#[test]
fn a_key_is_read_in_every_form() {
    for kind in KINDS {
        let openssl = OpenSsl::with_pair(kind);
        let (pkcs8, certificate) = (openssl.read("key.pem"), openssl.read("cert.pem"));
        let both = [certificate.expose(), pkcs8.expose(), certificate.expose()].concat();
        fs::write(openssl.path().join("both.pem"), both).unwrap();
        run(
            &openssl,
            "pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key.der",
        );
        // There is no older form of Ed25519.
        let older = if kind == KINDS[4] { "" } else { " -traditional" };
        run(&openssl, &format!("pkey -in key.pem{older} -out older.pem"));
        run(
            &openssl,
            &format!("pkey -in key.pem{older} -outform DER -out older.der"),
        );
        run(
            &openssl,
            "pkey -in key.pem -aes256 -passout env:PASSWORD -out locked.pem",
        );
        run(
            &openssl,
            "pkcs8 -topk8 -in key.pem -passout env:PASSWORD -outform DER -out locked.der",
        );
        let pkcs8 = pem::private_key(&pkcs8).unwrap();
        let older = pem::private_key(&openssl.read("older.pem")).unwrap();
        for (name, wanted) in [
            ("key.pem", &pkcs8),
            ("both.pem", &pkcs8),
            ("key.der", &pkcs8),
            ("older.pem", &older),
            ("older.der", &older),
            ("locked.pem", &pkcs8),
            ("locked.der", &pkcs8),
        ] {
            for (form, bytes) in wrapped(openssl.read(name).expose()) {
                let secret = whole(&bytes);
                let found = pem::unlocked_key(&secret, Some(&password()));
                assert_eq!(found.as_ref(), Ok(wanted), "{kind:?}, {name}, {form}");
                if !name.starts_with("locked") {
                    assert_eq!(
                        pem::private_key(&secret).as_ref(),
                        Ok(wanted),
                        "{kind:?}, {name}, {form}"
                    );
                }
            }
        }
        // Some tools mix the labels up.
        let text = String::from_utf8(openssl.read("key.pem").expose().to_vec()).unwrap();
        for label in ["RSA PRIVATE KEY", "EC PRIVATE KEY", "ANY PRIVATE KEY"] {
            let mixed = text.replace("PRIVATE KEY", label);
            assert_eq!(
                pem::private_key(&secret(&mixed)).as_ref(),
                Ok(&pkcs8),
                "{kind:?}, {label}"
            );
        }
    }
}

/// The oldest encryption of OpenSSL, whose headers a variable may have folded.
#[test]
fn a_key_of_the_oldest_encryption_is_opened() {
    for (kind, older) in [(KINDS[0], "rsa"), (KINDS[1], "ec")] {
        let openssl = OpenSsl::with_pair(kind);
        run(&openssl, "pkey -in key.pem -traditional -out plain.pem");
        let wanted = pem::private_key(&openssl.read("plain.pem")).unwrap();
        for cipher in [
            "aes128",
            "aes192",
            "aes256",
            "des3",
            "camellia128",
            "camellia192",
            "camellia256",
        ] {
            let traditional = if older == "rsa" { " -traditional" } else { "" };
            run(
                &openssl,
                &format!("{older} -in key.pem{traditional} -{cipher} -passout env:PASSWORD -out old.pem"),
            );
            let locked = openssl.read("old.pem");
            for (form, bytes) in wrapped(locked.expose()) {
                let locked = whole(&bytes);
                let found = pem::unlocked_key(&locked, Some(&password()));
                assert_eq!(found.as_ref(), Ok(&wanted), "{older} {cipher}, {form}");
                let wrong = pem::unlocked_key(&locked, Some(&secret("another")));
                assert_eq!(
                    wrong,
                    Err(pem::Error::WrongPassphrase),
                    "{older} {cipher}, {form}"
                );
            }
            assert!(matches!(
                pem::unlocked_key(&locked, None),
                Err(pem::Error::MissingPassphrase { .. })
            ));
            assert!(matches!(
                pem::private_key(&locked),
                Err(pem::Error::Encrypted { .. })
            ));
        }
        let text = String::from_utf8(openssl.read("old.pem").expose().to_vec()).unwrap();
        let des = text.replace("CAMELLIA-256-CBC", &format!("{PASSWORD}DES-CBC"));
        let told = pem::unlocked_key(&secret(&des), Some(&password()))
            .unwrap_err()
            .to_string();
        assert!(told.contains("damaged"), "{told}");
        let des = text.replace("CAMELLIA-256-CBC", "DES-CBC");
        let told = pem::unlocked_key(&secret(&des), Some(&password()))
            .unwrap_err()
            .to_string();
        assert!(told.contains("encrypted with DES-CBC"), "{told}");
    }
}

#[test]
fn what_is_nothing_of_the_kind_stays_nothing() {
    let openssl = OpenSsl::with_pair(KINDS[1]);
    run(&openssl, "pkey -in key.pem -pubout -out public.pem");
    run(&openssl, "req -new -key key.pem -subj /CN=app -out request.pem");
    for name in ["public.pem", "request.pem"] {
        for (form, bytes) in wrapped(openssl.read(name).expose()) {
            let secret = whole(&bytes);
            assert!(
                matches!(pem::certificates(&secret), Err(pem::Error::NoCertificate { .. })),
                "{name}, {form}"
            );
            assert!(
                matches!(pem::private_key(&secret), Err(pem::Error::NoKey { .. })),
                "{name}, {form}"
            );
            assert!(
                matches!(pem::revocation_lists(&secret), Err(pem::Error::NoList { .. })),
                "{name}, {form}"
            );
        }
    }
    let deep = (0..20).fold(b"-----BEGIN ".to_vec(), |text, _| {
        data_encoding::BASE64.encode(&text).into_bytes()
    });
    assert!(pem::certificates(&whole(&deep)).is_err());
}
