//! How values are written that more than one section has: numbers, times, sizes, shares, lists, and what is off.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::declare::{Syntax, ValueKind};
use super::node::shown;
use super::reader::Located;
use super::{PathBuf, SecretRef};
use crate::units;

pub(super) const KIB: u64 = 1 << 10;
pub(super) const MIB: u64 = 1 << 20;
pub(super) const GIB: u64 = 1 << 30;

pub(crate) const LONGEST_NAME: usize = 63;

/// A whole number in a range.
pub(super) struct Number<N, const LEAST: u64, const MOST: u64>(PhantomData<N>);

/// `auto`, which reads as `None`, or a number.
pub(super) struct AutoOrNumber<N, const LEAST: u64, const MOST: u64>(PhantomData<N>);

/// The number of a port.
pub(super) struct Port;

/// A time that is longer than nothing.
pub(super) struct Positive;

/// A size in bytes within a range.
pub(super) struct Size<const LEAST: u64, const MOST: u64>;

/// `auto`, which reads as `None`, or a size.
pub(super) struct AutoOrSize<const LEAST: u64, const MOST: u64>;

/// A whole number of a hundred, as in `20%`.
pub(super) struct Percent<const LEAST: u8>;

/// A list.
pub(super) struct ListOf<S>(PhantomData<S>);

/// A list that must not be empty.
pub(super) struct Filled<S>(PhantomData<S>);

/// One value, or a list that must not be empty.
pub(super) struct OneOrMore<S>(PhantomData<S>);

/// Sections by the names that the user gives them, in the order of the file.
pub(super) struct ByName<S>(PhantomData<S>);

/// A section with a name, which is a label in metrics and logs.
pub(super) trait NamedSection {
    /// What it is, with its article.
    const WHAT: &'static str;

    /// Returns why a name cannot be given; `None` where it can.
    fn taken(name: &str) -> Option<&'static str>;

    fn set_name(&mut self, name: Arc<str>);
}

/// A mapping that is off where it is `off`, `false` or `null`.
pub(super) struct Switched<S>(PhantomData<S>);

impl<N: TryFrom<u64>, const LEAST: u64, const MOST: u64> Syntax for Number<N, LEAST, MOST> {
    type Value = N;

    const KIND: ValueKind = ValueKind::Number(LEAST, MOST);

    fn read(written: Located<'_>) -> Option<N> {
        written.number(LEAST, MOST, "a number")
    }
}

impl<N: TryFrom<u64>, const LEAST: u64, const MOST: u64> Syntax for AutoOrNumber<N, LEAST, MOST> {
    type Value = Option<N>;

    const KIND: ValueKind = ValueKind::Any(&[ValueKind::Choice(&["auto"]), ValueKind::Number(LEAST, MOST)]);

    fn read(written: Located<'_>) -> Option<Option<N>> {
        if written.scalar() == Some("auto") {
            return Some(None);
        }
        written.number(LEAST, MOST, "auto or a number").map(Some)
    }
}

impl Syntax for Port {
    type Value = u16;

    const KIND: ValueKind = ValueKind::Number(1, 65_535);

    fn read(written: Located<'_>) -> Option<u16> {
        written.number(1, u16::MAX.into(), "a port")
    }
}

impl Syntax for bool {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Boolean;

    fn read(written: Located<'_>) -> Option<Self> {
        written.boolean()
    }
}

impl Syntax for Duration {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Duration;

    fn read(written: Located<'_>) -> Option<Self> {
        written.duration()
    }
}

impl Syntax for Positive {
    type Value = Duration;

    const KIND: ValueKind = ValueKind::Duration;

    fn read(written: Located<'_>) -> Option<Duration> {
        written.positive_duration()
    }
}

impl<const LEAST: u64, const MOST: u64> Syntax for Size<LEAST, MOST> {
    type Value = u64;

    const KIND: ValueKind = ValueKind::Size;

    fn read(written: Located<'_>) -> Option<u64> {
        written.size(LEAST, MOST)
    }
}

impl<const LEAST: u64, const MOST: u64> Syntax for AutoOrSize<LEAST, MOST> {
    type Value = Option<u64>;

    const KIND: ValueKind = ValueKind::Any(&[ValueKind::Choice(&["auto"]), ValueKind::Size]);

    fn read(written: Located<'_>) -> Option<Option<u64>> {
        if written.scalar() == Some("auto") {
            return Some(None);
        }
        written.size(LEAST, MOST).map(Some)
    }
}

