//! Finds attached secrets in a text that the upstream sends back.
//!
//! An upstream that echoes a request (a debug endpoint, an error page, a redirect) may encode a secret differently:
//! with percent-encoding, with escapes of JSON or HTML, or with several of these, one inside the other. Encoders
//! disagree about which characters need an escape. So the text is not compared with a list of encodings. It is
//! decoded until nothing changes, and each [layer](layers) is searched.
//!
//! `proxy::scrub` redacts what is found.

use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use memchr::{memchr_iter, memmem};
use zeroize::Zeroizing;

use self::layers::DecodedLayer;
use crate::secret::Secret;

mod layers;

/// How many encodings, one inside the other, are decoded: a URL in JSON in JSON in a query, and some more.
pub(super) const MOST_LAYERS: usize = 8;

/// The shortest secret that is searched. Most words of a language are shorter, and good secrets are longer.
const SHORTEST: usize = 8;

/// The most places at which [`SecretPattern::cannot_be_in`] looks.
const MOST_LOOKS: usize = 16;

/// How many bytes are held back at most, unless a secret is as long. A server may write escapes without end.
const MOST_HELD: usize = 4096;

/// Finds the secrets of one credential. A clone shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct SecretMatcher {
    all: Vec<Arc<SearchedSecret>>,
}

/// The matcher for a secret that changes from time to time. Built once for each value, not for each request.
#[derive(Debug, Default)]
pub(super) struct MatcherCache(ArcSwapOption<(HeaderValue, Arc<SecretMatcher>)>);

/// One secret to find.
#[derive(Debug)]
struct SearchedSecret {
    secret: Secret,
    patterns: Vec<SecretPattern>,
    /// The length of the shortest pattern, in bytes.
    shortest: usize,
}

/// A form in which a secret may occur in a decoded text.
#[derive(Debug)]
struct SecretPattern {
    text: Secret,
    /// The place of the byte in it that the fewest fields have: a text without that byte needs no search.
    rare: usize,
    /// The failure function of Knuth, Morris and Pratt: how many bytes still match after a mismatch.
    failure: Box<[usize]>,
}

impl SecretMatcher {
    /// Adds a secret. Returns false, and does not add it, if it is so short that ordinary words would match.
    pub(crate) fn add(&mut self, secret: &[u8]) -> bool {
        if !Self::finds(secret) {
            return false;
        }
        if !self.has(secret) {
            self.all.push(Arc::new(SearchedSecret::new(secret)));
        }
        true
    }

    /// Returns a matcher for the secrets of both.
    pub(crate) fn joined_with(self: Arc<Self>, earlier: &Self) -> Arc<Self> {
        let is_missing = |searched: &&Arc<SearchedSecret>| !self.has(searched.secret.expose());
        let missing: Vec<_> = earlier.all.iter().filter(is_missing).cloned().collect();
        if missing.is_empty() {
            return self;
        }
        let all = self.all.iter().cloned().chain(missing).collect();
        Arc::new(Self { all })
    }

    /// Adds the value of a field: the whole value, what follows its scheme (as in Authorization), and the password
    /// of `Basic`. Returns false if the secret part is too short to be added.
    pub(crate) fn add_field(&mut self, value: &[u8]) -> bool {
        let is_found = self.add(value);
        let Some(blank) = value.iter().position(|byte| *byte == b' ') else {
            return is_found;
        };
        let (scheme, rest) = (&value[..blank], value[blank..].trim_ascii_start());
        if scheme.eq_ignore_ascii_case(b"Basic") {
            self.add_basic(rest)
        } else {
            self.add(rest)
        }
    }

    /// Adds `pair`, a user name and a password in base64 (RFC 7617), and the password. Returns false if the
    /// password is too short.
    fn add_basic(&mut self, pair: &[u8]) -> bool {
        let pair = without_padding(pair);
        self.add(pair);
        let decoded = data_encoding::BASE64_NOPAD.decode(pair).map(Zeroizing::new);
        let password = decoded.as_ref().ok().and_then(|decoded| {
            let colon = decoded.iter().position(|byte| *byte == b':')?;
            decoded.get(colon + 1..)
        });
        password.is_some_and(|password| self.add(password))
    }

