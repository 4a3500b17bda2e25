//! Request targets with characters that no URL has, such as `?query=up{job="x"}`.
//!
//! Clients send them (`curl -g`), and nginx and HAProxy pass them on as they are, so we do, too. `http::Uri` takes some of
//! them and refuses others: of these the URI holds the percent-encoded form, by which policy, cache and log judge, and a
//! [`RawTarget`] keeps what was sent. Over HTTP/2, and where the URI was changed or signed on the way, the percent-encoded
//! form is sent: it means the same, and is what was judged.

use bytes::{BufMut, Bytes, BytesMut};
use http::Uri;
use http::uri::PathAndQuery;

use super::Fault;

/// The path and query of a request as they were sent, where the URI cannot hold them.
#[derive(Clone, Debug)]
pub(crate) struct RawTarget {
    /// In the URI.
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

    /// What was sent, where `uri` is still the one that was read.
    pub(super) fn of<'r>(&'r self, uri: &Uri) -> Option<&'r [u8]> {
        (uri.path_and_query() == Some(&self.encoded)).then_some(&self.sent)
    }
}

/// `OPTIONS http://host` is about the server as a whole, and leaves as `OPTIONS *` (RFC 9112 section 3.2.4). `http` has put
/// a slash where `target` has no path.
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

/// Where the path, or a query without one, begins in `http://host/path`.
fn start_of_path(target: &[u8]) -> Option<usize> {
    let authority = target.windows(3).position(|word| word == b"://")? + 3;
    let path = target[authority..].iter().position(|byte| b"/?".contains(byte))?;
    Some(authority + path)
}

/// The first byte that a target cannot have, those aside that are passed on.
fn fault(target: &[u8]) -> Fault {
    let is_bad = |byte: &&u8| !matches!(byte, 0x21..=0x7e);
    let is_raw = |byte: &&u8| RAW.contains(byte);
    let bad = target.iter().find(is_bad).or_else(|| target.iter().find(is_raw));
    Fault::Target(bad.copied())
}

/// Printable ASCII that `http::Uri` refuses, in the path or in the query.
const RAW: &[u8] = b"\"<>`";
