//! Brings the files of an output from the store to the user's directory, each in one step.
//!
//! A file is copied (never linked: users may write to an output, and the store must not notice) under a hidden name
//! and then renamed. A record tells what is ours, so that nothing else is ever replaced or removed unasked.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::rootfs::{Attributes, copy_content, remove_entry};
use crate::types::Digest;

use super::state::{self, Identity, Stamp};
use super::{Error, Result};

const VERSION: u32 = 1;

/// What an output file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A copy of a file in the store.
    File {
        /// The file in the store.
        source: PathBuf,
        /// Its digest; that it is right is the store's word.
        digest: Digest,
        /// Permission bits (`OutputMode=`).
        mode: u32,
    },
    /// A symbolic link.
    Link {
        /// What it leads to.
        target: String,
    },
}

/// How files are published.
#[derive(Clone, Debug, Default)]
pub struct PublishOptions {
    /// Replaces what isn't ours too.
    pub force: bool,
    /// Owner and group of what is published; whoever runs this if `None`.
    pub owner: Option<(u32, u32)>,
}

/// What a publication did, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Files that were put there or replaced.
    pub written: Vec<String>,
    /// Files that were there already and untouched.
    pub kept: Vec<String>,
    /// Files of earlier publications that are no part of this one. They stay; [`withdraw`] removes them.
    pub stale: Vec<String>,
}

/// What was published under a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Published {
    File { digest: Digest, mode: u32 },
    Link { target: String },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    content: Published,
    /// Which files of that name are ours: one, or two while one replaces the other.
    ours: Vec<Identity>,
    /// How it looked when it was in place; none while it is being put there.
    stamp: Option<Stamp>,
}

#[derive(Default, Serialize, Deserialize)]
struct State {
    version: u32,
    files: BTreeMap<String, Known>,
}

impl State {
    fn load(path: &Path) -> Self {
        let decode = |bytes: Vec<u8>| serde_json::from_slice::<Self>(&bytes).ok();
        state::load(path).and_then(decode).filter(|state| state.version == VERSION).unwrap_or_default()
    }

    fn save(&mut self, path: &Path) -> Result<()> {
        self.version = VERSION;
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| Error::io("encode the record", path, error))?;
        state::save(path, &bytes)
    }

    fn is_current(&self, dir: &OwnedFd, name: &str, content: &Content) -> bool {
        let Some(known) = self.files.get(name) else { return false };
        known.content == content.published() && known.stamp.is_some() && known.stamp == stamp(dir, name)
    }

    fn is_ours(&self, dir: &OwnedFd, name: &str) -> bool {
        let Ok(found) = Identity::of(dir, Path::new(name)) else { return false };
        self.files.get(name).is_some_and(|known| known.ours.contains(&found))
    }
}

impl Content {
    fn published(&self) -> Published {
        match self {
            Self::File { digest, mode, .. } => Published::File { digest: *digest, mode: *mode },
            Self::Link { target } => Published::Link { target: target.clone() },
        }
    }
}

fn stamp(dir: &OwnedFd, name: &str) -> Option<Stamp> {
    fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| Stamp::from(&stat))
}

fn open(dir: &Path) -> rustix::io::Result<OwnedFd> {
    fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Whether everything in `wanted` is in `dir` and untouched since it was published: one stat(2) per file.
pub fn is_current(dir: &Path, state: &Path, wanted: &BTreeMap<String, Content>) -> bool {
    let Ok(opened) = open(dir) else { return wanted.is_empty() };
    let record = State::load(state);
    wanted.iter().all(|(name, content)| record.is_current(&opened, name, content))
}

/// Brings `wanted`, by name, to the directory `dir`, which is made if it is missing. What is there and untouched
/// stays. Every file is copied before the first is renamed, so that an error or a full disk leaves the old outputs.
/// `state` is the path of the record that is kept from one publication to the next. Errors: [`Error::NotOurs`],
/// before anything was done, if a file would be replaced that the record doesn't know; not if `force` is set.
pub fn publish(
    dir: &Path,
    state: &Path,
    wanted: &BTreeMap<String, Content>,
    options: &PublishOptions,
) -> Result<Outcome> {
    std::fs::create_dir_all(dir).map_err(|error| Error::io("make the directory", dir, error))?;
    let opened = open(dir).map_err(|error| Error::io("open", dir, error))?;
    let _lock = state::lock(state)?;
    let mut record = State::load(state);
    let mut outcome = Outcome::default();
    let mut missing = Vec::new();
    for (name, content) in wanted {
        if !is_name(name) {
            return Err(Error::Name { name: name.clone() });
        }
        if let Some(taken) = directories(name).find(|above| !is_free_or_directory(&opened, above)) {
            return Err(Error::NotOurs { path: dir.join(taken) });
        }
        if record.is_current(&opened, name, content) {
            outcome.kept.push(name.clone());
            continue;
        }
        if stamp(&opened, name).is_some() && !options.force && !record.is_ours(&opened, name) {
            return Err(Error::NotOurs { path: dir.join(name) });
        }
        missing.push((name, content));
    }
    outcome.stale = record.files.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
    if missing.is_empty() {
        return Ok(outcome);
    }
    let mut put = || -> Result<()> {
        for (name, content) in &missing {
            make(&opened, dir, name, content, options)?;
        }
        for (name, content) in &missing {
            let temporary = temporary_name(name);
            let identity = Identity::of(&opened, Path::new(&temporary))
                .map_err(|error| Error::io("look up", dir.join(&temporary), error))?;
            let mut ours = vec![identity];
            ours.extend(record.files.get(*name).map(|known| known.ours.clone()).unwrap_or_default());
            record.files.insert((*name).clone(), Known { content: content.published(), ours, stamp: None });
        }
        // If this ends in the middle, both the old and the new files are known as ours.
        record.save(state)?;
        for (name, _) in &missing {
            place(&opened, name).map_err(|error| Error::io("replace", dir.join(name), error))?;
            if let Some(known) = record.files.get_mut(*name) {
                known.ours.truncate(1);
                known.stamp = stamp(&opened, name);
            }
            outcome.written.push((*name).clone());
        }
        record.save(state)
    };
    put().inspect_err(|_| {
        for (name, _) in &missing {
            // The error that is reported is the first one.
            let _ = remove_entry(&opened, OsStr::new(&temporary_name(name)));
        }
    })?;
    Ok(outcome)
}

/// Removes the files `names` from `dir` as far as they are ours, and returns those that were removed. A file that
/// someone put in the place of ours stays, and is no longer ours.
pub fn withdraw<'a>(dir: &Path, state: &Path, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<String>> {
    let _lock = state::lock(state)?;
    let mut record = State::load(state);
    let mut removed = Vec::new();
    let opened = match open(dir) {
        Ok(opened) => Some(opened),
        Err(Errno::NOENT) => None,
        Err(error) => return Err(Error::io("open", dir, error)),
    };
    for name in names {
        if let Some(opened) = opened.as_ref().filter(|opened| record.is_ours(opened, name)) {
            fs::unlinkat(opened, name, AtFlags::empty()).map_err(|error| Error::io("remove", dir.join(name), error))?;
            removed.push(name.to_owned());
            // One that still holds something stays.
            let emptied: Vec<&str> = directories(name).collect();
            for above in emptied.into_iter().rev() {
                let _ = fs::unlinkat(opened, above, AtFlags::REMOVEDIR);
            }
        }
        record.files.remove(name);
    }
    record.save(state)?;
    Ok(removed)
}

