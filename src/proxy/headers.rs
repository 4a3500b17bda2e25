//! Header fields at the border: what is not valid, what goes one hop only, Via.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Version};
use hyper::body::{Body as _, Incoming};

use super::Error;

/// Refuses what hyper lets through but no two servers would read alike.
pub(super) fn check(request: &Request<Incoming>) -> Result<(), Error> {
    let fields = request.headers();
    if request.method() == Method::TRACE {
        return Err(Error::Trace);
    }
    let mut hosts = fields.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Error::Malformed("more than one Host field"));
    }
    if host.is_none() && request.version() == Version::HTTP_11 {
        return Err(Error::Malformed("no Host field"));
    }
    if let Some(coding) = fields.get(header::TRANSFER_ENCODING) {
        if fields.contains_key(header::CONTENT_LENGTH) {
            return Err(Error::Malformed("both Content-Length and Transfer-Encoding"));
        }
        if !coding.as_bytes().eq_ignore_ascii_case(b"chunked")
            || fields.get_all(header::TRANSFER_ENCODING).iter().count() > 1
        {
            return Err(Error::Malformed("a Transfer-Encoding other than chunked"));
        }
    }
    if fields.get_all(header::CONTENT_LENGTH).iter().count() > 1 {
        return Err(Error::Malformed("more than one Content-Length"));
    }
    if let Some(expectation) = fields.get(header::EXPECT)
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Error::Expectation);
    }
    Ok(())
}

/// Refuses a CONNECT that is anything but `CONNECT host:port` without a body.
pub(super) fn check_connect(request: &Request<Incoming>) -> Result<(), Error> {
    let fields = request.headers();
    let has_body = fields.contains_key(header::TRANSFER_ENCODING)
        || fields
            .get(header::CONTENT_LENGTH)
            .is_some_and(|length| length != "0")
        || !request.body().is_end_stream();
    if has_body {
        return Err(Error::Malformed("a CONNECT with a body"));
    }
    if fields.get_all(header::HOST).iter().count() > 1 {
        return Err(Error::Malformed("more than one Host field"));
    }
    Ok(())
}

/// Removes what goes one hop only (RFC 9110 section 7.6.1) from a request, and says whether it asks to become a
/// WebSocket. What frames or routes the message stays, whatever `Connection` names; credentials are attached afterwards.
pub(super) fn strip_request(fields: &mut HeaderMap) -> bool {
    let is_websocket = asks_for_websocket(fields);
    let wants_trailers = (fields.get_all(header::TE).iter()).any(|te| {
        te.as_bytes()
            .to_ascii_lowercase()
            .windows(8)
            .any(|word| word == b"trailers")
    });
    strip(fields);
    fields.remove(header::PROXY_AUTHORIZATION);
    fields.remove(header::EXPECT);
    if wants_trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if is_websocket {
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    is_websocket
}

/// Removes what goes one hop only from a response, and what an upstream says in our name.
pub(super) fn strip_response(fields: &mut HeaderMap) {
    strip(fields);
    if fields.contains_key(PROXY_STATUS) {
        strike_forged(fields);
    }
}

/// Whether a request has been through us before.
pub(super) fn has_looped(fields: &HeaderMap, via: &HeaderValue) -> bool {
    (fields.get_all(header::VIA).iter()).any(|line| {
        line.as_bytes()
            .windows(via.len())
            .any(|word| word == via.as_bytes())
    })
}

fn strip(fields: &mut HeaderMap) {
    if fields.contains_key(header::CONNECTION) {
        strip_listed(fields);
        fields.remove(header::CONNECTION);
    }
    for name in [
        &header::TE,
        &header::TRANSFER_ENCODING,
        &header::UPGRADE,
        &KEEP_ALIVE,
        &PROXY_CONNECTION,
    ] {
        fields.remove(name);
    }
}

/// Removes the fields that `Connection` lists, but for those that frame or route the message.
fn strip_listed(fields: &mut HeaderMap) {
    let listed: Vec<HeaderName> = (fields.get_all(header::CONNECTION).iter())
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| {
            ![
                header::HOST,
                header::CONTENT_LENGTH,
                header::TRANSFER_ENCODING,
                header::CONNECTION,
            ]
            .contains(name)
        })
        .collect();
    for name in listed {
        fields.remove(name);
    }
}

fn asks_for_websocket(fields: &HeaderMap) -> bool {
    let Some(protocol) = fields.get(header::UPGRADE) else {
        return false;
    };
    let is_listed = (fields.get_all(header::CONNECTION).iter())
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    // Anything else, h2c first of all, would be a way round the policy.
    is_listed && protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

/// Strikes the members of Proxy-Status that carry our name: ours are only ever made here.
fn strike_forged(fields: &mut HeaderMap) {
    let kept: Vec<HeaderValue> = (fields.get_all(PROXY_STATUS).iter())
        .filter(|line| {
            !line
                .as_bytes()
                .to_ascii_lowercase()
                .windows(8)
                .any(|word| word == b"outrider")
        })
        .cloned()
        .collect();
    fields.remove(PROXY_STATUS);
    for line in kept {
        fields.append(PROXY_STATUS, line);
    }
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
