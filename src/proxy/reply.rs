//! Makes the responses of outrider itself: refusals, and the response to OPTIONS.
//!
//! Each refusal says that it comes from us (Proxy-Status, RFC 9209) and why, in a form for programs and in a
//! sentence for people (`application/problem+json`, RFC 9457). It never repeats what the app sent, and never a
//! secret.

use http::{HeaderValue, StatusCode, header};

use super::{Body, Error};
use crate::fields::{printable, quoted};
use crate::http1::ReasonPhrase;
use crate::message::Response;
use crate::telemetry::Exchange;

const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"outrider\", charset=\"UTF-8\"");
/// Of a sentence that a status line carries. Clients take far longer lines; people do not.
const LONGEST_REASON: usize = 400;
const METHODS: HeaderValue =
    HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS, CONNECT");

/// Turns an error into the response that the app gets, and records it in the exchange.
pub(super) fn refuse(error: &Error, exchange: &mut Exchange, is_connect: bool) -> Response<Body> {
    let status = error.status();
    let detail = record(error, exchange);
    let text = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": &detail,
        "error": error.proxy_status(),
        "reason": error.reason().or_else(|| error.fault()),
    })
    .to_string();
    exchange.received(text.len() as u64);

    let mut response = Response::new(Body::local(text));
    *response.status_mut() = status;
    // Most clients show nothing else of a refused CONNECT.
    if is_connect && let Ok(reason) = HeaderValue::from_str(&printable(&detail, LONGEST_REASON)) {
        response.extensions_mut().insert(ReasonPhrase(reason));
    }
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    fields.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    insert(fields, "proxy-status", &proxy_status(error, &detail));
    if let Some(status) = exchange.cache_status() {
        insert(fields, "cache-status", status);
    }
    if let Error::Limited(refusal) = error {
        // Rounded up: a client that comes back early would only be refused again.
        insert(fields, "retry-after", &refusal.seconds().to_string());
        for (name, value) in refusal.fields() {
            insert(fields, name, &value);
        }
    }
    let retry_after = match error {
        Error::LeftAlone(open) => Some(open.retry_after),
        Error::NoToken(no_token) => Some(no_token.retry_after),
        _ => None,
    };
    if let Some(retry_after) = retry_after {
        insert(fields, "retry-after", &retry_after.as_secs().to_string());
    }
    if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
        fields.insert(header::PROXY_AUTHENTICATE, BASIC);
    }
    if let Error::Guard(refusal) = error {
        for challenge in refusal.challenges() {
            fields.append(header::WWW_AUTHENTICATE, challenge);
        }
    }
    if status == StatusCode::METHOD_NOT_ALLOWED {
        fields.insert(header::ALLOW, METHODS);
    }
    // Bytes that follow a refused CONNECT or a malformed request must never be read as a request.
    if is_connect
        || matches!(
            error,
            Error::Malformed(_) | Error::NotHttp(_) | Error::BadTarget(_)
        )
    {
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Records a refusal in the exchange. Returns its sentence.
pub(super) fn record(error: &Error, exchange: &mut Exchange) -> String {
    exchange.refused(error.status(), error.proxy_status(), error.reason());
    tracing::debug!(error = error as &dyn std::error::Error, "refused");
    let detail = error.to_string();
    let note = match error {
        Error::Client(refusal) => refusal.log_note(),
        Error::Guard(refusal) => refusal.log_note(),
        _ => None,
    };
    match note {
        Some(note) => exchange.explain(&format!("{detail} ({note})")),
        None => exchange.explain(&detail),
    }
    detail
}

/// Records a refusal of which a SOCKS5 client gets a code only: the log has the sentence.
pub(super) fn record_socks5(error: &Error, exchange: &mut Exchange) {
    record(error, exchange);
    exchange.explain_over("SOCKS5");
}

/// Answers an OPTIONS request that was meant for us.
pub(super) fn options(exchange: &mut Exchange) -> Response<Body> {
    exchange.answered_here(StatusCode::OK);
    let mut response = Response::new(Body::empty());
    response.headers_mut().insert(header::ALLOW, METHODS);
    response
}

/// Answers the platform, which asks whether the route service runs.
pub(super) fn healthy() -> Response<Body> {
    Response::new(Body::local("ok\n".to_owned()))
}

fn proxy_status(error: &Error, detail: &str) -> String {
    let mut text = format!("outrider; error={}", error.proxy_status());
    if let Some(parameter) = error.proxy_status_parameter() {
        text.push_str("; ");
        text.push_str(&parameter);
    }
    text.push_str("; details=");
    text.push_str(&quoted(detail));
    text
}

fn insert(fields: &mut crate::message::Fields, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.insert(name, value);
    }
}
