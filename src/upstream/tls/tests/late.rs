//! Servers that ask for a certificate after the handshake. No server that is built on rustls does, so their records are
//! made here, with the keys of its handshake.

use ::aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rustls::ConnectionTrafficSecrets;

use super::*;

/// What a server does once it has asked.
#[derive(Clone, Copy, Debug)]
enum Does {
    Answers,
    Closes,
    BreaksOff,
    AsksAgain,
}

/// One direction of a connection, its records made by hand.
struct Records {
    is_old: bool,
    iv: Vec<u8>,
    key: LessSafeKey,
    sequence: u64,
}

impl Records {
    fn of((sequence, secrets): (u64, ConnectionTrafficSecrets), is_old: bool) -> Self {
        let ConnectionTrafficSecrets::Aes256Gcm { key, iv } = secrets else {
            panic!("the first cipher suite is AES-256-GCM");
        };
        Self {
            is_old,
            iv: iv.as_ref().to_vec(),
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.as_ref()).unwrap()),
            sequence,
        }
    }

    fn nonce(&self, explicit: Option<[u8; 8]>) -> Nonce {
        let mut nonce = <[u8; 12]>::try_from(&*self.iv).unwrap();
        match explicit {
            Some(explicit) => nonce[4..].copy_from_slice(&explicit),
            None => {
                let sequence = self.sequence.to_be_bytes();
                nonce[4..]
                    .iter_mut()
                    .zip(sequence)
                    .for_each(|(byte, other)| *byte ^= other);
            }
        }
        Nonce::assume_unique_for_key(nonce)
    }

    /// What is authenticated beside the text of a record in TLS 1.2.
    fn beside(&self, kind: u8, length: usize) -> Vec<u8> {
        let length = u16::try_from(length).unwrap().to_be_bytes();
        [&self.sequence.to_be_bytes()[..], &[kind, 3, 3], &length].concat()
    }

    fn seal(&mut self, kind: u8, text: &[u8]) -> Vec<u8> {
        let mut sealed = text.to_vec();
        let record = if self.is_old {
            let explicit = self.sequence.to_be_bytes();
            let aad = Aad::from(self.beside(kind, text.len()));
            (self.key)
                .seal_in_place_append_tag(self.nonce(Some(explicit)), aad, &mut sealed)
                .unwrap();
            let length = u16::try_from(sealed.len() + 8).unwrap().to_be_bytes();
            [&[kind, 3, 3][..], &length, &explicit, &sealed].concat()
        } else {
            sealed.push(kind);
            let length = u16::try_from(sealed.len() + 16).unwrap().to_be_bytes();
            let header = [23, 3, 3, length[0], length[1]];
            (self.key)
                .seal_in_place_append_tag(self.nonce(None), Aad::from(header), &mut sealed)
                .unwrap();
            [&header[..], &sealed].concat()
        };
        self.sequence += 1;
        record
    }

    /// The next record of a peer, in TLS 1.2.
    async fn open(&mut self, stream: &mut DuplexStream) -> (u8, Vec<u8>) {
        let mut header = [0; 5];
        stream.read_exact(&mut header).await.unwrap();
        let mut sealed = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        stream.read_exact(&mut sealed).await.unwrap();
        let explicit = <[u8; 8]>::try_from(&sealed[..8]).unwrap();
        let aad = Aad::from(self.beside(header[0], sealed.len() - 8 - 16));
        let nonce = self.nonce(Some(explicit));
        let text = self.key.open_in_place(nonce, aad, &mut sealed[8..]).unwrap();
        self.sequence += 1;
        (header[0], text.to_vec())
    }
}

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const DATA: u8 = 23;
const HELLO_REQUEST: &[u8] = &[0, 0, 0, 0];

/// Asks for a certificate by `signature_algorithms` alone.
const CERTIFICATE_REQUEST: &[u8] = &[13, 0, 0, 12, 1, 7, 0, 8, 0, 13, 0, 4, 0, 2, 4, 3];

