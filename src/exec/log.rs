//! What a node's commands print.

use std::collections::VecDeque;
use std::fs::{File, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{Event, Observer};
use crate::plan::NodeId;

/// How much of a node's output its log keeps, in bytes. A command that prints without end must not fill the disk.
const LOG_LIMIT: usize = 256 << 20;

/// How many lines of a failed node's output an error carries.
const TAIL: usize = 40;

/// An empty file that only its owner reads: scripts print what they please.
fn private(path: &Path) -> std::io::Result<File> {
    let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    // It may be there from an older version.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

/// Keeps what a node's commands print: all of it in a file, the last lines for an error, each line for the observer.
pub struct Log<'a> {
    file: Option<File>,
    /// How many bytes the file may still get.
    room: usize,
    id: NodeId,
    observer: &'a dyn Observer,
    line: Vec<u8>,
    /// The last lines.
    pub tail: VecDeque<String>,
}

impl<'a> Log<'a> {
    /// Begins the log of a node in the file `path`. Without it where that can't be made: a build does not fail over it.
    pub fn new(path: &Path, id: NodeId, observer: &'a dyn Observer) -> Self {
        let parent = path.parent().map(Path::to_path_buf).unwrap_or_default();
        let file = std::fs::create_dir_all(parent).and_then(|()| private(path)).ok();
        Self { file, room: LOG_LIMIT, id, observer, line: Vec::new(), tail: VecDeque::new() }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        self.observer.event(Event::Line { id: self.id, line: &line });
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(line);
    }
}

impl Write for Log<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        // A full disk must not stop a command that only wants to print.
        if let Some(file) = &mut self.file {
            let kept = bytes.get(..self.room).unwrap_or(bytes);
            self.room -= kept.len();
            let cut = kept.len() < bytes.len();
            let failed = file.write_all(kept).is_err();
            if cut {
                let _ = file.write_all(b"\n[the rest was not kept]\n");
            }
            if failed || cut {
                self.file = None;
            }
        }
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            // A line without an end is kept to a bound.
            let room = 4096_usize.saturating_sub(self.line.len());
            self.line.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") {
                self.end_line();
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Log<'_> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.end_line();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_reads_a_log() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("log");
        let mode = || path.metadata().unwrap().permissions().mode() & 0o7777;
        private(&path).unwrap();
        assert_eq!(mode(), 0o600);
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        private(&path).unwrap();
        assert_eq!((mode(), path.metadata().unwrap().len()), (0o600, 0));
    }
}
