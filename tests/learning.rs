//! What outrider makes of an upstream's limits, against real servers that have some and a real client that has no
//! patience: curl with a hundred connections, which fires ten times the limit at once.

use std::thread;

use crate::support::limited::{Asked, Burst, Limited, refused, span};

/// Nobody was refused, the upstream refused one in a hundred at most, and it took no longer than a tenth more than the
/// limit makes it take.
#[track_caller]
fn assert_paced(burst: &Burst, asked: &[Asked], ideal: f64, what: &str) {
    let took = span(asked);
    println!(
        "{what}: {} of {} answered with 200, the upstream refused {} of {}, {took:.2} s of {ideal:.2} s",
        burst.count(200),
        burst.statuses.len(),
        refused(asked),
        asked.len()
    );
    assert_eq!(burst.count(200), burst.statuses.len(), "{what}: {burst:?}");
    assert!(refused(asked) * 100 <= asked.len(), "{what}: {}", refused(asked));
    assert!(took <= ideal * 1.1, "{what}: took {took} s, ideally {ideal} s");
}

/// The same client without outrider is refused most of the time.
#[test]
fn without_outrider_most_of_a_burst_is_refused() {
    let limited = |arguments: &[&str]| (arguments.join(" "), Limited::python(arguments));
    for (what, limited) in [
        ("nginx, 429".to_owned(), Limited::nginx(20, 10, 429)),
        ("nginx, 503".to_owned(), Limited::nginx(20, 10, 503)),
        limited(&["github", "limit=20", "window=1"]),
        limited(&["draft", "limit=40", "window=2"]),
        limited(&["datagov", "limit=20", "window=1"]),
        limited(&["plain", "rate=20", "burst=5"]),
    ] {
        let burst = limited.burst(None, "/", 200);
        let refused = 200 - burst.count(200);
        println!(
            "{what}: {refused} of 200 refused in {:.2} s",
            burst.took.as_secs_f64()
        );
        assert!(refused > 100, "{what}: {burst:?}");
    }
}

/// nginx says nothing but that it refuses; its limit is configured as it is there.
#[test]
fn a_limit_configured_as_nginx_has_it_is_kept() {
    thread::scope(|scope| {
        for status in [429, 503] {
            scope.spawn(move || {
                let what = format!("nginx limit_req, {status}");
                let nginx = Limited::nginx(20, 10, status);
                let proxy = nginx.proxy("rate_limit: 20/s burst 10, on_limit: wait 30s");
                let burst = nginx.burst(Some(&proxy), "/", 200);
                assert_paced(&burst, &nginx.asked(), (200.0 - 10.0) / 20.0, &what);
            });
        }
    });
}
