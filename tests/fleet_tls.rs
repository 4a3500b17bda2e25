//! TLS to real clusters and Sentinels, with certificates of clients: right ones and wrong ones.

use std::time::Duration;

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose};

use crate::fleet::assert_shared;
use crate::fleet_outages::together;
use crate::support::pki::server_params;
use crate::support::redis::{Cluster, Redis, Sentinels, tls_arguments};
use crate::support::{CANARY, Identity, Origin, Pki, Proxy, eventually};

const REFUSED: &str = "the quota store cannot be asked";

#[test]
fn every_server_is_reached_over_tls() {
    together(&[
        a_cluster_over_tls_with_client_certificates,
        a_cluster_over_tls_whose_certificates_have_names,
        sentinels_over_tls_with_client_certificates,
    ]);
}

/// An instance with `4/h`, whose store has this URL and these settings for TLS.
fn instance(origin: &Origin, url: &str, tls: &str) -> Proxy {
    let config = format!(
        "workers: 1\nlog: {{ format: json, access: none }}\n\
         rate_limit_store: {{ url: env:QUOTAS, tls: {{ {tls} }} }}\n\
         dns: {{ hosts: {{ partner.test: 127.0.0.1, store.test: 127.0.0.1 }} }}\n\
         destinations: {{ p: {{ hosts: [\"{}\"], rate_limit: 4/h, on_limit: reject }} }}",
        origin.authority()
    );
    Proxy::start_with(&config, &[("QUOTAS", url)])
}

fn trust(pki: &Pki) -> String {
    format!("ca: \"file:{}\"", pki.ca().display())
}

fn show(pki: &Pki, client: &Identity) -> String {
    format!("{}, client_certificate: {}", trust(pki), client.yaml())
}

/// A certificate with which servers also reach each other: a cluster demands it, whatever tls-auth-clients says.
fn member(pki: &Pki, names: &[&str]) -> Identity {
    let mut params = server_params(names);
    params
        .extended_key_usages
        .push(ExtendedKeyUsagePurpose::ClientAuth);
    pki.issue("store", params)
}

/// Servers of a cluster that are known by their addresses: certificates for an address are right, others are not.
fn a_cluster_over_tls_with_client_certificates() {
    let pki = Pki::new();
    let server = member(&pki, &["store.test", "127.0.0.1"]);
    let cluster = Cluster::with(|_| {
        let tls = tls_arguments(&pki, &server);
        format!("{tls} --tls-cluster yes --tls-replication yes --tls-auth-clients yes")
    });
    let ports: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| format!("store.test:{}", node.tls_port()))
        .collect();
    let url = format!("rediss+cluster://{}", ports.join(","));
    let (origin, client) = (Origin::plain(), pki.client("app"));
    let proxies = [0, 1].map(|_| instance(&origin, &url, &show(&pki, &client)));
    eventually("both are known to the store", || {
        cluster.nodes.iter().map(|node| node.runs().0).sum::<u64>() >= 3
    });
    assert_shared(&proxies, &origin);

    let mut expired = CertificateParams::default();
    expired.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    expired.not_before = time::OffsetDateTime::now_utc() - Duration::from_secs(7200);
    expired.not_after = time::OffsetDateTime::now_utc() - Duration::from_secs(3600);
    let expired = pki.issue("expired", expired);
    let other = Pki::named("another authority");
    let stranger = other.client("app");
    for (tls, expected) in [
        (
            trust(&pki),
            "demands a client certificate and this destination has none; set tls.client_certificate",
        ),
        (show(&pki, &stranger), "refused our client certificate"),
        (show(&pki, &expired), "renew tls.client_certificate"),
        (show(&other, &client), "TLS with the store has failed"),
    ] {
        let proxy = instance(&origin, &url, &tls);
        eventually(expected, || proxy.log().contains(REFUSED));
        let log = proxy.log();
        assert!(log.contains(expected), "{expected}: {log}");
    }
}

