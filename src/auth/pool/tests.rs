use tokio::time::advance;

use super::*;
use crate::auth::Credentials;
use crate::config::Config;
use crate::limit::Limiters;
use crate::policy::Policy;
use crate::secret::Snapshot;
use crate::secret::roots::SystemRoots;
use crate::telemetry::Telemetry;
use crate::upstream::{Endpoint, tls};

/// Builds the credentials of a destination with three tokens.
fn credentials() -> Credentials {
    let text = "destinations: { d: { hosts: [a.test], \
                auth: { pool: [{ bearer: env:A }, { bearer: env:B }, { bearer: env:C }] } } }";
    let policy = Policy::compile(&Config::parse(text, "a.yml").unwrap()).unwrap();
    let destination = &policy.destinations[1];
    let snapshot = Snapshot::of_variables(["A", "B", "C"].map(|name| (name, name.to_lowercase())));
    let roots = SystemRoots::new(&snapshot, std::path::Path::new("/nowhere"));
    let tls = tls::Settings::build(destination, &snapshot, &roots).map_err(Arc::new);
    let telemetry = Telemetry::new();
    let endpoint = Endpoint::new(Arc::clone(destination), telemetry.counters("d"), tls);
    let limits = Limiters::default();
    let limiter = |place: &str| limits.of_member(destination, place, &telemetry);
    Credentials::build(
        destination,
        &snapshot,
        &Arc::new(endpoint),
        limiter,
        |_| unreachable!("no token is asked for"),
        None,
        None,
    )
    .unwrap()
}

/// Returns the places of the credentials that the next requests get.
fn next(credentials: &Credentials, count: usize) -> Vec<String> {
    let place = |_| credentials.choose(Some(0)).place.to_string();
    (0..count).map(place).collect()
}

fn refuse(credentials: &Credentials, credential: &Arc<LiveCredential>) {
    credentials.record_status(credential, StatusCode::UNAUTHORIZED, "d");
}

#[tokio::test(start_paused = true)]
async fn they_take_turns_and_have_connections_of_their_own() {
    let credentials = credentials();
    assert_eq!(
        next(&credentials, 4),
        ["auth.pool[0]", "auth.pool[1]", "auth.pool[2]", "auth.pool[0]"]
    );
    let ids: std::collections::HashSet<_> = (0..3)
        .map(|_| credentials.choose(Some(0)).endpoint.id())
        .collect();
    assert_eq!(ids.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_refused_one_rests_longer_each_time_and_then_comes_back() {
    let credentials = credentials();
    let refused = Arc::clone(credentials.choose(Some(0)));
    let is_out = || !next(&credentials, 6).contains(&refused.place.to_string());
    for seconds in [60, 120, 240, 480, 900, 900] {
        refuse(&credentials, &refused);
        // Requests that were under way with it do not count.
        refuse(&credentials, &refused);
        assert!(credentials.has_alternative_to(&refused));
        advance(Duration::from_secs(seconds) - Duration::from_millis(1)).await;
        assert!(is_out(), "{seconds} s");
        advance(Duration::from_millis(1)).await;
        assert!(!is_out(), "{seconds} s");
    }
    // A success after the exclusion clears its refusals.
    credentials.record_status(&refused, StatusCode::NOT_FOUND, "d");
    refuse(&credentials, &refused);
    advance(Duration::from_secs(60)).await;
    assert!(!is_out());
}

#[tokio::test(start_paused = true)]
async fn where_all_rest_the_one_that_is_up_first_is_tried() {
    let credentials = credentials();
    let all: Vec<_> = (0..3).map(|_| Arc::clone(credentials.choose(Some(0)))).collect();
    for one in &all {
        refuse(&credentials, one);
        advance(Duration::from_secs(1)).await;
    }
    assert!(!credentials.has_alternative_to(&all[0]));
    assert_eq!(next(&credentials, 3), ["auth.pool[0]"; 3]);
}

/// A limit that the upstream reports for one does not concern the others.
#[tokio::test(start_paused = true)]
async fn each_has_what_was_told_of_it() {
    let credentials = credentials();
    let shown = |left: &str| {
        let mut fields = crate::message::Fields::new();
        for (name, value) in [
            ("x-ratelimit-limit", "60"),
            ("x-ratelimit-remaining", left),
            ("x-ratelimit-reset", "3600"),
        ] {
            fields.insert(name, value.parse().unwrap());
        }
        fields
    };
    let all: Vec<_> = (0..3).map(|_| Arc::clone(credentials.choose(Some(0)))).collect();
    for (one, left) in all.iter().zip(["10", "40", "20"]) {
        let limiter = one.limiter.as_ref().unwrap();
        let permit = limiter
            .admit(crate::limit::bench::request(&http::Method::GET, "/"), || None)
            .await
            .unwrap();
        permit.learn(
            StatusCode::OK,
            &shown(left),
            crate::limit::bench::request(&http::Method::GET, "/"),
        );
    }
    assert_eq!(next(&credentials, 3), ["auth.pool[1]"; 3]);
    refuse(&credentials, &all[1]);
    assert_eq!(next(&credentials, 3), ["auth.pool[2]"; 3]);
}

/// Otherwise they would be removed while they are needed.
#[test]
fn the_connections_of_every_credential_are_known() {
    let credentials = credentials();
    let endpoints = credentials.endpoints();
    let ids: std::collections::HashSet<_> = endpoints.iter().map(|endpoint| endpoint.id()).collect();
    assert!(ids.len() > 1, "each has its own");
    assert!(ids.iter().all(|id| credentials.has_endpoint(*id)));
    assert!(!credentials.has_endpoint(u64::MAX));
}
