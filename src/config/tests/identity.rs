use super::*;

#[test]
fn a_client_certificate_is_named_in_three_ways() {
    let env = |name: &str| SecretRef::Env(name.to_owned());
    let pem = |passphrase| ClientCertificate::Pem {
        cert: env("C"),
        key: env("K"),
        passphrase,
    };
    let pkcs12 = |password| ClientCertificate::Pkcs12 {
        file: env("F"),
        password,
    };
    for (text, wanted, shown) in [
        ("{ cert: env:C, key: env:K }", pem(None), "env:C with key env:K"),
        (
            "{ cert: env:C, key: env:K, passphrase: env:P }",
            pem(Some(env("P"))),
            "env:C with key env:K, opened by env:P",
        ),
        ("{ pkcs12: env:F }", pkcs12(None), "env:F"),
        (
            "{ pkcs12: env:F, password: env:P }",
            pkcs12(Some(env("P"))),
            "env:F, opened by env:P",
        ),
        (
            "instance_identity",
            ClientCertificate::InstanceIdentity,
            "the instance identity (CF_INSTANCE_CERT with key CF_INSTANCE_KEY)",
        ),
    ] {
        let text =
            format!("destinations: {{ d: {{ hosts: [d.test], tls: {{ client_certificate: {text} }} }} }}");
        let mut config = parse(&text).unwrap();
        let found = config
            .destinations
            .remove(0)
            .tls
            .clone()
            .unwrap()
            .client_certificate
            .clone();
        assert_eq!(found.as_ref(), Some(&wanted), "{text}");
        assert_eq!(wanted.to_string(), shown);
    }
}
