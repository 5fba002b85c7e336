//! The output directory: what lies there, what should, and bringing it there.
//!
//! A publication is recorded in the store: what was published, and how each file looked then. So a build that has
//! nothing to do finds that out with one look at each file. A directory output is looked at as a whole: whether it
//! is still the one that was put there, not every file in it.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::output::{image_tree, named_files};
use super::{Context, Outputs, StageError};
use crate::config::View;
use crate::output::OutputNames;
use crate::output::directory::{DirectoryOptions, clean_directory, publish_directory, vacate};
use crate::output::publish::{self, Content, PublishOptions, publish, withdraw};
use crate::store::{Artifact, Store};
use crate::types::{Digest, Encoder};

/// The mode of output files where `OutputMode=` says nothing.
const MODE: u32 = 0o644;

/// The record of a directory's publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PublishedTree {
    /// The layers that it shows.
    layers: Vec<Digest>,
    /// Whether they are a whole tree or what `Overlay=` leaves of one.
    overlay: bool,
    /// Whether it belongs to the foreign range of ids.
    #[serde(default)]
    foreign: bool,
    /// Device and inode of the directory.
    identity: (u64, u64),
}

/// What an image publishes.
struct Wanted {
    output: String,
    directory: PathBuf,
    overlay: bool,
    foreign: bool,
    tree: Option<Vec<Digest>>,
    files: BTreeMap<String, Content>,
    state: PathBuf,
}

impl Wanted {
    fn new(store: &Store, view: &View, needs: &BTreeMap<String, Artifact>, layers: Vec<Digest>) -> Self {
        let output = view.text("Output").unwrap_or("image").to_owned();
        let directory = view.path("OutputDirectory").unwrap_or(Path::new(".")).to_path_buf();
        let mode = view.get("OutputMode").as_number().and_then(|mode| u32::try_from(mode).ok()).unwrap_or(MODE);
        let mut files = BTreeMap::new();
        for (name, digest) in named_files(&output, needs) {
            // One that is missing from the store is named by the copy that fails.
            let source = store.file(&digest).unwrap_or_default();
            files.insert(name, Content::File { source, digest, mode });
        }
        let format = view.text("Format").unwrap_or_default();
        let image = files.keys().find_map(|name| image_of(name, &output, view));
        // A directory output of the same name stays; the link gives way to it.
        let taken = directory.join(&output).symlink_metadata().is_ok_and(|meta| meta.is_dir());
        if let Some(target) = image.filter(|image| !taken && *image != output) {
            files.insert(output.clone(), Content::Link { target });
        }
        Self {
            state: record_of(store.dir(), &directory, &output),
            tree: (format == "directory").then_some(layers),
            overlay: view.bool("Overlay"),
            foreign: view.bool("ForeignUIDRange"),
            output,
            directory,
            files,
        }
    }

    fn is_nothing(&self) -> bool {
        self.tree.is_none() && self.files.is_empty()
    }

    /// Whether what was published under a name would be wrong beside this image: the same image in another compression,
    /// or what tells of it.
    fn outdates(&self, name: &str, view: &View) -> bool {
        !self.files.contains_key(name)
            && (image_of(name, &self.output, view).is_some() || OutputNames::tells_of(&self.output, name))
    }

    fn files_state(&self) -> PathBuf {
        self.state.with_extension("files")
    }

    fn tree_state(&self) -> PathBuf {
        self.state.with_extension("tree")
    }

    fn record(&self, layers: &[Digest]) -> Option<PublishedTree> {
        let meta = self.directory.join(&self.output).symlink_metadata().ok().filter(|meta| meta.is_dir())?;
        let identity = (meta.dev(), meta.ino());
        Some(PublishedTree { layers: layers.to_vec(), overlay: self.overlay, foreign: self.foreign, identity })
    }

    fn recorded(&self) -> Option<PublishedTree> {
        serde_json::from_slice(&std::fs::read(self.state.with_extension("json")).ok()?).ok()
    }
}

/// Where in the store directory `store` the records lie of what was published for an output, without their extensions.
fn record_of(store: &Path, directory: &Path, output: &str) -> PathBuf {
    let name = Encoder::new("mkosi.output", 1).bytes(directory.as_os_str().as_bytes()).str(output).finish();
    store.join("outputs").join(name.hex())
}

