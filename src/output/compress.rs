//! Compression of outputs as a stream, with bytes that depend on the input and the level alone.
//!
//! Compressing on several processors splits the input into parts. The size of a part is fixed here, so that the
//! number of processors, the sizes of writes and flushes have no say in the bytes.

use std::fmt;
use std::io::{self, Write};
use std::num::NonZero;
use std::str::FromStr;

use flate2::{GzBuilder, write::GzEncoder};
use liblzma::stream::{Check, MtStreamBuilder};
use liblzma::write::XzEncoder;
use serde::{Deserialize, Serialize};
use zstd::zstd_safe::CParameter;

/// How an output is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// gzip (RFC 1952).
    Gzip,
    /// xz.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// A text or level that no compression has.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CompressionError {
    /// An unknown name.
    #[error("`{0}` is no compression that outputs can have: use `none`, `zstd`, `xz` or `gz`")]
    Name(String),
    /// A level out of range.
    #[error("{compression} has no level {level}: use {min} to {max}", min = .compression.levels().0, max = .compression.levels().1)]
    Level {
        /// The compression.
        compression: Compression,
        /// The level that was asked for.
        level: u32,
    },
}

impl Compression {
    /// The level that is used where none is asked for.
    pub const DEFAULT_LEVEL: u32 = 3;

    /// The file name's extension, without a dot; `None` if nothing is compressed.
    pub fn extension(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gz"),
            Self::Xz => Some("xz"),
            Self::Zstd => Some("zst"),
        }
    }

    /// The lowest and the highest level.
    pub fn levels(self) -> (u32, u32) {
        match self {
            Self::None => (0, u32::MAX),
            Self::Gzip => (1, 9),
            Self::Xz => (0, 9),
            Self::Zstd => (1, 22),
        }
    }

    /// Checks a level. Errors: out of range.
    pub fn check_level(self, level: u32) -> Result<(), CompressionError> {
        let (min, max) = self.levels();
        if (min..=max).contains(&level) { Ok(()) } else { Err(CompressionError::Level { compression: self, level }) }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Gzip => "gz",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
        })
    }
}

impl FromStr for Compression {
    type Err = CompressionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "none" => Self::None,
            "gz" | "gzip" => Self::Gzip,
            "xz" => Self::Xz,
            "zstd" | "zst" => Self::Zstd,
            other => return Err(CompressionError::Name(other.to_owned())),
        })
    }
}

/// Compresses what is written to it and passes it on. Ends with [`Compressor::finish`], without which the output is
/// cut off.
pub struct Compressor<W: Write> {
    inner: Inner<W>,
}

