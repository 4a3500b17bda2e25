//! Messages on their way out, through streams that take much, little, or one slice at a time.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::Poll;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, SizeHint};

use super::script::{End, Said, SaidEnd, Script};
use crate::http1::framing::BodyEncoding;
use crate::http1::outflow::{MessageWriter, WriteError};
use crate::http1::wire::Wire;

/// What is written for a body, behind the head `H`, to each kind of stream: always the same.
async fn written(
    body: impl Fn() -> Said,
    encoding: BodyEncoding,
    trailers: bool,
) -> (String, Result<(), String>) {
    let mut all = Vec::new();
    for (most, is_vectored) in [
        (usize::MAX, true),
        (usize::MAX, false),
        (1, true),
        (1, false),
        (3, true),
        (7, false),
    ] {
        for is_slow in [false, true] {
            for end in [SaidEnd::Known, SaidEnd::Asked] {
                let mut wire = Wire::new(Script::new([], End::Never).taking(most, is_vectored));
                let mut body = body();
                body.is_slow = is_slow;
                if body.end == SaidEnd::Known {
                    body.end = end;
                }
                let mut flow = MessageWriter::new(BytesMut::from("H"), body, encoding, trailers);
                let result = poll_fn(|cx| flow.poll(cx, |out, cx| wire.poll_write(out, cx))).await;
                let result = result.map_err(|broken| match broken {
                    WriteError::Body(error) => error.to_owned(),
                    WriteError::Io => "io".to_owned(),
                    WriteError::Length => "length".to_owned(),
                });
                all.push((wire.stream.written.text(), result));
            }
        }
    }
    let first = all.swap_remove(0);
    for other in all {
        // One that breaks off may have written more or less of what it had by then.
        let is_same = if first.1.is_ok() { other.0 == first.0 } else { true };
        assert!(is_same && other.1 == first.1, "{first:?} is not {other:?}");
    }
    first
}

fn trailers() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.append("a", HeaderValue::from_static("b"));
    trailers.append("a", HeaderValue::from_static("c"));
    trailers
}

#[tokio::test(start_paused = true)]
async fn each_encoding_shows_its_end() {
    for (encoding, pieces, expected) in [
        (BodyEncoding::None, &[][..], "H"),
        (BodyEncoding::None, &["not", "sent"], "H"),
        (BodyEncoding::Length(0), &[], "H"),
        (BodyEncoding::Length(5), &["hello"], "Hhello"),
        (BodyEncoding::Length(5), &["h", "el", "lo"], "Hhello"),
        (BodyEncoding::Chunked, &[], "H0\r\n\r\n"),
        (BodyEncoding::Chunked, &["hello"], "H5\r\nhello\r\n0\r\n\r\n"),
        (
            BodyEncoding::Chunked,
            &["h", "ello567890123456"],
            "H1\r\nh\r\n10\r\nello567890123456\r\n0\r\n\r\n",
        ),
        (BodyEncoding::UntilClose, &[], "H"),
        (BodyEncoding::UntilClose, &["h", "ello"], "Hhello"),
    ] {
        let (text, result) = written(|| Said::pieces(pieces), encoding, true).await;
        assert_eq!(
            (text.as_str(), result),
            (expected, Ok(())),
            "{encoding:?} {pieces:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_piece_is_not_the_end_of_a_chunked_body() {
    let body = || Said {
        pieces: VecDeque::from(["a", "", "b", ""].map(Bytes::from)),
        ..Said::default()
    };
    let (text, _) = written(body, BodyEncoding::Chunked, false).await;
    assert_eq!(text, "H1\r\na\r\n1\r\nb\r\n0\r\n\r\n");
}

#[tokio::test(start_paused = true)]
async fn trailers_go_to_who_asked_for_them_and_only_where_there_is_room() {
    for (encoding, wants, expected) in [
        (
            BodyEncoding::Chunked,
            true,
            "H1\r\nx\r\n0\r\na: b\r\na: c\r\n\r\n",
        ),
        (BodyEncoding::Chunked, false, "H1\r\nx\r\n0\r\n\r\n"),
        (BodyEncoding::Length(1), true, "Hx"),
        (BodyEncoding::UntilClose, true, "Hx"),
        (BodyEncoding::None, true, "H"),
    ] {
        let body = || Said {
            trailers: Some(trailers()),
            ..Said::pieces(&["x"])
        };
        assert_eq!(
            written(body, encoding, wants).await,
            (expected.to_owned(), Ok(())),
            "{encoding:?} {wants}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_what_its_head_says_breaks_off() {
    for (encoding, pieces, end, fault) in [
        (BodyEncoding::Length(5), &["hell"][..], SaidEnd::Known, "length"),
        (BodyEncoding::Length(5), &[], SaidEnd::Known, "length"),
        (BodyEncoding::Length(5), &["hello!"], SaidEnd::Known, "length"),
        (BodyEncoding::Length(5), &["hell", "o!"], SaidEnd::Known, "length"),
        (BodyEncoding::Length(0), &["!"], SaidEnd::Known, "length"),
        (BodyEncoding::Length(5), &["hel"], SaidEnd::Cut, "cut"),
        (BodyEncoding::Chunked, &["hel"], SaidEnd::Cut, "cut"),
        (BodyEncoding::UntilClose, &["hel"], SaidEnd::Cut, "cut"),
    ] {
        let body = || Said {
            end,
            ..Said::pieces(pieces)
        };
        let (text, result) = written(body, encoding, true).await;
        assert_eq!(result, Err(fault.to_owned()), "{encoding:?} {pieces:?}");
        assert!(
            !text.ends_with("0\r\n\r\n") && text.len() < "Hhello".len() + 5,
            "{encoding:?} {pieces:?}: {text}"
        );
    }
}

#[test]
fn a_stated_length_is_used_and_an_unknown_one_shows_by_chunks_or_by_the_close() {
    for (length, chunks, expected) in [
        (Some(5), true, BodyEncoding::Length(5)),
        (Some(5), false, BodyEncoding::Length(5)),
        (None, true, BodyEncoding::Chunked),
        (None, false, BodyEncoding::UntilClose),
    ] {
        let body = Said {
            length,
            ..Said::default()
        };
        assert_eq!(BodyEncoding::of(&body.size_hint(), chunks), expected);
    }
    let mut between = SizeHint::new();
    between.set_upper(5);
    assert_eq!(BodyEncoding::of(&between, true), BodyEncoding::Chunked);
}

/// Who takes nothing holds the source back, whatever the size of its pieces.
#[tokio::test(start_paused = true)]
async fn nothing_more_is_taken_while_nothing_is_written() {
    for encoding in [
        BodyEncoding::Length(1000),
        BodyEncoding::Chunked,
        BodyEncoding::UntilClose,
    ] {
        let body = Said::pieces(&["x"; 1000]);
        let mut flow = MessageWriter::new(BytesMut::from("H"), body, encoding, true);
        for _ in 0..100 {
            let polled = poll_fn(|cx| Poll::Ready(flow.poll(cx, |_, _| Poll::Pending))).await;
            assert!(polled.is_pending());
        }
        assert!(
            flow.body.pieces.len() >= 999,
            "{encoding:?}: {} are left",
            flow.body.pieces.len()
        );
    }
}
