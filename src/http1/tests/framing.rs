//! Every row of RFC 9112 section 6.3.

use http::header::HeaderName;
use http::{Method, StatusCode, Version};

use crate::http1::framing::{Facts, Framing};

const NO_LENGTHS: [&str; 19] = [
    "",
    "+5",
    "-5",
    "-0",
    "5 5",
    "5,5",
    "5, 5",
    "0x5",
    "5a",
    "5.0",
    "1e3",
    "5;",
    "\u{ff15}",
    "½",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999",
    "chunked",
];

const NO_CODINGS: [&str; 14] = [
    "",
    "identity",
    "gzip",
    "gzip, chunked",
    "chunked, gzip",
    "chunked, chunked",
    "chunked,",
    ",chunked",
    "chunked;q=1",
    "\"chunked\"",
    "xchunked",
    "chunke",
    "chunked\u{a0}",
    "chunked, identity",
];

fn fields(lines: &[(&str, &str)]) -> Facts {
    let mut facts = Facts::default();
    for (name, value) in lines {
        facts.add(
            &HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.as_bytes(),
        );
    }
    facts
}

const CL: &str = "content-length";
const TE: &str = "transfer-encoding";
const OLD: Version = Version::HTTP_10;
const NEW: Version = Version::HTTP_11;

#[test]
fn a_request_ends_where_one_field_says_or_has_no_body() {
    for (version, lines, expected) in [
        (NEW, &[][..], Framing::None),
        (OLD, &[], Framing::None),
        (NEW, &[(CL, "0")], Framing::None),
        (NEW, &[(CL, "00")], Framing::None),
        (NEW, &[(CL, "5")], Framing::Length(5)),
        (OLD, &[(CL, "5")], Framing::Length(5)),
        (NEW, &[(CL, "0005")], Framing::Length(5)),
        (
            NEW,
            &[(CL, "9223372036854775807")],
            Framing::Length(i64::MAX.cast_unsigned()),
        ),
        (NEW, &[(TE, "chunked")], Framing::Chunked),
        (NEW, &[(TE, "ChUnKeD")], Framing::Chunked),
    ] {
        assert_eq!(
            Framing::of_request(version, &fields(lines)),
            Ok(expected),
            "{version:?} {lines:?}"
        );
    }
}

#[test]
fn a_request_that_two_readers_could_end_elsewhere_is_refused() {
    for (version, lines) in [
        (NEW, &[(CL, "5"), (CL, "6")][..]),
        (NEW, &[(CL, "5"), (CL, "5")]),
        (NEW, &[(CL, "5"), (TE, "chunked")]),
        (NEW, &[(TE, "chunked"), (CL, "0")]),
        (OLD, &[(TE, "chunked")]),
        (NEW, &[(TE, "chunked"), (TE, "chunked")]),
        (NEW, &[(TE, "chunked"), (TE, "identity")]),
        (NEW, &[(TE, "identity"), (TE, "chunked")]),
    ] {
        assert!(
            Framing::of_request(version, &fields(lines)).is_err(),
            "{version:?} {lines:?}"
        );
    }
    for value in NO_LENGTHS {
        assert!(
            Framing::of_request(NEW, &fields(&[(CL, value)])).is_err(),
            "{value:?}"
        );
    }
    for value in NO_CODINGS {
        assert!(
            Framing::of_request(NEW, &fields(&[(TE, value)])).is_err(),
            "{value:?}"
        );
    }
}

#[test]
fn a_response_ends_where_its_request_and_status_and_fields_say() {
    let (get, head, post) = (Method::GET, Method::HEAD, Method::POST);
    for (method, status, version, lines, expected) in [
        (&get, 200, NEW, &[][..], Framing::UntilClose),
        (&get, 200, OLD, &[], Framing::UntilClose),
        (&get, 200, NEW, &[(CL, "5")], Framing::Length(5)),
        (&get, 200, OLD, &[(CL, "5")], Framing::Length(5)),
        (&get, 200, NEW, &[(CL, "0")], Framing::None),
        (&post, 201, NEW, &[(CL, "5"), (CL, "5")], Framing::Length(5)),
        (&get, 200, NEW, &[(TE, "chunked")], Framing::Chunked),
        // The coding decides; that the connection is not used again is seen to elsewhere.
        (&get, 200, NEW, &[(TE, "chunked"), (CL, "5")], Framing::Chunked),
        (&get, 205, NEW, &[(CL, "5")], Framing::Length(5)),
        (&get, 206, NEW, &[(CL, "5")], Framing::Length(5)),
        (&head, 200, NEW, &[(CL, "5")], Framing::None),
        (&head, 200, NEW, &[(TE, "chunked")], Framing::None),
        (&head, 200, NEW, &[], Framing::None),
        (&get, 100, NEW, &[(CL, "5")], Framing::None),
        (&get, 101, NEW, &[(TE, "chunked")], Framing::None),
        (&get, 199, NEW, &[], Framing::None),
        (&get, 204, NEW, &[(CL, "5")], Framing::None),
        (&get, 304, NEW, &[(CL, "5")], Framing::None),
        (&get, 304, NEW, &[(TE, "chunked")], Framing::None),
        (&post, 500, NEW, &[], Framing::UntilClose),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        assert_eq!(
            Framing::of_response(method, status, version, &fields(lines)),
            Ok(expected),
            "{method} {status} {version:?} {lines:?}"
        );
    }
}

#[test]
fn a_response_whose_end_is_in_doubt_is_none() {
    let of = |method: &Method, status: u16, version, lines: &[(&str, &str)]| {
        let status = StatusCode::from_u16(status).unwrap();
        Framing::of_response(method, status, version, &fields(lines))
    };
    for value in NO_LENGTHS {
        assert!(of(&Method::GET, 200, NEW, &[(CL, value)]).is_err(), "{value:?}");
        // It would be passed on to the app.
        assert!(of(&Method::HEAD, 200, NEW, &[(CL, value)]).is_err(), "{value:?}");
        assert!(of(&Method::GET, 304, NEW, &[(CL, value)]).is_err(), "{value:?}");
    }
    for value in NO_CODINGS {
        assert!(of(&Method::GET, 200, NEW, &[(TE, value)]).is_err(), "{value:?}");
    }
    for (version, lines) in [
        (NEW, [(CL, "5"), (CL, "6")]),
        (NEW, [(TE, "chunked"), (TE, "chunked")]),
        (NEW, [(TE, "gzip"), (TE, "chunked")]),
        (OLD, [(TE, "chunked"), (CL, "5")]),
    ] {
        assert!(
            of(&Method::GET, 200, version, &lines).is_err(),
            "{version:?} {lines:?}"
        );
    }
}
