//! Bodies, read at every cut.

use std::future::poll_fn;
use std::io;

use bytes::Bytes;

use super::exchange::{LIMITS, listed};
use super::script::{End, Script, cuts};
use crate::http1::Error;
use crate::http1::decoder::Decoder;
use crate::http1::framing::Framing;
use crate::http1::wire::Wire;

/// A body that was read to its end: its data, its trailers, and what was left behind it.
#[derive(Debug, PartialEq, Eq)]
struct Body {
    data: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    left: Vec<u8>,
}

/// The body that `stream` begins with, or the data before the fault.
async fn read(stream: Script, framing: Framing) -> Result<Body, (Vec<u8>, Error)> {
    let (mut wire, mut decoder) = (Wire::new(stream), Decoder::new(framing, LIMITS));
    let (mut data, mut trailers) = (Vec::new(), Vec::new());
    while let Some(frame) = poll_fn(|cx| decoder.poll_frame(&mut wire, cx)).await {
        match frame {
            Ok(frame) if frame.is_data() => {
                let piece = frame.into_data().unwrap();
                assert!(!piece.is_empty(), "an empty piece would end a chunked body");
                data.extend(piece);
            }
            Ok(frame) => trailers = listed(&frame.into_trailers().unwrap().into()),
            Err(error) => {
                assert!(!decoder.is_done(), "a body that failed is not over");
                return Err((data, error));
            }
        }
    }
    assert!(decoder.is_done());
    Ok(Body {
        data,
        trailers,
        left: wire.into_parts().1.to_vec(),
    })
}

