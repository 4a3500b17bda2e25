//! The truststore for Java: a PKCS#12 file (RFC 7292) of trusted certificates.
//!
//! Everything in it is public, so nothing is encrypted: the bags lie open, under a MAC whose password everybody
//! knows, because Java's readers ask for one. A library for PKCS#12 would bring a second stack of ciphers and take
//! longer than all the rest of a start.

use std::io::{self, Write};

use aws_lc_rs::digest::{Context, SHA256, digest};
use aws_lc_rs::hmac;
use rustls_pki_types::CertificateDer;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, DERWriterSeq, Tag, construct_der};

/// Rounds of key derivation for a password that everybody knows: the least that Java's and OpenSSL's readers meet
/// in the wild, so that start-up does not pay for them.
const ITERATIONS: u32 = 1_000;

/// For what distributions ship.
const ROOM: usize = 256 * 1024;

/// Tags of DER, and the mark of a length in several bytes.
const CONTENT: u8 = 0xa0;
const LONG: u8 = 0x80;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;

const ANY_USAGE: &[u64] = &[2, 5, 29, 37, 0];
const CERTIFICATE_BAG: &[u64] = &[1, 2, 840, 113_549, 1, 12, 10, 1, 3];
const DATA: &[u64] = &[1, 2, 840, 113_549, 1, 7, 1];
const FRIENDLY_NAME: &[u64] = &[1, 2, 840, 113_549, 1, 9, 20];
const SHA_256: &[u64] = &[2, 16, 840, 1, 101, 3, 4, 2, 1];
/// Oracle's own.
const TRUSTED_KEY_USAGE: &[u64] = &[2, 16, 840, 1, 113_894, 746_875, 1, 1];
const X509_CERTIFICATE: &[u64] = &[1, 2, 840, 113_549, 1, 9, 22, 1];

/// What opens the PKCS#12 file. Java does not load a store without one; this is its convention for public content.
pub(crate) const TRUSTSTORE_PASSWORD: &str = "changeit";

/// Writes a store of `authority`, as `outrider`, and of those `roots` that can be read as certificates: one that
/// cannot would cost the app all the others.
///
/// The shells of the store are made for bags that are there already: to build it from the inside out would copy all
/// roots at every shell, which costs the heap of an idle proxy more than the roots themselves.
pub(super) fn write<'r>(
    authority: &CertificateDer<'_>,
    roots: impl Iterator<Item = &'r [u8]>,
    file: &mut impl Write,
) -> io::Result<()> {
    let bags = bags(authority, roots);
    let list = head(SEQUENCE, bags.len());
    let content = [data(list.len() + bags.len()), list].concat();
    let safe = [head(SEQUENCE, content.len() + bags.len()), content].concat();

    let mac = mac_data(&[&safe, &bags]);
    let version = construct_der(|writer| writer.write_u8(3));
    let before = [version, data(safe.len() + bags.len()), safe].concat();
    file.write_all(&head(SEQUENCE, before.len() + bags.len() + mac.len()))?;
    for part in [&before, &bags, &mac] {
        file.write_all(part)?;
    }
    Ok(())
}

/// All bags, one after the other.
fn bags<'r>(authority: &CertificateDer<'_>, roots: impl Iterator<Item = &'r [u8]>) -> Vec<u8> {
    // More than an allocator takes from its heap, where it would stay: it goes back to the system.
    let mut bags = Vec::with_capacity(ROOM);
    bags.extend(construct_der(|writer| bag(writer, "outrider", authority)));
    for (number, root) in roots.enumerate() {
        match x509_parser::parse_x509_certificate(root) {
            Ok(([], _)) => bags.extend(construct_der(|writer| {
                bag(writer, &format!("system-{number:03}"), root);
            })),
            Ok(_) | Err(_) => tracing::debug!(number, "a system root is left out of the truststore"),
        }
    }
    bags
}

