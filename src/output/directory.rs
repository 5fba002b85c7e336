//! Brings a directory output up to date with a merged tree, in one step and at the price of what changed.
//!
//! The new tree is made beside the old one: a file that is the same and was not touched since the last publication
//! gets a second name, all others are copied from the layers. Then the two trees change places and the old one goes.
//! Files that both trees share are never written. Nothing is linked from the store, for users may edit an output.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rayon::prelude::*;
use rustix::fs::{self, AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::rootfs::remove_entry;
use crate::store::{Entry, Kind, MergedTree};

use super::copy::{attributes, entries, is_directory, make, path_of};
use super::state::{self, Identity, Stamp};
use super::{Error, Result, foreign};

const VERSION: u32 = 1;
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// How a directory is published.
#[derive(Clone, Debug, Default)]
pub struct DirectoryOptions {
    /// Replaces what stands at the destination even if it isn't known to be an earlier output.
    pub force: bool,
    /// No time is later, in seconds since 1970.
    pub epoch: Option<i64>,
    /// Owners are left to whoever runs this: for a user who can't give files away.
    pub caller_owns: bool,
    /// Owners are moved to the foreign range of ids.
    pub foreign: bool,
}

impl DirectoryOptions {
    /// What the directory is to hold.
    fn wanted(&self, merged: &MergedTree) -> Result<Vec<Entry>> {
        let mut wanted = entries(merged, self.epoch)?;
        if self.foreign {
            foreign::shift(&mut wanted)?;
        }
        Ok(wanted)
    }
}

/// What a publication did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectoryOutcome {
    /// Files (of any kind but directories) that were kept from the last publication.
    pub kept: usize,
    /// Files that were made anew.
    pub made: usize,
}

/// The record of the last publication.
#[derive(Default, Serialize, Deserialize)]
struct State {
    version: u32,
    /// Every directory that this record may be about: while one takes the other's place, two.
    roots: Vec<Identity>,
    /// What was published, with its stamp unless it was changed at that very moment.
    entries: Vec<(Entry, Option<Stamp>)>,
}

impl State {
    fn load(path: &Path) -> Self {
        let decode = |bytes: Vec<u8>| postcard::from_bytes::<Self>(&bytes).ok();
        state::load(path).and_then(decode).filter(|state| state.version == VERSION).unwrap_or_default()
    }

    fn save(&self, path: &Path) -> Result<()> {
        let bytes = postcard::to_stdvec(self).map_err(|error| {
            Error::io("encode the record", path, std::io::Error::new(std::io::ErrorKind::InvalidData, error))
        })?;
        state::save(path, &bytes)
    }
}

/// Makes the directory `dest` equal to `merged`: content, owners, modes, extended attributes, hard links and times.
/// What users changed, added or removed in the last output is gone afterwards. `state` is the path of the record
/// that is kept from one publication to the next; its directory is made. Errors: [`Error::NotOurs`] if something
/// stands at `dest` that the record doesn't know (an empty directory is fine) and `force` isn't set, [`Error::InUse`] if
/// a machine runs on it.
pub fn publish_directory(
    merged: &MergedTree,
    dest: &Path,
    state: &Path,
    options: &DirectoryOptions,
) -> Result<DirectoryOutcome> {
    let wanted = options.wanted(merged)?;
    let (above, name) = place(dest)?;
    let _lock = state::lock(state)?;
    let mut record = State::load(state);
    let temporary = temporary_name(&name);
    // What a killed run has left.
    remove(&above, &temporary, dest)?;
    let old = existing(&above, &name, dest, &record, options.force)?;
    if old.is_none() {
        record.entries.clear();
    }
    let found = match &old {
        Some(Existing::Ours(old)) => stamps(old, record.entries.iter().map(|(entry, _)| entry)),
        _ => Vec::new(),
    };
    let untouched: Vec<&Entry> = record
        .entries
        .iter()
        .zip(&found)
        .filter(|((_, recorded), found)| recorded.is_some() && recorded == *found)
        .map(|((entry, _), _)| entry)
        .collect();
    if untouched.iter().copied().eq(&wanted) {
        let kept = wanted.iter().filter(|entry| !is_directory(entry)).count();
        return Ok(DirectoryOutcome { kept, made: 0 });
    }
    let reuse = Reuse {
        old: match &old {
            Some(Existing::Ours(old)) => Some(old),
            _ => None,
        },
        untouched: untouched.into_iter().map(|entry| (entry.path.as_slice(), entry)).collect(),
    };
    let publish = || -> Result<DirectoryOutcome> {
        let fail = |action, error: Errno| Error::io(action, dest, error);
        let new = fs::mkdirat(&above, &temporary, Mode::from_raw_mode(0o700))
            .and_then(|()| fs::openat(&above, &temporary, OPEN, Mode::empty()))
            .map_err(|error| fail("make the new tree beside", error))?;
        let outcome = build(&new, &reuse, merged, &wanted, options)?;
        let identity = Identity::of(&new, Path::new("")).map_err(|error| fail("look up the new tree beside", error))?;
        // If this ends between the exchange and the last record, either directory is known. No stamp of what both
        // trees share fits any more then, so that it is made anew.
        let roots = [record.roots.as_slice(), &[identity]].concat();
        State { version: VERSION, roots, entries: record.entries.clone() }.save(state)?;
        swap(&above, &temporary, &name, old.is_some()).map_err(|error| fail("put the new tree to", error))?;
        remove(&above, &temporary, dest)?;
        // Links and renames count as changes, so the stamps are taken after all of them.
        let stamps = stamps(&new, &wanted);
        let entries = wanted.iter().cloned().zip(stamps).map(|(entry, stamp)| settle(entry, stamp)).collect();
        State { version: VERSION, roots: vec![identity], entries }.save(state)?;
        Ok(outcome)
    };
    publish().inspect_err(|_| {
        // The error that is reported is the first one.
        let _ = remove(&above, &temporary, dest);
    })
}

