//! Takes progress bars out of what a program prints (of a line that was written over the last state stays), and PINs.

use std::io::{self, Write};

use crate::types::without_pins;

/// Passes whole lines on.
pub struct Quiet<'a> {
    out: &'a mut (dyn Write + Send),
    line: Vec<u8>,
}

impl<'a> Quiet<'a> {
    /// A writer before `out`.
    pub fn new(out: &'a mut (dyn Write + Send)) -> Self {
        Self { out, line: Vec::new() }
    }

    fn end_line(&mut self) -> io::Result<()> {
        let line = self.line.trim_ascii_end();
        let last = line.rsplit(|byte| *byte == b'\r').next().unwrap_or(line).trim_ascii();
        // Backspaces are mke2fs' way.
        let shown: Vec<u8> = last.iter().copied().filter(|byte| *byte != 8).collect();
        let result = if shown.is_empty() {
            Ok(())
        } else {
            self.out.write_all(format!("{}\n", without_pins(&String::from_utf8_lossy(&shown))).as_bytes())
        };
        self.line.clear();
        result
    }
}

impl Write for Quiet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                self.end_line()?;
            } else if self.line.len() > 1 << 16 {
                // Of a bar that goes on and on only its end is of use.
                self.line.drain(..1 << 15);
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A log that can't be written must not fail a build.
        let _ = self.end_line();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_left_out() {
        let mut out = Vec::new();
        let mut quiet = Quiet::new(&mut out);
        for part in ["one\nba", "r 1%\rbar 2%\r", "   \rdone\n\n", "8/8\u{8}\u{8}\u{8}   end"] {
            quiet.write_all(part.as_bytes()).unwrap();
        }
        drop(quiet);
        assert_eq!(String::from_utf8(out).unwrap(), "one\ndone\n8/8   end\n");
    }
}
