//! One connection, with or without TLS, on which a test sends exactly the bytes that it wants.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::{PATIENCE, Request, Response};

/// What a [`Wire`] runs over.
pub(crate) trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// One connection; buffered when reading, immediate when writing.
pub(crate) struct Wire {
    stream: BufReader<Box<dyn Stream>>,
    socket: TcpStream,
}

impl Wire {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        Self::over(Box::new(socket.try_clone().unwrap()), socket)
    }

    /// Makes a wire over `stream`, which runs over `socket`.
    pub(crate) fn over(stream: Box<dyn Stream>, socket: TcpStream) -> Self {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
            socket,
        }
    }

    /// Sends bytes. A peer that has closed is not an error here; it shows when reading.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let _ = self.try_send(bytes);
        self
    }

    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(bytes.as_ref())?;
        stream.flush()
    }

    /// Reads the next final response.
    #[track_caller]
    pub(crate) fn response(&mut self) -> Response {
        Response::read(&mut self.stream, false).expect("a response")
    }

    /// Reads the next final response, to a request whose success has no body (HEAD, CONNECT).
    #[track_caller]
    pub(crate) fn bodiless_response(&mut self) -> Response {
        Response::read(&mut self.stream, true).expect("a response")
    }

    pub(crate) fn try_response(&mut self) -> io::Result<Response> {
        Response::read(&mut self.stream, false)
    }

    /// Sends a whole request and reads its response.
    #[track_caller]
    pub(crate) fn ask(&mut self, request: impl AsRef<[u8]>) -> Response {
        self.send(request).response()
    }

    /// Sends a GET in origin form, as inside an intercepted tunnel.
    #[track_caller]
    pub(crate) fn get(&mut self, host: &str, path: &str) -> Response {
        self.ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }

    pub(crate) fn request(&mut self) -> io::Result<Request> {
        Request::read(&mut self.stream)
    }

    /// Reads a request's head and leaves its body unread.
    pub(crate) fn request_head(&mut self) -> io::Result<Request> {
        Request::read_head(&mut self.stream)
    }

    pub(crate) fn read_exact(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    pub(crate) fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).unwrap();
        line
    }

    /// Reads up to the end of the connection. Returns the bytes, and an error if the end was not clean.
    pub(crate) fn rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut bytes = Vec::new();
        let end = self.stream.read_to_end(&mut bytes).map(|_| ());
        (bytes, end)
    }

    /// Returns whether the peer closes or resets without more bytes, within [`PATIENCE`].
    pub(crate) fn closes(&mut self) -> bool {
        match self.rest() {
            (bytes, Ok(())) => bytes.is_empty(),
            (bytes, Err(error)) => bytes.is_empty() && !waited(&error),
        }
    }

    /// Closes the sending side; reading goes on.
    pub(crate) fn half_close(&mut self) {
        self.socket.shutdown(Shutdown::Write).unwrap();
    }

    /// Ends the connection with a reset.
    pub(crate) fn reset(self) {
        socket2::SockRef::from(&self.socket)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    }

    /// Makes the receive buffer small, so that a stalled reader has an effect soon.
    pub(crate) fn receive_little(&self) {
        socket2::SockRef::from(&self.socket)
            .set_recv_buffer_size(4096)
            .unwrap();
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Begins TLS on this wire and completes the handshake.
    pub(crate) fn tls(self, name: &str, config: &Arc<ClientConfig>) -> io::Result<Self> {
        assert!(self.stream.buffer().is_empty(), "bytes before the TLS handshake");
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut connection = ClientConnection::new(Arc::clone(config), name).unwrap();
        let mut stream = self.stream.into_inner();
        while connection.is_handshaking() {
            connection.complete_io(&mut stream)?;
        }
        Ok(Self::over(
            Box::new(StreamOwned::new(connection, stream)),
            self.socket,
        ))
    }
}

/// Returns whether a read ended only because of its time limit.
pub(super) fn waited(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}
