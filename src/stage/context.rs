//! What a stage is given: a view of the configuration, what it needs, a place to work, and its sandbox.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::apply::APPLY;
use super::{Outputs, StageError, Tools};
use crate::config::View;
use crate::reads::Recording;
use crate::sandbox::{self, Cancel, HostRoot, Input, Mount, Output, PATH, Rights, Spec, host_root};
use crate::store::{
    Artifact, Backend, Entry, Hasher, Ingest, Layer, Materialise, MergedEntry, MergedTree, Store, TreeOptions, WorkDir,
    copy_tree, lower_dirs, materialise,
};
use crate::types::Digest;

/// Where the tree of a stage is seen in its sandbox.
pub const BUILDROOT: &str = "/buildroot";

/// What a command of the stage may do to the stage's tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    /// It does not see it.
    None,
    /// It reads it.
    ReadOnly,
    /// Its changes become the stage's layer.
    ReadWrite,
    /// Its changes are thrown away.
    Scratch,
}

/// What the stage's sandbox holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The stage's tree.
    pub root: Root,
    /// Whether the build sources are seen.
    pub sources: bool,
    /// Whether the host's network is.
    pub network: bool,
    /// Whether commands may write security labels.
    pub labels: bool,
    /// Whether commands may use loop devices, and mount.
    pub loop_devices: bool,
}

/// One file input of a stage.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file or directory of the host, without the hidden paths below it.
    Host {
        /// Where it is.
        path: PathBuf,
        /// What is not seen of it.
        hidden: Arc<[PathBuf]>,
    },
    /// An output of another image.
    Image(Artifact),
}

/// The upper directory of a tree that a stage changes.
#[derive(Debug)]
pub struct Tree {
    /// The layers below, lowest first.
    pub lowers: Vec<Layer>,
    /// Where changes go: the upper directory, or the whole copied tree where overlays can't be mounted.
    pub upper: PathBuf,
    /// A directory of changes above the layers that is only read: what a stage that failed has left.
    pub above: Option<PathBuf>,
    /// The overlay's work directory.
    work: PathBuf,
    /// Whether `upper` is a copy of the whole tree.
    copied: bool,
}

/// Everything a stage is given.
pub struct Context<'a> {
    /// The stage's name.
    pub stage: &'a str,
    /// The settings that it declared.
    pub view: &'a View,
    /// Outputs of other stages by `stage.output`.
    pub needs: BTreeMap<String, Artifact>,
    /// File inputs by `Setting/index[/name]`.
    pub sources: BTreeMap<String, Source>,
    /// Takes what is read of the build sources, for a stage whose key has just that of them.
    pub recording: Option<&'a Recording>,
    /// The layers of the stage's tree, lowest first; none for a stage that sees a part of it.
    pub layers: Vec<Layer>,
    /// What a stage sees that doesn't see all of its tree.
    pub part: Option<MergedTree>,
    /// What its sandbox holds.
    pub profile: Profile,
    /// Where the programs of its sandbox come from.
    pub tools: &'a Tools,
    /// The store.
    pub store: &'a Store,
    /// A fresh directory of its own on the store's file system; removed afterwards.
    pub work: &'a WorkDir,
    /// Whether the image was built before.
    pub cached: bool,
    /// When the stage began: what a file says to be newer is a time of this build.
    pub started: SystemTime,
    /// Takes everything that its commands print.
    pub log: &'a mut (dyn Write + Send),
    /// The wish to stop.
    pub cancel: &'a Cancel,
    /// Whether an output that is not ours may be replaced.
    pub force: bool,
    /// Whether the user gets a shell in the sandbox of a script that fails.
    pub debug_shell: bool,
    /// The layers of the tree that was opened, if one was: should the stage fail, they tell what its changes are to.
    pub opened: Cell<Option<Vec<Digest>>>,
    /// Whether the log says what each sandbox consists of.
    pub debug_sandbox: bool,
}

/// The file inputs whose names begin with `prefix`, which the rest of the name follows: in the user's order, which is
/// that of their numbers. As text 100 comes before 11.
pub fn in_order<'s, T>(sources: impl Iterator<Item = (&'s str, T)>, prefix: &str) -> Vec<(&'s str, T)> {
    let mut found: Vec<_> =
        sources.filter_map(|(name, source)| name.strip_prefix(prefix).map(|rest| (rest, source))).collect();
    let number = |name: &str| name.split('/').next().and_then(|number| number.parse::<u64>().ok());
    found.sort_by(|(a, _), (b, _)| number(a).cmp(&number(b)).then_with(|| a.cmp(b)));
    found
}

