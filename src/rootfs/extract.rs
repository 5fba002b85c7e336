//! Extracts tar archives into a root, with the same care for links as any other copy.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::attributes::set_mtime;
use super::copy::{copy_error, enter, make_way, member_path};
use super::members::{Member, Members};
use super::root::{clean, create_file};
use super::{Attributes, CopyOptions, Error, Ownership, RUNTIME_DIRECTORIES, Result, Root, is_portable_xattr};

/// Whether a file's name says that it is a tar archive: it has `.tar` as its last or next to last extension, as in
/// `base.tar` and `base.tar.zst`.
pub fn is_tar(path: &Path) -> bool {
    let is = |path: &Path| path.extension() == Some(OsStr::new("tar"));
    is(path) || path.file_stem().is_some_and(|stem| is(Path::new(stem)))
}

impl Root {
    /// Extracts a tar archive (plain, or compressed with gzip, xz or zstd) into the directory `target`. Numeric
    /// owners are kept unless [`Ownership::Caller`] is asked for. Errors: a member with `..` in its name, and all
    /// of [`Root::copy_tree`].
    pub fn extract(&self, archive: &Path, target: &str, options: &CopyOptions) -> Result<()> {
        let damaged = |error: io::Error| Error::Archive { archive: archive.to_owned(), reason: error.to_string() };
        let file = File::open(archive).map_err(damaged)?;
        let mut members = Members::new(decompressed(file).map_err(damaged)?);
        let mut extraction =
            Extraction { root: self, archive, target: clean(Path::new(target)), options, directories: BTreeMap::new() };
        self.create_dir_all(&extraction.target, 0o755)?;
        while let Some(member) = members.next().map_err(damaged)? {
            extraction.member(&member, &mut members)?;
        }
        extraction.finish()
    }
}

/// The contents of one regular file in a tar archive, by its path without a slash before it; none if there is no such
/// member. Errors: an archive that can't be read.
pub fn file_in_archive(archive: &Path, path: &str) -> Result<Option<Vec<u8>>> {
    let damaged = |error: io::Error| Error::Archive { archive: archive.to_owned(), reason: error.to_string() };
    let file = File::open(archive).map_err(damaged)?;
    let mut members = Members::new(decompressed(file).map_err(damaged)?);
    while let Some(member) = members.next().map_err(damaged)? {
        let plain = matches!(member.header.entry_type(), EntryType::Regular | EntryType::Continuous);
        if plain && clean(Path::new(OsStr::from_bytes(&member.name))) == Path::new(path) {
            let mut contents = Vec::new();
            members.read_to_end(&mut contents).map_err(damaged)?;
            return Ok(Some(contents));
        }
    }
    Ok(None)
}

/// Looks at the first bytes to tell how a file is compressed.
fn decompressed(file: File) -> io::Result<Box<dyn Read>> {
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let start = reader.fill_buf()?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(reader)?),
        [b'B', b'Z', b'h', ..] => {
            let reason = "it is compressed with bzip2; gzip, xz, zstd or no compression are needed";
            return Err(io::Error::new(io::ErrorKind::Unsupported, reason));
        }
        _ => Box::new(reader),
    })
}

struct Extraction<'a> {
    root: &'a Root,
    archive: &'a Path,
    target: PathBuf,
    options: &'a CopyOptions,
    /// Directories with what is applied to them in the end, when nothing more is put into them.
    directories: BTreeMap<PathBuf, Attributes>,
}

