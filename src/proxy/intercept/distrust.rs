//! What to do about an app that does not trust the local authority, by the client that it uses.
//!
//! Many clients send no User-Agent with a CONNECT, and never send what is inside. So [`HeardClients`] notes what the other
//! connections of the app begin with.

use std::sync::atomic::{AtomicU64, Ordering};

use http::header;

use crate::message::Fields;

/// A client whose User-Agent is known: an index of [`CLIENTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownClient(u8);

/// How a User-Agent begins, and what its client trusts by.
const CLIENTS: &[(&str, &str)] = &[
    (
        "curl/",
        "curl trusts CURL_CA_BUNDLE; --cacert and ~/.curlrc go before it",
    ),
    (
        "Wget/",
        "wget trusts the file in SYSTEM_WGETRC; ca_certificate in ~/.wgetrc and --ca-certificate go before it",
    ),
    ("git/", "git trusts GIT_SSL_CAINFO"),
    ("aria2/", "aria2 heeds no variable: --ca-certificate=BUNDLE"),
    ("lftp/", "lftp heeds no variable: `set ssl:ca-file BUNDLE`"),
    (
        "python-requests/",
        "requests trusts REQUESTS_CA_BUNDLE; `verify=` in the code goes before it",
    ),
    (
        "Python-urllib/",
        "Python trusts SSL_CERT_FILE; an SSL context in the code goes before it",
    ),
    (
        "python-httpx/",
        "httpx trusts SSL_CERT_FILE; `verify=` in the code goes before it",
    ),
    (
        "Boto3/",
        "boto3 trusts AWS_CA_BUNDLE; `verify=` in the code goes before it",
    ),
    (
        "pip/",
        "pip trusts PIP_CERT; `cert` in pip.conf and --cert go before it",
    ),
    (
        "Go-http-client/",
        "Go trusts SSL_CERT_FILE; RootCAs in the code goes before it",
    ),
    (
        "Java/",
        "Java trusts the truststore in JAVA_TOOL_OPTIONS; an own SSLContext or truststore goes before it",
    ),
    (
        "Apache-HttpClient/",
        "it trusts the truststore in JAVA_TOOL_OPTIONS only if built by `createSystem`",
    ),
    (
        "okhttp/",
        "OkHttp trusts the truststore in JAVA_TOOL_OPTIONS; an own SSLSocketFactory goes before it",
    ),
    (
        "node",
        "Node trusts NODE_EXTRA_CA_CERTS; `ca` in the code goes before it",
    ),
    (
        "axios/",
        "Node trusts NODE_EXTRA_CA_CERTS; `ca` in the code goes before it",
    ),
    (
        "undici",
        "Node trusts NODE_EXTRA_CA_CERTS; `ca` in the code goes before it",
    ),
    (
        "npm/",
        "npm trusts NODE_EXTRA_CA_CERTS; `cafile` in .npmrc goes before it",
    ),
    ("Deno/", "Deno trusts DENO_CERT"),
    (
        "Bun/",
        "Bun trusts NODE_EXTRA_CA_CERTS, and refuses our certificate for an address",
    ),
    (
        "Ruby",
        "Ruby trusts SSL_CERT_FILE; `ca_file` in the code goes before it",
    ),
    ("libwww-perl/", "LWP trusts PERL_LWP_SSL_CA_FILE"),
    (
        "PHP",
        "PHP trusts openssl.cafile and curl.cainfo of the folder in PHP_INI_SCAN_DIR",
    ),
    (
        "GuzzleHttp/",
        "PHP trusts curl.cainfo of the folder in PHP_INI_SCAN_DIR; `verify` in the code goes before it",
    ),
    (
        "libcurl/",
        "a program on libcurl heeds no variable: let it set CURLOPT_CAINFO, or ask for http:// with `upgrade`",
    ),
    (
        "ureq/",
        "ureq has roots built in: build it with its platform verifier, or ask for http:// with `upgrade`",
    ),
    (
        "Emacs",
        "Emacs heeds no variable: add BUNDLE to gnutls-trustfiles",
    ),
    (
        "Mozilla/",
        "a browser has a store of certificates: add our authority with certutil (-d sql:$HOME/.pki/nssdb)",
    ),
];

/// So many clients at once still say something about the one that is silent.
const MOST_HEARD: usize = 3;

const STARTED_ELSEWHERE: &str = "start it under `outrider exec`, or point its trust variable (SSL_CERT_FILE, \
    REQUESTS_CA_BUNDLE, NODE_EXTRA_CA_CERTS, CURL_CA_BUNDLE, …) at the CA bundle: `outrider env` prints them all";
const STARTED_BY_US: &str = "its variables name the CA bundle, and it does not heed them: name the file of SSL_CERT_FILE by \
    an option or in its code, or ask for http:// with `upgrade`, which needs no trust; `outrider exec --check -- CMD` says \
    what CMD heeds";

