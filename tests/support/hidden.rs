//! Requests with another one hidden behind them. In their bytes `{url}` and `{host}` are replaced by the origin's.

use super::{Origin, Proxy};

/// Starts a proxy with one destination, without TLS or credentials.
pub(crate) fn plain(origin: &Origin) -> Proxy {
    Proxy::start(&format!(
        r#"
        destinations:
          plain: {{ hosts: ["{}"], timeouts: {{ response: 5s }} }}
        "#,
        origin.authority()
    ))
}

/// Sends each request with a second one hidden behind it. Each must be answered with one of `statuses` and
/// the connection closed; the origin must have seen nothing of either.
#[track_caller]
pub(crate) fn assert_refused(cases: &[(&str, &[u8])], statuses: &[u16]) {
    let origin = Origin::plain();
    let proxy = plain(&origin);
    let mut wrong = Vec::new();
    for (name, request) in cases {
        let mut wire = proxy.wire();
        wire.send(fill(request, &origin)).send(fill(
            b"GET {url}/smuggled HTTP/1.1\r\nHost: {host}\r\n\r\n",
            &origin,
        ));
        match wire.try_response() {
            Ok(response) if !statuses.contains(&response.status) => {
                wrong.push(format!("{name}: answered {}", response.status));
            }
            Ok(_) if !wire.closes() => wrong.push(format!("{name}: the connection goes on")),
            Ok(_) => {}
            Err(error) => wrong.push(format!("{name}: no answer: {error}")),
        }
        let seen = origin.seen().len();
        if seen > 0 {
            wrong.push(format!("{name}: the origin was dialled: {:?}", origin.raw()));
            break;
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Replaces `{url}` and `{host}` by the origin's.
pub(crate) fn fill(request: &[u8], origin: &Origin) -> Vec<u8> {
    let mut filled = replace(request, b"{url}", origin.url("").as_bytes());
    filled = replace(&filled, b"{host}", origin.authority().as_bytes());
    filled
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut result = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        result.extend_from_slice(&rest[..at]);
        result.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    result.extend_from_slice(rest);
    result
}
