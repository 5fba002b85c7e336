//! The build sources as scripts see them: the user's files below, and above them a directory that takes the changes.
//! Knows nothing of which script runs.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::Kind;
use crate::config::Value;
use crate::reads::{Recorder, View};
use crate::sandbox::Mount;
use crate::stage::{Context, Source, StageError};
use crate::store::{
    Artifact, Backend, Entry, Hasher, Materialise, MergedEntry, MergedTree, TreeOptions, copy_tree, lower_dirs,
};

/// Where sources are seen.
const SOURCES: &str = "/work/src";

fn place(target: &str) -> PathBuf {
    let target = target.trim_matches('/');
    if matches!(target, "" | ".") { SOURCES.into() } else { Path::new(SOURCES).join(target) }
}

/// The targets of `BuildSources=`, in the user's order.
fn targets(sources: &Value) -> Vec<PathBuf> {
    sources.items().iter().map(|item| place(item.field("target").and_then(Value::as_text).unwrap_or(""))).collect()
}

/// The mounts of the build sources.
#[derive(Default)]
pub struct Mounts {
    /// All of them, outer paths first.
    pub mounts: Vec<Mount>,
    /// Those whose reading is noted.
    traced: Vec<Traced>,
}

/// A source whose reading is noted. Each sandbox gets a mount of its own.
struct Traced {
    /// Its place among the mounts.
    at: usize,
    recorder: Arc<Recorder>,
    upper: (PathBuf, PathBuf),
    target: PathBuf,
}

impl Mounts {
    /// Replaces what is noted, in a list of mounts where ours begin at `first`, by mounts for one sandbox. The
    /// descriptors are to be kept until it has ended.
    pub fn serve(&self, mounts: &mut [Mount], first: usize) -> Result<Vec<OwnedFd>, StageError> {
        let mut held = Vec::new();
        for traced in &self.traced {
            let served = crate::sandbox::serve(Arc::clone(&traced.recorder)).map_err(StageError::Sandbox)?;
            if let Some(place) = mounts.get_mut(first + traced.at) {
                *place = Mount::Served {
                    mount: served.as_raw_fd(),
                    upper: traced.upper.clone(),
                    target: traced.target.clone(),
                };
            }
            held.push(served);
        }
        Ok(held)
    }
}

/// Begins to note what is read of a source. Where that can't be, all of it counts, as it is now.
fn record(
    cx: &mut Context<'_>,
    name: &str,
    path: &Path,
    hidden: &[PathBuf],
    can: bool,
) -> Result<Option<Arc<Recorder>>, StageError> {
    let Some(recording) = cx.recording else { return Ok(None) };
    if can {
        // What the kernel has of this does not change during a run.
        static SERVED: OnceLock<Result<(), String>> = OnceLock::new();
        match SERVED.get_or_init(|| crate::sandbox::probe_served(cx.work.path())) {
            Ok(()) => {
                let view = View::open(path, hidden).map_err(StageError::io("open the sources in", path))?;
                return Ok(Some(recording.begin(&format!("file/{name}"), view)));
            }
            Err(reason) => {
                cx.note(&format!("what is read of the sources can't be noted: {reason}"));
                recording.refuse(reason);
            }
        }
    }
    let options = TreeOptions { exclude: hidden.to_vec(), ..TreeOptions::default() };
    recording.whole(&format!("file/{name}"), Hasher::new(cx.store).tree(path, &options)?);
    Ok(None)
}

/// Mounts the build sources, outer paths first. Writes go to a directory that is thrown away (for a build script with
/// `BuildSourcesEphemeral=buildcache`, to the build directory), never to the user's files. Hidden paths are whited out
/// there.
pub fn mounts(cx: &mut Context<'_>, kind: Kind, build: Option<&Path>, look: bool) -> Result<Mounts, StageError> {
    let mut traced = Vec::new();
    let mut mounts = vec![Mount::Directory { target: SOURCES.into(), mode: 0o755 }];
    if !cx.profile.sources {
        return Ok(Mounts { mounts, traced });
    }
    let targets = targets(cx.view.get("BuildSources"));
    let mut sources = Vec::new();
    for (name, source) in cx.sources_of("BuildSources") {
        let index = name.split('/').next().and_then(|index| index.parse::<usize>().ok()).unwrap_or(0);
        let target = targets.get(index).cloned().unwrap_or_else(|| place(""));
        sources.push((target, index, format!("BuildSources/{name}"), source.clone()));
    }
    sources.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let keep = !look && kind == Kind::Build && cx.view.text("BuildSourcesEphemeral") == Some("buildcache");
    let copies = matches!(cx.store.backend(), Backend::Copy { .. });
    for (target, index, name, source) in sources {
        let recorder = match &source {
            Source::Host { path, hidden } => record(cx, &name, path, hidden, path.is_dir() && !copies && !keep)?,
            Source::Image(_) => None,
        };
        if copies && !keep {
            mounts.push(copied(cx, target, index, &source)?);
            continue;
        }
        let lowers = match &source {
            Source::Host { path, .. } if !path.is_dir() => {
                mounts.push(Mount::Bind { source: path.clone(), target, read_only: true, optional: false });
                continue;
            }
            Source::Host { path, .. } => vec![path.clone()],
            Source::Image(Artifact::Tree { layers }) => {
                let layers = layers.iter().map(|d| cx.store.need_layer(d)).collect::<Result<Vec<_>, _>>()?;
                lower_dirs(&layers)
            }
            Source::Image(_) => continue,
        };
        let (upper, work) = if keep {
            let build = build.ok_or_else(|| {
                StageError::Other(
                    "BuildSourcesEphemeral=buildcache keeps changes to the sources in the build directory, and there \
                     is none: set BuildDirectory= or make mkosi.builddir"
                        .to_owned(),
                )
            })?;
            kept(build, &target)?
        } else {
            (cx.scratch(&format!("src-{index}"))?, cx.scratch(&format!("src-{index}-overlay"))?)
        };
        if let Source::Host { path, hidden } = &source {
            // What is noted is shown without them.
            if recorder.is_none() {
                hide(&upper, path, hidden)?;
            }
            let mode = path.metadata().map_err(StageError::io("look at", path))?.permissions();
            std::fs::set_permissions(&upper, mode).map_err(StageError::io("set the mode of", &upper))?;
        }
        if let Some(recorder) = recorder {
            let (upper, target) = ((upper.clone(), work.clone()), target.clone());
            traced.push(Traced { at: mounts.len(), recorder, upper, target });
        }
        mounts.push(Mount::Overlay { lowers, upper: Some((upper, work)), target });
    }
    Ok(Mounts { mounts, traced })
}

