//! What the running outrider believes of a destination's limits: one request to its admin port, /status.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Lines.
const MOST: usize = 10;

/// What is believed of one host of a destination, each as an object of the page.
#[derive(Debug)]
pub(super) enum Now {
    Known(Vec<Value>),
    /// And why.
    Unknown(String),
}

impl Now {
    /// Asks the outrider whose admin port is at `admin`, if it is on this machine's loopback. `host`: as in
    /// `https://host:port`.
    pub(super) fn ask(admin: Option<SocketAddr>, destination: &str, host: &str) -> Self {
        let Some(address) = admin else {
            return Self::Unknown("admin: false".to_owned());
        };
        let address = match address.ip() {
            ip if ip.is_loopback() => address,
            IpAddr::V4(Ipv4Addr::UNSPECIFIED) => (Ipv4Addr::LOCALHOST, address.port()).into(),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED) => (Ipv6Addr::LOCALHOST, address.port()).into(),
            _ => return Self::Unknown(format!("admin is at {address}, and only loopback is asked")),
        };
        let Some(page) = fetch(address) else {
            return Self::Unknown(format!("no outrider answers at {address}"));
        };
        let beliefs = page["limits_now"][destination].as_array();
        Self::Known(concerning(beliefs.map_or(&[], Vec::as_slice), host))
    }

    /// Each as a sentence.
    pub(super) fn lines(&self) -> Vec<String> {
        match self {
            Self::Known(beliefs) if beliefs.is_empty() => {
                vec!["nothing is learned that concerns this host".to_owned()]
            }
            Self::Known(beliefs) => {
                // Each of the app's users may have met the same limit.
                let mut alike: Vec<(String, usize)> = Vec::new();
                for line in beliefs.iter().map(line) {
                    match alike.iter_mut().find(|(other, _)| *other == line) {
                        Some((_, count)) => *count += 1,
                        None => alike.push((line, 1)),
                    }
                }
                let more = alike.len().saturating_sub(MOST);
                let lines = alike.into_iter().take(MOST).map(|(line, count)| match count {
                    1 => line,
                    _ => format!("{line} ({count} alike)"),
                });
                let more = (more > 0).then(|| format!("{more} more; /status on the admin port has them"));
                lines.chain(more).collect()
            }
            Self::Unknown(why) => vec![format!("not known ({why})")],
        }
    }

    /// `null` where it is not known.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Known(beliefs) => beliefs.as_slice().into(),
            Self::Unknown(_) => Value::Null,
        }
    }
}

/// Those of this host, and of all hosts.
fn concerning(beliefs: &[Value], host: &str) -> Vec<Value> {
    let concerns = |belief: &&Value| belief["host"].as_str().is_none_or(|own| own == host);
    beliefs.iter().filter(concerns).cloned().collect()
}

fn line(belief: &Value) -> String {
    let text = belief["text"].as_str().unwrap_or_default();
    // What listens there may be anything.
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    match belief["credential"].as_str() {
        None => text,
        Some(place) => format!("{place}: {text}"),
    }
}

/// The page, if what answers is an outrider.
fn fetch(address: SocketAddr) -> Option<Value> {
    let answer = exchange(address).ok()?;
    let answer = str::from_utf8(&answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let is_fine = head.starts_with("HTTP/1.0 200 ") || head.starts_with("HTTP/1.1 200 ");
    let page: Value = serde_json::from_str(body).ok().filter(|_| is_fine)?;
    page["outrider"].is_string().then_some(page)
}

/// HTTP/1.0: the answer ends with the connection, and has no chunks.
fn exchange(address: SocketAddr) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET /status HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = vec![0; 64 * 1024];
    while answer.len() < LONGEST {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut buffer)? {
            0 => return Ok(answer),
            length => answer.extend_from_slice(&buffer[..length]),
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// In bytes.
const LONGEST: usize = 16 << 20;

const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_concerns_the_host_is_told_in_few_lines() {
        let belief = |host: Value, text: &str| json!({ "host": host, "text": text, "credential": null });
        let beliefs = [
            belief(json!("https://a.test:443"), "one\u{1b}[2J"),
            belief(json!("https://b.test:443"), "other"),
            belief(Value::Null, "all hosts"),
            belief(json!("https://a.test:443"), "one\u{1b}[2J"),
            json!({ "host": null, "text": "one", "credential": "auth[0].pool[1]" }),
        ];
        let now = Now::Known(concerning(&beliefs, "https://a.test:443"));
        assert_eq!(
            now.lines(),
            ["one[2J (2 alike)", "all hosts", "auth[0].pool[1]: one"]
        );
        let many = (0..25).map(|number| belief(Value::Null, &number.to_string()));
        let lines = Now::Known(many.collect()).lines();
        assert_eq!(lines.len(), MOST + 1);
        assert_eq!(lines[MOST], "15 more; /status on the admin port has them");
    }
}
