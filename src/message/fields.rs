//! The fields of a head, line by line.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field lines of a head, in the order in which they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    lines: Vec<(HeaderName, HeaderValue)>,
}

/// What a field can be looked for by: its name, or that in lower case.
pub(crate) trait FieldKey {
    fn names(&self, name: &HeaderName) -> bool;
}

/// What can become the name of a new line.
pub(crate) trait NewName: FieldKey {
    fn into_name(self) -> HeaderName;
}

impl FieldKey for HeaderName {
    fn names(&self, name: &HeaderName) -> bool {
        self == name
    }
}

impl FieldKey for &HeaderName {
    fn names(&self, name: &HeaderName) -> bool {
        *self == name
    }
}

impl FieldKey for &str {
    fn names(&self, name: &HeaderName) -> bool {
        *self == name.as_str()
    }
}

impl NewName for HeaderName {
    fn into_name(self) -> HeaderName {
        self
    }
}

impl NewName for &HeaderName {
    fn into_name(self) -> HeaderName {
        self.clone()
    }
}

/// In lower case.
impl NewName for &'static str {
    fn into_name(self) -> HeaderName {
        HeaderName::from_static(self)
    }
}

impl Fields {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_capacity(lines: usize) -> Self {
        Self {
            lines: Vec::with_capacity(lines),
        }
    }

    /// Returns the number of lines.
    pub(crate) fn len(&self) -> usize {
        self.lines.len()
    }

    /// Returns the value of the first line with this name.
    pub(crate) fn get(&self, key: impl FieldKey) -> Option<&HeaderValue> {
        self.get_all(key).next()
    }

    /// Returns the values of all lines with this name.
    pub(crate) fn get_all<K: FieldKey>(
        &self,
        key: K,
    ) -> impl DoubleEndedIterator<Item = &HeaderValue> + use<'_, K> {
        let lines = self.lines.iter().filter(move |(name, _)| key.names(name));
        lines.map(|(_, value)| value)
    }

    pub(crate) fn get_mut(&mut self, key: impl FieldKey) -> Option<&mut HeaderValue> {
        let line = self.lines.iter_mut().find(|(name, _)| key.names(name));
        line.map(|(_, value)| value)
    }

    pub(crate) fn contains_key(&self, key: impl FieldKey) -> bool {
        self.lines.iter().any(|(name, _)| key.names(name))
    }

    /// Returns the lines in their order.
    pub(crate) fn iter(&self) -> FieldIter<'_> {
        FieldIter(self.lines.iter())
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&HeaderName, &mut HeaderValue)> {
        self.lines.iter_mut().map(|(name, value)| (&*name, value))
    }

    /// Returns the name of each line.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &HeaderName> {
        self.lines.iter().map(|(name, _)| name)
    }

    /// Adds a line after all others.
    pub(crate) fn append(&mut self, name: impl NewName, value: HeaderValue) {
        self.lines.push((name.into_name(), value));
    }

    /// Makes this line the only one with its name: in the place of the first of them, or after all others.
    pub(crate) fn insert(&mut self, name: impl NewName, value: HeaderValue) {
        let Some(first) = self.lines.iter().position(|(own, _)| name.names(own)) else {
            return self.append(name, value);
        };
        self.lines[first].1 = value;
        if self.lines[first + 1..].iter().any(|(own, _)| name.names(own)) {
            let mut is_first = true;
            self.lines
                .retain(|(own, _)| !name.names(own) || std::mem::take(&mut is_first));
        }
    }

    /// Removes all lines with this name, and returns the value of the first.
    pub(crate) fn remove(&mut self, key: impl FieldKey) -> Option<HeaderValue> {
        let first = self.lines.iter().position(|(name, _)| key.names(name))?;
        let (_, value) = self.lines.remove(first);
        if self.lines[first..].iter().any(|(name, _)| key.names(name)) {
            self.retain(|name, _| !key.names(name));
        }
        Some(value)
    }

    /// Removes the lines that are not kept.
    pub(crate) fn retain(&mut self, keeps: impl Fn(&HeaderName, &HeaderValue) -> bool) {
        self.lines.retain(|(name, value)| keeps(name, value));
    }
}

