//! The tar format: POSIX.1-2001 (pax), ustar headers with extended records only where ustar has no room.
//!
//! Extended attributes are written as `SCHILY.xattr.*` records, which GNU tar, libarchive and star read. Sockets
//! have no place in a tar archive and are left out, as every tar does.

use std::collections::BTreeMap;
use std::io::{self, Write};

use tar::{EntryType, Header};

use crate::store::{Entry, Kind, LABEL, MergedTree};

use super::super::{Error, Result};
use super::{ArchiveOptions, copy_file, file_key, path_of};

const BLOCK: u64 = 512;
/// What eleven and seven octal digits can hold.
const MAX_LONG: u64 = 0o77_777_777_777;
const MAX_SHORT: u64 = 0o7_777_777;

/// Writes `tree` as a tar archive to `out` and returns `out`, which is not flushed.
pub fn write_tar<W: Write>(tree: &MergedTree, options: &ArchiveOptions, out: W) -> Result<W> {
    let mut writer = Writer { out };
    // The name under which each file was written first.
    let mut written: BTreeMap<&[u8], &[u8]> = BTreeMap::new();
    for merged in options.entries(tree) {
        let entry = &merged.entry;
        let mtime = options.mtime(entry);
        let first = match entry.kind {
            Kind::Directory { .. } | Kind::Socket | Kind::Whiteout => None,
            _ => written.get(file_key(entry)).copied(),
        };
        if let Some(first) = first {
            writer.head(entry, EntryType::Link, &member_name(first, false), 0, mtime)?;
            continue;
        }
        match &entry.kind {
            Kind::Directory { .. } => writer.head(entry, EntryType::Directory, b"", 0, mtime)?,
            Kind::File { size, .. } => {
                writer.head(entry, EntryType::Regular, b"", *size, mtime)?;
                copy_file(merged, *size, &mut writer.out, "tar archive")?;
                writer.pad(*size)?;
            }
            Kind::Symlink { target } => writer.head(entry, EntryType::Symlink, target, 0, mtime)?,
            // A whiteout is what overlayfs has, a device 0:0.
            Kind::Character { .. } | Kind::Whiteout => writer.head(entry, EntryType::Char, b"", 0, mtime)?,
            Kind::Block { .. } => writer.head(entry, EntryType::Block, b"", 0, mtime)?,
            Kind::Fifo => writer.head(entry, EntryType::Fifo, b"", 0, mtime)?,
            Kind::Socket => continue,
        }
        written.insert(file_key(entry), &entry.path);
    }
    // Two empty blocks end an archive.
    writer.write(&[0; 2 * BLOCK as usize])?;
    Ok(writer.out)
}

/// Members are named from `./`, so that the root can be a member too.
fn member_name(path: &[u8], directory: bool) -> Vec<u8> {
    let mut name = b"./".to_vec();
    name.extend_from_slice(path);
    if directory && !path.is_empty() {
        name.push(b'/');
    }
    name
}

struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|source| Error::Write { what: "tar archive", source })
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let zeros = [0; BLOCK as usize];
        let count = (BLOCK - size % BLOCK) % BLOCK;
        self.write(zeros.get(..count as usize).unwrap_or_default())
    }

    fn head(&mut self, entry: &Entry, kind: EntryType, link: &[u8], size: u64, mtime: i64) -> Result<()> {
        let name = member_name(&entry.path, kind.is_dir());
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(entry.meta.mode & 0o7777);
        let device = match entry.kind {
            Kind::Character { device } | Kind::Block { device } => Some(device),
            Kind::Whiteout => Some((0, 0)),
            _ => None,
        };
        if let Some((major, minor)) = device {
            if u64::from(major.max(minor)) > MAX_SHORT {
                let (path, reason) = (path_of(entry), "its device number is too large");
                return Err(Error::Unfit { path, format: "tar", reason });
            }
            let numbers = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
            numbers.map_err(|source| Error::Write { what: "tar archive", source })?;
        }
        let mut records = Records::default();
        records.number("uid", u64::from(entry.meta.uid), MAX_SHORT, |value| header.set_uid(value));
        records.number("gid", u64::from(entry.meta.gid), MAX_SHORT, |value| header.set_gid(value));
        records.number("size", size, MAX_LONG, |value| header.set_size(value));
        match u64::try_from(mtime) {
            Ok(mtime) => records.number("mtime", mtime, MAX_LONG, |value| header.set_mtime(value)),
            Err(_) => records.add(b"mtime", mtime.to_string().as_bytes()),
        }
        records.text("path", &name, &mut header.as_old_mut().name);
        records.text("linkpath", link, &mut header.as_old_mut().linkname);
        if kind != EntryType::Link {
            for (attribute, value) in &entry.meta.xattrs {
                records.add(&[b"SCHILY.xattr.", attribute.as_slice()].concat(), value);
                // `tar --selinux` has a record of its own for labels.
                if attribute == LABEL {
                    records.add(b"RHT.security.selinux", value.strip_suffix(b"\0").unwrap_or(value));
                }
            }
        }
        self.records(&records.sorted(), &name)?;
        header.set_cksum();
        self.write(header.as_bytes())
    }

    /// Writes the extended header that goes before the member's own.
    fn records(&mut self, records: &[u8], name: &[u8]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let base = name.rsplit(|byte| *byte == b'/').find(|part| !part.is_empty()).unwrap_or(b".");
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(records.len() as u64);
        fill(&mut header.as_old_mut().name, &[b"./PaxHeaders/", base].concat());
        header.set_cksum();
        self.write(header.as_bytes())?;
        self.write(records)?;
        self.pad(records.len() as u64)
    }
}

/// Puts as much of `text` into a header's field as fits.
fn fill(field: &mut [u8], text: &[u8]) {
    // A Write for a slice stops at its end, which is what is wanted.
    let mut field = field;
    let _ = io::copy(&mut &text[..text.len().min(field.len())], &mut field);
}

/// The records of one member.
#[derive(Default)]
struct Records {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Records {
    fn add(&mut self, key: &[u8], value: &[u8]) {
        self.records.insert(key.to_vec(), value.to_vec());
    }

    fn number(&mut self, key: &str, value: u64, max: u64, set: impl FnOnce(u64)) {
        if value <= max {
            return set(value);
        }
        set(0);
        self.add(key.as_bytes(), value.to_string().as_bytes());
    }

    fn text(&mut self, key: &str, value: &[u8], field: &mut [u8]) {
        fill(field, value);
        if value.len() > field.len() {
            self.add(key.as_bytes(), value);
        }
    }

    /// `LENGTH KEY=VALUE\n` each, LENGTH being that of the whole record, its own digits with it. Names that are no
    /// UTF-8 need a record that says so.
    fn sorted(mut self) -> Vec<u8> {
        let names = ["path", "linkpath"].map(|key| self.records.get(key.as_bytes()));
        if names.into_iter().flatten().any(|name| std::str::from_utf8(name).is_err()) {
            self.add(b"hdrcharset", b"BINARY");
        }
        let mut bytes = Vec::new();
        for (key, value) in &self.records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            bytes.extend_from_slice(length.to_string().as_bytes());
            for part in [b" ", key.as_slice(), b"=", value, b"\n"] {
                bytes.extend_from_slice(part);
            }
        }
        bytes
    }
}
