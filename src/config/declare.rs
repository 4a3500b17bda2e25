//! How a key of the language is declared: once.
//!
//! `section!` declares a mapping: for each key the field, its type, how the value is written, the default as it is
//! written in the file, and what it means. From that come the struct, its decoder, the table of keys (which finds an
//! unknown key and names the nearest one), the JSON schema and the reference page. `choice!` declares a word that is
//! one of several, `words!` does it for a type from elsewhere.
//!
//! How a value is written is a type that implements [`Syntax`]; most are in [`super::syntax`].

use super::reader::{Located, SectionReader};

/// The keys of one mapping.
pub(in crate::config) type Table = &'static [Declaration];

/// One key.
#[derive(Debug)]
pub(in crate::config) struct Declaration {
    pub(in crate::config) name: &'static str,
    /// One line, for the schema and the reference page.
    pub(in crate::config) doc: &'static str,
    pub(in crate::config) kind: ValueKind,
    /// The value of a key that is not written, as YAML; empty if it has no default.
    pub(in crate::config) default: &'static str,
    /// What to write where the key is missing, for one that has to be written.
    pub(in crate::config) required: Option<&'static str>,
    pub(in crate::config) status: Status,
    /// What the key implies. `None` outside of destinations, where nothing is implied.
    pub(in crate::config) marks: Option<&'static [Mark]>,
}

/// What may be written after a key. The decoder knows finer rules.
#[derive(Debug)]
pub(in crate::config) enum ValueKind {
    /// An address with its port, as in `127.0.0.1:3128`.
    Address,
    /// One of the alternatives.
    Any(&'static [Self]),
    Boolean,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// 500ms, 10s, 5m, 1h, 7d.
    Duration,
    /// A list of at least one.
    Filled(&'static Self),
    /// Any JSON: texts, numbers, booleans, lists and mappings of these.
    Json,
    List(&'static Self),
    /// Exactly this value.
    Literal(&'static str),
    /// A mapping from names that the user chooses, which match the expression.
    Named(&'static str, &'static Self),
    /// A whole number in a range.
    Number(u64, u64),
    /// A mapping of which exactly one key is written.
    OneOf(Table),
    /// 5/s burst 10.
    Rate,
    /// A reference: `env:`, `file:` or `vcap:`.
    Secret,
    /// 64KiB.
    Size,
    Table(Table),
    Text,
    /// A text which may look like a number or a boolean.
    Value,
}

#[derive(Debug)]
pub(in crate::config) enum Status {
    Works,
    /// Refused, except these values, which say what holds anyway.
    Later(&'static [&'static str]),
}

/// What a key of a destination implies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It decides what the destination answers (its credential, its address): where the value changes, stored answers are
    /// invalidated. A key that changes an answer on its way from the cache to the app needs no mark.
    Answers,
    /// It still works in a tunnel whose bytes pass untouched, because it counts tunnels.
    CountsTunnels,
    /// The proxy must see the requests for it to work: where it is set, `mode: auto` ends TLS.
    EndsTls,
    /// It decides how a connection is opened, or with which identity: where the value changes, kept connections are closed.
    Upstream,
}

/// How a value is written, and how it is read.
pub(in crate::config) trait Syntax {
    type Value;

    const KIND: ValueKind;

    /// What to write instead of an empty list of these.
    const IF_EMPTY: &'static str = "";

    /// Reads a value, or files a problem at its place.
    fn read(written: Located<'_>) -> Option<Self::Value>;
}

/// A mapping with declared keys.
pub(in crate::config) trait Section: Sized {
    const KEYS: Table;

    /// Reads every key before it gives up on one, so that all problems are reported at once.
    fn decode(reader: &SectionReader<'_>) -> Option<Self>;

    /// Returns the keys whose values differ.
    fn differing(&self, other: &Self) -> Vec<&'static Declaration>;
}

/// A word that is one of several.
pub(crate) trait Word: Copy + PartialEq + 'static {
    const CHOICES: &'static [(&'static str, Self)];

    /// Returns the word as the configuration writes it.
    fn word(self) -> &'static str {
        let mut choices = Self::CHOICES.iter();
        choices.find(|(_, own)| *own == self).map_or("", |(word, _)| word)
    }
}

impl Declaration {
    /// Declares a key that works.
    pub(in crate::config) const fn new(name: &'static str, doc: &'static str, kind: ValueKind) -> Self {
        Self {
            name,
            doc: doc.trim_ascii(),
            kind,
            default: "",
            required: None,
            status: Status::Works,
            marks: None,
        }
    }

    /// Declares a key that does not work yet; `off` are the values that say so.
    pub(in crate::config) const fn later(
        name: &'static str,
        doc: &'static str,
        off: &'static [&'static str],
    ) -> Self {
        Self {
            status: Status::Later(off),
            ..Self::new(name, doc, ValueKind::Text)
        }
    }

    pub(in crate::config) const fn default(self, default: &'static str) -> Self {
        Self { default, ..self }
    }

    pub(in crate::config) const fn required(self, right: &'static str) -> Self {
        Self {
            required: Some(right),
            ..self
        }
    }

    pub(in crate::config) const fn marks(self, marks: &'static [Mark]) -> Self {
        Self {
            marks: Some(marks),
            ..self
        }
    }

    pub(in crate::config) fn works(&self) -> bool {
        matches!(self.status, Status::Works)
    }

    /// Whether the key implies `mark`.
    pub(in crate::config) fn implies(&self, mark: Mark) -> bool {
        self.marks.is_some_and(|marks| marks.contains(&mark))
    }
}

