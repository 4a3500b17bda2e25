//! MySQL and MariaDB: the SSLRequest of their protocol ("Connection Phase").
//!
//! The server greets first, in clear, and says there that it speaks TLS. The app gets the greeting without that, and
//! answers as one does without TLS. Its answer leaves under TLS, behind an SSLRequest of ours. Packets are numbered, and
//! with the SSLRequest the server counts one more than the app; so both sides are counted here until the server says that
//! the login succeeded or failed. After that each command begins at zero.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::fault::shown;
use super::mysql_key::{self, KeyExchange};
use super::{UpgradeFault, send, tell};

const CLIENT_PROTOCOL_41: u16 = 0x0200;
const CLIENT_SSL: u16 = 0x0800;

/// Flags, largest packet, character set and 23 bytes that are reserved: the SSLRequest, and the begin of an answer.
const REQUEST: usize = 32;
/// The only version of the protocol that servers of this century speak.
const VERSION: u8 = 10;
/// Of a packet during the login.
const LONGEST: usize = 256 * 1024;

const OK: u8 = 0x00;
const MORE: u8 = 0x01;
const SWITCH: u8 = 0xfe;
const ERROR: u8 = 0xff;
/// `caching_sha2_password` knows only a hash of a hash and needs the password itself.
const FULL_LOGIN: &[u8] = &[MORE, 0x04];
/// What a client without TLS answers: it asks for a key to encrypt the password with.
const KEY_REQUEST: &[u8] = &[0x02];

const MALFORMED: UpgradeFault = UpgradeFault::Malformed { what: "MySQL" };
const APP_MALFORMED: UpgradeFault = UpgradeFault::AppMalformed { what: "MySQL" };

/// A login, from the greeting to the server's verdict.
#[derive(Debug, Default)]
pub(crate) struct Login {
    app: PacketReader,
    /// Of the last packet, in either direction.
    app_sequence: u8,
    server_sequence: u8,
    is_greeted: bool,
    /// The random bytes of the server, which scramble a password.
    nonce: Vec<u8>,
    /// The app's answer to the greeting.
    response: Vec<u8>,
}

/// Reads packets. What has been read of the next one is kept, also when a read is dropped.
#[derive(Debug, Default)]
struct PacketReader {
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Packet {
    sequence: u8,
    payload: Vec<u8>,
}

impl Login {
    pub(super) fn waits_for_app(&self) -> bool {
        self.is_greeted && self.response.is_empty()
    }

    /// Carries the greeting to the app, its answer back to us, and an SSLRequest to the server.
    pub(super) async fn ask<A, S>(&mut self, app: &mut A, server: &mut S) -> Result<(), UpgradeFault>
    where
        A: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut reader = PacketReader::default();
        let mut greeting = reader.next(server).await.map_err(of_server)?;
        if greeting.payload.first() == Some(&ERROR) {
            let text = greeting.payload.get(3..).unwrap_or_default();
            return Err(UpgradeFault::Refused(shown(text)));
        }
        self.nonce = without_tls(&mut greeting.payload)?;
        if !reader.buffer.is_empty() {
            return Err(UpgradeFault::Injected);
        }
        self.server_sequence = greeting.sequence;
        self.app_sequence = greeting.sequence;
        tell(app, &framed(greeting.sequence, &greeting.payload)).await?;
        self.is_greeted = true;

        let answer = self.app.next(app).await.map_err(of_app)?;
        self.app_sequence = answer.sequence;
        let mut payload = answer.payload;
        let flags = payload
            .first_chunk()
            .map(|flags| u16::from_le_bytes(*flags))
            .unwrap_or_default();
        if payload.len() >= REQUEST && flags & CLIENT_SSL != 0 {
            return Err(UpgradeFault::AppSpeaksTls);
        }
        if payload.len() < REQUEST || flags & CLIENT_PROTOCOL_41 == 0 {
            return Err(APP_MALFORMED);
        }
        payload[..2].copy_from_slice(&(flags | CLIENT_SSL).to_le_bytes());
        super::silent(server).await?;
        self.tell_server(server, &payload[..REQUEST]).await?;
        self.response = payload;
        Ok(())
    }

