//! Texts that tokens and signatures contain.

use crate::config::Text;
use crate::config::declare::{Syntax, ValueKind};
use crate::config::reader::Located;

/// A text on one line.
pub(super) struct OneLine;

/// A text on one line, or a reference.
pub(super) struct OneLineOrReference;

/// A text that can be quoted in a header field.
pub(super) struct Quotable;

/// A text that can be quoted in a header field, or a reference.
pub(super) struct QuotableOrReference;

impl Syntax for OneLine {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let text = written.text("write a text")?;
        if text.is_empty() || text.contains(char::is_control) {
            written.problem(
                "empty, or with a control character in it",
                "write a text on one line",
            );
            return None;
        }
        Some(text.to_owned())
    }
}

impl Syntax for OneLineOrReference {
    type Value = Text;

    const KIND: ValueKind = ValueKind::Value;

    fn read(written: Located<'_>) -> Option<Text> {
        let text = written.text("write a plain value or a reference")?;
        match written.reference(text) {
            Some(reference) => reference.map(Text::Reference),
            None => OneLine::read(written).map(Text::Plain),
        }
    }
}

impl Syntax for Quotable {
    type Value = String;

    const KIND: ValueKind = ValueKind::Text;

    fn read(written: Located<'_>) -> Option<String> {
        let text = written.text("write a text")?;
        let is_plain = |c: char| matches!(c, ' '..='~') && c != '"' && c != '\\';
        if text.is_empty() || !text.chars().all(is_plain) {
            written.problem(
                "has to be visible ASCII, without quotes and backslashes",
                "write it without",
            );
            return None;
        }
        Some(text.to_owned())
    }
}

impl Syntax for QuotableOrReference {
    type Value = Text;

    const KIND: ValueKind = ValueKind::Value;

    fn read(written: Located<'_>) -> Option<Text> {
        let text = written.text("write a name or a reference")?;
        match written.reference(text) {
            Some(reference) => reference.map(Text::Reference),
            None => Quotable::read(written).map(Text::Plain),
        }
    }
}
