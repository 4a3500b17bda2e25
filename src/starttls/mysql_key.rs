//! The exchange of a password for `caching_sha2_password` with an app that sees no TLS.
//!
//! Such an app encrypts the password for the server, which would decrypt it where there is no TLS. Here the server sees
//! TLS and wants the password as it is. So the app gets a key of ours, made at the first such login and kept in memory.

use std::sync::OnceLock;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use data_encoding::BASE64;
use zeroize::Zeroizing;

/// The type of a packet with more data for the method.
const MORE: u8 = 0x01;

static KEY: OnceLock<Option<ExchangeKey>> = OnceLock::new();

#[derive(Debug)]
struct ExchangeKey {
    private: OaepPrivateDecryptingKey,
    /// As the packet carries it: PEM.
    public: Vec<u8>,
}

/// An exchange that has begun: the app encrypts its password with our key.
#[derive(Debug)]
pub(super) struct KeyExchange(&'static ExchangeKey);

/// Begins an exchange. The first one makes the key, off the worker.
pub(super) async fn exchange() -> Option<KeyExchange> {
    let made = tokio::task::spawn_blocking(|| KEY.get_or_init(ExchangeKey::new).as_ref()).await;
    made.ok().flatten().map(KeyExchange)
}

impl ExchangeKey {
    fn new() -> Option<Self> {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).ok()?;
        let public: PublicKeyX509Der<'_> = private.public_key().as_der().ok()?;
        let mut pem = vec![MORE];
        pem.extend_from_slice(b"-----BEGIN PUBLIC KEY-----\n");
        for line in BASE64.encode(public.as_ref()).as_bytes().chunks(64) {
            pem.extend_from_slice(line);
            pem.push(b'\n');
        }
        pem.extend_from_slice(b"-----END PUBLIC KEY-----\n");
        Some(Self {
            private: OaepPrivateDecryptingKey::new(private).ok()?,
            public: pem,
        })
    }
}

impl KeyExchange {
    pub(super) fn public_key(&self) -> Vec<u8> {
        self.0.public.clone()
    }

    /// Returns the password, with the zero at its end; `None` where it was not encrypted for us.
    pub(super) fn password(&self, encrypted: &[u8], nonce: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let key = &self.0.private;
        let mut plain = Zeroizing::new(vec![0; key.min_output_size()]);
        let scrambled = key
            .decrypt(&OAEP_SHA1_MGF1SHA1, encrypted, &mut plain, None)
            .ok()?;
        if nonce.is_empty() {
            return None;
        }
        let bytes = scrambled.iter().zip(nonce.iter().cycle());
        let password: Zeroizing<Vec<u8>> = Zeroizing::new(bytes.map(|(a, b)| a ^ b).collect());
        // A packet that ends otherwise holds something else.
        password.ends_with(&[0]).then_some(password)
    }
}
