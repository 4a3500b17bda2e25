//! The credentials that sign: AWS Signature Version 4, HTTP Message Signatures, and plain HMACs.

use std::time::Duration;

use http::header::{HeaderName, HeaderValue};

use super::component::Component;
use super::template::{Template, TemplatePiece};
use super::text::{Quotable, QuotableOrReference};
use crate::config::declare::{Syntax, ValueKind};
use crate::config::headers::header_name;
use crate::config::reader::{Located, REFERENCE, SectionReader};
use crate::config::syntax::{Filled, MIB, Size};
use crate::config::{Algorithm, SecretRef, Text};

/// The one secret that may be missing.
pub(crate) const SESSION_TOKEN: &str = "aws_sigv4.session_token";

const WHAT_TO_SIGN: &str =
    "write what the service wants to be signed, as in \"{method}\\n{target}\\n{body_sha256}\"";

section! {
    /// AWS Signature Version 4.
    #[derive(Hash)]
    pub(crate) struct AwsSigV4 {
        /// As in s3 or execute-api.
        service: String as AwsScope = required "write service: s3";
        /// As in us-gov-west-1.
        region: String as AwsScope = required "write region: us-gov-west-1";
        /// A plain value or a reference.
        access_key_id: Text as QuotableOrReference = required "write access_key_id: env:AWS_ACCESS_KEY_ID";
        /// A reference.
        secret_access_key: SecretRef = required REFERENCE;
        /// Of temporary keys; an environment variable that is not set means no token.
        session_token: Option<SecretRef>;
        /// The largest body that is read whole to be signed.
        max_body: usize as LargestBody = "1MiB";
    }
}

section! {
    /// HTTP Message Signatures, RFC 9421.
    #[derive(Hash)]
    pub(crate) struct HttpSignature, check {
        /// By which the server knows the key.
        key_id: Text as QuotableOrReference = required "write key_id: NAME";
        /// A private key in PEM or DER, or the secret of an HMAC.
        key: SecretRef = required REFERENCE;
        /// How the secret of an HMAC is written.
        key_encoding: KeyEncoding = "text";
        /// As RFC 9421 names it.
        algorithm: Algorithm as HttpAlgorithm = required "write algorithm: ed25519";
        /// What is signed: fields, @method, @target-uri, @authority, @scheme, @request-target, @path, @query,
        /// '@query-param;name="id"'. content-digest is computed.
        components: Vec<Component> as Components = required "write components: [\"@method\", \"@target-uri\"]";
        /// The name of the signature in its fields.
        label: String as Label = "sig1";
        /// Add the time at which it was made.
        created: bool = "true";
        /// Add the time after which it is void.
        expires: Option<Duration> as WholeSeconds;
        /// Add a random value to each.
        nonce: bool = "false";
        /// What it is for, as the application that reads it calls it.
        tag: Option<String> as Quotable;
        /// Name the algorithm in it.
        names_algorithm("alg"): bool = "false";
        /// The largest body that is read whole to be signed.
        max_body: usize as LargestBody = "1MiB";
    }
}

section! {
    /// An HMAC over what a service wants, written where it wants it.
    #[derive(Hash)]
    pub(crate) struct Hmac, check {
        /// The shared secret.
        key: SecretRef = required REFERENCE;
        /// How the secret is written.
        key_encoding: KeyEncoding = "text";
        /// A plain value or a reference, for {key_id}.
        key_id: Option<Text> as QuotableOrReference;
        /// The hash; sha1 only where a service knows nothing better.
        algorithm: Algorithm as HmacAlgorithm = "sha256";
        /// How {signature} is written.
        encoding: SignatureEncoding = "hex";
        /// What is signed, as in "{method}\n{target}\n{timestamp}\n{body_sha256}".
        message: Template as SignedMessage = required WHAT_TO_SIGN;
        /// The fields that carry it, as in { Authorization: 'HMAC {key_id}:{signature}', X-Timestamp: '{timestamp}' }.
        set: Vec<(HeaderName, Template)> as SetTemplates = required "write set: { X-Signature: '{signature}' }";
        /// The largest body that is read whole to be signed.
        max_body: usize as LargestBody = "1MiB";
    }
}

