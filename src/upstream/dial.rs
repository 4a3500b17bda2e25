//! TCP connections to approved addresses: happy eyeballs (RFC 8305), a limit on time, errors that name the cause.
//!
//! One address is dialled straight. Several are dialled in turn, IPv6 and IPv4 alternating from the family of the
//! first: the next one starts after a quarter of a second, or at once when one has failed, and the first that
//! answers wins. The sockets of the others are closed.
//!
//! This is the only place that opens a connection. What may be dialled is decided in `policy`, names become
//! addresses in [`super::resolve`], TLS is in [`super::tls`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::memory::MEMORY;
use crate::policy::Approved;
use crate::stream::bound_buffers;

/// Between the starts of two attempts: the recommended value of RFC 8305, section 5.
const STAGGER: Duration = Duration::from_millis(250);

/// Why no connection was made, of all addresses tried.
///
/// Of several errors the one is reported that a person can do most about: ours, then a refusal, then a missing route.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nothing may be dialled. The egress check never approves an empty list.
    #[error("there is no approved address to connect to")]
    Empty,
    /// This side cannot open a socket: no file descriptor, no port, no memory.
    #[error(
        "no socket could be opened towards {address}: this side is out of file descriptors, ports or memory; raise \
         them or lower limits.connections"
    )]
    Local { address: SocketAddr, source: io::Error },
    /// A reset came back. Cloud Foundry's security groups refuse like this, too.
    #[error(
        "{address} refused the connection: check the port, that the service is up, and the security groups on the way"
    )]
    Refused { address: SocketAddr, source: io::Error },
    /// No answer of any kind.
    #[error(
        "no address answered within {} (timeouts.connect); check the firewalls on the way, or raise it",
        humantime::format_duration(*.limit)
    )]
    Timeout { limit: Duration },
    /// No way there: no route, no IPv6, or a firewall that says so.
    #[error("there is no route to {address}: check the network and the security groups on the way")]
    Unreachable { address: SocketAddr, source: io::Error },
}

/// Connects to the first of `approved` that answers within `limit`.
///
/// The stream has TCP_NODELAY and keepalive set. Dropping the future closes every socket it has opened.
pub(crate) async fn dial(approved: &Approved, limit: Duration) -> Result<TcpStream, Error> {
    connect(approved.addresses(), limit).await
}

/// Opens a UDP socket towards the first of `approved` to which there is a route. Nothing is sent.
pub(crate) async fn udp(approved: &Approved, limit: Duration) -> Result<UdpSocket, Error> {
    let mut failure = Error::Empty;
    for address in approved.addresses() {
        match open_udp(*address).await {
            Ok(socket) => return Ok(socket),
            Err(source) => {
                let error = Error::of(source, *address, limit);
                if error.weight() > failure.weight() {
                    failure = error;
                }
            }
        }
    }
    Err(failure)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a place that connects; its caller holds an `Approved`"
)]
async fn open_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match address {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    if let Some(bytes) = MEMORY.kernel_buffer() {
        bound_buffers(&SockRef::from(&socket), bytes);
    }
    socket.connect(address).await?;
    Ok(socket)
}

impl Error {
    /// Returns the error type of RFC 9209.
    pub(crate) fn proxy_status(&self) -> &'static str {
        match self {
            Self::Empty | Self::Local { .. } => "proxy_internal_error",
            Self::Refused { .. } => "connection_refused",
            Self::Timeout { .. } => "connection_timeout",
            Self::Unreachable { .. } => "destination_ip_unroutable",
        }
    }

    fn of(source: io::Error, address: SocketAddr, limit: Duration) -> Self {
        match source.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
                Self::Refused { address, source }
            }
            io::ErrorKind::TimedOut => Self::Timeout { limit },
            // A local firewall's drop is EPERM.
            io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::PermissionDenied => Self::Unreachable { address, source },
            // If IPv6 is switched off the kernel has no source address; for IPv4 there are no free ports.
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported if address.is_ipv6() => {
                Self::Unreachable { address, source }
            }
            _ => Self::Local { address, source },
        }
    }

    /// Returns how much a person can do about it; see the type.
    fn weight(&self) -> u8 {
        match self {
            Self::Empty => 0,
            Self::Unreachable { .. } => 1,
            Self::Timeout { .. } => 2,
            Self::Refused { .. } => 3,
            Self::Local { .. } => 4,
        }
    }
}

async fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, Error> {
    let attempt = async {
        match addresses {
            [] => Err(Error::Empty),
            [only] => open(*only, limit).await,
            several => race(interleave(several), limit).await,
        }
    };
    timeout(limit, attempt)
        .await
        .unwrap_or(Err(Error::Timeout { limit }))
}

/// Happy eyeballs: `order` is tried from the front, [`STAGGER`] apart.
async fn race(order: Vec<SocketAddr>, limit: Duration) -> Result<TcpStream, Error> {
    // Owns the attempts: those that still run when this returns or is dropped are aborted, and their sockets closed.
    let mut attempts = JoinSet::new();
    let mut order = order.into_iter();
    let mut failure = Error::Empty;
    loop {
        if let Some(address) = order.next() {
            attempts.spawn(open(address, limit));
        }
        let ended = match order.len() {
            0 => attempts.join_next().await,
            _ => match timeout(STAGGER, attempts.join_next()).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) if error.weight() > failure.weight() => failure = error,
            // A lesser failure. An attempt that was aborted or panicked (neither happens) counts as one.
            Some(_) => {}
            None if order.len() == 0 => return Err(failure),
            None => {}
        }
    }
}

/// One attempt, and the socket options that every connection of ours has.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that connects; its callers hold an `Approved`"
)]
async fn open(address: SocketAddr, limit: Duration) -> Result<TcpStream, Error> {
    let connected = async {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(bytes) = MEMORY.kernel_buffer() {
            // Before it connects: what has been offered to the peer cannot be taken back.
            bound_buffers(&SockRef::from(&socket), bytes);
        }
        let stream = socket.connect(address).await?;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        Ok(stream)
    };
    connected.await.map_err(|error| Error::of(error, address, limit))
}

/// The families alternate, beginning with the first address's; within a family the order stays (RFC 8305, section 4).
fn interleave(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first_family = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut ours, mut theirs): (Vec<_>, Vec<_>) = addresses
        .iter()
        .copied()
        .partition(|a| a.is_ipv6() == first_family);
    ours.reverse();
    theirs.reverse();
    let mut order = Vec::with_capacity(addresses.len());
    while !(ours.is_empty() && theirs.is_empty()) {
        order.extend(ours.pop());
        order.extend(theirs.pop());
    }
    order
}

