//! The certificates that a server shows, in a form that webpki accepts.
//!
//! webpki refuses a certificate with an unknown critical extension before it checks anything else, and it does not know the
//! extensions about policies. If one of them is critical, webpki gets a copy in which it is not: one byte becomes FALSE, and
//! no other byte changes. Signatures are checked over the original, and [`policies`] checks the extensions.

use std::iter;

use memchr::memmem;
use rustls::pki_types::{
    AlgorithmIdentifier, CertificateDer, InvalidSignature, SignatureVerificationAlgorithm,
};

use super::{certificate, policies};

/// A server's certificate and what it sends along.
#[derive(Debug)]
pub(super) struct ServerChain<'c> {
    /// The server's first; empty if webpki accepts all originals.
    copies: Vec<CertificateDer<'c>>,
    intermediates: &'c [CertificateDer<'c>],
    leaf: &'c CertificateDer<'c>,
}

impl<'c> ServerChain<'c> {
    pub(super) fn new(leaf: &'c CertificateDer<'_>, intermediates: &'c [CertificateDer<'_>]) -> Self {
        let shown = || iter::once(leaf).chain(intermediates);
        let copies = if shown().any(|der| may_be_critical(der)) {
            shown().map(|der| lenient(der)).collect()
        } else {
            Vec::new()
        };
        Self {
            copies,
            intermediates,
            leaf,
        }
    }

    /// Returns the server's certificate, for webpki.
    pub(super) fn leaf(&self) -> &CertificateDer<'c> {
        self.copies.first().unwrap_or(self.leaf)
    }

    /// Returns the others, for webpki.
    pub(super) fn intermediates(&self) -> &[CertificateDer<'c>] {
        self.copies.get(1..).unwrap_or(self.intermediates)
    }

    /// Returns the original of `part` of a copy. By its address, because two originals may have equal copies.
    pub(super) fn original<'p>(&'p self, part: &'p [u8]) -> &'p [u8] {
        let shown = iter::once(self.leaf).chain(self.intermediates);
        let found = self.copies.iter().zip(shown).find_map(|(copy, original)| {
            let start = place(part, copy)?;
            original.get(start..start.checked_add(part.len())?)
        });
        found.unwrap_or(part)
    }

    /// Calls `judge` with `algorithms` that check signatures over the originals.
    pub(super) fn with<T>(
        &self,
        algorithms: &[&'static dyn SignatureVerificationAlgorithm],
        judge: impl FnOnce(&[&dyn SignatureVerificationAlgorithm]) -> T,
    ) -> T {
        if self.copies.is_empty() {
            return judge(algorithms);
        }
        let over = algorithms.iter().map(|inner| OverOriginal {
            chain: self,
            inner: *inner,
        });
        let over: Vec<_> = over.collect();
        let over: Vec<_> = over
            .iter()
            .map(|one| one as &dyn SignatureVerificationAlgorithm)
            .collect();
        judge(&over)
    }
}

/// Checks a signature of a copy over the original.
#[derive(Debug)]
struct OverOriginal<'a> {
    chain: &'a ServerChain<'a>,
    inner: &'a dyn SignatureVerificationAlgorithm,
}

impl SignatureVerificationAlgorithm for OverOriginal<'_> {
    fn verify_signature(
        &self,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        (self.inner).verify_signature(public_key, self.chain.original(message), signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.inner.signature_alg_id()
    }

    fn fips(&self) -> bool {
        self.inner.fips()
    }
}

/// Whether a certificate may have a critical extension about policies, so that others need not be parsed for it.
fn may_be_critical(der: &[u8]) -> bool {
    memmem::find_iter(der, CRITICAL_FROM).any(|at| {
        let rest = &der[at + CRITICAL_FROM.len()..];
        rest.first()
            .is_some_and(|last| policies::EXTENSIONS.contains(last))
            && rest[1..].starts_with(TRUE)
    })
}

/// Returns a copy whose extensions about policies are not critical.
fn lenient<'c>(der: &'c CertificateDer<'_>) -> CertificateDer<'c> {
    let Some(certificate) = certificate::parse(der) else {
        return CertificateDer::from(&**der);
    };
    let critical = certificate.extensions().iter().filter(|one| one.critical);
    let truths = critical.filter_map(|one| {
        let oid = one.oid.as_bytes();
        let [0x55, 0x1d, last] = oid else { return None };
        let after = place(oid, der)? + oid.len();
        let is_plain = policies::EXTENSIONS.contains(last) && der.get(after..)?.starts_with(TRUE);
        is_plain.then_some(after + TRUE.len() - 1)
    });
    let truths: Vec<_> = truths.collect();
    if truths.is_empty() {
        return CertificateDer::from(&**der);
    }
    let mut copy = der.to_vec();
    for truth in truths {
        copy[truth] = 0;
    }
    copy.into()
}

/// Returns where `part` begins in `whole`; `None` if it is not a part of it.
fn place(part: &[u8], whole: &[u8]) -> Option<usize> {
    let start = part.as_ptr().addr().checked_sub(whole.as_ptr().addr())?;
    (start.checked_add(part.len())? <= whole.len()).then_some(start)
}

/// The identifier of an extension, id-ce, up to its last byte.
const CRITICAL_FROM: &[u8] = &[0x06, 0x03, 0x55, 0x1d];

/// In DER.
const TRUE: &[u8] = &[0x01, 0x01, 0xff];
