//! The protocol: what is written, what is read, what is refused.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::store::resp::{ProtocolError, RedisReply, read, write};

#[test]
fn a_command_is_a_list_of_strings() {
    let mut bytes = Vec::new();
    write(&[b"AUTH", b"a b\r\n"], &mut bytes);
    assert_eq!(bytes, b"*2\r\n$4\r\nAUTH\r\n$5\r\na b\r\n\r\n");
}

#[test]
fn answers_are_read_when_they_are_whole() {
    let cases: [(&[u8], RedisReply); 7] = [
        (b"+OK\r\n", RedisReply::Text(b"OK".to_vec())),
        (
            b"-NOSCRIPT no such\r\n",
            RedisReply::Error("NOSCRIPT no such".to_owned()),
        ),
        (b":-12\r\n", RedisReply::Integer(-12)),
        (b"$-1\r\n", RedisReply::Nil),
        (b"$3\r\n\r\n1\r\n", RedisReply::Text(b"\r\n1".to_vec())),
        (b"*0\r\n", RedisReply::List(vec![])),
        (
            b"*2\r\n:1\r\n*1\r\n$1\r\nx\r\n",
            RedisReply::List(vec![
                RedisReply::Integer(1),
                RedisReply::List(vec![RedisReply::Text(b"x".to_vec())]),
            ]),
        ),
    ];
    for (bytes, reply) in cases {
        let mut more = bytes.to_vec();
        more.extend_from_slice(b":7\r\n");
        assert_eq!(read(&more), Ok(Some((reply, bytes.len()))));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]), Ok(None), "{:?}", &bytes[..end]);
        }
    }
}

#[test]
fn what_no_server_says_is_refused() {
    let long = [b"+".as_slice(), &[b'a'; 5000]].concat();
    let cases: [&[u8]; 9] = [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b":x\r\n",
        b"$99999999999\r\n",
        b"$-2\r\n",
        b"*5000\r\n",
        b"$1\r\nxyz",
        b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        &long,
    ];
    for bytes in cases {
        assert_eq!(
            read(bytes),
            Err(ProtocolError),
            "{:?}",
            String::from_utf8_lossy(bytes)
        );
    }
}

#[test]
fn no_bytes_break_the_reader() {
    let mut random = StdRng::seed_from_u64(7);
    let letters = b"*$:+-\r\n0129\x00\xffx";
    for _ in 0..200_000 {
        let length = random.random_range(0..24);
        let bytes: Vec<u8> = (0..length)
            .map(|_| letters[random.random_range(0..letters.len())])
            .collect();
        if let Ok(Some((_, end))) = read(&bytes) {
            assert!(end <= bytes.len() && end > 0);
        }
    }
}

#[test]
fn an_error_tells_its_kind_and_a_list_its_numbers() {
    assert_eq!(
        RedisReply::Error("READONLY You can't".to_owned()).error(),
        Some("READONLY")
    );
    assert_eq!(RedisReply::Nil.error(), None);
    // Of scripts: Redis 7, then Redis 6.2.
    let script = "ERR Error running script (call to f_b238): @user_script:65: ";
    for (text, kind) in [
        (
            "OOM command not allowed when used memory > 'maxmemory'. script: b238, on @user_script:65.",
            "OOM",
        ),
        (
            "ERR The user executing the script can't run this command or subcommand script: b238",
            "ERR",
        ),
        (
            &format!("{script}@user_script: 65: -READONLY You can't write against a read only replica."),
            "READONLY",
        ),
        (
            &format!("{script}WRONGTYPE Operation against a key holding the wrong kind of value"),
            "WRONGTYPE",
        ),
        (
            &format!("{script}@user_script: 10: The user executing the script can't run this command"),
            "ERR",
        ),
        ("nothing", ""),
        ("", ""),
    ] {
        assert_eq!(RedisReply::Error(text.to_owned()).error(), Some(kind), "{text}");
    }
    let list = RedisReply::List(vec![RedisReply::Integer(1), RedisReply::Integer(-2)]);
    assert_eq!(list.numbers(), Some(vec![1, -2]));
    assert_eq!(RedisReply::List(vec![RedisReply::Nil]).numbers(), None);
}
