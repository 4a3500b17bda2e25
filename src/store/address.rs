//! Where the store is: a URL, which may hold a password and so is never shown, and the settings beside it.

use std::fmt;

use aws_lc_rs::digest;
use percent_encoding::percent_decode_str;
use zeroize::Zeroizing;

use crate::config::{RateLimitStore, SecretRef, StoreForm, Text, Tls, store_url};
use crate::host::{Host, Scheme, Target};
use crate::secret::{self, Secret, Snapshot};

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

/// A store's address and what it takes to log in. `Display` shows the servers only.
pub(crate) struct StoreAddress {
    pub(super) kind: StoreKind,
    /// At least one: the server, Sentinels, or servers of a cluster. The scheme `https` means TLS.
    pub(super) nodes: Vec<Target>,
    pub(super) database: u32,
    pub(super) user: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) sentinel_password: Option<Secret>,
    pub(super) tls: Tls,
    /// The whole URL: it shows whether the address has changed.
    url: Secret,
    /// A hash of the certificates and keys that `tls` refers to, for the same purpose.
    certificates: [u8; 32],
}

/// What the addresses lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreKind {
    Cluster,
    /// Sentinels, which know the primary under this name.
    Sentinel {
        primary: String,
    },
    Server,
}

/// Why there is no address. Names the place and the remedy, never the URL.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the address cannot be read")]
    Secret(#[from] secret::Error),

    #[error("sentinel_password: the secret cannot be read")]
    SentinelPassword(#[source] secret::Error),

    #[error(
        "{place}: {what}; write redis://[USER]:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS; valkey:// and valkeys:// \
         mean the same; for a cluster redis+cluster://HOST:PORT,HOST:PORT, for Sentinels \
         redis+sentinel://HOST:PORT,HOST:PORT/PRIMARY/DATABASE"
    )]
    Url { place: UrlSource, what: &'static str },
}

/// Where the URL is written.
#[derive(Clone, Debug)]
pub(crate) struct UrlSource(Option<SecretRef>);

impl StoreAddress {
    /// Says what is wrong with an address that is written out; one that a reference leads to is not looked at.
    pub(crate) fn examine(written: &RateLimitStore) -> Result<(), Error> {
        match &written.url {
            Text::Plain(url) => Self::written(url, written).map(|_| ()),
            Text::Reference(_) => Ok(()),
        }
    }

    /// Reads and parses what `rate_limit_store` says.
    pub(crate) fn read(written: &RateLimitStore, snapshot: &Snapshot) -> Result<Self, Error> {
        let address = match &written.url {
            Text::Plain(url) => Self::written(url, written)?,
            Text::Reference(reference) => Self::addressed(
                snapshot.read(reference)?,
                UrlSource(Some(reference.clone())),
                written,
            )?,
        };
        let password = written
            .sentinel_password
            .as_ref()
            .map(|reference| snapshot.read(reference));
        Ok(Self {
            sentinel_password: password.transpose().map_err(Error::SentinelPassword)?,
            tls: written.tls.clone(),
            certificates: hash(written, snapshot),
            ..address
        })
    }

    fn written(url: &str, written: &RateLimitStore) -> Result<Self, Error> {
        let url = Secret::new(Zeroizing::new(url.to_owned().into_bytes()));
        Self::addressed(url, UrlSource(None), written)
    }

    fn addressed(url: Secret, place: UrlSource, written: &RateLimitStore) -> Result<Self, Error> {
        let address = Self::parse(url).map_err(|what| Error::Url {
            place: place.clone(),
            what,
        })?;
        if written.tls != Tls::default() && !address.is_tls() {
            let what = "`tls` is written beside it, and the address asks for no TLS";
            return Err(Error::Url { place, what });
        }
        Ok(address)
    }

    /// Returns whether nothing differs.
    pub(crate) fn is(&self, other: &Self) -> bool {
        let password = |address: &Self| address.sentinel_password.as_ref().map(|it| it.expose().to_vec());
        self.url.expose() == other.url.expose()
            && password(self).map(Zeroizing::new) == password(other).map(Zeroizing::new)
            && self.tls == other.tls
            && self.certificates == other.certificates
    }

