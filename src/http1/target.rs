//! Request targets with characters that no URL has, such as `?query=up{job="x"}`.
//!
//! Clients send them (`curl -g`), and nginx and HAProxy pass them on unchanged, so we do too. `http::Uri` accepts some of
//! them and refuses others. For those the URI holds the percent-encoded form, which policy, cache and log use, and a
//! [`RawTarget`] keeps what was sent. The percent-encoded form is sent over HTTP/2, and if the URI was changed or signed here:
//! it means the same, and is the form that was checked.

use bytes::{BufMut, Bytes, BytesMut};
use http::Uri;
use http::uri::PathAndQuery;

use super::Fault;

/// Printable ASCII that `http::Uri` refuses, in the path or in the query.
const RAW: &[u8] = b"\"<>`";

/// The path and query of a request as they were sent, if the URI cannot hold them.
#[derive(Clone, Debug)]
pub(crate) struct RawTarget {
    /// The form in the URI.
    encoded: PathAndQuery,
    sent: Bytes,
}

impl RawTarget {
    /// Reads a target that `http` has refused.
    pub(crate) fn read(target: &[u8]) -> Result<(Uri, Self), Fault> {
        let start = match target.first() {
            Some(b'/') => 0,
            _ => start_of_path(target).ok_or_else(|| fault(target))?,
        };
        let is_raw = |byte: &u8| RAW.contains(byte);
        if target[..start].iter().any(is_raw) || !target[start..].iter().any(is_raw) {
            return Err(fault(target));
        }
        let mut encoded = BytesMut::with_capacity(target.len() + 32);
        for byte in target {
            if is_raw(byte) {
                encoded.extend_from_slice(format!("%{byte:02X}").as_bytes());
            } else {
                encoded.put_u8(*byte);
            }
        }
        let uri = Uri::from_maybe_shared(encoded.freeze()).map_err(|_| fault(target))?;
        let sent = target[start..]
            .split(|byte| *byte == b'#')
            .next()
            .unwrap_or_default();
        let raw = Self {
            encoded: uri.path_and_query().cloned().ok_or_else(|| fault(target))?,
            sent: Bytes::copy_from_slice(sent),
        };
        Ok((uri, raw))
    }

    /// Returns what was sent, if `uri` is still the one that was read.
    pub(super) fn of<'r>(&'r self, uri: &Uri) -> Option<&'r [u8]> {
        (uri.path_and_query() == Some(&self.encoded)).then_some(&self.sent)
    }
}

/// Refuses a fragment with bytes that no part of a target may have: control characters, and what is not UTF-8. `http` removes
/// a fragment without a look at it, and other parsers refuse such a request, or end the line at a carriage return.
pub(super) fn check_fragment(target: &[u8]) -> Result<(), Fault> {
    let Some(start) = memchr::memchr(b'#', target) else {
        return Ok(());
    };
    let fragment = &target[start..];
    let control = fragment.iter().position(u8::is_ascii_control);
    let bad = control.or_else(|| str::from_utf8(fragment).err().map(|error| error.valid_up_to()));
    bad.map_or(Ok(()), |place| Err(Fault::Target(Some(fragment[place]))))
}

/// Makes the path of `OPTIONS http://host` a `*`, because it is about the whole server (RFC 9112 section 3.2.4). `http` has
/// added a slash if `target` has no path.
pub(super) fn mean_the_server(uri: &mut Uri, target: &[u8]) {
    let has_path = target.ends_with(b"/") || uri.path_and_query().is_none_or(|path| path.as_str() != "/");
    if uri.scheme().is_none() || has_path {
        return;
    }
    let mut parts = std::mem::take(uri).into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("*"));
    // They are the parts of a URI, and an asterisk is a path.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

/// Returns where the path, or a query without a path, begins in `http://host/path`.
fn start_of_path(target: &[u8]) -> Option<usize> {
    let authority = target.windows(3).position(|word| word == b"://")? + 3;
    let path = target[authority..].iter().position(|byte| b"/?".contains(byte))?;
    Some(authority + path)
}

/// Names the first byte that a target cannot have; one that is passed on only if there is no other.
fn fault(target: &[u8]) -> Fault {
    let is_bad = |byte: &&u8| !matches!(byte, 0x21..=0x7e);
    let is_raw = |byte: &&u8| RAW.contains(byte);
    let bad = target.iter().find(is_bad).or_else(|| target.iter().find(is_raw));
    Fault::Target(bad.copied())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_is_checked_like_the_rest_of_a_target() {
        for good in ["/", "/x#", "/#top", "http://a/?b#/c?d", "/#größe"] {
            assert_eq!(check_fragment(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, byte) in [
            (&b"/#\rx"[..], b'\r'),
            (b"/#\0", 0),
            (b"http://a#\x7f", 0x7f),
            (b"/#a\xc3(", 0xc3),
        ] {
            let fault = check_fragment(bad);
            assert_eq!(fault, Err(Fault::Target(Some(byte))), "{}", bad.escape_ascii());
        }
    }
}
