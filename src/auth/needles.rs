//! What to look for where an attached secret might come back, and where it stands in a text.
//!
//! An upstream that echoes a request (a debug endpoint, an error page, a redirect) may write a secret differently from
//! how it came: queries are percent-encoded, JSON and HTML have escapes, each encoder has its own idea of what needs one,
//! and one may write what another has written already. So a text is not compared with a list of spellings. It is decoded
//! until nothing changes, and looked through in each of its [layers].
//!
//! What becomes of what is found is decided in `proxy::scrub`.

use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use memchr::memmem;
use zeroize::Zeroizing;

use self::layers::Layer;
use crate::secret::Secret;

mod layers;

/// The secrets of one credential. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needles {
    all: Vec<Arc<Needle>>,
}

/// What is looked for where a credential is another one after a while: made once for each, not for each request.
#[derive(Debug, Default)]
pub(super) struct Changing(ArcSwapOption<(HeaderValue, Arc<Needles>)>);

/// One secret that is looked for.
#[derive(Debug)]
struct Needle {
    secret: Secret,
    forms: Vec<Form>,
    /// The length of the shortest form, in bytes.
    shortest: usize,
}

/// A text by which a secret is known in a layer of a text.
#[derive(Debug)]
struct Form {
    text: Secret,
    /// How many bytes still fit where one byte more does not (Knuth, Morris and Pratt).
    falls: Box<[usize]>,
}

impl Needles {
    /// Looks for `secret` as well. `false`: it is so short that other words would be taken for it, and is not looked for.
    pub(crate) fn add(&mut self, secret: &[u8]) -> bool {
        if !Self::finds(secret) {
            return false;
        }
        if !self.has(secret) {
            self.all.push(Arc::new(Needle::new(secret)));
        }
        true
    }

    /// Returns what looks for all that `earlier` looks for as well.
    pub(crate) fn beside(self: Arc<Self>, earlier: &Self) -> Arc<Self> {
        let is_missing = |needle: &&Arc<Needle>| !self.has(needle.secret.expose());
        let missing: Vec<_> = earlier.all.iter().filter(is_missing).cloned().collect();
        if missing.is_empty() {
            return self;
        }
        let all = self.all.iter().cloned().chain(missing).collect();
        Arc::new(Self { all })
    }

    /// Looks for the value of a field: all of it; where it begins with a scheme, as that of Authorization does, what
    /// follows the scheme; and the password in what follows `Basic`. `false`: what counts of it is too short to be looked
    /// for alone.
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

    /// Looks for `pair`, user name and password in base64 (RFC 7617), and for the password, which may be too short.
    fn add_basic(&mut self, pair: &[u8]) -> bool {
        // Some decoders want no padding, so that others write none.
        let end = pair
            .iter()
            .rposition(|byte| *byte != b'=')
            .map_or(0, |last| last + 1);
        self.add(&pair[..end]);
        let decoded = data_encoding::BASE64_NOPAD
            .decode(&pair[..end])
            .map(Zeroizing::new);
        let password = decoded.as_ref().ok().and_then(|decoded| {
            let colon = decoded.iter().position(|byte| *byte == b':')?;
            decoded.get(colon + 1..)
        });
        password.is_some_and(|password| self.add(password))
    }

    fn has(&self, secret: &[u8]) -> bool {
        self.all.iter().any(|own| own.secret.expose() == secret)
    }

