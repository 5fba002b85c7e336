//! Layers: how an overlay's upper directory becomes one, and how one is found again.
//!
//! A layer is `layers/<digest>/` with `tree/`, the directory that overlayfs mounts as a lower one, and `index`, which
//! describes it. The digest is the index's and so that of all names, contents and metadata apart from times.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::canon::{self, Plan};
use super::error::Context;
use super::root::{Gate, Use, locked};
use super::scan::{self, Raw};
use super::walk::host_path;
use super::{Kind, MergedTree, Store, StoreError, TreeIndex, labels, work};
use crate::types::Digest;

/// What an index file begins with; the last byte is the version of its format.
const MAGIC: &[u8; 8] = b"mkosily\x01";

/// A file's time comes from a clock that the kernel moves on with every tick, so a file may look older than a moment
/// that was read from the precise clock just before. Ticks are 10 ms at the most.
const TICK: Duration = Duration::from_millis(10);

/// How times are normalised when a layer enters.
#[derive(Clone, Copy, Debug)]
pub struct Ingest {
    /// The time that replaces others, in seconds since 1970 (`SOURCE_DATE_EPOCH`).
    pub epoch: i64,
    /// When the stage began: whatever was modified since gets `epoch`.
    pub started: SystemTime,
    /// Whether every later time is set to `epoch` as well.
    pub clamp: bool,
    /// Whether the labels of files are the tree's own: of a stage that labels. All others leave labels as they are below.
    pub labels: bool,
}

/// A layer in the store.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Its name.
    pub digest: Digest,
    /// The directory to mount as a lower one. Never to be written.
    pub dir: PathBuf,
    /// What is in it.
    pub index: Arc<TreeIndex>,
    /// The size of the contents in bytes.
    pub size: u64,
}

/// The lower directories of an overlay mount of `layers`, lowest first. overlayfs refuses a directory that is given
/// twice, and equal changes (often none at all) make the same layer: of each the topmost place counts, where all that
/// it says is said last.
pub fn lower_dirs(layers: &[Layer]) -> Vec<PathBuf> {
    let mut seen = HashSet::new();
    let mut dirs: Vec<PathBuf> =
        layers.iter().rev().filter(|layer| seen.insert(layer.digest)).map(|layer| layer.dir.clone()).collect();
    dirs.reverse();
    dirs
}

impl Store {
    /// Takes an overlay's upper directory (of a mount with `userxattr` that is gone by now) into the store and leaves
    /// nothing at `upper`, which has to be on the store's file system: below a [`Store::work_dir`].
    ///
    /// With the tree that it was made on, `lower`, the layer is brought to its canonical form, in which only true
    /// changes remain (see `docs/store.md`): a stage that writes the same bytes again makes an empty layer. Without,
    /// everything is kept as found. Either way sockets go, all directories get the time `opts.epoch`, and so do files
    /// that were modified since `opts.started`.
    ///
    /// # Errors
    /// When the directory can't be read, changed or moved, or the disk is full. The store is valid all the same.
    pub fn add_layer(&self, upper: &Path, lower: Option<&MergedTree>, opts: &Ingest) -> Result<Layer, StoreError> {
        self.ingest(upper, lower, opts).map_err(|error| error.in_store(&self.dir))
    }

    fn ingest(&self, upper: &Path, lower: Option<&MergedTree>, opts: &Ingest) -> Result<Layer, StoreError> {
        let mut scanned = scan::scan(upper)?;
        if !opts.labels {
            labels::settle(&mut scanned.raws, lower);
        }
        let mut plan = match lower {
            Some(lower) => canon::plan(lower, scanned),
            None => Plan::keep_all(scanned),
        };
        plan.apply(upper)?;
        labels::write(upper, &plan.kept)?;
        normalise_times(upper, &mut plan.kept, opts)?;
        self.enter(upper, plan.into_index())
    }

