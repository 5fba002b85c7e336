//! Writes a package's data archive into the tree as dpkg would: owners by name, directories that are there left as
//! they are, configuration files under another name until the package is configured.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::sync::Mutex;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
use tar::{Entry, EntryType};

use super::deb::Deb;
use super::install::DOCS;
use super::unpack::{Plan, Stop};

/// Owner, mode and time of an entry.
#[derive(Clone, Copy, Debug)]
struct Meta {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
}

/// Who has which path. A path of two packages is a case for dpkg, but for directories; the first package in dpkg's
/// order says what a directory's owner and mode are.
pub(super) struct Claims {
    installed: BTreeSet<String>,
    files: HashMap<String, usize>,
    literal: HashMap<String, BTreeSet<usize>>,
    directories: BTreeMap<String, Directory>,
}

struct Directory {
    by: usize,
    meta: Meta,
    made: bool,
}

impl Claims {
    /// No claims yet but those of the packages that are installed.
    pub fn new(installed: BTreeSet<String>) -> Self {
        Self { installed, files: HashMap::new(), literal: HashMap::new(), directories: BTreeMap::new() }
    }

    /// The packages of this run, by number, that have the path. Where both its names count as one, a file that is
    /// known by its other name is another file to dpkg.
    pub fn literal(&self, path: &str) -> impl Iterator<Item = usize> {
        self.literal.get(path).into_iter().flatten().copied()
    }

    fn file(&mut self, path: &str, by: usize) -> Result<(), Stop> {
        self.literal.entry(path.to_owned()).or_default().insert(by);
        let path = merged(path);
        if self.directories.contains_key(&path) || self.installed.contains(&path) {
            return Err(Stop::Declined(format!("{path} is in another package too")));
        }
        match self.files.insert(path.clone(), by) {
            None => Ok(()),
            Some(_) => Err(Stop::Declined(format!("{path} is in two packages"))),
        }
    }

    fn directory(&mut self, path: &str, by: usize, meta: Meta, base: bool) -> Result<(), Stop> {
        self.literal.entry(path.to_owned()).or_default().insert(by);
        let key = merged(path);
        if self.files.contains_key(&key) {
            return Err(Stop::Declined(format!("{path} is a directory and a file")));
        }
        if let Some(known) = self.directories.get_mut(&key) {
            if by < known.by {
                (known.by, known.meta) = (by, meta);
            }
            return Ok(());
        }
        let made = match std::fs::create_dir(path) {
            Ok(()) => true,
            Err(_) if Path::new(path).is_dir() => base && path == "/",
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(path).map_err(Stop::io("could not make", Path::new(path)))?;
                true
            }
            Err(error) => return Err(Stop::Declined(format!("{path} can't be made: {error}"))),
        };
        self.directories.insert(key, Directory { by, meta, made });
        Ok(())
    }

    /// Gives the directories that were made their owners, modes and times, the deepest first.
    pub fn finish_directories(&self) -> Result<(), Stop> {
        for (path, directory) in self.directories.iter().rev().filter(|(_, d)| d.made) {
            set(Path::new(path), directory.meta)?;
        }
        Ok(())
    }
}

/// A path under the name that it has in a tree with merged /usr, so that both names of a file count as one.
fn merged(path: &str) -> String {
    let first = path.get(1..).and_then(|p| p.split('/').next()).unwrap_or_default();
    let is_merged = matches!(first, "bin" | "sbin") || first.starts_with("lib");
    // `/lib` itself is a link of the tree; what lies below it is not.
    if is_merged && path.len() > first.len() + 1 { format!("/usr{path}") } else { path.to_owned() }
}

/// The numbers of users and groups by the names that the tree has for them.
pub(super) struct Owners {
    users: HashMap<String, u32>,
    groups: HashMap<String, u32>,
}

