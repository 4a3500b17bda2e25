//! What an app gets in the place of the secrets that destinations use.

use super::SecretRef;
use super::declare::{Syntax, ValueKind};
use super::reader::{Located, REFERENCE, SectionReader};
use super::syntax::{ListOf, Number};

/// As many random characters as nobody can guess.
const LEAST_RANDOM: usize = 16;

const LONGEST: u64 = 1024;
const LONGEST_PREFIX: usize = 64;

section! {
    /// What an app gets in the place of the secrets that destinations use.
    pub(crate) struct Placeholders, check {
        /// auto: under exec, and beside an app on Cloud Foundry; always: also where `outrider env` is evaluated elsewhere; never.
        mode: PlaceholderMode = "auto";
        /// References whose secrets the app needs itself, as in env:DATABASE_PASSWORD: it gets them as they are.
        keep: Vec<SecretRef> as ListOf<SecretRef> = "[]";
        /// Variables that the app gets nothing for, as in env:KEY_PASSPHRASE.
        remove: Vec<SecretRef> as ListOf<SecretRef> = "[]";
        /// By reference, how a placeholder looks, for programs that check their keys: env:OPENAI_API_KEY: { prefix: sk- }.
        shapes: Vec<(SecretRef, PlaceholderShape)> as Shapes = "{}";
    }
}

choice! {
    pub(crate) enum PlaceholderMode {
        Auto = "auto",
        Always = "always",
        Never = "never",
    }
}

section! {
    /// How a placeholder looks.
    #[derive(Default)]
    pub(crate) struct PlaceholderShape, check {
        /// It begins so; at most 64 letters, digits, - and _.
        prefix: String as Prefix = "\"\"";
        /// So many characters; with as many as the secret has, a body of any size can be sent. Default: as many as it takes.
        length: Option<usize> as Number<usize, LEAST_LENGTH, LONGEST>;
        /// Of which characters the rest is.
        characters: PlaceholderCharacters = "alphanumeric";
    }
}

const LEAST_LENGTH: u64 = LEAST_RANDOM as u64;

choice! {
    /// Of which characters a placeholder is, its prefix aside.
    #[derive(Default)]
    pub(crate) enum PlaceholderCharacters {
        #[default]
        Alphanumeric = "alphanumeric",
        Digits = "digits",
        Hex = "hex",
        Upper = "upper",
    }
}

impl Placeholders {
    /// Returns how the placeholder of a secret looks.
    pub(crate) fn shape(&self, reference: &SecretRef) -> PlaceholderShape {
        let mut shapes = self.shapes.iter();
        shapes
            .find(|(own, _)| own == reference)
            .map(|(_, shape)| shape.clone())
            .unwrap_or_default()
    }

    fn check(&self, reader: &SectionReader<'_>) {
        let both = self
            .keep
            .iter()
            .position(|reference| self.remove.contains(reference));
        if let (Some(both), Some(written)) = (both, reader.take("keep")) {
            written.problem_at(
                both,
                "it stands under remove, too",
                "keep it in one of the two lists",
            );
        }
        let odd = (self.remove.iter()).position(|reference| !matches!(reference, SecretRef::Env(_)));
        if let (Some(odd), Some(written)) = (odd, reader.take("remove")) {
            written.problem_at(
                odd,
                "not a variable, so there is nothing to remove",
                "write env:NAME",
            );
        }
    }
}

impl PlaceholderShape {
    fn check(&self, reader: &SectionReader<'_>) {
        if let Some(length) = self.length
            && length < self.prefix.len() + LEAST_RANDOM
        {
            reader.problem(
                "fewer than 16 characters after the prefix, which somebody could guess",
                "write a longer length, or a shorter prefix",
            );
        }
    }
}

/// The beginning of a placeholder: only characters that no encoding changes.
struct Prefix;

impl Syntax for Prefix {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let text = written.text("write a prefix, as in sk-")?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if text.len() > LONGEST_PREFIX || !text.bytes().all(is_plain) {
            written.problem(
                "not a prefix for a placeholder",
                "write at most 64 letters, digits, - and _, as in sk-",
            );
            return None;
        }
        Some(text.to_owned())
    }
}

/// Shapes by the references to their secrets.
struct Shapes;

impl Syntax for Shapes {
    type Value = Vec<(SecretRef, PlaceholderShape)>;

    const KIND: ValueKind = ValueKind::Named("^(env|vcap):", &PlaceholderShape::KIND);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        let mut shapes: Self::Value = Vec::new();
        for (entry, written) in written.named()? {
            let reference = match written.reference(&entry.key) {
                Some(reference) => reference,
                None => {
                    written.problem("the key is not a reference", REFERENCE);
                    None
                }
            };
            let shape = PlaceholderShape::read(written.clone());
            let (Some(reference), Some(shape)) = (reference, shape) else {
                continue;
            };
            if matches!(reference, SecretRef::File(_)) {
                written.problem(
                    "a file stays as it is, so there is no placeholder for it",
                    "write env:NAME or vcap:SERVICE/KEY",
                );
            }
            if shapes.iter().any(|(own, _)| *own == reference) {
                written.problem("the same reference stands twice", "keep one of them");
            }
            shapes.push((reference, shape));
        }
        Some(shapes)
    }
}
