//! TOML values with their places: what is asked of one and is not there is an error that says where and what was expected.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{FlyTomlError, MAX_ITEMS, duration, shown};
use crate::observation::fly_toml::{Told, Wait};

/// Where lines begin.
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Of `text`.
    pub fn of(text: &'a str) -> Self {
        let after = |(at, _): (usize, &str)| at + 1;
        Self {
            text,
            starts: std::iter::once(0)
                .chain(text.match_indices('\n').map(after))
                .collect(),
        }
    }

    /// The line of a byte, from 1.
    pub fn line(&self, at: usize) -> u32 {
        let line = self.starts.partition_point(|start| *start <= at);
        u32::try_from(line.max(1)).unwrap_or(u32::MAX)
    }

    /// An error at a byte.
    pub fn error(&self, at: usize, what: String) -> FlyTomlError {
        let line = self.line(at);
        let start = usize::try_from(line - 1)
            .ok()
            .and_then(|index| self.starts.get(index))
            .copied()
            .unwrap_or(0);
        let before = self.text.get(start..at).map_or(0, |text| text.chars().count());
        FlyTomlError {
            line,
            column: u32::try_from(before).unwrap_or(u32::MAX).saturating_add(1),
            what,
        }
    }
}

/// A value, whose it is, and where.
#[derive(Clone, Copy)]
pub struct Value<'a> {
    value: &'a Spanned<DeValue<'a>>,
    lines: &'a Lines<'a>,
    key: &'a str,
    /// Where its key stands; a table that a header opens has its span there.
    at: usize,
}

impl<'a> Value<'a> {
    /// An error that says what was expected here.
    pub fn error(&self, expected: &str) -> FlyTomlError {
        let kind = self.value.get_ref().type_str();
        let what = format!(
            "`{}` is a value of kind {kind}: expected {expected}",
            shown(self.key)
        );
        self.lines.error(self.start(), what)
    }

    fn start(&self) -> usize {
        // Tables made by dotted keys and headers may have an empty span.
        match self.value.span() {
            span if span.end > span.start => span.start,
            _ => self.at,
        }
    }

    /// Its line.
    pub fn line(&self) -> u32 {
        self.lines.line(self.start())
    }

    /// Whether it is an array.
    pub fn is_array(&self) -> bool {
        self.value.get_ref().is_array()
    }

    /// Its items, where it is an array.
    pub fn items(&self) -> impl Iterator<Item = Self> + use<'a> {
        let (lines, key, at) = (self.lines, self.key, self.at);
        self.value
            .get_ref()
            .as_array()
            .into_iter()
            .flat_map(|array| array.iter())
            .map(move |value| Self {
                value,
                lines,
                key,
                at,
            })
    }

    /// As text.
    pub fn str(&self, expected: &str) -> Result<&'a str, FlyTomlError> {
        self.value.get_ref().as_str().ok_or_else(|| self.error(expected))
    }

    /// As a table.
    pub fn table(&self, expected: &str) -> Result<Table<'a>, FlyTomlError> {
        let table = self
            .value
            .get_ref()
            .as_table()
            .ok_or_else(|| self.error(expected))?;
        Ok(Table {
            table,
            lines: self.lines,
            line: self.line(),
        })
    }

    /// One table, or an array of them.
    pub fn tables(&self, expected: &str) -> Result<Vec<Table<'a>>, FlyTomlError> {
        if self.is_array() {
            self.items().map(|item| item.table(expected)).collect()
        } else {
            Ok(vec![self.table(expected)?])
        }
    }

    /// A whole number; old files have it as text.
    pub fn integer(&self, expected: &str) -> Result<i64, FlyTomlError> {
        let value = self.value.get_ref();
        let number = match (value.as_integer(), value.as_str()) {
            (Some(integer), _) => i64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            (None, Some(text)) => text.trim().parse().ok(),
            (None, None) => None,
        };
        number.ok_or_else(|| self.error(expected))
    }

    fn told<T>(&self, value: T) -> Told<T> {
        Told {
            value,
            line: self.line(),
        }
    }
}

