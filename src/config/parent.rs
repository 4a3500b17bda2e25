//! Parent proxies: what is written of them, and how their URLs are read.

use std::fmt;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use super::auth::UserName;
use super::declare::{Syntax, ValueKind};
use super::node::shown;
use super::reader::{Located, SectionReader};
use super::syntax::OneOrMore;
use super::{SecretRef, Text, Tls};
use crate::host::{Host, HostPattern, PortPattern};

/// What would be right where a parent belongs.
const PARENT: &str = "write a reference, as in vcap:egress-proxy/https_uri, or http://HOST:PORT, https://HOST:PORT or \
                      socks5://HOST:PORT, without a password";

section! {
    /// A parent proxy.
    #[derive(Hash)]
    pub(crate) struct ParentKeys, check {
        /// http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT, or a reference to such a URL, which may hold the
        /// credentials.
        url: Text as ParentUrl = required "write where the parent is, as in url: https://proxy.example.com:3128";
        /// Who we are to the parent; a plain value or a reference.
        username: Option<Text> as UserName;
        /// The password of that user.
        password: Option<SecretRef>;
        /// How TLS is spoken to an https:// parent, as for a destination: its roots, our client certificate, its name.
        tls: Tls = "{}";
    }
}

/// The protocol that a parent speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ParentScheme {
    Http,
    /// HTTP over TLS.
    Https,
    Socks5,
}

/// What the URL of a parent says. `Debug` shows no credentials.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct ParentUrlParts {
    pub(crate) scheme: ParentScheme,
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Zeroizing<Vec<u8>>>,
}

/// Where a destination is reached from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ParentChoice {
    /// As `egress.parent` says.
    Inherit,
    None,
    /// Through these, the next one where one fails.
    Own(Vec<ParentKeys>),
}

impl ParentScheme {
    const ALL: [(&'static str, Self); 4] = [
        ("http", Self::Http),
        ("https", Self::Https),
        ("socks5", Self::Socks5),
        // As curl writes what we always do: the parent resolves names.
        ("socks5h", Self::Socks5),
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Socks5 => "socks5",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
            Self::Socks5 => 1080,
        }
    }
}

impl ParentUrlParts {
    /// Reads a URL. The error is what is wrong, and never repeats the text.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text
            .split_once("://")
            .ok_or("it begins with none of http://, https:// and socks5://")?;
        let scheme = ParentScheme::ALL
            .iter()
            .find(|(name, _)| scheme.eq_ignore_ascii_case(name))
            .map(|(_, scheme)| *scheme)
            .ok_or("it begins with none of http://, https:// and socks5://")?;
        // The last `@`: a password that was not encoded may hold any letter but that.
        let (userinfo, place) = match rest.rsplit_once('@') {
            Some((userinfo, place)) => (Some(userinfo), place),
            None => (None, rest),
        };
        let place = place.strip_suffix('/').unwrap_or(place);
        if place.contains(['/', '?', '#']) {
            return Err("it has a path or parameters, which a proxy's URL has not");
        }
        let (host, port) =
            Host::with_port(place, scheme.default_port()).map_err(|_| "its host or its port is not one")?;
        let (username, password) = match userinfo {
            None | Some("") => (None, None),
            Some(userinfo) => {
                let (username, password) = match userinfo.split_once(':') {
                    Some((username, password)) => (username, Some(password)),
                    None => (userinfo, None),
                };
                let username = percent_decode_str(username)
                    .decode_utf8()
                    .map_err(|_| "its user name is not a text")?;
                let password = password
                    .map(|password| Zeroizing::new(percent_decode_str(password).collect::<Vec<u8>>()));
                (Some(username.into_owned()), password)
            }
        };
        Ok(Self {
            scheme,
            host,
            port,
            username,
            password,
        })
    }
}

impl fmt::Debug for ParentUrlParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ParentUrlParts")
            .field("scheme", &self.scheme)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl ParentKeys {
    /// Returns the parent that nothing but a URL is written of.
    fn of_url(url: Text) -> Self {
        Self {
            url,
            username: None,
            password: None,
            tls: Tls::default(),
        }
    }

    fn check(&self, reader: &SectionReader<'_>) {
        let at = |key| reader.take(key);
        if self.username.is_none()
            && let Some(written) = self.password.as_ref().and_then(|_| at("password"))
        {
            written.problem("a password without a user", "add username: NAME");
        }
        let Text::Plain(url) = &self.url else { return };
        let Ok(parts) = ParentUrlParts::parse(url) else {
            return;
        };
        if parts.scheme != ParentScheme::Https
            && self.tls != Tls::default()
            && let Some(written) = at("tls")
        {
            written.problem(
                format_args!("TLS to a parent that is reached by {}://", parts.scheme.as_str()),
                "write https:// in url, or leave it out",
            );
        }
        if parts.username.is_some()
            && let Some(written) = self.username.as_ref().and_then(|_| at("username"))
        {
            written.problem("the URL names a user as well", "keep one of them");
        }
    }
}

/// The URL of a parent without a password, or a reference to one that may have one: many people read the file.
struct ParentUrl;

impl Syntax for ParentUrl {
    type Value = Text;

    const KIND: ValueKind = ValueKind::Any(&[ValueKind::Secret, ValueKind::Text]);