impl KnownClient {
    /// Recognises the sender of a request.
    pub(super) fn of(fields: &Fields) -> Option<Self> {
        let agent = fields.get(header::USER_AGENT)?.as_bytes();
        let found = CLIENTS
            .iter()
            .position(|(beginning, _)| agent.starts_with(beginning.as_bytes()));
        found.and_then(|index| u8::try_from(index).ok()).map(Self)
    }
}

/// Which known clients requests have come from, as bits. It is asked once for each connection, not for each request.
#[derive(Debug, Default)]
pub(crate) struct HeardClients(AtomicU64);

impl HeardClients {
    /// Notes the sender of a request.
    pub(in crate::proxy) fn hear(&self, fields: &Fields) {
        let Some(KnownClient(place)) = KnownClient::of(fields) else {
            return;
        };
        let bit = 1 << place;
        if self.0.load(Ordering::Relaxed) & bit == 0 {
            self.0.fetch_or(bit, Ordering::Relaxed);
        }
    }

    /// Returns what to do for those that were heard, each once; nothing if they are too many to be a hint.
    fn remedies(&self) -> Vec<&'static str> {
        let heard = self.0.load(Ordering::Relaxed);
        let mut remedies = Vec::new();
        for (place, (_, remedy)) in CLIENTS.iter().enumerate() {
            if heard & (1 << place) != 0 && !remedies.contains(remedy) {
                remedies.push(*remedy);
            }
        }
        if remedies.len() > MOST_HEARD {
            remedies.clear();
        }
        remedies
    }
}

/// Returns what to do, for the client if it is known, else for those that were `heard` of the same app. `is_ours`: the app was
/// started by us, with our variables.
pub(super) fn remedy(client: Option<KnownClient>, heard: Option<&HeardClients>, is_ours: bool) -> String {
    let general = if is_ours { STARTED_BY_US } else { STARTED_ELSEWHERE };
    if let Some((_, remedy)) = client.and_then(|client| CLIENTS.get(usize::from(client.0))) {
        return format!("{remedy}; {general}");
    }
    match heard.map(HeardClients::remedies).unwrap_or_default().as_slice() {
        [] => general.to_owned(),
        heard => format!(
            "by the User-Agent of the app's other requests: {}; {general}",
            heard.join("; ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn told(agent: Option<&'static [u8]>, is_ours: bool) -> String {
        let mut fields = Fields::new();
        if let Some(agent) = agent {
            fields.insert(header::USER_AGENT, HeaderValue::from_bytes(agent).unwrap());
        }
        remedy(KnownClient::of(&fields), None, is_ours)
    }

    fn fields(agent: &'static str) -> Fields {
        Fields::from_iter([(header::USER_AGENT, HeaderValue::from_static(agent))])
    }

    #[test]
    fn a_silent_client_is_known_by_the_other_requests_of_the_app() {
        let heard = HeardClients::default();
        let told = |client| remedy(client, Some(&heard), true);
        heard.hear(&Fields::new());
        heard.hear(&fields("unheard of/1.0"));
        assert_eq!(told(None), STARTED_BY_US);

        heard.hear(&fields("python-requests/2.34.2"));
        heard.hear(&fields("python-requests/2.34.2"));
        let line = told(None);
        assert_eq!(line.matches("REQUESTS_CA_BUNDLE").count(), 1, "{line}");
        assert!(
            line.contains("other requests") && line.ends_with(STARTED_BY_US),
            "{line}"
        );
        // What it says itself counts more.
        let line = told(KnownClient::of(&fields("curl/8")));
        assert!(
            line.starts_with("curl trusts") && !line.contains("REQUESTS"),
            "{line}"
        );

        // The same remedy for three clients is told once, and of many clients none.
        for agent in ["node", "axios/1", "undici"] {
            heard.hear(&fields(agent));
        }
        assert_eq!(told(None).matches("NODE_EXTRA_CA_CERTS").count(), 1);
        for agent in ["Ruby", "git/2"] {
            heard.hear(&fields(agent));
        }
        assert_eq!(told(None), STARTED_BY_US);
    }

    #[test]
    fn the_remedy_is_that_of_the_client_and_never_what_was_done_already() {
        for (agent, wanted) in [
            (&b"curl/7.88.1"[..], "CURL_CA_BUNDLE"),
            (b"Wget/1.21.3", "SYSTEM_WGETRC"),
            (b"Go-http-client/1.1", "RootCAs"),
            (b"libwww-perl/6.68", "PERL_LWP_SSL_CA_FILE"),
        ] {
            for is_ours in [false, true] {
                let told = told(Some(agent), is_ours);
                assert!(told.contains(wanted), "{told}");
                assert_eq!(told.contains("start it under"), !is_ours, "{told}");
            }
        }
        // Nothing of an unknown one is repeated.
        for agent in [None, Some(&b"evil\xff<script>"[..]), Some(b""), Some(b"cur")] {
            assert_eq!(told(agent, false), STARTED_ELSEWHERE);
            assert_eq!(told(agent, true), STARTED_BY_US);
        }
        // Each has a bit.
        assert!(CLIENTS.len() <= 64);
    }
}
