//! Which methods a rule covers, and which spellings servers agree on.

use http::Method;

/// Whether a rule about `own` covers `asked`: HEAD is GET without the body (RFC 9110 section 9.3.2).
pub(crate) fn covers(own: &Method, asked: &Method) -> bool {
    own == asked || (*own == Method::GET && *asked == Method::HEAD)
}

/// Whether a method is registered with IANA. Some servers take others, `get` among them, for one of these.
pub(crate) fn is_registered(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::DELETE
            | Method::PATCH
            | Method::OPTIONS
    ) || REGISTERED.contains(&method.as_str())
}

/// Whether a query names another method than the request has, as some frameworks take it.
pub(crate) fn is_overridden(query: &str) -> bool {
    query.split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or(pair);
        // Most are shorter or longer than `_method` can be written.
        name.len() >= 7 && {
            let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
            let name = name.split('\0').next().unwrap_or_default();
            let name = name.trim_matches(|c: char| c == '+' || c.is_whitespace());
            // PHP turns the others into `_`, because its names cannot contain them.
            name.strip_prefix(['_', '.', '['])
                .is_some_and(|name| name.eq_ignore_ascii_case("method"))
        }
    })
}

/// Besides the common ones.
const REGISTERED: [&str; 33] = [
    "ACL",
    "BASELINE-CONTROL",
    "BIND",
    "CHECKIN",
    "CHECKOUT",
    "COPY",
    "LABEL",
    "LINK",
    "LOCK",
    "MERGE",
    "MKACTIVITY",
    "MKCALENDAR",
    "MKCOL",
    "MKREDIRECTREF",
    "MKWORKSPACE",
    "MOVE",
    "ORDERPATCH",
    "PRI",
    "PROPFIND",
    "PROPPATCH",
    "QUERY",
    "REBIND",
    "REPORT",
    "SEARCH",
    "TRACE",
    "UNBIND",
    "UNCHECKOUT",
    "UNLINK",
    "UNLOCK",
    "UPDATE",
    "UPDATEREDIRECTREF",
    "VERSION-CONTROL",
    "CONNECT",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_get_holds_for_head() {
        assert!(covers(&Method::GET, &Method::HEAD) && covers(&Method::POST, &Method::POST));
        assert!(!covers(&Method::HEAD, &Method::GET) && !covers(&Method::POST, &Method::HEAD));
    }

    #[test]
    fn methods_are_known_in_their_one_spelling() {
        for (name, is_known) in [
            ("GET", true),
            ("PROPFIND", true),
            ("get", false),
            ("Post", false),
            ("FOO", false),
        ] {
            assert_eq!(is_registered(&name.parse().unwrap()), is_known, "{name}");
        }
    }

    #[test]
    fn a_query_that_names_a_method_is_known() {
        for query in [
            "_method=DELETE",
            "a=b&_METHOD=put",
            "%5fmethod=x",
            "_%6Dethod",
            "a;_method=x",
            "+_method=x",
            "%20_method=x",
            ".method=x",
            "%2emethod=x",
            "[method=x",
            "%5Bmethod=x",
            "_method%00a=x",
        ] {
            assert!(is_overridden(query), "{query}");
        }
        for query in [
            "",
            "method=x",
            "a=_method",
            "x_method=1",
            "_methods=1",
            "[method]=1",
            "-method=1",
        ] {
            assert!(!is_overridden(query), "{query}");
        }
    }
}
