//! Variables of the app that some client heeds before ours, so that its requests go elsewhere or trust something else.
//!
//! They are the user's, so they stay; each is told with the clients that it concerns. Values are not shown: the URL of
//! a proxy may hold a password.

/// What the value of a variable has to be like, to go before ours.
#[derive(Clone, Copy)]
enum Value {
    Any,
    /// Names a proxy or trust by an option of Java.
    JavaOption,
    /// Turns the check of certificates, or the proxy, off.
    Off,
}

/// Each variable, and who heeds it. By the source or documentation of these clients.
const VARIABLES: &[(&str, Value, &str)] = &[
    (
        "ALL_PROXY",
        Value::Any,
        "Chromium, and clients that cannot use its kind of proxy fail",
    ),
    (
        "all_proxy",
        Value::Any,
        "Chromium, and clients that cannot use its kind of proxy fail",
    ),
    ("CARGO_HTTP_PROXY", Value::Any, "cargo"),
    (
        "CGI_HTTP_PROXY",
        Value::Any,
        "Composer, Perl and Ruby where they run as CGI",
    ),
    ("GLOBAL_AGENT_HTTP_PROXY", Value::Any, "Node with global-agent"),
    ("GLOBAL_AGENT_HTTPS_PROXY", Value::Any, "Node with global-agent"),
    ("grpc_proxy", Value::Any, "gRPC"),
    ("HEX_HTTP_PROXY", Value::Any, "Hex"),
    ("HEX_HTTPS_PROXY", Value::Any, "Hex"),
    ("JDK_JAVA_OPTIONS", Value::JavaOption, "Java, from version 9 on"),
    ("_JAVA_OPTIONS", Value::JavaOption, "Java"),
    ("MAVEN_OPTS", Value::JavaOption, "Maven"),
    ("no_grpc_proxy", Value::Any, "gRPC, instead of no_proxy"),
    (
        "NODE_TLS_REJECT_UNAUTHORIZED",
        Value::Off,
        "Node, which checks no certificate",
    ),
    ("npm_config_http_proxy", Value::Any, "npm, axios"),
    ("npm_config_https_proxy", Value::Any, "npm, axios"),
    ("npm_config_no_proxy", Value::Any, "axios, instead of no_proxy"),
    ("npm_config_noproxy", Value::Any, "npm, instead of no_proxy"),
    ("npm_config_proxy", Value::Any, "npm, axios"),
    ("PIP_PROXY", Value::Any, "pip"),
    (
        "REQUEST_METHOD",
        Value::Any,
        "Go, Python and Ruby, which take themselves for CGI and ignore HTTP_PROXY",
    ),
    ("SOCKS_PROXY", Value::Any, "clients that prefer SOCKS"),
    ("socks_proxy", Value::Any, "clients that prefer SOCKS"),
    ("SOCKS_SERVER", Value::Any, "Chromium"),
    ("ws_proxy", Value::Any, "WebSocket clients"),
    ("wss_proxy", Value::Any, "WebSocket clients"),
];

/// Options by which Java is told of a proxy or of trust.
const JAVA_OPTIONS: &[&str] = &[
    "-Dhttp.nonProxyHosts=",
    "-Dhttp.proxyHost=",
    "-Dhttps.proxyHost=",
    "-Djavax.net.ssl.trustStore=",
    "-DsocksProxyHost=",
];

/// What follows our own truststore.
const OURS: &str = "-Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit";

/// Returns a line for each variable that goes before one of `ours`.
pub(super) fn overruling(
    ours: &[(&'static str, String)],
    existing: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let own = |name: &str| ours.iter().find(|(own, _)| *own == name).map(|(_, value)| value);
    let proxy = own("http_proxy");
    let mut lines = Vec::new();
    for (name, wanted, clients) in VARIABLES {
        let Some(value) = existing(name).filter(|value| !value.is_empty()) else {
            continue;
        };
        let goes_before = match wanted {
            Value::Any => Some(&value) != proxy,
            Value::JavaOption => JAVA_OPTIONS.iter().any(|option| value.contains(option)),
            Value::Off => value == "0",
        };
        if goes_before {
            lines.push(format!(
                "{name} is set and goes before these variables ({clients}); unset it where the proxy is meant"
            ));
        }
    }
    if own("no_proxy").is_some_and(|list| list.split(',').any(|host| host.trim() == "*")) {
        lines.push("NO_PROXY holds `*`: most clients will call past the proxy; take it out".to_owned());
    }
    let java = existing("JAVA_TOOL_OPTIONS").unwrap_or_default();
    // A store of another outrider, around this one, holds what ours does.
    let is_foreign = java.contains("-Djavax.net.ssl.trustStore=") && !java.contains(OURS);
    if is_foreign && own("SSL_CERT_FILE").is_some() {
        lines.push(
            "JAVA_TOOL_OPTIONS names a truststore, which ours replaces: what it holds more than the system's roots \
             is not trusted; export it as PEM and let SSL_CERT_FILE or NODE_EXTRA_CA_CERTS name that for outrider"
                .to_owned(),
        );
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(existing: &[(&str, &str)], no_proxy: &str) -> String {
        let look_up = |name: &str| {
            let found = existing.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let ours = [
            ("http_proxy", "http://127.0.0.1:3128".to_owned()),
            ("no_proxy", no_proxy.to_owned()),
            ("SSL_CERT_FILE", "/b.pem".to_owned()),
        ];
        overruling(&ours, look_up).join("\n")
    }

    #[test]
    fn what_goes_before_ours_is_named_without_its_value() {
        assert_eq!(told(&[], "localhost"), "");
        for (name, value) in [
            ("grpc_proxy", "http://user:hunter2@corp:1"),
            ("ALL_PROXY", "socks5://user:hunter2@corp:1"),
            ("npm_config_https_proxy", "http://user:hunter2@corp:1"),
            ("_JAVA_OPTIONS", "-Xmx1g -Dhttps.proxyHost=hunter2"),
            ("NODE_TLS_REJECT_UNAUTHORIZED", "0"),
        ] {
            let told = told(&[(name, value)], "localhost");
            assert!(told.starts_with(name), "{told}");
            assert_eq!(told.lines().count(), 1, "{told}");
            assert!(!told.contains("hunter2"), "{told}");
        }
        for (name, value) in [
            ("grpc_proxy", ""),
            ("grpc_proxy", "http://127.0.0.1:3128"),
            ("_JAVA_OPTIONS", "-Xmx1g"),
            ("NODE_TLS_REJECT_UNAUTHORIZED", "1"),
            (
                "JAVA_TOOL_OPTIONS",
                "-Djavax.net.ssl.trustStore=/x.p12 -Djavax.net.ssl.trustStoreType=PKCS12 -Djavax.net.ssl.trustStorePassword=changeit",
            ),
        ] {
            assert_eq!(told(&[(name, value)], "localhost"), "", "{name}");
        }
        assert!(told(&[], "localhost,*").contains("past the proxy"));
        let java = told(
            &[("JAVA_TOOL_OPTIONS", "-Djavax.net.ssl.trustStore=/corp.jks")],
            "",
        );
        assert!(java.contains("export it as PEM"), "{java}");
    }
}
