//! CONNECT-UDP (RFC 9298): a GET whose connection becomes a tunnel for the UDP packets of one target.
//!
//! A client that speaks nothing but HTTP/3 asks for it. What is inside QUIC cannot be seen, so such a tunnel goes
//! only where a blind one may go. A destination that is intercepted has to be asked over TCP.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderValue, Method, StatusCode, Version, header};
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UdpSocket;

use super::splice::{self, Moved};
use super::tunnel::{self, TunnelSlot};
use super::{AppResponse, Error, Live, Proxy, headers, reply};
use crate::clients::Client;
use crate::drain::{Drain, ExchangeGuard};
use crate::host::{Host, Scheme, Target};
use crate::http1::capsule::{CapsuleReader, capsule};
use crate::http1::server::TakenOver;
use crate::limit::Permit;
use crate::memory;
use crate::message::{Request, Response};
use crate::policy::Denial;
use crate::stream::{self, Io, Rewound};
use crate::telemetry::{Exchange, TunnelEnd};
use crate::upstream::{Incoming, connect as upstream};

/// The path of RFC 9298 section 2, before `HOST/PORT/`.
const PATH: &str = "/.well-known/masque/udp/";
const PROTOCOL: &str = "connect-udp";

/// A UDP socket with one target, before the app gets its 101.
struct UdpTunnel {
    idle: Duration,
    permit: Option<Permit>,
    slot: TunnelSlot,
    socket: UdpSocket,
}

/// Whether a request asks for a UDP tunnel. Its authority is that of outrider, whatever the app calls it.
pub(super) fn is_asked<B>(request: &Request<B>) -> bool {
    request.uri().path().starts_with(PATH) && headers::asks_for(request.headers(), PROTOCOL)
}

/// Answers a request that asks for a UDP tunnel.
pub(super) async fn connect(
    request: Request<Option<Incoming>>,
    live: Arc<Live>,
    client: Option<Arc<Client>>,
    mut exchange: Box<Exchange>,
    proxy: Arc<Proxy>,
) -> AppResponse<Io> {
    let busy = proxy.drain.busy();
    match open(&request, &live, client.as_ref(), &mut exchange, &proxy).await {
        Ok(tunnel) => tunnel.start(exchange, proxy, busy),
        // Capsules may follow, which must not be read as a request.
        Err(error) => AppResponse::Response(reply::refuse(&error, &mut exchange, true)),
    }
}

async fn open(
    request: &Request<Option<Incoming>>,
    live: &Live,
    client: Option<&Arc<Client>>,
    exchange: &mut Exchange,
    proxy: &Arc<Proxy>,
) -> Result<UdpTunnel, Error> {
    headers::check_connect(request)?;
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err(Error::Malformed(
            "a CONNECT-UDP request has the method GET and the version HTTP/1.1 (RFC 9298 section 3.2)",
        ));
    }
    let target = target_of(request.uri().path()).ok_or(Error::Malformed(
        "the path of a CONNECT-UDP request is /.well-known/masque/udp/HOST/PORT/ (RFC 9298 section 3)",
    ))?;
    exchange.set_target(&target);
    let (route, is_intercepted) = live.route_tunnel(&target, client, request, exchange)?;
    if is_intercepted {
        let destination = Arc::clone(&route.destination.name);
        return Err(Denial::Udp { destination }.into());
    }
    let slot = TunnelSlot::take(proxy, live.limits.tunnels, memory::REQUEST)?;
    let permit = tunnel::admit(&target, route, exchange).await?;
    exchange.asked_upstream();
    let opened = upstream::open_udp(&target, &route.endpoint, proxy.network(live)).await;
    permit.iter().for_each(Permit::used);
    Ok(UdpTunnel {
        idle: route.destination.timeouts.idle,
        permit,
        slot,
        socket: opened?,
    })
}

/// Reads the target out of the path. An IPv6 address has no brackets there.
fn target_of(path: &str) -> Option<Target> {
    let (host, port) = path.strip_prefix(PATH)?.split_once('/')?;
    let host = percent_decode_str(host).decode_utf8().ok()?;
    let host = if host.contains(':') {
        Host::parse(&format!("[{host}]"))
    } else {
        Host::parse(&host)
    };
    let port = port.strip_suffix('/').unwrap_or(port);
    let is_number = port.bytes().all(|byte| byte.is_ascii_digit());
    Some(Target {
        scheme: Scheme::Https,
        host: host.ok()?,
        port: port.parse().ok().filter(|port| is_number && *port != 0)?,
    })
}

impl UdpTunnel {
    /// Answers 101, and then moves packets.
    fn start(self, mut exchange: Box<Exchange>, proxy: Arc<Proxy>, busy: ExchangeGuard) -> AppResponse<Io> {
        exchange.answered_here(StatusCode::SWITCHING_PROTOCOLS);
        exchange.tunnel();
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let fields = response.headers_mut();
        fields.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        fields.insert(header::UPGRADE, HeaderValue::from_static(PROTOCOL));
        fields.insert("capsule-protocol", HeaderValue::from_static("?1"));
        let join = move |app, early| -> TakenOver {
            drop(busy);
            Box::pin(async move {
                let Self {
                    idle,
                    permit,
                    slot,
                    socket,
                } = self;
                let moved = relay(Rewound::new(early, app), &socket, idle, &proxy.drain).await;
                tunnel::end(exchange, moved, None);
                drop((permit, slot));
            })
        };
        AppResponse::Switch(response, Box::new(join))
    }
}

