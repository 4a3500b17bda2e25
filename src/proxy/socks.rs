//! SOCKS5 on the listener: the way to a tunnel, as by CONNECT, for clients of other protocols than HTTP.
//!
//! The client is told of the connection once the upstream is connected. A refusal is a code of one byte, so the sentence is
//! in the log. How SOCKS5 is written is in [`crate::socks`]; what happens to the target, in [`super::open`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode, Uri};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::admission::TunnelSender;
use super::{Error, Opened, Proxy, open, reply};
use crate::clients::{Clients, Peer, Shown, basic_token};
use crate::host::{Host, HostError, Scheme, Target};
use crate::http1::server::TakenOver;
use crate::message::Request;
use crate::socks::{self, OfferedMethods, Parsed, ReplyCode, SocksFault};
use crate::stream::{Hangup, Io, Reset};
use crate::telemetry::Exchange;

/// The time for all that a client sends before it is connected.
const NEGOTIATION: Duration = Duration::from_secs(30);
/// How often we look whether the client has left while its upstream is being connected.
const LOOK: Duration = Duration::from_millis(100);
/// How long, and how many bytes, a refused client is still read, so that the refusal reaches it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 1024 * 1024;

/// A client that has not been connected yet.
struct Negotiation {
    io: Io,
    ahead: BytesMut,
}

/// Why a client is not connected.
enum Refused {
    /// It has left, and needs no answer.
    Gone,
    /// With the bytes of the answer.
    For(Box<Error>, Answer),
}

/// What a refused client is told.
enum Answer {
    /// Or what it is told has been written.
    Nothing,
    Password,
    Reply(ReplyCode),
}

/// What a client asks for, and how its sender is known.
struct SocksRequest {
    sender: TunnelSender,
    target: Target,
}

/// Serves a client. Returns the tunnel, once it is connected.
pub(super) async fn serve(
    io: Io,
    ahead: Bytes,
    peer: Option<Arc<Peer>>,
    proxy: Arc<Proxy>,
) -> Option<TakenOver> {
    let mut negotiation = Negotiation {
        io,
        ahead: ahead.into(),
    };
    // Counts nothing until the request is known: a connection that is only opened is no request.
    let mut exchange = Exchange::begin(&proxy.telemetry, &Method::CONNECT, &Uri::default());
    let asked = negotiation.request(peer.as_ref(), &mut exchange, &proxy);
    let asked = match tokio::time::timeout(NEGOTIATION, asked).await {
        Ok(asked) => asked,
        Err(_) => Err(Refused::by(SocksFault::Slow, Answer::Nothing)),
    };
    let busy = proxy.drain.busy();
    let opened = match asked {
        Ok(SocksRequest { sender, target }) => negotiation.open(target, sender, &mut exchange, &proxy).await,
        Err(refused) => Err(refused),
    };
    match opened {
        Err(Refused::Gone) => {
            // As with a request whose head never came.
            if !exchange.has_content() {
                exchange.discard();
            }
            None
        }
        Err(Refused::For(error, answer)) => {
            reply::record_socks5(&error, &mut exchange);
            drop(exchange);
            negotiation.refuse(&answer).await;
            None
        }
        Ok(opened) => {
            let told = negotiation.write(&socks::reply(ReplyCode::Succeeded)).await;
            told.ok()?;
            let Negotiation { io, ahead } = negotiation;
            Some(opened.start(exchange, proxy, busy)(io, ahead.freeze()))
        }
    }
}

/// Tells a SOCKS4 client that it is refused, and the log why.
pub(super) async fn refuse_socks4(mut io: Io, proxy: &Arc<Proxy>) {
    let mut exchange = Exchange::begin(&proxy.telemetry, &Method::CONNECT, &Uri::default());
    reply::record(&Error::Socks(SocksFault::Socks4), &mut exchange);
    drop(exchange);
    let _ = io.write_all(&socks::socks4_refusal()).await;
    linger(&mut io).await;
}

impl Negotiation {
    /// Reads all that the client sends before it is connected.
    async fn request(
        &mut self,
        peer: Option<&Arc<Peer>>,
        exchange: &mut Exchange,
        proxy: &Proxy,
    ) -> Result<SocksRequest, Refused> {
        let offered = self.read(socks::greeting, |_| Answer::Nothing).await?;
        let live = proxy.live.load_full();
        let clients = live.clients.as_ref().filter(|clients| clients.asks());
        let method = method(offered, clients.map(|clients| &**clients), peer);
        self.write(&socks::method(method)).await?;
        let token = match method {
            socks::Method::Anybody => None,
            socks::Method::Password => {
                let token = self.read(own_token, |_| Answer::Nothing).await?;
                // Where nobody is asked any will do. A name that no client can have counts as an empty one.
                clients.map(|_| token.unwrap_or_default())
            }
            socks::Method::Refused => {
                let error = match clients {
                    None => Error::Socks(SocksFault::NoMethod),
                    Some(clients) => clients.without().into(),
                };
                return Err(Refused::For(Box::new(error), Answer::Nothing));
            }
        };
        let shown = Shown::with(token.as_ref().map(|token| token.as_bytes()), peer);
        let sender = match TunnelSender::of(live, shown, exchange) {
            Ok(sender) => sender,
            Err(error) if method == socks::Method::Password => {
                return Err(Refused::For(Box::new(error), Answer::Password));
            }
            Err(error) => {
                // The protocol has no other place for it than the reply to the request.
                let asked = self
                    .read(socks::request, |fault| Answer::Reply(fault.reply()))
                    .await?;
                if let Ok(host) = asked.host {
                    exchange.set_target(&target(host, asked.port));
                }
                return Err(Refused::For(
                    Box::new(error),
                    Answer::Reply(ReplyCode::NotAllowed),
                ));
            }
        };
        if method == socks::Method::Password {
            self.write(&socks::authenticated(true)).await?;
        }
        let asked = self
            .read(socks::request, |fault| Answer::Reply(fault.reply()))
            .await?;
        let unusable =
            |error: HostError| Refused::For(Box::new(error.into()), Answer::Reply(ReplyCode::Failure));
        let host = asked.host.map_err(unusable)?;
        let target = target(host, asked.port);
        exchange.set_target(&target);
        if target.port == 0 {
            return Err(unusable(HostError::Port));
        }
        // A client may take its time between the password and the request, and a reload may remove it meanwhile.
        let removed = |error| Refused::For(Box::new(error), Answer::Reply(ReplyCode::NotAllowed));
        let sender = sender.under(proxy.live.load_full(), exchange).map_err(removed)?;
        Ok(SocksRequest { sender, target })
    }