    /// Moves a finished tree to its place.
    fn enter(&self, tree: &Path, index: TreeIndex) -> Result<Layer, StoreError> {
        let digest = index.digest();
        let size = index.content_size();
        let work = self.work_dir("layer")?;
        let staging = work.join("layer");
        fs::create_dir(&staging).context("make", &staging)?;
        write_index(&staging.join("index"), &index, size)?;
        let place = self.layer_place(&digest);
        self.will_add()?;
        let known = {
            let _gate = self.gate()?;
            self.using(Use::Layer(digest))?;
            place.exists()
        };
        // One that is in doubt is read before ours, which is known to be good, is thrown away for it.
        if known && !(place.join("index").exists() && self.sound(&Use::Layer(digest))?) {
            self.discard_layer(&digest)?;
        }
        fs::rename(tree, staging.join("tree")).context("move into the store", tree)?;
        {
            let _gate = self.gate()?;
            match rustix::fs::renameat_with(CWD, &staging, CWD, &place, RenameFlags::NOREPLACE) {
                Ok(()) | Err(Errno::EXIST | Errno::NOTEMPTY) => {}
                // A file system without this flag: a directory never replaces one that holds something.
                Err(Errno::INVAL) if place.exists() => {}
                Err(Errno::INVAL) => fs::rename(&staging, &place).context("move a layer to", &place)?,
                Err(error) => return Err(StoreError::io("move a layer to", &place, error)),
            }
        }
        let layer = Layer { digest, dir: place.join("tree"), index: Arc::new(index), size };
        locked(&self.checked).insert(Use::Layer(digest));
        locked(&self.layers).insert(digest, layer.clone());
        Ok(layer)
    }

    /// The layer of this name, or nothing where there is none or it is damaged beyond use. Its index is read once in
    /// a run and checked against the name.
    ///
    /// # Errors
    /// When the index can't be read.
    pub fn layer(&self, digest: &Digest) -> Result<Option<Layer>, StoreError> {
        if let Some(layer) = locked(&self.layers).get(digest) {
            return Ok(Some(layer.clone()));
        }
        let place = self.layer_place(digest);
        {
            let _gate = self.gate()?;
            self.using(Use::Layer(*digest))?;
        }
        let dir = place.join("tree");
        let index = match read_index(&place.join("index"))? {
            Indexed::Absent => return Ok(None),
            Indexed::Good(index) if index.digest() == *digest => index,
            // The index alone may be damaged: the tree tells.
            _ => match self.rebuild_index(digest)? {
                Some(index) => index,
                None => return Ok(None),
            },
        };
        let layer = Layer { digest: *digest, dir, size: index.content_size(), index: Arc::new(index) };
        locked(&self.layers).insert(*digest, layer.clone());
        Ok(Some(layer))
    }

    /// Reads a layer's tree in place of its damaged index and writes the index anew; discards a layer that is no
    /// longer what its name says.
    fn rebuild_index(&self, digest: &Digest) -> Result<Option<TreeIndex>, StoreError> {
        let place = self.layer_place(digest);
        // Whether labels are the tree's own stood in the index alone.
        for labelled in [false, true] {
            let Ok(mut scanned) = scan::scan(&place.join("tree")) else { break };
            if !labelled {
                labels::settle(&mut scanned.raws, None);
            }
            let index = scanned.into_index();
            if index.digest() == *digest {
                let work = self.work_dir("index")?;
                let fresh = work.join("index");
                write_index(&fresh, &index, index.content_size())?;
                fs::rename(&fresh, place.join("index")).context("replace the index in", &place)?;
                return Ok(Some(index));
            }
        }
        self.discard_layer(digest)?;
        Ok(None)
    }

    /// Where the layer's tree is or would be.
    pub fn layer_dir(&self, digest: &Digest) -> PathBuf {
        self.layer_place(digest).join("tree")
    }

