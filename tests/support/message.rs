//! HTTP/1.1 messages as they are on the wire, read strictly and without repair.

use std::io::{self, BufRead, Read};

/// A request as an origin received it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

/// A response as a client received it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
    /// The status codes of the 1xx responses before it.
    pub(crate) interim: Vec<u16>,
    /// Whether the body ended as its framing says.
    pub(crate) complete: bool,
}

/// Header lines in order, names in lower case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Headers(pub(crate) Vec<(String, String)>);

impl Headers {
    /// Returns the value of the first field line with this name, which is in lower case.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.all(name).into_iter().next()
    }

    /// Returns the values of all field lines with this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.0
            .iter()
            .filter(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        let mut headers = Vec::new();
        loop {
            let line = read_line(stream)?;
            if line.is_empty() {
                return Ok(Self(headers));
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    fn length(&self) -> Option<usize> {
        self.get("content-length")?.parse().ok()
    }

    fn chunked(&self) -> bool {
        self.get("transfer-encoding")
            .is_some_and(|codings| codings.eq_ignore_ascii_case("chunked"))
    }
}

impl Request {
    /// Reads one request; `Err` when the connection ended before its end.
    pub(crate) fn read(stream: &mut impl BufRead) -> io::Result<Self> {
        let mut request = Self::read_head(stream)?;
        if request.headers.chunked() {
            let (body, complete) = read_chunks(stream);
            if !complete {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            request.body = body;
        } else {
            request.body.resize(request.headers.length().unwrap_or(0), 0);
            stream.read_exact(&mut request.body)?;
        }
        Ok(request)
    }

    /// Reads a head and leaves the body where it is.
    pub(crate) fn read_head(stream: &mut impl BufRead) -> io::Result<Self> {
        let line = read_line(stream)?;
        Ok(Self {
            line,
            headers: Headers::read(stream)?,
            body: Vec::new(),
        })
    }

    /// Returns the second word of the request line.
    pub(crate) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or("")
    }
}

impl Response {
    /// Reads one final response; `bodiless` for answers to HEAD and CONNECT.
    pub(crate) fn read(stream: &mut impl BufRead, bodiless: bool) -> io::Result<Self> {
        let mut interim = Vec::new();
        let (status, headers) = loop {
            let line = read_line(stream)?;
            let status = line
                .strip_prefix("HTTP/1.")
                .and_then(|rest| rest.get(2..5)?.parse::<u16>().ok())
                .ok_or_else(|| io::Error::other(format!("no status line: {line:?}")))?;
            let headers = Headers::read(stream)?;
            if status == 101 || status >= 200 {
                break (status, headers);
            }
            interim.push(status);
        };
        let bodiless = (bodiless && status < 300) || matches!(status, 101 | 204 | 304);
        let (body, complete) = read_body(stream, &headers, bodiless);
        Ok(Self {
            status,
            headers,
            body,
            interim,
            complete,
        })
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    /// Returns the RFC 9209 error type of an answer by outrider itself.
    pub(crate) fn error(&self) -> Option<&str> {
        let (_, rest) = self.header("proxy-status")?.split_once("error=")?;
        rest.split([';', ',', ' ']).next()
    }

    /// Asserts how Cache-Status (RFC 9211) begins.
    #[track_caller]
    pub(crate) fn assert_cache_status(&self, begin: &str) {
        let told = self.header("cache-status").unwrap_or("none");
        assert!(told.starts_with(begin), "{told} is not {begin}: {self:?}");
    }

    /// Asserts that this is a refusal of outrider's own, in the one form that they all have.
    #[track_caller]
    pub(crate) fn assert_ours(&self, status: u16, error: &str) -> String {
        assert_eq!(self.status, status, "{self:?} {}", self.text());
        let told = format!("{:?} {}", self.headers, self.text());
        assert_eq!(super::leak(&told), None, "a secret in a refusal");
        assert_eq!(self.error(), Some(error), "{self:?} {}", self.text());
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], status, "{problem}");
        let detail = problem["detail"].as_str().unwrap_or_default();
        assert!(detail.len() > 20, "no sentence a person can act on: {problem}");
        detail.to_owned()
    }
}

/// Builds a 200 with these header lines and this body.
pub(crate) fn ok(lines: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\n{lines}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn read_body(stream: &mut impl BufRead, headers: &Headers, bodiless: bool) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    if bodiless {
        return (body, true);
    }
    if headers.chunked() {
        return read_chunks(stream);
    }
    let complete = match headers.length() {
        Some(length) => stream.take(length as u64).read_to_end(&mut body).is_ok() && body.len() == length,
        None => stream.read_to_end(&mut body).is_ok(),
    };
    (body, complete)
}

fn read_chunks(stream: &mut impl BufRead) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Ok(line) = read_line(stream) else {
            return (body, false);
        };
        let digits = line.split(';').next().unwrap_or_default().trim();
        let Ok(size) = usize::from_str_radix(digits, 16) else {
            return (body, false);
        };
        if size == 0 {
            return (body, Headers::read(stream).is_ok());
        }
        let start = body.len();
        body.resize(start + size, 0);
        if stream.read_exact(&mut body[start..]).is_err() || read_line(stream).is_err() {
            return (body, false);
        }
    }
}

fn read_line(stream: &mut impl BufRead) -> io::Result<String> {
    let mut line = Vec::new();
    stream.read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(String::from_utf8_lossy(&line).into_owned())
}