    /// Connects to the upstream, unless the client leaves.
    async fn open(
        &self,
        target: Target,
        sender: TunnelSender,
        exchange: &mut Exchange,
        proxy: &Arc<Proxy>,
    ) -> Result<Opened, Refused> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        if let Ok(uri) = target.to_string().parse() {
            *request.uri_mut() = uri;
        }
        let gone = async {
            while self.io.hangup() != Some(Hangup::Reset) {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            opened = open(target, sender, &request, exchange, proxy) => opened.map_err(|error| {
                let reply = reply_to(&error);
                Refused::For(Box::new(error), Answer::Reply(reply))
            }),
            () = gone => Err(Refused::Gone),
        }
    }

    /// Reads until `parse` has a value.
    async fn read<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> Parsed<T>,
        answer: impl Fn(SocksFault) -> Answer,
    ) -> Result<T, Refused> {
        loop {
            match parse(&self.ahead) {
                Ok(Some((value, length))) => {
                    self.ahead.advance(length);
                    return Ok(value);
                }
                Ok(None) => {}
                Err(fault) => return Err(Refused::by(fault, answer(fault))),
            }
            match self.io.read_buf(&mut self.ahead).await {
                Ok(0) | Err(_) => return Err(Refused::Gone),
                Ok(_) => {}
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let written: io::Result<()> = async {
            self.io.write_all(bytes).await?;
            self.io.flush().await
        }
        .await;
        written.map_err(|_| Refused::Gone)
    }

    async fn refuse(mut self, answer: &Answer) {
        let _ = match answer {
            Answer::Nothing => Ok(()),
            Answer::Password => self.write(&socks::authenticated(false)).await,
            Answer::Reply(code) => self.write(&socks::reply(*code)).await,
        };
        linger(&mut self.io).await;
    }
}

impl Refused {
    fn by(fault: SocksFault, answer: Answer) -> Self {
        Self::For(Box::new(Error::Socks(fault)), answer)
    }
}

/// Chooses how the client says who it is. A client that offers a password has one.
fn method(offered: OfferedMethods, clients: Option<&Clients>, peer: Option<&Arc<Peer>>) -> socks::Method {
    let may_be_anybody = clients.is_none_or(|clients| peer.is_some() || !clients.asks_for_passwords());
    match offered {
        OfferedMethods { anybody: true, .. } if clients.is_none() => socks::Method::Anybody,
        OfferedMethods { password: true, .. } => socks::Method::Password,
        OfferedMethods { anybody: true, .. } if may_be_anybody => socks::Method::Anybody,
        OfferedMethods { .. } => socks::Method::Refused,
    }
}

fn target(host: Host, port: u16) -> Target {
    Target {
        scheme: Scheme::Https,
        host,
        port,
    }
}

/// Reads user name and password, as `Basic` encodes them.
fn own_token(bytes: &[u8]) -> Parsed<Option<zeroize::Zeroizing<String>>> {
    let read = socks::credentials(bytes)?;
    Ok(read.map(|((user, password), length)| (basic_token(user, password), length)))
}

/// Returns the code that tells a client most of an error.
fn reply_to(error: &Error) -> ReplyCode {
    match error.proxy_status() {
        "connection_refused" => ReplyCode::Refused,
        "connection_timeout" | "connection_read_timeout" | "dns_timeout" => ReplyCode::TimedOut,
        "destination_ip_unroutable" => ReplyCode::NetworkUnreachable,
        "destination_not_found" | "dns_error" => ReplyCode::HostUnreachable,
        _ => match error.status() {
            StatusCode::FORBIDDEN | StatusCode::LOOP_DETECTED => ReplyCode::NotAllowed,
            StatusCode::GATEWAY_TIMEOUT => ReplyCode::TimedOut,
            _ => ReplyCode::Failure,
        },
    }
}

/// Ends the connection so that the client can read the answer: unread bytes of the client would reset it.
async fn linger(io: &mut Io) {
    let drained = async {
        io.shutdown().await?;
        let mut rest = io.take(LINGER_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(LINGER, drained).await;
}
