use super::destination;
use crate::config::{Pin, SecretRef};

#[test]
fn pins_and_lists_are_read_in_every_form() {
    for (keys, lists) in [
        ("crl: null", 0),
        ("crl: env:CRL", 1),
        ("pins: null", 0),
        ("pins: []", 0),
    ] {
        let tls = destination(&format!("tls: {{ {keys} }}")).tls.unwrap();
        assert_eq!((tls.crl.len(), tls.pins.len()), (lists, 0), "{keys}");
    }
    // With one slash as everywhere, with two as curl has it.
    for scheme in ["sha256/", "sha256//"] {
        let keys = format!("tls: {{ pins: [{scheme}//////////////////////////////////////////8=] }}");
        assert_eq!(destination(&keys).tls.unwrap().pins, [Pin([0xff; 32])], "{keys}");
    }

    let tls = destination("tls: { crl: [file:certs/partner.crl, env:CRL] }")
        .tls
        .unwrap();
    let file = SecretRef::File("certs/partner.crl".into());
    assert_eq!(tls.crl, [file, SecretRef::Env("CRL".to_owned())]);
}
