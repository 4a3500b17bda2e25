//! Sending a request once more after the upstream has refused its credential.
//!
//! A 401 says that nothing was done, so that any request may be repeated whose body is at hand whole (RFC 9110 section
//! 15.5.2). It is repeated once, with another credential, and admitted by circuit and limits like any request. Where
//! there is no other credential, or it is not let through, the app gets the 401.

use http::{StatusCode, header, request};

use super::fetch::{self, Answered, Course};
use super::retry::kept;
use crate::auth::Credentials;
use crate::telemetry::Exchange;
use crate::upstream::{Failed, Outbound};

/// Whether the answer to a request, whose body is at hand whole, may be another one with another credential.
pub(super) fn may_help(answered: &Answered<'_>, head: &request::Parts) -> bool {
    answered.response.status() == StatusCode::UNAUTHORIZED
        && answered.credential.can_be_renewed()
        && !head.headers.contains_key(header::UPGRADE)
}

/// Sends a request again that was answered with 401. `is_renewed`: the same credential may do, since a token is replaced
/// by another one of the same client.
pub(super) async fn run<'r>(
    mut answered: Answered<'r>,
    is_renewed: bool,
    head: &mut request::Parts,
    body: &mut Outbound,
    course: Course<'r>,
    exchange: &mut Exchange,
) -> Result<Answered<'r>, Failed> {
    let route = &course.way.route;
    let refused = answered.credential;
    let has_another = |credentials: &Credentials| credentials.has_instead_of(refused);
    let same = is_renewed.then_some(refused);
    if same.is_none() && !route.credentials.as_ref().is_ok_and(has_another) {
        return Ok(answered);
    }
    let told = exchange.take_back();
    // Its place is needed for the second try.
    answered.permit = None;
    let leave = match fetch::admit(head, route, same, None, exchange).await {
        Ok(leave) => match fetch::ready(head, leave.credential, course, exchange).await {
            Ok(()) => fetch::attach(head, body, leave.credential, course)
                .is_ok()
                .then_some(leave),
            Err(_) => None,
        },
        Err(_) => None,
    };
    let Some(mut leave) = leave else {
        exchange.let_stand(told);
        return Ok(answered);
    };
    // To its end, so that its connection is free for others.
    drop(kept(answered.response).await);
    route.counters.retry("401");
    leave.is_last = true;
    fetch::send(head, body, leave, course, exchange).await
}
