//! Header fields at the border: what is not valid, what goes one hop only, Via.

use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode, Version};

use super::Error;
use crate::fields::{self, Listed};
use crate::http1::{self, Fault, HeadRules};
use crate::upstream::Protocol;

/// Which of the fields that matter at the border a message has, found in one pass over it.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) authorization: bool,
    pub(super) connection: bool,
    pub(super) content_length: u8,
    pub(super) expect: bool,
    pub(super) host: u8,
    /// A field that always goes one hop only, other than those that are named here.
    pub(super) one_hop: bool,
    /// A field that may speak in our name.
    pub(super) status: bool,
    pub(super) te: bool,
    pub(super) transfer_encoding: u8,
    pub(super) upgrade: bool,
    /// A field in which proxies name themselves.
    pub(super) passed: bool,
}

/// How a request is known again that has been through this process before.
///
/// RFC 9110 section 7.6.3 wants a proxy to send Via. We send it only where `via: true` says so: nginx as shipped, and others,
/// send answers to requests with Via uncompressed, which costs more than anybody gains by knowing of a sidecar. Loops are
/// found by CDN-Loop (RFC 8586), which was made for that alone. It must not be removed on the way, as Via must not.
#[derive(Debug)]
pub(crate) struct Marks {
    /// Different in each process, so that a chain of proxies is not mistaken for a loop: `outrider-5f0c…`.
    name: HeaderValue,
    /// The same behind the version: `1.1 outrider-5f0c…`.
    via: HeaderValue,
}

impl Marks {
    pub(crate) fn new() -> Self {
        let number = rand::random::<u64>();
        // Letters, digits, a blank and a dash are always a field value.
        let value = |text: String| {
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("outrider"))
        };
        Self {
            name: value(format!("outrider-{number:016x}")),
            via: value(format!("1.1 outrider-{number:016x}")),
        }
    }

    /// Whether a request has been through us before.
    pub(super) fn has_looped(&self, fields: &HeaderMap) -> bool {
        let lines = (fields.get_all(CDN_LOOP).iter()).chain(fields.get_all(header::VIA));
        lines.into_iter().any(|line| {
            let mut words = line.as_bytes().windows(self.name.len());
            words.any(|word| word == self.name.as_bytes())
        })
    }

    pub(super) fn mark_request(&self, fields: &mut HeaderMap, via: bool) {
        fields.append(CDN_LOOP, self.name.clone());
        if via {
            fields.append(header::VIA, self.via.clone());
        }
    }

    pub(super) fn mark_response(&self, fields: &mut HeaderMap) {
        fields.append(header::VIA, self.via.clone());
    }
}

impl Seen {
    pub(super) fn of(fields: &HeaderMap) -> Self {
        let mut seen = Self::default();
        for (name, _) in fields {
            match name.as_str() {
                "authorization" => seen.authorization = true,
                "connection" => seen.connection = true,
                "content-length" => seen.content_length = seen.content_length.saturating_add(1),
                "expect" => seen.expect = true,
                "host" => seen.host = seen.host.saturating_add(1),
                "cache-status" | "proxy-status" => seen.status = true,
                "te" => seen.te = true,
                "transfer-encoding" => {
                    seen.transfer_encoding = seen.transfer_encoding.saturating_add(1);
                }
                "upgrade" => seen.upgrade = true,
                "cdn-loop" | "via" => seen.passed = true,
                name => seen.one_hop |= fields::goes_one_hop(name),
            }
        }
        seen
    }
}

