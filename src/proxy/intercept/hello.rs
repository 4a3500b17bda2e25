//! Reads what a ClientHello offers (RFC 8446, section 4.1.2), for the log line of a failed handshake.
//!
//! rustls shows a ClientHello only if it accepts it, and never its TLS versions. A failed handshake is mostly one
//! that rustls does not accept. So we read the first bytes of the tunnel here. They decide nothing: unreadable
//! parts are left out, and the texts are printable and bounded.

use std::fmt::Write as _;

const ALPN: u16 = 16;
const CLIENT_HELLO: u16 = 1;
const RANDOM: usize = 32;
const SERVER_NAME: u16 = 0;
const SUPPORTED_GROUPS: u16 = 10;
const SUPPORTED_VERSIONS: u16 = 43;
const TLS_HANDSHAKE: u16 = crate::stream::TLS_HANDSHAKE as u16;

/// How many names of a list are shown.
const MOST: usize = 12;

/// The longest host name.
const NAME_LENGTH: usize = 253;
const PROTOCOL_LENGTH: usize = 32;

/// What the app offered, as the log shows it. Empty: not offered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) alpn: String,
    /// Kinds of cipher suites, because a client may list a hundred suites.
    pub(super) ciphers: String,
    pub(super) groups: String,
    pub(super) server_name: String,
    pub(super) versions: String,
}

/// A reader of bytes. A truncated vector gives the bytes that are there.
struct Cursor<'a>(&'a [u8]);

impl Offered {
    /// Reads the first bytes of a connection, which may end within the ClientHello.
    pub(super) fn read(first: &[u8]) -> Self {
        let mut offered = Self::default();
        // A ClientHello in several records is not reassembled.
        let mut record = Cursor(first);
        if record.number(1) != Some(TLS_HANDSHAKE) || record.skip(4).is_none() {
            return offered;
        }
        if record.number(1) != Some(CLIENT_HELLO) || record.skip(3).is_none() {
            return offered;
        }
        // The parts after a missing one are not needed.
        let _ = offered.read_body(&mut record);
        offered
    }

    fn read_body(&mut self, body: &mut Cursor<'_>) -> Option<()> {
        let newest = body.number(2)?;
        self.versions = format!("up to {}", version(newest));
        body.skip(RANDOM)?;
        body.vector(1)?;
        self.ciphers = list(body.vector(2)?.numbers(), cipher_kind);
        body.vector(1)?;
        let mut extensions = body.vector(2)?;
        while let Some(kind) = extensions.number(2) {
            let mut data = extensions.vector(2)?;
            match kind {
                SERVER_NAME => {
                    let mut names = data.vector(2)?;
                    names.skip(1)?;
                    self.server_name = printable(names.vector(2)?.0, NAME_LENGTH);
                }
                SUPPORTED_GROUPS => self.groups = list(data.vector(2)?.numbers(), group),
                ALPN => {
                    let (mut names, mut texts) = (data.vector(2)?, Vec::new());
                    while let Some(name) = names.vector(1).filter(|name| !name.0.is_empty()) {
                        texts.push(printable(name.0, PROTOCOL_LENGTH));
                    }
                    self.alpn = join(texts);
                }
                SUPPORTED_VERSIONS => self.versions = list(data.vector(1)?.numbers(), version),
                _ => {}
            }
        }
        Some(())
    }
}

impl<'a> Cursor<'a> {
    /// Reads the next `size` bytes as a big-endian number.
    fn number(&mut self, size: usize) -> Option<u16> {
        let (bytes, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(
            bytes
                .iter()
                .fold(0, |number, byte| number << 8 | u16::from(*byte)),
        )
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.0 = self.0.get(count..)?;
        Some(())
    }

    /// Reads a length of `size` bytes and then that many bytes, or as many as are there.
    fn vector(&mut self, size: usize) -> Option<Self> {
        let length = usize::from(self.number(size)?).min(self.0.len());
        let (inner, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(Self(inner))
    }

    /// Reads the rest as numbers of two bytes, without GREASE (RFC 8701).
    fn numbers(mut self) -> impl Iterator<Item = u16> + use<'a> {
        std::iter::from_fn(move || self.number(2)).filter(|number| number & 0x0f0f != 0x0a0a)
    }
}

/// Joins the names of `numbers`, each once, in their order.
fn list(numbers: impl Iterator<Item = u16>, name: impl Fn(u16) -> String) -> String {
    let mut names: Vec<String> = Vec::new();
    for name in numbers.map(name) {
        if !name.is_empty() && !names.contains(&name) && names.len() <= MOST {
            names.push(name);
        }
    }
    join(names)
}

fn join(mut names: Vec<String>) -> String {
    let is_cut = names.len() > MOST;
    names.truncate(MOST);
    let mut text = names.join(", ");
    if is_cut {
        text.push_str(", …");
    }
    text
}

fn printable(bytes: &[u8], most: usize) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(text, "{}", bytes[..bytes.len().min(most)].escape_ascii());
    if bytes.len() > most {
        text.push('…');
    }
    text
}

