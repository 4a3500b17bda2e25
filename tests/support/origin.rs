//! An origin that runs a script: it records every received byte and sends the answers of the test.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustls::{HandshakeKind, ServerConfig, ServerConnection, StreamOwned};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::wire::waited;
use super::{PATIENCE, Proxy, Wire};

/// One connection as the origin saw it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ConnectionRecord {
    /// All received bytes, decrypted if there is TLS.
    pub(crate) bytes: Vec<u8>,
    pub(crate) sni: Option<String>,
    pub(crate) alpn: Option<String>,
    /// The subject's common name and the serial number of the client certificate.
    pub(crate) client: Option<(String, String)>,
    pub(crate) resumed: bool,
    /// The TLS handshake's failure.
    pub(crate) failed: Option<String>,
    /// Whether the peer closed its sending side.
    pub(crate) ended: bool,
}

/// A listening origin; it ends with the test.
pub(crate) struct Origin {
    /// Has the listener.
    acceptor: Mutex<Option<JoinHandle<()>>>,
    address: SocketAddr,
    log: Arc<ConnectionLog>,
    stopped: Arc<AtomicBool>,
}

#[derive(Default)]
struct ConnectionLog {
    connections: Mutex<Vec<ConnectionRecord>>,
    changed: Condvar,
    /// The received bytes of all connections, in the order in which they came.
    raw: Mutex<Vec<u8>>,
}

impl Origin {
    /// Answers every request with 200 and `ok`.
    pub(crate) fn plain() -> Self {
        Self::http(ok)
    }

    /// Runs `script` on each connection.
    pub(crate) fn http(script: impl Fn(&mut Wire) + Send + Sync + 'static) -> Self {
        Self::start(None, move |wire, _| script(wire))
    }

    /// Answers each request with these bytes as they are.
    pub(crate) fn saying(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::http(move |wire| {
            while wire.request().is_ok() {
                wire.send(&response);
            }
        })
    }

    /// Sends these bytes once a request's head is in, and closes.
    pub(crate) fn saying_once(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::http(move |wire| {
            let _ = wire.request();
            wire.send(&response);
        })
    }

    /// Runs `script` on each connection, under TLS.
    pub(crate) fn https(config: ServerConfig, script: impl Fn(&mut Wire) + Send + Sync + 'static) -> Self {
        Self::start(Some(config), move |wire, _| script(wire))
    }

    /// Runs `script` with the number of its connection, from 0.
    pub(crate) fn numbered(
        config: Option<ServerConfig>,
        script: impl Fn(&mut Wire, usize) + Send + Sync + 'static,
    ) -> Self {
        Self::start(config, script)
    }

    fn start(
        config: Option<ServerConfig>,
        script: impl Fn(&mut Wire, usize) + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(ConnectionLog::default());
        let stopped = Arc::new(AtomicBool::new(false));
        let config = config.map(Arc::new);
        let script = Arc::new(script);
        let (shared, stop) = (Arc::clone(&log), Arc::clone(&stopped));
        let acceptor = thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let number = shared.add();
                let (log, config, script) = (Arc::clone(&shared), config.clone(), Arc::clone(&script));
                thread::spawn(move || {
                    if let Some(mut wire) = accept(socket, config, &log, number) {
                        script(&mut wire, number);
                    }
                });
            }
        });
        Self {
            acceptor: Mutex::new(Some(acceptor)),
            address,
            log,
            stopped,
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Returns `http://partner.test:PORT/path`; every origin of the tests has this name.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.authority())
    }

    /// Returns `partner.test:PORT`.
    pub(crate) fn authority(&self) -> String {
        format!("partner.test:{}", self.port())
    }

    /// Starts a proxy with this destination and these settings.
    #[track_caller]
    pub(crate) fn proxy(&self, settings: &str) -> Proxy {
        Proxy::to(&self.authority(), settings)
    }

    /// Stops listening, and returns when a new connection is refused. What is connected stays so.
    pub(crate) fn close(&self) {
        let Some(acceptor) = self.acceptor.lock().unwrap().take() else {
            return;
        };
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the acceptor, which then sees the flag; the listener ends with it.
        let _ = TcpStream::connect(self.address);
        let _ = acceptor.join();
    }

    /// Returns every connection so far.
    pub(crate) fn seen(&self) -> Vec<ConnectionRecord> {
        self.log.connections.lock().unwrap().clone()
    }

    /// Returns all received bytes in the order in which they came. A proxy with several workers has several connections.
    pub(crate) fn raw(&self) -> String {
        String::from_utf8_lossy(&self.log.raw.lock().unwrap()).into_owned()
    }

    /// Waits until what was seen satisfies `what`.
    #[track_caller]
    pub(crate) fn wait(&self, claim: &str, what: impl Fn(&[ConnectionRecord]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut connections = self.log.connections.lock().unwrap();
        while !what(&connections) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(
                !left.is_zero(),
                "the origin never saw: {claim}; it saw {connections:#?}"
            );
            connections = self.log.changed.wait_timeout(connections, left).unwrap().0;
        }
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.close();
    }
}