/// Servers whose certificates have names only: the cluster must name them by those.
fn a_cluster_over_tls_whose_certificates_have_names() {
    let pki = Pki::new();
    let server = member(&pki, &["store.test"]);
    let (origin, tls) = (Origin::plain(), trust(&pki));
    let cluster = Cluster::with(|_| {
        let tls = tls_arguments(&pki, &server);
        format!("{tls} --tls-cluster yes --tls-auth-clients no")
    });
    let ports: Vec<_> = cluster
        .nodes
        .iter()
        .map(|node| format!("store.test:{}", node.tls_port()))
        .collect();
    let url = format!("rediss+cluster://{}", ports.join(","));
    let proxy = instance(&origin, &url, &tls);
    eventually("the name does not fit", || proxy.log().contains(REFUSED));
    let expected = "shows a certificate for store.test, not for 127.0.0.1; if that is the right one, set tls.server_name";
    assert!(proxy.log().contains(expected), "{}", proxy.log());
    let by_name = instance(&origin, &url, &format!("{tls}, server_name: store.test"));
    eventually("it is known", || cluster.limits().len() == 1);
    assert!(!by_name.log().contains(REFUSED), "{}", by_name.log());

    drop((proxy, by_name));
    for node in &cluster.nodes {
        node.say("CONFIG SET cluster-announce-hostname store.test");
        node.say("CONFIG SET cluster-preferred-endpoint-type hostname");
        node.say("FLUSHALL");
    }
    eventually("all know the names", || {
        cluster
            .nodes
            .iter()
            .all(|node| node.say("CLUSTER NODES").matches("store.test").count() == 3)
    });
    let proxies = [0, 1].map(|_| instance(&origin, &url, &tls));
    eventually("both are known to the store", || {
        let key = format!(
            "{}:members",
            cluster.limits().first().cloned().unwrap_or_default()
        );
        cluster
            .nodes
            .iter()
            .any(|node| node.keys().contains(&key) && node.say(&format!("ZCARD {key}")) == "2")
    });
    assert_shared(&proxies, &origin);
}

/// Sentinels, the primary and its replica speak TLS and want certificates.
fn sentinels_over_tls_with_client_certificates() {
    let pki = Pki::new();
    let server = member(&pki, &["store.test", "127.0.0.1"]);
    let password = format!("{CANARY}-servers");
    let start = |further: &str| {
        let tls = tls_arguments(&pki, &server);
        format!(
            "{tls} --tls-replication yes --tls-auth-clients yes --requirepass {password} --masterauth {password} {further}"
        )
    };
    let primary = Redis::with(&start(""));
    let replica = format!("--replicaof 127.0.0.1 {}", primary.tls_port());
    let _replica = Redis::with(&start(&replica));
    let sentinels = Sentinels::with("127.0.0.1", primary.tls_port(), None, |port| {
        let mut lines: Vec<_> = [
            ("tls-cert-file", &server.cert_path),
            ("tls-key-file", &server.key_path),
            ("tls-ca-cert-file", &pki.ca()),
        ]
        .map(|(key, path)| format!("{key} {}", path.display()))
        .into();
        lines.push(format!("tls-port {port}"));
        lines.push("tls-replication yes".to_owned());
        lines.push(format!("sentinel auth-pass main {password}"));
        lines
    });
    let url = format!("rediss+sentinel://:{password}@{}/main", sentinels.tls_addresses());
    let (origin, client) = (Origin::plain(), pki.client("app"));
    let proxies = [0, 1].map(|_| instance(&origin, &url, &show(&pki, &client)));
    eventually("both are known to the store", || primary.runs().0 >= 3);
    assert_shared(&proxies, &origin);
    let without = instance(&origin, &url, &trust(&pki));
    eventually("it is logged", || without.log().contains(REFUSED));
    let log = without.log();
    assert!(log.contains("demands a client certificate"), "{log}");
}