/// A specification that holds these tools, and the network if that is asked for.
pub fn host_spec(argv: &[&str], network: bool, tools: &sandbox::Tools) -> Spec {
    let root = HostRoot { network, names: vec![APPLY.to_owned()], tools: tools.clone(), ..HostRoot::default() };
    let mut spec = Spec {
        argv: argv.iter().map(|word| (*word).to_owned()).collect(),
        mounts: host_root(&root),
        network,
        ..Spec::default()
    };
    for (name, value) in [
        ("PATH", tools.path(PATH).as_str()),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("HOME", "/"),
        ("TMPDIR", "/var/tmp"),
    ] {
        spec.env.insert(name.to_owned(), value.to_owned());
    }
    spec
}

impl Context<'_> {
    /// Modification time for what a build makes itself: `SourceDateEpoch=`, else the start of 1970.
    pub fn epoch(&self) -> i64 {
        self.source_date_epoch().unwrap_or(0)
    }

    /// How files enter the store.
    pub fn ingest(&self) -> Ingest {
        let set = self.source_date_epoch();
        // What makes outputs may write labels too, into its disk; the tree that it sees is only read.
        let labels = self.profile.labels && self.profile.root == Root::ReadWrite;
        Ingest { epoch: set.unwrap_or(0), started: self.started, clamp: set.is_some(), labels }
    }

    /// The file inputs of a setting, in the user's order.
    pub fn sources_of(&self, setting: &str) -> Vec<(&str, &Source)> {
        let sources = self.sources.iter().map(|(name, source)| (name.as_str(), source));
        in_order(sources, &format!("{setting}/"))
    }

    /// A subdirectory of the work directory.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn scratch(&self, name: &str) -> Result<PathBuf, StageError> {
        let path = self.work.join(name);
        std::fs::create_dir_all(&path).map_err(StageError::io("make the directory", &path))?;
        Ok(path)
    }

    /// The stage's tree, or the part of it that the stage sees, without mounting it.
    pub fn merged(&self) -> MergedTree {
        self.part.clone().unwrap_or_else(|| MergedTree::new(&self.layers))
    }

    /// Makes the stage's tree changeable.
    ///
    /// # Errors
    /// When the directories can't be made or, where overlays can't be mounted, the tree can't be copied.
    pub fn open_tree(&self) -> Result<Tree, StageError> {
        self.opened.set(Some(self.layers.iter().map(|layer| layer.digest).collect()));
        let (upper, work) = self.work.overlay(Some(&self.merged()))?;
        let copied = matches!(self.store.backend(), Backend::Copy { .. });
        if copied {
            materialise(&self.layers, &upper, &Materialise { break_links: true, ..Materialise::default() })?;
        }
        Ok(Tree { lowers: self.layers.clone(), upper, above: None, work, copied })
    }

    /// As [`Context::open_tree`], as a copy in any case: it shows whiteouts of [`Context::part`] that a mount would hide.
    ///
    /// # Errors
    /// When the directories can't be made, or the tree can't be copied.
    pub fn open_copy(&self) -> Result<Tree, StageError> {
        let tree = self.merged();
        let (upper, work) = self.work.overlay(Some(&tree))?;
        copy_tree(&tree, &upper, &Materialise { break_links: true, ..Materialise::default() })?;
        Ok(Tree { lowers: self.layers.clone(), upper, above: None, work, copied: true })
    }

    /// As [`Context::open_tree`], with what a stage that failed has left in its `upper` directory on top.
    ///
    /// # Errors
    /// As there.
    pub fn open_left(&self, left: PathBuf) -> Result<Tree, StageError> {
        let meta = left.metadata().map_err(StageError::io("look at", &left))?;
        let (upper, work) = self.work.overlay(None)?;
        std::fs::set_permissions(&upper, meta.permissions()).map_err(StageError::io("set the mode of", &upper))?;
        let copied = matches!(self.store.backend(), Backend::Copy { .. });
        if copied {
            // Without overlays it is a whole tree.
            let options = TreeOptions { owners: true, ..TreeOptions::default() };
            let entries = Hasher::new(self.store).tree_index(&left, &options)?.entries.into_iter();
            let place = |entry: &Entry| left.join(OsStr::from_bytes(&entry.path));
            let tree =
                MergedTree { entries: entries.map(|entry| MergedEntry { source: place(&entry), entry }).collect() };
            copy_tree(&tree, &upper, &Materialise { break_links: true, ..Materialise::default() })?;
        }
        Ok(Tree { lowers: self.layers.clone(), upper, above: Some(left), work, copied })
    }

    /// The mount of a changeable tree at [`BUILDROOT`].
    pub fn tree_mount(&self, tree: &Tree) -> Mount {
        if tree.copied {
            return Mount::Bind {
                source: tree.upper.clone(),
                target: BUILDROOT.into(),
                read_only: false,
                optional: false,
            };
        }
        let mut lowers = lower_dirs(&tree.lowers);
        lowers.extend(tree.above.clone());
        Mount::Overlay { lowers, upper: Some((tree.upper.clone(), tree.work.clone())), target: BUILDROOT.into() }
    }

    /// A mount of stored layers whose changes are thrown away; `name` is that of its place in the work directory.
    ///
    /// # Errors
    /// When the directories can't be made or, where overlays can't be mounted, the tree can't be copied.
    pub fn throwaway(&self, name: &str, layers: &[Layer], target: PathBuf) -> Result<Mount, StageError> {
        let upper = self.scratch(name)?;
        if matches!(self.store.backend(), Backend::Copy { .. }) {
            materialise(layers, &upper, &Materialise { break_links: true, ..Materialise::default() })?;
            return Ok(Mount::Bind { source: upper, target, read_only: false, optional: false });
        }
        let upper = Some((upper, self.scratch(&format!("{name}-overlay"))?));
        Ok(Mount::Overlay { lowers: lower_dirs(layers), upper, target })
    }

    /// The mount of a directory that a stage which failed has left, if it is there; changes to it are thrown away.
    ///
    /// # Errors
    /// When the directories can't be made.
    pub fn throwaway_copy(&self, name: &str, left: &Path, target: &str) -> Result<Option<Mount>, StageError> {
        if !left.is_dir() {
            return Ok(None);
        }
        if matches!(self.store.backend(), Backend::Copy { .. }) {
            let (source, target) = (left.to_path_buf(), target.into());
            return Ok(Some(Mount::Bind { source, target, read_only: true, optional: false }));
        }
        let upper = Some((self.scratch(&format!("{name}-look"))?, self.scratch(&format!("{name}-overlay"))?));
        Ok(Some(Mount::Overlay { lowers: vec![left.to_path_buf()], upper, target: target.into() }))
    }

    /// Takes the changes to the tree into the store: the outputs of a stage that adds a layer.
    ///
    /// # Errors
    /// When the store can't take them.
    pub fn close_tree(&self, tree: Tree) -> Result<Outputs, StageError> {
        let lower = MergedTree::new(&tree.lowers);
        let layer = if tree.copied {
            self.store.add_layer_from_diff(&tree.upper, &lower, &self.ingest())?
        } else {
            self.store.add_layer(&tree.upper, Some(&lower), &self.ingest())?
        };
        let mut layers: Vec<_> = tree.lowers.iter().map(|layer| layer.digest).collect();
        // A stage that changed nothing adds nothing: what follows is then found by the key it had before.
        if layers.is_empty() || !layer.changes_nothing() {
            layers.push(layer.digest);
        }
        Ok(Outputs::from([("tree".to_owned(), Artifact::Tree { layers })]))
    }

    /// A specification that holds the stage's tools, and the network if the stage declares it.
    pub fn spec(&self, argv: &[&str]) -> Spec {
        let mut spec = host_spec(argv, self.profile.network, &self.tools.sandbox);
        if let Some(epoch) = self.source_date_epoch() {
            spec.env.insert("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string());
        }
        spec
    }

    /// The rights of a command that writes security labels. In a user namespace the kernel would not let it, whatever
    /// it has.
    pub fn label_rights(&self) -> Rights {
        if self.profile.labels && sandbox::started_as_root() { Rights::Labels } else { Rights::Usual }
    }

    /// `SourceDateEpoch=`, for a stage that declares it.
    fn source_date_epoch(&self) -> Option<i64> {
        self.view.iter().find(|(name, _)| *name == "SourceDateEpoch").and_then(|(_, value)| value.as_number())
    }

    /// Runs a specification; what it prints goes to the log.
    ///
    /// # Errors
    /// When the sandbox can't be made, the run is cancelled, or the command fails.
    pub fn run(&mut self, spec: &Spec) -> Result<(), StageError> {
        if self.debug_sandbox {
            self.note(&format!("sandbox: {}", spec.describe()));
        }
        let exit = spec.run(Input::Null, Output::Merged(self.log), self.cancel)?;
        if exit.success() {
            return Ok(());
        }
        if self.cancel.is_cancelled() {
            return Err(StageError::Cancelled);
        }
        Err(StageError::Command { command: spec.argv.join(" "), exit })
    }

    /// Writes a line to the node's log.
    pub fn note(&mut self, text: &str) {
        // A log that can't be written must not fail a build.
        let _ = writeln!(self.log, "{text}");
    }

    /// The first path of a file input that lies on the host.
    pub fn host_path(source: &Source) -> Option<&Path> {
        match source {
            Source::Host { path, .. } => Some(path),
            Source::Image(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_and_one_items_keep_their_order() {
        let mut sources = BTreeMap::from([("Other/00".to_owned(), 0), ("ScriptsMore/00".to_owned(), 0)]);
        for index in 0..101 {
            sources.insert(format!("Scripts/{index:02}/mkosi.build"), index);
        }
        let found = in_order(sources.iter().map(|(name, source)| (name.as_str(), *source)), "Scripts/");
        assert_eq!(found.iter().map(|(_, index)| *index).collect::<Vec<_>>(), (0..101).collect::<Vec<_>>());
        assert_eq!(found.last(), Some(&("100/mkosi.build", 100)));
    }
}