/// What a client reads from a server that does so after the handshake, in the words of outrider where it is an error.
async fn read_from(does: Does, is_old: bool) -> Result<Vec<u8>, Error> {
    let authority = Pair::authority("Agency CA", None);
    let partner = Pair::leaf("partner.test", &authority);
    let settings = settings(&with_ca(), &[("CA", &authority.pem())]).unwrap();
    let mut server = server(&[&partner], None, if is_old { TLS12 } else { TLS13 });
    server.enable_secret_extraction = true;
    server.send_tls13_tickets = 0;
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let accepted = TlsAcceptor::from(Arc::new(server)).accept(far).await.unwrap();
        let (mut stream, connection) = accepted.into_inner();
        let secrets = connection.dangerous_extract_secrets().unwrap();
        let (mut tx, mut rx) = (Records::of(secrets.tx, is_old), Records::of(secrets.rx, is_old));
        if !is_old {
            let record = tx.seal(HANDSHAKE, CERTIFICATE_REQUEST);
            stream.write_all(&record).await.unwrap();
            return Some(stream);
        }
        // The request. In TLS 1.3 it may have come with the end of the handshake.
        assert_eq!(rx.open(&mut stream).await.0, DATA);
        stream
            .write_all(&tx.seal(HANDSHAKE, HELLO_REQUEST))
            .await
            .unwrap();
        // no_renegotiation, a warning: the client has nothing else to write, and it comes all the same.
        assert_eq!(rx.open(&mut stream).await, (ALERT, vec![1, 100]));
        match does {
            Does::Answers => {
                stream.write_all(&tx.seal(DATA, b"answer")).await.unwrap();
                // And ends afterwards, as it may.
                stream.write_all(&tx.seal(ALERT, &[1, 0])).await.unwrap();
            }
            Does::Closes => return None,
            Does::BreaksOff => stream.write_all(&tx.seal(ALERT, &[2, 40])).await.unwrap(),
            Does::AsksAgain => {
                stream
                    .write_all(&tx.seal(HANDSHAKE, HELLO_REQUEST))
                    .await
                    .unwrap();
            }
        }
        Some(stream)
    };
    let ask = async {
        let target = target(host("partner.test"));
        let secured = settings.connect(near, &target, Alpn::H1, Duration::from_secs(10));
        let mut stream = secured.await?.stream;
        stream.write_all(b"request").await.unwrap();
        stream.flush().await.unwrap();
        let mut found = Vec::new();
        match stream.read_to_end(&mut found).await {
            Ok(_) => Ok(found),
            Err(error) => Err(settings
                .explain(&error, &target.host)
                .unwrap_or_else(|| panic!("{does:?} {error:?}"))),
        }
    };
    let both = async { tokio::join!(serve, ask).1 };
    let found = tokio::time::timeout(Duration::from_secs(20), both).await;
    found.unwrap_or_else(|_| panic!("{does:?}, TLS 1.2: {is_old}: it waits"))
}

#[tokio::test]
async fn a_server_that_asks_late_is_declined_and_one_that_answers_all_the_same_is_heard() {
    assert_eq!(read_from(Does::Answers, true).await.unwrap(), b"answer");
    for (does, is_old, how) in [
        (Does::Closes, true, "(renegotiation, TLS 1.2)"),
        (Does::BreaksOff, true, "(renegotiation, TLS 1.2)"),
        (Does::AsksAgain, true, "(renegotiation, TLS 1.2)"),
        (
            Does::Closes,
            false,
            "(authentication after the handshake, TLS 1.3)",
        ),
    ] {
        let error = read_from(does, is_old).await.unwrap_err();
        assert_eq!(
            (error.reason(), error.proxy_status()),
            ("client_certificate_late", "tls_protocol_error"),
            "{does:?}: {error}"
        );
        assert!(error.to_string().contains(how), "{does:?}: {error}");
    }
}