/// Whether `dest` is what `merged` says and wasn't touched since it was published: one stat(2) per file.
pub fn directory_is_current(merged: &MergedTree, dest: &Path, state: &Path, options: &DirectoryOptions) -> bool {
    let (Ok(wanted), Ok((above, name))) = (options.wanted(merged), place(dest)) else { return false };
    let record = State::load(state);
    if !record.entries.iter().map(|(entry, _)| entry).eq(&wanted) {
        return false;
    }
    match existing(&above, &name, dest, &record, false) {
        Ok(Some(Existing::Ours(root))) => stamps(&root, &wanted)
            .iter()
            .zip(&record.entries)
            .all(|(stamp, (_, recorded))| stamp.is_some() && stamp == recorded),
        _ => false,
    }
}

/// Removes the directory `dest` if it is ours, and its record; tells whether something was removed. For an output
/// that is no directory any more, or is to be cleaned up.
pub fn withdraw_directory(dest: &Path, state: &Path) -> Result<bool> {
    let (above, name) = place(dest)?;
    let _lock = state::lock(state)?;
    let record = State::load(state);
    let temporary = temporary_name(&name);
    remove(&above, &temporary, dest)?;
    let ours = matches!(existing(&above, &name, dest, &record, true)?, Some(Existing::Ours(_)));
    if ours {
        // Renamed first, so that nobody finds half of it.
        fs::renameat(&above, &name, &above, &temporary).map_err(|error| Error::io("remove", dest, error))?;
        remove(&above, &temporary, dest)?;
    }
    State::default().save(state)?;
    Ok(ours)
}

/// Removes the directory `dest` if it is ours, and the record; what else stands there is no matter.
pub fn clean_directory(dest: &Path, state: &Path) -> Result<()> {
    if state.exists() && dest.parent().is_some_and(Path::exists) {
        withdraw_directory(dest, state)?;
    }
    state::forget(state)
}

/// Clears the place `dest` for another kind of output: a directory that is ours goes, and so does whatever stands there
/// if `force` is set; an empty directory can stay. Errors: [`Error::NotOurs`] if something else is there.
pub fn vacate(dest: &Path, state: &Path, force: bool) -> Result<()> {
    if withdraw_directory(dest, state)? {
        return Ok(());
    }
    let (above, name) = place(dest)?;
    match existing(&above, &name, dest, &State::default(), force)? {
        Some(_) if force => remove(&above, &name, dest),
        _ => Ok(()),
    }
}

/// A stamp is of use only if the file is still what was made: someone may have written to it meanwhile.
fn settle(entry: Entry, stamp: Option<Stamp>) -> (Entry, Option<Stamp>) {
    let stamp = stamp.filter(|stamp| {
        let size_fits = match &entry.kind {
            Kind::File { size, .. } => stamp.size == *size,
            _ => true,
        };
        size_fits && stamp.mtime == (entry.mtime, 0)
    });
    (entry, stamp)
}

/// Opens the directory that `dest` lies in, which is made if it is missing.
fn place(dest: &Path) -> Result<(OwnedFd, OsString)> {
    let name = dest.file_name().ok_or_else(|| Error::Name { name: dest.display().to_string() })?;
    let above = dest.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(above).map_err(|error| Error::io("make the directory", above, error))?;
    let dir = fs::open(above, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io("open", above, error))?;
    Ok((dir, name.to_owned()))
}

fn temporary_name(name: &OsStr) -> OsString {
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(".mkosi-new");
    temporary
}

enum Existing {
    Ours(OwnedFd),
    Other,
}

fn existing(above: &OwnedFd, name: &OsStr, dest: &Path, record: &State, force: bool) -> Result<Option<Existing>> {
    let stat = match fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(Error::io("look up", dest, error)),
    };
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        let dir = fs::openat(above, name, OPEN, Mode::empty()).map_err(|error| Error::io("open", dest, error))?;
        let identity = Identity::of(&dir, Path::new("")).map_err(|error| Error::io("look up", dest, error))?;
        if record.roots.contains(&identity) {
            // Machines lock what they run on. The lock goes with the descriptor.
            return match fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::AGAIN) => Err(Error::InUse { path: dest.to_owned() }),
                _ => Ok(Some(Existing::Ours(dir))),
            };
        }
        if names(&dir).map_err(|error| Error::io("list", dest, error))?.is_empty() {
            return Ok(Some(Existing::Other));
        }
    }
    if force { Ok(Some(Existing::Other)) } else { Err(Error::NotOurs { path: dest.to_owned() }) }
}

