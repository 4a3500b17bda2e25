//! SOCKS5 as it is on the wire (RFC 1928), with user name and password (RFC 1929): from bytes to values and back.
//!
//! Each reader gets all bytes that have come so far, and returns a value with its length, or `None` if it needs more. What a
//! request means is decided in `proxy`.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::host::{Host, HostError};
use crate::stream::SOCKS5;

const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const NAME: u8 = 3;
const IPV6: u8 = 4;
/// The method without authentication.
const ANYBODY: u8 = 0;
/// The method with user name and password.
const PASSWORD: u8 = 2;
/// The version of the exchange of RFC 1929.
const PASSWORD_VERSION: u8 = 1;

/// The ways to authenticate that a client offers, of those that are known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OfferedMethods {
    pub(crate) anybody: bool,
    pub(crate) password: bool,
}

/// Which way to authenticate the client is told to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Anybody,
    Password,
    /// No way that it offers will do.
    Refused,
}

/// What a client wants to be connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) host: Result<Host, HostError>,
    pub(crate) port: u16,
}

/// The code of a reply (RFC 1928, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReplyCode {
    Succeeded = 0,
    Failure = 1,
    NotAllowed = 2,
    NetworkUnreachable = 3,
    HostUnreachable = 4,
    Refused = 5,
    /// Its name in the RFC is "TTL expired"; servers send it where time is over.
    TimedOut = 6,
    CommandNotSupported = 7,
    AddressTypeNotSupported = 8,
}

/// Why bytes are not SOCKS5, or are a part of it that does not work here. `Display` is a sentence with the remedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SocksFault {
    #[error(
        "the SOCKS5 request has an address of type {0}, and there are 1 (IPv4), 3 (a name) and 4 (IPv6) only"
    )]
    AddressType(u8),

    #[error("SOCKS5 BIND, which waits for a connection from outside, does not work here; only CONNECT does")]
    Bind,

    #[error("the SOCKS5 request has the command {0}, and only CONNECT (1) works here")]
    Command(u8),

    #[error("the SOCKS5 client offers no way to authenticate; it has to offer at least one")]
    NoMethod,

    #[error("the exchange of SOCKS5 user name and password (RFC 1929) has a wrong version; it has to be 1")]
    PasswordVersion,

    #[error(
        "the reserved byte of the SOCKS5 request is not 0; another protocol may be spoken, or bytes were lost"
    )]
    Reserved,

    #[error("the SOCKS5 client did not send its request in time")]
    Slow,

    #[error(
        "SOCKS4 is not spoken here, since it knows no passwords and no IPv6; use socks5h://, which sends names as they are"
    )]
    Socks4,

    #[error(
        "SOCKS5 UDP ASSOCIATE does not work here; QUIC and HTTP/3 clients fall back to TCP, and names are resolved here when a \
         client sends them (socks5h://)"
    )]
    Udp,

    #[error(
        "the SOCKS5 request does not begin with version 5; bytes were lost, or another protocol is spoken"
    )]
    Version,
}

/// A value that was read, and its length in bytes; `None` needs more bytes.
pub(crate) type Parsed<T> = Result<Option<(T, usize)>, SocksFault>;

/// Reads what a client begins with.
pub(crate) fn greeting(bytes: &[u8]) -> Parsed<OfferedMethods> {
    let (Some(version), count) = (bytes.first(), bytes.get(1)) else {
        return Ok(None);
    };
    if *version != SOCKS5 {
        return Err(SocksFault::Version);
    }
    let Some(count) = count else { return Ok(None) };
    if *count == 0 {
        return Err(SocksFault::NoMethod);
    }
    let end = 2 + usize::from(*count);
    let Some(methods) = bytes.get(2..end) else {
        return Ok(None);
    };
    let offered = OfferedMethods {
        anybody: methods.contains(&ANYBODY),
        password: methods.contains(&PASSWORD),
    };
    Ok(Some((offered, end)))
}

