//! Which requests a rule is about: a method and a path.

use http::Method;

use super::declare::{Syntax, ValueKind};
use super::node::shown;
use super::reader::Located;
use crate::method;
use crate::path::PathGlob;

section! {
    /// Which requests a limit, a priority or a credential is about.
    #[derive(Default, Hash)]
    pub(crate) struct Matcher {
        /// As in POST; default: any.
        method: Option<Method>;
        /// As in /api/**; default: any.
        path: Option<PathGlob>;
    }
}

impl Matcher {
    /// Whether every request matches.
    pub(crate) fn is_any(&self) -> bool {
        self.method.is_none() && self.path.is_none()
    }

    /// Whether the rule is about requests with this method.
    pub(crate) fn covers(&self, method: &Method) -> bool {
        self.method.as_ref().is_none_or(|own| method::covers(own, method))
    }

    /// Whether the rule is about this request, however a server may read its `path` (no query).
    pub(crate) fn reaches(&self, method: &Method, path: &str) -> bool {
        self.covers(method) && self.path.as_ref().is_none_or(|own| own.reaches(path))
    }

    /// Returns the method and the path as they are written, those that are.
    pub(crate) fn parts(&self) -> impl Iterator<Item = &str> {
        let method = self.method.as_ref().map(Method::as_str);
        method.into_iter().chain(self.path.as_ref().map(PathGlob::as_str))
    }
}

impl Syntax for Method {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    const IF_EMPTY: &'static str = "remove the key to allow every method";

    fn read(written: Located<'_>) -> Option<Self> {
        let text = written.text("write a method, as in GET")?;
        let upper = text.to_ascii_uppercase();
        match Self::from_bytes(text.as_bytes()) {
            Ok(Self::CONNECT) => {
                written.problem(
                    "`CONNECT` is how a tunnel is asked for, not a request to a destination",
                    "remove it",
                );
                None
            }
            Ok(_) if text != upper => {
                written.problem(
                    format_args!("`{}`: methods are case-sensitive", shown(text)),
                    format_args!("write {upper}"),
                );
                None
            }
            Ok(method) => Some(method),
            Err(_) => {
                written.problem(
                    format_args!("`{}` is not a method", shown(text)),
                    "write a method, as in GET",
                );
                None
            }
        }
    }
}

impl Syntax for PathGlob {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    const IF_EMPTY: &'static str = "remove the key to allow every path";

    fn read(written: Located<'_>) -> Option<Self> {
        let right = "write /api, /api/* (one segment) or /api/** (everything below)";
        let text = written.text(right)?;
        let what = if !text.starts_with('/') {
            "does not begin with /"
        } else if text.contains(['?', '#']) {
            "is more than a path: a query or fragment is not looked at"
        } else if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            "contains a blank or control character"
        } else if (text.split('/')).any(|segment| segment.contains("**") && segment != "**") {
            "has ** beside other characters; it stands for whole segments"
        } else {
            let glob = Self::parse(text).map_err(|error| written.problem(error, ""));
            return glob.ok();
        };
        written.problem(format_args!("`{}` {what}", shown(text)), right);
        None
    }
}
