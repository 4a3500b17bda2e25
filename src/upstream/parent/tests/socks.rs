//! SOCKS5, with the replies of real servers.

use super::*;

/// Plays a SOCKS5 server: to each message it reads, it writes the answer. Returns what it read.
async fn socks(
    login: bool,
    steps: Vec<(usize, &'static [u8])>,
) -> (Vec<Vec<u8>>, Result<Vec<u8>, ParentFault>) {
    let variables = [("PARENT", "socks5://user:pa%3Ass@parent.test")];
    let parent = if login {
        one("env:PARENT", &variables)
    } else {
        one("\"socks5h://parent.test\"", &[])
    };
    assert_eq!(&*parent.name, "parent.test:1080");
    let (mut ours, mut theirs) = duplex(1024);
    let playing = tokio::spawn(async move {
        let mut seen = Vec::new();
        for (length, answer) in steps {
            let mut message = vec![0; length];
            theirs.read_exact(&mut message).await.unwrap();
            seen.push(message);
            theirs.write_all(answer).await.unwrap();
        }
        seen
    });
    let opened = socks5::open(&mut ours, &target("api.example.test:443"), parent.login.as_ref()).await;
    let seen = playing.await.unwrap();
    let mut rest = Vec::new();
    ours.read_to_end(&mut rest).await.unwrap();
    (seen, opened.map(|()| rest))
}

const GREETING: usize = 3;
const REQUEST: usize = 4 + 1 + 16 + 2;

#[tokio::test]
async fn socks5_reads_replies_of_every_length_and_leaves_the_rest() {
    let long = [b"\x05\x00\x00\x03\x10api.example.test\x01\xbbhello".as_slice()];
    for reply in [
        b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00hello".as_slice(),
        b"\x05\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x10\x92hello",
        long[0],
        b"\x05\x00\x00\x03\x00\x00\x00hello",
    ] {
        let (seen, result) = socks(false, vec![(GREETING, b"\x05\x00"), (REQUEST, reply)]).await;
        assert_eq!(seen[0], b"\x05\x01\x00");
        assert_eq!(seen[1], b"\x05\x01\x00\x03\x10api.example.test\x01\xbb");
        assert_eq!(result.unwrap(), b"hello");
    }
}

#[tokio::test]
async fn socks5_logs_in_where_it_is_asked_to() {
    const LOGIN: usize = 1 + 1 + 4 + 1 + 5;
    let bound = b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x50";
    let (seen, result) = socks(
        true,
        vec![(4, b"\x05\x02"), (LOGIN, b"\x01\x00"), (REQUEST, bound)],
    )
    .await;
    assert_eq!(seen[0], b"\x05\x02\x00\x02");
    assert_eq!(seen[1], b"\x01\x04user\x05pa:ss");
    result.unwrap();
    let (_, result) = socks(true, vec![(4, b"\x05\x00"), (REQUEST, bound)]).await;
    result.unwrap();
    for (is_login, steps) in [
        (true, vec![(4, b"\x05\x02".as_slice()), (LOGIN, b"\x01\x01")]),
        (
            true,
            vec![(4, b"\x05\x02"), (LOGIN, b"\x01\xff\x04user\x05pa:ss")],
        ),
        (true, vec![(4, b"\x05\xff")]),
        (false, vec![(GREETING, b"\x05\xff")]),
    ] {
        let (_, result) = socks(is_login, steps).await;
        assert_eq!(result.unwrap_err().result(), "credentials");
    }
}

#[tokio::test]
async fn socks5_refusals_are_told_even_of_two_bytes() {
    for (reply, result, words) in [
        (
            b"\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00".as_slice(),
            "target_unreachable",
            "microsocks",
        ),
        (b"\x05\x02", "denied", "rules deny"),
        (b"\x05\x03", "target_dns", "does not resolve"),
        (
            b"\x05\x04\x00\x03\x0enosuch.invalid\x01\xbb",
            "target_dns",
            "does not resolve",
        ),
        (b"\x05\x05", "target_refused", "refused"),
        (b"\x05\x06\x00\x01", "target_timeout", "in time"),
        (b"\x05\x07", "no_proxy", "CONNECT"),
        (b"\x05\x08", "target_unreachable", "IPv4 only"),
        (b"\x05\x63", "target_unreachable", "no reply that RFC 1928 knows"),
        (b"", "closed", "without an answer"),
        (b"\x05", "closed", "without an answer"),
        (b"\x05\x00\x00\x03\xffshort", "closed", "without an answer"),
        (
            b"\x05\x00\x00\x09\x00\x00",
            "no_proxy",
            "does not answer as a SOCKS5 server",
        ),
        (b"\x04\x5a", "no_proxy", "does not answer as a SOCKS5 server"),
    ] {
        let (_, failed) = socks(false, vec![(GREETING, b"\x05\x00"), (REQUEST, reply)]).await;
        let fault = failed.unwrap_err();
        assert_eq!(fault.result(), result, "{reply:?}");
        assert!(fault.to_string().contains(words), "{fault}");
    }
    for greeting in [
        b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(),
        b"\x05\x01",
        b"\x05\x02",
    ] {
        let (_, failed) = socks(false, vec![(GREETING, greeting)]).await;
        assert_eq!(failed.unwrap_err().result(), "no_proxy");
    }
}
