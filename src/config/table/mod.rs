//! The settings table: one entry for each setting of the configuration language. The parser of files, the command
//! line, the defaults, the summary and the documentation are all driven by it.
//!
//! Knows nothing of files, of where a value comes from, or of what a stage does with it.

mod build;
mod choices;
mod config;
mod content;
mod distribution;
mod output;
pub mod removed;
mod runtime;
mod validation;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use choices::{Choices, DISTRIBUTION};

use super::defaults::Lookup;
use super::value::Value;

/// Which images a setting belongs to, and which images get the value that the main image has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Each image has its own value.
    Local,
    /// The main image's value counts for every image; only it and the tools tree may set it.
    Universal,
    /// As `Universal`, and for the tools tree as well; only the main image may set it.
    Multiversal,
    /// The main image's value is where every other image starts from.
    Inherit,
    /// Only for the main image.
    Main,
    /// Set in the main image with the prefix `ToolsTree`, for the default tools tree.
    Tools,
    /// Set in the main image with the prefix `Initrd`, for the default initrd.
    Initrd,
    /// As `Inherit`, but only for the default initrd.
    InitrdInherit,
}

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
    /// `Path` of a key or certificate, or `Text` for a URI of an engine or provider.
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
pub(super) fn source(kind: &str, source: &str) -> Value {
    Value::Map(BTreeMap::from([("type".to_owned(), Value::text(kind)), ("source".to_owned(), Value::text(source))]))
}

/// The value of a setting that nothing sets.
#[derive(Clone, Copy)]
pub enum Default {
    /// [`Kind::empty`].
    Empty,
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(i64),
    /// A text.
    Text(&'static str),
    /// A list of texts.
    Texts(&'static [&'static str]),
    /// What other settings, the host and the environment say.
    From(fn(&Lookup<'_>) -> Value),
}

/// How a condition in `[Match]` compares with the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matcher {
    /// By the kind: equality for what can be listed, a shell pattern or version comparison for text, one item for lists.
    Kind,
    /// As versions, equality where no operator is given.
    Version,
    /// An architecture, or `uefi` for those that have it.
    Architecture,
    /// The target of one of the trees.
    Target,
}

/// One setting of the configuration language.
pub struct Setting {
    /// The name in configuration files.
    pub name: &'static str,
    /// The section that it belongs in.
    pub section: &'static str,
    /// The setting whose value it changes; its own name but for a second spelling with other rules.
    pub stores: &'static str,
    /// The options, the long one first.
    pub options: &'static [&'static str],
    /// What the short option means when it takes no value: `-i` is `yes`, `-T` is `no`.
    pub short_value: Option<&'static str>,
    /// How its text is read.
    pub kind: Kind,
    /// Its value when nothing sets it.
    pub default: Default,
    /// Whether the empty assignment means "nothing" even though there is a default.
    pub nullable: bool,
    /// Which images it belongs to.
    pub scope: Scope,
    /// Whether the tools tree's own configuration may set it.
    pub tools: bool,
    /// Names after `mkosi.` of files and directories that set it by being there; `*` stands for each file.
    pub default_paths: &'static [&'static str],
    /// Whether the text in such a file, or what it prints if it can be executed, is the value.
    pub reads_path: bool,
    /// The letter after `%` that stands for its value.
    pub specifier: Option<char>,
    /// How `[Match]` compares it.
    pub matcher: Matcher,
    /// Names of older versions.
    pub aliases: &'static [&'static str],
    /// Options of older versions.
    pub old_options: &'static [&'static str],
    /// What stands for the value in `--help`.
    pub metavar: &'static str,
    /// What it is for, in a line.
    pub help: &'static str,
    /// Whether it can change an output. Those that can't are for running, for speed or for progress.
    pub affects_output: bool,
}

