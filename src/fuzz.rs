//! The entry points of the fuzz targets in `tests/fuzz`: each reads bytes that come from outside, and checks what must hold
//! for any bytes.
//!
//! Built for fuzzing and for unit tests only. A function returns whether the bytes were accepted, and panics where a rule
//! is broken.

use std::time::{Duration, SystemTime};

use http::{HeaderName, HeaderValue, Method, StatusCode, Uri};

pub use crate::http1::fuzz::{Ends, Head};

use crate::config::Config;
use crate::host::{Host, HostError, HostPattern, Target};
use crate::http1;
use crate::limit;
use crate::message::Fields;
use crate::policy::Policy;
use crate::secret;
use crate::socks;
use crate::starttls;
use crate::store;

/// Reads the head of a request.
pub fn request_head(bytes: &[u8]) -> Option<Head> {
    http1::fuzz::request(bytes)
}

/// Reads the head of an answer to a request with `method`.
pub fn response_head(method: &Method, bytes: &[u8]) -> Option<Head> {
    http1::fuzz::response(method, bytes)
}

/// Reads a body; the first byte says how its end is known.
pub fn body(bytes: &[u8]) -> bool {
    let Some((kind, bytes)) = bytes.split_first() else {
        return false;
    };
    let ends = match kind % 4 {
        0 => Ends::Chunked,
        1 => Ends::UntilClose,
        2 => Ends::Nothing,
        _ => Ends::Length(u64::from(kind / 4)),
    };
    http1::fuzz::body(ends, bytes)
}

/// Reads the line that a chunk begins with, up to the first line feed, as the decoder does.
pub fn chunk_size(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    http1::fuzz::size(end.map_or(bytes, |end| &bytes[..=end]))
}

/// Reads a host, a target and a pattern of hosts. What is accepted has one form only, and `http` reads the same host.
pub fn host(text: &str) -> bool {
    let host = Host::parse(text);
    if let Ok(host) = &host {
        assert_eq!(
            Host::parse(&host.to_string()).as_ref(),
            Ok(host),
            "its own form is another host"
        );
        assert!(
            text.is_ascii() || matches!(host, Host::Name(_)),
            "an address is ASCII"
        );
    }
    if let Ok(pattern) = HostPattern::parse(text) {
        assert_eq!(HostPattern::parse(&pattern.to_string()), Ok(pattern));
    }
    if let Ok(uri) = text.parse::<Uri>() {
        one_target(&uri, Target::of_absolute(&uri));
        one_target(&uri, Target::of_connect(&uri));
    }
    host.is_ok()
}

fn one_target(uri: &Uri, target: Result<Target, HostError>) {
    let Ok(target) = target else { return };
    let written = target.to_string();
    assert!(target.is_named_by(&written), "{written} does not name itself");
    let connect = written.parse::<Uri>().expect("host and port are an authority");
    let again = Target::of_connect(&connect).expect("its own form is refused");
    assert_eq!((&again.host, again.port), (&target.host, target.port));
    let seen = uri.host().expect("a target has a host");
    assert_eq!(
        Host::parse(seen).as_ref(),
        Ok(&target.host),
        "http reads another host"
    );
    assert!(
        uri.port_u16().is_none_or(|port| port == target.port),
        "http reads another port"
    );
}

