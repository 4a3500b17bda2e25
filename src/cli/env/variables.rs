//! The variables that make clients use the proxy and trust its authority.
//!
//! Clients agree on little: curl reads `http_proxy` in lower case only, Guzzle in upper case only, so both are
//! set. Java reads none of them and takes `JAVA_TOOL_OPTIONS`; Node takes the proxy only when
//! `NODE_USE_ENV_PROXY` says so. The proxy's address is always `http://`, the only scheme that all clients
//! accept.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;

use crate::ca::{AGENTS, ClientFiles, NODE_MODULE, TRUSTSTORE_PASSWORD};
use crate::config::{Ca, NoProxyHost, entries_of};
use crate::secret::roots::{CLIENT_VARIABLES, RARE_CLIENT_VARIABLES};

/// Which hosts clients reach without a proxy.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli) enum NoProxy<'l> {
    /// The command line says which, and nothing is added.
    Only(&'l str),
    /// Those of the configuration, and those that the variable has already.
    Listed(&'l [NoProxyHost]),
}

/// The kind of URL that an `--import` of Node takes a text from.
const MODULE_TEXT: &str = "data:text/javascript;base64,";

/// The user name that goes with the password.
pub(in crate::cli) const USER: &str = "outrider";

/// Returns the variables that send an app through the proxy at `listen` (`host:port`) and let it trust the
/// authority.
///
/// `password` is left out of JAVA_TOOL_OPTIONS, because a virtual machine prints them. Without `ca` no trust
/// variable is set, and without `files` none that names one of them. The hosts of the configuration, and the proxy's own
/// unless it is a loopback address, are joined with those of the `existing` NO_PROXY. Existing JAVA_TOOL_OPTIONS,
/// NODE_OPTIONS and PHP_INI_SCAN_DIR are kept; ours come later, so they win. `command` is what is run, if that is known: Node
/// may get options there.
pub(super) fn variables(
    listen: &str,
    password: Option<&str>,
    ca: Option<&Ca>,
    files: Option<&ClientFiles>,
    no_proxy: NoProxy<'_>,
    command: &str,
    existing: impl Fn(&str) -> Option<String>,
) -> Vec<(&'static str, String)> {
    let scanned = existing("PHP_INI_SCAN_DIR");
    let existing = |name| existing(name).filter(|value| !value.is_empty());
    let proxy = match password {
        Some(password) => format!("http://{USER}:{password}@{listen}"),
        None => format!("http://{listen}"),
    };
    let no_proxy = match no_proxy {
        NoProxy::Only(list) => list.to_owned(),
        NoProxy::Listed(listed) => merged(
            listen,
            listed,
            existing("no_proxy").or_else(|| existing("NO_PROXY")),
        ),
    };
    let bundle = ca.map(|ca| absolute(&ca.bundle).display().to_string());
    let truststore = ca.map(|ca| absolute(&ca.truststore));
    let java = java_options(listen, &no_proxy, truststore.as_deref());

    let mut variables = vec![
        ("http_proxy", proxy.clone()),
        ("HTTP_PROXY", proxy.clone()),
        ("https_proxy", proxy.clone()),
        ("HTTPS_PROXY", proxy.clone()),
        ("no_proxy", no_proxy.clone()),
        ("NO_PROXY", no_proxy),
        ("NODE_USE_ENV_PROXY", "1".to_owned()),
        // Yarn reads no other from version 2 on.
        ("YARN_HTTP_PROXY", proxy.clone()),
        ("YARN_HTTPS_PROXY", proxy),
        // Perl's LWP and Mojolicious read the proxy variables only where these are set.
        ("PERL_LWP_ENV_PROXY", "1".to_owned()),
        ("MOJO_PROXY", "1".to_owned()),
    ];
    if let Some(bundle) = bundle {
        // OpenSSL, Go, Ruby, PHP streams, .NET, Python's ssl, httpx.
        variables.push(("SSL_CERT_FILE", bundle.clone()));
        // All but `NODE_EXTRA_CA_CERTS` and `DENO_CERT` replace the client's roots, so the bundle contains the
        // system's roots and those that these variables name already.
        variables.extend(CLIENT_VARIABLES.iter().map(|name| (*name, bundle.clone())));
        let rare = RARE_CLIENT_VARIABLES
            .iter()
            .filter(|name| existing(name).is_some());
        variables.extend(rare.map(|name| (*name, bundle.clone())));
    }
    if let Some(files) = files {
        variables.push(("PHP_INI_SCAN_DIR", php_folders(scanned, &files.php)));
        variables.push(("SYSTEM_WGETRC", files.wgetrc.display().to_string()));
        variables.push((
            "NODE_OPTIONS",
            node_options(existing("NODE_OPTIONS"), &files.node, command),
        ));
    }
    variables.push(("JAVA_TOOL_OPTIONS", appended(existing("JAVA_TOOL_OPTIONS"), java)));
    variables
}

impl<'l> NoProxy<'l> {
    /// `given`: on the command line.
    pub(in crate::cli) fn of(given: Option<&'l str>, listed: &'l [NoProxyHost]) -> Self {
        given.map_or(Self::Listed(listed), Self::Only)
    }
}

/// Returns the listed hosts and the proxy's own, then those of `existing` that are not among them. A loopback address
/// is left to the list: not everybody wants it past the proxy.
fn merged(listen: &str, listed: &[NoProxyHost], existing: Option<String>) -> String {
    let existing = existing.unwrap_or_default();
    let mut hosts: Vec<&str> = listed.iter().map(NoProxyHost::as_str).collect();
    let own = split(listen).0;
    let is_loopback = own.parse::<IpAddr>().is_ok_and(|own| own.is_loopback());
    if !is_loopback && !hosts.contains(&own) {
        hosts.push(own);
    }
    for host in entries_of(&existing) {
        if !hosts.contains(&host) {
            hosts.push(host);
        }
    }
    hosts.join(",")
}

/// Returns host and port, an IPv6 address without brackets.
fn split(listen: &str) -> (&str, &str) {
    let (host, port) = listen.rsplit_once(':').unwrap_or((listen, "80"));
    (host.trim_start_matches('[').trim_end_matches(']'), port)
}

/// Returns the folders of settings for PHP, ours last. An empty part stands for the folder that is built in, which
/// holds the extensions: curl is one of them. The variable without a value stands for no folder.
fn php_folders(existing: Option<String>, ours: &Path) -> String {
    let ours = ours.display().to_string();
    match existing {
        Some(existing) if existing.split(':').any(|folder| folder == ours) => existing,
        Some(existing) if existing.is_empty() => ours,
        existing => format!("{}:{ours}", existing.unwrap_or_default()),
    }
}

/// Returns the options for Node, with the module last and once. `command`: what is run, as far as that is known.
///
/// Under Node's permission model a file may not be read, and Node would not start. So it gets the module as a text, which every
/// Node takes that knows the option by its name of today. Those that do not have no use for the module.
fn node_options(existing: Option<String>, module: &Path, command: &str) -> String {
    let existing = existing.unwrap_or_default();
    let text = format!("--import {MODULE_TEXT}{}", BASE64.encode(AGENTS.as_bytes()));
    let mut kept: Vec<&str> = Vec::new();
    for option in node_words(&existing) {
        let is_file = option.trim_matches('"').ends_with(&format!("/{NODE_MODULE}"));
        let is_ours = is_file || text.ends_with(&format!(" {option}"));
        if is_ours
            && kept
                .last()
                .is_some_and(|last| matches!(*last, "--require" | "-r" | "--import"))
        {
            kept.pop();
        } else {
            kept.push(option);
        }
    }
    let asks = |option: &str| kept.contains(&option) || command.contains(option);
    let module = module.display().to_string();
    let ours = match (asks("--experimental-permission"), asks("--permission")) {
        (true, _) => None,
        (false, true) => Some(text),
        // Quotes are for those who need them: Node 10 does not know any.
        (false, false) if module.contains(' ') => Some(format!("--require \"{module}\"")),
        (false, false) => Some(format!("--require {module}")),
    };
    kept.extend(ours.as_deref());
    kept.join(" ")
}

/// Splits as Node does: at blanks, except within double quotes, in which a backslash escapes.
fn node_words(options: &str) -> Vec<&str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let words = options.split(move |c: char| {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
        c == ' ' && !is_quoted
    });
    words.filter(|word| !word.is_empty()).collect()
}

