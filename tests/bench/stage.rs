//! An origin, a client and the built program between them, over loopback.
//!
//! Origin and client are blocking sockets in separate threads, with buffers made beforehand, so that only the
//! proxy is measured: once warm neither allocates.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

/// The origin's answer to every request.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello";

/// The most that one message may have.
const ROOM: usize = 4096;

/// Answers every request on every connection, until the process ends.
pub(crate) fn origin() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_nodelay(true).unwrap();
            thread::spawn(move || {
                let mut message = [0; ROOM];
                while message_end(&mut stream, &mut message) {
                    stream.write_all(ANSWER).unwrap();
                }
            });
        }
    });
    address
}

/// Reads a message without a body; false where the peer has closed instead.
fn message_end(stream: &mut impl Read, message: &mut [u8]) -> bool {
    let mut length = 0;
    loop {
        match stream.read(&mut message[length..]) {
            Ok(0) | Err(_) => return false,
            Ok(read) => length += read,
        }
        if message[..length].ends_with(b"\r\n\r\n") {
            return true;
        }
    }
}

/// One connection to a proxy, on which the same GET is asked again and again.
pub(crate) struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    /// How long the answers are: all alike.
    length: usize,
    answer: [u8; ROOM],
}

impl Client {
    /// Asks `http://ORIGIN/hello` through `proxy` for the first time.
    pub(crate) fn warm(proxy: SocketAddr, origin: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(proxy).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!("GET http://{origin}/hello HTTP/1.1\r\nHost: {origin}\r\nAccept: */*\r\n\r\n");
        let mut answer = [0; ROOM];
        stream.write_all(request.as_bytes()).unwrap();
        let mut length = 0;
        while !answer[..length].ends_with(b"\r\n\r\nhello") {
            let read = stream.read(&mut answer[length..]).unwrap();
            assert_ne!(read, 0, "{}", String::from_utf8_lossy(&answer));
            length += read;
        }
        Self {
            stream,
            request: request.into_bytes(),
            length,
            answer,
        }
    }

    /// Asks again; the answer must be a 200 of the same length.
    pub(crate) fn get(&mut self) {
        self.stream.write_all(&self.request).unwrap();
        self.stream.read_exact(&mut self.answer[..self.length]).unwrap();
        assert!(self.answer.starts_with(b"HTTP/1.1 200 "));
    }
}

/// A running outrider; killed on drop.
pub(crate) struct Outrider {
    pub(crate) child: Child,
    address: SocketAddr,
}

impl Outrider {
    /// Starts it on [`configure`]d ground: `command` and its arguments, followed by those of `outrider run`.
    pub(crate) fn start(command: &mut Command, config: &Path) -> Self {
        let mut child = command
            .args(["run", "--config"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("proxy on ") {
            line.clear();
            assert_ne!(told.read_line(&mut line).unwrap(), 0, "outrider did not start");
        }
        // Without a reader the program's log would end or block.
        thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
        let (_, rest) = line.split_once("proxy on ").unwrap();
        let address = rest.split([',', ' ']).next().unwrap().parse().unwrap();
        Self { child, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Outrider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes the file that it runs on: one worker, and one destination that attaches a credential and has a limit; a
/// CONNECT to it passes untouched. The destination has these `keys` as well.
pub(crate) fn configure(origin: SocketAddr, folder: &Path, keys: &str) -> PathBuf {
    let (file, folder) = (folder.join("outrider.yml"), folder.display());
    let text = format!(
        r#"
listen: 127.0.0.1:0
admin: false
workers: 1
ca: {{ bundle: "{folder}/bundle.pem", truststore: "{folder}/trust.p12" }}
egress: {{ allow_networks: [loopback] }}
destinations:
  origin:
    hosts: ["{origin}"]
    mode: tunnel
    headers: {{ set: {{ Authorization: "Bearer 0123456789abcdef" }} }}
    rate_limit: 1000000/s burst 1000000
    {keys}
"#
    );
    std::fs::write(&file, text).unwrap();
    file
}
