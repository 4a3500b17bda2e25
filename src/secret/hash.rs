//! The hash functions with which keys are derived from passwords.
//!
//! aws-lc-rs has most of it. It lacks PBKDF2 with SHA-224 and all of HMAC with SHA-512/256, which OpenSSL, GnuTLS
//! and NSS offer: there the crates pbkdf2 and hmac, which scrypt brings anyway, fill in.

use std::num::NonZeroU32;

use ::hmac::{KeyInit, Mac};
use aws_lc_rs::{digest, hmac, pbkdf2};
use sha2::{Sha224, Sha512_256};
use yasna::models::ObjectIdentifier;
use yasna::{ASN1Result, BERReader};

use super::pbe;

static SHA384: Hash = Hash {
    digest: &digest::SHA384,
    mac: |key, content, expected| is_mac(hmac::HMAC_SHA384, key, content, expected),
    derive: |password, salt, n, key| pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA384, n, salt, password, key),
    oids: [&[2, 16, 840, 1, 101, 3, 4, 2, 2], &[1, 2, 840, 113549, 2, 10]],
};
static SHA512: Hash = Hash {
    digest: &digest::SHA512,
    mac: |key, content, expected| is_mac(hmac::HMAC_SHA512, key, content, expected),
    derive: |password, salt, n, key| pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, n, salt, password, key),
    oids: [&[2, 16, 840, 1, 101, 3, 4, 2, 3], &[1, 2, 840, 113549, 2, 11]],
};
static SHA512_256: Hash = Hash {
    digest: &digest::SHA512_256,
    mac: |key, content, expected| {
        let mac = ::hmac::Hmac::<Sha512_256>::new_from_slice(key);
        mac.is_ok_and(|mac| mac.chain_update(content).verify_slice(expected).is_ok())
    },
    derive: |password, salt, n, key| ::pbkdf2::pbkdf2_hmac::<Sha512_256>(password, salt, n.get(), key),
    oids: [&[2, 16, 840, 1, 101, 3, 4, 2, 6], &[1, 2, 840, 113549, 2, 13]],
};

/// One hash function, and what is made with it.
pub(super) struct Hash {
    pub(super) digest: &'static digest::Algorithm,
    mac: VerifyMac,
    derive: DeriveKey,
    /// Of the bare function, and of HMAC with it.
    oids: [&'static [u64]; 2],
}

/// Verifies that the third is the HMAC of the second under the first.
type VerifyMac = fn(&[u8], &[u8], &[u8]) -> bool;

/// PBKDF2: fills the last from a password, a salt and a number of iterations.
type DeriveKey = fn(&[u8], &[u8], NonZeroU32, &mut [u8]);

impl Hash {
    pub(super) fn of(oid: &ObjectIdentifier) -> Option<&'static Self> {
        let wanted = oid.components().as_slice();
        [&SHA1, &SHA224, &SHA256, &SHA384, &SHA512, &SHA512_256]
            .into_iter()
            .find(|hash| hash.oids.contains(&wanted))
    }

    /// The inner error is the name of what is not supported.
    pub(super) fn read(reader: BERReader<'_, '_>) -> ASN1Result<Result<&'static Self, String>> {
        reader.read_sequence(|parts| {
            let oid = parts.next().read_oid()?;
            pbe::skip(parts)?;
            Ok(Self::of(&oid).ok_or_else(|| pbe::name(&oid)))
        })
    }

    pub(super) fn is_mac(&self, key: &[u8], content: &[u8], expected: &[u8]) -> bool {
        (self.mac)(key, content, expected)
    }

    pub(super) fn pbkdf2(&self, password: &[u8], salt: &[u8], iterations: NonZeroU32, key: &mut [u8]) {
        (self.derive)(password, salt, iterations, key);
    }
}

fn is_mac(algorithm: hmac::Algorithm, key: &[u8], content: &[u8], expected: &[u8]) -> bool {
    hmac::verify(&hmac::Key::new(algorithm, key), content, expected).is_ok()
}

pub(super) static SHA1: Hash = Hash {
    digest: &digest::SHA1_FOR_LEGACY_USE_ONLY,
    mac: |key, content, expected| is_mac(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key, content, expected),
    derive: |password, salt, n, key| pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, n, salt, password, key),
    oids: [&[1, 3, 14, 3, 2, 26], &[1, 2, 840, 113549, 2, 7]],
};
static SHA224: Hash = Hash {
    digest: &digest::SHA224,
    mac: |key, content, expected| is_mac(hmac::HMAC_SHA224, key, content, expected),
    derive: |password, salt, n, key| ::pbkdf2::pbkdf2_hmac::<Sha224>(password, salt, n.get(), key),
    oids: [&[2, 16, 840, 1, 101, 3, 4, 2, 4], &[1, 2, 840, 113549, 2, 8]],
};
static SHA256: Hash = Hash {
    digest: &digest::SHA256,
    mac: |key, content, expected| is_mac(hmac::HMAC_SHA256, key, content, expected),
    derive: |password, salt, n, key| pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, n, salt, password, key),
    oids: [&[2, 16, 840, 1, 101, 3, 4, 2, 1], &[1, 2, 840, 113549, 2, 9]],
};