choice! {
    /// How a shared secret is written.
    pub(crate) enum KeyEncoding {
        Text = "text",
        Base64 = "base64",
        Hex = "hex",
    }
}

choice! {
    /// How a signature is written.
    pub(crate) enum SignatureEncoding {
        Hex = "hex",
        Base64 = "base64",
        Base64Url = "base64url",
    }
}

words! {
    HttpAlgorithm: Algorithm {
        "ecdsa-p256-sha256" = Algorithm::EcdsaP256Sha256,
        "ecdsa-p384-sha384" = Algorithm::EcdsaP384Sha384,
        "ed25519" = Algorithm::Ed25519,
        "hmac-sha256" = Algorithm::HmacSha256,
        "rsa-pss-sha512" = Algorithm::RsaPssSha512,
        "rsa-v1_5-sha256" = Algorithm::RsaPkcs1Sha256,
    }
}

words! {
    HmacAlgorithm: Algorithm {
        "sha1" = Algorithm::HmacSha1,
        "sha256" = Algorithm::HmacSha256,
        "sha384" = Algorithm::HmacSha384,
        "sha512" = Algorithm::HmacSha512,
    }
}

impl AwsSigV4 {
    /// Returns every reference to a secret, with its key.
    pub(super) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        let mut all = vec![("aws_sigv4.secret_access_key", &self.secret_access_key)];
        if let Text::Reference(id) = &self.access_key_id {
            all.push(("aws_sigv4.access_key_id", id));
        }
        all.extend(self.session_token.iter().map(|token| (SESSION_TOKEN, token)));
        all
    }
}

impl HttpSignature {
    fn check(&self, reader: &SectionReader<'_>) {
        let encoding = reader.take("key_encoding");
        if let Some(written) = encoding.filter(|_| self.algorithm != Algorithm::HmacSha256) {
            written.problem(
                "only the secret of an HMAC has one",
                "remove it: a private key is PEM",
            );
        }
        if self.expires.is_some() && !self.created {
            reader.problem("expires without created", "remove created: false");
        }
    }

    /// Returns every reference to a secret, with its key.
    pub(super) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        let mut all = vec![("http_signature.key", &self.key)];
        if let Text::Reference(id) = &self.key_id {
            all.push(("http_signature.key_id", id));
        }
        all
    }
}

impl Hmac {
    fn check(&self, reader: &SectionReader<'_>) {
        let mut templates = self.set.iter().map(|(_, value)| value).chain([&self.message]);
        if self.key_id.is_none() && templates.any(|template| template.has(&TemplatePiece::KeyId)) {
            reader.problem("{key_id} without a key_id", "write key_id: NAME");
        }
    }

    /// Returns every reference to a secret, with its key.
    pub(super) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        let mut all = vec![("hmac.key", &self.key)];
        if let Some(Text::Reference(id)) = &self.key_id {
            all.push(("hmac.key_id", id));
        }
        all
    }

    /// Whether both set the same fields, so that each replaces the other on a request.
    pub(super) fn sets_same_fields(&self, other: &Self) -> bool {
        let names = |hmac: &Self| {
            let mut names: Vec<_> = hmac
                .set
                .iter()
                .map(|(name, _)| name.as_str().to_owned())
                .collect();
            names.sort_unstable();
            names
        };
        names(self) == names(other)
    }
}

/// The largest body that is signed: the default is enough for the calls of nearly every API, and little beside the memory of
/// a sidecar.
struct LargestBody;

impl Syntax for LargestBody {
    type Value = usize;

    const KIND: ValueKind = ValueKind::Size;

    fn read(written: Located<'_>) -> Option<usize> {
        Size::<0, { 64 * MIB }>::read(written)?.try_into().ok()
    }
}

