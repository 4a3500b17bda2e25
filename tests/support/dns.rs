//! A DNS server under a script, over UDP on loopback.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// The answer to one question.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// These addresses, except those of the wrong family, with a time to live in seconds.
    Addresses(Vec<IpAddr>, u32),
    /// The name is another name for this one, whose addresses follow.
    Alias(&'static str, Vec<IpAddr>),
    /// An error code: 2 is SERVFAIL, 3 is NXDOMAIN.
    Code(u8),
    /// Bytes that are not a DNS message.
    Garbage,
    Silence,
}

/// A running server; its thread ends with the test's process.
pub(crate) struct Dns {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Dns {
    /// Answers each question by `script(name, how often this question was asked before)`.
    pub(crate) fn serve(script: impl Fn(&str, usize) -> Answer + Send + 'static) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((length, peer)) = socket.recv_from(&mut packet) {
                let Some((name, kind, end)) = question(&packet[..length]) else {
                    continue;
                };
                let before = {
                    let mut asked = log.lock().unwrap();
                    let before = asked
                        .iter()
                        .filter(|asked| **asked == format!("{name} {kind}"))
                        .count();
                    asked.push(format!("{name} {kind}"));
                    before
                };
                if let Some(reply) = reply(&packet[..end], kind, script(&name, before)) {
                    let _ = socket.send_to(&reply, peer);
                }
            }
        });
        Self { address, asked }
    }

    /// Returns a value of `dns` with only this server, and the shortest times to keep answers.
    pub(crate) fn yaml(&self) -> String {
        format!(
            "{{ servers: [\"{}\"], timeout: 2s, min_ttl: 0s, stale: 0s }}",
            self.address
        )
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns how many questions were asked for a name, of any type.
    pub(crate) fn asked(&self, name: &str) -> usize {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .filter(|asked| asked.split(' ').next() == Some(name))
            .count()
    }

    /// The time limit of a look-up under [`Self::yaml`].
    pub(crate) const TIMEOUT: Duration = Duration::from_secs(2);
}

/// Reads the name, the type and the end of a message's question.
fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
    let mut at = 12;
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?);
    Some((labels.join("."), kind, at + 4))
}

fn reply(asked: &[u8], kind: u16, answer: Answer) -> Option<Vec<u8>> {
    let (code, records) = match answer {
        Answer::Silence => return None,
        Answer::Garbage => return Some(b"not a DNS message".to_vec()),
        Answer::Code(code) => (code, Vec::new()),
        Answer::Addresses(addresses, ttl) => (
            0,
            addresses
                .iter()
                .filter_map(|address| record(&[0xc0, 0x0c], *address, kind, ttl))
                .collect(),
        ),
        Answer::Alias(name, addresses) => {
            let name = encoded(name);
            let mut alias = vec![0xc0, 0x0c, 0, 5, 0, 1, 0, 0, 0, 1];
            alias.extend_from_slice(&(name.len() as u16).to_be_bytes());
            alias.extend_from_slice(&name);
            let mut records = vec![alias];
            records.extend(
                addresses
                    .iter()
                    .filter_map(|address| record(&name, *address, kind, 1)),
            );
            (0, records)
        }
    };
    let mut reply = asked[..2].to_vec();
    reply.extend_from_slice(&[0x81, 0x80 | code, 0, 1]);
    reply.extend_from_slice(&(records.len() as u16).to_be_bytes());
    reply.extend_from_slice(&[0, 0, 0, 0]);
    reply.extend_from_slice(&asked[12..]);
    for record in records {
        reply.extend_from_slice(&record);
    }
    Some(reply)
}

fn record(name: &[u8], address: IpAddr, kind: u16, ttl: u32) -> Option<Vec<u8>> {
    let bytes = match (address, kind) {
        (IpAddr::V4(v4), 1) => v4.octets().to_vec(),
        (IpAddr::V6(v6), 28) => v6.octets().to_vec(),
        _ => return None,
    };
    let mut record = name.to_vec();
    record.extend_from_slice(&kind.to_be_bytes());
    record.extend_from_slice(&[0, 1]);
    record.extend_from_slice(&ttl.to_be_bytes());
    record.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    record.extend_from_slice(&bytes);
    Some(record)
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}
