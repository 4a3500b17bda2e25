//! What is read of bytes that nobody vouches for, and what becomes of random ones.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio::time::timeout;

use super::*;

const SCRAM: &[u8] = b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";

#[test]
fn channel_binding_is_taken_out_of_the_list_and_nothing_else() {
    let kept = |content: &[u8]| postgres::without_binding(content.to_vec()).ok();
    for (content, expected) in [
        (SCRAM, Some(&b"\0\0\0\x0aSCRAM-SHA-256\0\0"[..])),
        (
            b"\0\0\0\x0aSCRAM-SHA-256\0\0",
            Some(b"\0\0\0\x0aSCRAM-SHA-256\0\0"),
        ),
        (b"\0\0\0\x0aSCRAM-SHA-256-PLUS\0\0", None),
        // AuthenticationOk, md5 with its salt, GSSAPI.
        (b"\0\0\0\0", Some(b"\0\0\0\0")),
        (b"\0\0\0\x05salt", Some(b"\0\0\0\x05salt")),
        (b"\0\0\0\x07", Some(b"\0\0\0\x07")),
        (b"", Some(b"")),
    ] {
        assert_eq!(kept(content).as_deref(), expected, "{}", content.escape_ascii());
    }
}

#[test]
fn an_error_of_postgresql_is_its_message_without_control_characters() {
    assert_eq!(
        postgres::error_text(b"SFATAL\0C53300\0Mtoo many\x1b[1m\0\0"),
        "too many [1m"
    );
    assert_eq!(postgres::error_text(b""), "");
    assert_eq!(postgres::error_text(&[b'M'; 10_000]).len(), 300);
}

#[test]
fn a_notice_of_disconnection_is_what_the_reader_reads() {
    for text in ["x", &"long ".repeat(60)] {
        let notice = ldap::refusal(text);
        // The head of the message is two bytes, or four where it is long.
        let content = if notice[1] < 0x80 {
            &notice[2..]
        } else {
            &notice[4..]
        };
        let (id, code, told) = ldap::response(content).unwrap();
        assert_eq!((id, code, told), (0, 52, format!("outrider: {text}").as_bytes()));
    }
}

/// The login of libpq with a server that sees TLS: the list reaches the app without channel binding.
#[tokio::test]
async fn postgresql_gets_the_first_message_under_tls() {
    let (mut app, mut own) = duplex(4096);
    let (mut server, mut far) = duplex(4096);
    let mut upgrade = Upgrade::new(Some(StartTls::Postgres));
    let startup = b"\0\0\0\x0c\0\x03\0\0abc\0";
    app.write_all(b"\0\0\0\x08\x04\xd2\x16\x30\0\0\0\x08\x04\xd2\x16\x2f")
        .await
        .unwrap();
    app.write_all(startup).await.unwrap();
    upgrade.hear(&mut own).await.unwrap();
    far.write_all(b"S").await.unwrap();
    upgrade.ask(&mut own, &mut server).await.unwrap();
    let list = [&[b'R', 0, 0, 0, u8::try_from(SCRAM.len() + 4).unwrap()], SCRAM].concat();
    far.write_all(&list).await.unwrap();
    upgrade.begin("h", &mut own, &mut server).await.unwrap();

    let mut told = vec![0; 2 + 5 + 19];
    app.read_exact(&mut told).await.unwrap();
    assert_eq!(told, b"NNR\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
    let mut heard = vec![0; 8 + startup.len()];
    far.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, [&b"\0\0\0\x08\x04\xd2\x16\x2f"[..], startup].concat());
}