fn java_options(listen: &str, no_proxy: &str, truststore: Option<&Path>) -> String {
    // Java wants an IPv6 address without brackets here, and with them in the list of hosts.
    let (host, port) = split(listen);
    let mut options = vec![
        format!("-Dhttp.proxyHost={host}"),
        format!("-Dhttp.proxyPort={port}"),
        format!("-Dhttps.proxyHost={host}"),
        format!("-Dhttps.proxyPort={port}"),
        format!("-Dhttp.nonProxyHosts={}", java_hosts(no_proxy)),
    ];
    if let Some(truststore) = truststore {
        options.extend([
            format!("-Djavax.net.ssl.trustStore={}", truststore.display()),
            "-Djavax.net.ssl.trustStoreType=PKCS12".to_owned(),
            format!("-Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD}"),
        ]);
    }
    let options: Vec<_> = options.into_iter().map(java_quoted).collect();
    options.join(" ")
}

/// Writes NO_PROXY for Java: `|` between hosts, `*` as wildcard. CIDR and ports, which Java does not know, are
/// left out: that sends more through the proxy, never less.
fn java_hosts(no_proxy: &str) -> String {
    let mut hosts = Vec::new();
    for host in entries_of(no_proxy) {
        match host.strip_prefix("*.").or_else(|| host.strip_prefix('.')) {
            _ if host.contains('/') => {}
            Some(suffix) => hosts.push(format!("*.{suffix}")),
            None if host == "*" || host.parse::<std::net::Ipv4Addr>().is_ok() => hosts.push(host.to_owned()),
            None if host.parse::<std::net::Ipv6Addr>().is_ok() => hosts.push(format!("[{host}]")),
            None if host.contains(':') => {}
            None => hosts.extend([host.to_owned(), format!("*.{host}")]),
        }
    }
    let mut unique = Vec::with_capacity(hosts.len());
    for host in hosts {
        if !unique.contains(&host) {
            unique.push(host);
        }
    }
    unique.join("|")
}