/// Refuses what no two servers would understand alike. That its end is clear has been seen by who read it.
///
/// HTTP/2 names the host elsewhere, so there only what is meant is judged.
pub(super) fn check<B>(
    request: &Request<B>,
    seen: &Seen,
    mirror: Protocol,
    limits: HeadRules,
) -> Result<(), Error> {
    if request.method() == Method::TRACE {
        return Err(Error::Trace);
    }
    if mirror == Protocol::H2 {
        limits.check(request.headers()).map_err(Error::HeadTooLarge)?;
        if http1::is_length_too_large(request.headers()) {
            return Err(Error::NotHttp(Fault::LengthTooLarge));
        }
    }
    // In HTTP/2 they are alike, or the stream is over; but an HTTP/1.1 upstream would see both.
    if seen.content_length > 1 {
        return Err(Error::NotHttp(Fault::LengthRepeated));
    }
    if mirror == Protocol::H1 {
        check_host(request, seen)?;
    }
    let is_known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if seen.expect && !request.headers().get_all(header::EXPECT).iter().all(is_known) {
        return Err(Error::Expectation);
    }
    Ok(())
}

fn check_host<B>(request: &Request<B>, seen: &Seen) -> Result<(), Error> {
    if seen.host > 1 {
        return Err(Error::Malformed("it has more than one Host field"));
    }
    if seen.host == 0 && request.version() == Version::HTTP_11 {
        return Err(Error::Malformed("it has no Host field"));
    }
    Ok(())
}

/// Counts Max-Forwards down (RFC 9110 section 7.6.2). True: the request was meant for us.
pub(super) fn ends_here<B>(request: &mut Request<B>) -> bool {
    if request.method() != Method::OPTIONS {
        return false;
    }
    let Some(hops) = request.headers().get(header::MAX_FORWARDS) else {
        return false;
    };
    match hops.to_str().ok().and_then(|text| text.parse::<u32>().ok()) {
        Some(0) => true,
        Some(hops) => {
            request
                .headers_mut()
                .insert(header::MAX_FORWARDS, HeaderValue::from(hops - 1));
            false
        }
        // A recipient may ignore what it cannot read.
        None => false,
    }
}

/// Refuses a CONNECT that is anything but `CONNECT host:port` without a body.
pub(super) fn check_connect<B>(request: &Request<Option<B>>) -> Result<(), Error> {
    if request.body().is_some() {
        return Err(Error::Malformed("a CONNECT request cannot have a body"));
    }
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        return Err(Error::Malformed("it has more than one Host field"));
    }
    Ok(())
}

/// What a request has lost that goes one hop only.
pub(super) struct Stripped {
    pub(super) is_websocket: bool,
    /// What its trailers lose as well.
    pub(super) listed: Option<Arc<Listed>>,
}

