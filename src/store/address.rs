//! Where the store is: the URL, which may hold a password and so is never shown.

use std::fmt;

use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::config::{SecretRef, Text, store_url};
use crate::host::{Host, Scheme, Target};
use crate::secret::{self, Secret, Snapshot};

/// A store's address, with what it takes to be let in. `Display` is without that.
pub(crate) struct StoreAddress {
    /// `https` stands for TLS.
    pub(super) target: Target,
    pub(super) database: u32,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    /// The whole URL, to see that it has changed.
    url: Secret,
}

/// Why there is no address. Names the place and the remedy, never the URL.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the address cannot be read")]
    Secret(#[from] secret::Error),

    #[error(
        "{place}: {what}; write redis://[USER]:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS; valkey:// and valkeys:// mean the same"
    )]
    Url { place: UrlSource, what: &'static str },
}

/// Where the URL stands.
#[derive(Clone, Debug)]
pub(crate) struct UrlSource(Option<SecretRef>);

impl StoreAddress {
    /// Reads and parses what `rate_limit_store` says.
    pub(crate) fn read(written: &Text, snapshot: &Snapshot) -> Result<Self, Error> {
        let (url, place) = match written {
            Text::Plain(url) => (
                Secret::new(Zeroizing::new(url.clone().into_bytes())),
                UrlSource(None),
            ),
            Text::Reference(reference) => (snapshot.read(reference)?, UrlSource(Some(reference.clone()))),
        };
        Self::parse(url).map_err(|what| Error::Url { place, what })
    }

    /// Whether it is the same in every byte.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.url.expose() == other.url.expose()
    }

    fn parse(url: Secret) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(url.expose()).map_err(|_| "the address is not a text")?;
        let (scheme, rest) = store_url(text)
            .ok_or("the address begins with none of redis://, rediss://, valkey:// and valkeys://")?;
        // As many clients write it, in the place of a path.
        let (rest, parameter) = match rest.split_once("?db=") {
            Some((rest, database)) => (rest, Some(database)),
            None => (rest, None),
        };
        if rest.contains(['?', '#']) {
            return Err("the address has parameters, of which none but db is known");
        }
        // A password that was not encoded may hold any letter but `@`.
        let (credentials, place) = match rest.rsplit_once('@') {
            Some((credentials, place)) => (Some(credentials), place),
            None => (None, rest),
        };
        let (authority, database) = place.split_once('/').unwrap_or((place, ""));
        let database = match parameter.filter(|_| database.is_empty()).unwrap_or(database) {
            "" => 0,
            number => number.parse().map_err(|_| "the database is not a number")?,
        };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                (host, port.parse().map_err(|_| "the port is not a number")?)
            }
            Some(_) | None => (authority, PORT),
        };
        let host = Host::parse(host).map_err(|_| "the host is not one")?;
        let (user, password) = match credentials {
            None | Some("") => (None, None),
            Some(credentials) => {
                let (user, password) = credentials.split_once(':').unwrap_or(("", credentials));
                let user = percent_decode_str(user)
                    .decode_utf8()
                    .map_err(|_| "the user is not a text")?;
                let password = Zeroizing::new(percent_decode_str(password).collect::<Vec<u8>>());
                let user = (!user.is_empty()).then(|| user.into_owned());
                (user, (!password.is_empty()).then(|| Secret::new(password)))
            }
        };
        Ok(Self {
            target: Target { scheme, host, port },
            database,
            user,
            password,
            url,
        })
    }

    pub(super) fn is_tls(&self) -> bool {
        self.target.scheme == Scheme::Https
    }
}

/// The host and the port.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.target)
    }
}

impl fmt::Debug for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreAddress({self})")
    }
}

impl fmt::Display for UrlSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(reference) => write!(f, "{reference}"),
            None => f.write_str("the URL"),
        }
    }
}

/// Redis's own.
const PORT: u16 = 6379;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<StoreAddress, &'static str> {
        StoreAddress::parse(Secret::new(Zeroizing::new(url.as_bytes().to_vec())))
    }

    /// As Redis and Valkey clients, Lettuce, Bun, Aiven, Heroku and brokers of Cloud Foundry write them.
    #[test]
    fn an_address_is_read_in_every_form_that_clients_write() {
        for (url, is_tls, place, database, user, password) in [
            ("redis://h", false, "h:6379", 0, None, None),
            ("valkey://h:6380/3", false, "h:6380", 3, None, None),
            (
                "VALKEYS://default:p%40w@h:1/",
                true,
                "h:1",
                0,
                Some("default"),
                Some("p@w"),
            ),
            ("rediss://:p+/=:w@h:1", true, "h:1", 0, None, Some("p+/=:w")),
            ("redis+ssl://h", true, "h:6379", 0, None, None),
            ("redis+tls://h", true, "h:6379", 0, None, None),
            ("valkey+tls://u:p@h?db=2", true, "h:6379", 2, Some("u"), Some("p")),
            ("redis://[::1]:7/4?db=5", false, "[::1]:7", 4, None, None),
        ] {
            let address = parse(url).unwrap();
            assert_eq!(address.is_tls(), is_tls, "{url}");
            assert_eq!(address.to_string(), place, "{url}");
            assert_eq!(address.database, database, "{url}");
            assert_eq!(address.user.as_deref(), user, "{url}");
            let its = address.password.as_ref().map(Secret::expose);
            assert_eq!(its, password.map(str::as_bytes), "{url}");
        }
        for (url, wrong) in [
            ("http://h", "begins with none of"),
            ("valkey-sentinel://h", "begins with none of"),
            ("unix:///run/valkey.sock", "begins with none of"),
            ("valkey://h?ssl=true", "none but db"),
            ("valkey://h?db=x", "the database is not a number"),
            ("valkey://h?db=1&ssl=false", "the database is not a number"),
            ("valkeys://h/1#x", "none but db"),
            ("valkey://", "the host is not one"),
        ] {
            let error = parse(url).map(|address| address.to_string()).unwrap_err();
            assert!(error.contains(wrong), "{url}: {error}");
        }
    }
}