/// Removes all files that are ours from `dir`, as [`withdraw`] does, and the record.
pub fn clean(dir: &Path, state: &Path) -> Result<Vec<String>> {
    let names = published(state);
    let removed = match names.is_empty() {
        true => Vec::new(),
        false => withdraw(dir, state, names.iter().map(String::as_str))?,
    };
    state::forget(state)?;
    Ok(removed)
}

/// The names that were published with the record at `state` and not withdrawn since.
pub fn published(state: &Path) -> Vec<String> {
    State::load(state).files.into_keys().collect()
}

/// Whether it can be the name of an output: a file name, or one in directories of the output directory.
fn is_name(name: &str) -> bool {
    !name.contains('\0') && name.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// The directories above a name, outermost first: `a` and `a/b` above `a/b/c`.
fn directories(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').filter_map(|(at, _)| name.get(..at))
}

fn is_free_or_directory(opened: &OwnedFd, name: &str) -> bool {
    match fs::statat(opened, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => fs::FileType::from_raw_mode(stat.st_mode) == fs::FileType::Directory,
        Err(_) => true,
    }
}

fn temporary_name(name: &str) -> String {
    match name.rsplit_once('/') {
        Some((above, name)) => format!("{above}/.{name}.mkosi-new"),
        None => format!(".{name}.mkosi-new"),
    }
}

/// Makes the new file under its temporary name.
fn make(opened: &OwnedFd, dir: &Path, name: &str, content: &Content, options: &PublishOptions) -> Result<()> {
    let temporary = temporary_name(name);
    let path = dir.join(&temporary);
    let fail = |action, error: Errno| Error::io(action, &path, error);
    for above in directories(name) {
        match fs::mkdirat(opened, above, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(Error::io("make the directory", dir.join(above), error)),
        }
    }
    // What a killed run has left.
    match remove_entry(opened, OsStr::new(&temporary)) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(error) => return Err(fail("remove", error)),
    }
    let mut attributes = Attributes { owner: options.owner, ..Default::default() };
    match content {
        Content::File { source, mode, .. } => {
            let input = File::open(source).map_err(|error| Error::io("open", source, error))?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let output = fs::openat(opened, temporary.as_str(), flags, Mode::from_raw_mode(0o600))
                .map(File::from)
                .map_err(|error| fail("make", error))?;
            copy_content(&input, &output).map_err(|error| Error::io("write", &path, error))?;
            attributes.mode = Some(*mode);
            attributes.apply_to_fd(&output).map_err(|(action, error)| fail(action, error))
        }
        Content::Link { target } => {
            fs::symlinkat(target.as_str(), opened, temporary.as_str()).map_err(|error| fail("make", error))?;
            attributes
                .apply_at(opened.as_fd(), OsStr::new(&temporary), true)
                .map_err(|(action, error)| fail(action, error))
        }
    }
}

/// Gives the new file its name.
fn place(opened: &OwnedFd, name: &str) -> rustix::io::Result<()> {
    let temporary = temporary_name(name);
    match fs::renameat(opened, temporary.as_str(), opened, name) {
        // A directory, which `force` allows to replace.
        Err(Errno::ISDIR) => {
            remove_entry(opened, OsStr::new(name))?;
            fs::renameat(opened, temporary.as_str(), opened, name)
        }
        result => result,
    }
}

#[cfg(test)]
#[path = "publish_tests.rs"]
mod tests;
