//! Looks again at what an action looked at in a directory of the host. Contents that did not change are not read again.
//!
//! Knows nothing of the action.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rayon::prelude::*;

use super::error::Context;
use super::root::locked;
use super::statcache::{self, Known, Stamp, StatCache};
use super::{Hasher, StoreError, TreeOptions};
use crate::reads::{Access, Aspect, Kind, Seen, View};
use crate::types::Encoder;

impl Hasher {
    /// Looks again at what was looked at of a directory, in the order of `accesses`. With each goes the file that a
    /// content was read of.
    ///
    /// # Errors
    /// When the directory can't be opened, or a file in it can't be read for another reason than that it may not be.
    pub fn sight(
        &self,
        path: &Path,
        hidden: &[PathBuf],
        accesses: &[Access],
    ) -> Result<Vec<(Seen, Option<Stamp>)>, StoreError> {
        if let [Access { path: below, aspects }] = accesses
            && below.is_empty()
            && *aspects == Aspect::Whole.bit()
        {
            let options = TreeOptions { exclude: hidden.to_vec(), ..TreeOptions::default() };
            let mut seen = Seen::new(Kind::Directory);
            seen.set(Aspect::Whole, self.tree(path, &options)?);
            return Ok(vec![(seen, None)]);
        }
        let view = View::open(path, hidden).context("open the directory", path)?;
        let shared = self.cache(Encoder::new("mkosi.stat.read", 1).bytes(view.path().as_os_str().as_bytes()));
        let cache = locked(&shared).clone();
        let news = Mutex::new(Vec::new());
        let sights = accesses
            .par_iter()
            .map(|access| sight(&view, access, &cache, &news))
            .collect::<Result<Vec<_>, StoreError>>()?;
        let news = news.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !news.is_empty() {
            let mut cache = locked(&shared);
            cache.extend(news);
            cache.save(&self.store)?;
        }
        Ok(sights)
    }
}

/// Looks at a path in the ways that an access names.
fn sight(
    view: &View,
    access: &Access,
    cache: &StatCache,
    news: &Mutex<Vec<(Vec<u8>, Known)>>,
) -> Result<(Seen, Option<Stamp>), StoreError> {
    let look = view.look(&access.path);
    let mut seen = Seen::new(look.kind);
    let mut stamp = None;
    if access.has(Aspect::Name) {
        seen.set(Aspect::Name, look.digest());
    }
    if access.has(Aspect::List) {
        seen.set(Aspect::List, View::list_digest(&view.list(&access.path)));
    }
    if access.has(Aspect::Capability) {
        seen.set(Aspect::Capability, View::capability_digest(&view.capability(&access.path)));
    }
    if access.has(Aspect::Content) {
        let nothing = |why: &str| Encoder::new("mkosi.seen.content", 1).str(why).finish();
        let digest = match look.stamp.filter(|_| look.kind == Kind::File) {
            None => nothing("no file"),
            Some(now) => match cache.get(&access.path, &now) {
                Some(known) => {
                    stamp = Some(known.stamp());
                    known.digest()
                }
                None => match statcache::read(&view.host_path(&access.path)) {
                    Ok((known, _, settled)) => {
                        stamp = Some(known.stamp());
                        let digest = known.digest();
                        if settled {
                            locked(news).push((access.path.clone(), known));
                        }
                        digest
                    }
                    Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::PermissionDenied => {
                        nothing("closed")
                    }
                    Err(StoreError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                        nothing("no file")
                    }
                    Err(error) => return Err(error),
                },
            },
        };
        seen.set(Aspect::Content, digest);
    }
    Ok((seen, stamp))
}