/// Silence after which the kernel asks whether the other side still lives. Firewalls forget quiet connections
/// after some minutes.
const KEEPALIVE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Instant;

    use socket2::{Domain, Socket, Type};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    /// A listener on 127.0.0.1 whose queue is full: it neither accepts nor refuses. Silent while the sockets live.
    fn silent() -> (SocketAddr, Vec<Socket>) {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener
            .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut held = vec![listener];
        for _ in 0..4 {
            let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            filler.set_nonblocking(true).unwrap();
            let _ = filler.connect(&address);
            held.push(filler);
        }
        (address.as_socket().unwrap(), held)
    }

    /// A port of 127.0.0.1 that nobody listens on, for as long as the bound socket lives.
    fn closed() -> (SocketAddr, Socket) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into())
            .unwrap();
        (socket.local_addr().unwrap().as_socket().unwrap(), socket)
    }

    fn open_listener() -> (SocketAddr, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[test]
    fn families_alternate_from_the_first_ones() {
        let cases: [(&[&str], &[&str]); 5] = [
            (&[], &[]),
            (&["10.0.0.1:1"], &["10.0.0.1:1"]),
            (
                &["10.0.0.1:1", "10.0.0.2:1", "[::1]:1"],
                &["10.0.0.1:1", "[::1]:1", "10.0.0.2:1"],
            ),
            (
                &["[::1]:1", "[::2]:1", "[::3]:1", "10.0.0.1:1"],
                &["[::1]:1", "10.0.0.1:1", "[::2]:1", "[::3]:1"],
            ),
            (
                &["[::1]:1", "10.0.0.1:1", "10.0.0.2:1"],
                &["[::1]:1", "10.0.0.1:1", "10.0.0.2:1"],
            ),
        ];
        for (given, expected) in cases {
            assert_eq!(interleave(&addresses(given)), addresses(expected), "{given:?}");
        }
    }

    #[test]
    fn causes_are_told_apart() {
        let v4 = "192.0.2.1:443".parse().unwrap();
        let v6 = "[2001:db8::1]:443".parse().unwrap();
        let cases = [
            (io::ErrorKind::ConnectionRefused, v4, "connection_refused"),
            (io::ErrorKind::ConnectionReset, v4, "connection_refused"),
            (io::ErrorKind::TimedOut, v4, "connection_timeout"),
            (io::ErrorKind::HostUnreachable, v4, "destination_ip_unroutable"),
            (io::ErrorKind::NetworkUnreachable, v6, "destination_ip_unroutable"),
            (io::ErrorKind::PermissionDenied, v4, "destination_ip_unroutable"),
            (io::ErrorKind::AddrNotAvailable, v6, "destination_ip_unroutable"),
            (io::ErrorKind::AddrNotAvailable, v4, "proxy_internal_error"),
            (io::ErrorKind::OutOfMemory, v4, "proxy_internal_error"),
        ];
        for (kind, address, expected) in cases {
            assert_eq!(
                Error::of(kind.into(), address, LIMIT).proxy_status(),
                expected,
                "{kind:?} {address}"
            );
        }
        // EMFILE, which has no stable kind.
        assert!(matches!(
            Error::of(io::Error::from_raw_os_error(24), v4, LIMIT),
            Error::Local { .. }
        ));
    }

    #[tokio::test]
    async fn a_connection_sends_at_once_and_is_kept_alive() {
        let (address, _listener) = open_listener();
        let stream = connect(&[address], LIMIT).await.unwrap();
        assert!(stream.nodelay().unwrap());
        assert!(SockRef::from(&stream).keepalive().unwrap());
        assert_eq!(SockRef::from(&stream).tcp_keepalive_time().unwrap(), KEEPALIVE);
    }

    #[tokio::test]
    async fn a_refusal_names_the_address() {
        let (address, _held) = closed();
        let error = connect(&[address], LIMIT).await.unwrap_err();
        assert_eq!(error.proxy_status(), "connection_refused");
        assert!(
            error.to_string().starts_with(&format!("{address} refused")),
            "{error}"
        );
    }

    #[tokio::test]
    async fn silence_ends_at_the_limit() {
        let (address, _held) = silent();
        let started = Instant::now();
        let error = connect(&[address, address], Duration::from_millis(300))
            .await
            .unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
        assert!(error.to_string().contains("within 300ms"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(3));
    }

    #[tokio::test]
    async fn after_a_refusal_the_next_is_tried_at_once() {
        let (bad, _held) = closed();
        let (good, _listener) = open_listener();
        let started = Instant::now();
        let stream = connect(&[bad, bad, bad, bad, bad, bad, bad, bad, good], LIMIT)
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(
            started.elapsed() < STAGGER * 4,
            "eight staggered attempts take two seconds"
        );
    }

    #[tokio::test]
    async fn a_silent_address_does_not_hold_the_next() {
        let (bad, _held) = silent();
        let (good, _listener) = open_listener();
        let started = Instant::now();
        let stream = connect(&[bad, good], LIMIT).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(started.elapsed() >= STAGGER);
    }

    #[tokio::test]
    async fn of_several_failures_the_refusal_is_told() {
        let (refused, _held) = closed();
        let unreachable = "[100::1]:9".parse().unwrap();
        let error = connect(&[unreachable, refused], LIMIT).await.unwrap_err();
        assert_eq!(error.proxy_status(), "connection_refused", "{error:?}");
    }

    #[tokio::test]
    async fn nothing_to_dial_is_an_error() {
        assert!(matches!(connect(&[], LIMIT).await, Err(Error::Empty)));
    }
}