impl Extraction<'_> {
    fn damaged(&self, member: &Path, reason: impl std::fmt::Display) -> Error {
        let reason = format!("member `{}`: {reason}", member.display());
        Error::Archive { archive: self.archive.to_owned(), reason }
    }

    /// A member's name as a path below the target.
    fn below(&self, name: &Path) -> Result<PathBuf> {
        if name.components().any(|part| part == Component::ParentDir) {
            return Err(self.damaged(name, "its name has a `..`, which could lead out of the image"));
        }
        let name: PathBuf = name.components().filter(|part| matches!(part, Component::Normal(_))).collect();
        Ok(name)
    }

    fn member(&mut self, member: &Member, data: &mut impl Read) -> Result<()> {
        let named = PathBuf::from(OsStr::from_bytes(&member.name));
        let name = self.below(&named)?;
        if self.options.skip_runtime
            && RUNTIME_DIRECTORIES.iter().any(|dir| name != Path::new(dir) && name.starts_with(dir))
        {
            return Ok(());
        }
        let attributes = self.attributes(member).map_err(|error| self.damaged(&named, error))?;
        let kind = member.header.entry_type();
        let path = self.target.join(&name);
        let from = member_path(self.archive, &name);
        if name.as_os_str().is_empty() {
            // The archive's own root: the target keeps its attributes.
            return if kind.is_dir() { Ok(()) } else { Err(self.damaged(&named, "it has no name")) };
        }
        let (dir, last) = self.root.parent(&path)?;
        if kind.is_dir() {
            let (_, existed) = enter(self.root, &dir, &last, &from, &path)?;
            if !(existed && self.options.keep_directories) {
                self.directories.insert(path, attributes);
            }
            return Ok(());
        }
        make_way(self.root, &dir, &last, &from, &path)?;
        let fail = |action, error: io::Error| copy_error(self.root, &from, &path, action, error);
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let mut output = create_file(&dir, &last).map_err(|error| fail("make the file", error.into()))?;
                match &member.sparse {
                    Some(sparse) => sparse.expand(data, &mut output),
                    None => io::copy(data, &mut output).map(drop),
                }
                .map_err(|error| fail("copy the content", error))?;
                attributes.apply_to_fd(&output).map_err(|(action, error)| fail(action, error.into()))
            }
            EntryType::Link => {
                let first = self.target.join(self.below(Path::new(OsStr::from_bytes(&member.link)))?);
                let (first_dir, first_name) = self
                    .root
                    .existing_parent(&first)?
                    .ok_or_else(|| self.damaged(&named, "a hard link to a file that is not there"))?;
                fs::linkat(&first_dir, &first_name, &dir, &last, AtFlags::empty())
                    .map_err(|error| fail("make the hard link", error.into()))
            }
            EntryType::Symlink => {
                fs::symlinkat(member.link.as_slice(), &dir, &last)
                    .map_err(|error| fail("make the link", error.into()))?;
                attributes.apply_at(&dir, &last, true).map_err(|(action, error)| fail(action, error.into()))
            }
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                let (kind, device) = device(&member.header, kind).map_err(|error| self.damaged(&named, error))?;
                fs::mknodat(&dir, &last, kind, Mode::from_raw_mode(0o600), device)
                    .map_err(|error| fail("make the device or pipe", error.into()))?;
                attributes.apply_at(&dir, &last, false).map_err(|(action, error)| fail(action, error.into()))
            }
            other => Err(self.damaged(&named, format!("its type {:?} is not known", char::from(other.as_byte())))),
        }
    }

    fn attributes(&self, member: &Member) -> io::Result<Attributes> {
        let Member { header, records, .. } = member;
        let id = |value: u64| u32::try_from(value).map_err(|_| io::Error::other("its owner is out of range"));
        let owner = match self.options.owner {
            Ownership::Caller => None,
            Ownership::Root | Ownership::Source => Some((id(header.uid()?)?, id(header.gid()?)?)),
        };
        let owner = owner.map(|(uid, gid)| {
            let record = |key: &str| std::str::from_utf8(records.get(key.as_bytes())?).ok()?.parse().ok();
            (record("uid").unwrap_or(uid), record("gid").unwrap_or(gid))
        });
        let recorded = records.get(b"mtime".as_slice()).and_then(|time| parse_time(time));
        let mtime = match (self.options.epoch, recorded) {
            (Some(epoch), _) => (epoch, 0),
            (None, Some(time)) => time,
            (None, None) => (i64::try_from(header.mtime()?).unwrap_or(i64::MAX), 0),
        };
        let xattrs = records
            .iter()
            .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone())))
            .filter(|(key, _)| is_portable_xattr(key))
            .collect();
        Ok(Attributes { mode: Some(header.mode()? & 0o7777), owner, xattrs, mtime: Some(mtime) })
    }

    fn finish(self) -> Result<()> {
        // What a directory holds comes first: after that it may lose the permission to enter it.
        for (path, attributes) in self.directories.iter().rev() {
            let dir = match self.root.open_dir(path) {
                // A later member took its place.
                Err(Errno::NOENT | Errno::NOTDIR) => continue,
                dir => dir.map_err(|error| copy_error(self.root, self.archive, path, "open the directory", error))?,
            };
            attributes
                .apply_to_fd(dir)
                .map_err(|(action, error)| copy_error(self.root, self.archive, path, action, error))?;
        }
        if let Some(epoch) = self.options.epoch {
            self.root
                .open_dir(&self.target)
                .and_then(|dir| set_mtime(dir, (epoch, 0)))
                .map_err(|error| copy_error(self.root, self.archive, &self.target, "set the time", error))?;
        }
        Ok(())
    }
}

fn device(header: &Header, kind: EntryType) -> io::Result<(FileType, u64)> {
    let numbers = || -> io::Result<u64> {
        let (major, minor) = (header.device_major()?, header.device_minor()?);
        Ok(fs::makedev(major.unwrap_or(0), minor.unwrap_or(0)))
    };
    Ok(match kind {
        EntryType::Char => (FileType::CharacterDevice, numbers()?),
        EntryType::Block => (FileType::BlockDevice, numbers()?),
        _ => (FileType::Fifo, 0),
    })
}

/// A PAX time: decimal seconds with an optional fraction.
fn parse_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let nanoseconds: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    match (seconds.is_negative(), nanoseconds) {
        (true, 1..) => Some((seconds - 1, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}