    pub(super) fn layer_place(&self, digest: &Digest) -> PathBuf {
        self.dir.join("layers").join(digest.hex())
    }

    /// Removes a layer that is damaged.
    pub(super) fn discard_layer(&self, digest: &Digest) -> Result<(), StoreError> {
        let place = self.layer_place(digest);
        self.drop_referring(&Use::Layer(*digest))?;
        locked(&self.layers).remove(digest);
        locked(&self.checked).remove(&Use::Layer(*digest));
        let _gone = {
            let _gate = Gate::alone(&self.dir)?;
            if !place.exists() {
                return Ok(());
            }
            self.move_away(&place)?
        };
        Ok(())
    }

    /// Reads a layer in full and compares it with its name and its index. `false` also where there is none.
    ///
    /// # Errors
    /// When it can't be read.
    pub fn verify_layer(&self, digest: &Digest) -> Result<bool, StoreError> {
        let place = self.layer_place(digest);
        let index = match read_index(&place.join("index"))? {
            Indexed::Good(index) => index,
            Indexed::Absent | Indexed::Damaged => return Ok(false),
        };
        let tree = place.join("tree");
        if index.digest() != *digest || !tree.is_dir() {
            return Ok(false);
        }
        let mut scanned = scan::scan(&tree)?;
        labels::as_indexed(&mut scanned, &index);
        Ok(scanned.into_index().digest() == *digest)
    }
}

/// Sets the times of what is kept, directories after all that changed in them.
fn normalise_times(upper: &Path, raws: &mut [Raw], opts: &Ingest) -> Result<(), StoreError> {
    let since = opts.started.checked_sub(TICK).unwrap_or(opts.started);
    let since = since.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), i64::from(since.subsec_nanos()));
    for raw in raws.iter_mut().rev() {
        let replaced = match raw.entry.kind {
            Kind::Whiteout => {
                raw.entry.mtime = opts.epoch;
                continue;
            }
            Kind::Directory { .. } => true,
            _ => raw.mtime >= since || (opts.clamp && raw.mtime > (opts.epoch, 0)),
        };
        if replaced {
            raw.entry.mtime = opts.epoch;
            work::set_mtime(&host_path(upper, &raw.entry.path), opts.epoch)?;
        }
    }
    Ok(())
}

/// What a read of an index file gave.
pub(super) enum Indexed {
    Absent,
    Damaged,
    Good(TreeIndex),
}

fn write_index(path: &Path, index: &TreeIndex, size: u64) -> Result<(), StoreError> {
    let file = File::create(path).context("make", path)?;
    let mut writer = BufWriter::with_capacity(1 << 16, file);
    writer.write_all(MAGIC).and_then(|()| writer.write_all(&size.to_le_bytes())).context("write", path)?;
    // postcard hides the error of the writer, so it writes to memory.
    let bytes = postcard::to_allocvec(index).map_err(|error| StoreError::Encode {
        what: "an index",
        path: path.to_owned(),
        why: error.to_string(),
    })?;
    writer.write_all(&bytes).and_then(|()| writer.flush()).context("write", path)
}

pub(super) fn read_index(path: &Path) -> Result<Indexed, StoreError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Indexed::Absent),
        Err(error) => return Err(StoreError::io("read", path, error)),
    };
    let body = bytes.strip_prefix(MAGIC).and_then(|rest| rest.get(8..));
    Ok(match body.map(postcard::from_bytes) {
        Some(Ok(index)) => Indexed::Good(index),
        _ => Indexed::Damaged,
    })
}

/// The size of a layer's contents from the head of its index; 0 where it can't be read.
pub(super) fn indexed_size(path: &Path) -> u64 {
    let mut head = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut head));
    match (read, head.split_first_chunk::<8>()) {
        (Ok(()), Some((magic, size))) if magic == MAGIC => size.try_into().map(u64::from_le_bytes).unwrap_or(0),
        _ => 0,
    }
}
