//! Which clients may use the listener.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use data_encoding::BASE64;
use http::header::{HeaderMap, PROXY_AUTHORIZATION};
use zeroize::Zeroizing;

use super::Error;

/// The clients that the listener serves: all, or those that send a user name and a password.
#[derive(Clone, Default)]
pub(crate) struct Clients {
    /// User name and password, encoded as for `Basic` (RFC 7617).
    basic: Option<Zeroizing<String>>,
}

impl Clients {
    pub(crate) fn basic(user: &str, password: &str) -> Self {
        let shown = Zeroizing::new(format!("{user}:{password}"));
        Self {
            basic: Some(Zeroizing::new(BASE64.encode(shown.as_bytes()))),
        }
    }

    /// Refuses a request without the right password.
    pub(super) fn check(&self, fields: &HeaderMap) -> Result<(), Error> {
        let Some(basic) = &self.basic else { return Ok(()) };
        let mut shown = fields.get_all(PROXY_AUTHORIZATION).iter();
        let (Some(shown), None) = (shown.next(), shown.next()) else {
            return Err(Error::Unauthenticated);
        };
        let shown = shown.as_bytes();
        let Some((scheme, rest)) = shown.split_at_checked(b"Basic ".len()) else {
            return Err(Error::Unauthenticated);
        };
        // In constant time, so that the time does not reveal how much of a guess is right.
        let is_right = verify_slices_are_equal(rest.trim_ascii(), basic.as_bytes()).is_ok();
        if scheme.eq_ignore_ascii_case(b"Basic ") && is_right {
            Ok(())
        } else {
            Err(Error::Unauthenticated)
        }
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.basic.is_some() {
            "Clients(basic)"
        } else {
            "Clients(all)"
        })
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn only_the_right_password_opens() {
        let clients = Clients::basic("outrider", "sesame");
        for (shown, is_right) in [
            (&["Basic b3V0cmlkZXI6c2VzYW1l"][..], true),
            (&["basic  b3V0cmlkZXI6c2VzYW1l "], true),
            (&[], false),
            (&[""], false),
            (&["Basic"], false),
            (&["Basic "], false),
            (&["Basic b3V0cmlkZXI6c2VzYW1"], false),
            (&["Basic b3V0cmlkZXI6c2VzYW1lMg=="], false),
            (&["Basic B3V0cmlkZXI6c2VzYW1l"], false),
            (&["Bearer b3V0cmlkZXI6c2VzYW1l"], false),
            (&["b3V0cmlkZXI6c2VzYW1l"], false),
            (
                &["Basic b3V0cmlkZXI6c2VzYW1l", "Basic b3V0cmlkZXI6c2VzYW1l"],
                false,
            ),
        ] {
            let mut fields = HeaderMap::new();
            for value in shown {
                fields.append(PROXY_AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(clients.check(&fields).is_ok(), is_right, "{shown:?}");
            assert!(Clients::default().check(&fields).is_ok());
        }
        assert_eq!(format!("{clients:?}"), "Clients(basic)");
    }
}