/// Sound words with random faults end with an answer or a fault: never with a panic, never without end.
#[tokio::test(start_paused = true)]
async fn random_servers_and_apps_end_with_a_fault() {
    let sound: [(StartTls, &[u8], &[u8]); 5] = [
        (StartTls::Postgres, b"S", b"R\0\0\0\x08\0\0\0\0"),
        (
            StartTls::Mysql,
            b"\x2e\0\0\0\x0a8.0\0\x01\0\0\0abcdefgh\0\xff\xff\x21\x02\0\xff\xdf\x15\0\0\0\0\0\0\0\0\0\0ijklmnopqrst\0",
            b"\x07\0\0\x03\0\0\0\x02\0\0\0",
        ),
        (StartTls::Smtp, b"220 a\r\n250-a\r\n250 STARTTLS\r\n220 b\r\n", b"250 a\r\n"),
        (StartTls::Imap, b"* OK a\r\no1 OK b\r\n", b"o2 OK c\r\n"),
        (StartTls::Ldap, b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00", b""),
    ];
    let app_says: [&[u8]; 2] = [
        b"\0\0\0\x0c\0\x03\0\0abc\0",
        b"\x21\0\0\x01\x05\xa2\x0f\0\0\0\0\x01\x21\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0a",
    ];
    let mut random = StdRng::seed_from_u64(15);
    let mut through = 0;
    for round in 0..3000 {
        let (protocol, before, after) = sound[round % sound.len()];
        let app_words = match protocol {
            StartTls::Postgres => app_says[0],
            _ => app_says[1],
        };
        let mut words = [before.to_vec(), after.to_vec(), app_words.to_vec()];
        for words in &mut words {
            for _ in 0..random.random_range(0..3) {
                let at = random.random_range(0..=words.len());
                match random.random_range(0..3) {
                    0 => words.insert(at, random.random()),
                    1 => words.truncate(at),
                    _ => words
                        .iter_mut()
                        .skip(at)
                        .take(1)
                        .for_each(|byte| *byte = random.random()),
                }
            }
        }
        let [before, after, app_words] = words;
        let (mut app, mut own) = duplex(1 << 16);
        let (mut server, mut far) = duplex(1 << 16);
        let (mut secured, mut under) = duplex(1 << 16);
        app.write_all(&app_words).await.unwrap();
        app.shutdown().await.unwrap();
        under.write_all(&after).await.unwrap();
        under.shutdown().await.unwrap();
        let mut upgrade = Upgrade::new(Some(protocol));
        // Lines come one by one, as a server sends them when it is asked.
        let talk = async {
            for line in before.split_inclusive(|byte| *byte == b'\n') {
                if far.write_all(line).await.is_err() {
                    return;
                }
                let _ = timeout(Duration::from_secs(1), far.read(&mut [0; 512])).await;
            }
            let _ = far.shutdown().await;
        };
        let run = async {
            upgrade.hear(&mut own).await?;
            upgrade.ask(&mut own, &mut server).await?;
            upgrade.begin("h", &mut own, &mut secured).await
        };
        let (ended, ()) = tokio::join!(timeout(Duration::from_secs(60), run), talk);
        match ended.expect("it ends") {
            Ok(()) => through += 1,
            Err(fault) => assert!(!fault.to_string().is_empty() && !upgrade.refusal("x").is_empty()),
        }
    }
    assert!(through > 50, "{through}");
}

/// Under TLS nobody on the way puts bytes in: the reason must not say so.
#[tokio::test]
async fn bytes_behind_a_reply_under_tls_are_the_servers_own_fault() {
    for (protocol, reply) in [
        (StartTls::Smtp, "250 mx\r\n250 more\r\n"),
        (StartTls::Imap, "o2 OK done\r\n* 1 EXISTS\r\n"),
    ] {
        let (mut app, _far_app) = duplex(1024);
        let (mut server, mut far) = duplex(1024);
        far.write_all(reply.as_bytes()).await.unwrap();
        let mut upgrade = Upgrade::new(Some(protocol));
        let fault = upgrade.begin("mx.test", &mut app, &mut server).await.unwrap_err();
        assert!(matches!(fault, UpgradeFault::Malformed { .. }), "{fault:?}");
    }
}
