//! `SHA256SUMS`: the checksums of output files in the form that `sha256sum --check` reads.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::{Error, Result};

/// The SHA-256 of a file in hexadecimal.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(|error| Error::io("open", path, error))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex(hasher)),
            Ok(count) => hasher.update(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Error::io("read", path, error)),
        }
    }
}

/// A finished sum in hexadecimal.
pub(super) fn hex(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The text of a `SHA256SUMS` for files by name with their checksums, sorted by name. Names with a line feed or
/// backslash are escaped as sha256sum(1) does.
pub fn sums(files: &BTreeMap<String, String>) -> String {
    let mut text = String::new();
    for (name, sum) in files {
        if name.contains(['\\', '\n', '\r']) {
            let name = name.replace('\\', "\\\\").replace('\n', "\\n").replace('\r', "\\r");
            text.push_str(&format!("\\{sum} *{name}\n"));
        } else {
            text.push_str(&format!("{sum} *{name}\n"));
        }
    }
    text
}

/// Passes on what is written to it and sums it up on the way, so that an output needn't be read again.
pub struct Summing<W> {
    out: W,
    hasher: Sha256,
    size: u64,
}

impl<W: Write> Summing<W> {
    /// Writes to `out`.
    pub fn new(out: W) -> Self {
        Self { out, hasher: Sha256::new(), size: 0 }
    }

    /// The output, the SHA-256 of all that was written in hexadecimal, and its size.
    pub fn finish(self) -> (W, String, u64) {
        (self.out, hex(self.hasher), self.size)
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::run;
    use super::*;

    #[test]
    fn sha256sum_agrees() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = BTreeMap::new();
        for (name, text) in [("z.raw", "z"), ("a.manifest", ""), ("odd\\name\nhere", "x")] {
            std::fs::write(dir.path().join(name), text.repeat(300_000)).unwrap();
            files.insert(name.to_owned(), sha256_file(&dir.path().join(name)).unwrap());
        }
        std::fs::write(dir.path().join("SHA256SUMS"), sums(&files)).unwrap();
        run(dir.path(), "sha256sum --strict --check SHA256SUMS");
        let mut summing = Summing::new(Vec::new());
        summing.write_all("z".repeat(300_000).as_bytes()).unwrap();
        let (_, sum, size) = summing.finish();
        assert_eq!((&sum, size), (&files["z.raw"], 300_000));
        let first = sums(&files);
        assert!(first.starts_with(&format!("{} *a.manifest\n", files["a.manifest"])), "{first}");
        assert!(matches!(sha256_file(Path::new("/nonexistent")), Err(Error::Io { .. })));
    }
}
