//! The value of a setting, and where it came from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::types::Encoder;

/// What a setting holds after parsing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// Not set, and no default.
    None,
    /// A boolean.
    Bool(bool),
    /// A number: a count, a mode, a size in bytes or a time in seconds.
    Number(i64),
    /// A text, or the name of one of an enumeration's choices.
    Text(String),
    /// An absolute path on the host. Its text never enters a key: what lies there does, when a stage declares
    /// the setting among its files.
    Path(PathBuf),
    /// An ordered list.
    List(Vec<Value>),
    /// Named fields, or a dictionary that the user wrote.
    Map(BTreeMap<String, Value>),
}

impl Value {
    /// A text value.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Whether the setting is unset, false, an empty text, an empty list or an empty map.
    pub fn is_empty(&self) -> bool {
        match self {
            Self::None | Self::Bool(false) => true,
            Self::Text(text) => text.is_empty(),
            Self::List(list) => list.is_empty(),
            Self::Map(map) => map.is_empty(),
            Self::Bool(true) | Self::Number(_) | Self::Path(_) => false,
        }
    }

    /// Whether the value is empty or the text `no`, as enumerations with a boolean sense have it.
    pub fn is_empty_or_no(&self) -> bool {
        self.is_empty() || self.as_text() == Some("no")
    }

    /// The boolean in this value.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The number in this value.
    pub fn as_number(&self) -> Option<i64> {
        match self {
            Self::Number(value) => Some(*value),
            _ => None,
        }
    }

    /// The text in this value.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(value) => Some(value),
            _ => None,
        }
    }

    /// The path in this value.
    pub fn as_path(&self) -> Option<&Path> {
        match self {
            Self::Path(value) => Some(value),
            _ => None,
        }
    }

    /// The items of a list; nothing for any other value.
    pub fn items(&self) -> &[Value] {
        match self {
            Self::List(items) => items,
            _ => &[],
        }
    }

    /// The items of a list, without a copy; nothing for any other value.
    pub fn into_items(self) -> Vec<Value> {
        match self {
            Self::List(items) => items,
            _ => Vec::new(),
        }
    }

    /// A field of a map.
    pub fn field(&self, name: &str) -> Option<&Value> {
        match self {
            Self::Map(map) => map.get(name),
            _ => None,
        }
    }

    /// Every host path in this value, in order.
    pub fn paths(&self) -> Vec<&Path> {
        match self {
            Self::Path(path) => vec![path],
            Self::List(items) => items.iter().flat_map(Value::paths).collect(),
            Self::Map(map) => map.values().flat_map(Value::paths).collect(),
            _ => Vec::new(),
        }
    }

    /// Writes the value in the canonical encoding of keys. A host path is written as a mark without its text.
    pub fn encode(&self, encoder: &mut Encoder) {
        match self {
            Self::None => encoder.str("none"),
            Self::Bool(value) => encoder.str("bool").number(u64::from(*value)),
            Self::Number(value) => encoder.str("number").bytes(&value.to_le_bytes()),
            Self::Text(value) => encoder.str("text").str(value),
            Self::Path(_) => encoder.str("path"),
            Self::List(items) => {
                encoder.str("list").list(items.len());
                for item in items {
                    item.encode(encoder);
                }
                encoder
            }
            Self::Map(map) => {
                encoder.str("map").list(map.len());
                for (name, value) in map {
                    encoder.str(name);
                    value.encode(encoder);
                }
                encoder
            }
        };
    }
}

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The setting's default, which may depend on other settings.
    Default,
    /// An assignment in a configuration file; line and column count from one.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the assignment that counted last.
        line: usize,
        /// The column of its first character.
        column: usize,
    },
    /// A file or directory with a name of its own, `mkosi.extra` for instance.
    DefaultPath(PathBuf),
    /// An option of the command line, as it was written.
    Option(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, .. } => write!(f, "{}:{line}", path.display()),
            Self::DefaultPath(path) => write!(f, "{}", path.display()),
            Self::Option(option) => f.write_str(option),
        }
    }
}

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sourced {
    /// The value.
    pub value: Value,
    /// Where it came from.
    pub origin: Origin,
}
