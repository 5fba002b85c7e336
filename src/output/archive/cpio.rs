//! The cpio format that the kernel unpacks as an initramfs: `newc` ("SVR4", magic 070701), see the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.
//!
//! Inode numbers are counted from 1, so the archive depends on the tree alone. All names of a file but the last are
//! written without content, as every cpio does and GNU cpio wants it. The format has no extended attributes.

use std::collections::BTreeMap;
use std::io::Write;

use crate::store::{Kind, MergedTree};

use super::super::{Error, Result};
use super::{ArchiveOptions, copy_file, file_key, links, path_of};

const HEADER: usize = 110;

struct Head<'a> {
    name: &'a [u8],
    inode: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    links: u32,
    mtime: u32,
    size: u32,
    device: (u32, u32),
}

/// Writes `tree` as a cpio archive to `out` and returns `out`, which is not flushed. The root itself is no member.
/// Errors: a file of 4 GiB or more.
pub fn write_cpio<W: Write>(tree: &MergedTree, options: &ArchiveOptions, out: W) -> Result<W> {
    let mut out = Writer { out, position: 0 };
    let entries = options.entries(tree);
    let links = links(&entries);
    let mut inodes: BTreeMap<&[u8], u32> = BTreeMap::new();
    let mut next_inode = 1;
    for (index, merged) in entries.iter().enumerate() {
        let entry = &merged.entry;
        if entry.path.is_empty() {
            continue;
        }
        let (kind, content, device) = match &entry.kind {
            Kind::Directory { .. } => (0o040_000, 0, (0, 0)),
            Kind::File { size, .. } => (0o100_000, *size, (0, 0)),
            Kind::Symlink { target } => (0o120_000, target.len() as u64, (0, 0)),
            Kind::Character { device } => (0o020_000, 0, *device),
            Kind::Block { device } => (0o060_000, 0, *device),
            Kind::Fifo => (0o010_000, 0, (0, 0)),
            Kind::Socket => (0o140_000, 0, (0, 0)),
            // As overlayfs has it: a character device.
            Kind::Whiteout => (0o020_000, 0, (0, 0)),
        };
        let (count, last) = links.get(file_key(entry)).copied().unwrap_or((1, index));
        let directory = matches!(entry.kind, Kind::Directory { .. });
        let inode = match inodes.get(file_key(entry)) {
            Some(inode) if count > 1 => *inode,
            _ => {
                let inode = next_inode;
                next_inode += 1;
                inodes.insert(file_key(entry), inode);
                inode
            }
        };
        let holds_content = index == last || !matches!(entry.kind, Kind::File { .. });
        let size = if holds_content { content } else { 0 };
        let size = u32::try_from(size).map_err(|_| Error::Unfit {
            path: path_of(entry),
            format: "cpio",
            reason: "the format ends at 4 GiB per file",
        })?;
        out.head(&Head {
            name: &entry.path,
            inode,
            mode: kind | (entry.meta.mode & 0o7777),
            uid: entry.meta.uid,
            gid: entry.meta.gid,
            links: if directory { 2 } else { count },
            mtime: u32::try_from(options.mtime(entry).max(0)).unwrap_or(u32::MAX),
            size,
            device,
        })?;
        match &entry.kind {
            Kind::File { .. } if holds_content => {
                copy_file(merged, content, &mut out.out, "cpio archive")?;
                out.position += content;
            }
            Kind::Symlink { target } => out.write(target)?,
            _ => {}
        }
        out.pad(4)?;
    }
    let trailer =
        Head { name: b"TRAILER!!!", inode: 0, mode: 0, uid: 0, gid: 0, links: 1, mtime: 0, size: 0, device: (0, 0) };
    out.head(&trailer)?;
    out.pad(512)?;
    Ok(out.out)
}

struct Writer<W> {
    out: W,
    position: u64,
}

impl<W: Write> Writer<W> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.position += bytes.len() as u64;
        self.out.write_all(bytes).map_err(|source| Error::Write { what: "cpio archive", source })
    }

    fn pad(&mut self, to: u64) -> Result<()> {
        let zeros = [0; 512];
        let count = (to - self.position % to) % to;
        self.write(zeros.get(..count as usize).unwrap_or_default())
    }

    fn head(&mut self, head: &Head<'_>) -> Result<()> {
        let name_size = u32::try_from(head.name.len() + 1).unwrap_or(u32::MAX);
        let mut text = String::with_capacity(HEADER);
        text.push_str("070701");
        for field in [
            head.inode,
            head.mode,
            head.uid,
            head.gid,
            head.links,
            head.mtime,
            head.size,
            0, // the device that the file lay on, major and minor
            0,
            head.device.0,
            head.device.1,
            name_size,
            0, // the checksum, of no use in this variant
        ] {
            text.push_str(&format!("{field:08X}"));
        }
        self.write(text.as_bytes())?;
        self.write(head.name)?;
        self.write(b"\0")?;
        self.pad(4)
    }
}