/// The virtual machine splits the variable at white space, except within quotes of either kind, which it takes away
/// wherever they are. It does not start where one of them is not ended.
fn java_quoted(option: String) -> String {
    if !option.contains(|c: char| c.is_whitespace() || c == '\'' || c == '"') {
        return option;
    }
    let parts = option.split('"').map(|part| format!("\"{part}\""));
    parts.collect::<Vec<_>>().join("'\"'")
}

/// Once only, however often the variables are taken over.
fn appended(existing: Option<String>, options: String) -> String {
    match existing {
        Some(existing) if existing.contains(&options) => existing,
        Some(existing) => format!("{existing} {options}"),
        None => options,
    }
}

/// The app may run in another folder than we do.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::time::Duration;

    use super::*;
    use crate::config::Config;

    fn ca(folder: &str) -> Ca {
        Ca {
            bundle: Path::new(folder).join("ca-bundle.pem"),
            truststore: Path::new(folder).join("truststore.p12"),
            lifetime: Duration::from_secs(3600),
            constraints: Default::default(),
        }
    }

    fn files() -> ClientFiles {
        ClientFiles {
            node: Path::new("/tmp/my app/outrider-agents.cjs").to_owned(),
            php: Path::new("/tmp/o/php").to_owned(),
            wgetrc: Path::new("/tmp/o/wgetrc").to_owned(),
        }
    }

    fn with(no_proxy: Option<&str>, existing: &[(&str, &str)]) -> HashMap<&'static str, String> {
        let existing: HashMap<_, _> = existing.iter().copied().collect();
        let look_up = |name: &str| existing.get(name).map(|value| (*value).to_owned());
        let listed = Config::embedded().no_proxy;
        variables(
            "127.0.0.1:3128",
            None,
            Some(&ca("/tmp/outrider")),
            Some(&files()),
            NoProxy::of(no_proxy, &listed),
            "",
            look_up,
        )
        .into_iter()
        .collect()
    }

    #[test]
    fn every_client_is_told_of_the_proxy_and_the_bundle() {
        let variables = with(None, &[]);
        for name in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"] {
            assert_eq!(variables[name], "http://127.0.0.1:3128");
        }
        for name in CLIENT_VARIABLES.iter().chain(&["SSL_CERT_FILE"]) {
            assert_eq!(variables[name], "/tmp/outrider/ca-bundle.pem");
        }
        for name in ["NODE_USE_ENV_PROXY", "PERL_LWP_ENV_PROXY", "MOJO_PROXY"] {
            assert_eq!(variables[name], "1");
        }
        for name in ["YARN_HTTP_PROXY", "YARN_HTTPS_PROXY"] {
            assert_eq!(variables[name], "http://127.0.0.1:3128");
        }
        assert_eq!(
            variables["JAVA_TOOL_OPTIONS"],
            "-Dhttp.proxyHost=127.0.0.1 -Dhttp.proxyPort=3128 -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort=3128 \
             -Dhttp.nonProxyHosts=localhost|*.localhost|127.0.0.1|[::1]|apps.internal|*.apps.internal \
             -Djavax.net.ssl.trustStore=/tmp/outrider/truststore.p12 -Djavax.net.ssl.trustStoreType=PKCS12 \
             -Djavax.net.ssl.trustStorePassword=changeit"
        );
    }

    #[test]
    fn no_proxy_keeps_what_is_there_unless_the_caller_gives_one() {
        let default = "localhost,127.0.0.1,::1,apps.internal,.apps.internal";
        for (given, existing, expected) in [
            (None, vec![], default.to_owned()),
            (None, vec![("NO_PROXY", "")], default.to_owned()),
            (
                None,
                vec![("NO_PROXY", "db.internal")],
                format!("{default},db.internal"),
            ),
            (
                None,
                vec![("no_proxy", "a.test"), ("NO_PROXY", "b.test")],
                format!("{default},a.test"),
            ),
            (
                None,
                vec![("NO_PROXY", "localhost, x.test,")],
                format!("{default},x.test"),
            ),
            (
                None,
                vec![("NO_PROXY", "x.test\ny.test\t z.test\n")],
                format!("{default},x.test,y.test,z.test"),
            ),
            (None, vec![("NO_PROXY", default)], default.to_owned()),
            (Some(""), vec![("NO_PROXY", "db.internal")], String::new()),
            (
                Some("only.test"),
                vec![("no_proxy", "a.test")],
                "only.test".to_owned(),
            ),
        ] {
            let variables = with(given, &existing);
            assert_eq!(variables["no_proxy"], expected, "{given:?} over {existing:?}");
            assert_eq!(variables["NO_PROXY"], expected);
        }
    }

    #[test]
    fn hosts_are_written_as_java_reads_them() {
        for (no_proxy, expected) in [
            ("", ""),
            ("*", "*"),
            ("example.com", "example.com|*.example.com"),
            (".example.com,*.example.com", "*.example.com"),
            ("10.0.0.0/8,host:8080,10.0.0.1", "10.0.0.1"),
            ("::1", "[::1]"),
            ("10.0.0.1\n10.0.0.2", "10.0.0.1|10.0.0.2"),
        ] {
            assert_eq!(java_hosts(no_proxy), expected, "{no_proxy}");
        }
    }

    #[test]
    fn java_options_are_appended_and_only_once() {
        let first = with(None, &[("JAVA_TOOL_OPTIONS", "-Xmx64m")])["JAVA_TOOL_OPTIONS"].clone();
        assert!(first.starts_with("-Xmx64m -Dhttp.proxyHost="), "{first}");
        let again = with(None, &[("JAVA_TOOL_OPTIONS", &first)])["JAVA_TOOL_OPTIONS"].clone();
        assert_eq!(first, again);
    }

    #[test]
    fn a_path_with_spaces_stays_one_option() {
        let variables = variables(
            "[::1]:3128",
            None,
            Some(&ca("/tmp/my app's")),
            None,
            NoProxy::Only(""),
            "",
            |_| None,
        );
        let java = &variables.last().unwrap().1;
        assert!(
            java.contains("\"-Djavax.net.ssl.trustStore=/tmp/my app's/truststore.p12\""),
            "{java}"
        );
        assert!(java.contains("-Dhttps.proxyHost=::1 "), "{java}");
    }

    #[test]
    fn quotes_of_both_kinds_stay_in_an_option_of_java() {
        for (option, expected) in [
            ("-Da=b", "-Da=b"),
            ("-Da=b c", "\"-Da=b c\""),
            ("-Da=it's", "\"-Da=it's\""),
            ("-Da=\"b", "\"-Da=\"'\"'\"b\""),
        ] {
            assert_eq!(java_quoted(option.to_owned()), expected);
        }
    }

    #[test]
    fn without_a_bundle_no_trust_variable_is_set() {
        let variables: HashMap<_, _> =
            variables("127.0.0.1:1", None, None, None, NoProxy::Only(""), "", |_| None)
                .into_iter()
                .collect();
        assert_eq!(variables["https_proxy"], "http://127.0.0.1:1");
        assert!(CLIENT_VARIABLES.iter().all(|name| !variables.contains_key(name)));
        assert!(!variables["JAVA_TOOL_OPTIONS"].contains("trustStore"));
    }

    #[test]
    fn a_relative_bundle_is_given_by_its_full_path() {
        let variables: HashMap<_, _> = variables(
            "127.0.0.1:1",
            None,
            Some(&ca("made")),
            None,
            NoProxy::Only(""),
            "",
            |_| None,
        )
        .into_iter()
        .collect();
        assert!(Path::new(&variables["SSL_CERT_FILE"]).is_absolute());
    }

    #[test]
    fn the_host_of_the_proxy_is_not_asked_through_it() {
        for (listen, expected) in [
            ("10.1.2.3:3128", "10.1.2.3"),
            ("[fd00::5]:3128", "fd00::5"),
            ("127.0.0.1:1", ""),
        ] {
            let variables = variables(listen, None, None, None, NoProxy::Listed(&[]), "", |_| None);
            let list = variables.iter().find(|(name, _)| *name == "no_proxy").unwrap();
            assert_eq!(list.1, expected, "{listen}");
        }
    }

    #[test]
    fn clients_that_read_files_get_ours_beside_their_own() {
        for (existing, expected) in [
            (None, ":/tmp/o/php"),
            (Some(""), "/tmp/o/php"),
            (Some("/home/a/php.d"), "/home/a/php.d:/tmp/o/php"),
            (Some(":/home/a/php.d"), ":/home/a/php.d:/tmp/o/php"),
            (Some(":/tmp/o/php"), ":/tmp/o/php"),
        ] {
            let existing = existing.map(|existing| ("PHP_INI_SCAN_DIR", existing));
            let variables = with(None, existing.as_slice());
            assert_eq!(variables["PHP_INI_SCAN_DIR"], expected, "{existing:?}");
            assert_eq!(variables["SYSTEM_WGETRC"], "/tmp/o/wgetrc");
        }
        let ours = "--require \"/tmp/my app/outrider-agents.cjs\"";
        for (existing, expected) in [
            ("", ours.to_owned()),
            (
                "--max-old-space-size=64",
                format!("--max-old-space-size=64 {ours}"),
            ),
            (ours, ours.to_owned()),
            (
                "--experimental-permission",
                "--experimental-permission".to_owned(),
            ),
            (
                "--require /tmp/outrider-x/ca-bundle.pem.d/outrider-agents.cjs --title \"a  \\\" b\"",
                format!("--title \"a  \\\" b\" {ours}"),
            ),
            (
                "--require /app/other.cjs",
                format!("--require /app/other.cjs {ours}"),
            ),
        ] {
            let variables = with(None, &[("NODE_OPTIONS", existing)]);
            assert_eq!(variables["NODE_OPTIONS"], expected, "{existing}");
        }
    }

    /// Node would not start: it may not read the file.
    #[test]
    fn under_the_permission_model_node_gets_the_module_as_a_text() {
        let module = Path::new("/tmp/o/outrider-agents.cjs");
        let text = node_options(None, module, "node --permission app.js");
        assert!(
            text.starts_with("--import data:text/javascript;base64,"),
            "{text}"
        );
        assert!(!text.contains(' ') || text.matches(' ').count() == 1, "{text}");
        for (existing, command, expected) in [
            ("", "sh -c node --permission app.js", text.clone()),
            ("--permission", "", format!("--permission {text}")),
            (&*text, "node --permission app.js", text.clone()),
            (&*text, "node app.js", format!("--require {}", module.display())),
            (
                "--require /tmp/x/outrider-agents.cjs",
                "node --permission app.js",
                text.clone(),
            ),
            (
                "--title=a",
                "node --experimental-permission app.js",
                "--title=a".to_owned(),
            ),
            (
                "--require /tmp/x/outrider-agents.cjs",
                "node --experimental-permission app.js",
                String::new(),
            ),
        ] {
            let options = node_options(Some(existing.to_owned()), module, command);
            assert_eq!(options, expected, "{existing} {command}");
        }
    }

    #[test]
    fn what_a_rare_client_trusts_is_replaced_only_where_it_is_named() {
        assert!(!with(None, &[]).contains_key("CARGO_HTTP_CAINFO"));
        let variables = with(None, &[("CARGO_HTTP_CAINFO", "/corp.pem")]);
        assert_eq!(variables["CARGO_HTTP_CAINFO"], "/tmp/outrider/ca-bundle.pem");
    }
}
