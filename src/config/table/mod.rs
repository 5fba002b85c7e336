//! The settings table: one entry for each setting of the configuration language. The parser of files, the command
//! line, the defaults, the summary and the documentation are all driven by it.
//!
//! Knows nothing of files, of where a value comes from, or of what a stage does with it.

mod build;
mod choices;
mod config;
mod content;
mod distribution;
mod kind;
mod output;
pub mod removed;
mod runtime;
mod validation;

use std::collections::BTreeMap;
use std::sync::LazyLock;

pub use choices::{Choices, DISTRIBUTION};
pub(super) use kind::source;
pub use kind::{Item, Kind, PathRule, Split};

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
