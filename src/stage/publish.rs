//! The output directory: what lies there, what should, and bringing it there.
//!
//! A publication is recorded in the store: what was published, and how each file looked then. So a build that has
//! nothing to do finds that out with one look at each file.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::output::{image_layers, named_files};
use super::{Context, Outputs, StageError};
use crate::config::View;
use crate::output::directory::{DirectoryOptions, publish_directory};
use crate::output::{FileOptions, publish_file};
use crate::store::{Artifact, MergedTree, Store};
use crate::types::{Digest, Encoder};

/// How a published path looked when it was put there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Stamp {
    device: u64,
    inode: u64,
    /// Size and times in nanoseconds; of a directory only the identity counts, since its contents are not listed.
    file: Option<(u64, i128, i128)>,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let meta = path.symlink_metadata().ok()?;
        let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
        let times =
            (nanoseconds(meta.mtime(), meta.mtime_nsec()), nanoseconds(meta.ctime(), meta.ctime_nsec()));
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            file: (!meta.is_dir()).then_some((meta.size(), times.0, times.1)),
        })
    }
}

/// The record of a publication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Published {
    /// What was published: names, contents and modes.
    digest: Digest,
    /// How each published path looked, by its name in the output directory.
    stamps: BTreeMap<String, Stamp>,
}

/// What an image publishes.
struct Wanted<'a> {
    output: String,
    /// Images of another format are outputs of their own: a tar does not take the place of a directory.
    format: String,
    directory: PathBuf,
    tree: Option<&'a [Digest]>,
    files: BTreeMap<String, Digest>,
    mode: Option<u32>,
}

impl<'a> Wanted<'a> {
    fn new(view: &View, needs: &BTreeMap<String, Artifact>, tree: Option<&'a [Digest]>) -> Self {
        let output = view.text("Output").unwrap_or("image").to_owned();
        Self {
            directory: view.path("OutputDirectory").unwrap_or(Path::new(".")).to_path_buf(),
            tree: tree.filter(|_| view.text("Format") == Some("directory")),
            format: view.text("Format").unwrap_or_default().to_owned(),
            files: named_files(&output, needs),
            mode: view.get("OutputMode").as_number().and_then(|mode| u32::try_from(mode).ok()),
            output,
        }
    }

    fn digest(&self, view: &View) -> Digest {
        let mut encoder = Encoder::new("mkosi.published", 1);
        encoder.map(&self.files).number(self.mode.map_or(u64::MAX, u64::from));
        encoder.number(u64::from(view.bool("Overlay"))).list(self.tree.map_or(0, <[Digest]>::len));
        for layer in self.tree.unwrap_or_default() {
            encoder.digest(layer);
        }
        encoder.str(link_name(view, &self.output).as_deref().unwrap_or_default());
        encoder.finish()
    }

    /// Where the store keeps what it knows of this output.
    fn state(&self, store: &Store) -> PathBuf {
        let name = Encoder::new("mkosi.output", 1)
            .bytes(std::os::unix::ffi::OsStrExt::as_bytes(self.directory.as_os_str()))
            .str(&self.output)
            .str(&self.format)
            .finish();
        store.dir().join("outputs").join(name.hex())
    }
}

/// The output's name without its version, where it has one: a link of that name leads to the newest version.
fn link_name(view: &View, output: &str) -> Option<String> {
    let version = view.text("ImageVersion")?;
    output.strip_suffix(version)?.strip_suffix('_').filter(|name| !name.is_empty()).map(str::to_owned)
}

/// Why the output directory has to be brought up to date, in words; nothing if it is. `needs` are a node's, by the
/// names of its inputs.
pub fn unpublished(store: &Store, view: &View, needs: &BTreeMap<String, Artifact>) -> Option<String> {
    let tree = match needs.get("tree") {
        Some(Artifact::Tree { layers }) => Some(layers.as_slice()),
        _ => None,
    };
    let needs = needs
        .iter()
        .filter_map(|(name, artifact)| Some((name.strip_prefix("need/")?.to_owned(), artifact.clone())))
        .collect();
    let wanted = Wanted::new(view, &needs, tree);
    if wanted.tree.is_none() && wanted.files.is_empty() {
        return None;
    }
    let Some(record) = load(&wanted.state(store)) else {
        return Some(format!("`{}` was not published from here yet", wanted.output));
    };
    if record.digest != wanted.digest(view) {
        return Some(format!("`{}` is older than its image", wanted.output));
    }
    record.stamps.iter().find_map(|(name, stamp)| match Stamp::of(&wanted.directory.join(name)) {
        None => Some(format!("`{name}` is gone from the output directory")),
        Some(now) if now != *stamp => Some(format!("`{name}` was changed in the output directory")),
        Some(_) => None,
    })
}

