//! SOCKS5, the client's side (RFC 1928, RFC 1929): CONNECT by name or address, with or without user and password.
//!
//! Names are resolved by the parent. Each message is sent only when the one before it is answered, because several servers
//! lose what comes early; and each answer is read to its last byte and no further, so that the bytes of the target stay
//! where they are. An error may be two bytes and the end of the connection.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use super::error::ParentFault;
use crate::host::{Host, Target};

const VERSION: u8 = 5;
/// Of the negotiation with user and password.
const LOGIN_VERSION: u8 = 1;
const NO_LOGIN: u8 = 0;
const WITH_LOGIN: u8 = 2;
const CONNECT: u8 = 1;
const V4: u8 = 1;
const NAME: u8 = 3;
const V6: u8 = 4;

/// User and password, each of 1 to 255 bytes.
pub(super) struct SocksLogin {
    user: Zeroizing<Vec<u8>>,
    password: Zeroizing<Vec<u8>>,
}

impl SocksLogin {
    /// `None`: one of them is empty or too long for the protocol.
    pub(super) fn new(user: Vec<u8>, password: Zeroizing<Vec<u8>>) -> Option<Self> {
        let user = Zeroizing::new(user);
        let fits = |text: &[u8]| (1..=255).contains(&text.len());
        (fits(&user) && fits(&password)).then_some(Self { user, password })
    }
}

/// Asks for a connection to `target`.
pub(super) async fn open<S>(
    stream: &mut S,
    target: &Target,
    login: Option<&SocksLogin>,
) -> Result<(), ParentFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let methods: &[u8] = match login {
        Some(_) => &[VERSION, 2, NO_LOGIN, WITH_LOGIN],
        None => &[VERSION, 1, NO_LOGIN],
    };
    let [version, method] = ask(stream, methods).await?;
    if version != VERSION {
        return Err(ParentFault::NotSocks);
    }
    match (method, login) {
        (NO_LOGIN, _) => {}
        (WITH_LOGIN, Some(login)) => {
            let mut message = Zeroizing::new(Vec::with_capacity(3 + 2 * 255));
            message.push(LOGIN_VERSION);
            for text in [&login.user, &login.password] {
                message.push(length(text));
                message.extend_from_slice(text);
            }
            let [_, status] = ask(stream, &message).await?;
            if status != 0 {
                return Err(ParentFault::Credentials { has_some: true });
            }
        }
        (0xff, _) => {
            return Err(ParentFault::Credentials {
                has_some: login.is_some(),
            });
        }
        _ => return Err(ParentFault::NotSocks),
    }
    let mut request = vec![VERSION, CONNECT, 0];
    match &target.host {
        Host::Name(name) => {
            // A parsed name has 253 bytes at most.
            request.extend_from_slice(&[NAME, length(name.as_bytes())]);
            request.extend_from_slice(name.as_bytes());
        }
        Host::V4(address) => {
            request.push(V4);
            request.extend_from_slice(&address.octets());
        }
        Host::V6(address) => {
            request.push(V6);
            request.extend_from_slice(&address.octets());
        }
    }
    request.extend_from_slice(&target.port.to_be_bytes());
    let [version, reply] = ask(stream, &request).await?;
    if version != VERSION {
        return Err(ParentFault::NotSocks);
    }
    if reply != 0 {
        // The rest may never come.
        return Err(ParentFault::Socks(reply));
    }
    let [_, kind] = read(stream).await?;
    let rest = 2 + match kind {
        V4 => 4,
        NAME => {
            let [length] = read(stream).await?;
            usize::from(length)
        }
        V6 => 16,
        _ => return Err(ParentFault::NotSocks),
    };
    // Where it is bound says nothing that we could use: some say 0.0.0.0:0.
    let mut bound = [0; 2 + 255];
    stream.read_exact(&mut bound[..rest]).await.map_err(closed)?;
    Ok(())
}

async fn ask<S, const N: usize>(stream: &mut S, message: &[u8]) -> Result<[u8; N], ParentFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(message).await.map_err(closed)?;
    stream.flush().await.map_err(closed)?;
    read(stream).await
}

async fn read<S, const N: usize>(stream: &mut S) -> Result<[u8; N], ParentFault>
where
    S: AsyncRead + Unpin,
{
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).await.map_err(closed)?;
    Ok(bytes)
}

fn closed(_: io::Error) -> ParentFault {
    ParentFault::Closed
}

fn length(text: &[u8]) -> u8 {
    u8::try_from(text.len()).unwrap_or(u8::MAX)
}