/// Answers every request with 200 and `ok`.
pub(crate) fn ok(wire: &mut Wire) {
    while wire.request().is_ok() {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    }
}

/// Answers each request with its body.
pub(crate) fn echo(wire: &mut Wire) {
    while let Ok(request) = wire.request() {
        let length = request.body.len();
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"))
            .send(request.body);
    }
}

fn accept(
    socket: TcpStream,
    config: Option<Arc<ServerConfig>>,
    log: &Arc<ConnectionLog>,
    number: usize,
) -> Option<Wire> {
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut stream = socket.try_clone().ok()?;
    let Some(config) = config else {
        return Some(Wire::over(
            Box::new(RecordingStream {
                stream,
                log: Arc::clone(log),
                number,
            }),
            socket,
        ));
    };
    let mut connection = ServerConnection::new(config).ok()?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut stream) {
            log.change(number, |seen| seen.failed = Some(error.to_string()));
            return None;
        }
    }
    log.change(number, |seen| {
        seen.sni = connection.server_name().map(str::to_owned);
        seen.alpn = connection
            .alpn_protocol()
            .map(|alpn| String::from_utf8_lossy(alpn).into_owned());
        seen.resumed = connection.handshake_kind() == Some(HandshakeKind::Resumed);
        seen.client = connection
            .peer_certificates()
            .and_then(|chain| client(chain.first()?));
    });
    let stream = StreamOwned::new(connection, stream);
    Some(Wire::over(
        Box::new(RecordingStream {
            stream,
            log: Arc::clone(log),
            number,
        }),
        socket,
    ))
}

fn client(certificate: &[u8]) -> Option<(String, String)> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let name = certificate
        .subject()
        .iter_common_name()
        .next()?
        .as_str()
        .ok()?
        .to_owned();
    Some((name, certificate.raw_serial_as_string()))
}

impl ConnectionLog {
    fn add(&self) -> usize {
        let mut connections = self.connections.lock().unwrap();
        connections.push(ConnectionRecord::default());
        self.changed.notify_all();
        connections.len() - 1
    }

    fn change(&self, number: usize, change: impl FnOnce(&mut ConnectionRecord)) {
        change(&mut self.connections.lock().unwrap()[number]);
        self.changed.notify_all();
    }
}

/// Records what is read through it, up to a limit that no test of raw bytes reaches.
struct RecordingStream<S> {
    stream: S,
    log: Arc<ConnectionLog>,
    number: usize,
}

impl<S: Read> Read for RecordingStream<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.stream.read(buffer);
        self.log.change(self.number, |seen| match &result {
            Ok(0) => seen.ended = true,
            Ok(count) => {
                for kept in [&mut seen.bytes, &mut *self.log.raw.lock().unwrap()] {
                    if kept.len() < KEPT {
                        kept.extend_from_slice(&buffer[..*count]);
                    }
                }
            }
            Err(error) => seen.ended |= !waited(error),
        });
        result
    }
}

impl<S: Write> Write for RecordingStream<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.stream.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// How many received bytes are kept of a connection, and of all together.
const KEPT: usize = 4 << 20;
