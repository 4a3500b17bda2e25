//! LDAP: the StartTLS operation of RFC 4511, section 4.14.
//!
//! Ours is the first request of the connection, and its message id is free again with its answer: the ids of the app
//! pass untouched.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use super::fault::shown;
use super::{UpgradeFault, send};

/// An `ExtendedRequest` with message id 1 for 1.3.6.1.4.1.1466.20037.
const START_TLS: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";
/// The name of a `NoticeOfDisconnection` (section 4.4.1).
const DISCONNECTION: &[u8] = b"1.3.6.1.4.1.1466.20036";
/// The most that is read of an answer.
const LONGEST: usize = 16 * 1024;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const EXTENDED_RESPONSE: u8 = 0x78;
/// The code `unavailable`.
const UNAVAILABLE: u8 = 52;

const MALFORMED: UpgradeFault = UpgradeFault::Malformed { what: "LDAP" };

pub(super) async fn ask<S>(server: &mut S) -> Result<(), UpgradeFault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    send(server, START_TLS).await?;
    let message = message(server).await.map_err(UpgradeFault::Server)?;
    let message = message.ok_or(MALFORMED)?;
    let (id, code, text) = response(&message).ok_or(MALFORMED)?;
    match (id, code) {
        (1, 0) => Ok(()),
        // A notice of disconnection, which has the id 0.
        (0, _) => Err(UpgradeFault::Refused(shown(text))),
        // protocolError: the operation is not known.
        (1, 2) => Err(UpgradeFault::NotOffered(shown(text))),
        (1, code) => Err(UpgradeFault::Refused(format!("result {code} {}", shown(text)))),
        _ => Err(MALFORMED),
    }
}

/// A notice of disconnection: it needs no request to answer.
pub(super) fn refusal(why: &str) -> Vec<u8> {
    let text = format!("outrider: {why}");
    let mut response = element(ENUMERATED, &[UNAVAILABLE]);
    response.extend(element(OCTETS, b""));
    response.extend(element(OCTETS, text.as_bytes()));
    response.extend(element(0x8a, DISCONNECTION));
    let mut message = element(INTEGER, &[0]);
    message.extend(element(EXTENDED_RESPONSE, &response));
    element(SEQUENCE, &message)
}

/// Reads the content of a message; `None` for anything else, and for one that is too long.
async fn message<S: AsyncRead + Unpin>(server: &mut S) -> io::Result<Option<Vec<u8>>> {
    if server.read_u8().await? != SEQUENCE {
        return Ok(None);
    }
    let length = match usize::from(server.read_u8().await?) {
        short @ ..0x80 => short,
        long => {
            // At most four bytes: a message is shorter than that.
            let count = long & 0x7f;
            if !(1..=4).contains(&count) {
                return Ok(None);
            }
            let mut length = 0;
            for _ in 0..count {
                length = length << 8 | usize::from(server.read_u8().await?);
            }
            length
        }
    };
    if length > LONGEST {
        return Ok(None);
    }
    let mut content = vec![0; length];
    server.read_exact(&mut content).await?;
    Ok(Some(content))
}

/// Returns message id, result code and diagnostic message of an `ExtendedResponse`.
pub(super) fn response(message: &[u8]) -> Option<(u32, u8, &[u8])> {
    let (id, rest) = take(message, INTEGER)?;
    let (response, _) = take(rest, EXTENDED_RESPONSE)?;
    let (code, rest) = take(response, ENUMERATED)?;
    let (_matched, rest) = take(rest, OCTETS)?;
    let (text, _) = take(rest, OCTETS)?;
    // From 0 to 2^31 - 1.
    if !(1..=4).contains(&id.len()) || id[0] >= 0x80 {
        return None;
    }
    let id = id.iter().fold(0, |id, digit| id << 8 | u32::from(*digit));
    let [code] = code else { return None };
    Some((id, *code, text))
}

/// Takes an element with this tag from the front.
fn take(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (own, rest) = bytes.split_first()?;
    let (first, mut rest) = rest.split_first()?;
    let mut length = usize::from(*first);
    if length >= 0x80 {
        let count = length & 0x7f;
        if !(1..=4).contains(&count) {
            return None;
        }
        let (digits, after) = rest.split_at_checked(count)?;
        length = digits
            .iter()
            .fold(0, |length, digit| length << 8 | usize::from(*digit));
        rest = after;
    }
    (*own == tag).then(|| rest.split_at_checked(length))?
}

/// Writes an element of fewer than 64 KiB.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![tag];
    match length {
        short @ ..0x80 => bytes.extend(u8::try_from(short)),
        long => {
            bytes.push(0x82);
            bytes.extend(long.to_be_bytes());
        }
    }
    bytes.extend_from_slice(content);
    bytes
}