/// Removes what was published under an output's name in a directory, whatever its files are called, and the records of it.
/// `store` is the store's directory, which need not be there.
///
/// # Errors
/// When something can't be removed.
pub fn clean(store: &Path, directory: &Path, output: &str) -> Result<(), StageError> {
    let state = record_of(store, directory, output);
    publish::clean(directory, &state.with_extension("files")).map_err(StageError::other)?;
    clean_directory(&directory.join(output), &state.with_extension("tree")).map_err(StageError::other)?;
    for extension in ["json", "json-new"] {
        let path = state.with_extension(extension);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StageError::io("remove", &path)(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The names of the files that were published in `directory` for the output `output` from the store at `store`.
pub fn published(store: &Path, directory: &Path, output: &str) -> Vec<String> {
    publish::published(&record_of(store, directory, output).with_extension("files"))
}

/// The name of the image before it is compressed.
fn plain(output: &str, view: &View) -> String {
    match view.text("OutputExtension").unwrap_or_default() {
        "" => output.to_owned(),
        extension => format!("{output}.{extension}"),
    }
}

/// The image that a file of the output directory is, in whatever compression, or lies in.
fn image_of(name: &str, output: &str, view: &View) -> Option<String> {
    let plain = plain(output, view);
    match name.strip_prefix(&plain)? {
        "" | ".zst" | ".xz" | ".gz" => Some(name.to_owned()),
        below if below.starts_with('/') => Some(plain),
        _ => None,
    }
}

/// Why the output directory has to be brought up to date, in words; nothing if it is. `needs` are a node's, by the
/// names of its inputs.
pub fn unpublished(store: &Store, view: &View, needs: &BTreeMap<String, Artifact>) -> Option<String> {
    let layers = match needs.get("tree") {
        Some(Artifact::Tree { layers }) => layers.clone(),
        _ => Vec::new(),
    };
    let needs = needs
        .iter()
        .filter_map(|(name, artifact)| Some((name.strip_prefix("need/")?.to_owned(), artifact.clone())))
        .collect();
    let wanted = Wanted::new(store, view, &needs, layers);
    if let Some(layers) = &wanted.tree {
        let Some(now) = wanted.record(layers) else {
            return Some(format!("`{}` is not in the output directory", wanted.output));
        };
        match wanted.recorded() {
            None => return Some(format!("`{}` was not published from here", wanted.output)),
            Some(then) if then.identity != now.identity => {
                return Some(format!("`{}` was replaced in the output directory", wanted.output));
            }
            Some(then) if then != now => return Some(format!("`{}` is older than its image", wanted.output)),
            Some(_) => {}
        }
    }
    if publish::is_current(&wanted.directory, &wanted.files_state(), &wanted.files) {
        let published = publish::published(&wanted.files_state());
        let outdated = published.iter().find(|name| wanted.outdates(name, view)).filter(|_| !wanted.is_nothing());
        return outdated.map(|name| format!("`{name}` is no longer made"));
    }
    let missing = wanted.files.keys().find(|name| wanted.directory.join(name).symlink_metadata().is_err());
    Some(match missing {
        Some(name) => format!("`{name}` is not in the output directory"),
        None => format!("the files of `{}` are older than the image, or were changed", wanted.output),
    })
}

/// Brings the outputs of an image to its output directory.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let layers: Vec<Digest> = cx.layers.iter().map(|layer| layer.digest).collect();
    let mut wanted = Wanted::new(cx.store, cx.view, &cx.needs, layers.clone());
    if wanted.is_nothing() {
        return Ok(Outputs::new());
    }
    if make_way(cx, &wanted)? {
        // The link to the image can stand there now.
        wanted = Wanted::new(cx.store, cx.view, &cx.needs, layers);
    }
    let (directory, output) = (wanted.directory.clone(), wanted.output.clone());
    std::fs::create_dir_all(&directory).map_err(StageError::io("make the output directory", &directory))?;
    if let Some(layers) = wanted.tree.clone() {
        // The link to an archive of an earlier format would be in the way.
        withdraw(&directory, &wanted.files_state(), [output.as_str()]).map_err(StageError::other)?;
        let tree = image_tree(cx.view, &cx.layers, &cx.needs);
        let options = DirectoryOptions { force: cx.force, foreign: wanted.foreign, ..DirectoryOptions::default() };
        let outcome = publish_directory(&tree, &directory.join(&output), &wanted.tree_state(), &options)
            .map_err(StageError::other)?;
        cx.note(&format!("{} files kept, {} made", outcome.kept, outcome.made));
        if let Some(record) = wanted.record(&layers) {
            save(&wanted.state, &record)?;
        }
    }
    let options = PublishOptions { force: cx.force, ..PublishOptions::default() };
    let outcome = publish(&directory, &wanted.files_state(), &wanted.files, &options).map_err(StageError::other)?;
    // Nobody should take it for what belongs to the new one.
    let stale = outcome.stale.iter().map(String::as_str).filter(|name| wanted.outdates(name, cx.view));
    for name in withdraw(&directory, &wanted.files_state(), stale).map_err(StageError::other)? {
        cx.note(&format!("removed {name}, which this image no longer makes"));
    }
    Ok(Outputs::new())
}

/// Takes away what an image of another format left in the place of this one: files where a directory goes, a directory
/// where a link or files go. Tells whether something was taken away.
fn make_way(cx: &mut Context<'_>, wanted: &Wanted) -> Result<bool, StageError> {
    let state = wanted.files_state();
    let place = plain(&wanted.output, cx.view);
    let inside = |name: &str, above: &str| name.strip_prefix(above).is_some_and(|rest| rest.starts_with('/'));
    let known = publish::published(&state);
    let layout = wanted.tree.is_none() && wanted.files.keys().any(|name| inside(name, &place));
    let old: Vec<&str> = if layout {
        known.iter().map(String::as_str).filter(|name| *name == place).collect()
    } else {
        let old = known.iter().filter(|name| !wanted.files.contains_key(*name));
        old.map(String::as_str).filter(|name| inside(name, &wanted.output) || inside(name, &place)).collect()
    };
    let removed = match old.is_empty() {
        true => Vec::new(),
        false => withdraw(&wanted.directory, &state, old).map_err(StageError::other)?,
    };
    let there = |name: &str| wanted.directory.join(name).symlink_metadata().is_ok();
    if layout && !known.iter().any(|name| inside(name, &place) && there(name)) {
        vacate(&wanted.directory.join(&place), &wanted.tree_state(), cx.force).map_err(StageError::other)?;
    }
    for name in &removed {
        cx.note(&format!("removed {name}, which this image no longer makes"));
    }
    Ok(!removed.is_empty())
}

fn save(state: &Path, record: &PublishedTree) -> Result<(), StageError> {
    let path = state.with_extension("json");
    let temporary = state.with_extension("json-new");
    let text = serde_json::to_vec(record).map_err(StageError::other)?;
    std::fs::write(&temporary, text).map_err(StageError::io("write", &temporary))?;
    std::fs::rename(&temporary, &path).map_err(StageError::io("put in place", &path))
}
