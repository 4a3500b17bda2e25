//! Cookies for an app that sends a request in cleartext which leaves over TLS (`upgrade`).
//!
//! For the app the response came over `http://`. Its client either refuses a cookie with `Secure` or never sends it
//! back. So we remove the attribute if the cookie can only go back to this host. A cookie with `Domain` may also go
//! to hosts that the app reaches in cleartext, so it keeps the attribute.

use http::header::{self, HeaderValue};

use crate::message::Fields;

/// Removes `Secure` from the cookies of a response that are for its host only.
pub(super) fn remove_secure(fields: &mut Fields) {
    if !fields.contains_key(header::SET_COOKIE) {
        return;
    }
    for (name, line) in fields.iter_mut() {
        if name == header::SET_COOKIE
            && let Some(open) = without_secure(line)
        {
            *line = open;
        }
    }
}

/// Returns the cookie without `Secure`. `None`: it stays unchanged.
fn without_secure(line: &HeaderValue) -> Option<HeaderValue> {
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
            let mut fields = Fields::new();
            fields.append(header::SET_COOKIE, HeaderValue::from_static("first=1"));
            fields.append(header::SET_COOKIE, HeaderValue::from_static(line));
            remove_secure(&mut fields);
            let lines: Vec<_> = fields.get_all(header::SET_COOKIE).collect();
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
            let mut fields = Fields::new();
            fields.append(header::SET_COOKIE, HeaderValue::from_static(line));
            remove_secure(&mut fields);
            assert_eq!(fields[header::SET_COOKIE], line);
        }
    }
}
