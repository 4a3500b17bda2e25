//! PostgreSQL: the SSLRequest of its protocol (chapter "Message Flow", "SSL Session Encryption").
//!
//! The app asks for TLS first as a rule (`sslmode=prefer`) and is told that there is no TLS here. Its first message waits
//! until TLS with the server is up. The server then offers SCRAM-SHA-256-PLUS, because it sees TLS; libpq without TLS
//! takes that for an attack and gives up, so it is taken out of the list. A client without TLS tells the server so (gs2
//! flag `n`), and the server takes SCRAM-SHA-256.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::fault::shown;
use super::{TLS_HELLO, UpgradeFault, send, tell};

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// `MAX_STARTUP_PACKET_LENGTH` of the server.
const LONGEST_STARTUP: usize = 10_000;
/// Of a message before the login is over; libpq takes 30 000 bytes.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// libpq sends two.
const MOST_REQUESTS: usize = 4;

/// The authentication request that lists the mechanisms of SASL.
const SASL: u32 = 10;
const BOUND: &[u8] = b"SCRAM-SHA-256-PLUS";

const MALFORMED: UpgradeFault = UpgradeFault::Malformed { what: "PostgreSQL" };
const APP_MALFORMED: UpgradeFault = UpgradeFault::AppMalformed { what: "PostgreSQL" };

/// The first message of the app: a StartupMessage or a CancelRequest.
#[derive(Debug, Default)]
pub(crate) struct Startup {
    message: Vec<u8>,
    is_cancel: bool,
}

impl Startup {
    pub(super) fn waits_for_app(&self) -> bool {
        self.message.is_empty()
    }

    /// Reads the app's first message, and says no to TLS and GSSAPI before it.
    pub(super) async fn hear<A>(&mut self, app: &mut A) -> Result<(), UpgradeFault>
    where
        A: AsyncRead + AsyncWrite + Unpin,
    {
        let mut has_asked = false;
        for _ in 0..MOST_REQUESTS {
            let mut head = [0; 8];
            let mut filled = 0;
            while filled < head.len() {
                match app.read(&mut head[filled..]).await.map_err(UpgradeFault::App)? {
                    0 if filled > 0 => return Err(UpgradeFault::App(io::ErrorKind::UnexpectedEof.into())),
                    0 if has_asked => return Err(UpgradeFault::AppInsists),
                    0 => return Err(UpgradeFault::AppSilent),
                    count => filled += count,
                }
                if head[..filled].starts_with(&TLS_HELLO) {
                    return Err(UpgradeFault::AppSpeaksTls);
                }
            }
            let [a, b, c, d, e, f, g, h] = head;
            let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
            let code = u32::from_be_bytes([e, f, g, h]);
            match (code, length) {
                (SSL_REQUEST | GSSENC_REQUEST, 8) => {
                    has_asked |= code == SSL_REQUEST;
                    tell(app, b"N").await?;
                }
                (SSL_REQUEST | GSSENC_REQUEST, _) => return Err(APP_MALFORMED),
                (_, 8..=LONGEST_STARTUP) => {
                    self.message = head.to_vec();
                    self.message.resize(length, 0);
                    app.read_exact(&mut self.message[8..])
                        .await
                        .map_err(UpgradeFault::App)?;
                    self.is_cancel = code == CANCEL_REQUEST;
                    return Ok(());
                }
                _ => return Err(APP_MALFORMED),
            }
        }
        Err(APP_MALFORMED)
    }

    /// Sends the app's first message, and passes the server's first ones on.
    pub(super) async fn begin<A, S>(&mut self, app: &mut A, server: &mut S) -> Result<(), UpgradeFault>
    where
        A: AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let message = std::mem::take(&mut self.message);
        send(server, &message).await?;
        if self.is_cancel {
            // There is no answer to it.
            return Ok(());
        }
        loop {
            let (kind, mut content) = message_of(server).await?;
            if kind == b'R' {
                content = without_binding(content)?;
            }
            tell(app, &framed(kind, &content)).await?;
            // NegotiateProtocolVersion and notices come before what decides.
            if matches!(kind, b'R' | b'E') {
                return Ok(());
            }
        }
    }
}

/// Asks for TLS. One byte is the answer.
pub(super) async fn ask<S>(server: &mut S) -> Result<(), UpgradeFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let [a, b, c, d] = SSL_REQUEST.to_be_bytes();
    send(server, &[0, 0, 0, 8, a, b, c, d]).await?;
    match server.read_u8().await.map_err(UpgradeFault::Server)? {
        b'S' => Ok(()),
        b'N' => Err(UpgradeFault::NotOffered(String::new())),
        // A server that has no room, or a very old one.
        b'E' => {
            let content = content_of(server).await?;
            Err(UpgradeFault::Refused(error_text(&content)))
        }
        _ => Err(MALFORMED),
    }
}

/// An ErrorResponse.
pub(super) fn refusal(why: &str) -> Vec<u8> {
    // 08006 is connection_failure.
    let fields = format!("SFATAL\0VFATAL\0C08006\0Moutrider: {why}\0\0");
    framed(b'E', fields.as_bytes())
}

fn framed(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(u32::try_from(content.len() + 4).unwrap_or_default().to_be_bytes());
    message.extend_from_slice(content);
    message
}

async fn message_of<S: AsyncRead + Unpin>(server: &mut S) -> Result<(u8, Vec<u8>), UpgradeFault> {
    let kind = server.read_u8().await.map_err(UpgradeFault::Server)?;
    if !matches!(kind, b'E' | b'N' | b'R' | b'v') {
        return Err(MALFORMED);
    }
    Ok((kind, content_of(server).await?))
}

async fn content_of<S: AsyncRead + Unpin>(server: &mut S) -> Result<Vec<u8>, UpgradeFault> {
    let length = server.read_u32().await.map_err(UpgradeFault::Server)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(4..=LONGEST_MESSAGE).contains(&length) {
        return Err(MALFORMED);
    }
    let mut content = vec![0; length - 4];
    server
        .read_exact(&mut content)
        .await
        .map_err(UpgradeFault::Server)?;
    Ok(content)
}

/// Takes channel binding out of an authentication request.
pub(super) fn without_binding(content: Vec<u8>) -> Result<Vec<u8>, UpgradeFault> {
    let Some(list) = content.strip_prefix(&SASL.to_be_bytes()) else {
        return Ok(content);
    };
    let names: Vec<_> = list
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .collect();
    let kept: Vec<_> = names.iter().filter(|name| **name != BOUND).collect();
    if kept.is_empty() && !names.is_empty() {
        return Err(UpgradeFault::OnlyBound);
    }
    let mut content = SASL.to_be_bytes().to_vec();
    for name in kept {
        content.extend_from_slice(name);
        content.push(0);
    }
    content.push(0);
    Ok(content)
}

/// Returns the message in an ErrorResponse.
pub(super) fn error_text(content: &[u8]) -> String {
    let mut fields = content.split(|byte| *byte == 0);
    let text = fields.find_map(|field| field.strip_prefix(b"M"));
    shown(text.unwrap_or_default())
}