fn version(number: u16) -> String {
    match number {
        0x0300 => "SSL 3.0".to_owned(),
        0x0301..=0x0304 => format!("TLS 1.{}", number - 0x0301),
        _ => format!("{number:#06x}"),
    }
}

fn group(number: u16) -> String {
    let name = match number {
        23 => "P-256",
        24 => "P-384",
        25 => "P-521",
        29 => "X25519",
        30 => "X448",
        256..=260 => "FFDHE",
        0x11eb => "SecP256r1MLKEM768",
        0x11ec => "X25519MLKEM768",
        0x11ed => "SecP384r1MLKEM1024",
        _ => return format!("{number:#06x}"),
    };
    name.to_owned()
}

/// Names the kind of a cipher suite: key exchange, certificate key, and kind of cipher.
fn cipher_kind(number: u16) -> String {
    let kind = match number {
        // Signals for renegotiation and fallback, not ciphers.
        0x00ff | 0x5600 => "",
        0x1301..=0x1305 => "TLS 1.3",
        0xc02b | 0xc02c | 0xcca9 => "ECDHE-ECDSA AEAD",
        0xc02f | 0xc030 | 0xcca8 => "ECDHE-RSA AEAD",
        0xc008..=0xc00a | 0xc023 | 0xc024 => "ECDHE-ECDSA CBC",
        0xc012..=0xc014 | 0xc027 | 0xc028 => "ECDHE-RSA CBC",
        0x009e | 0x009f | 0xccaa => "DHE-RSA AEAD",
        0x0016 | 0x0033 | 0x0039 | 0x0067 | 0x006b => "DHE-RSA CBC",
        0x009c | 0x009d => "RSA AEAD",
        0x000a | 0x002f | 0x0035 | 0x003c | 0x003d => "RSA CBC",
        0x0004 | 0x0005 | 0xc007 | 0xc011 => "RC4",
        _ => "other",
    };
    kind.to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// The ClientHello of rustls.
    fn hello(name: &str, alpn: &[&[u8]]) -> Vec<u8> {
        let mut config = ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = name.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    #[test]
    fn what_a_client_offers_is_read() {
        let offered = Offered::read(&hello("partner.test", &[b"h2", b"a\"\n\x1b"]));
        assert_eq!(offered.server_name, "partner.test");
        assert_eq!(offered.alpn, r#"h2, a\"\n\x1b"#);
        assert_eq!(offered.versions, "TLS 1.3, TLS 1.2");
        assert_eq!(offered.ciphers, "TLS 1.3, ECDHE-ECDSA AEAD, ECDHE-RSA AEAD");
        assert!(offered.groups.contains("P-256, P-384"), "{}", offered.groups);
    }

    /// The app may send any bytes, and any part of them first.
    #[test]
    fn what_is_cut_or_damaged_is_read_as_far_as_it_goes() {
        let whole = hello("partner.test", &[b"h2"]);
        for length in 0..whole.len() {
            let read = Offered::read(&whole[..length]);
            assert!(read.versions.len() < 40, "{length}: {read:?}");
            let mut damaged = whole.clone();
            for byte in [0x00, 0x7f, 0xff] {
                damaged[length] = byte;
                let told = Offered::read(&damaged);
                let texts = [
                    told.alpn,
                    told.ciphers,
                    told.groups,
                    told.server_name,
                    told.versions,
                ];
                for text in texts {
                    assert!(text.len() <= 4 * (NAME_LENGTH + 1) + 3 * 64, "{}", text.len());
                    assert!(!text.contains(char::is_control), "{text}");
                }
            }
        }
    }

    #[test]
    fn an_old_client_is_known_by_its_version() {
        let mut hello = vec![22, 3, 1, 0, 45, 1, 0, 0, 41, 3, 2];
        hello.extend([7; RANDOM]);
        hello.extend([0, 0, 4, 0x00, 0x2f, 0xc0, 0x13, 1, 0]);
        let offered = Offered::read(&hello);
        assert_eq!(offered.versions, "up to TLS 1.1");
        assert_eq!(offered.ciphers, "RSA CBC, ECDHE-RSA CBC");
        assert_eq!(Offered::read(b"SSH-2.0-OpenSSH_9.2\r\n"), Offered::default());
    }

    #[test]
    fn a_long_list_is_cut() {
        let groups = list((1000..1100).map(|number| number | 1), group);
        assert!(groups.ends_with(", …") && groups.len() < 200, "{groups}");
    }
}
