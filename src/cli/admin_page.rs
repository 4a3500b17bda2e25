//! A page of the admin port of an outrider that runs.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// In bytes.
const LONGEST: usize = 16 << 20;

const PATIENCE: Duration = Duration::from_secs(1);

/// Asks for a page in JSON. `host` is the name and port as the request says them. Fails where what answers is no outrider.
pub(super) fn fetch(address: SocketAddr, host: &str, path: &str) -> io::Result<Value> {
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "what answers there is no outrider");
    let answer = exchange(address, host, path)?;
    let answer = str::from_utf8(&answer).map_err(|_| foreign())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(foreign)?;
    let is_fine = head.starts_with("HTTP/1.0 200 ") || head.starts_with("HTTP/1.1 200 ");
    let page: Option<Value> = serde_json::from_str(body).ok().filter(|_| is_fine);
    page.filter(|page| page["outrider"].is_string())
        .ok_or_else(foreign)
}

/// HTTP/1.0: the answer ends with the connection, and has no chunks.
fn exchange(address: SocketAddr, host: &str, path: &str) -> io::Result<Vec<u8>> {
    let end = Instant::now() + PATIENCE;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {host}\r\n\r\n")?;
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
