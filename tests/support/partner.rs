//! The destination of most tests: mutual TLS and a bearer token, known to the app as `partner.test`.

use std::sync::Arc;

use rustls::ServerConfig;

use super::origin::ok;
use super::{Identity, Origin, Pki, Proxy, TOKEN, Wire};

/// An origin that demands a certificate of `pki`, the identity for it, and the authority that signed both.
pub(crate) struct Partner {
    pub(crate) pki: Pki,
    pub(crate) client: Identity,
    pub(crate) origin: Origin,
}

impl Partner {
    /// Answers each request with 200 and `ok`.
    pub(crate) fn new() -> Self {
        Self::with(ok)
    }

    /// Runs `script` on each connection.
    pub(crate) fn with(script: impl Fn(&mut Wire) + Send + Sync + 'static) -> Self {
        Self::offering(&[], script)
    }

    /// Runs `script` on each connection, with a choice of protocols.
    pub(crate) fn offering(alpn: &[&str], script: impl Fn(&mut Wire) + Send + Sync + 'static) -> Self {
        Self::configured(
            |config| config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect(),
            script,
        )
    }

    /// Runs `script` on each connection, with a changed TLS configuration.
    pub(crate) fn configured(
        change: impl FnOnce(&mut ServerConfig),
        script: impl Fn(&mut Wire) + Send + Sync + 'static,
    ) -> Self {
        let pki = Pki::new();
        let client = pki.client("app");
        let mut config = pki.demanding(&pki.server("partner.test"));
        // Tickets, so that a resumption across identities would show.
        config.ticketer = rustls::crypto::aws_lc_rs::Ticketer::new().unwrap();
        change(&mut config);
        let origin = Origin::https(config, script);
        Self { pki, client, origin }
    }

    pub(crate) fn authority(&self) -> String {
        self.origin.authority()
    }

    /// Returns the configuration of this destination, with the token from the environment; `extra` are more keys.
    pub(crate) fn yaml(&self, extra: &str) -> String {
        destination(&self.pki, &self.client, &self.authority(), extra)
    }

    /// Starts a proxy with this destination.
    #[track_caller]
    pub(crate) fn proxy(&self, extra: &str) -> Proxy {
        Proxy::start_with(&self.yaml(extra), &[("TOKEN", TOKEN)])
    }

    /// Returns `http://partner.test:PORT/path`, which the proxy upgrades to TLS.
    pub(crate) fn url(&self, path: &str) -> String {
        self.origin.url(path)
    }
}

/// Returns a configuration with the destination `partner`: mutual TLS as `client`, the token from the environment.
pub(crate) fn destination(pki: &Pki, client: &Identity, authority: &str, extra: &str) -> String {
    let ca = pki.ca().display().to_string();
    let extra = if extra.is_empty() {
        String::new()
    } else {
        format!(", {extra}")
    };
    // In block style, so that a test can write more destinations below.
    format!(
        "destinations:\n  partner: {{ hosts: [\"{authority}\"], auth: {{ bearer: env:TOKEN }}, \
         tls: {{ ca: \"file:{ca}\", client_certificate: {} }}{extra} }}\n",
        client.yaml()
    )
}

/// Returns a copy of the configuration that sends no server name.
pub(crate) fn nameless(config: &Arc<rustls::ClientConfig>) -> Arc<rustls::ClientConfig> {
    let mut config = rustls::ClientConfig::clone(config);
    config.enable_sni = false;
    Arc::new(config)
}
