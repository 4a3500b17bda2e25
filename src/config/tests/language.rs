//! What the language says.

use std::time::Duration;

use http::StatusCode;

use super::*;
use crate::path::PathGlob;

pub(super) const WHOLE: &str = r#"
listen: [127.0.0.1:3128, "[::1]:0", unix:~/outrider.sock]
admin: false
workers: 2
drain: 5s
instances: 4
log: { format: json, level: debug, access: all, metrics: off }
telemetry: { otlp: null, push: null }
ca: { bundle: $CERTS/bundle.pem, lifetime: 1d }
egress:
  default: tunnel
  ports: [443, 8443]
  deny_networks: [metadata, 10.1.2.3/8, 192.0.2.1]
  allow_networks: [loopback]
  parent: []
  parent_ca: null
  parent_bypass: [apps.internal]
dns:
  servers: [10.0.0.2:53]
  timeout: 3s
  min_ttl: 1s
  max_ttl: 2s
  stale: 0s
  hosts: { A.test: 192.0.2.1, b.test: [192.0.2.2, "2001:db8::1"] }
timeouts: { idle: 20s }
limits: { connections: 100, tunnels: 50, header_size: 32KiB, header_count: 150, response_header_size: 128KiB, response_header_count: 500, memory: 64MiB }
rate_limit_store: vcap:redis/uri
destinations:
  weather:
    hosts: [api.weather.test]
    auth: { bearer: vcap:weather/token }
    rate_limit: 5/s burst 10
    on_limit: wait 2s
    timeouts: { response: 7s }
    parent: inherit
  partner:
    hosts: [partner.test, "partner.test:8443"]
    tls:
      client_certificate: { cert: file:certs/partner.crt, key: file:~/partner.key }
      ca: file:$CERTS/ca.pem
      ca_extra: file:${CERTS}/more.pem
      server_name: partner.test
      min_version: "1.3"
      groups: [x25519, secp256r1, secp384r1, X25519MLKEM768]
  search:
    hosts: ["*.search.test"]
    paths: [/api/**]
    methods: [GET, POST]
    headers: { set: { X-Agency: "047", X-Key: env:KEY }, remove: [X-Internal-*] }
    rate_limit:
      - 30/m
      - 1000/h
      - { limit: 2/s burst 4, match: { method: POST, path: /api/reindex } }
    priority: [{ match: { path: /api/batch/** }, class: low }, { class: high }]
    concurrency: 8
    queue: 10
    respect_upstream: true
    limits_apply_to: host
    retry: { attempts: 3, on: [503, connect], max_wait: 1s, budget: 5% }
    circuit_breaker: { failures: 3, within: 10s, open_for: 1s }
    cache: { size: 1MiB, min_fresh: 1s, stale_if_error: 1m, stale_while_revalidate: 2s }
    rehearse: { after: 20, answer: 503, retry_after: 1s, latency: 300ms, fail: 2% }
    mode: intercept
    http: 2
    upgrade: false
    insecure_attach_over_http: true
"#;

#[test]
fn a_whole_file_is_read() {
    let config = parse(WHOLE).map_err(|problems| problems.to_string()).unwrap();
    let listen = ["127.0.0.1:3128", "[::1]:0"].map(|address| Listen::Tcp(address.parse().unwrap()));
    assert_eq!(config.listen[..2], listen);
    assert_eq!(
        config.listen[2],
        Listen::Unix("/home/vcap/app/outrider.sock".into())
    );
    assert_eq!(config.admin, None);
    assert_eq!(config.workers, Some(2));
    assert_eq!(config.drain, Duration::from_secs(5));
    assert_eq!(
        (config.log.format, config.log.access),
        (LogFormat::Json, Access::All)
    );
    assert_eq!(config.log.level, tracing::Level::DEBUG);
    assert_eq!(config.ca.bundle, PathBuf::from("certs/bundle.pem"));
    assert_eq!(
        config.ca.truststore,
        PathBuf::from("/tmp/outrider/truststore.p12")
    );
    assert_eq!(config.ca.lifetime, Duration::from_secs(86_400));
    assert_eq!(config.egress.default, EgressDefault::Tunnel);
    assert_eq!(config.egress.ports, [443, 8443]);
    let denied = [
        Network::Class(NetworkClass::Metadata),
        Network::Block("10.0.0.0/8".parse().unwrap()),
        Network::Block("192.0.2.1/32".parse().unwrap()),
    ];
    assert_eq!(config.egress.deny_networks, denied);
    assert_eq!(
        config.egress.allow_networks,
        [Network::Class(NetworkClass::Loopback)]
    );
    assert_eq!(config.dns.servers, ["10.0.0.2:53".parse().unwrap()]);
    assert_eq!(
        config.dns.hosts["a.test"],
        ["192.0.2.1".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(config.dns.hosts["b.test"].len(), 2);
    assert_eq!(
        (config.dns.min_ttl, config.dns.max_ttl),
        (Duration::from_secs(1), Duration::from_secs(2))
    );
    assert_eq!(
        (config.dns.stale, config.dns.timeout),
        (Duration::ZERO, Duration::from_secs(3))
    );
    let limits = (
        config.limits.connections,
        config.limits.tunnels,
        config.limits.memory,
    );
    assert_eq!(limits, (100, 50, Some(64 << 20)));
    let fields = [config.limits.request_fields(), config.limits.response_fields()];
    let fields = fields.map(|limits| (limits.size, limits.count));
    assert_eq!(fields, [(32 << 10, 150), (128 << 10, 500)]);
    let names: Vec<_> = config
        .destinations
        .iter()
        .map(|destination| &*destination.name)
        .collect();
    assert_eq!(
        names,
        ["weather", "partner", "search"],
        "in the order of the file"
    );
}

#[test]
fn a_whole_destination_is_read() {
    let mut config = parse(WHOLE).unwrap();
    let search = config.destinations.pop().unwrap();
    assert_eq!(search.hosts, [HostPattern::parse("*.search.test").unwrap()]);
    assert_eq!(search.paths, [PathGlob::parse("/api/**").unwrap()]);
    assert_eq!(search.methods, [Method::GET, Method::POST]);
    assert_eq!(search.concurrency, Some(8));
    assert_eq!(search.headers.remove, ["X-Internal-*"]);
    let values: Vec<_> = search
        .headers
        .set
        .iter()
        .map(|(name, value)| (name.as_str(), value))
        .collect();
    let key = HeaderText::Reference(SecretRef::Env("KEY".to_owned()));
    assert_eq!(
        values,
        [
            ("x-agency", &HeaderText::Plain("047".parse().unwrap())),
            ("x-key", &key)
        ]
    );
    let limits: Vec<_> = search
        .rate_limits
        .iter()
        .map(|limit| limit.rate.to_string())
        .collect();
    assert_eq!(limits, ["30/m", "1000/h", "2/s burst 4"]);
    let matcher = &search.rate_limits[2].matcher;
    assert_eq!(matcher.parts().collect::<Vec<_>>(), ["POST", "/api/reindex"]);
    assert_eq!(
        (search.mode, search.http, search.upgrade),
        (Mode::Intercept, HttpVersion::H2, Some(false))
    );
    assert!(search.insecure_attach_over_http && search.tls.is_none());

    let partner = config.destinations.pop().unwrap();
    let tls = partner.tls.clone().unwrap();
    let file = |path: &str| SecretRef::File(path.into());
    let identity = ClientCertificate::Pem {
        cert: file("certs/partner.crt"),
        key: file("/home/vcap/app/partner.key"),
        passphrase: None,
    };
    assert_eq!(tls.client_certificate, Some(identity));
    assert_eq!(
        (tls.ca.clone(), tls.ca_extra.clone()),
        (Some(file("certs/ca.pem")), Some(file("certs/more.pem")))
    );
    assert_eq!(
        (tls.min_version, tls.server_name.clone()),
        (TlsVersion::V1_3, Some(Host::parse("partner.test").unwrap()))
    );
    assert_eq!(
        tls.groups,
        [
            Group::X25519,
            Group::Secp256r1,
            Group::Secp384r1,
            Group::X25519MlKem768
        ]
    );
    assert_eq!(partner.on_limit, OnLimit::Reject);

    let weather = config.destinations.pop().unwrap();
    assert_eq!(weather.on_limit, OnLimit::Wait(Duration::from_secs(2)));
    assert_eq!(weather.upgrade, None);
}

#[test]
fn how_much_a_destination_is_asked_is_read() {
    let mut config = parse(WHOLE).unwrap();
    assert_eq!(config.instances.map(NonZeroU32::get), Some(4));
    let store = SecretRef::Vcap {
        service: "redis".to_owned(),
        keys: vec!["uri".to_owned()],
    };
    assert_eq!(config.rate_limit_store.unwrap().url, Text::Reference(store));

    let search = config.destinations.pop().unwrap();
    let priority = |class, path: Option<&str>| Priority {
        class,
        matcher: Matcher {
            method: None,
            path: path.map(|path| PathGlob::parse(path).unwrap()),
        },
    };
    let priorities = [
        priority(Class::Low, Some("/api/batch/**")),
        priority(Class::High, None),
    ];
    assert_eq!(search.priorities, priorities);
    assert_eq!((search.queue, search.respect_upstream), (10, Some(true)));
    assert_eq!(search.limits_apply_to, AppliesTo::Host);
    let second = Duration::from_secs(1);
    let retry = Retry {
        attempts: 3,
        budget: 5,
        on: RetryOn {
            connect: true,
            statuses: vec![StatusCode::SERVICE_UNAVAILABLE],
        },
        max_wait: second,
    };
    assert_eq!(search.retry, Some(retry));
    let breaker = CircuitBreaker {
        failures: 3,
        open_for: second,
        within: 10 * second,
    };
    assert_eq!(search.circuit_breaker, Some(breaker));
    let cache = Cache {
        min_fresh: second,
        size: 1 << 20,
        stale_if_error: 60 * second,
        stale_while_revalidate: 2 * second,
    };
    assert_eq!(search.cache, Some(cache));
    let rehearse = Rehearse {
        after: Some(20),
        answer: StatusCode::SERVICE_UNAVAILABLE,
        fail: 2,
        latency: Duration::from_millis(300),
        retry_after: second,
    };
    assert_eq!(search.rehearse, Some(rehearse));

    let partner = config.destinations.pop().unwrap();
    assert_eq!((partner.queue, partner.respect_upstream), (1000, None));
    assert_eq!(partner.limits_apply_to, AppliesTo::Auto);
    assert!(partner.retry.is_none() && partner.cache.is_none() && partner.rehearse.is_none());
}

#[test]
fn whom_a_learned_limit_concerns_is_read() {
    for (word, applies_to) in [
        ("auto", AppliesTo::Auto),
        ("credential", AppliesTo::Credential),
        ("destination", AppliesTo::Destination),
        ("host", AppliesTo::Host),
        ("route", AppliesTo::Route),
    ] {
        let destination = destination(&format!("limits_apply_to: {word}"));
        assert_eq!(destination.limits_apply_to, applies_to, "{word}");
    }
}

#[test]
fn what_is_off_may_say_so() {
    for off in ["off", "false", "null", "~"] {
        for key in ["retry", "circuit_breaker", "cache", "rehearse"] {
            let destination = destination(&format!("{key}: {off}"));
            assert!(
                destination.retry.is_none()
                    && destination.circuit_breaker.is_none()
                    && destination.cache.is_none()
                    && destination.rehearse.is_none(),
                "{key}: {off}"
            );
        }
    }
    let destination = destination("retry: {}, circuit_breaker: {}, cache: {}, rehearse: { after: 1 }");
    let retry = destination.retry.unwrap();
    assert_eq!((retry.attempts, retry.budget, retry.on.connect), (2, 20, true));
    assert_eq!(
        retry.on.statuses,
        [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]
    );
    assert_eq!(destination.circuit_breaker.unwrap().failures, 10);
    assert_eq!(destination.cache.unwrap().size, 16 << 20);
    assert_eq!(
        destination.rehearse.unwrap().answer,
        StatusCode::TOO_MANY_REQUESTS
    );
}

#[test]
fn what_a_destination_does_not_say_about_time_is_as_in_the_file() {
    let config = parse(WHOLE).unwrap();
    let seconds = |t: Timeouts| [t.connect, t.tls, t.response, t.idle].map(|time| time.as_secs());
    assert_eq!(seconds(config.timeouts), [5, 5, 60, 20]);
    assert_eq!(
        seconds(config.timeouts.with(config.destinations[0].timeouts)),
        [5, 5, 7, 20]
    );
    assert_eq!(
        seconds(config.timeouts.with(config.destinations[1].timeouts)),
        [5, 5, 60, 20]
    );
}

#[test]
fn every_kind_of_credential_is_read() {
    let key = || SecretRef::Env("K".to_owned());
    let vcap = |keys: &[&str]| SecretRef::Vcap {
        service: "my service".to_owned(),
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
    };
    for (text, auth) in [
        ("{ bearer: env:K }", Auth::Bearer(key())),
        ("{ bearer: vcap:my service/a/b }", Auth::Bearer(vcap(&["a", "b"]))),
        (
            "{ basic: { username: app, password: env:K } }",
            Auth::Basic {
                username: Text::Plain("app".into()),
                password: key(),
            },
        ),
        (
            "{ basic: { username: env:K, password: env:K } }",
            Auth::Basic {
                username: Text::Reference(key()),
                password: key(),
            },
        ),
        (
            "{ header: { name: X-Api-Key, value: env:K } }",
            Auth::Header {
                name: HeaderName::from_static("x-api-key"),
                value: key(),
            },
        ),
        (
            "{ query: { name: api_key, value: env:K } }",
            Auth::Query {
                name: "api_key".into(),
                value: key(),
            },
        ),
    ] {
        let written = destination(&format!("auth: {text}")).auth;
        let [AuthRule { credentials, .. }] = written.as_slice() else {
            panic!("{text}: {written:?}");
        };
        let place = "auth".to_owned();
        assert_eq!(*credentials, [Credential { auth, place }], "{text}");
    }
}

#[test]
fn credentials_stand_in_lists_and_pools() {
    let destination = destination(
        "auth: [\
           { match: { path: /public/**, method: GET }, none: true }, \
           { match: { path: /v1/** }, pool: [{ bearer: env:A }, { bearer: env:B }] }, \
           { bearer: env:C }]",
    );
    let told = |rule: &AuthRule| {
        let credentials = rule.credentials.iter().map(|one| {
            let reference = one.auth.references()[0].1;
            format!("{}.{}={reference}", one.place, one.auth.kind())
        });
        let method = rule.matcher.method.as_ref().map(ToString::to_string);
        let path = rule.matcher.path.as_ref().map(|path| path.as_str().to_owned());
        (method, path, credentials.collect::<Vec<_>>())
    };
    let credentials = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        destination.auth.iter().map(told).collect::<Vec<_>>(),
        [
            (Some("GET".to_owned()), Some("/public/**".to_owned()), Vec::new()),
            (
                None,
                Some("/v1/**".to_owned()),
                credentials(&["auth[1].pool[0].bearer=env:A", "auth[1].pool[1].bearer=env:B"]),
            ),
            (None, None, credentials(&["auth[2].bearer=env:C"])),
        ]
    );
    assert_eq!(self::destination("auth: none").auth, []);
    assert_eq!(self::destination("auth: { none: true }").auth[0].credentials, []);
    let pool = self::destination("auth: { pool: [{ bearer: env:A }] }").auth;
    assert_eq!(pool[0].credentials[0].place, "auth.pool[0]");
}

#[test]
fn values_may_be_quoted_or_not_where_a_text_is_wanted() {
    for (keys, http) in [
        ("http: 2", HttpVersion::H2),
        ("http: \"1\"", HttpVersion::H1),
        ("http: auto", HttpVersion::Auto),
    ] {
        assert_eq!(destination(keys).http, http);
    }
    for keys in ["tls: { min_version: 1.3 }", "tls: { min_version: '1.3' }"] {
        assert_eq!(destination(keys).tls.unwrap().min_version, TlsVersion::V1_3);
    }
    let set = destination("headers: { set: { X-A: 047, X-B: true, X-C: 1.0 } }")
        .headers
        .set;
    let values: Vec<_> = set.into_iter().map(|(_, value)| value).collect();
    assert_eq!(
        values,
        ["047", "true", "1.0"].map(|value| HeaderText::Plain(value.parse().unwrap()))
    );
}

#[test]
fn a_section_of_comments_only_is_no_section() {
    let config = parse("drain: 8s\nlog:\n  # level: debug\ndestinations:\negress:\ndns: ~\n").unwrap();
    assert_eq!(config.log.level, tracing::Level::INFO);
    assert_eq!(config.egress.default, EgressDefault::Deny);
}