impl Setting {
    const fn new(name: &'static str, section: &'static str, options: &'static [&'static str], kind: Kind) -> Self {
        Self {
            name,
            section,
            stores: name,
            options,
            short_value: None,
            kind,
            default: Default::Empty,
            nullable: false,
            scope: Scope::Local,
            tools: false,
            default_paths: &[],
            reads_path: false,
            specifier: None,
            matcher: Matcher::Kind,
            aliases: &[],
            old_options: &[],
            metavar: "",
            help: "",
            affects_output: true,
        }
    }

    const fn help(mut self, help: &'static str) -> Self {
        self.help = help;
        self
    }

    const fn meta(mut self, metavar: &'static str) -> Self {
        self.metavar = metavar;
        self
    }

    const fn default(mut self, default: Default) -> Self {
        self.default = default;
        self
    }

    const fn nullable(mut self) -> Self {
        self.nullable = true;
        self
    }

    const fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    const fn tools(mut self) -> Self {
        self.tools = true;
        self
    }

    const fn at(mut self, paths: &'static [&'static str]) -> Self {
        self.default_paths = paths;
        self
    }

    const fn read(mut self, paths: &'static [&'static str]) -> Self {
        self.default_paths = paths;
        self.reads_path = true;
        self
    }

    const fn letter(mut self, letter: char) -> Self {
        self.specifier = Some(letter);
        self
    }

    const fn matched(mut self, matcher: Matcher) -> Self {
        self.matcher = matcher;
        self
    }

    const fn once(mut self, aliases: &'static [&'static str], options: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self.old_options = options;
        self
    }

    const fn stores(mut self, setting: &'static str) -> Self {
        self.stores = setting;
        self
    }

    const fn short(mut self, value: &'static str) -> Self {
        self.short_value = Some(value);
        self
    }

    const fn no_output(mut self) -> Self {
        self.affects_output = false;
        self
    }

    /// The setting's own value when nothing sets it.
    pub fn default_value(&self, lookup: &Lookup<'_>) -> Value {
        match self.default {
            Default::Empty => self.kind.empty(),
            Default::Bool(value) => Value::Bool(value),
            Default::Number(value) => Value::Number(value),
            Default::Text(text) => Value::text(text),
            Default::Texts(texts) => Value::List(texts.iter().copied().map(Value::text).collect()),
            Default::From(function) => function(lookup),
        }
    }

    /// Whether the empty assignment leaves it empty, and not at its default.
    pub fn clears(&self) -> bool {
        self.nullable || self.kind.is_collection()
    }

    /// Why a file of `image` may not set it, if it may not.
    pub fn prohibited_in(&self, image: &str) -> bool {
        match self.scope {
            _ if image == "tools" && !self.tools => true,
            Scope::Main | Scope::Tools | Scope::Initrd | Scope::Multiversal => image != "main",
            Scope::Universal => image != "main" && image != "tools",
            Scope::Local | Scope::Inherit | Scope::InitrdInherit => false,
        }
    }
}

/// Every setting, by sections in the order of the documentation.
pub static SETTINGS: LazyLock<Vec<&'static Setting>> = LazyLock::new(|| {
    [
        config::SETTINGS,
        distribution::SETTINGS,
        output::SETTINGS,
        content::SETTINGS,
        validation::SETTINGS,
        build::SETTINGS,
        runtime::SETTINGS,
    ]
    .into_iter()
    .flatten()
    .collect()
});

static BY_NAME: LazyLock<BTreeMap<&'static str, &'static Setting>> = LazyLock::new(|| {
    SETTINGS
        .iter()
        .flat_map(|setting| std::iter::once(&setting.name).chain(setting.aliases).map(move |name| (*name, *setting)))
        .collect()
});

/// The setting of a name or an older name.
pub fn find(name: &str) -> Option<&'static Setting> {
    BY_NAME.get(name).copied()
}

/// The names of all settings, without the older ones.
pub fn names() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|setting| setting.name)
}

/// The sections of settings, in their order.
pub const SECTIONS: &[&str] =
    &["Include", "Config", "Distribution", "Output", "Content", "Validation", "Build", "Runtime"];

/// The sections of conditions.
pub const CONDITIONS: &[&str] = &["Match", "TriggerMatch", "Assert", "TriggerAssert"];

/// Sections of older versions, and what they are called now.
pub const OLD_SECTIONS: &[(&str, &str)] =
    &[("Host", "Runtime"), ("Preset", "Config"), ("Packages", "Content"), ("Partitions", "Output")];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_options_are_unique_and_resolve() {
        let mut names = BTreeSet::new();
        let mut options = BTreeSet::new();
        for setting in SETTINGS.iter() {
            for name in std::iter::once(&setting.name).chain(setting.aliases) {
                assert!(names.insert(*name), "{name} twice");
                assert_eq!(find(name).map(|found| found.name), Some(setting.name));
            }
            for option in setting.options.iter().chain(setting.old_options) {
                assert!(options.insert(*option), "{option} twice");
                assert!(option.starts_with('-'), "{option}");
            }
            assert!(setting.options.first().is_some_and(|option| option.starts_with("--")), "{}", setting.name);
            assert!(find(setting.stores).is_some_and(|target| target.stores == target.name), "{}", setting.name);
        }
        assert!(SETTINGS.len() > 180, "{}", SETTINGS.len());
    }

    #[test]
    fn each_has_a_help_of_one_line_and_a_known_section() {
        for setting in SETTINGS.iter() {
            assert!(setting.help.len() > 10 && !setting.help.contains('\n'), "{}", setting.name);
            assert!(!setting.help.ends_with('.'), "{}", setting.name);
            assert!(SECTIONS.contains(&setting.section), "{}", setting.name);
        }
    }

    #[test]
    fn specifiers_are_unique() {
        let mut letters = BTreeSet::from(['C', 'P', 'D', 'F', 'I']);
        for setting in SETTINGS.iter() {
            assert!(setting.specifier.is_none_or(|letter| letters.insert(letter)), "{}", setting.name);
        }
    }

    #[test]
    fn only_what_is_read_as_text_reads_a_path() {
        for setting in SETTINGS.iter().filter(|setting| setting.reads_path) {
            assert!(!setting.default_paths.is_empty() && !setting.kind.is_collection(), "{}", setting.name);
        }
    }
}
