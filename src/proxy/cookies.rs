//! Cookies for an app that asks in clear what leaves over TLS (`upgrade`).
//!
//! To the app the answer came over `http://`. So a client that keeps cookies either refuses one with `Secure` or never
//! sends it back there. The attribute is taken off where the cookie can go nowhere else than to this host. One with
//! `Domain` may also go to hosts that are asked in clear, so it stays as it is.

use http::header::{self, HeaderMap, HeaderValue};

/// Takes `Secure` off the cookies of an answer that are for its host alone.
pub(super) fn open(fields: &mut HeaderMap) {
    if !fields.contains_key(header::SET_COOKIE) {
        return;
    }
    for (name, line) in fields.iter_mut() {
        if name == header::SET_COOKIE
            && let Some(open) = opened(line)
        {
            *line = open;
        }
    }
}

/// `None`: it stays as it is.
fn opened(line: &HeaderValue) -> Option<HeaderValue> {
    let is = |part: &&[u8], name: &str| {
        let own = part.split(|byte| *byte == b'=').next().unwrap_or_default();
        own.trim_ascii().eq_ignore_ascii_case(name.as_bytes())
    };
    let (pair, attributes) = line
        .as_bytes()
        .split_at(line.as_bytes().iter().position(|byte| *byte == b';')?);
    let attributes = || attributes.split(|byte| *byte == b';').skip(1);
    if attributes().any(|part| is(&part, "domain")) || !attributes().any(|part| is(&part, "secure")) {
        return None;
    }
    let mut open = pair.to_vec();
    for part in attributes().filter(|part| !is(part, "secure")) {
        open.push(b';');
        open.extend_from_slice(part);
    }
    HeaderValue::from_bytes(&open).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_of_the_host_alone_loses_secure() {
        for (line, expected) in [
            ("sid=1; Secure", "sid=1"),
            ("sid=1; Path=/; Secure; HttpOnly", "sid=1; Path=/; HttpOnly"),
            ("sid=1;secure;path=/", "sid=1;path=/"),
            ("sid=1; SECURE ; Max-Age=5", "sid=1; Max-Age=5"),
            ("sid=1; Secure=; Secure", "sid=1"),
            ("__Host-sid=1; Path=/; Secure", "__Host-sid=1; Path=/"),
            ("sid=1; SameSite=None; Secure", "sid=1; SameSite=None"),
            ("Secure; Secure", "Secure"),
            ("=; Secure", "="),
        ] {
            let mut fields = HeaderMap::new();
            fields.append(header::SET_COOKIE, HeaderValue::from_static("first=1"));
            fields.append(header::SET_COOKIE, HeaderValue::from_static(line));
            open(&mut fields);
            let lines: Vec<_> = fields.get_all(header::SET_COOKIE).iter().collect();
            assert_eq!(lines, ["first=1", expected], "{line}");
        }
        for line in [
            "sid=1",
            "sid=Secure; Path=/",
            "Secure",
            "sid=1; Path=/secure",
            "sid=1; Domain=example.com; Secure",
            "sid=1; Secure; domain=example.com",
            "sid=1; Insecure; X-Secure",
        ] {
            let mut fields = HeaderMap::new();
            fields.append(header::SET_COOKIE, HeaderValue::from_static(line));
            open(&mut fields);
            assert_eq!(fields[header::SET_COOKIE], line);
        }
    }
}