/// Declares a mapping: its struct, its table of keys and its decoder.
///
/// ```ignore
/// section! {
///     /// How long anything may take.
///     pub(crate) struct Timeouts {
///         /// To a connection.
///         connect: Duration as Positive = "5s";
///     }
/// }
/// ```
///
/// A line is `field: Type`, `as HOW` where the type does not say how it is written, `[Mark, …]` for what the key implies,
/// and one of `= "default"`, `= required "what to write"`, or nothing where the field is an `Option` or a `Vec`.
/// `field("key")` gives the key another name. After the struct's name, `, check` calls its method `check` once everything
/// is read. `later` lists keys that do not work yet, `also` fields that are not read.
macro_rules! section {
    (
        $(#[$meta:meta])*
        pub(crate) struct $name:ident $(, $check:ident)? {
            $(
                $(#[doc = $doc:literal])+
                $field:ident $(($key:literal))?: $type:ty $(as $syntax:ty)? $([$($mark:ident),*])?
                $(= $default:literal)? $(= required $right:expr)?;
            )*
        }
        $(later { $( $(#[doc = $later_doc:literal])+ $later:literal = [$($off:literal),*]; )* })?
        $(also { $( $(#[$extra_meta:meta])* $extra:ident: $extra_type:ty; )* })?
    ) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub(crate) struct $name {
            $( $(#[doc = $doc])+ pub(crate) $field: $type, )*
            $($( $(#[$extra_meta])* pub(crate) $extra: $extra_type, )*)?
        }

        impl $crate::config::declare::Section for $name {
            const KEYS: $crate::config::declare::Table = &[
                $(
                    $crate::config::declare::Declaration::new(
                        key!($field $($key)?),
                        concat!($($doc),+),
                        <syntax_of!($type $(, $syntax)?) as $crate::config::declare::Syntax>::KIND,
                    )
                    $(.default($default))?
                    $(.required($right))?
                    $(.marks(&[$($crate::config::declare::Mark::$mark),*]))?,
                )*
                $($(
                    $crate::config::declare::Declaration::later($later, concat!($($later_doc),+), &[$($off),*]),
                )*)?
            ];

            fn decode(reader: &$crate::config::reader::SectionReader<'_>) -> Option<Self> {
                // A section may have no key that works yet.
                let _ = reader;
                $(
                    let $field = take!(
                        reader, syntax_of!($type $(, $syntax)?), key!($field $($key)?)
                        $(, default $default)? $(, required $right)?
                    );
                )*
                Some(Self {
                    $($field: $field?,)*
                    $($($extra: Default::default(),)*)?
                })
            }

            fn differing(&self, other: &Self) -> Vec<&'static $crate::config::declare::Declaration> {
                let _ = other;
                let differ: &[bool] = &[$(self.$field != other.$field),*];
                let keys = <Self as $crate::config::declare::Section>::KEYS.iter().zip(differ);
                keys.filter(|(_, differs)| **differs).map(|(key, _)| key).collect()
            }
        }

        impl $crate::config::declare::Syntax for $name {
            type Value = Self;

            const KIND: $crate::config::declare::ValueKind =
                $crate::config::declare::ValueKind::Table(<Self as $crate::config::declare::Section>::KEYS);

            fn read(written: $crate::config::reader::Located<'_>) -> Option<Self> {
                let reader = written.reader(<Self as $crate::config::declare::Section>::KEYS)?;
                let section = <Self as $crate::config::declare::Section>::decode(&reader)?;
                $(section.$check(&reader);)?
                Some(section)
            }
        }
    };
}

/// Returns the name of a key: that of its field, where no other is given.
macro_rules! key {
    ($field:ident) => {
        stringify!($field)
    };
    ($field:ident $key:literal) => {
        $key
    };
}

/// Returns how a value is written: as its type says, where nothing else is given.
macro_rules! syntax_of {
    ($type:ty) => {
        $type
    };
    ($type:ty, $syntax:ty) => {
        $syntax
    };
}

/// Reads one key of a mapping.
macro_rules! take {
    ($reader:ident, $syntax:ty, $key:expr) => {
        $reader.optional::<$syntax, _>($key)
    };
    ($reader:ident, $syntax:ty, $key:expr, default $default:literal) => {
        $reader.or::<$syntax>($key, $default)
    };
    ($reader:ident, $syntax:ty, $key:expr, required $right:expr) => {
        $reader.required::<$syntax>($key, $right)
    };
}

/// Declares a word that is one of several, with its enum.
macro_rules! choice {
    (
        $(#[$meta:meta])*
        pub(crate) enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum $name {
            $( $(#[$variant_meta])* $variant, )+
        }

        impl $crate::config::declare::Word for $name {
            const CHOICES: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl $crate::config::declare::Syntax for $name {
            type Value = Self;

            const KIND: $crate::config::declare::ValueKind =
                $crate::config::declare::ValueKind::Choice(&[$($word),+]);

            fn read(written: $crate::config::reader::Located<'_>) -> Option<Self> {
                written.choice(<Self as $crate::config::declare::Word>::CHOICES)
            }
        }
    };
}

/// Declares a word that is one of several, for values of a type from elsewhere.
macro_rules! words {
    (
        $(#[$meta:meta])*
        $name:ident: $type:ty { $($word:literal = $value:expr,)+ }
    ) => {
        $(#[$meta])*
        pub(in crate::config) struct $name;

        impl $crate::config::declare::Syntax for $name {
            type Value = $type;

            const KIND: $crate::config::declare::ValueKind =
                $crate::config::declare::ValueKind::Choice(&[$($word),+]);

            fn read(written: $crate::config::reader::Located<'_>) -> Option<$type> {
                written.choice(&[$(($word, $value)),+])
            }
        }
    };
}