fn names(dir: &OwnedFd) -> rustix::io::Result<Vec<(OsString, FileType)>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name != "." && name != ".." {
            names.push((name.to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// The stamp of each entry below `root`; `None` where there is nothing.
fn stamps<'a>(root: &OwnedFd, entries: impl IntoIterator<Item = &'a Entry>) -> Vec<Option<Stamp>> {
    let entries: Vec<&Entry> = entries.into_iter().collect();
    entries
        .par_iter()
        .with_min_len(256)
        .map(|entry| {
            let flags = if entry.path.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
            fs::statat(root, path_of(entry), flags).ok().map(|stat| Stamp::from(&stat))
        })
        .collect()
}

/// What of the last output the new one can have too.
struct Reuse<'a> {
    old: Option<&'a OwnedFd>,
    untouched: HashMap<&'a [u8], &'a Entry>,
}

/// Fills the empty directory `new`.
fn build(
    new: &OwnedFd,
    reuse: &Reuse<'_>,
    merged: &MergedTree,
    wanted: &[Entry],
    options: &DirectoryOptions,
) -> Result<DirectoryOutcome> {
    for entry in wanted.iter().filter(|entry| is_directory(entry) && !entry.path.is_empty()) {
        fs::mkdirat(new, path_of(entry), Mode::from_raw_mode(0o700))
            .map_err(|error| Error::io("make the directory", path_of(entry), error))?;
    }
    let kept = merged
        .entries
        .par_iter()
        .zip(wanted)
        .with_min_len(64)
        .filter(|(_, entry)| !is_directory(entry) && entry.hardlink.is_none())
        .map(|(merged, entry)| {
            let path = path_of(entry);
            let linked = match reuse.old {
                Some(old) if reuse.untouched.get(entry.path.as_slice()) == Some(&entry) => {
                    // Where the file system or kernel forbids the link, the file is copied.
                    fs::linkat(old, path, new, path, AtFlags::empty()).is_ok()
                }
                _ => false,
            };
            if !linked {
                make(new, merged, entry, options.caller_owns)?;
            }
            Ok(usize::from(linked))
        })
        .try_reduce(|| 0, |a, b| Ok(a + b))?;
    let mut total = 0;
    let mut further = 0;
    for entry in wanted.iter().filter(|entry| !is_directory(entry)) {
        total += 1;
        if let Some(first) = &entry.hardlink {
            further += 1;
            fs::linkat(new, first.as_slice(), new, path_of(entry), AtFlags::empty())
                .map_err(|error| Error::io("make the hard link", path_of(entry), error))?;
        }
    }
    // Last, and what lies deeper first: making files changes times, and a mode may forbid it.
    wanted.par_iter().rev().with_min_len(64).filter(|entry| is_directory(entry)).try_for_each(|entry| {
        let path = if entry.path.is_empty() { Path::new(".") } else { path_of(entry) };
        let fail = |action, error| Error::io(action, path, error);
        let dir = fs::openat(new, path, OPEN, Mode::empty()).map_err(|error| fail("open", error))?;
        attributes(entry, options.caller_owns).apply_to_fd(dir).map_err(|(action, error)| fail(action, error))
    })?;
    Ok(DirectoryOutcome { kept, made: total - further - kept })
}

/// Puts the new tree in its place. What stands there gets the temporary name.
fn swap(above: &OwnedFd, temporary: &OsStr, name: &OsStr, exists: bool) -> rustix::io::Result<()> {
    if !exists {
        return match fs::renameat_with(above, temporary, above, name, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => fs::renameat(above, temporary, above, name),
            result => result,
        };
    }
    match fs::renameat_with(above, temporary, above, name, RenameFlags::EXCHANGE) {
        // A file system that can't exchange: for a moment nothing is there.
        Err(Errno::INVAL | Errno::NOSYS) => {
            let mut aside = temporary.to_owned();
            aside.push("-old");
            fs::renameat(above, name, above, &aside)?;
            fs::renameat(above, temporary, above, name)?;
            fs::renameat(above, &aside, above, temporary)
        }
        result => result,
    }
}

/// Removes a tree on all processors; nothing if it isn't there.
fn remove(above: &OwnedFd, name: &OsStr, dest: &Path) -> Result<()> {
    match remove_parallel(above, name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(Error::io("remove the old tree beside", dest, error)),
    }
}

fn remove_parallel(above: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    let dir = match fs::openat(above, name, OPEN, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => return remove_entry(above.as_fd(), name),
        dir => dir?,
    };
    names(&dir)?.par_iter().with_min_len(16).try_for_each(|(name, kind)| match kind {
        FileType::Directory | FileType::Unknown => remove_parallel(&dir, name),
        _ => fs::unlinkat(&dir, name, AtFlags::empty()),
    })?;
    fs::unlinkat(above, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