    /// Sends the app's answer, and carries the packets of the login until the server has decided.
    pub(super) async fn begin<A, S>(&mut self, app: &mut A, server: &mut S) -> Result<(), UpgradeFault>
    where
        A: AsyncRead + AsyncWrite + Unpin,
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let response = std::mem::take(&mut self.response);
        self.tell_server(server, &response).await?;
        let mut reader = PacketReader::default();
        let mut is_full = false;
        let mut exchange: Option<KeyExchange> = None;
        loop {
            tokio::select! {
                packet = reader.next(server) => {
                    let Packet { sequence, payload } = packet.map_err(of_server)?;
                    self.server_sequence = sequence;
                    self.tell_app(app, &payload).await?;
                    is_full = payload == FULL_LOGIN;
                    match payload.first() {
                        Some(&(OK | ERROR)) => break,
                        Some(&SWITCH) => self.nonce = new_nonce(&payload),
                        Some(_) => {}
                        None => return Err(MALFORMED),
                    }
                }
                packet = self.app.next(app) => {
                    let Packet { sequence, payload } = packet.map_err(of_app)?;
                    self.app_sequence = sequence;
                    if let Some(exchange) = exchange.take() {
                        let password = exchange.password(&payload, &self.nonce).ok_or(APP_MALFORMED)?;
                        self.tell_server(server, &password).await?;
                    } else if is_full && payload == KEY_REQUEST {
                        // The server sees TLS and expects the password as it is. The app sees none, so it wants a key.
                        let own = mysql_key::exchange().await.ok_or(UpgradeFault::NoKey)?;
                        self.tell_app(app, &own.public_key()).await?;
                        exchange = Some(own);
                    } else {
                        self.tell_server(server, &payload).await?;
                    }
                }
            }
        }
        // Commands may follow the login at once.
        let rest = std::mem::take(&mut self.app.buffer);
        send(server, &rest).await?;
        tell(app, &reader.buffer).await
    }

    /// Returns an ERR packet, numbered as the app expects it.
    pub(super) fn refusal(&self, why: &str) -> Vec<u8> {
        // ER_UNKNOWN_ERROR. Before the app has said what it understands, there is no SQL state.
        let mut payload = vec![ERROR, 0x51, 0x04];
        let mut sequence = 0;
        if self.is_greeted {
            sequence = self.app_sequence.wrapping_add(1);
            payload.extend_from_slice(b"#08S01");
        }
        payload.extend_from_slice(b"outrider: ");
        payload.extend_from_slice(why.as_bytes());
        framed(sequence, &payload)
    }

    async fn tell_app<A: AsyncWrite + Unpin>(
        &mut self,
        app: &mut A,
        payload: &[u8],
    ) -> Result<(), UpgradeFault> {
        self.app_sequence = self.app_sequence.wrapping_add(1);
        tell(app, &framed(self.app_sequence, payload)).await
    }

    async fn tell_server<S: AsyncWrite + Unpin>(
        &mut self,
        server: &mut S,
        payload: &[u8],
    ) -> Result<(), UpgradeFault> {
        self.server_sequence = self.server_sequence.wrapping_add(1);
        send(server, &framed(self.server_sequence, payload)).await
    }
}

impl PacketReader {
    async fn next<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<Packet> {
        loop {
            if let Some([a, b, c, sequence]) = self.buffer.first_chunk().copied() {
                let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
                if length > LONGEST {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if self.buffer.len() >= 4 + length {
                    let payload = self.buffer[4..4 + length].to_vec();
                    self.buffer.drain(..4 + length);
                    return Ok(Packet { sequence, payload });
                }
            }
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

/// Takes TLS out of a greeting. Returns the random bytes in it.
pub(super) fn without_tls(greeting: &mut [u8]) -> Result<Vec<u8>, UpgradeFault> {
    if greeting.first() != Some(&VERSION) {
        return Err(MALFORMED);
    }
    // The version, the number of the thread, the first random bytes and a zero.
    let end = greeting
        .iter()
        .skip(1)
        .position(|byte| *byte == 0)
        .ok_or(MALFORMED)?;
    let random = end + 2 + 4;
    let flags = random + 8 + 1;
    let mut nonce = greeting.get(random..random + 8).ok_or(MALFORMED)?.to_vec();
    // Character set, status, the upper flags, a length and ten reserved bytes come before the others.
    let others = flags + 2 + 1 + 2 + 2 + 1 + 10;
    nonce.extend_from_slice(greeting.get(others..others + 12).unwrap_or_default());
    let flags: &mut [u8] = greeting.get_mut(flags..flags + 2).ok_or(MALFORMED)?;
    let before = u16::from_le_bytes([flags[0], flags[1]]);
    if before & CLIENT_SSL == 0 {
        return Err(UpgradeFault::NotOffered(String::new()));
    }
    flags.copy_from_slice(&(before & !CLIENT_SSL).to_le_bytes());
    Ok(nonce)
}

/// Returns the random bytes of a request to log in otherwise: behind the name of the method.
fn new_nonce(payload: &[u8]) -> Vec<u8> {
    let end = payload
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(payload.len());
    let data = payload.get(end + 1..).unwrap_or_default();
    data.strip_suffix(&[0]).unwrap_or(data).to_vec()
}

/// Frames a payload that is shorter than [`LONGEST`].
fn framed(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let [a, b, c, ..] = payload.len().to_le_bytes();
    let mut packet = vec![a, b, c, sequence];
    packet.extend_from_slice(payload);
    packet
}

fn of_server(error: io::Error) -> UpgradeFault {
    match error.kind() {
        io::ErrorKind::InvalidData if error.get_ref().is_none() => MALFORMED,
        _ => UpgradeFault::Server(error),
    }
}

fn of_app(error: io::Error) -> UpgradeFault {
    match error.kind() {
        io::ErrorKind::InvalidData => APP_MALFORMED,
        _ => UpgradeFault::App(error),
    }
}