/// A part of the scope of an AWS key.
struct AwsScope;

impl Syntax for AwsScope {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let right = "write it as AWS does, as in s3 or us-gov-west-1";
        let text = written.text(right)?;
        let is_word = |byte| matches!(byte, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.');
        if text.is_empty() || !text.bytes().all(is_word) {
            written.problem("not the name of a service or a region", right);
            return None;
        }
        Some(text.to_owned())
    }
}

/// A key of a structured field (RFC 9651, section 3.1.2).
struct Label;

impl Syntax for Label {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let right = "write a name of small letters, digits, -, _, . and *, as in sig1";
        let text = written.text(right)?;
        let begins = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '*');
        let goes_on = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*');
        if !begins || !text.bytes().all(goes_on) {
            written.problem("not the name of a signature", right);
            return None;
        }
        Some(text.to_owned())
    }
}

/// A duration without a fraction of a second.
struct WholeSeconds;

impl Syntax for WholeSeconds {
    type Value = Duration;

    const KIND: ValueKind = ValueKind::Duration;

    fn read(written: Located<'_>) -> Option<Duration> {
        let time = written.clone().positive_duration()?;
        if time.subsec_nanos() != 0 {
            written.problem("a fraction of a second", "write whole seconds, as in 5m");
            return None;
        }
        Some(time)
    }
}

impl Syntax for Component {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    const IF_EMPTY: &'static str = "write at least one component";

    fn read(written: Located<'_>) -> Option<Self> {
        let text = written.text("write the name of a component, as in \"@method\"")?;
        written.kept(text, Self::parse(text))
    }
}

/// Components, each once.
struct Components;

impl Syntax for Components {
    type Value = Vec<Component>;

    const KIND: ValueKind = Filled::<Component>::KIND;

    fn read(written: Located<'_>) -> Option<Vec<Component>> {
        let components = Filled::<Component>::read(written.clone())?;
        written.each_once(
            &components,
            "stands there already",
            "remove it: each is signed once",
        );
        Some(components)
    }
}

impl Syntax for Template {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<Self> {
        let text = written.text("write a text with {placeholders}")?;
        written.kept(text, Self::parse(text))
    }
}

/// A text that differs from request to request.
struct SignedMessage;

impl Syntax for SignedMessage {
    type Value = Template;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<Template> {
        let message = Template::read(written.clone())?;
        if message.has(&TemplatePiece::Signature) {
            written.problem(
                "{signature} cannot be part of what is signed",
                "write it in `set`",
            );
            return None;
        }
        if message
            .0
            .iter()
            .all(|piece| matches!(piece, TemplatePiece::Text(_)))
        {
            written.problem("the same for every request", WHAT_TO_SIGN);
            return None;
        }
        Some(message)
    }
}

/// The fields that carry a signature.
struct SetTemplates;

impl Syntax for SetTemplates {
    type Value = Vec<(HeaderName, Template)>;

    const KIND: ValueKind = ValueKind::Named("", &Template::KIND);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        let whole = written.clone();
        let mut set = Vec::new();
        for (entry, written) in written.named()? {
            let name = header_name(&written, &entry.key)?;
            let value = Template::read(written.clone())?;
            if value.has(&TemplatePiece::Body) {
                written.problem("a body cannot stand in a header", "write {body_sha256}");
                return None;
            }
            let is_text = |piece: &TemplatePiece| match piece {
                TemplatePiece::Text(text) => HeaderValue::from_str(text).is_ok(),
                _ => true,
            };
            if !value.0.iter().all(is_text) {
                written.problem("cannot stand in a header", "write it in one line");
                return None;
            }
            set.push((name, value));
        }
        if !set.iter().any(|(_, value)| value.has(&TemplatePiece::Signature)) {
            whole.problem(
                "no field says the signature",
                "write one, as in X-Signature: '{signature}'",
            );
            return None;
        }
        Some(set)
    }
}