    fn read(written: Located<'_>) -> Option<Text> {
        let text = written.text(PARENT)?;
        if let Some(reference) = written.reference(text) {
            return reference.map(Text::Reference);
        }
        // Not repeated: it may contain a password.
        match ParentUrlParts::parse(text) {
            Ok(parts) if parts.password.is_none() => Some(Text::Plain(text.to_owned())),
            Ok(_) => {
                let right = "write the URL without it, and { url: …, username: NAME, password: env:NAME }; or keep the \
                             whole URL in a variable, and write env:NAME";
                written.problem(
                    "a URL with a password in it, where everybody who reads the file sees it",
                    right,
                );
                None
            }
            Err(what) => {
                written.problem(
                    format_args!("neither a reference nor the URL of a proxy: {what}"),
                    PARENT,
                );
                None
            }
        }
    }
}

/// A parent: its URL, a reference to it, or a mapping.
struct OneParent;

impl Syntax for OneParent {
    type Value = ParentKeys;

    const KIND: ValueKind = ValueKind::Any(&[ValueKind::Secret, ValueKind::Text, ParentKeys::KIND]);

    const IF_EMPTY: &'static str = "write none to reach it directly";

    fn read(written: Located<'_>) -> Option<ParentKeys> {
        if written.is_mapping() {
            return ParentKeys::read(written);
        }
        ParentUrl::read(written).map(ParentKeys::of_url)
    }
}

/// Several parents, each once; an empty list for no parent.
pub(super) struct Parents;

impl Syntax for Parents {
    type Value = Vec<ParentKeys>;

    const KIND: ValueKind = ValueKind::Any(&[
        OneParent::KIND,
        ValueKind::List(&OneParent::KIND),
        ValueKind::Literal("null"),
    ]);

    fn read(written: Located<'_>) -> Option<Vec<ParentKeys>> {
        if written.is_null() || written.is_list() && written.is_empty() {
            return Some(Vec::new());
        }
        if matches!(written.plain(), Some("none" | "inherit")) {
            written.problem(
                "`none` and `inherit` are words of a destination",
                "leave the key out where there is no parent, and write parent: none at a destination",
            );
            return None;
        }
        let parents = OneOrMore::<OneParent>::read(written.clone())?;
        written.each_once(&parents, "stands twice", "keep one of them");
        Some(parents)
    }
}

impl Syntax for ParentChoice {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Any(&[ValueKind::Choice(&["inherit", "none"]), Parents::KIND]);

    fn read(written: Located<'_>) -> Option<Self> {
        match written.plain() {
            Some("inherit") => return Some(Self::Inherit),
            Some("none") => return Some(Self::None),
            // Not repeated: it may be a password in the wrong place.
            Some(text) if !text.is_empty() && !text.contains(':') && !written.is_null() => {
                written.problem(
                    "neither none nor inherit, no reference, and no URL",
                    format_args!(
                        "write none or inherit; or {}",
                        PARENT.trim_start_matches("write ")
                    ),
                );
                return None;
            }
            _ => {}
        }
        match Parents::read(written)? {
            parents if parents.is_empty() => Some(Self::None),
            parents => Some(Self::Own(parents)),
        }
    }
}

/// A reference, or `null` where the system's roots are meant.
pub(super) struct ParentRoots;

impl Syntax for ParentRoots {
    type Value = Option<SecretRef>;

    const KIND: ValueKind = ValueKind::Any(&[ValueKind::Secret, ValueKind::Literal("null")]);

    fn read(written: Located<'_>) -> Option<Option<SecretRef>> {
        if written.is_null() {
            return Some(None);
        }
        written.secret().map(Some)
    }
}

/// A host that is reached without a parent. A name means the names below it as well, and without a port any port.
pub(super) struct Bypass;

impl Syntax for Bypass {
    type Value = HostPattern;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<HostPattern> {
        let right = "write a host, host:port, \"*.suffix\", an address or a CIDR block; no scheme, no path";
        let text = written.text(right)?;
        // NO_PROXY lists often have the dot.
        match HostPattern::parse(text.strip_prefix('.').unwrap_or(text)) {
            Ok(HostPattern { what, port }) => {
                let port = match port {
                    PortPattern::Usual => PortPattern::Any,
                    PortPattern::Any | PortPattern::One(_) => port,
                };
                Some(HostPattern { what, port })
            }
            Err(error) => {
                written.problem(format_args!("`{}`: {error}", shown(text)), right);
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn the_words_for_parents_are_told_where_they_belong() {
        for (text, words) in [
            (
                "egress: { parent: none }",
                "egress.parent: `none` and `inherit` are words of a destination; leave the key out where there is no parent",
            ),
            (
                "egress: { parent: inherit }",
                "are words of a destination; leave the key out",
            ),
            (
                "destinations: { w: { hosts: [w.test], parent: nonne } }",
                "destinations.w.parent: neither none nor inherit, no reference, and no URL; write none or inherit; or a reference",
            ),
        ] {
            let error = Config::parse(text, "test").unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("nonne"), "{error}");
        }
        for text in [
            "destinations: { w: { hosts: [w.test], parent: none } }",
            "destinations: { w: { hosts: [w.test], parent: null } }",
            "destinations: { w: { hosts: [w.test], parent: env:P } }",
        ] {
            Config::parse(text, "test").unwrap();
        }
    }
}
