//! Copies a file's content the cheapest way the two file systems allow: shared extents, a copy inside the kernel,
//! or plain reads and writes. Holes stay holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};

use rustix::fs::{self, SeekFrom};
use rustix::io::Errno;

/// Copies all of `from` to the empty file `to` and returns the size. Neither file's position is of meaning.
pub fn copy_content(from: &File, to: &File) -> io::Result<u64> {
    let metadata = from.metadata()?;
    let size = metadata.len();
    if size == 0 || fs::ioctl_ficlone(to, from).is_ok() {
        return Ok(size);
    }
    // Allocated blocks are counted in 512 bytes by stat(2) whatever the block size is.
    if metadata.blocks().saturating_mul(512) >= size {
        copy_range(from, to, 0, size)?;
        return Ok(size);
    }
    let mut position = 0;
    while position < size {
        let (data, hole) = match fs::seek(from, SeekFrom::Data(position)) {
            Ok(data) => (data, fs::seek(from, SeekFrom::Hole(data))?.min(size)),
            Err(Errno::NXIO) => break,
            // This file system can't tell where holes are.
            Err(Errno::INVAL) => (position, size),
            Err(error) => return Err(error.into()),
        };
        copy_range(from, to, data, hole)?;
        position = hole;
    }
    to.set_len(size)?;
    Ok(size)
}

fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut position = start;
    while position < end {
        let (mut input, mut output) = (position, position);
        let length = usize::try_from(end - position).unwrap_or(usize::MAX).min(1 << 30);
        match fs::copy_file_range(from, Some(&mut input), to, Some(&mut output), length) {
            // Some virtual file systems answer 0 where read(2) has data.
            Ok(0) => return copy_range_by_reading(from, to, position, end),
            Ok(count) => position += count as u64,
            Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP | Errno::PERM) => {
                return copy_range_by_reading(from, to, position, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_range_by_reading(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 18];
    let mut position = start;
    while position < end {
        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX).min(buffer.len());
        let window = buffer.get_mut(..wanted).unwrap_or_default();
        let count = match from.read_at(window, position) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all_at(window.get(..count).unwrap_or_default(), position)?;
        position += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(write: impl Fn(&File)) -> (Vec<u8>, Vec<u8>, u64) {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        write(&File::create(&a).unwrap());
        copy_content(&File::open(&a).unwrap(), &File::create(&b).unwrap()).unwrap();
        let blocks = std::fs::metadata(&b).unwrap().blocks();
        (std::fs::read(a).unwrap(), std::fs::read(b).unwrap(), blocks)
    }

    #[test]
    fn content_survives_and_holes_stay() {
        let (a, b, _) = round_trip(|file| file.write_all_at(&vec![7; 300_000], 0).unwrap());
        assert_eq!(a, b);
        let (a, b, blocks) = round_trip(|file| {
            file.write_all_at(b"start", 0).unwrap();
            file.write_all_at(b"middle", 5 << 20).unwrap();
            file.set_len(20 << 20).unwrap();
        });
        assert_eq!(a, b);
        assert!(blocks * 512 < 1 << 20, "{blocks} blocks: the holes were filled");
        let (a, b, _) = round_trip(|_| {});
        assert_eq!(a, b);
    }

    #[test]
    fn reading_and_writing_works_where_nothing_better_does() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        std::fs::write(&a, vec![3; 1_000_000]).unwrap();
        copy_range_by_reading(&File::open(&a).unwrap(), &File::create(&b).unwrap(), 0, 1_000_000).unwrap();
        assert_eq!(std::fs::read(&a).unwrap(), std::fs::read(&b).unwrap());
        let short = copy_range_by_reading(&File::open(&a).unwrap(), &File::create(&b).unwrap(), 0, 1_000_001);
        assert_eq!(short.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