/// The lines of [`Fields`], in their order.
#[derive(Clone, Debug)]
pub(crate) struct FieldIter<'f>(std::slice::Iter<'f, (HeaderName, HeaderValue)>);

impl<'f> Iterator for FieldIter<'f> {
    type Item = (&'f HeaderName, &'f HeaderValue);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, value)| (name, value))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl ExactSizeIterator for FieldIter<'_> {}

impl<'f> IntoIterator for &'f Fields {
    type Item = (&'f HeaderName, &'f HeaderValue);
    type IntoIter = FieldIter<'f>;

    fn into_iter(self) -> FieldIter<'f> {
        self.iter()
    }
}

impl<N: NewName> FromIterator<(N, HeaderValue)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, HeaderValue)>>(lines: I) -> Self {
        let lines = lines.into_iter().map(|(name, value)| (name.into_name(), value));
        Self {
            lines: lines.collect(),
        }
    }
}

/// The value of the first line with a name that is there.
#[cfg(test)]
impl<K: FieldKey> std::ops::Index<K> for Fields {
    type Output = HeaderValue;

    fn index(&self, key: K) -> &HeaderValue {
        self.get(key).unwrap()
    }
}

/// From HTTP/2, and for trailers.
impl From<HeaderMap> for Fields {
    fn from(map: HeaderMap) -> Self {
        let mut fields = Self::with_capacity(map.len());
        let mut last = None;
        for (name, value) in map {
            // The map names a field once, before the first of its values.
            last = name.or(last);
            fields.lines.extend(last.clone().map(|name| (name, value)));
        }
        fields
    }
}

/// For HTTP/2, and for trailers.
impl From<Fields> for HeaderMap {
    fn from(fields: Fields) -> Self {
        let mut map = Self::with_capacity(fields.lines.len());
        for (name, value) in fields.lines {
            map.append(name, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &'static str) -> HeaderValue {
        HeaderValue::from_static(text)
    }

    fn of(lines: &[(&'static str, &'static str)]) -> Fields {
        lines.iter().map(|(name, text)| (*name, value(text))).collect()
    }

    #[test]
    fn lines_keep_their_order_and_a_field_its_lines() {
        let mut fields = of(&[("b", "1"), ("a", "2"), ("b", "3"), ("c", "4"), ("b", "5")]);
        assert!(fields.get_all("b").eq(["1", "3", "5"]));
        assert_eq!(fields.get("b"), Some(&value("1")));
        assert!(fields.contains_key("c") && !fields.contains_key("d") && fields.get("d").is_none());
        fields.append("a", value("6"));
        fields.insert("b", value("7"));
        assert_eq!(fields, of(&[("b", "7"), ("a", "2"), ("c", "4"), ("a", "6")]));
        fields.insert("d", value("8"));
        assert_eq!(fields.remove("a"), Some(value("2")));
        assert_eq!(fields.remove("a"), None);
        *fields.get_mut("c").unwrap() = value("9");
        assert_eq!(fields, of(&[("b", "7"), ("c", "9"), ("d", "8")]));
        fields.retain(|name, _| name != "c");
        assert_eq!((fields.len(), fields["d"].as_bytes()), (2, &b"8"[..]));
    }

    #[test]
    fn no_line_is_lost_between_a_list_and_a_map() {
        let fields = of(&[("b", "1"), ("a", "2"), ("b", "3"), ("x-own", "4")]);
        let map = HeaderMap::from(fields);
        assert_eq!(map.len(), 4);
        assert!(map.get_all("b").iter().eq(["1", "3"]));
        // The map keeps the lines of a field together.
        let back = Fields::from(map);
        assert_eq!(back, of(&[("b", "1"), ("b", "3"), ("a", "2"), ("x-own", "4")]));
    }
}