    fn has(&self, secret: &[u8]) -> bool {
        self.all.iter().any(|own| own.secret.expose() == secret)
    }

    /// Returns whether a secret is long enough to be found without matching ordinary words.
    pub(crate) fn finds(secret: &[u8]) -> bool {
        secret.len() >= SHORTEST
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Calls `found` with the place of each secret in `text`, in any order; places may overlap.
    ///
    /// Returns how many bytes at the end may be the beginning of a secret that continues in the next text: 0 if
    /// `is_last`. Takes time proportional to the length of `text`, whatever its content.
    pub(crate) fn search(&self, text: &[u8], is_last: bool, mut found: impl FnMut(Range<usize>)) -> usize {
        self.search_layers(MOST_LAYERS, text, is_last, |_, place| found(place))
    }

    /// Does the same in the text and in what decoding gives, `layers` in all, and says which secret it is: its number
    /// in the order in which they were added.
    pub(super) fn search_layers(
        &self,
        layers: usize,
        text: &[u8],
        is_last: bool,
        mut found: impl FnMut(usize, Range<usize>),
    ) -> usize {
        // Fast paths: no layer is longer than the text, and most fields are shorter than any secret, or have nothing to decode
        // and a byte of no secret.
        let is_short = || self.all.iter().all(|searched| text.len() < searched.shortest);
        if self.all.is_empty() || is_last && (is_short() || self.cannot_be_in(text)) {
            return 0;
        }
        let mut layer = DecodedLayer::of(text);
        let mut cut = self.search_layer(&layer, is_last, &mut found);
        for _ in 1..layers {
            match layer.decoded(is_last) {
                Some(below) => layer = below,
                None => break,
            }
            cut = cut.min(self.search_layer(&layer, is_last, &mut found));
        }
        if is_last {
            return 0;
        }
        // The cut is at the border of an escape, so that the rest decodes in the same way without what is before
        // it.
        let held = text.len() - layer.border(cut);
        held.min(MOST_HELD.max(4 * self.longest()))
    }

    /// Whether one look shows that no secret is in this text, in whatever encoding. That of all lines of a head shows it for
    /// each of its values.
    pub(crate) fn cannot_be_in(&self, text: &[u8]) -> bool {
        let mut patterns = self.all.iter().flat_map(|searched| &searched.patterns);
        patterns.all(|pattern| pattern.cannot_be_in(text)) && !layers::may_be_encoded(text)
    }

    /// Searches one layer. Returns the place in the text where an unfinished secret may begin.
    fn search_layer(
        &self,
        layer: &DecodedLayer<'_>,
        is_last: bool,
        found: &mut impl FnMut(usize, Range<usize>),
    ) -> usize {
        let secrets = self.all.iter().enumerate();
        let patterns =
            secrets.flat_map(|(i, searched)| searched.patterns.iter().map(move |pattern| (i, pattern)));
        let mut unfinished = 0;
        for (i, pattern) in patterns {
            pattern.find(&layer.text, |place| found(i, layer.place(place)));
            if !is_last {
                unfinished = unfinished.max(pattern.unfinished(&layer.text));
            }
        }
        layer.start(layer.text.len() - unfinished)
    }

    fn longest(&self) -> usize {
        let lengths = self.all.iter().map(|searched| searched.secret.expose().len());
        lengths.max().unwrap_or_default()
    }
}

impl MatcherCache {
    /// Returns a matcher for the secrets in this field value and those of `fixed`.
    pub(super) fn with(&self, value: &HeaderValue, fixed: &SecretMatcher) -> Arc<SecretMatcher> {
        if let Some(last) = &*self.0.load()
            && last.0 == *value
        {
            return Arc::clone(&last.1);
        }
        let mut matcher = fixed.clone();
        matcher.add_field(value.as_bytes());
        let matcher = Arc::new(matcher);
        self.0
            .store(Some(Arc::new((value.clone(), Arc::clone(&matcher)))));
        matcher
    }
}

impl SearchedSecret {
    fn new(secret: &[u8]) -> Self {
        let mut texts = vec![Zeroizing::new(secret.to_vec())];
        let mut add = |text: Vec<u8>| {
            let text = Zeroizing::new(text);
            if SecretMatcher::finds(&text) && !texts.contains(&text) {
                texts.push(text);
            }
        };
        // Forms write a space as `+`.
        let with_plus = |byte: &u8| if *byte == b' ' { b'+' } else { *byte };
        add(secret.iter().map(with_plus).collect());
        if let Ok(text) = std::str::from_utf8(secret)
            && !text.is_ascii()
        {
            // In UTF-16 without zero bytes, which decoding removes.
            let units = |bytes: fn(u16) -> [u8; 2]| {
                let bytes = text.encode_utf16().flat_map(bytes);
                bytes.filter(|byte| *byte != 0).collect::<Vec<_>>()
            };
            add(units(u16::to_le_bytes));
            add(units(u16::to_be_bytes));
        }
        // A part of the secret that looks like an escape is decoded with the text.
        let mut layer = DecodedLayer::of(secret);
        for _ in 1..MOST_LAYERS {
            let Some(below) = layer.decoded(true) else { break };
            add(below.text.to_vec());
            layer = below;
        }
        Self {
            secret: Secret::new(Zeroizing::new(secret.to_vec())),
            shortest: texts.iter().map(|text| text.len()).min().unwrap_or_default(),
            patterns: texts.into_iter().map(SecretPattern::new).collect(),
        }
    }
}

impl SecretPattern {
    fn new(text: Zeroizing<Vec<u8>>) -> Self {
        let mut failure = vec![0; text.len()];
        let mut fit = 0;
        for at in 1..text.len() {
            while fit > 0 && text[at] != text[fit] {
                fit = failure[fit - 1];
            }
            fit += usize::from(text[at] == text[fit]);
            failure[at] = fit;
        }
        let rare = (0..text.len()).min_by_key(|at| commonness(text[*at]));
        Self {
            rare: rare.unwrap_or_default(),
            text: Secret::new(text),
            failure: failure.into(),
        }
    }