impl Owners {
    /// Reads the tree's passwd(5) and group(5); a minimal tree has none yet.
    pub fn read() -> Self {
        let read = |path: &str| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let entry = |line: &str| {
                let mut fields = line.split(':');
                Some((fields.next()?.to_owned(), fields.nth(1)?.parse().ok()?))
            };
            text.lines().filter_map(entry).collect()
        };
        Self { users: read("/etc/passwd"), groups: read("/etc/group") }
    }

    fn meta(&self, header: &tar::Header) -> io::Result<Meta> {
        let by_name = |name: Option<&str>, known: &HashMap<String, u32>| known.get(name?).copied();
        let number = |value: u64| u32::try_from(value).map_err(|_| io::Error::from(io::ErrorKind::InvalidData));
        let (uid, gid) = (number(header.uid()?)?, number(header.gid()?)?);
        Ok(Meta {
            mode: header.mode()? & 0o7777,
            uid: by_name(header.username().ok().flatten(), &self.users).unwrap_or(uid),
            gid: by_name(header.groupname().ok().flatten(), &self.groups).unwrap_or(gid),
            mtime: i64::try_from(header.mtime()?).unwrap_or(0),
        })
    }
}

/// Writes what is in one package and gives the paths in the form of dpkg's `.list` files.
pub(super) fn extract(
    deb: &Deb,
    file: &File,
    index: usize,
    plan: &Plan,
    claims: &Mutex<Claims>,
    owners: &Owners,
) -> Result<Vec<String>, Stop> {
    let conffiles = deb.text("conffiles");
    let conffiles: BTreeSet<&str> = conffiles.lines().map(str::trim_end).filter(|l| !l.is_empty()).collect();
    let lock = || claims.lock().map_err(|_| Stop::Failed("a thread panicked".to_owned()));
    let mut paths = Vec::new();
    let mut archive = tar::Archive::new(deb.data_of(file)?);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = name(&entry.path_bytes())?;
        paths.push(if path == "/" { "/.".to_owned() } else { path.clone() });
        let kind = entry.header().entry_type();
        if !plan.docs && excluded(&path, matches!(kind, EntryType::Directory | EntryType::Symlink)) {
            continue;
        }
        let meta = owners.meta(entry.header())?;
        if kind == EntryType::Directory {
            lock()?.directory(&path, index, meta, plan.base)?;
            continue;
        }
        lock()?.file(&path, index)?;
        match kind {
            EntryType::Regular | EntryType::Continuous if conffiles.contains(path.as_str()) => {
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents)?;
                write(&format!("{path}.dpkg-new"), &mut contents.as_slice(), meta)?;
                if plan.base {
                    write(&path, &mut contents.as_slice(), meta)?;
                }
            }
            EntryType::Regular | EntryType::Continuous => write(&path, &mut entry, meta)?,
            EntryType::Symlink if !conffiles.contains(path.as_str()) => link(&path, &entry, meta)?,
            EntryType::Link if !conffiles.contains(path.as_str()) => {
                let target = name(&entry.link_name_bytes().unwrap_or_default())?;
                if conffiles.contains(target.as_str()) {
                    return Err(Stop::Declined(format!("{path} is a link to a configuration file")));
                }
                clear(&path)?;
                std::fs::hard_link(&target, &path).map_err(Stop::io("could not link", Path::new(&path)))?;
            }
            _ => return Err(Stop::Declined(format!("{path} is of an uncommon kind"))),
        }
    }
    Ok(paths)
}

/// An entry's name as an absolute path without `.` and a slash at its end.
fn name(bytes: &[u8]) -> Result<String, Stop> {
    let text = std::str::from_utf8(bytes).map_err(|_| Stop::Declined("a name is not UTF-8".to_owned()))?;
    let text = text.strip_prefix('.').filter(|t| t.is_empty() || t.starts_with('/')).unwrap_or(text);
    let text = text.trim_matches('/');
    if text.split('/').any(|part| part == ".." || part == ".") || text.contains(['\n', '\0']) {
        return Err(Stop::Declined(format!("the name {text:?} is not plain")));
    }
    Ok(format!("/{text}"))
}

