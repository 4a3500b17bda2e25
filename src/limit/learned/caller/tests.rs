//! What is kept for one caller is bounded.

use http::{Method, StatusCode};

use super::*;

/// An app may ask for any number of paths.
#[test]
fn routes_without_a_limit_do_not_fill_the_memory() {
    let mut subject = CallerLimits::new(1, false, 1, true, 0, 0);
    let hints = Hints {
        is_refusal: true,
        pause: Some(hints::PauseHint {
            length: Duration::from_secs(60),
            name: Box::default(),
            field: "Retry-After".into(),
        }),
        quotas: Vec::new(),
        bad_field: None,
    };
    for number in 0..10_000 {
        let path = format!("/{}", "a".repeat(number + 1));
        let response = ObservedResponse {
            hints: (number == 0).then_some(&hints),
            host: &"",
            jitter: 0.5,
            method: &Method::GET,
            path: &path,
            status: StatusCode::OK,
        };
        let sent = SentRequest::untracked(number as u64);
        let route = RoutePattern::of(&Method::GET, &path);
        subject.learn(sent, &route, &response, (number as u64 + 1, 0), SECOND);
    }
    assert!(subject.routes.len() <= MOST_ROUTES, "{}", subject.routes.len());
    assert!(!subject.is_blank(SECOND));
}
