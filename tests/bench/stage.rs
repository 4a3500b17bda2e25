//! An origin, a client and the built program between them, over loopback.
//!
//! Origin and client are blocking sockets in threads of their own, with buffers made beforehand, so that what is
//! measured is the proxy: once warm neither allocates.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
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
pub(crate) struct Client<S> {
    stream: S,
    request: Vec<u8>,
    /// How long the answers are: all alike.
    length: usize,
    answer: [u8; ROOM],
}

impl<S: Read + Write> Client<S> {
    /// Asks `http://ORIGIN/hello` once, over a stream to the proxy.
    pub(crate) fn new(mut stream: S, origin: SocketAddr) -> Self {
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
    child: Child,
    address: SocketAddr,
}

impl Outrider {
    /// Starts on one worker, with one destination `origin` that attaches a credential and has a limit.
    pub(crate) fn start(origin: SocketAddr, folder: &Path) -> Self {
        let file = folder.join("outrider.yml");
        std::fs::write(&file, configuration("127.0.0.1:0", origin, folder)).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_outrider"))
            .args(["run", "--config"])
            .arg(&file)
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
        // Whoever stopped reading would end the program's log, or block it.
        thread::spawn(move || std::io::copy(&mut told, &mut std::io::sink()));
        let (_, rest) = line.split_once("proxy on ").unwrap();
        let address = rest.split([',', ' ']).next().unwrap().parse().unwrap();
        Self { child, address }
    }

    /// A warm connection through it.
    pub(crate) fn client(&self, origin: SocketAddr) -> Client<TcpStream> {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_nodelay(true).unwrap();
        Client::new(stream, origin)
    }
}

impl Drop for Outrider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What it runs on.
pub(crate) fn configuration(listen: &str, origin: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"
listen: "{listen}"
admin: false
workers: 1
ca: {{ bundle: "{folder}/bundle.pem", truststore: "{folder}/trust.p12" }}
egress: {{ default: tunnel, allow_networks: [loopback] }}
destinations:
  origin:
    hosts: ["{origin}"]
    headers: {{ set: {{ Authorization: "Bearer 0123456789abcdef" }} }}
    rate_limit: 1000000/s burst 1000000
"#
    )
}
