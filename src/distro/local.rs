//! A repository of package files that lie in directories of the user's or that a script made: its lists for apt, and the
//! way of a file into the pool. Knows nothing of where the files come from.
//!
//! Whatever version such a package has, it goes before that of any other repository, as in mkosi: `Pin-Priority` above
//! 1000 (apt_preferences(5)).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::deb::Deb;
use super::{Cx, Error, Package, pool_path};
use crate::sandbox::Mount;

/// Where apt believes the files to be. Nothing is ever read from there.
const PLACE: &str = "/apt/local";
/// The repository's `Origin:`.
const ORIGIN: &str = "mkosi-local";

/// The packages.
#[derive(Clone, Debug, Default)]
pub struct Local {
    /// By the digest in hexadecimal digits: the file, and its paragraph in `Packages`.
    packages: BTreeMap<String, (PathBuf, String)>,
}

impl Local {
    /// Reads package files. Of those with one name the last counts.
    ///
    /// # Errors
    /// When a file can't be read or is no package.
    pub fn read(files: &[PathBuf]) -> Result<Self, Error> {
        let by_name: BTreeMap<_, &PathBuf> = files.iter().map(|path| (path.file_name(), path)).collect();
        let mut packages = BTreeMap::new();
        for path in by_name.into_values() {
            let (hash, size) = digest(path)?;
            let mut paragraph = Deb::open(path)?.control();
            paragraph.set("Filename", format!("./{hash}.deb"));
            paragraph.set("Size", size.to_string());
            paragraph.set("SHA256", hash.clone());
            let mut text = String::new();
            paragraph.write_to(&mut text);
            packages.insert(hash, (path.clone(), text));
        }
        Ok(Self { packages })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// Copies a chosen package into the pool, if it is one of these.
    ///
    /// # Errors
    /// When it can't be read or written.
    pub fn into_pool(&self, package: &Package, pool: &Path) -> Result<(), Error> {
        let Some((path, _)) = self.packages.get(&package.sha256) else { return Ok(()) };
        std::fs::create_dir_all(pool).map_err(Error::io("could not make", pool))?;
        let mut from = File::open(path).map_err(Error::io("could not open", path))?;
        let target = pool_path(pool, package);
        let mut to = tempfile::NamedTempFile::new_in(pool).map_err(Error::io("could not make a file in", pool))?;
        std::io::copy(&mut from, to.as_file_mut()).map_err(Error::io("could not copy", path))?;
        // The user may have changed it since it was read.
        if digest(to.path())?.0 != package.sha256 {
            let why = "it changed while it was read; build again".to_owned();
            return Err(Error::Format { path: path.clone(), why });
        }
        to.persist(&target).map(drop).map_err(|error| Error::io("could not write", &target)(error.error))
    }

    /// Adds the repository to lists that were fetched: gives a directory of both, the mount that it needs, and the text
    /// for the `.sources` file.
    pub(super) fn lists(&self, cx: &Cx<'_>, synced: &Path) -> Result<(tempfile::TempDir, Mount, String), Error> {
        let lists = tempfile::tempdir_in(&cx.work).map_err(Error::io("could not make a directory in", &cx.work))?;
        let link = |name: &std::ffi::OsStr| {
            let path = lists.path().join(name);
            std::os::unix::fs::symlink(Path::new("/apt/synced").join(name), &path)
                .map_err(Error::io("could not make the link", &path))
        };
        for entry in std::fs::read_dir(synced).map_err(Error::io("could not list", synced))? {
            link(&entry.map_err(Error::io("could not list", synced))?.file_name())?;
        }
        let write = |name: &str, text: &str| {
            // apt's own name for a list: the URI with `_` for `/`.
            let path = lists.path().join(format!("{}_._{name}", PLACE.replace('/', "_")));
            std::fs::write(&path, text).map_err(Error::io("could not write", &path))
        };
        write("Packages", &self.packages.values().map(|(_, text)| text.as_str()).collect::<String>())?;
        write("Release", &format!("Origin: {ORIGIN}\n"))?;
        let mount =
            Mount::Bind { source: synced.to_owned(), target: "/apt/synced".into(), read_only: true, optional: false };
        Ok((lists, mount, format!("Types: deb\nURIs: copy:{PLACE}\nSuites: ./\nTrusted: yes\n\n")))
    }
}

/// The preferences that put this repository before all others.
pub fn local_preferences() -> String {
    format!("Package: *\nPin: release o={ORIGIN}\nPin-Priority: 1100\n")
}

/// Whether a package comes from such a repository: no mirror has it.
pub fn is_local(package: &Package) -> bool {
    package.uri.starts_with(&format!("copy:{PLACE}/"))
}

/// SHA-256 in lower-case hexadecimal digits, and the size.
fn digest(path: &Path) -> Result<(String, u64), Error> {
    let mut file = File::open(path).map_err(Error::io("could not open", path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut size = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                hasher.update(buffer.get(..count).unwrap_or_default());
                size += count as u64;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("could not read", path)(error)),
        }
    }
    Ok((hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), size))
}
