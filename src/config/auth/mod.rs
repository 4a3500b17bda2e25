//! The credentials of a destination.

use super::declare::{Declaration, Syntax, Table, ValueKind};
use super::headers::header_name;
use super::reader::{Located, REFERENCE, SectionReader, one_of};
use super::rule::Matcher;
use super::syntax::Filled;
use super::{Auth, AuthRule, Credential, SecretRef, Text};

use jwt::Jwt;
use oauth::OAuth2;
use signatures::{AwsSigV4, Hmac, HttpSignature};

pub(super) mod component;
pub(crate) mod jwt;
pub(crate) mod oauth;
pub(super) mod signatures;
pub(super) mod template;
mod text;

const MATCH: Declaration = Declaration::new(
    "match",
    "To which requests it is attached; default: to all that no match before it takes.",
    Matcher::KIND,
)
.default("{}");

const NONE: Declaration = Declaration::new("none", "true: nothing is attached.", ValueKind::Literal("true"));

impl Auth {
    /// Returns the name of the kind, as the configuration writes it.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::AwsSigV4(_) => "aws_sigv4",
            Self::Basic { .. } => "basic",
            Self::Bearer(_) => "bearer",
            Self::Header { .. } => "header",
            Self::Jwt(_) => "jwt",
            Self::OAuth2(_) => "oauth2",
            Self::Hmac(_) => "hmac",
            Self::HttpSignature(_) => "http_signature",
            Self::Query { .. } => "query",
        }
    }

    /// Returns every reference to a secret, with its key.
    pub(crate) fn references(&self) -> Vec<(&'static str, &SecretRef)> {
        match self {
            Self::AwsSigV4(aws) => aws.references(),
            Self::Basic { username, password } => {
                let username = match username {
                    Text::Plain(_) => None,
                    Text::Reference(username) => Some(("basic.username", username)),
                };
                username
                    .into_iter()
                    .chain([("basic.password", password)])
                    .collect()
            }
            Self::Bearer(value) => vec![("bearer", value)],
            Self::Header { value, .. } => vec![("header.value", value)],
            Self::Jwt(token) => token.references(),
            Self::OAuth2(oauth2) => oauth2.references(),
            Self::Hmac(hmac) => hmac.references(),
            Self::HttpSignature(signature) => signature.references(),
            Self::Query { value, .. } => vec![("query.value", value)],
        }
    }

    /// Whether each of the two replaces the other on a request.
    fn replaces(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header { name: one, .. }, Self::Header { name: other, .. }) => one == other,
            (Self::Hmac(one), Self::Hmac(other)) => one.sets_same_fields(other),
            (Self::Query { name: one, .. }, Self::Query { name: other, .. }) => one == other,
            (one, other) => one.kind() == other.kind(),
        }
    }
}