/// dpkg's rule for `--path-exclude` (its lib `filter.c` has `*` match slashes; a directory or link stays if something
/// below the fixed start of an include pattern could bring files back).
fn excluded(path: &str, directory_or_link: bool) -> bool {
    let below = |glob: &&str| path.get(1..).is_some_and(|p| p.starts_with(glob.trim_end_matches('*')));
    let doc = path.strip_prefix("/usr/share/doc/");
    let kept = doc.is_some_and(|rest| rest.ends_with("/copyright") || directory_or_link);
    DOCS.iter().any(below) && !kept
}

/// Makes way for a file: what dpkg would rename over.
fn clear(path: &str) -> Result<(), Stop> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) if Path::new(path).is_dir() => Err(Stop::Declined(format!("{path} is a directory here"))),
        other => other.map_err(Stop::io("could not replace", Path::new(path))),
    }
}

fn write(path: &str, contents: &mut impl Read, meta: Meta) -> Result<(), Stop> {
    let open = || File::options().write(true).create_new(true).mode(0o600).open(path);
    let file = match open() {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            clear(path)?;
            open()
        }
        // A package that doesn't list the directory it writes to.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Stop::Declined(format!("{path} has no directory")));
        }
        other => other,
    };
    let mut file = file.map_err(Stop::io("could not make", Path::new(path)))?;
    io::copy(contents, &mut file).map_err(Stop::io("could not write", Path::new(path)))?;
    set(Path::new(path), meta)
}

fn link<R: Read>(path: &str, entry: &Entry<'_, R>, meta: Meta) -> Result<(), Stop> {
    use std::os::unix::ffi::OsStrExt;
    let target = entry.link_name_bytes().unwrap_or_default();
    let (at, target) = (Path::new(path), std::ffi::OsStr::from_bytes(&target));
    // The links of a merged /usr are there before the package that has them.
    if !std::fs::read_link(at).is_ok_and(|old| old == target) {
        if at.is_dir() {
            return Err(Stop::Declined(format!("{path} is a directory here")));
        }
        clear(path)?;
        symlink(target, at).map_err(Stop::io("could not make the link", at))?;
    }
    lchown(at, Some(meta.uid), Some(meta.gid)).map_err(Stop::io("could not change the owner of", at))?;
    times(at, meta.mtime).map_err(Stop::io("could not set the time of", at))
}

/// Owner first: changing it clears set-id bits.
fn set(path: &Path, meta: Meta) -> Result<(), Stop> {
    chown(path, Some(meta.uid), Some(meta.gid)).map_err(Stop::io("could not change the owner of", path))?;
    let mode = Permissions::from_mode(meta.mode);
    std::fs::set_permissions(path, mode).map_err(Stop::io("could not change the mode of", path))?;
    times(path, meta.mtime).map_err(Stop::io("could not set the time of", path))
}

fn times(path: &Path, mtime: i64) -> io::Result<()> {
    let last_access = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let times = Timestamps { last_access, last_modification: Timespec { tv_sec: mtime, tv_nsec: 0 } };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_absolute() {
        let plain = |text: &str| name(text.as_bytes()).ok();
        assert_eq!(plain("./"), Some("/".to_owned()));
        assert_eq!(plain("./usr/bin/"), Some("/usr/bin".to_owned()));
        assert_eq!(plain(".hidden"), Some("/.hidden".to_owned()));
        assert_eq!(plain("./a/../b"), None);
    }

    #[test]
    fn both_names_of_a_merged_directory_are_one() {
        assert_eq!(merged("/lib/x"), "/usr/lib/x");
        assert_eq!(merged("/lib64/ld.so"), "/usr/lib64/ld.so");
        assert_eq!(merged("/lib"), "/lib");
        assert_eq!(merged("/usr/lib/x"), "/usr/lib/x");
    }

    #[test]
    fn documentation_without_copyright_files() {
        assert!(excluded("/usr/share/doc/bash/README", false));
        assert!(!excluded("/usr/share/doc/bash/copyright", false));
        assert!(!excluded("/usr/share/doc/bash", true));
        assert!(excluded("/usr/share/man/man1", true));
        assert!(!excluded("/usr/share/manx", false));
    }
}
