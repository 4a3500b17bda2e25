//! One outrider for a space: apps are known by their instance identities, and all certificates rotate under it.

use std::path::Path;

use rcgen::KeyPair;

use crate::support::platform::{Instance, Platform, curl_as};
use crate::support::programs::python;
use crate::support::{Origin, Proxy, TOKEN, eventually, run};

fn of(instance: &Instance) -> Option<(&Path, &Path)> {
    Some((&instance.cert, &instance.key))
}

fn url(origin: &Origin, host: &str) -> String {
    format!("http://{host}:{}/", origin.port())
}

/// Two destinations, `weather` and `billing`, at one origin.
fn destinations(origin: &Origin) -> String {
    format!(
        "destinations:\n  weather: {{ hosts: [\"partner.test:{0}\"] }}\n  billing: {{ hosts: [\"other.test:{0}\"] }}\n",
        origin.port()
    )
}

/// The gateway of a space, by app and space GUID, without a word about authorities: they are those of its instance identity.
#[test]
fn a_gateway_knows_the_apps_of_its_space() {
    let origin = Origin::plain();
    let platform = Platform::new();
    let gateway = platform.instance("gateway", "gateway", "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55");
    let proxy = Proxy::start_with(
        &format!(
            "clients:\n  reports: {{ app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c, destinations: [weather] }}\n  rest: {{ space_guid: 1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55 }}\n{}",
            destinations(&origin)
        ),
        &gateway.variables(),
    );
    let root = platform.root();
    let (weather, billing) = (url(&origin, "partner.test"), url(&origin, "other.test"));
    let code = |instance: &Instance, url: &str| {
        let told = curl_as(&proxy, &root, of(instance), &[], url);
        told.stdout.rsplit(' ').next().unwrap_or_default().to_owned()
    };
    let reports = platform.instance(
        "reports",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
    );
    let longer = platform.instance(
        "longer",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1cd",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
    );
    let elsewhere = platform.instance(
        "elsewhere",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1cd",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e551",
    );
    assert_eq!(
        (
            code(&reports, &weather).as_str(),
            code(&reports, &billing).as_str()
        ),
        ("200", "403")
    );
    assert_eq!(
        (code(&longer, &weather).as_str(), code(&longer, &billing).as_str()),
        ("200", "200")
    );
    assert_eq!(
        (
            code(&elsewhere, &weather).as_str(),
            code(&elsewhere, &billing).as_str()
        ),
        ("403", "403")
    );
    let forged = Platform::new().instance(
        "forged",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
    );
    assert_eq!(code(&forged, &weather), "000");
    let two = platform.instance_of(
        "two",
        &[
            "space:1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
            "app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
            "app:0b3f9a52-53c4-4f0e-8a6e-5d7c2e9f1a30",
        ],
    );
    // It is of no app, but of the space.
    assert_eq!(code(&two, &billing), "200");
    let expiry = [("destination", "none"), ("kind", "listener_certificate")];
    assert!(proxy.metric("outrider_credential_expiry_timestamp_seconds", &expiry) > 0.0);
}

