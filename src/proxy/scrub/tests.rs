use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn matcher(secrets: &[&str]) -> SecretMatcher {
    let mut matcher = SecretMatcher::default();
    for secret in secrets {
        assert!(matcher.add(secret.as_bytes()), "{secret}");
    }
    matcher
}

/// Returns the output for a text in `pieces`. `knows_end`: the filter knows which piece is the last one.
fn through(matcher: &SecretMatcher, pieces: &[&[u8]], knows_end: bool) -> Vec<u8> {
    let mut filter = BodyFilter::default();
    let (mut left, mut text) = (Vec::new(), Vec::new());
    for (number, piece) in pieces.iter().enumerate() {
        text.extend_from_slice(piece);
        let is_last = knows_end && number + 1 == pieces.len();
        left.extend_from_slice(&filter.push(Bytes::copy_from_slice(piece), is_last, matcher));
        // Every held-back byte may be part of a secret.
        let held = matcher.search(&text, is_last, |_| {});
        assert_eq!(left.len(), text.len() - held);
    }
    left.extend_from_slice(&filter.push(Bytes::new(), true, matcher));
    left
}

/// Returns the expected output: the whole text searched at once.
fn whole(matcher: &SecretMatcher, text: &[u8]) -> Vec<u8> {
    let mut left = text.to_vec();
    matcher.search(text, true, |place| left[place].fill(b'*'));
    left
}

/// In two or three pieces at any place, or in single bytes.
#[test]
fn no_border_hides_a_secret() {
    let matcher = matcher(&["canary-7f3a", "ab+cd/ef==", "cd/ef==gh", "aabaabaab"]);
    for text in [
        "canary-7f3a",
        "-canarcanary-7f3acanary-7f3a-canary-7f3",
        "{\"a\":\"ab%2Bcd%2Fef%3D%3D\",\"b\":\"ab\\u002Bcd\\/ef==\"}",
        "<p>ab&#43;cd&#x2F;ef==gh</p> canary",
        "aabaabaabaabaab ab+cd/ef==gh aabaaba",
        "nothing that anybody would look for",
    ] {
        let (bytes, wanted) = (text.as_bytes(), whole(&matcher, text.as_bytes()));
        for knows_end in [true, false] {
            let single: Vec<_> = bytes.chunks(1).collect();
            assert_eq!(through(&matcher, &single, knows_end), wanted);
            for first in 0..=bytes.len() {
                for second in first..=bytes.len() {
                    let pieces = [&bytes[..first], &bytes[first..second], &bytes[second..]];
                    assert_eq!(
                        through(&matcher, &pieces, knows_end),
                        wanted,
                        "{text} {first} {second}"
                    );
                }
            }
        }
    }
    assert_eq!(
        String::from_utf8(whole(&matcher, b"ab%2bcd%2Fef%3D%3Dgh aabaabaabaab")).unwrap(),
        "******************** ************"
    );
}

/// Secrets that overlap themselves and each other, in texts made of their parts.
#[test]
fn any_text_in_any_pieces_comes_out_as_the_whole_would() {
    let mut random = StdRng::seed_from_u64(7);
    let mut redacted = 0;
    for _ in 0..3000 {
        let letters: &[u8] = [b"ab" as &[u8], b"ab/", b"a+&\\%", b"+/"][random.random_range(0..4)];
        let secrets: Vec<String> = (0..random.random_range(1..4))
            .map(|_| {
                let length = random.random_range(8..12);
                let letter = |_| char::from(letters[random.random_range(0..letters.len())]);
                (0..length).map(letter).collect()
            })
            .collect();
        let matcher = matcher(&secrets.iter().map(String::as_str).collect::<Vec<_>>());
        let mut text = String::new();
        for _ in 0..random.random_range(1..8) {
            let secret = &secrets[random.random_range(0..secrets.len())];
            let begin = random.random_range(0..secret.len() / 2);
            let end = random.random_range(secret.len() / 2..=secret.len());
            let piece = &secret
                [if random.random() { begin } else { 0 }..if random.random() { end } else { secret.len() }];
            text += &match random.random_range(0..3) {
                0 => piece.replace('/', "%2F").replace('+', "%2b"),
                1 => piece.replace('\\', "\\\\").replace('/', "\\/"),
                _ => piece.to_owned(),
            };
        }
        let wanted = whole(&matcher, text.as_bytes());
        redacted += usize::from(wanted != text.as_bytes());
        for knows_end in [true, false] {
            let (mut pieces, mut rest) = (Vec::new(), text.as_bytes());
            while !rest.is_empty() {
                let (piece, more) = rest.split_at(random.random_range(0..=rest.len().min(9)));
                pieces.push(piece);
                rest = more;
            }
            assert_eq!(
                through(&matcher, &pieces, knows_end),
                wanted,
                "{secrets:?} {text}"
            );
        }
    }
    assert!(redacted > 2000, "{redacted} of 3000 texts with a secret in them");
}