impl<const LEAST: u8> Syntax for Percent<LEAST> {
    type Value = u8;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<u8> {
        let right = format!("write whole percents from {LEAST}% to 100%, as in 20%");
        let text = written.text(&right)?;
        let percent = units::parse_percent(text).filter(|percent| *percent >= LEAST);
        if percent.is_none() {
            written.problem(format_args!("`{}` is not a share", shown(text)), right);
        }
        percent
    }
}

impl Syntax for units::Rate {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Rate;

    fn read(written: Located<'_>) -> Option<Self> {
        let text = written.text("write requests per unit, as in 5/s, 30/m, 1000/h or 10000/d")?;
        written.kept(text, text.parse())
    }
}

impl Syntax for SecretRef {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Secret;

    const IF_EMPTY: &'static str = "remove the key to ask for no list";

    fn read(written: Located<'_>) -> Option<Self> {
        written.secret()
    }
}

/// A path, with `$VARS` and `~` expanded.
impl Syntax for PathBuf {
    type Value = Self;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<Self> {
        let text = written.text("write a path")?;
        written.path_of(text)
    }
}

/// A key that need not be written.
impl<S: Syntax> Syntax for Option<S> {
    type Value = S::Value;

    const KIND: ValueKind = S::KIND;

    fn read(written: Located<'_>) -> Option<S::Value> {
        S::read(written)
    }
}

impl<S: Syntax> Syntax for Box<S> {
    type Value = Box<S::Value>;

    const KIND: ValueKind = S::KIND;

    fn read(written: Located<'_>) -> Option<Self::Value> {
        S::read(written).map(Box::new)
    }
}

impl<S: Syntax> Syntax for ListOf<S> {
    type Value = Vec<S::Value>;

    const KIND: ValueKind = ValueKind::List(&S::KIND);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        all::<S>(written.list()?)
    }
}

impl<S: Syntax<Value = S> + NamedSection> Syntax for ByName<S> {
    type Value = Vec<Arc<S>>;

    const KIND: ValueKind = ValueKind::Named("^[a-z0-9_-]{1,63}$", &S::KIND);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        let sections = written.named()?.into_iter().map(|(entry, written)| {
            check_name::<S>(&entry.key, &written);
            let mut section = S::read(written)?;
            section.set_name(entry.key.as_str().into());
            Some(Arc::new(section))
        });
        // All are read, so that the problems of all are found.
        let sections: Vec<_> = sections.collect();
        sections.into_iter().collect()
    }
}

/// Whether a name can be a label in metrics and logs.
pub(super) fn is_label(name: &str) -> bool {
    let is_sound =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    name.len() <= LONGEST_NAME && name.bytes().all(is_sound)
}

/// Files a problem for a name that cannot be a label, or stands for something else.
fn check_name<S: NamedSection>(name: &str, written: &Located<'_>) {
    if !is_label(name) {
        written.problem(
            format_args!("not a name for {}", S::WHAT),
            "use at most 63 of a to z, 0 to 9, - and _",
        );
    } else if let Some(why) = S::taken(name) {
        written.problem(format_args!("the name is taken: {why}"), "choose another");
    }
}

impl<S: Syntax> Syntax for Filled<S> {
    type Value = Vec<S::Value>;

    const KIND: ValueKind = ValueKind::Filled(&S::KIND);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        all::<S>(written.filled_list(S::IF_EMPTY)?)
    }
}

impl<S: Syntax> Syntax for OneOrMore<S> {
    type Value = Vec<S::Value>;

    const KIND: ValueKind = ValueKind::Any(&[S::KIND, ValueKind::Filled(&S::KIND)]);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        if written.is_list() {
            return Filled::<S>::read(written);
        }
        S::read(written).map(|one| vec![one])
    }
}

impl<S: Syntax> Syntax for Switched<S> {
    type Value = Option<S::Value>;

    const KIND: ValueKind = ValueKind::Any(&[
        S::KIND,
        ValueKind::Choice(&["off"]),
        ValueKind::Literal("false"),
        ValueKind::Literal("null"),
    ]);

    fn read(written: Located<'_>) -> Option<Self::Value> {
        if written.is_null() || matches!(written.plain(), Some("off" | "false")) {
            return Some(None);
        }
        S::read(written).map(Some)
    }
}

/// Reads every item before it gives up on one.
fn all<S: Syntax>(items: Vec<Located<'_>>) -> Option<Vec<S::Value>> {
    let items: Vec<_> = items.into_iter().map(S::read).collect();
    items.into_iter().collect()
}
