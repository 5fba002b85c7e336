//! The declarations in `graphs/*.toml`: which stages there are and what each may see.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::need::Parsed;
use crate::config::{Image, View};

/// The name under which an image has the arguments of the command line. No setting has it.
pub const ARGUMENTS: &str = "arguments";

/// What a node waits for when more nodes are ready than may run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// One place per processor.
    Cpu,
    /// Work that is bound by the disk: unpacking, copying.
    Disk,
    /// Work that is bound by the network.
    Network,
}

/// What a sandboxed command sees of the stage's tree.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RootAccess {
    /// Nothing.
    #[default]
    None,
    /// The tree, read-only.
    ReadOnly,
    /// The tree; changes become the stage's layer.
    ReadWrite,
    /// The tree; changes are thrown away.
    Scratch,
}

/// Whether a sandboxed command has the network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Network {
    /// Loopback alone.
    #[default]
    No,
    /// The host's network.
    Yes,
    /// As the setting of this name says.
    #[serde(untagged)]
    Setting(String),
}

/// How much of the build sources a sandboxed command sees (and its key holds).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sources {
    /// Nothing.
    #[default]
    No,
    /// The files, without version control's own (`.git` and the like): a commit that changes no file changes no key.
    Plain,
    /// Version control's files too.
    All,
}

/// Whether a stage runs programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Programs {
    /// It is made by this program alone: another tools tree changes nothing.
    None,
    /// It does, and what it makes is the same whichever they are.
    Unkeyed,
    /// It does.
    Keyed,
}

/// The stage whose tree lies over the tools. Every stage that runs programs needs it.
pub(super) const SANDBOX_TREES: &str = "sandbox-trees";

/// Settings that say where programs come from. They count for every stage that runs some: not their values, but what
/// lies where they point.
pub(super) const OF_PROGRAMS: [&str; 3] = ["ExtraSearchPaths", "ToolsTree", "ToolsTreeCertificates"];

/// What the sandbox of a stage holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct SandboxProfile {
    /// The stage's tree at `/buildroot`.
    #[serde(default)]
    pub root: RootAccess,
    /// The project's sources at `/work/src`.
    #[serde(default)]
    pub sources: Sources,
    /// The network.
    #[serde(default)]
    pub network: Network,
    /// Conditions under which just what a command reads of the sources enters the key: all must hold, and without any
    /// all of the sources does.
    #[serde(default)]
    pub traced: Vec<String>,
    /// Whether a command may write security labels, where the user can give it that right.
    #[serde(default)]
    pub labels: bool,
    /// Conditions under which a command may use loop devices and mount what is on them: all must hold, and without any
    /// none does.
    #[serde(default)]
    pub loop_devices: Vec<String>,
}

/// One stage as declared.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StageDecl {
    /// What it makes, in a few words.
    pub about: String,
    /// Raised whenever the stage's code would make something else of the same inputs.
    pub version: u64,
    /// The stage whose tree this one works on.
    pub tree: Option<String>,
    /// The paths of its tree that it sees, with all below them; without any it sees all of it.
    #[serde(default)]
    pub part: Vec<String>,
    /// Whether it adds a layer to its tree.
    #[serde(default)]
    pub changes: bool,
    /// Outputs beside the tree.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Outputs of other stages, `stage.output`.
    #[serde(default)]
    pub needs: Vec<String>,
    /// Outputs of other stages that change how it works, never what it makes: no part of the key.
    #[serde(default)]
    pub unkeyed_needs: Vec<String>,
    /// Outputs of stages of each image in `Dependencies=`: the last of them whose stage is part of that image.
    #[serde(default)]
    pub dependency_needs: Vec<String>,
    /// The settings that it may ask for.
    #[serde(default)]
    pub settings: Vec<String>,
    /// Conditions whose outcome it may ask for: of a setting that matters in one respect only, that alone is an input.
    #[serde(default)]
    pub tests: Vec<String>,
    /// Settings that it may ask for besides and that change how it works, never what it makes: no part of the key.
    #[serde(default)]
    pub unkeyed: Vec<String>,
    /// Files of the host that it reads, by absolute path; a missing one has a digest of its own.
    #[serde(default)]
    pub host_files: Vec<String>,
    /// Whether its scripts get the arguments of the command line.
    #[serde(default)]
    pub arguments: bool,
    /// Whether it signs with the user's OpenPGP key: whose that is, is an input.
    #[serde(default)]
    pub signer: bool,
    /// Those settings whose host files are inputs.
    #[serde(default)]
    pub files: Vec<String>,
    /// Programs that it runs, of the host or of the tools tree; `*` for whichever it likes.
    #[serde(default)]
    pub tools: Vec<String>,
    /// Programs that it runs and that never change what it makes: no part of the key.
    #[serde(default)]
    pub unkeyed_tools: Vec<String>,
    /// Conditions that must all hold.
    #[serde(default)]
    pub when: Vec<String>,
    /// What it waits for.
    pub pool: Pool,
    /// Whether its result is kept until a refresh although the world may have changed.
    #[serde(default)]
    pub volatile: bool,
    /// Whether it runs before the graph is compiled, since it changes files of the host that are inputs of other stages.
    #[serde(default)]
    pub ahead: bool,
    /// Whether it writes to the output directory: it has no record, its state is looked up where it writes.
    #[serde(default)]
    pub publishes: bool,
    /// What a command of it sees.
    pub sandbox: SandboxProfile,
    /// The texts above, read.
    #[serde(skip)]
    pub parsed: Parsed,
}

impl StageDecl {
    /// Every setting that the stage's code may ask for.
    pub fn visible(&self) -> impl Iterator<Item = &str> {
        self.settings.iter().chain(&self.unkeyed).map(String::as_str)
    }

    /// The outcomes of `tests` for an image, by the condition's text.
    pub fn outcomes(&self, image: &Image) -> BTreeMap<String, bool> {
        self.parsed.tests.iter().map(|condition| (condition.to_string(), condition.holds(image))).collect()
    }

    /// The view of an image that the stage's code gets.
    pub fn view(&self, stage: &str, image: &Image) -> View {
        let arguments = self.arguments.then_some(ARGUMENTS);
        View::new(stage, image, self.visible().chain(arguments)).with_tests(self.outcomes(image))
    }

    /// The programs that it names.
    pub fn named_tools(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(String::as_str).filter(|name| *name != "*")
    }

    /// Whether it runs programs, and whether these are in its key.
    pub fn programs(&self) -> Programs {
        match (self.tools.is_empty(), self.unkeyed_tools.is_empty()) {
            (false, _) => Programs::Keyed,
            (true, false) => Programs::Unkeyed,
            (true, true) => Programs::None,
        }
    }

    /// Whether for an image just what is read of the sources enters the key.
    pub fn traces(&self, image: &Image) -> bool {
        let conditions = &self.parsed.traced;
        !conditions.is_empty() && conditions.iter().all(|condition| condition.holds(image))
    }

    /// Whether its commands get loop devices for an image.
    pub fn uses_loop_devices(&self, image: &Image) -> bool {
        let conditions = &self.parsed.loop_devices;
        !conditions.is_empty() && conditions.iter().all(|condition| condition.holds(image))
    }

    /// Every output, the tree first.
    pub fn all_outputs(&self) -> Vec<&str> {
        let tree = (self.changes).then_some("tree");
        tree.into_iter().chain(self.outputs.iter().map(String::as_str)).collect()
    }
}
