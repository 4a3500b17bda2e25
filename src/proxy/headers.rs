//! Header fields of requests and responses: validity, hop-by-hop fields, loop detection.

use std::sync::Arc;

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, StatusCode, Version};

use super::Error;
use crate::fields::{self, Listed};
use crate::http1::{self, Fault, HeadRules};
use crate::message::{Fields, Request, Response};
use crate::upstream::Protocol;

const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");
/// What else an app may upgrade to, above all h2c, would be a way around the policy.
const WEBSOCKET: &str = "websocket";

/// Which of the fields that this file handles a message has. Found in one pass.
#[derive(Debug, Default)]
pub(super) struct FieldsPresent {
    pub(super) authorization: bool,
    pub(super) connection: bool,
    pub(super) content_length: u8,
    pub(super) expect: bool,
    pub(super) host: u8,
    /// A hop-by-hop field without its own flag here.
    pub(super) one_hop: bool,
    /// A field in which an upstream could pose as us.
    pub(super) status: bool,
    pub(super) te: bool,
    pub(super) transfer_encoding: u8,
    pub(super) upgrade: bool,
    /// A field in which proxies name themselves: CDN-Loop or Via.
    pub(super) passed: bool,
}

/// Marks requests, so that one that has been through this process before is recognised.
///
/// RFC 9110 section 7.6.3 wants a proxy to send Via. We send it only with `via: true`: nginx by default, and
/// others, do not compress responses to requests with Via, which costs more than anybody gains by knowing of a
/// sidecar. Loops are detected by CDN-Loop (RFC 8586), whose only purpose this is. Like Via, it must not be removed
/// on the way.
#[derive(Debug)]
pub(crate) struct LoopMarker {
    /// `outrider-5f0c…`: different in each process, so that a chain of proxies is not mistaken for a loop.
    name: HeaderValue,
    /// `1.1 outrider-5f0c…`: the same with the version before it.
    via: HeaderValue,
}

impl LoopMarker {
    pub(crate) fn new() -> Self {
        let number = rand::random::<u64>();
        // Letters, digits, spaces and dashes are always a valid field value.
        let value = |text: String| {
            HeaderValue::from_str(&text).unwrap_or_else(|_| HeaderValue::from_static("outrider"))
        };
        Self {
            name: value(format!("outrider-{number:016x}")),
            via: value(format!("1.1 outrider-{number:016x}")),
        }
    }

    /// Returns the name of this process, as parents get it with a CONNECT.
    pub(crate) fn name(&self) -> Arc<str> {
        String::from_utf8_lossy(self.name.as_bytes()).into()
    }

    /// Returns whether a request has been through this process before.
    pub(super) fn has_looped(&self, fields: &Fields) -> bool {
        let lines = fields.get_all(CDN_LOOP).chain(fields.get_all(header::VIA));
        lines.into_iter().any(|line| {
            let mut words = line.as_bytes().windows(self.name.len());
            words.any(|word| word == self.name.as_bytes())
        })
    }

    pub(super) fn mark_request(&self, fields: &mut Fields, via: bool) {
        fields.append(CDN_LOOP, self.name.clone());
        if via {
            fields.append(header::VIA, self.via.clone());
        }
    }

    pub(super) fn mark_response(&self, fields: &mut Fields) {
        fields.append(header::VIA, self.via.clone());
    }
}

impl FieldsPresent {
    pub(super) fn of(fields: &Fields) -> Self {
        let mut present = Self::default();
        for (name, _) in fields {
            match name.as_str() {
                "authorization" => present.authorization = true,
                "connection" => present.connection = true,
                "content-length" => present.content_length = present.content_length.saturating_add(1),
                "expect" => present.expect = true,
                "host" => present.host = present.host.saturating_add(1),
                "cache-status" | "proxy-status" => present.status = true,
                "te" => present.te = true,
                "transfer-encoding" => {
                    present.transfer_encoding = present.transfer_encoding.saturating_add(1);
                }
                "upgrade" => present.upgrade = true,
                "cdn-loop" | "via" => present.passed = true,
                name => present.one_hop |= fields::goes_one_hop(name),
            }
        }
        present
    }
}

/// Refuses a request that two servers might understand differently.
///
/// The reader of the request has checked its framing already. HTTP/2 names the host elsewhere, so Host is not
/// checked.
pub(super) fn check<B>(
    request: &Request<B>,
    present: &FieldsPresent,
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
    // In HTTP/2 repeated lengths are equal, or hyper has reset the stream. But an HTTP/1.1 upstream would see both.
    if present.content_length > 1 {
        return Err(Error::NotHttp(Fault::LengthRepeated));
    }
    if mirror == Protocol::H1 {
        check_host(request, present)?;
    }
    let is_known = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    if present.expect && !request.headers().get_all(header::EXPECT).all(is_known) {
        return Err(Error::Expectation);
    }
    Ok(())
}

fn check_host<B>(request: &Request<B>, present: &FieldsPresent) -> Result<(), Error> {
    if present.host > 1 {
        return Err(Error::Malformed("it has more than one Host field"));
    }
    if present.host == 0 && request.version() == Version::HTTP_11 {
        return Err(Error::Malformed("it has no Host field"));
    }
    Ok(())
}