/// A table.
#[derive(Clone, Copy)]
pub struct Table<'a> {
    table: &'a DeTable<'a>,
    lines: &'a Lines<'a>,
    /// Its line.
    pub line: u32,
}

impl<'a> Table<'a> {
    /// The whole file.
    pub fn root(table: &'a DeTable<'a>, lines: &'a Lines<'a>) -> Self {
        Self {
            table,
            lines,
            line: 1,
        }
    }

    /// The value of `key`.
    pub fn get(&self, key: &'static str) -> Option<Value<'a>> {
        let (name, value) = self.table.get_key_value(key)?;
        Some(Value {
            value,
            lines: self.lines,
            key: name.get_ref(),
            at: name.span().start,
        })
    }

    /// Everything in it, in the file's order, with the lines of the keys.
    pub fn entries(&self) -> Vec<(&'a str, u32, Value<'a>)> {
        let mut entries: Vec<_> = self
            .table
            .iter()
            .map(|(name, value)| {
                let at = name.span().start;
                let value = Value {
                    value,
                    lines: self.lines,
                    key: name.get_ref(),
                    at,
                };
                (at, name.get_ref().as_ref(), value)
            })
            .collect();
        entries.sort_by_key(|(at, _, _)| *at);
        entries
            .into_iter()
            .map(|(at, name, value)| (name, self.lines.line(at), value))
            .collect()
    }

    /// Text.
    pub fn text(&self, key: &'static str) -> Result<Option<Told<String>>, FlyTomlError> {
        self.get(key)
            .map(|value| Ok(value.told(shown(value.str("text")?))))
            .transpose()
    }

    /// Texts; one alone stands for a list of it.
    pub fn texts(&self, key: &'static str) -> Result<Vec<Told<String>>, FlyTomlError> {
        let expected = "a list of texts";
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(value) if value.is_array() => value
                .items()
                .take(MAX_ITEMS)
                .map(|item| Ok(item.told(shown(item.str(expected)?))))
                .collect(),
            Some(value) => Ok(vec![value.told(shown(value.str(expected)?))]),
        }
    }

    /// `true` or `false`.
    pub fn boolean(&self, key: &'static str) -> Result<Option<Told<bool>>, FlyTomlError> {
        let read = |value: Value<'a>| {
            let read = value.value.get_ref().as_bool();
            read.map(|b| value.told(b))
                .ok_or_else(|| value.error("true or false"))
        };
        self.get(key).map(read).transpose()
    }

    /// A port, 1 to 65535; old files have it as text.
    pub fn port(&self, key: &'static str) -> Result<Option<Told<u16>>, FlyTomlError> {
        let expected = "a port, 1 to 65535";
        let read = |value: Value<'a>| {
            let port = u16::try_from(value.integer(expected)?)
                .ok()
                .filter(|port| *port > 0);
            port.map(|port| value.told(port))
                .ok_or_else(|| value.error(expected))
        };
        self.get(key).map(read).transpose()
    }

    /// A count, 0 or more.
    pub fn count(&self, key: &'static str) -> Result<Option<Told<u32>>, FlyTomlError> {
        let expected = "a number, 0 or more";
        let read = |value: Value<'a>| {
            let count = u32::try_from(value.integer(expected)?).ok();
            count
                .map(|count| value.told(count))
                .ok_or_else(|| value.error(expected))
        };
        self.get(key).map(read).transpose()
    }

    /// A length of time.
    pub fn wait(&self, key: &'static str) -> Result<Option<Told<Wait>>, FlyTomlError> {
        let expected = "a time such as \"10s\" or \"1m30s\", or a number of milliseconds";
        let read = |value: Value<'a>| {
            let span = match value.value.get_ref().as_str() {
                Some(text) => duration::text(text),
                None => duration::milliseconds(value.integer(expected)?),
            };
            span.map(|span| value.told(Wait(span)))
                .ok_or_else(|| value.error(expected))
        };
        self.get(key).map(read).transpose()
    }
}
