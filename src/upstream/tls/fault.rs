//! What is wrong with a server's certificate, and what can be done.

use std::time::SystemTime;

use rustls::{CertificateError, OtherError};

use crate::units::rfc3339;

/// Why a server's certificate is refused. Continues a sentence after "HOST shows".
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum CertificateFault {
    #[error(
        "the certificate of an authority in place of a server's; to accept exactly this one, name it in tls.ca"
    )]
    Authority,

    #[error(
        "a certificate for {names}, which {authority} may not issue (name constraints); whoever runs it must get one \
         of another authority"
    )]
    Constraint { names: String, authority: String },

    #[error("a certificate{whose} that expired {} (now is {}); whoever runs it must renew it", rfc3339(*since), rfc3339(*now))]
    Expired {
        whose: String,
        since: SystemTime,
        now: SystemTime,
    },

    #[error(
        "a certificate{whose} with a critical extension that is not known here ({oid}), so nobody can say what it allows"
    )]
    Extension { whose: String, oid: String },

    #[error(
        "a certificate for {names}, not for {wanted}; if that is the right one, set tls.server_name to its name"
    )]
    Foreign { names: String, wanted: String },

    #[error("a certificate whose key did not sign this handshake")]
    Handshake,

    #[error(
        "a certificate{whose} whose key is too weak or not known here ({key}); RSA takes 2048 bits or more, ECDSA the \
         curves P-256, P-384 and P-521"
    )]
    Key { whose: String, key: String },

    #[error("a certificate that is signed by {name}, which is no authority")]
    NotAuthority { name: String },

    #[error(
        "a certificate that is signed by {name}, which may sign none (its key usage lacks keyCertSign); whoever runs it \
         must get one of another authority"
    )]
    NotIssuer { name: String },

    #[error(
        "a certificate whose key is not for signing (its key usage lacks digitalSignature), as TLS 1.3 and ECDHE need it; \
         whoever runs it must get another one"
    )]
    NotSigner,

    #[error("a certificate{whose} that is not valid before {} (now is {}); is a clock wrong?", rfc3339(*from), rfc3339(*now))]
    NotYetValid {
        whose: String,
        from: SystemTime,
        now: SystemTime,
    },

    #[error(
        "a chain with more authorities below {authority} than that one allows (path length); its operator must mend it"
    )]
    PathLength { authority: String },

    #[error(
        "a certificate that verifies, but none of its chain's keys is in tls.pins; they are {keys}: if its operator \
         confirms one, pin that"
    )]
    Pins { keys: String },

    #[error(
        "a chain without a certificate policy that holds all the way down, which {demanded_by} demands (policyConstraints, \
         requireExplicitPolicy): {why}; its operator must mend it, or get a certificate under another policy"
    )]
    Policy { demanded_by: String, why: String },

    #[error("a certificate{whose} with {what} (RFC 5280, 4.2); its issuer must make it anew")]
    PolicyExtension { whose: String, what: &'static str },

    #[error("a certificate{whose} that is not meant for servers (its extended key usage lacks serverAuth)")]
    Purpose { whose: String },

    #[error(
        "a certificate ({name}) that {issuer} has revoked: {details}; whoever runs it must get a new one"
    )]
    Revoked {
        name: String,
        issuer: String,
        details: String,
    },

    #[error("a certificate ({name}) of which it is not known whether it was revoked: {why}")]
    RevocationUnknown { name: String, why: String },

    #[error(
        "a self-signed certificate ({name}), which nothing here trusts; if it is the right one, name it in tls.ca"
    )]
    SelfSigned { name: String },

    #[error(
        "a certificate{whose} that is not signed with the key of {issuer} that is known here: it was changed, or its \
         authority has a new key; if so, name that one's certificate in tls.ca"
    )]
    Signature { whose: String, issuer: String },

    #[error(
        "a certificate{whose} signed with {algorithm}, which proves nothing; whoever runs it must get a new one"
    )]
    SignatureAlgorithm { whose: String, algorithm: String },

    #[error(
        "a certificate that leads to {issuer}, which is not among the trusted roots; name that authority's \
         certificate in tls.ca or tls.ca_extra{or}"
    )]
    UnknownIssuer { issuer: String, or: &'static str },

    #[error("a certificate that cannot be used ({0})")]
    Unusable(String),
}

impl CertificateFault {
    /// Returns the word for logs: a closed set.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Authority | Self::NotSigner | Self::Purpose { .. } => "certificate_purpose",
            Self::Constraint { .. } => "certificate_constraint",
            Self::Expired { .. } => "certificate_expired",
            Self::Extension { .. } => "certificate_extension",
            Self::Foreign { .. } => "certificate_name",
            Self::Handshake | Self::Signature { .. } => "certificate_signature",
            Self::Key { .. } | Self::SignatureAlgorithm { .. } => "certificate_weak",
            Self::NotAuthority { .. } | Self::NotIssuer { .. } | Self::PathLength { .. } => {
                "certificate_chain"
            }
            Self::NotYetValid { .. } => "certificate_not_yet_valid",
            Self::Pins { .. } => "certificate_pin",
            Self::Policy { .. } | Self::PolicyExtension { .. } => "certificate_policy",
            Self::Revoked { .. } => "certificate_revoked",
            Self::RevocationUnknown { .. } => "certificate_revocation_unknown",
            Self::SelfSigned { .. } => "certificate_self_signed",
            Self::UnknownIssuer { .. } => "certificate_unknown_issuer",
            Self::Unusable(_) => "certificate_unusable",
        }
    }

    /// Takes the fault from what the handshake reports: ours, unless rustls found another before.
    pub(super) fn of(error: &CertificateError) -> Self {
        let ours = match error {
            CertificateError::Other(OtherError(inner)) => inner.downcast_ref::<Self>().cloned(),
            CertificateError::BadSignature => Some(Self::Handshake),
            _ => None,
        };
        ours.unwrap_or_else(|| Self::Unusable(format!("{error:?}")))
    }
}