fn body(data: &str, trailers: &[(&str, &str)], left: &str) -> Body {
    let trailers = trailers.iter();
    Body {
        data: data.into(),
        trailers: trailers
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect(),
        left: left.into(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_the_same_wherever_it_is_cut() {
    for (framing, text, expected) in [
        (Framing::None, "GET", body("", &[], "")),
        (Framing::Length(5), "hello", body("hello", &[], "")),
        (Framing::UntilClose, "hello", body("hello", &[], "")),
        (Framing::UntilClose, "", body("", &[], "")),
        (Framing::Chunked, "0\r\n\r\n", body("", &[], "")),
        (
            Framing::Chunked,
            "5\r\nhello\r\n0\r\n\r\n",
            body("hello", &[], ""),
        ),
        (
            Framing::Chunked,
            "2\r\nhe\r\n003\r\nllo\r\n00\r\n\r\n",
            body("hello", &[], ""),
        ),
        (
            Framing::Chunked,
            "A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n",
            body("01234567890123456789", &[], ""),
        ),
        (
            Framing::Chunked,
            "5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n",
            body("hello", &[], ""),
        ),
        (
            Framing::Chunked,
            "5 \t\r\nhello\r\n0 ;x\r\n\r\n",
            body("hello", &[], ""),
        ),
        (
            Framing::Chunked,
            "4\r\n\r\n\r\n\r\n0\r\n\r\n",
            body("\r\n\r\n", &[], ""),
        ),
        (
            Framing::Chunked,
            "1\r\nx\r\n0\r\nA: b\r\nc:d\r\n\r\n",
            body("x", &[("a", "b"), ("c", "d")], ""),
        ),
    ] {
        for pieces in cuts(text.as_bytes()) {
            let mut got = read(Script::new(pieces.clone(), End::Eof), framing)
                .await
                .unwrap();
            if framing == Framing::None {
                got.left.clear();
            }
            assert_eq!(got, expected, "{framing:?} {pieces:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_stands_behind_a_body_is_left_there() {
    for (framing, text) in [
        (Framing::Length(5), "hello"),
        (Framing::Chunked, "5\r\nhello\r\n0\r\n\r\n"),
        (Framing::Chunked, "5\r\nhello\r\n0\r\na: b\r\n\r\n"),
    ] {
        let got = read(Script::whole(format!("{text}GET / HTTP/1.1")), framing)
            .await
            .unwrap();
        assert_eq!(
            (&got.data[..], &got.left[..]),
            (&b"hello"[..], &b"GET / HTTP/1.1"[..]),
            "{text:?}"
        );
        assert!(
            read(Script::new([Bytes::from(text)], End::Never), framing)
                .await
                .is_ok(),
            "no byte more is waited for"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_ends_early_never_looks_whole() {
    for (framing, text) in [
        (Framing::Length(5), "hello"),
        (Framing::Chunked, "5;x\r\nhello\r\n0\r\n\r\n"),
        (Framing::Chunked, "5\r\nhello\r\n0\r\na: b\r\n\r\n"),
    ] {
        for at in 0..text.len() {
            let pieces = [Bytes::copy_from_slice(&text.as_bytes()[..at])];
            let (_, error) = read(Script::new(pieces.clone(), End::Eof), framing)
                .await
                .unwrap_err();
            assert!(matches!(error, Error::Incomplete), "{framing:?} {at}: {error}");
            let reset = End::Error(io::ErrorKind::ConnectionReset);
            let (_, error) = read(Script::new(pieces, reset), framing).await.unwrap_err();
            assert!(matches!(error, Error::Io(_)), "{framing:?} {at}: {error}");
        }
    }
    // TLS that ends without saying so, where the end of the stream is the end of the body.
    let cut = Script::new([Bytes::from("hel")], End::Error(io::ErrorKind::UnexpectedEof));
    let (data, error) = read(cut, Framing::UntilClose).await.unwrap_err();
    assert!(matches!((&data[..], error), (b"hel", Error::Io(_))));
}

#[tokio::test(start_paused = true)]
async fn a_chunk_that_two_readers_could_read_differently_is_refused() {
    for text in [
        "\r\n",
        "\n",
        ";\r\n",
        " 5\r\nhello\r\n",
        "\r\n5\r\nhello\r\n",
        "+5\r\nhello\r\n",
        "-5\r\nhello\r\n",
        "0x5\r\nhello\r\n",
        "5_0\r\n",
        "5,5\r\n",
        "g\r\n",
        "5 5\r\nhello\r\n",
        "5\0\r\nhello\r\n",
        "\u{ff15}\r\n",
        // More than 64 bits, and more digits than a size can have.
        "10000000000000000\r\n",
        "fffffffffffffffff\r\n",
        "00000000000000005\r\nhello\r\n",
        "1000000000000000000000001\r\n",
        // Faulty line ends.
        "5\nhello\r\n0\r\n\r\n",
        "5\rhello\r\n",
        "5;x\nhello\r\n",
        "5;x\ny\r\nhello\r\n",
        "5;x\ry\r\nhello\r\n",
        "5\r\r\nhello",
        "5\n\r\nhello\r\n",
        // Data that is not as long as its size says.
        "5\r\nhello0\r\n\r\n",
        "5\r\nhello\n0\r\n\r\n",
        "5\r\nhello\r0\r\n\r\n",
        "5\r\nhello!\r\n0\r\n\r\n",
        "5\r\nhell\r\n0\r\n\r\n",
        // Faulty trailers.
        "0\r\nx\r\n\r\n",
        "0\r\nx : y\r\n\r\n",
        "0\r\n x: y\r\n\r\n",
        "0\r\nx: y\r\n z\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\nx: a\0b\r\n\r\n",
        "0\r\nx: a\rb\r\n\r\n",
        "0\r\n\nx: y\r\n\r\n",
    ] {
        for pieces in cuts(text.as_bytes()) {
            let script = Script::new(pieces.clone(), End::Eof);
            let (data, error) = read(script, Framing::Chunked).await.unwrap_err();
            assert!(matches!(error, Error::Malformed(_)), "{pieces:?}: {error}");
            assert!(data.len() <= 5, "{pieces:?}: {data:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_fault_stays_one_whatever_comes_behind_it() {
    for fault in ["zz\r\n", "5;\n\r\n", "0\r\nx\r\n\r\n", "1\r\nab\r\n"] {
        let stream = Script::whole(format!("{fault}0\r\n\r\nGET / HTTP/1.1\r\n\r\n"));
        let (mut wire, mut decoder) = (Wire::new(stream), Decoder::new(Framing::Chunked, LIMITS));
        let mut faults = 0;
        for _ in 0..10 {
            match poll_fn(|cx| decoder.poll_frame(&mut wire, cx)).await {
                Some(Ok(frame)) => assert!(
                    frame.is_data() && faults == 0,
                    "{fault:?}: read on behind a fault"
                ),
                Some(Err(_)) => faults += 1,
                None => panic!("{fault:?}: an end was found behind a fault"),
            }
            assert!(!decoder.is_done(), "{fault:?}");
        }
        assert!(faults > 5);
    }
}

#[tokio::test(start_paused = true)]
async fn the_largest_sizes_are_only_numbers() {
    for (framing, text) in [
        (Framing::Chunked, "ffffffffffffffff\r\nhello"),
        (Framing::Chunked, "0fffffffffffffff\r\nhello"),
        (Framing::Length(u64::MAX), "hello"),
    ] {
        let (data, error) = read(Script::whole(text), framing).await.unwrap_err();
        assert!(matches!((&data[..], error), (b"hello", Error::Incomplete)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_dropped_of_a_body_has_an_end() {
    let line = |length: usize| format!("1;{}\r\nx\r\n", "e".repeat(length));
    for (text, is_taken) in [
        (line(4000) + "0\r\n\r\n", true),
        (line(4100) + "0\r\n\r\n", false),
        // Without an end, no more is waited for.
        (line(100_000), false),
        (line(1000).repeat(16) + "0\r\n\r\n", true),
        (line(1000).repeat(18) + "0\r\n\r\n", false),
        // Plain lines, and short extensions, may be as many as they like.
        ("1\r\nx\r\n".repeat(100_000) + "0\r\n\r\n", true),
        (line(10).repeat(100_000) + "0\r\n\r\n", true),
        (line(100).repeat(100_000) + "0\r\n\r\n", false),
        (format!("0\r\nx: {}\r\n\r\n", "y".repeat(16_000)), true),
        (format!("0\r\nx: {}\r\n\r\n", "y".repeat(17_000)), false),
        (format!("0\r\n{}\r\n", "x: y\r\n".repeat(100)), true),
        (format!("0\r\n{}\r\n", "x: y\r\n".repeat(101)), false),
    ] {
        let got = read(Script::whole(&text), Framing::Chunked).await;
        assert_eq!(
            got.is_ok(),
            is_taken,
            "{}…: {:?}",
            &text[..20],
            got.err().map(|(_, error)| error.to_string())
        );
    }
    for endless in [&b"0\r\nx: yyyyyyyyyyyyyyyyyyyyyyyy"[..], b"5;eeeeeeeeeeeeeee"] {
        let pieces =
            std::iter::once(Bytes::from_static(endless)).chain(vec![Bytes::from(vec![b'e'; 1000]); 100]);
        let (_, error) = read(Script::new(pieces, End::Never), Framing::Chunked)
            .await
            .unwrap_err();
        assert!(!matches!(error, Error::Incomplete), "{error}");
    }
}