/// Reads user name and password.
pub(crate) fn credentials(bytes: &[u8]) -> Parsed<(&[u8], &[u8])> {
    let Some((version, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if *version != PASSWORD_VERSION {
        return Err(SocksFault::PasswordVersion);
    }
    let both = counted(rest).and_then(|(user, rest)| Some((user, counted(rest)?.0)));
    Ok(both.map(|(user, password)| ((user, password), 3 + user.len() + password.len())))
}

/// Reads the request.
pub(crate) fn request(bytes: &[u8]) -> Parsed<Asked> {
    let Some((head, rest)) = bytes.split_first_chunk::<4>() else {
        return match bytes.first() {
            Some(version) if *version != SOCKS5 => Err(SocksFault::Version),
            Some(_) | None => Ok(None),
        };
    };
    let [version, command, reserved, kind] = *head;
    if version != SOCKS5 {
        return Err(SocksFault::Version);
    }
    if reserved != 0 {
        return Err(SocksFault::Reserved);
    }
    match command {
        CONNECT => {}
        2 => return Err(SocksFault::Bind),
        3 => return Err(SocksFault::Udp),
        other => return Err(SocksFault::Command(other)),
    }
    let address = match kind {
        IPV4 => rest
            .first_chunk::<4>()
            .map(|octets| (Ok(std::net::IpAddr::V4(Ipv4Addr::from(*octets)).into()), 4)),
        IPV6 => rest
            .first_chunk::<16>()
            .map(|octets| (Ok(std::net::IpAddr::V6(Ipv6Addr::from(*octets)).into()), 16)),
        NAME => counted(rest).map(|(name, _)| (named(name), 1 + name.len())),
        other => return Err(SocksFault::AddressType(other)),
    };
    let Some((host, length)) = address else {
        return Ok(None);
    };
    let Some(port) = rest[length..].first_chunk::<2>() else {
        return Ok(None);
    };
    let port = u16::from_be_bytes(*port);
    Ok(Some((Asked { host, port }, 4 + length + 2)))
}

/// Returns the answer to a greeting.
pub(crate) fn method(method: Method) -> [u8; 2] {
    let chosen = match method {
        Method::Anybody => ANYBODY,
        Method::Password => PASSWORD,
        Method::Refused => 0xff,
    };
    [SOCKS5, chosen]
}

/// Returns the answer to user name and password.
pub(crate) fn authenticated(is_right: bool) -> [u8; 2] {
    [PASSWORD_VERSION, u8::from(!is_right)]
}

/// Returns the reply to a request. The address from which the upstream is reached concerns nobody: it is 0.0.0.0:0.
pub(crate) fn reply(code: ReplyCode) -> [u8; 10] {
    [SOCKS5, code as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]
}

/// Returns the refusal of a SOCKS4 request: rejected or failed.
pub(crate) fn socks4_refusal() -> [u8; 8] {
    [0, 0x5b, 0, 0, 0, 0, 0, 0]
}

impl SocksFault {
    /// Returns the code that tells a client most of it.
    pub(crate) fn reply(self) -> ReplyCode {
        match self {
            Self::AddressType(_) => ReplyCode::AddressTypeNotSupported,
            Self::Bind | Self::Command(_) | Self::Udp => ReplyCode::CommandNotSupported,
            Self::NoMethod
            | Self::PasswordVersion
            | Self::Reserved
            | Self::Slow
            | Self::Socks4
            | Self::Version => ReplyCode::Failure,
        }
    }
}

/// Splits off as many bytes as the first byte says.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first()?;
    rest.split_at_checked(usize::from(*length))
}

/// Reads a name. Some clients send addresses as names, which are in the same canonical form then.
fn named(name: &[u8]) -> Result<Host, HostError> {
    let text = std::str::from_utf8(name).map_err(|_| HostError::Host)?;
    Host::parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(kind_and_address: &[u8]) -> Parsed<Asked> {
        request(&[&[5, 1, 0], kind_and_address].concat())
    }

    fn host_of(name: &[u8]) -> Result<String, HostError> {
        let length = u8::try_from(name.len()).unwrap();
        let whole = [&[3, length], name, &[1, 187]].concat();
        let (asked, read) = asked(&whole).unwrap().unwrap();
        assert_eq!((asked.port, read), (443, whole.len() + 3));
        asked.host.map(|host| host.to_string())
    }

    #[test]
    fn a_greeting_says_what_a_client_can_do() {
        let offered = |anybody, password| OfferedMethods { anybody, password };
        let all: Vec<u8> = [5, 255].into_iter().chain(0..255).collect();
        for (bytes, expected) in [
            (&[5, 1, 0][..], Ok(Some((offered(true, false), 3)))),
            (&[5, 2, 0, 2, 9], Ok(Some((offered(true, true), 4)))),
            (&[5, 3, 1, 3, 128], Ok(Some((offered(false, false), 5)))),
            (&all, Ok(Some((offered(true, true), 257)))),
            (&all[..256], Ok(None)),
            (&[], Ok(None)),
            (&[5], Ok(None)),
            (&[5, 2, 0], Ok(None)),
            (&[5, 0], Err(SocksFault::NoMethod)),
            (&[4, 1], Err(SocksFault::Version)),
            (&[0], Err(SocksFault::Version)),
        ] {
            assert_eq!(greeting(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn user_name_and_password_are_what_their_lengths_say() {
        let (user, password) = (&b"me"[..], &b"a:b"[..]);
        let bytes = b"\x01\x02me\x03a:b\x05";
        assert_eq!(credentials(bytes), Ok(Some(((user, password), 8))));
        for end in 0..8 {
            assert_eq!(credentials(&bytes[..end]), Ok(None), "{end}");
        }
        assert_eq!(credentials(&[1, 0, 0]), Ok(Some(((&[][..], &[][..]), 3))));
        assert_eq!(credentials(&[5]), Err(SocksFault::PasswordVersion));
    }

    #[test]
    fn a_request_names_one_host_in_its_canonical_form() {
        for (name, expected) in [
            (&b"Example.COM."[..], Ok("example.com")),
            (b"10.0.0.1", Ok("10.0.0.1")),
            (b"[::ffff:10.0.0.1]", Ok("10.0.0.1")),
            (b"b\xc3\xbccher.example", Ok("xn--bcher-kva.example")),
            (b"", Err(HostError::Host)),
            (b".", Err(HostError::Host)),
            (b"a.example\0.evil.example", Err(HostError::Host)),
            (b"[a.example]", Err(HostError::Host)),
            (b"::1", Err(HostError::Host)),
            (b"127.1", Err(HostError::Host)),
            (b"0x7f000001", Err(HostError::Host)),
            (b"a.example:80", Err(HostError::Host)),
            (b"user@a.example", Err(HostError::Host)),
            (b"a.example/", Err(HostError::Host)),
            (b"a example", Err(HostError::Host)),
            (b"\xff\xfe", Err(HostError::Host)),
            (&[b'a'; 255], Err(HostError::Host)),
        ] {
            assert_eq!(host_of(name), expected.map(str::to_owned), "{name:?}");
        }
        let (v4, read) = asked(&[1, 192, 0, 2, 7, 0, 80, 71]).unwrap().unwrap();
        assert_eq!(
            (v4.host.unwrap().to_string(), v4.port, read),
            ("192.0.2.7".into(), 80, 10)
        );
        let mapped: Vec<u8> = [4]
            .into_iter()
            .chain([0; 10])
            .chain([255, 255, 127, 0, 0, 1, 0, 0])
            .collect();
        let (mapped, read) = asked(&mapped).unwrap().unwrap();
        assert_eq!(
            (mapped.host.unwrap().to_string(), mapped.port, read),
            ("127.0.0.1".into(), 0, 22)
        );
    }

    #[test]
    fn a_request_that_is_none_is_refused_as_soon_as_that_shows() {
        for (bytes, fault, reply) in [
            (&[4][..], SocksFault::Version, 1),
            (&[4, 1, 0, 1], SocksFault::Version, 1),
            (&[5, 1, 1, 1], SocksFault::Reserved, 1),
            (&[5, 2, 0, 1], SocksFault::Bind, 7),
            (&[5, 3, 0, 1], SocksFault::Udp, 7),
            (&[5, 0, 0, 1], SocksFault::Command(0), 7),
            (&[5, 255, 0, 1], SocksFault::Command(255), 7),
            (&[5, 1, 0, 2], SocksFault::AddressType(2), 8),
            (&[5, 1, 0, 0], SocksFault::AddressType(0), 8),
        ] {
            assert_eq!(request(bytes), Err(fault), "{bytes:?}");
            assert_eq!(fault.reply() as u8, reply, "{fault}");
        }
        let whole = b"\x05\x01\x00\x03\x09a.example\x01\xbb";
        for end in 0..whole.len() {
            assert_eq!(request(&whole[..end]), Ok(None), "{end}");
        }
        assert!(request(whole).unwrap().is_some());
    }
}