/// Counts Max-Forwards down (RFC 9110 section 7.6.2). Returns true if we have to answer the request ourselves.
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
        // A recipient may ignore a value that it cannot read.
        None => false,
    }
}

/// Refuses a CONNECT that is anything but `CONNECT host:port` without a body.
pub(super) fn check_connect<B>(request: &Request<Option<B>>) -> Result<(), Error> {
    if request.body().is_some() {
        return Err(Error::Malformed("a CONNECT request cannot have a body"));
    }
    if request.headers().get_all(header::HOST).count() > 1 {
        return Err(Error::Malformed("it has more than one Host field"));
    }
    Ok(())
}

/// The result of removing the hop-by-hop fields of a request.
pub(super) struct Stripped {
    pub(super) is_websocket: bool,
    /// Fields that Connection named, to be removed from the trailers too.
    pub(super) listed: Option<Arc<Listed>>,
}

/// Removes the hop-by-hop fields (RFC 9110 section 7.6.1) of a request, and finds out whether it asks for a
/// WebSocket.
///
/// Fields that frame or route the message stay, whatever Connection names. Credentials are attached afterwards.
pub(super) fn strip_request(fields: &mut Fields, present: &FieldsPresent) -> Stripped {
    let is_websocket = present.upgrade && asks_for(fields, WEBSOCKET);
    let wants_trailers = present.te
        && fields.get_all(header::TE).any(|te| {
            te.as_bytes()
                .to_ascii_lowercase()
                .windows(8)
                .any(|word| word == b"trailers")
        });
    let listed = strip(fields, present);
    if wants_trailers {
        fields.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    if is_websocket {
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    }
    Stripped { is_websocket, listed }
}

/// Removes the hop-by-hop fields of a response, and fields in which an upstream poses as us.
///
/// A 101 keeps the name of the new protocol. Fields that Connection named are put into the extensions, because they
/// have to be removed from the trailers too.
pub(super) fn strip_response<B>(response: &mut Response<B>) {
    let is_switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    let present = FieldsPresent::of(fields);
    let protocol = fields
        .get(header::UPGRADE)
        .filter(|_| is_switching && asks_for(fields, WEBSOCKET))
        .cloned();
    if present.transfer_encoding > 0 {
        // The body was read by its transfer coding. A length beside it could truncate it for the app (RFC 9112
        // section 6.3).
        fields.remove(header::CONTENT_LENGTH);
    }
    let listed = strip(fields, &present);
    if present.status {
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

fn strip(fields: &mut Fields, present: &FieldsPresent) -> Option<Arc<Listed>> {
    let listed = present.connection.then(|| Listed::of(fields)).flatten();
    if let Some(listed) = &listed {
        listed.remove_from(fields);
    }
    if present.connection {
        fields.remove(header::CONNECTION);
    }
    if present.te {
        fields.remove(header::TE);
    }
    if present.transfer_encoding > 0 {
        fields.remove(header::TRANSFER_ENCODING);
    }
    if present.upgrade {
        fields.remove(header::UPGRADE);
    }
    if present.one_hop {
        fields::remove_one_hop(fields);
    }
    listed
}

/// Whether `protocol` is the only one that the message wants to upgrade to.
pub(super) fn asks_for(fields: &Fields, protocol: &str) -> bool {
    let mut protocols = fields.get_all(header::UPGRADE);
    let (Some(named), None) = (protocols.next(), protocols.next()) else {
        return false;
    };
    let is_listed = fields
        .get_all(header::CONNECTION)
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    is_listed && named.as_bytes().eq_ignore_ascii_case(protocol.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&str, &str)]) -> Request<()> {
        let mut builder = http::Request::post("http://api.test/");
        for (name, value) in fields {
            builder = builder.header(*name, *value);
        }
        builder.body(()).unwrap().into()
    }

    fn checked<B>(request: &Request<B>) -> Result<(), Error> {
        check(
            request,
            &FieldsPresent::of(request.headers()),
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

    fn stripped(fields: &[(&str, &str)]) -> (Fields, bool) {
        let mut fields = request(fields).headers().clone();
        let present = FieldsPresent::of(&fields);
        let stripped = strip_request(&mut fields, &present);
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
            response
                .headers_mut()
                .append(name, HeaderValue::from_static(line));
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
            response
                .headers_mut()
                .append(name, HeaderValue::from_static(line));
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
        let (marks, others) = (LoopMarker::new(), LoopMarker::new());
        for via in [false, true] {
            let mut fields = Fields::new();
            fields.append(header::VIA, HeaderValue::from_static("1.0 a"));
            fields.append(CDN_LOOP, HeaderValue::from_static("fastly, b; c=d"));
            assert!(!marks.has_looped(&fields));
            others.mark_request(&mut fields, via);
            assert!(!marks.has_looped(&fields), "another one is no loop");
            marks.mark_request(&mut fields, via);
            assert!(marks.has_looped(&fields));
            assert_eq!(fields.get_all(header::VIA).count(), if via { 3 } else { 1 });
            fields.remove(if via { CDN_LOOP } else { header::VIA });
            assert!(marks.has_looped(&fields));
        }
    }
}