/// An event ends with a line end, with which no secret begins.
#[test]
fn an_event_is_not_held_back() {
    let matcher = matcher(&["canary-7f3a"]);
    let mut filter = BodyFilter::default();
    for event in [
        "data: c\n\n",
        "data: canary-7f3\n\n",
        "data: canary-7f3a\n\n",
        ": c\n",
    ] {
        let left = filter.push(Bytes::from(event), false, &matcher);
        assert_eq!(left.len(), event.len());
        assert!(filter.held.is_empty());
    }
    // Only a possible beginning of a secret is held back.
    assert_eq!(
        &filter.push(Bytes::from("is a canary"), false, &matcher)[..],
        b"is a "
    );
    assert_eq!(&filter.push(Bytes::from("-7f3"), false, &matcher)[..], b"");
    assert_eq!(
        &filter.push(Bytes::from("b"), false, &matcher)[..],
        b"canary-7f3b"
    );
}

#[test]
fn fields_lose_their_secrets_and_nothing_else() {
    let matcher = matcher(&["canary-7f3a", "12345678"]);
    let mut map = Fields::new();
    for (name, value) in [
        ("content-length", "12345678"),
        ("location", "/p?key=canary-7f3a&x=canary-7f3a"),
        ("set-cookie", "a=b"),
        ("set-cookie", "c=canary-7f3a; Secure"),
    ] {
        map.append(name, HeaderValue::from_static(value));
    }
    assert!(fields(map.iter_mut(), &matcher));
    assert_eq!(map["content-length"], "12345678");
    assert_eq!(map["location"], "/p?key=***********&x=***********");
    let cookies: Vec<_> = map.get_all("set-cookie").collect();
    assert_eq!(cookies, ["a=b", "c=***********; Secure"]);
    assert!(!fields(map.iter_mut(), &matcher));
}

#[test]
fn texts_are_told_by_their_type() {
    let typed =
        |value: &'static str| Fields::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
    for text in [
        "text/plain",
        "Text/HTML; charset=utf-8",
        "text/event-stream",
        "application/json",
        "application/problem+json;charset=utf-8",
        "application/vnd.api+json",
        "application/atom+xml",
        "image/svg+xml",
        "application/x-ndjson",
        "application/x-javascript",
        "application/x-www-form-urlencoded",
        "application/yaml",
        "multipart/form-data; boundary=x",
        "message/http",
        "text",
        "",
    ] {
        assert!(is_text(&typed(text)), "{text}");
    }
    assert!(is_text(&Fields::new()));
    for other in [
        "image/png",
        "application/octet-stream",
        "video/mp4",
        "application/gzip",
        "application/pdf",
        "application/grpc+proto",
    ] {
        assert!(!is_text(&typed(other)), "{other}");
    }
}

#[test]
fn what_cannot_be_read_is_known() {
    let of = |name: &'static str, value: &'static str| {
        unreadable(
            StatusCode::OK,
            &Fields::from_iter([(HeaderName::from_static(name), HeaderValue::from_static(value))]),
        )
    };
    for coding in ["gzip", "br", "identity, gzip", "zstd", "X-GZIP"] {
        assert!(
            of("content-encoding", coding).is_some_and(|why| why.contains("compressed")),
            "{coding}"
        );
    }
    for coding in ["", "identity", "Identity,"] {
        assert_eq!(of("content-encoding", coding), None);
    }
    for kind in [
        "text/html; charset=UTF-16",
        "text/plain;charset=\"utf-16le\"",
        "text/plain; charset=UTF-32",
    ] {
        assert!(
            of("content-type", kind).is_some_and(|why| why.contains("charset")),
            "{kind}"
        );
    }
    for kind in [
        "text/html",
        "text/html; charset=utf-8",
        "text/html; charset=iso-8859-1",
        "text/html; charset=Shift_JIS",
    ] {
        assert_eq!(of("content-type", kind), None);
    }
    assert!(unreadable(StatusCode::PARTIAL_CONTENT, &Fields::new()).is_some());
}