fn load(state: &Path) -> Option<Published> {
    serde_json::from_slice(&std::fs::read(state.with_extension("json")).ok()?).ok()
}

/// Brings the outputs of an image to its output directory.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let digests: Vec<Digest> = cx.layers.iter().map(|layer| layer.digest).collect();
    let wanted = Wanted::new(cx.view, &cx.needs, Some(&digests));
    if wanted.tree.is_none() && wanted.files.is_empty() {
        return Ok(Outputs::new());
    }
    let state = wanted.state(cx.store);
    let before = load(&state);
    std::fs::create_dir_all(&wanted.directory).map_err(StageError::io("make the output directory", &wanted.directory))?;
    let mut names = Vec::new();
    if wanted.tree.is_some() {
        let tree = MergedTree::new(&image_layers(cx.view, cx.layers.clone(), &cx.needs));
        let options = DirectoryOptions { force: cx.force, ..DirectoryOptions::default() };
        let dest = wanted.directory.join(&wanted.output);
        let outcome =
            publish_directory(&tree, &dest, &state.with_extension("tree"), &options).map_err(StageError::other)?;
        cx.note(&format!("{} files kept, {} made", outcome.kept, outcome.made));
        names.push(wanted.output.clone());
    }
    for (name, digest) in &wanted.files {
        let source = cx.store.need_file(digest)?;
        let known = before.as_ref().and_then(|record| record.stamps.get(name));
        let path = wanted.directory.join(name);
        // A file that is as we left it is ours to replace; any other needs the user's word.
        let ours = known.is_some_and(|stamp| Stamp::of(&path).is_some_and(|now| now.inode == stamp.inode));
        let options = FileOptions { force: cx.force || ours, mode: wanted.mode };
        publish_file(&source, &path, &options).map_err(StageError::other)?;
        names.push(name.clone());
    }
    if let Some(link) = link_name(cx.view, &wanted.output) {
        for name in names.clone() {
            if let Some(rest) = name.strip_prefix(&wanted.output) {
                let link = format!("{link}{rest}");
                replace_link(&wanted.directory, &name, &link)?;
                names.push(link);
            }
        }
    }
    remove_old(&wanted, before.as_ref(), &names, cx)?;
    let stamps = names
        .into_iter()
        .filter_map(|name| Stamp::of(&wanted.directory.join(&name)).map(|stamp| (name, stamp)))
        .collect();
    let record = Published { digest: wanted.digest(cx.view), stamps };
    save(&state, &record)?;
    Ok(Outputs::new())
}

/// Puts a symbolic link in place in one step.
fn replace_link(directory: &Path, target: &str, link: &str) -> Result<(), StageError> {
    let temporary = directory.join(format!(".{link}.new"));
    let _ = std::fs::remove_file(&temporary);
    std::os::unix::fs::symlink(target, &temporary).map_err(StageError::io("make the link", &temporary))?;
    let link = directory.join(link);
    std::fs::rename(&temporary, &link).map_err(StageError::io("put the link in place at", &link))
}

/// Removes files that an earlier build published for this image and that it no longer has, if they are as it left
/// them: an archive in another compression must not be taken for the new one.
fn remove_old(
    wanted: &Wanted<'_>,
    before: Option<&Published>,
    names: &[String],
    cx: &mut Context<'_>,
) -> Result<(), StageError> {
    for (name, stamp) in before.map(|record| &record.stamps).into_iter().flatten() {
        let path = wanted.directory.join(name);
        // A directory is kept: it may hold what the user put there.
        if names.contains(name) || stamp.file.is_none() || Stamp::of(&path).as_ref() != Some(stamp) {
            continue;
        }
        std::fs::remove_file(&path).map_err(StageError::io("remove the former output", &path))?;
        cx.note(&format!("removed {name}, which this image no longer makes"));
    }
    Ok(())
}

fn save(state: &Path, record: &Published) -> Result<(), StageError> {
    let path = state.with_extension("json");
    let temporary = state.with_extension("new");
    let text = serde_json::to_vec(record).map_err(StageError::other)?;
    std::fs::write(&temporary, text).map_err(StageError::io("write", &temporary))?;
    std::fs::rename(&temporary, &path).map_err(StageError::io("put in place", &path))
}