/// A copy of a source in the work directory, where no overlay can be mounted over it.
fn copied(cx: &Context<'_>, target: PathBuf, index: usize, source: &Source) -> Result<Mount, StageError> {
    let copy = cx.work.join(format!("src-{index}"));
    let tree = match source {
        Source::Host { path, hidden } => {
            let options = TreeOptions { exclude: hidden.to_vec(), ..TreeOptions::default() };
            let entries = Hasher::new(cx.store).tree_index(path, &options)?.entries.into_iter();
            let place = |entry: &Entry| match entry.path.as_slice() {
                [] => path.clone(),
                below => path.join(OsStr::from_bytes(below)),
            };
            MergedTree { entries: entries.map(|entry| MergedEntry { source: place(&entry), entry }).collect() }
        }
        Source::Image(Artifact::Tree { layers }) => {
            let layers = layers.iter().map(|d| cx.store.need_layer(d)).collect::<Result<Vec<_>, _>>()?;
            MergedTree::new(&layers)
        }
        Source::Image(_) => MergedTree::default(),
    };
    copy_tree(&tree, &copy, &Materialise { break_links: true, ..Materialise::default() })?;
    Ok(Mount::Bind { source: copy, target, read_only: false, optional: false })
}

/// The directories next to the build directory that keep the changes to a source, and their overlay's work directory.
/// Not in it: what a script could replace by a link there would be written to next time.
fn kept(build: &Path, target: &Path) -> Result<(PathBuf, PathBuf), StageError> {
    let name = target.strip_prefix(SOURCES).unwrap_or(target).to_string_lossy().replace('/', "~");
    let own = build.with_file_name(format!("{}.sources", build.file_name().unwrap_or_default().to_string_lossy()));
    let make = |path: PathBuf| {
        std::fs::create_dir_all(&path).map_err(StageError::io("make the directory", &path))?;
        Ok::<_, StageError>(path)
    };
    let work = own.join(format!("{name}.work"));
    // What an overlay that was killed left there can't be used again.
    if work.exists() {
        crate::store::remove_tree(&work)?;
    }
    Ok((make(own.join(format!("{name}.changes")))?, make(work)?))
}

/// Whites out hidden paths of `root` in an upper directory.
fn hide(upper: &Path, root: &Path, hidden: &[PathBuf]) -> Result<(), StageError> {
    for path in hidden {
        let Ok(relative) = path.strip_prefix(root) else { continue };
        if path.symlink_metadata().is_err() {
            continue;
        }
        let Some(parent) = plain_parent(upper, relative)? else { continue };
        let target = parent.join(relative.file_name().unwrap_or_default());
        let made = nix::sys::stat::mknod(
            &target,
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::empty(),
            nix::sys::stat::makedev(0, 0),
        );
        match made {
            // A kept upper directory has it already.
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(errno) => {
                return Err(StageError::Io { action: "make the whiteout", path: target, error: errno.into() });
            }
        }
    }
    Ok(())
}

/// Makes the directory that a path of an upper directory lies in. Nothing where a script has put something else in the
/// way: that hides what is below it.
fn plain_parent(upper: &Path, relative: &Path) -> Result<Option<PathBuf>, StageError> {
    let mut at = upper.to_path_buf();
    for component in relative.parent().unwrap_or(Path::new("")).components() {
        at.push(component);
        match at.symlink_metadata() {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Ok(None),
            Err(_) => std::fs::create_dir(&at).map_err(StageError::io("make the directory", &at))?,
        }
    }
    Ok(Some(at))
}

/// Mounts the user's own directories writable, for the kinds that are there to change them (`mkosi.sync`,
/// `mkosi.clean`). What builds write to is hidden below an empty directory.
pub fn writable(sources: &Value, hidden: &[&Path]) -> Vec<Mount> {
    let mut mounts = vec![Mount::Directory { target: SOURCES.into(), mode: 0o755 }];
    let targets = targets(sources);
    let mut found: Vec<(PathBuf, &Path)> = sources
        .items()
        .iter()
        .zip(targets)
        .filter_map(|(item, target)| {
            // An item is a path, or a path and where it goes.
            let source = item.as_path().or_else(|| item.paths().first().copied())?;
            source.exists().then_some((target, source))
        })
        .collect();
    found.sort();
    for (target, source) in found {
        mounts.push(Mount::Bind {
            source: source.to_owned(),
            target: target.clone(),
            read_only: false,
            optional: false,
        });
        for path in hidden {
            if let Ok(relative) = path.strip_prefix(source)
                && !relative.as_os_str().is_empty()
                && path.is_dir()
            {
                mounts.push(Mount::Tmpfs { target: target.join(relative), mode: 0o755 });
            }
        }
    }
    mounts
}
