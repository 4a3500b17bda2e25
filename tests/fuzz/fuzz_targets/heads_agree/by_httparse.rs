//! Reads a head with httparse.

use http::{HeaderMap, HeaderName, HeaderValue};
use httparse::{EMPTY_HEADER, Error, Header, Request, Response, Status};

use crate::{Read, fields};

pub(crate) fn request(data: &[u8]) -> Result<Read, Error> {
    let mut lines = [EMPTY_HEADER; 100];
    let mut request = Request::new(&mut lines);
    let Status::Complete(end) = request.parse(data)? else {
        panic!("httparse waits for more");
    };
    Ok(Read {
        start: (
            request.method.expect("complete").to_owned(),
            request.path.expect("complete").to_owned(),
        ),
        is_old: request.version == Some(0),
        fields: map(request.headers),
        ends: None,
        rest: Some(data.len() - end),
    })
}

pub(crate) fn response(data: &[u8]) -> Result<Read, Error> {
    let mut lines = [EMPTY_HEADER; 100];
    let mut response = Response::new(&mut lines);
    let Status::Complete(end) = response.parse(data)? else {
        panic!("httparse waits for more");
    };
    Ok(Read {
        start: (response.code.expect("complete").to_string(), String::new()),
        is_old: response.version == Some(0),
        fields: map(response.headers),
        ends: None,
        rest: Some(data.len() - end),
    })
}

fn map(lines: &[Header<'_>]) -> HeaderMap {
    fields(lines.iter().map(|line| {
        let name: HeaderName = line.name.parse().expect("httparse checks names");
        (
            name,
            HeaderValue::from_bytes(line.value).expect("httparse checks values"),
        )
    }))
}
