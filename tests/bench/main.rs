//! What a request costs, part by part and as a whole: `cargo bench`, or `cargo bench -- route` for some of it.
//!
//! The figures are times, so they compare two builds on one quiet machine and nothing else. `tests/run` runs each
//! bench once, so that they keep working.

#![expect(clippy::unwrap_used, reason = "what cannot be set up cannot be measured")]

use std::hint::black_box;
use std::process::Command;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use outrider::bench::{
    CircuitBench, CredentialBench, HeadBench, HintsBench, LeafBench, LimiterBench, RoutingBench,
};

mod stage;

/// From the request's URI to the verdict, by how the destination is named and how many there are.
fn route(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    for count in [1, 100, 10_000] {
        let routing = RoutingBench::prepare(count);
        let last = count - 1;
        for (kind, uri, passes) in [
            ("exact", format!("http://api-{last}.test/v1/x"), true),
            ("wildcard", format!("http://a.b.zone-{last}.test/v1/x"), true),
            ("path", format!("http://api-{last}.test/v2/x"), false),
            ("unlisted", "http://api.elsewhere.test/v1/x".to_owned(), false),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(routing.is_carried(&uri), passes, "{uri}");
            group.bench_function(BenchmarkId::new(kind, count), |bencher| {
                bencher.iter(|| routing.is_carried(black_box(&uri)));
            });
        }
    }
    group.finish();
}

/// Measures a permit from a limiter without other requests, taken and given back.
fn admit(c: &mut Criterion) {
    let admission = LimiterBench::prepare();
    assert!(admission.admits());
    c.bench_function("admit", |bencher| bencher.iter(|| admission.admits()));

    // A lease of a hundred permits, used up.
    let shared = LimiterBench::shared();
    c.bench_function("admit_shared_100", |bencher| {
        bencher.iter_batched(
            || shared.lend(100),
            |()| (0..100).all(|_| shared.admits()),
            BatchSize::PerIteration,
        );
    });
}

/// Measures what a circuit breaker and a retry budget add to a request that works.
fn guard(c: &mut Criterion) {
    let guard = CircuitBench::prepare();
    assert!(guard.passes());
    c.bench_function("guard", |bencher| bencher.iter(|| guard.passes()));
}

/// Measures the search for limit hints in an answer: one without hints, and one with.
fn hints(c: &mut Criterion) {
    let silent = [
        ("date", "Wed, 15 Jul 2026 10:36:17 GMT"),
        ("content-type", "application/json"),
        ("content-length", "2"),
        ("cache-control", "private"),
        ("etag", "\"x\""),
        ("vary", "accept"),
        ("server", "nginx"),
        ("x-request-id", "1"),
        ("x-served-by", "cache-1"),
        ("strict-transport-security", "max-age=1"),
        ("access-control-allow-origin", "*"),
        ("referrer-policy", "origin"),
    ];
    let github = [
        ("x-ratelimit-limit", "5000"),
        ("x-ratelimit-remaining", "4999"),
        ("x-ratelimit-reset", "1784112777"),
        ("x-ratelimit-resource", "core"),
    ];
    let draft = [
        ("ratelimit-policy", "\"default\";q=100;w=60"),
        ("ratelimit", "\"default\";r=50;t=30"),
    ];
    let mut group = c.benchmark_group("hints");
    for (kind, more, speaks) in [
        ("none", &[][..], false),
        ("github", &github[..], true),
        ("draft", &draft[..], true),
    ] {
        let field = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let answer = HintsBench::new(silent.iter().chain(more).map(field).collect::<HeaderMap>());
        assert_eq!(answer.has_hints(), speaks, "{kind}");
        group.bench_function(kind, |bencher| bencher.iter(|| black_box(&answer).has_hints()));
        // With leave to ask and what is made of the answer.
        let unlimited = LimiterBench::unlimited();
        assert!(unlimited.learns(&answer), "{kind}");
        group.bench_function(BenchmarkId::new("learn", kind), |bencher| {
            bencher.iter(|| unlimited.learns(black_box(&answer)))
        });
    }
    group.finish();
}

/// Measures the changes to the fields of a browser-like request before it is sent.
fn rewrite(c: &mut Criterion) {
    let rewriting = CredentialBench::prepare();
    let request = Request::get("http://api.test/v1/x")
        .header("host", "api.test")
        .header("user-agent", "curl/8.5.0")
        .header("accept", "*/*")
        .header("accept-encoding", "gzip, br")
        .header("connection", "keep-alive, x-private")
        .header("x-private", "1")
        .header("proxy-connection", "keep-alive")
        .header("authorization", "the app's own")
        .body(())
        .unwrap();
    let head = HeadBench::new(request);
    let mut once = head.clone();
    assert!(rewriting.rewrite(&mut once));
    assert_eq!(once.lines(), 5, "{once:?}");
    c.bench_function("rewrite", |bencher| {
        bencher.iter_batched_ref(
            || head.clone(),
            |head| rewriting.rewrite(head),
            BatchSize::SmallInput,
        );
    });
}

/// Measures the look-up of a certificate that was made before.
fn leaf(c: &mut Criterion) {
    let leaves = LeafBench::prepare();
    c.bench_function("leaf", |bencher| bencher.iter(|| leaves.serves()));
}

/// Measures a GET over loopback on a warm connection, through the built program on one worker.
fn get(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let origin = stage::origin();
    let config = stage::configure(origin, folder.path(), "");
    let outrider = stage::Outrider::start(&mut Command::new(env!("CARGO_BIN_EXE_outrider")), &config);
    let mut client = stage::Client::warm(outrider.address(), origin);
    c.bench_function("get", |bencher| bencher.iter(|| client.get()));
}

criterion_group!(benches, route, admit, guard, hints, rewrite, leaf, get);
criterion_main!(benches);
