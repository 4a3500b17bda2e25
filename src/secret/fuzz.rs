//! Files of keys, and bound services, as [`crate::fuzz`] reads them.

use zeroize::Zeroizing;

use super::{Secret, pem, pkcs12, services};
use crate::config::SecretRef;

/// Opens a PKCS#12 file, and returns whether that worked.
pub(crate) fn store(file: &[u8], password: Option<&[u8]>) -> bool {
    let password = password.map(secret);
    pkcs12::opened(&secret(file), password.as_ref()).is_ok()
}

/// Reads everything that may be in a file of certificates and keys. Returns whether there is a key.
pub(crate) fn pem(file: &[u8], passphrase: &[u8]) -> bool {
    let file = secret(file);
    let certificates = pem::certificates(&file);
    assert!(certificates.is_ok_and(|found| !found.is_empty()) || pem::certificates(&file).is_err());
    let lists = pem::revocation_lists(&file);
    assert!(lists.is_ok_and(|found| !found.is_empty()) || pem::revocation_lists(&file).is_err());
    let plain = pem::private_key(&file);
    let unlocked = pem::unlocked_key(&file, Some(&secret(passphrase)));
    if let Ok(plain) = plain {
        let unlocked = unlocked.as_ref().expect("a plain key needs no passphrase");
        assert_eq!(plain.secret_der(), unlocked.secret_der());
    }
    unlocked.is_ok()
}

/// Looks a key up in a document of bound services, and returns whether it is found.
pub(crate) fn services(document: &[u8], service: &str, keys: &[String]) -> bool {
    let reference = SecretRef::Vcap {
        service: service.to_owned(),
        keys: keys.to_vec(),
    };
    match services::read_document(document, "VCAP_SERVICES", service, keys, &reference) {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            false
        }
    }
}

fn secret(bytes: &[u8]) -> Secret {
    Secret::whole(Zeroizing::new(bytes.to_vec()))
}
