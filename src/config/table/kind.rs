//! How the text of a setting is read: the kinds of values, of list items and of paths.
//!
//! Knows nothing of single settings.

use std::collections::BTreeMap;

use super::super::value::Value;
use super::Choices;

/// What a path must be, and what else may stand in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathRule {
    /// It must exist while the configuration is read.
    pub required: bool,
    /// It must be absolute as written, because it is a path in the image and not on the host.
    pub absolute: bool,
    /// Nobody but its owner should read it.
    pub secret: bool,
    /// Words that stand for themselves.
    pub constants: &'static [&'static str],
    /// It may not lie below one of these.
    pub exclude: &'static [&'static str],
}

impl PathRule {
    /// A path that may be missing.
    pub const ANY: Self = Self { required: false, absolute: false, secret: false, constants: &[], exclude: &[] };
    /// A path that must exist.
    pub const EXISTS: Self = Self { required: true, ..Self::ANY };
    /// A file with a secret.
    pub const SECRET: Self = Self { secret: true, ..Self::EXISTS };
}

/// What one item of a list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A text. `!text` removes what matches it from the list so far.
    Word,
    /// A text that is taken as it is, `!` included.
    Text,
    /// A name without a path in it.
    Name,
    /// One of an enumeration.
    Choice(&'static Choices),
    /// A pattern of kernel modules or firmware: `default`, `host`, or a regular expression that gets the mark `re:`.
    Regex,
    /// A path on the host.
    Path(PathRule),
    /// `source[:target]`.
    Tree {
        /// The source must exist while the configuration is read.
        required: bool,
        /// The target must be absolute.
        absolute: bool,
        /// The source must be a directory.
        directory: bool,
        /// A target can't be given.
        bare: bool,
    },
    /// `id:size[:directory[:options[:file-id[:flags]]]]`, a drive of a virtual machine.
    Drive,
    /// A file with a `[UKIProfile]` section.
    UkiProfile,
}

/// How the text of a list is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// At commas and white space.
    Words,
    /// At spaces and line ends.
    Spaces,
    /// At spaces and line ends, with the quotes and backslashes of the shell.
    Quoted,
}

/// How the text of a setting becomes a [`Value`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `Bool`.
    Bool,
    /// `Text`: `auto`, `enabled` or `disabled`.
    Feature,
    /// `Text`, as it is.
    Text,
    /// `Text` without a path in it.
    Name,
    /// `Number` that is not below a least value.
    Number {
        /// The least value.
        min: i64,
    },
    /// `Number` of an access mode, written in octal.
    Mode,
    /// `Number` of bytes, rounded up to pages of 4096; written with `K`, `M` or `G`.
    Bytes,
    /// `Number`: a power of two from 512 to 4096.
    SectorSize,
    /// `Number`: a VSock connection ID, -1 for `auto`, -2 for `hash`.
    VsockCid,
    /// `Text`: a UUID in lower case with hyphens, or `random`.
    Uuid,
    /// `Text`: the least version of this language; the highest of several assignments counts.
    MinimumVersion,
    /// `Text`: one of an enumeration.
    Enum(&'static Choices),
    /// `Path`, or `Text` for one of its constants.
    Path(PathRule),
    /// `Path` of a key or certificate that exists, or `Text` as written: a name or URI for an engine or provider.
    KeyFile,
    /// `Map` of `type` and `source`; the first choice is the default.
    Source(&'static Choices),
    /// `Map` of `password` and `hashed`.
    Password,
    /// `List`.
    List {
        /// What its items are.
        item: Item,
        /// How its text is cut.
        split: Split,
    },
    /// `List` of words sorted: names, then paths, then conditions in parentheses.
    Packages,
    /// `List` of paths with shell patterns.
    Scripts,
    /// `List` of the artifacts to split out; takes a boolean too.
    Artifacts(&'static Choices),
    /// `Map` of texts. Where `passes`, a name without a value takes it from the environment.
    Dict {
        /// Whether a name without `=` takes the environment's value.
        passes: bool,
    },
    /// `List` of maps of `name` and `value` or `path`.
    Credentials,
}

impl Kind {
    /// Words split at commas and white space.
    pub const WORDS: Self = Self::List { item: Item::Word, split: Split::Words };
    /// Texts split at spaces.
    pub const SPACED: Self = Self::List { item: Item::Text, split: Split::Spaces };

    /// A list of paths.
    pub const fn paths(rule: PathRule) -> Self {
        Self::List { item: Item::Path(rule), split: Split::Words }
    }

    /// Whether a further assignment adds to the value instead of replacing it.
    pub const fn is_collection(self) -> bool {
        matches!(
            self,
            Self::List { .. }
                | Self::Packages
                | Self::Scripts
                | Self::Artifacts(_)
                | Self::Dict { .. }
                | Self::Credentials
        )
    }

    /// Whether `!pattern` takes items out of the list.
    pub const fn removes(self) -> bool {
        matches!(self, Self::Packages | Self::List { item: Item::Word, .. })
    }

    /// What a setting of this kind holds when nothing sets it and it has no default of its own.
    pub fn empty(self) -> Value {
        match self {
            Self::Bool => Value::Bool(false),
            Self::Feature => Value::text("auto"),
            Self::Dict { .. } => Value::Map(BTreeMap::new()),
            Self::Source(choices) => source(choices.names.first().copied().unwrap_or_default(), ""),
            kind if kind.is_collection() => Value::List(Vec::new()),
            _ => Value::None,
        }
    }

    /// The words that are accepted, where they can be listed.
    pub fn accepted(self) -> Option<String> {
        match self {
            Self::Bool => Some("yes, no".to_owned()),
            Self::Feature => Some("auto, yes, no".to_owned()),
            Self::Enum(choices)
            | Self::Source(choices)
            | Self::Artifacts(choices)
            | Self::List { item: Item::Choice(choices), .. } => Some(choices.accepted()),
            _ => None,
        }
    }
}

/// The value of a key or certificate source.
pub(in crate::config) fn source(kind: &str, source: &str) -> Value {
    Value::Map(BTreeMap::from([("type".to_owned(), Value::text(kind)), ("source".to_owned(), Value::text(source))]))
}
