//! Whole exchanges of either side, told as values that a test can compare.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use http_body::Body;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, DuplexStream};

use super::script::{Said, Script};
use crate::http1::client::{ClientConnection, ReadError, SendError};
use crate::http1::server::{self, Handled};
use crate::http1::{Error, HeadRules, Inbound};
use crate::message::{Fields, Request, RequestHead, Response};
use crate::stream::Reset;

pub(super) const LIMITS: HeadRules = HeadRules {
    count: 100,
    keeps_spelling: false,
    size: 16 * 1024,
};
pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// A request as a service saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) line: String,
    pub(super) fields: Vec<(String, Vec<u8>)>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Vec<(String, Vec<u8>)>,
}

/// What became of the requests on a connection: each as it was heard, or why it was not.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(Arc<Mutex<Vec<Result<Heard, String>>>>);

impl Log {
    pub(super) fn all(&self) -> Vec<Result<Heard, String>> {
        self.0.lock().unwrap().clone()
    }

    /// The request lines that were heard, and the faults.
    pub(super) fn lines(&self) -> Vec<String> {
        let lines = self.all().into_iter();
        lines
            .map(|heard| heard.map_or_else(|fault| fault, |heard| heard.line))
            .collect()
    }

    pub(super) fn push(&self, heard: Result<Heard, String>) {
        self.0.lock().unwrap().push(heard);
    }
}

/// Serves `stream` to its end with a service that reads each body and answers `ok`, or 400 and why.
pub(super) async fn serve<T>(stream: T, log: &Log)
where
    T: AsyncRead + AsyncWrite + Reset + Unpin + Send + 'static,
{
    server::serve(
        stream,
        LIMITS,
        |_| {},
        |request| {
            let log = log.clone();
            async move {
                let heard = match request {
                    // As everything that reads a body, it does not wait for ever.
                    Ok(request) => (tokio::time::timeout(LIMIT, hear(request)).await)
                        .unwrap_or_else(|_| Err("body: too slow".to_owned())),
                    Err(error) => Err(format!("head: {error}")),
                };
                let status = if heard.is_ok() {
                    StatusCode::OK
                } else {
                    StatusCode::BAD_REQUEST
                };
                log.push(heard);
                answer(status, Said::of("ok"))
            }
        },
    )
    .await;
}

pub(super) fn answer<T>(status: StatusCode, body: Said) -> Handled<T, Said> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::DATE, HeaderValue::from_static("now"));
    Handled::Response(response)
}

/// What a server made of `stream`: the requests, and what was written in answer.
pub(super) async fn served(stream: Script) -> (Log, String) {
    let (log, written) = (Log::default(), stream.written.clone());
    serve(stream, &log).await;
    (log, written.text())
}

/// Reads a request to its end.
pub(super) async fn hear(request: Request<Option<Inbound>>) -> Result<Heard, String> {
    let (parts, body) = request.into_parts();
    let (body, trailers) = match body {
        Some(body) => read(body).await.map_err(|(_, error)| format!("body: {error}"))?,
        None => Default::default(),
    };
    Ok(Heard {
        line: format!("{} {} {:?}", parts.method, parts.uri, parts.version),
        fields: listed(&parts.headers),
        body,
        trailers: listed(&trailers),
    })
}

/// The data and the trailers of a body, or the data before the failure.
pub(super) async fn read<B>(mut body: B) -> Result<(Vec<u8>, Fields), (Vec<u8>, B::Error)>
where
    B: Body<Data = Bytes> + Unpin,
{
    let (mut data, mut trailers) = (Vec::new(), Fields::new());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) if frame.is_data() => data.extend(frame.into_data().unwrap()),
            Ok(frame) => trailers = frame.into_trailers().unwrap().into(),
            Err(error) => return Err((data, error)),
        }
    }
    Ok((data, trailers))
}

pub(super) async fn read_all(app: &mut DuplexStream) -> String {
    let mut text = Vec::new();
    app.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

pub(super) fn listed(fields: &Fields) -> Vec<(String, Vec<u8>)> {
    let listed = fields.iter();
    listed
        .map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))
        .collect()
}

/// An answer as the client read it.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) interim: Vec<Response<()>>,
    pub(super) response: Response<()>,
    pub(super) body: Vec<u8>,
    pub(super) trailers: Fields,
    /// Why the body ended early.
    pub(super) cut: Option<ReadError>,
    pub(super) is_reusable: bool,
}

/// The request that most tests send.
pub(super) fn get() -> Box<RequestHead> {
    Request::from(http::Request::get("/").body(()).unwrap())
        .into_parts()
        .0
}

/// Sends one request and reads its answer to the end.
pub(super) async fn ask<T>(
    connection: &mut ClientConnection<T, Said>,
    parts: &RequestHead,
    body: Said,
) -> Result<Got, SendError<&'static str>>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let authority = HeaderValue::from_static("origin.test");
    let interim = Mutex::new(Vec::new());
    let note = |response| interim.lock().unwrap().push(response);
    let response = connection.send(parts, &authority, body, LIMIT, note).await?;
    let (mut body, mut trailers, mut cut) = (Vec::new(), Fields::new(), None);
    while let Some(frame) = std::future::poll_fn(|cx| connection.poll_frame(cx, LIMIT)).await {
        match frame {
            Ok(frame) if frame.is_data() => body.extend(frame.into_data().unwrap()),
            Ok(frame) => trailers = frame.into_trailers().unwrap().into(),
            Err(error) => {
                cut = Some(error);
                break;
            }
        }
    }
    Ok(Got {
        interim: interim.into_inner().unwrap(),
        response,
        body,
        trailers,
        cut,
        is_reusable: connection.is_reusable(),
    })
}

/// The answer to a GET that `stream` gives.
pub(super) async fn asked(stream: Script) -> Result<Got, SendError<&'static str>> {
    ask(
        &mut ClientConnection::new(stream, LIMITS),
        &get(),
        Said::default(),
    )
    .await
}

/// In one word, for tables.
pub(super) fn kind<E>(failure: &SendError<E>) -> &'static str {
    match failure {
        SendError::Answer(Error::Incomplete) => "answer cut",
        SendError::Answer(Error::Io(_)) => "answer broken",
        SendError::Answer(Error::TooLarge(_)) => "answer too large",
        SendError::Answer(_) => "no answer",
        SendError::Body(Some(_)) => "body",
        SendError::Body(None) => "length",
        SendError::Lost(_) => "lost",
        SendError::TimedOut => "timed out",
    }
}
