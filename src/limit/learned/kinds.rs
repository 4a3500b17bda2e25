//! Which requests the upstream counts under which name.
//!
//! An upstream may have several quotas, each for some of its resources, and says with each answer which one the request
//! was counted under. What the next request will be counted under is guessed from those like it: by whether its method
//! is safe and by the first segment of its path, or by the first two where the first alone has been seen under several
//! names. Of a request unlike any before nothing is guessed.

use std::collections::HashMap;
use std::hash::BuildHasher;

use http::Method;

/// What a request is like: two hashes, the second of the longer part of its path. Zero: nobody looked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::limit) struct Kind {
    first: u32,
    both: u32,
}

/// A set of quotas: bit i is the quota at place i.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::limit) struct Names(pub(super) u16);

#[derive(Debug, Default)]
pub(super) struct Kinds {
    /// `None`: seen under several.
    names: HashMap<u32, Option<Names>>,
}

impl Kind {
    pub(in crate::limit) fn of(method: &Method, path: &str) -> Self {
        let state = foldhash::fast::FixedState::default();
        let mut segments = path.split('/').filter(|segment| !segment.is_empty());
        let (one, two) = (segments.next(), segments.next());
        // Never zero; that two kinds share a hash does little harm.
        let hash = |parts| state.hash_one((method.is_safe(), parts)) as u32 | 1;
        Self {
            first: hash((one, None)),
            both: hash((one, two)),
        }
    }
}

impl Names {
    pub(super) fn one(place: usize) -> Self {
        Self(1 << place)
    }

    pub(super) fn has(self, place: usize) -> bool {
        self.0 & (1 << place) != 0
    }

    pub(in crate::limit) fn shares(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(in crate::limit) fn join(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Kinds {
    pub(super) fn names(&self, kind: Kind) -> Option<Names> {
        match self.names.get(&kind.first)? {
            Some(names) => Some(*names),
            None => self.names.get(&kind.both).copied().flatten(),
        }
    }

    /// An answer to a request of this kind named these.
    pub(super) fn learn(&mut self, kind: Kind, names: Names) {
        if kind == Kind::default() {
            return;
        }
        match self.names.get(&kind.first).copied() {
            Some(Some(known)) if known == names => {}
            None => self.insert(kind.first, Some(names)),
            Some(_) => {
                self.insert(kind.first, None);
                self.insert(kind.both, Some(names));
            }
        }
    }

    /// The quota at this place is another one from now on.
    pub(super) fn forget(&mut self, place: usize) {
        let gone = Names::one(place);
        self.names
            .retain(|_, names| !names.is_some_and(|names| names.shares(gone)));
    }

    /// What an app asks for may have no end.
    fn insert(&mut self, key: u32, names: Option<Names>) {
        if self.names.len() < MOST_KINDS || self.names.contains_key(&key) {
            self.names.insert(key, names);
        }
    }
}

const MOST_KINDS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str) -> Kind {
        Kind::of(&Method::GET, path)
    }

    #[test]
    fn the_first_segment_tells_until_it_is_seen_under_two_names() {
        let (core, search, code) = (Names::one(0), Names::one(1), Names::one(2));
        let mut kinds = Kinds::default();
        kinds.learn(get("/repos/a/b"), core);
        kinds.learn(get("/search/issues"), search);
        assert_eq!(kinds.names(get("/repos/other")), Some(core));
        assert_eq!(kinds.names(get("/search/code")), Some(search));
        assert_eq!(kinds.names(get("/users/a")), None);
        assert_eq!(kinds.names(Kind::of(&Method::POST, "/repos/a/b")), None);
        kinds.learn(get("/search/code?q=1"), search);
        kinds.learn(get("/search/code"), code);
        assert_eq!(kinds.names(get("/search/code")), Some(code));
        assert_eq!(kinds.names(get("/search/issues")), None);
        kinds.learn(get("/search/issues"), search);
        assert_eq!(kinds.names(get("/search/issues")), Some(search));
        kinds.forget(1);
        assert_eq!(kinds.names(get("/search/issues")), None);
        assert_eq!(kinds.names(get("/repos/x")), Some(core));
    }

    #[test]
    fn an_app_that_asks_for_everything_does_not_fill_the_memory() {
        let mut kinds = Kinds::default();
        for n in 0..10_000 {
            kinds.learn(get(&format!("/{n}/x")), Names::one(n % 3));
        }
        assert_eq!(kinds.names.len(), MOST_KINDS);
    }
}