enum Inner<W: Write> {
    Plain(W),
    Gzip(Even<GzEncoder<W>>),
    Xz(XzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

/// Hands on what is written to it in pieces of one size: what zlib makes of its input depends on how it is cut.
struct Even<W: Write> {
    inner: W,
    held: Vec<u8>,
}

/// The size of a piece, in bytes.
const PIECE: usize = 1 << 17;

impl<W: Write> Even<W> {
    /// Hands on what is left.
    fn into_inner(mut self) -> io::Result<W> {
        self.inner.write_all(&self.held)?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Even<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.get(..bytes.len().min(PIECE - self.held.len())).unwrap_or_default();
        self.held.extend_from_slice(taken);
        if self.held.len() == PIECE {
            self.inner.write_all(&self.held)?;
            self.held.clear();
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// xz's dictionary of a level (xz(1)); a part is three of them, as xz(1) itself has it, but not tiny.
fn xz_block(level: u32) -> u64 {
    let dictionary: u64 = match level {
        0 => 1 << 18,
        1 => 1 << 20,
        2 => 1 << 21,
        3 | 4 => 1 << 22,
        5 | 6 => 1 << 23,
        7 => 1 << 24,
        8 => 1 << 25,
        _ => 1 << 26,
    };
    (3 * dictionary).max(8 << 20)
}

/// Zstandard looks back further at high levels, so a part has to be larger to be worth it.
fn zstd_job(level: u32) -> u32 {
    if level <= 12 { 8 << 20 } else { 32 << 20 }
}

impl<W: Write> Compressor<W> {
    /// Compresses into `out` on up to `threads` threads, all processors if `None`. A `level` out of range is an
    /// error of kind `InvalidInput`.
    pub fn new(compression: Compression, level: Option<u32>, threads: Option<u32>, out: W) -> io::Result<Self> {
        let level = level.unwrap_or(Compression::DEFAULT_LEVEL);
        compression.check_level(level).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let available = || std::thread::available_parallelism().map_or(1, NonZero::get) as u32;
        let threads = threads.unwrap_or_else(available).clamp(1, 128);
        let inner = match compression {
            Compression::None => Inner::Plain(out),
            // No name, no time, and 255 for "unknown system".
            Compression::Gzip => {
                let builder = GzBuilder::new().mtime(0).operating_system(255);
                Inner::Gzip(Even { inner: builder.write(out, flate2::Compression::new(level)), held: Vec::new() })
            }
            Compression::Xz => {
                let stream = MtStreamBuilder::new()
                    .threads(threads)
                    .block_size(xz_block(level))
                    .preset(level)
                    // The kernel's decoder knows no other check.
                    .check(Check::Crc32)
                    .encoder()?;
                Inner::Xz(XzEncoder::new_stream(out, stream))
            }
            Compression::Zstd => {
                let mut encoder = zstd::Encoder::new(out, i32::try_from(level).unwrap_or(i32::MAX))?;
                encoder.include_checksum(true)?;
                // One worker is still another format of parts than none at all.
                encoder.multithread(threads)?;
                encoder.set_parameter(CParameter::JobSize(zstd_job(level)))?;
                Inner::Zstd(encoder)
            }
        };
        Ok(Self { inner })
    }

    /// Writes what is left and gives back the output, which is not flushed.
    pub fn finish(self) -> io::Result<W> {
        match self.inner {
            Inner::Plain(out) => Ok(out),
            Inner::Gzip(even) => even.into_inner()?.finish(),
            Inner::Xz(encoder) => encoder.finish(),
            Inner::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(out) => out.write(bytes),
            Inner::Gzip(encoder) => encoder.write(bytes),
            Inner::Xz(encoder) => encoder.write(bytes),
            Inner::Zstd(encoder) => encoder.write(bytes),
        }
    }

    /// Does nothing: a flush of the encoder would end a part early and change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// 40 MB that are neither all alike nor all random.
    fn input() -> Vec<u8> {
        let mut state = 1u32;
        let mut bytes = Vec::new();
        while bytes.len() < 40 << 20 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let word = format!("{:x} ", state >> 20);
            bytes.extend_from_slice(word.repeat((state >> 28) as usize).as_bytes());
        }
        bytes
    }

    fn compress(compression: Compression, level: u32, threads: u32, input: &[u8], step: usize) -> Vec<u8> {
        let mut encoder = Compressor::new(compression, Some(level), Some(threads), Vec::new()).unwrap();
        for chunk in input.chunks(step) {
            encoder.write_all(chunk).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    fn decompress(tool: &str, input: Vec<u8>) -> Vec<u8> {
        let mut child = Command::new(tool)
            .args(["-dc"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{tool} is needed: {error}"));
        let mut stdin = child.stdin.take().unwrap();
        let feeder = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        feeder.join().unwrap().unwrap();
        assert!(output.status.success());
        output.stdout
    }

    #[test]
    fn bytes_are_equal_whatever_the_threads_and_writes_and_the_tools_read_them() {
        let input = input();
        for (compression, level, tool) in
            [(Compression::Gzip, 1, "gzip"), (Compression::Xz, 0, "xz"), (Compression::Zstd, 3, "zstd")]
        {
            let one = compress(compression, level, 1, &input, 1 << 20);
            assert!(one.len() < input.len() / 2);
            for (threads, step) in [(2, 1 << 20), (5, 777_777), (2, usize::MAX)] {
                assert!(one == compress(compression, level, threads, &input, step), "{compression} {threads}");
            }
            assert!(decompress(tool, one) == input, "{compression}");
        }
    }

    #[test]
    fn gzip_holds_no_time_and_no_name() {
        let bytes = compress(Compression::Gzip, 9, 1, b"x", 1);
        assert_eq!(bytes[3..8], [0; 5]);
    }

    #[test]
    fn names_and_levels_are_checked() {
        for (text, compression) in
            [("none", Compression::None), ("gzip", Compression::Gzip), ("zst", Compression::Zstd)]
        {
            assert_eq!(text.parse::<Compression>().unwrap(), compression);
            assert_eq!(compression.to_string().parse::<Compression>().unwrap(), compression);
        }
        assert!("lz4".parse::<Compression>().unwrap_err().to_string().contains("`zstd`"));
        let error = Compressor::new(Compression::Xz, Some(10), None, Vec::new()).err().unwrap();
        assert_eq!(error.to_string(), "xz has no level 10: use 0 to 9");
    }

    #[test]
    fn empty_input_is_valid() {
        for (compression, tool) in [(Compression::Gzip, "gzip"), (Compression::Xz, "xz"), (Compression::Zstd, "zstd")] {
            assert!(decompress(tool, compress(compression, 3, 2, b"", 1)).is_empty());
        }
    }
}
