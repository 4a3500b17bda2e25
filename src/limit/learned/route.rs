//! Which requests an upstream may count together, by the kind of method and the path.
//!
//! Paths are compared by segments. A segment that looks like an identifier (it begins with a digit or contains
//! two) matches any other identifier: `/items/1` and `/items/2` are one route, `/v1/items` and `/v2/items` are
//! two.

use std::hash::BuildHasher;

use http::Method;

const MOST_PREFIXES: usize = 4;

/// A request as an upstream sees it that counts each route apart. Where all routes count together, every request
/// gets the default value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::limit) struct RoutePattern {
    is_safe: bool,
    /// How many of `prefixes` are used.
    depth: u8,
    /// The hashes of the first segment, the first two, and so on.
    prefixes: [u32; MOST_PREFIXES],
    /// The hash of the whole path.
    whole: u32,
}

/// The routes that a limit counts: one route, or all below a common prefix.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// The route on which the limit was first seen.
    home: RoutePattern,
    /// How many segments all of its paths have in common; `None` for a single path.
    shared: Option<u8>,
    /// It counts reading and writing methods alike.
    any_method: bool,
}

impl RoutePattern {
    /// `path` is without the query.
    pub(in crate::limit) fn of(method: &Method, path: &str) -> Self {
        let state = foldhash::fast::FixedState::default();
        let mut route = Self {
            is_safe: method.is_safe(),
            ..Self::default()
        };
        for segment in segments(path) {
            let segment = if is_identifier(segment) { "*" } else { segment };
            route.whole = state.hash_one((route.whole, segment)) as u32;
            if let Some(prefix) = route.prefixes.get_mut(usize::from(route.depth)) {
                *prefix = route.whole;
                route.depth += 1;
            }
        }
        route
    }

    /// Returns a number that differs from that of other routes.
    pub(super) fn key(&self) -> u64 {
        u64::from(self.whole) << 1 | u64::from(self.is_safe)
    }

    /// Returns how many segments both begin with.
    fn shared(&self, other: &Self) -> u8 {
        let same = self.prefixes.iter().zip(&other.prefixes);
        let same = same
            .take(self.depth.min(other.depth).into())
            .take_while(|(one, two)| one == two);
        same.count() as u8
    }
}

impl Scope {
    pub(super) fn only(home: RoutePattern) -> Self {
        Self {
            home,
            shared: None,
            any_method: false,
        }
    }

    pub(super) fn covers(&self, route: &RoutePattern) -> bool {
        let is_kind = self.any_method || self.home.is_safe == route.is_safe;
        is_kind
            && match self.shared {
                None => self.home.whole == route.whole,
                Some(shared) => self.home.shared(route) >= shared,
            }
    }

    /// Returns how many segments a path must have in common with it. More segments mean a narrower scope.
    pub(super) fn depth(&self) -> u8 {
        self.shared.unwrap_or(u8::MAX)
    }

    /// Widens the scope to a second route that the limit counts.
    pub(super) fn widen(&mut self, route: &RoutePattern) {
        self.any_method |= self.home.is_safe != route.is_safe;
        if self.home.whole != route.whole {
            let shared = self.home.shared(route);
            self.shared = Some(self.shared.map_or(shared, |old| old.min(shared)));
        }
    }

    /// Widens the scope by all that `other` covers.
    pub(super) fn join(&mut self, other: &Self) {
        self.widen(&other.home);
        self.any_method |= other.any_method;
        if let (Some(own), Some(other)) = (&mut self.shared, other.shared) {
            *own = other.min(*own);
        }
    }

    /// Describes the scope for people: `requests that only read to /search`. `path` is the one that the limit was
    /// learned on.
    pub(super) fn words(&self, path: &str) -> String {
        if self.home == RoutePattern::default() {
            return "all requests".to_owned();
        }
        let methods = match (self.any_method, self.home.is_safe) {
            (true, _) => "all requests",
            (false, true) => "requests that only read",
            (false, false) => "requests that write",
        };
        let most = self.shared.map_or(usize::MAX, usize::from);
        let mut place = String::new();
        for segment in segments(path).take(most) {
            place.push('/');
            place.push_str(if is_identifier(segment) { "*" } else { segment });
        }
        match (self.shared, place.is_empty()) {
            (Some(_), true) => methods.to_owned(),
            (Some(_), false) => format!("{methods} below {place}"),
            (None, true) => format!("{methods} to /"),
            (None, false) => format!("{methods} to {place}"),
        }
    }
}

fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|segment| !segment.is_empty())
}

fn is_identifier(segment: &str) -> bool {
    let digits = segment.bytes().filter(u8::is_ascii_digit).take(2).count();
    digits == 2 || segment.as_bytes().first().is_some_and(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> RoutePattern {
        RoutePattern::of(&Method::GET, path)
    }

    #[test]
    fn identifiers_do_not_make_a_route() {
        for (one, two, same) in [
            ("/items/1", "/items/2", true),
            ("/items/1/", "/items/2", true),
            ("/points/39,-97", "/points/40,-90", true),
            (
                "/u/6f1c2a0e-1111-4a6b-9c1d-0242ac120002",
                "/u/0b1c2a0e-2222-4a6b-9c1d-0242ac120003",
                true,
            ),
            ("/v1/items", "/v2/items", false),
            ("/search", "/items", false),
            ("/items", "/items/1", false),
            ("/a/b/c/d/e/f", "/a/b/c/d/e/g", false),
        ] {
            assert_eq!(get(one).key() == get(two).key(), same, "{one} {two}");
        }
        assert_ne!(
            get("/items").key(),
            RoutePattern::of(&Method::POST, "/items").key()
        );
        assert_eq!(
            get("/items").key(),
            RoutePattern::of(&Method::HEAD, "/items").key()
        );
    }

    #[test]
    fn a_scope_grows_to_what_its_routes_share() {
        let mut scope = Scope::only(get("/api/v1/search"));
        assert!(scope.covers(&get("/api/v1/search")));
        assert!(!scope.covers(&get("/api/v1/items")));
        assert_eq!(
            scope.words("/api/v1/search"),
            "requests that only read to /api/v1/search"
        );
        scope.widen(&get("/api/v1/items/7"));
        assert!(scope.covers(&get("/api/v1/users")));
        assert!(!scope.covers(&get("/api/v2/users")) && !scope.covers(&get("/api")));
        assert!(!scope.covers(&RoutePattern::of(&Method::POST, "/api/v1/users")));
        assert_eq!(
            scope.words("/api/v1/search"),
            "requests that only read below /api/v1"
        );
        scope.widen(&RoutePattern::of(&Method::POST, "/login"));
        assert!(scope.covers(&get("/anything")) && scope.covers(&get("/")));
        assert_eq!(scope.words("/api/v1/search"), "all requests");
    }
}