    fn parse(url: Secret) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(url.expose()).map_err(|_| "the address is not a text")?;
        let (scheme, form, rest) = store_url(text)
            .ok_or("the address begins with none of redis://, rediss://, valkey:// and valkeys://")?;
        let (rest, fragment) = match rest.split_once('#') {
            Some((rest, name)) if form == StoreForm::Sentinel => (rest, Some(name)),
            _ => (rest, None),
        };
        // As many clients write it, in place of a path.
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
        let (authorities, path) = place.split_once('/').unwrap_or((place, ""));
        let (primary, database) = match (form, fragment) {
            (StoreForm::Sentinel, None) => path.split_once('/').unwrap_or((path, "")),
            // As Lettuce writes it: sentinel://HOST/DATABASE#PRIMARY.
            (_, name) => (name.unwrap_or_default(), path),
        };
        let database = match parameter.filter(|_| database.is_empty()).unwrap_or(database) {
            "" => 0,
            number => number.parse().map_err(|_| "the database is not a number")?,
        };
        let port = if form == StoreForm::Sentinel {
            SENTINEL_PORT
        } else {
            REDIS_PORT
        };
        let nodes = authorities
            .split(',')
            .map(|authority| node(authority, port, scheme));
        let nodes = nodes.collect::<Result<Vec<_>, _>>()?;
        let kind = match form {
            StoreForm::Cluster if database != 0 => return Err("a cluster has no database but 0"),
            StoreForm::Cluster => StoreKind::Cluster,
            StoreForm::Sentinel if primary.is_empty() => {
                return Err("the address lacks the name under which Sentinels know the primary");
            }
            StoreForm::Sentinel => StoreKind::Sentinel {
                primary: primary.to_owned(),
            },
            StoreForm::Server if nodes.len() > 1 => {
                return Err("the address names several hosts, as only a cluster and Sentinels have");
            }
            StoreForm::Server => StoreKind::Server,
        };
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
            kind,
            nodes,
            database,
            user,
            password,
            sentinel_password: None,
            tls: Tls::default(),
            url,
            certificates: [0; 32],
        })
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.first().scheme == Scheme::Https
    }

    pub(super) fn first(&self) -> &Target {
        &self.nodes[0]
    }
}

/// Every secret that the store needs, with the parts of its client certificate.
pub(crate) fn references(written: &RateLimitStore, snapshot: &Snapshot) -> Vec<SecretRef> {
    let Tls {
        ca,
        ca_extra,
        client_certificate,
        crl,
        ..
    } = &written.tls;
    let mut all: Vec<_> = (written.sentinel_password.iter())
        .chain(ca)
        .chain(ca_extra)
        .chain(crl)
        .cloned()
        .collect();
    if let Text::Reference(reference) = &written.url {
        all.push(reference.clone());
    }
    if let Some(certificate) = client_certificate {
        all.extend(snapshot.parts(certificate));
    }
    all
}

fn hash(written: &RateLimitStore, snapshot: &Snapshot) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for reference in references(written, snapshot) {
        if let Ok(secret) = snapshot.read_list(&reference) {
            hash.update(&(secret.expose().len() as u64).to_be_bytes());
            hash.update(secret.expose());
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    bytes
}

fn node(authority: &str, default: u16, scheme: Scheme) -> Result<Target, &'static str> {
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().map_err(|_| "the port is not a number")?)
        }
        Some(_) | None => (authority, default),
    };
    let host = Host::parse(host).map_err(|_| "the host is not one")?;
    Ok(Target { scheme, host, port })
}

/// The hosts and their ports.
impl fmt::Display for StoreAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, node) in self.nodes.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{node}")?;
        }
        Ok(())
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
            ("valkey-sentinel://h", "lacks the name"),
            ("redis+sentinel+cluster://h", "begins with none of"),
            ("redis+cluster://h/1", "no database but 0"),
            ("redis://a,b", "names several hosts"),
            ("redis+cluster://a,,b", "the host is not one"),
            ("redis+sentinel://h/main/x", "the database is not a number"),
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

    /// As the clients fred, Lettuce, limits and redis-sentinel-url write them.
    #[test]
    fn clusters_and_sentinels_have_several_addresses() {
        let sentinel = |primary: &str| StoreKind::Sentinel {
            primary: primary.to_owned(),
        };
        for (url, kind, is_tls, places, database) in [
            (
                "redis+cluster://a,b:7",
                StoreKind::Cluster,
                false,
                "a:6379,b:7",
                0,
            ),
            ("rediss-cluster://:p@a:1", StoreKind::Cluster, true, "a:1", 0),
            ("valkey+tls+cluster://a/0", StoreKind::Cluster, true, "a:6379", 0),
            (
                "redis+sentinel://a,[::1]:2/main",
                sentinel("main"),
                false,
                "a:26379,[::1]:2",
                0,
            ),
            (
                "valkeys+sentinel://u:p@a/main/3",
                sentinel("main"),
                true,
                "a:26379",
                3,
            ),
            (
                "redis-sentinel://a,b/2#main",
                sentinel("main"),
                false,
                "a:26379,b:26379",
                2,
            ),
            ("rediss-sentinel://a#main", sentinel("main"), true, "a:26379", 0),
        ] {
            let address = parse(url).unwrap();
            assert_eq!(address.kind, kind, "{url}");
            assert_eq!(address.is_tls(), is_tls, "{url}");
            assert_eq!(address.to_string(), places, "{url}");
            assert_eq!(address.database, database, "{url}");
        }
    }
}