    /// Whether a few looks show that it is not in this text.
    fn cannot_be_in(&self, text: &[u8]) -> bool {
        let pattern = self.text.expose();
        let Some(rare) = pattern.get(self.rare) else {
            return true;
        };
        let is_here = |at: usize| {
            let from = at.checked_sub(self.rare);
            from.is_some_and(|from| text[from..].starts_with(pattern))
        };
        let mut places = memchr_iter(*rare, text);
        // Bounded: a text may have that byte at every place.
        !places.by_ref().take(MOST_LOOKS).any(is_here) && places.next().is_none()
    }

    fn find(&self, text: &[u8], mut found: impl FnMut(Range<usize>)) {
        let pattern = self.text.expose();
        let mut from = 0;
        while let Some(at) = memmem::find(&text[from..], pattern) {
            let at = from + at;
            found(at..at + pattern.len());
            from = at + 1;
        }
    }

    /// Returns how many bytes at the end of `text` match its beginning, but not all of it.
    fn unfinished(&self, text: &[u8]) -> usize {
        let pattern = self.text.expose();
        let tail = &text[text.len().saturating_sub(pattern.len() - 1)..];
        layers::count(tail.len());
        let mut fit = 0;
        for byte in tail {
            while fit > 0 && *byte != pattern[fit] {
                fit = self.failure[fit - 1];
            }
            fit += usize::from(*byte == pattern[fit]);
        }
        fit
    }
}

/// Ranks a byte by how many fields have it: nearly all answers have a date, a type, and the name of a server.
fn commonness(byte: u8) -> u8 {
    match byte {
        b'a' | b'c' | b'e' | b'i' | b'l' | b'n' | b'o' | b'p' | b'r' | b's' | b't' | b' ' => 3,
        b'0'..=b'9' | b'G' | b'M' | b'T' | b'"' | b',' | b'-' | b'.' | b'/' | b':' | b';' | b'=' => 2,
        b'a'..=b'z' => 1,
        _ => 0,
    }
}

/// Returns base64 without its padding, which some encoders do not write.
pub(crate) fn without_padding(text: &[u8]) -> &[u8] {
    let end = text
        .iter()
        .rposition(|byte| *byte != b'=')
        .map_or(0, |last| last + 1);
    &text[..end]
}

#[cfg(test)]
mod tests;
