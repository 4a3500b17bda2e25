//! The language the tests are written in: a proxy, origins, certificates, wires and real clients.
//!
//! Everything blocks, one thread a connection, each read bounded by [`PATIENCE`]: a test reads top to bottom
//! and nothing in it can hang. Nothing here sleeps to create an order; [`eventually`] polls, for what only
//! becomes true in its own time (a metric, a line in the log).

use std::time::{Duration, Instant};

pub(crate) use message::{Request, Response, ok};
pub(crate) use nginx::Nginx;
pub(crate) use origin::Origin;
pub(crate) use pki::{Identity, Pki};
pub(crate) use programs::{ProgramOutput, run};
pub(crate) use proxy::Proxy;
pub(crate) use wire::Wire;

pub(crate) mod apache;
pub(crate) mod authorities;
pub(crate) mod authorization;
pub(crate) mod dns;
pub(crate) mod h2;
pub(crate) mod h2_origin;
pub(crate) mod hidden;
pub(crate) mod limited;
pub(crate) mod local_ports;
mod message;
pub(crate) mod nginx;
pub(crate) mod openssl;
pub(crate) mod origin;
pub(crate) mod packages;
pub(crate) mod parents;
pub(crate) mod partner;
pub(crate) mod pki;
pub(crate) mod platform;
pub(crate) mod programs;
pub(crate) mod prometheus;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod router;
pub(crate) mod verifier;
mod wire;

/// The longest that anything may take on a busy machine before the test gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Every secret of every test starts so; [`Proxy`] looks for it in all that the program ever wrote.
pub(crate) const CANARY: &str = "canary-2f6b";

/// Returns the line of `text` that contains a secret, in clear or in base64 at any offset.
/// Percent-encoding, JSON and HTML leave it as it is.
pub(crate) fn leak(text: &str) -> Option<String> {
    let base64 = (0..3).map(|before| {
        let padded = format!("{}{CANARY}", "x".repeat(before));
        // Characters that depend on the bytes before and after are left out.
        let whole = data_encoding::BASE64_NOPAD.encode(padded.as_bytes());
        whole[(before * 8).div_ceil(6)..padded.len() * 8 / 6].to_owned()
    });
    let mark = std::iter::once(CANARY.to_owned())
        .chain(base64)
        .find(|mark| text.contains(mark))?;
    let at = text.find(&mark)?;
    let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
    Some(text[line..].lines().next().unwrap_or_default().to_owned())
}

/// The bearer token of the tests.
pub(crate) const TOKEN: &str = "canary-2f6b-bearer-token";

/// Waits until `what` holds; panics with `claim` when it does not within [`PATIENCE`].
#[track_caller]
pub(crate) fn eventually(claim: &str, mut what: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !what() {
        assert!(Instant::now() < deadline, "never came true: {claim}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Returns a port on which nobody listens, and which the system gives to no connection and no listener on port 0.
pub(crate) fn closed_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| rand::random_range(10_000..32_000));
    let is_closed = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.by_ref().take(100).find(is_closed).unwrap()
}