/// Removes what goes one hop only (RFC 9110 section 7.6.1) from a request, and says whether it asks to become a
/// WebSocket. What frames or routes the message stays, whatever `Connection` names; credentials are attached afterwards.
pub(super) fn strip_request(fields: &mut HeaderMap, seen: &Seen) -> Stripped {
    let is_websocket = seen.upgrade && asks_for_websocket(fields);
    let wants_trailers = seen.te
        && (fields.get_all(header::TE).iter()).any(|te| {
            te.as_bytes()
                .to_ascii_lowercase()
                .windows(8)
                .any(|word| word == b"trailers")
        });
    let listed = strip(fields, seen);
    if wants_trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if is_websocket {
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    Stripped { is_websocket, listed }
}

/// Removes what goes one hop only from a response, and what an upstream says in our name. A 101 still says to which
/// protocol it switches. What its trailers lose as well is among the extensions afterwards.
pub(super) fn strip_response<B>(response: &mut Response<B>) {
    let is_switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    let seen = Seen::of(fields);
    let protocol = fields
        .get(header::UPGRADE)
        .filter(|_| is_switching && asks_for_websocket(fields))
        .cloned();
    if seen.transfer_encoding > 0 {
        // The body was read by its coding: a length beside it would cut it short for the app (RFC 9112 section 6.3).
        fields.remove(header::CONTENT_LENGTH);
    }
    let listed = strip(fields, &seen);
    if seen.status {
        fields::remove_forged(fields);
    }
    if is_switching {
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    if let Some(protocol) = protocol {
        fields.insert(header::UPGRADE, protocol);
    }
    if let Some(listed) = listed {
        response.extensions_mut().insert(listed);
    }
}

fn strip(fields: &mut HeaderMap, seen: &Seen) -> Option<Arc<Listed>> {
    let listed = seen.connection.then(|| Listed::of(fields)).flatten();
    if let Some(listed) = &listed {
        listed.remove_from(fields);
    }
    if seen.connection {
        fields.remove(header::CONNECTION);
    }
    if seen.te {
        fields.remove(header::TE);
    }
    if seen.transfer_encoding > 0 {
        fields.remove(header::TRANSFER_ENCODING);
    }
    if seen.upgrade {
        fields.remove(header::UPGRADE);
    }
    if seen.one_hop {
        fields::remove_one_hop(fields);
    }
    listed
}

fn asks_for_websocket(fields: &HeaderMap) -> bool {
    let mut protocols = fields.get_all(header::UPGRADE).iter();
    let (Some(protocol), None) = (protocols.next(), protocols.next()) else {
        return false;
    };
    let is_listed = (fields.get_all(header::CONNECTION).iter())
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    // Anything else, h2c first of all, would be a way round the policy.
    is_listed && protocol.as_bytes().eq_ignore_ascii_case(b"websocket")
}

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Request<()> {
        let mut builder = Request::post("http://api.test/");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap()
    }

    fn checked<B>(request: &Request<B>) -> Result<(), Error> {
        check(
            request,
            &Seen::of(request.headers()),
            Protocol::H1,
            HeadRules {
                count: 100,
                keeps_spelling: false,
                size: 65_536,
            },
        )
    }

    #[test]
    fn what_two_servers_would_read_differently_is_refused() {
        for fields in [&[][..], &[("host", "a"), ("host", "a")]] {
            assert!(
                matches!(checked(&request(fields)), Err(Error::Malformed(_))),
                "{fields:?}"
            );
        }
        assert!(checked(&request(&[("host", "a")])).is_ok());
    }

    #[test]
    fn trace_and_unknown_expectations_are_not_met() {
        let mut trace = request(&[("host", "a")]);
        *trace.method_mut() = Method::TRACE;
        assert!(matches!(checked(&trace), Err(Error::Trace)));
        assert!(matches!(
            checked(&request(&[("host", "a"), ("expect", "tea")])),
            Err(Error::Expectation)
        ));
        assert!(checked(&request(&[("host", "a"), ("expect", "100-Continue")])).is_ok());
        assert!(matches!(
            checked(&request(&[
                ("host", "a"),
                ("expect", "100-continue"),
                ("expect", "tea")
            ])),
            Err(Error::Expectation)
        ));
    }

    #[test]
    fn a_connect_has_no_body() {
        let with =
            |fields: &[(&str, &str)], body: Option<()>| check_connect(&request(fields).map(|_| body)).is_ok();
        assert!(with(&[("host", "a:443")], None));
        assert!(!with(&[("host", "a:443")], Some(())));
        assert!(!with(&[("host", "a:443"), ("host", "b:443")], None));
    }

    fn stripped(fields: &[(&str, &str)]) -> (HeaderMap, bool) {
        let mut fields = request(fields).headers().clone();
        let seen = Seen::of(&fields);
        let stripped = strip_request(&mut fields, &seen);
        (fields, stripped.is_websocket)
    }

    #[test]
    fn what_goes_one_hop_only_stays_here_in_any_case_and_on_any_line() {
        let (left, _) = stripped(&[
            ("host", "a"),
            ("connection", "X-One, keep-alive"),
            ("connection", "x-TWO"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic abc"),
            ("te", "gzip"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        let mut names: Vec<_> = left.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["accept", "host"]);
    }

    #[test]
    fn connection_cannot_strip_what_frames_or_routes_the_message() {
        let (left, _) = stripped(&[
            ("host", "a"),
            ("content-length", "3"),
            ("connection", "host, content-length"),
        ]);
        assert!(left.contains_key(header::HOST) && left.contains_key(header::CONTENT_LENGTH));
    }

    #[test]
    fn only_a_websocket_may_upgrade() {
        for (upgrade, connection, expected) in [
            ("websocket", "Upgrade", true),
            ("WebSocket", "keep-alive, upgrade", true),
            ("websocket", "keep-alive", false),
            ("h2c", "Upgrade, HTTP2-Settings", false),
            ("websocket, h2c", "Upgrade", false),
        ] {
            let (left, is_websocket) = stripped(&[("upgrade", upgrade), ("connection", connection)]);
            assert_eq!(is_websocket, expected, "{upgrade} {connection}");
            assert_eq!(
                left.contains_key(header::UPGRADE),
                expected,
                "{upgrade} {connection}"
            );
        }
    }

    #[test]
    fn max_forwards_is_counted_down_and_ends_here() {
        for (hops, ends, left) in [("0", true, "0"), ("5", false, "4"), ("many", false, "many")] {
            let mut request = request(&[("host", "a"), ("max-forwards", hops)]);
            assert!(!ends_here(&mut request), "{hops}: only OPTIONS and TRACE count");
            *request.method_mut() = Method::OPTIONS;
            assert_eq!(ends_here(&mut request), ends, "{hops}");
            assert_eq!(request.headers()[header::MAX_FORWARDS], left);
        }
    }

    #[test]
    fn trailers_are_still_asked_for() {
        assert_eq!(stripped(&[("te", "gzip, Trailers;q=1")]).0["te"], "trailers");
        assert!(!stripped(&[("te", "gzip")]).0.contains_key("te"));
    }

    #[test]
    fn an_upstream_cannot_speak_in_our_name() {
        let mut response = Response::new(());
        for (name, line) in [
            ("proxy-status", "Outrider; error=dns_error"),
            ("proxy-status", "other; error=dns_timeout"),
            ("proxy-status", "edge, outrider"),
            ("cache-status", "outrider; hit"),
            ("cache-status", "edge; hit"),
            ("outrider-rehearsal", "passed"),
            ("outrider_note", "hear"),
            ("proxy-authenticate", "Basic"),
            ("upgrade", "h2c"),
        ] {
            (response.headers_mut()).append(name, HeaderValue::from_static(line));
        }
        strip_response(&mut response);
        let fields = response.headers();
        assert_eq!(fields.len(), 2, "{fields:?}");
        assert_eq!(fields["proxy-status"], "other; error=dns_timeout");
        assert_eq!(fields["cache-status"], "edge; hit");
    }

    #[test]
    fn a_101_says_to_what_it_switches() {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        for (name, line) in [
            ("connection", "Upgrade, X-Hop"),
            ("upgrade", "websocket"),
            ("x-hop", "a"),
            ("proxy-status", "outrider"),
        ] {
            (response.headers_mut()).append(name, HeaderValue::from_static(line));
        }
        strip_response(&mut response);
        let fields = response.headers();
        assert_eq!(fields.len(), 2, "{fields:?}");
        assert_eq!(
            (&fields["connection"], &fields["upgrade"]),
            (
                &HeaderValue::from_static("upgrade"),
                &HeaderValue::from_static("websocket")
            )
        );
    }

    #[test]
    fn a_request_that_comes_back_is_known() {
        let (marks, others) = (Marks::new(), Marks::new());
        for via in [false, true] {
            let mut fields = HeaderMap::new();
            fields.append(header::VIA, HeaderValue::from_static("1.0 a"));
            fields.append(CDN_LOOP, HeaderValue::from_static("fastly, b; c=d"));
            assert!(!marks.has_looped(&fields));
            others.mark_request(&mut fields, via);
            assert!(!marks.has_looped(&fields), "another one is no loop");
            marks.mark_request(&mut fields, via);
            assert!(marks.has_looped(&fields));
            assert_eq!(
                fields.get_all(header::VIA).iter().count(),
                if via { 3 } else { 1 }
            );
            fields.remove(if via { CDN_LOOP } else { header::VIA });
            assert!(marks.has_looped(&fields));
        }
    }
}