    /// Whether a secret is looked for: it is long enough not to be taken for another word.
    pub(crate) fn finds(secret: &[u8]) -> bool {
        secret.len() >= SHORTEST
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Tells where secrets stand in `text`; places may overlap, and come in no order. Returns how many bytes at its end
    /// may be the beginning of a secret, with more text; of the last text none.
    ///
    /// Takes time in proportion to the length of `text`, whatever stands in it.
    pub(crate) fn look(&self, text: &[u8], is_last: bool, mut found: impl FnMut(Range<usize>)) -> usize {
        // No layer is longer than the text, and most fields are shorter than any secret.
        let is_short = || self.all.iter().all(|needle| text.len() < needle.shortest);
        if self.all.is_empty() || is_last && is_short() {
            return 0;
        }
        let mut layer = Layer::of(text);
        let mut cut = self.look_at(&layer, is_last, &mut found);
        for _ in 1..MOST_LAYERS {
            match layer.decoded(is_last) {
                Some(below) => layer = below,
                None => break,
            }
            cut = cut.min(self.look_at(&layer, is_last, &mut found));
        }
        if is_last {
            return 0;
        }
        // What goes on is read from the cut on as it would be from the beginning.
        let held = text.len() - layer.border(cut);
        held.min(MOST_HELD.max(4 * self.longest()))
    }

    /// Looks at one layer of a text. Returns where in the text stands what may be the beginning of a secret.
    fn look_at(&self, layer: &Layer<'_>, is_last: bool, found: &mut impl FnMut(Range<usize>)) -> usize {
        let forms = self.all.iter().flat_map(|needle| &needle.forms);
        let mut begun = 0;
        for form in forms {
            form.find(&layer.text, |place| found(layer.place(place)));
            if !is_last {
                begun = begun.max(form.begun(&layer.text));
            }
        }
        layer.start(layer.text.len() - begun)
    }

    fn longest(&self) -> usize {
        let lengths = self.all.iter().map(|needle| needle.secret.expose().len());
        lengths.max().unwrap_or_default()
    }
}

impl Changing {
    /// What is looked for while a field has this value, and what is `fixed` beside it.
    pub(super) fn with(&self, value: &HeaderValue, fixed: &Needles) -> Arc<Needles> {
        if let Some(last) = &*self.0.load()
            && last.0 == *value
        {
            return Arc::clone(&last.1);
        }
        let mut needles = fixed.clone();
        needles.add_field(value.as_bytes());
        let needles = Arc::new(needles);
        self.0
            .store(Some(Arc::new((value.clone(), Arc::clone(&needles)))));
        needles
    }
}

impl Needle {
    fn new(secret: &[u8]) -> Self {
        let mut texts = vec![Zeroizing::new(secret.to_vec())];
        let mut add = |text: Vec<u8>| {
            let text = Zeroizing::new(text);
            if Needles::finds(&text) && !texts.contains(&text) {
                texts.push(text);
            }
        };
        // As forms write blanks.
        let with_plus = |byte: &u8| if *byte == b' ' { b'+' } else { *byte };
        add(secret.iter().map(with_plus).collect());
        if let Ok(text) = std::str::from_utf8(secret)
            && !text.is_ascii()
        {
            // In UTF-16 without its zeros, which a layer leaves out.
            let units = |bytes: fn(u16) -> [u8; 2]| {
                let bytes = text.encode_utf16().flat_map(bytes);
                bytes.filter(|byte| *byte != 0).collect::<Vec<_>>()
            };
            add(units(u16::to_le_bytes));
            add(units(u16::to_be_bytes));
        }
        // What looks like an escape in it may be taken for one.
        let mut layer = Layer::of(secret);
        for _ in 1..MOST_LAYERS {
            let Some(below) = layer.decoded(true) else { break };
            add(below.text.to_vec());
            layer = below;
        }
        Self {
            secret: Secret::new(Zeroizing::new(secret.to_vec())),
            shortest: texts.iter().map(|text| text.len()).min().unwrap_or_default(),
            forms: texts.into_iter().map(Form::new).collect(),
        }
    }
}

impl Form {
    fn new(text: Zeroizing<Vec<u8>>) -> Self {
        let mut falls = vec![0; text.len()];
        let mut fit = 0;
        for at in 1..text.len() {
            while fit > 0 && text[at] != text[fit] {
                fit = falls[fit - 1];
            }
            fit += usize::from(text[at] == text[fit]);
            falls[at] = fit;
        }
        Self {
            text: Secret::new(text),
            falls: falls.into(),
        }
    }

    fn find(&self, text: &[u8], mut found: impl FnMut(Range<usize>)) {
        let form = self.text.expose();
        let mut from = 0;
        while let Some(at) = memmem::find(&text[from..], form) {
            let at = from + at;
            found(at..at + form.len());
            from = at + 1;
        }
    }

    /// How many bytes at the end of `text` it begins with; not all of its own.
    fn begun(&self, text: &[u8]) -> usize {
        let form = self.text.expose();
        let tail = &text[text.len().saturating_sub(form.len() - 1)..];
        layers::count(tail.len());
        let mut fit = 0;
        for byte in tail {
            while fit > 0 && *byte != form[fit] {
                fit = self.falls[fit - 1];
            }
            fit += usize::from(*byte == form[fit]);
        }
        fit
    }
}

/// How deep escapes may lie within each other: a URL in JSON in JSON in a query, and some more.
const MOST_LAYERS: usize = 8;

/// Words of a language are shorter, most of them, and secrets that are any good longer.
const SHORTEST: usize = 8;

/// How many bytes wait at most for those that follow, unless a secret is as long: a server may write escapes without end.
const MOST_HELD: usize = 4096;

#[cfg(test)]
mod tests;
