//! Field names that most messages have, in the spellings that most programs use.
//!
//! They are found by one look-up. `http` would copy each name in lower case first, and allocate for those that it does not
//! know.

use std::collections::HashMap;
use std::sync::LazyLock;

use bytes::BytesMut;
use foldhash::fast::FixedState;
use http::HeaderName;
use http::header::InvalidHeaderName;

use super::spelling;

const COMMON: &str = "accept accept-charset accept-encoding accept-language accept-ranges \
    access-control-allow-credentials access-control-allow-headers access-control-allow-methods \
    access-control-allow-origin access-control-expose-headers access-control-max-age age allow alt-svc \
    amz-sdk-invocation-id amz-sdk-request authorization cache-control cache-status cdn-loop connection \
    content-disposition content-encoding content-language content-length content-location content-range \
    content-security-policy content-type cookie date etag expect expires forwarded from host idempotency-key if-match \
    if-modified-since if-none-match if-range if-unmodified-since keep-alive last-modified link location max-forwards \
    origin pragma priority proxy-authenticate proxy-authorization proxy-connection proxy-status range ratelimit \
    ratelimit-policy referer referrer-policy retry-after sec-fetch-dest sec-fetch-mode sec-fetch-site \
    sec-websocket-accept sec-websocket-extensions sec-websocket-key sec-websocket-protocol sec-websocket-version \
    server set-cookie strict-transport-security te traceparent tracestate trailer transfer-encoding upgrade \
    upgrade-insecure-requests user-agent vary via warning www-authenticate x-amz-content-sha256 x-amz-date x-amz-id-2 \
    x-amz-request-id x-amz-security-token x-amzn-requestid x-amzn-trace-id x-api-key x-b3-sampled x-b3-spanid \
    x-b3-traceid x-content-type-options x-correlation-id x-forwarded-for x-forwarded-host x-forwarded-proto \
    x-frame-options x-powered-by x-ratelimit-limit x-ratelimit-remaining x-ratelimit-reset x-request-id \
    x-requested-with x-runtime x-trace-id x-vcap-request-id x-xss-protection";

/// The names by their spellings. What an app sends decides only what is looked up, never what is in here, so that the seed of
/// the hash may be known.
static NAMES: LazyLock<HashMap<Box<[u8]>, HeaderName, FixedState>> = LazyLock::new(|| {
    let mut names = HashMap::default();
    for lower in COMMON.split(' ') {
        let mut usual = BytesMut::new();
        spelling::write_usual(&mut usual, lower);
        let name = HeaderName::from_static(lower);
        names.insert(Box::from(&usual[..]), name.clone());
        names.insert(lower.as_bytes().into(), name);
    }
    names
});

/// Reads a field name.
pub(super) fn read(name: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    match NAMES.get(name) {
        Some(name) => Ok(name.clone()),
        None => HeaderName::from_bytes(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_in_every_spelling() {
        for lower in COMMON.split(' ') {
            let name = HeaderName::from_bytes(lower.as_bytes()).unwrap();
            assert_eq!(read(lower.as_bytes()).unwrap(), name);
            assert_eq!(read(lower.to_ascii_uppercase().as_bytes()).unwrap(), name);
            let mut usual = BytesMut::new();
            spelling::write_usual(&mut usual, lower);
            assert_eq!(read(&usual).unwrap(), name);
            assert_eq!(NAMES.get(&usual[..]), Some(&name), "{lower}");
        }
        assert_eq!(read(b"X-Other").unwrap(), "x-other");
        for wrong in [&b""[..], b"a b", b"a:", b"\xff"] {
            assert!(read(wrong).is_err());
        }
    }
}
