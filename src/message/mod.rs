//! Requests and responses, with all that stands in their heads.
//!
//! Method, target, status, and the names and values of fields are of `http`'s types, which decide what characters they may
//! have. The list of fields is [`Fields`] rather than `http`'s map: a head has so few of them that a search through a list
//! costs less than a hash, it takes one allocation instead of two, and it keeps the order of the lines.

use bytes::Bytes;
use http::{Extensions, Method, StatusCode, Uri, Version};

pub(crate) use fields::Fields;

mod fields;

/// A request or a response: its head, and its body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message<H, B> {
    head: H,
    body: B,
}

/// A request; `B` is its body. Its head is boxed: it is large, and handed on many times.
pub(crate) type Request<B> = Message<Box<RequestHead>, B>;

/// A response; `B` is its body.
pub(crate) type Response<B> = Message<ResponseHead, B>;

/// All of a request but its body.
#[derive(Clone, Debug, Default)]
pub(crate) struct RequestHead {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) headers: Fields,
    pub(crate) extensions: Extensions,
}

/// All of a response but its body.
#[derive(Clone, Debug, Default)]
pub(crate) struct ResponseHead {
    pub(crate) status: StatusCode,
    pub(crate) version: Version,
    pub(crate) headers: Fields,
    pub(crate) extensions: Extensions,
    /// All bytes of the head, as they came over HTTP/1.1. The values are views of them.
    pub(crate) received: Option<Bytes>,
}

impl<H, B> Message<H, B> {
    pub(crate) fn new(body: B) -> Self
    where
        H: Default,
    {
        Self::from_parts(H::default(), body)
    }

    pub(crate) fn from_parts(head: H, body: B) -> Self {
        Self { head, body }
    }

    pub(crate) fn into_parts(self) -> (H, B) {
        (self.head, self.body)
    }

    pub(crate) fn map<C>(self, change: impl FnOnce(B) -> C) -> Message<H, C> {
        Message::from_parts(self.head, change(self.body))
    }

    pub(crate) fn body(&self) -> &B {
        &self.body
    }

    pub(crate) fn body_mut(&mut self) -> &mut B {
        &mut self.body
    }

    pub(crate) fn into_body(self) -> B {
        self.body
    }
}

impl<B> Request<B> {
    pub(crate) fn method(&self) -> &Method {
        &self.head.method
    }

    pub(crate) fn method_mut(&mut self) -> &mut Method {
        &mut self.head.method
    }

    pub(crate) fn uri(&self) -> &Uri {
        &self.head.uri
    }

    pub(crate) fn uri_mut(&mut self) -> &mut Uri {
        &mut self.head.uri
    }

    pub(crate) fn version(&self) -> Version {
        self.head.version
    }

    pub(crate) fn version_mut(&mut self) -> &mut Version {
        &mut self.head.version
    }

    pub(crate) fn headers(&self) -> &Fields {
        &self.head.headers
    }

    pub(crate) fn headers_mut(&mut self) -> &mut Fields {
        &mut self.head.headers
    }

    pub(crate) fn extensions(&self) -> &Extensions {
        &self.head.extensions
    }

    pub(crate) fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.head.extensions
    }
}

impl<B> Response<B> {
    pub(crate) fn status(&self) -> StatusCode {
        self.head.status
    }

    pub(crate) fn status_mut(&mut self) -> &mut StatusCode {
        &mut self.head.status
    }

    /// Returns all bytes of the head, if it came over HTTP/1.1.
    pub(crate) fn received(&self) -> Option<&Bytes> {
        self.head.received.as_ref()
    }

    pub(crate) fn received_mut(&mut self) -> &mut Option<Bytes> {
        &mut self.head.received
    }

    pub(crate) fn version(&self) -> Version {
        self.head.version
    }

    pub(crate) fn version_mut(&mut self) -> &mut Version {
        &mut self.head.version
    }

    pub(crate) fn headers(&self) -> &Fields {
        &self.head.headers
    }

    pub(crate) fn headers_mut(&mut self) -> &mut Fields {
        &mut self.head.headers
    }

    pub(crate) fn extensions(&self) -> &Extensions {
        &self.head.extensions
    }

    pub(crate) fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.head.extensions
    }
}

/// From HTTP/2.
impl<B> From<http::Request<B>> for Request<B> {
    fn from(request: http::Request<B>) -> Self {
        let (parts, body) = request.into_parts();
        let head = RequestHead {
            method: parts.method,
            uri: parts.uri,
            version: parts.version,
            headers: parts.headers.into(),
            extensions: parts.extensions,
        };
        Self::from_parts(Box::new(head), body)
    }
}

/// From HTTP/2.
impl<B> From<http::Response<B>> for Response<B> {
    fn from(response: http::Response<B>) -> Self {
        let (parts, body) = response.into_parts();
        let head = ResponseHead {
            status: parts.status,
            version: parts.version,
            headers: parts.headers.into(),
            extensions: parts.extensions,
            received: None,
        };
        Self { head, body }
    }
}

/// For HTTP/2.
impl<B> From<Request<B>> for http::Request<B> {
    fn from(request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        let mut request = Self::new(body);
        *request.method_mut() = head.method;
        *request.uri_mut() = head.uri;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers.into();
        *request.extensions_mut() = head.extensions;
        request
    }
}

/// For HTTP/2.
impl<B> From<Response<B>> for http::Response<B> {
    fn from(response: Response<B>) -> Self {
        let (head, body) = response.into_parts();
        let mut response = Self::new(body);
        *response.status_mut() = head.status;
        *response.version_mut() = head.version;
        *response.headers_mut() = head.headers.into();
        *response.extensions_mut() = head.extensions;
        response
    }
}