/// Reads what an answer says about limits. The first byte selects the status, the second the time; the fields follow.
pub fn limit_hints(bytes: &[u8]) -> bool {
    let Some(([kind, moment], lines)) = bytes.split_first_chunk() else {
        return false;
    };
    let status = [200, 403, 429, 500, 503, 599, 100, 304][usize::from(kind % 8)];
    let seconds = [0, 1_784_111_777, u64::from(u32::MAX), 60][usize::from(moment % 4)];
    let mut fields = Fields::new();
    for line in lines.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().and_then(|name| HeaderName::from_bytes(name).ok());
        let value = parts
            .next()
            .and_then(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
        if let (Some(name), Some(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let status = StatusCode::from_u16(status).expect("one of those above");
    limit::fuzz::hints(status, &fields, now)
}

/// Reads a configuration and compiles it. Problems have a message.
pub fn configuration(text: &str) -> bool {
    let policy = Config::parse(text, "outrider.yml").and_then(|config| Policy::compile(&config).map(|_| ()));
    match policy {
        Ok(()) => true,
        Err(problems) => {
            assert!(!problems.is_empty() && !problems.to_string().is_empty());
            false
        }
    }
}

/// Opens a PKCS#12 file. The first byte selects the password.
pub fn pkcs12(bytes: &[u8]) -> bool {
    let Some((kind, file)) = bytes.split_first() else {
        return false;
    };
    let password = [None, Some(&b""[..]), Some(b"secret"), Some(b"changeit")][usize::from(kind % 4)];
    secret::fuzz::store(file, password)
}

/// Reads certificates and keys, with a passphrase for those that are encrypted.
pub fn encrypted_key(bytes: &[u8]) -> bool {
    secret::fuzz::pem(bytes, b"secret")
}

/// Looks a key up in the JSON of bound services; the first line names service and key.
pub fn bound_services(bytes: &[u8]) -> bool {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (question, document) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let question = String::from_utf8_lossy(question);
    let mut words = question.split('/').map(str::to_owned);
    let service = words.next().unwrap_or_default();
    secret::fuzz::services(document, &service, &words.collect::<Vec<_>>())
}

/// Reads capsules of a UDP tunnel. The first byte says in pieces of how many bytes they arrive.
pub fn capsules(bytes: &[u8]) -> bool {
    let Some((size, bytes)) = bytes.split_first() else {
        return false;
    };
    http1::capsule::fuzz(bytes, usize::from(*size).max(1))
}

/// Reads an answer of the store.
pub fn resp(bytes: &[u8]) -> bool {
    store::fuzz::reply(bytes)
}

/// Reads what a client of SOCKS5 sends: greeting, user name and password where it offers them, and request. What is read
/// does not depend on how the bytes are cut into segments.
pub fn socks(bytes: &[u8]) -> bool {
    let Some((offered, rest)) = step(bytes, socks::greeting) else {
        return false;
    };
    let rest = if offered.password {
        let Some(((user, password), rest)) = step(rest, socks::credentials) else {
            return false;
        };
        assert!(user.len() <= 255 && password.len() <= 255);
        rest
    } else {
        rest
    };
    let Some((asked, _)) = step(rest, socks::request) else {
        return false;
    };
    if let Ok(host) = &asked.host {
        assert_eq!(
            Host::parse(&host.to_string()).as_ref(),
            Ok(host),
            "its own form is another host"
        );
    }
    asked.host.is_ok()
}

/// Reads one value, and the bytes after it. Fewer bytes are never enough for it, and more change nothing.
fn step<'b, T: PartialEq + std::fmt::Debug>(
    bytes: &'b [u8],
    read: impl Fn(&'b [u8]) -> socks::Parsed<T>,
) -> Option<(T, &'b [u8])> {
    let parsed = read(bytes).ok()?;
    let length = parsed.as_ref()?.1;
    for end in 0..length {
        assert_eq!(read(&bytes[..end]), Ok(None), "{end} of {length} bytes");
    }
    assert_eq!(read(&bytes[..length]).as_ref().ok(), Some(&parsed));
    let (value, _) = parsed?;
    Some((value, &bytes[length..]))
}

/// Reads what a server and an app say around the begin of TLS, in the protocol that the first byte names.
pub fn starttls(bytes: &[u8]) -> bool {
    starttls::fuzz::upgrade(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    /// Reads an input of a target, and returns whether it is accepted.
    type Reading = fn(&[u8]) -> bool;

    const TARGETS: [(&str, Reading); 14] = [
        ("body", body),
        ("bound_services", bound_services),
        ("capsules", capsules),
        ("chunk_size", chunk_size),
        ("configuration", |bytes| {
            str::from_utf8(bytes).is_ok_and(configuration)
        }),
        ("encrypted_key", encrypted_key),
        ("host", |bytes| str::from_utf8(bytes).is_ok_and(host)),
        ("limit_hints", limit_hints),
        ("pkcs12", pkcs12),
        ("request_head", |bytes| request_head(bytes).is_some()),
        ("resp", resp),
        ("response_head", |bytes| {
            response_head(&Method::GET, bytes.get(1..).unwrap_or_default()).is_some()
        }),
        ("socks", socks),
        ("starttls", starttls),
    ];

    /// Reads the seeds, and the inputs that once broke a rule.
    #[test]
    fn no_kept_input_breaks_a_rule() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
        for (target, read) in TARGETS {
            let Ok(inputs) = fs::read_dir(folder.join(target)) else {
                // Their seeds contain private keys, so `tests/fuzz/run` makes them.
                assert!(
                    matches!(target, "encrypted_key" | "pkcs12"),
                    "no seeds of {target}"
                );
                continue;
            };
            let inputs = inputs.map(|input| fs::read(input.unwrap().path()).unwrap());
            let accepted = inputs.filter(|bytes| read(bytes)).count();
            assert!(
                accepted > 0 || matches!(target, "encrypted_key" | "pkcs12"),
                "no seed of {target} is accepted"
            );
        }
    }
}