/// Moves packets both ways until the app closes its connection, something fails, or it is quiet for `idle`.
async fn relay(
    app: impl AsyncRead + AsyncWrite + Unpin,
    socket: &UdpSocket,
    idle: Duration,
    drain: &Drain,
) -> Moved {
    let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
    let (from_app, to_app) = tokio::io::split(app);
    // UDP has no half-close, so the end of one direction is the end of both.
    let result = tokio::select! {
        result = upload(from_app, socket, &sent, drain) => result.map(|()| TunnelEnd::Closed),
        result = download(socket, to_app, &received, drain) => result.map(|never| match never {}),
        () = splice::silence(&sent, &received, idle) => Ok(TunnelEnd::Idle),
    };
    let end = result.unwrap_or_else(|error| {
        tracing::debug!(error = &error as &dyn std::error::Error, "a UDP tunnel failed");
        TunnelEnd::Failed
    });
    Moved {
        sent: sent.into_inner(),
        received: received.into_inner(),
        end,
    }
}

/// Sends each payload that the app writes as a packet.
async fn upload(
    mut app: impl AsyncRead + Unpin,
    socket: &UdpSocket,
    count: &AtomicU64,
    drain: &Drain,
) -> io::Result<()> {
    let (mut reader, mut buffer) = (CapsuleReader::default(), BytesMut::new());
    loop {
        while let Some(payload) = reader.next(&mut buffer).map_err(io::Error::other)? {
            match socket.send(&payload).await {
                // It does not fit through the path: lost, as a packet may be.
                Err(error) if error.raw_os_error() == Some(TOO_LONG) => continue,
                result => drop(result?),
            }
            count.fetch_add(payload.len() as u64, Ordering::Relaxed);
            drain.moved();
        }
        if buffer.is_empty() {
            // An idle tunnel keeps no memory.
            buffer = BytesMut::new();
        }
        if app.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Writes each packet of the target to the app. While the app does not read, the system drops packets.
async fn download(
    socket: &UdpSocket,
    mut app: impl AsyncWrite + Unpin,
    count: &AtomicU64,
    drain: &Drain,
) -> io::Result<std::convert::Infallible> {
    loop {
        socket.readable().await?;
        let (length, capsule) = match stream::with_buffer(|buffer| receive(socket, buffer)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            // Lost, as a packet may be.
            Ok(None) => continue,
            Ok(Some(packet)) => packet,
            Err(error) => return Err(error),
        };
        app.write_all(&capsule).await?;
        app.flush().await?;
        count.fetch_add(length as u64, Ordering::Relaxed);
        drain.moved();
    }
}

/// Receives a packet. Returns its length and its capsule; `None`: it fills the buffer, and may have been cut. That happens
/// only where memory is short, because the whole buffer is larger than any packet.
fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, Vec<u8>)>> {
    let length = socket.try_recv(buffer)?;
    Ok((length < buffer.len()).then(|| (length, capsule(&buffer[..length]))))
}

/// EMSGSIZE.
const TOO_LONG: i32 = rustix::io::Errno::MSGSIZE.raw_os_error();

#[cfg(test)]
mod tests {
    use super::*;

    /// Half a packet would be another packet.
    #[tokio::test]
    async fn a_packet_that_does_not_fit_into_the_buffer_is_lost() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let target = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for payload in [&b"longer than eight"[..], b"whole"] {
            target
                .send_to(payload, socket.local_addr().unwrap())
                .await
                .unwrap();
        }
        let mut received = Vec::new();
        while received.len() < 2 {
            socket.readable().await.unwrap();
            match receive(&socket, &mut [0; 8]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                packet => received.push(packet.unwrap()),
            }
        }
        assert_eq!(received, [None, Some((5, capsule(b"whole")))]);
    }

    #[test]
    fn the_path_names_the_target() {
        let read = |rest: &str| target_of(&format!("{PATH}{rest}")).map(|target| target.to_string());
        for (rest, target) in [
            ("API.test/443/", "api.test:443"),
            ("api.test./443", "api.test:443"),
            ("192.0.2.6/53/", "192.0.2.6:53"),
            ("2001%3Adb8%3A%3A42/443/", "[2001:db8::42]:443"),
            ("2001:db8::42/443/", "[2001:db8::42]:443"),
            ("%3A%3Affff%3A192.0.2.6/443/", "192.0.2.6:443"),
            ("%61pi.test/443/", "api.test:443"),
        ] {
            assert_eq!(read(rest).as_deref(), Some(target), "{rest}");
        }
        for rest in [
            "",
            "/443/",
            "api.test",
            "api.test/",
            "api.test/0/",
            "api.test/+443/",
            "api.test/65536/",
            "api.test/443/more",
            "api.test/443//",
            "api.test:443/443/",
            "api%2Ftest/443/",
            "api%00test/443/",
            "api%ff/443/",
            "user%40api.test/443/",
            "fe80%3A%3A1%25eth0/443/",
            "%5B%3A%3A1%5D/443/",
            "127.1/443/",
            "*/443/",
        ] {
            assert_eq!(read(rest), None, "{rest}");
        }
    }
}