/// Declares the kinds of credentials: the key, the type of its value, what it means, and the credential that is made.
macro_rules! kinds {
    ($( $(#[doc = $doc:literal])+ $word:literal: $syntax:ty => $make:expr; )+) => {
        /// One credential.
        const KINDS: Table = &[
            $( Declaration::new($word, concat!($($doc),+), <$syntax as Syntax>::KIND), )+
        ];

        /// The credential of a destination.
        const ALONE: Table = &[
            $( Declaration::new($word, concat!($($doc),+), <$syntax as Syntax>::KIND), )+
            POOL,
            NONE,
        ];

        /// A credential in a list of a destination.
        const IN_LIST: Table = &[
            MATCH,
            $( Declaration::new($word, concat!($($doc),+), <$syntax as Syntax>::KIND), )+
            POOL,
            NONE,
        ];

        /// Reads the value of `kind`, a key of `reader`.
        fn of_kind(kind: &str, reader: &SectionReader<'_>) -> Option<Auth> {
            match kind {
                $( $word => <$syntax as Syntax>::read(reader.take(kind)?).map($make), )+
                // The tables have no other.
                _ => None,
            }
        }
    };
}

kinds! {
    /// Authorization: Bearer, with this token.
    "bearer": SecretRef => Auth::Bearer;
    /// Authorization: Basic.
    "basic": BasicKeys => |keys: BasicKeys| Auth::Basic {
        username: keys.username,
        password: keys.password,
    };
    /// A header of any name.
    "header": HeaderKeys => |keys: HeaderKeys| Auth::Header {
        name: keys.name,
        value: keys.value,
    };
    /// A parameter of the query.
    "query": QueryKeys => |keys: QueryKeys| Auth::Query {
        name: keys.name,
        value: keys.value,
    };
    /// Authorization: Bearer, with a token that is asked for and kept fresh (OAuth 2.0).
    "oauth2": Box<OAuth2> => Auth::OAuth2;
    /// Authorization: Bearer, with a JSON Web Token that is signed here.
    "jwt": Box<Jwt> => Auth::Jwt;
    /// AWS Signature Version 4.
    "aws_sigv4": Box<AwsSigV4> => Auth::AwsSigV4;
    /// HTTP Message Signatures (RFC 9421), with Content-Digest (RFC 9530).
    "http_signature": Box<HttpSignature> => Auth::HttpSignature;
    /// A plain HMAC over what a service wants, written where it wants it.
    "hmac": Box<Hmac> => Auth::Hmac;
}

const POOL: Declaration = Declaration::new(
    "pool",
    "Several credentials of one kind: the one with the most left of its quota is attached, and one that is refused is left out \
     for a while.",
    Filled::<Credential>::KIND,
);

const SEVERAL: &str =
    "write several credentials of one kind, as in [{ bearer: env:TOKEN_1 }, { bearer: env:TOKEN_2 }]";

section! {
    /// A user name and a password.
    pub(crate) struct BasicKeys {
        /// A plain value or a reference.
        username: Text as UserName = required "write username: NAME";
        /// A reference. A variable that is set to nothing means an empty password.
        password: SecretRef = required REFERENCE;
    }
}

section! {
    /// A header with a secret.
    pub(crate) struct HeaderKeys {
        /// As in X-Api-Key.
        name: http::HeaderName as AttachedHeader = required "write name: X-Api-Key";
        /// A reference.
        value: SecretRef = required REFERENCE;
    }
}

section! {
    /// A parameter of the query with a secret.
    pub(crate) struct QueryKeys {
        /// As in api_key.
        name: String as ParameterName = required "write name: api_key";
        /// A reference.
        value: SecretRef = required REFERENCE;
    }
}

/// The credentials of a destination, in the order in which a request looks for its own.
pub(super) struct AuthRules;

impl Syntax for AuthRules {
    type Value = Vec<AuthRule>;

    const KIND: ValueKind = ValueKind::Any(&[
        ValueKind::OneOf(ALONE),
        Filled::<AuthRule>::KIND,
        ValueKind::Choice(&["none"]),
    ]);

    fn read(written: Located<'_>) -> Option<Vec<AuthRule>> {
        if written.plain() == Some("none") {
            return Some(Vec::new());
        }
        if !written.is_list() {
            return AuthRule::read(written).map(|rule| vec![rule]);
        }
        let rules = Filled::<AuthRule>::read(written.clone())?;
        for (i, two) in rules.windows(2).enumerate() {
            if two[0].matcher.is_any() {
                written.problem_at(
                    i + 1,
                    "never comes to its turn: the one before it has no match, and takes every request",
                    "put that one last",
                );
            }
        }
        Some(rules)
    }
}

/// Nothing of it is shown in a problem: it may be the secret.
impl Syntax for AuthRule {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Table(IN_LIST);

    const IF_EMPTY: &'static str = "write at least one credential, or remove the key";

    fn read(written: Located<'_>) -> Option<Self> {
        if !written.is_mapping() {
            written.problem(
                "has to be a mapping",
                "write a kind and its reference, as in { bearer: env:TOKEN }",
            );
            return None;
        }
        let reader = written.clone().reader(IN_LIST)?;
        let matcher = reader.or::<Matcher>("match", "{}");
        if !written.path.ends_with(']') && reader.take("match").is_some() {
            written.problem(
                "a credential with a match stands in a list",
                "write [{ match: { path: /api/** }, bearer: env:TOKEN }]",
            );
        }
        let credentials = match kind(&written, &reader)? {
            "none" => none(&reader),
            "pool" => pool(reader.take("pool")?),
            kind => credential(&written, kind, &reader).map(|one| vec![one]),
        };
        Some(Self {
            credentials: credentials?,
            matcher: matcher?,
        })
    }
}

/// A member of a pool.
impl Syntax for Credential {
    type Value = Self;

    const KIND: ValueKind = ValueKind::OneOf(KINDS);

    const IF_EMPTY: &'static str = SEVERAL;

    fn read(written: Located<'_>) -> Option<Self> {
        if !written.is_mapping() {
            written.problem("has to be a mapping", SEVERAL);
            return None;
        }
        let reader = written.clone().reader(KINDS)?;
        credential(&written, kind(&written, &reader)?, &reader)
    }
}

/// Returns the one kind of credential in a mapping.
fn kind<'r>(written: &Located<'_>, reader: &SectionReader<'r>) -> Option<&'r str> {
    let kinds: Vec<_> = reader.written().filter(|key| *key != "match").collect();
    match *kinds.as_slice() {
        [kind] => return Some(kind),
        // A problem was filed for an unknown kind, or one that does not work yet.
        [] if reader.has_complained() => {}
        [] => {
            let names: Vec<_> = KINDS.iter().map(|key| key.name).collect();
            written.problem("no credential", format_args!("write {} below it", one_of(&names)));
        }
        ref several => written.problem(
            format_args!("{} credentials at once", several.len()),
            format_args!("keep {}", one_of(several)),
        ),
    }
    None
}

/// Nothing is attached.
fn none(reader: &SectionReader<'_>) -> Option<Vec<Credential>> {
    let written = reader.take("none")?;
    if !written.clone().boolean()? {
        written.problem(
            "a credential of no kind",
            "write none: true, or a kind of credential",
        );
    }
    Some(Vec::new())
}

/// Several credentials of one kind, any of which will do.
fn pool(written: Located<'_>) -> Option<Vec<Credential>> {
    let members = Filled::<Credential>::read(written.clone())?;
    // One replaces the other on a request that is sent again.
    if members.windows(2).any(|two| !two[0].auth.replaces(&two[1].auth)) {
        written.problem("credentials of several kinds", SEVERAL);
    }
    Some(members)
}

fn credential(written: &Located<'_>, kind: &str, reader: &SectionReader<'_>) -> Option<Credential> {
    Some(Credential {
        auth: of_kind(kind, reader)?,
        place: below_destination(&written.path),
    })
}

/// Returns `auth[1]` of `destinations.NAME.auth[1]`.
fn below_destination(path: &str) -> String {
    path.splitn(3, '.').last().unwrap_or_default().to_owned()
}

/// The name of a header that is attached.
struct AttachedHeader;

impl Syntax for AttachedHeader {
    type Value = http::HeaderName;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<http::HeaderName> {
        let text = written.text("write the name of a header, as in X-Api-Key")?;
        header_name(&written, text)
    }
}

/// The name of a parameter of the query.
struct ParameterName;

impl Syntax for ParameterName {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let text = written.text("write the name of a parameter, as in api_key")?;
        if text.is_empty() || text.contains(char::is_control) {
            written.problem("not the name of a parameter", "write one, as in api_key");
            return None;
        }
        Some(text.to_owned())
    }
}

/// A user name, or a reference to one.
pub(super) struct UserName;

impl Syntax for UserName {
    type Value = Text;

    const KIND: ValueKind = ValueKind::Value;

    fn read(written: Located<'_>) -> Option<Text> {
        let text = written.text("write a name or a reference")?;
        if let Some(reference) = written.reference(text) {
            return reference.map(Text::Reference);
        }
        if text.contains(|c: char| c == ':' || c.is_control()) {
            // RFC 7617 ends the name at the first colon.
            written.problem(
                "a user name cannot contain a colon or a control character",
                "write it without",
            );
            return None;
        }
        Some(Text::Plain(text.to_owned()))
    }
}
