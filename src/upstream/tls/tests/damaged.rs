//! Client certificates with damage in any place.

use super::*;
use crate::secret::tests::damaged::broken_at;

/// A certificate that is broken in any place is used or refused; it never ends the program.
#[test]
fn broken_certificates_never_panic() {
    let authority = Pair::authority("Agency CA", None);
    let algorithm = &rcgen::PKCS_ECDSA_P256_SHA256;
    let app = Pair::new("app", Some(&authority), algorithm, |params| {
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
    });
    let pem = app.pem();
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = data_encoding::BASE64.decode(text.as_bytes()).unwrap();
    let (ca, key) = (authority.pem(), app.key_pem());
    for position in 0..der.len() {
        for der in broken_at(&der, position) {
            let text = data_encoding::BASE64.encode(&der);
            let pem = format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
            let variables = [("CA", &*ca), ("CERT", &*pem), ("KEY", &*key)];
            if let Ok(settings) = settings(&with_certificate(), &variables) {
                let warnings = settings.warnings(SystemTime::now());
                drop(warnings.iter().map(ToString::to_string).collect::<Vec<_>>());
            }
            drop(settings(
                &with_certificate(),
                &[("CA", &*pem), ("CERT", &*ca), ("KEY", &*key)],
            ));
        }
    }
}
