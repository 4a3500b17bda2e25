//! Private keys as `ssh-keygen` writes them (PROTOCOL.key of OpenSSH).
//!
//! Taken is an Ed25519 key without a passphrase, which ssh-keygen itself cannot write in another form before
//! OpenSSH 9.6. It converts all others by itself.

use zeroize::Zeroizing;

/// The content of such a file.
pub(super) enum OpenSsh {
    Damaged,
    /// In PKCS#8.
    Ed25519(Zeroizing<Vec<u8>>),
    LockedEd25519,
    /// RSA or an elliptic curve, locked or not.
    Other,
}

impl OpenSsh {
    pub(super) fn read(bytes: &[u8]) -> Self {
        Self::parse(bytes).unwrap_or(Self::Damaged)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC)?;
        let cipher = text(&mut rest)?;
        let (_derivation, _options) = (text(&mut rest)?, text(&mut rest)?);
        let count = number(&mut rest)?;
        let mut public = text(&mut rest)?;
        let mut private = text(&mut rest)?;
        let kind = text(&mut public)?;
        match (count, kind, cipher) {
            (1, ED25519, b"none") => {
                let checks = (number(&mut private)?, number(&mut private)?);
                let (kind, public) = (text(&mut private)?, text(&mut private)?);
                let pair = text(&mut private)?;
                let (seed, repeated) = pair.split_at_checked(32)?;
                if checks.0 != checks.1 || kind != ED25519 || public != repeated {
                    return None;
                }
                Some(Self::Ed25519(Zeroizing::new([PKCS8, seed].concat())))
            }
            (1, ED25519, _) => Some(Self::LockedEd25519),
            _ => Some(Self::Other),
        }
    }
}

/// A length, and as many bytes.
fn text<'b>(rest: &mut &'b [u8]) -> Option<&'b [u8]> {
    let length = usize::try_from(number(rest)?).ok()?;
    let (text, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(text)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_be_bytes(*number))
}

const MAGIC: &[u8] = b"openssh-key-v1\0";
const ED25519: &[u8] = b"ssh-ed25519";

/// The bytes before the seed in PKCS#8 (RFC 8410, section 7).
const PKCS8: &[u8] = &[
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];