/// The MacData of content that is given in parts.
fn mac_data(parts: &[&[u8]]) -> Vec<u8> {
    let salt: [u8; 16] = rand::random();
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &mac_key(&salt)));
    for part in parts {
        mac.update(part);
    }
    let mac = mac.sign();
    construct_der(|writer| {
        writer.write_sequence(|mac_data| {
            mac_data.next().write_sequence(|info| {
                info.next().write_sequence(|algorithm| {
                    oid(algorithm, SHA_256);
                    algorithm.next().write_null();
                });
                info.next().write_bytes(mac.as_ref());
            });
            mac_data.next().write_bytes(&salt);
            mac_data.next().write_u32(ITERATIONS);
        });
    })
}

/// Returns the head of a ContentInfo of plain bytes whose content is `length` bytes long.
fn data(length: usize) -> Vec<u8> {
    let kind = construct_der(|writer| writer.write_oid(&ObjectIdentifier::from_slice(DATA)));
    let bytes = head(OCTET_STRING, length);
    let content = head(CONTENT, bytes.len() + length);
    let info = head(SEQUENCE, kind.len() + content.len() + bytes.len() + length);
    [info, kind, content, bytes].concat()
}

/// A tag, and the length of what follows it, as DER writes them.
fn head(tag: u8, length: usize) -> Vec<u8> {
    match u8::try_from(length) {
        Ok(short) if short < LONG => vec![tag, short],
        _ => {
            let bytes = length.to_be_bytes();
            let digits = &bytes[length.leading_zeros() as usize / 8..];
            // At most the eight bytes of a `usize`.
            let mut head = vec![tag, LONG | digits.len() as u8];
            head.extend(digits);
            head
        }
    }
}

/// One trusted certificate under a name.
fn bag(writer: DERWriter<'_>, name: &str, certificate: &[u8]) {
    writer.write_sequence(|bag| {
        oid(bag, CERTIFICATE_BAG);
        bag.next().write_tagged(Tag::context(0), |writer| {
            writer.write_sequence(|value| {
                oid(value, X509_CERTIFICATE);
                (value.next()).write_tagged(Tag::context(0), |writer| writer.write_bytes(certificate));
            });
        });
        bag.next().write_set_of(|attributes| {
            attributes.next().write_sequence(|attribute| {
                oid(attribute, FRIENDLY_NAME);
                (attribute.next()).write_set_of(|values| values.next().write_bmp_string(name));
            });
            // Without it Java takes the certificate for a link of somebody's chain.
            attributes.next().write_sequence(|attribute| {
                oid(attribute, TRUSTED_KEY_USAGE);
                attribute.next().write_set_of(|values| {
                    (values.next()).write_oid(&ObjectIdentifier::from_slice(ANY_USAGE));
                });
            });
        });
    });
}

fn oid(sequence: &mut DERWriterSeq<'_>, arcs: &[u64]) {
    sequence.next().write_oid(&ObjectIdentifier::from_slice(arcs));
}

/// RFC 7292, appendix B.2, for one block of SHA-256: all that a MAC key needs.
fn mac_key(salt: &[u8]) -> [u8; 32] {
    const PURPOSE: u8 = 3;
    let password: Vec<u8> = (TRUSTSTORE_PASSWORD.encode_utf16().chain([0]))
        .flat_map(u16::to_be_bytes)
        .collect();
    let mut first = Context::new(&SHA256);
    first.update(&[PURPOSE; BLOCK]);
    first.update(&blocks(salt));
    first.update(&blocks(&password));
    let mut key = first.finish();
    for _ in 1..ITERATIONS {
        key = digest(&SHA256, key.as_ref());
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(key.as_ref());
    bytes
}

/// `bytes`, repeated until they fill whole blocks of the digest.
fn blocks(bytes: &[u8]) -> Vec<u8> {
    let length = bytes.len().next_multiple_of(BLOCK);
    bytes.iter().copied().cycle().take(length).collect()
}

/// What SHA-256 takes in at once.
const BLOCK: usize = 64;