/// K3: the gateway's own certificate and the authority change under it; and a client's, too.
#[test]
fn certificates_rotate_under_a_gateway() {
    let origin = Origin::plain();
    let mut platform = Platform::new();
    let gateway = platform.instance("gateway", "gateway", "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55");
    let proxy = Proxy::start_with(
        &format!(
            "clients: {{ rest: {{ space_guid: 1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55 }} }}\n{}",
            destinations(&origin)
        ),
        &gateway.variables(),
    );
    let weather = url(&origin, "partner.test");
    let root = platform.root();
    let client = platform.instance(
        "client",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
    );
    assert_eq!(
        curl_as(&proxy, &root, of(&client), &[], &weather)
            .succeeded()
            .stdout,
        "ok 200"
    );
    let old_client = platform.instance(
        "old",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
    );
    // The same root has made another authority for instances. Its clients are known before ours is renewed.
    platform.issuer = Platform::below(&platform.root);
    let client = platform.instance(
        "client",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
    );
    assert_eq!(
        curl_as(&proxy, &root, of(&client), &[], &weather)
            .succeeded()
            .stdout,
        "ok 200"
    );
    let _ = platform.instance("gateway", "gateway", "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55");
    eventually("the new certificate is taken over", || {
        proxy.log().contains("secrets of the listener's clients rotated")
    });
    for instance in [&client, &old_client] {
        assert_eq!(
            curl_as(&proxy, &root, of(instance), &[], &weather)
                .succeeded()
                .stdout,
            "ok 200"
        );
    }
    // Half a pair: the old one stays.
    let before = std::fs::read(&gateway.key).unwrap();
    std::fs::write(&gateway.key, KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert_eq!(
        curl_as(&proxy, &root, of(&client), &[], &weather)
            .succeeded()
            .stdout,
        "ok 200"
    );
    std::fs::write(&gateway.key, before).unwrap();
    assert_eq!(
        curl_as(&proxy, &root, of(&client), &[], &weather)
            .succeeded()
            .stdout,
        "ok 200"
    );
}

const HTTPX: &str = "import sys, ssl, httpx\n\
    url, proxy, ca, cert, key = sys.argv[1:]\n\
    context = ssl.create_default_context(cafile=ca); context.load_cert_chain(cert, key)\n\
    c = httpx.Client(proxy=httpx.Proxy(proxy, ssl_context=context), trust_env=False)\n\
    print(c.get(url).text)";

#[test]
fn httpx_shows_its_certificate() {
    let origin = Origin::plain();
    let platform = Platform::new();
    let gateway = platform.instance("gateway", "gateway", "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55");
    let proxy = Proxy::start_with(
        &format!(
            "clients: {{ app: {{ app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c }} }}\n{}",
            destinations(&origin)
        ),
        &gateway.variables(),
    );
    let app = platform.instance(
        "app",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
    );
    let at = format!("https://127.0.0.1:{}", proxy.address().port());
    let told = run(python(HTTPX)
        .args([&url(&origin, "partner.test"), &at, &platform.root()])
        .arg(&app.cert)
        .arg(&app.key));
    assert_eq!(told.succeeded().stdout.trim(), "ok");
}

/// The whole way: an app, its sidecar, the gateway of the space as the sidecar's parent, and the service. The token is the
/// gateway's; the sidecar has nothing but the identity of its instance, which is renewed under it.
#[test]
fn a_sidecar_reaches_a_service_through_the_gateway_of_its_space() {
    let origin = Origin::plain();
    let platform = Platform::new();
    let port = origin.port();
    let gateway_identity = platform.instance("gateway", "gateway", "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55");
    let secret = [("TOKEN", TOKEN)];
    let gateway = Proxy::start_with(
        &format!(
            "clients:\n  reports: {{ app_guid: 7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c, destinations: [weather] }}\n\
             destinations:\n  weather:\n    hosts: [\"partner.test:{port}\"]\n    auth: {{ bearer: env:TOKEN }}\n    \
             upgrade: false\n    insecure_attach_over_http: true\n  billing: {{ hosts: [\"other.test:{port}\"] }}\n"
        ),
        &[&gateway_identity.variables()[..], &secret].concat(),
    );
    let sidecar_of = |instance: &Instance| {
        Proxy::start_with(
            &format!(
                "egress:\n  allow_networks: [loopback]\n  parent:\n    url: https://127.0.0.1:{}\n    tls: {{ ca: \"file:{}\", \
                 client_certificate: instance_identity }}\n\
                 destinations: {{ all: {{ hosts: [\"partner.test:{port}\", \"other.test:{port}\"] }} }}\n",
                gateway.address().port(),
                platform.root(),
            ),
            &instance.variables(),
        )
    };
    let (weather, billing) = (url(&origin, "partner.test"), url(&origin, "other.test"));
    let reports = platform.instance(
        "reports",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
    );
    let sidecar = sidecar_of(&reports);
    let answer = sidecar.get(&weather);
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (200, "ok"),
        "{answer:?} {}",
        gateway.log()
    );
    assert!(
        origin.raw().contains(&format!("Bearer {TOKEN}")),
        "the gateway attaches its token"
    );
    // The same through a tunnel of the app.
    let mut inside = sidecar.tunnel(&format!("partner.test:{port}"));
    assert_eq!(inside.get(&format!("partner.test:{port}"), "/").status, 200);
    let refused = sidecar.get(&billing);
    assert!([403, 502].contains(&refused.status), "{refused:?}");
    let told = "client reports may not use destination billing";
    eventually("the refusal is in the log", || gateway.log().contains(told));
    eventually("it is in the log", || {
        gateway.log().contains("\"client\":\"reports\"")
    });

    // The platform renews the identity of the app's instance.
    let _ = platform.instance(
        "reports",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1c",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
    );
    eventually("the sidecar has taken it over", || {
        sidecar.log().contains("rotated")
    });
    assert_eq!(sidecar.get(&weather).status, 200);

    // Another app of the space has no entry. Its sidecar does not say that the destination is denied.
    let other = sidecar_of(&platform.instance(
        "other",
        "7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1cd",
        "1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55",
    ));
    let refused = other.get(&weather);
    assert!([403, 502].contains(&refused.status), "{refused:?}");
    let (refused, _) = other.connect(&format!("partner.test:{port}"));
    assert_eq!(refused.status, 502);
    assert!(
        refused.text().contains("our certificate is that of none"),
        "{}",
        refused.text()
    );
    eventually("it is in the log", || {
        gateway.log().contains("app:7c1d9d5c-7a0a-4a4e-9d0b-0f6f6d4a2b1cd, space:1f0c1a36-2f0b-4c0f-8f5e-6a2d9b1c7e55 is that of no client")
    });
    assert_eq!(origin.raw().matches("GET ").count(), 3);
}
