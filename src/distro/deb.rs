//! Reads a binary package file (deb(5)): an ar archive of `debian-binary`, `control.tar*` and `data.tar*`.
//!
//! Knows nothing of what dpkg does with them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Error, deb822};

/// A file of the control archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFile {
    /// Its contents.
    pub contents: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
}

/// An opened package.
#[derive(Debug)]
pub struct Deb {
    /// Where it lies.
    pub path: PathBuf,
    /// When it was built, in seconds since 1970: the time of its first member, which reproducible builds set to the
    /// last entry of the change log.
    pub timestamp: u64,
    /// The files of the control archive by name.
    pub files: BTreeMap<String, ControlFile>,
    data: Member,
}

/// A member of the ar archive.
#[derive(Clone, Debug, Default)]
struct Member {
    name: String,
    offset: u64,
    size: u64,
}

/// More than any control archive holds; a larger one is a broken or hostile file.
const CONTROL_LIMIT: u64 = 64 << 20;

impl Deb {
    /// Opens a package and reads its control archive.
    ///
    /// # Errors
    /// When the file can't be read or is not a binary package.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut file = File::open(path).map_err(Error::io("could not open", path))?;
        Self::read(path, &mut file).map_err(|error| Error::Format {
            path: path.to_owned(),
            why: format!("this is not a binary package that can be read: {error}"),
        })
    }

    fn read(path: &Path, file: &mut File) -> io::Result<Self> {
        let (members, timestamp) = members(file)?;
        let member = |prefix: &str| {
            let found = members.iter().find(|m| m.name.starts_with(prefix)).cloned();
            found.ok_or_else(|| bad(&format!("it has no member {prefix}*")))
        };
        let (control, data) = (member("control.tar")?, member("data.tar")?);
        file.seek(SeekFrom::Start(control.offset))?;
        let reader = decompress(&control.name, (&mut *file).take(control.size))?.take(CONTROL_LIMIT);
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(reader).entries()? {
            let mut entry = entry?;
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            if entry.header().entry_type().is_file() && !name.is_empty() && !name.contains('/') {
                let mut contents = Vec::new();
                entry.read_to_end(&mut contents)?;
                let mode = entry.header().mode()? & 0o777;
                files.insert(name, ControlFile { contents, mode });
            }
        }
        if !files.contains_key("control") {
            return Err(bad("its control archive has no file `control`"));
        }
        Ok(Self { path: path.to_owned(), timestamp, files, data })
    }

    /// The text of a file of the control archive, empty if there is none.
    pub fn text(&self, name: &str) -> String {
        self.files.get(name).map(|f| String::from_utf8_lossy(&f.contents).into_owned()).unwrap_or_default()
    }

    /// The control file's one paragraph.
    pub fn control(&self) -> deb822::Paragraph {
        deb822::parse(&self.text("control")).into_iter().next().unwrap_or_default()
    }

    /// The uncompressed data archive.
    ///
    /// # Errors
    /// When the file can't be opened or its compression is unknown.
    pub fn data(&self) -> io::Result<Box<dyn Read>> {
        self.data_of(&File::open(&self.path)?)
    }

    /// The uncompressed data archive, from the package's file opened before.
    pub(super) fn data_of(&self, file: &File) -> io::Result<Box<dyn Read>> {
        let mut file = file.try_clone()?;
        file.seek(SeekFrom::Start(self.data.offset))?;
        decompress(&self.data.name, file.take(self.data.size))
    }

    /// The size of the compressed data archive in bytes.
    pub(super) fn data_size(&self) -> u64 {
        self.data.size
    }
}

#[cfg(test)]
impl Deb {
    /// A package that exists in memory only.
    pub(super) fn for_test(files: BTreeMap<String, ControlFile>) -> Self {
        Self { path: PathBuf::new(), timestamp: 0, files, data: Member::default() }
    }
}

/// The members of an ar archive in their order, and the time of the first.
fn members(file: &mut File) -> io::Result<(Vec<Member>, u64)> {
    let mut magic = [0; 8];
    file.read_exact(&mut magic)?;
    if &magic != b"!<arch>\n" {
        return Err(bad("it does not start as an ar archive"));
    }
    let length = file.metadata()?.len();
    let (mut members, mut timestamp, mut offset) = (Vec::new(), 0, 8u64);
    while offset < length {
        let mut header = [0; 60];
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut header)?;
        let field = |from: usize, to: usize| {
            let bytes = header.get(from..to).unwrap_or_default();
            String::from_utf8_lossy(bytes).trim_end().to_owned()
        };
        let size: u64 = field(48, 58).parse().map_err(|_| bad("a member has no size"))?;
        if members.is_empty() {
            timestamp = field(16, 28).parse().unwrap_or(0);
        }
        let name = field(0, 16).trim_end_matches('/').to_owned();
        members.push(Member { name, offset: offset + 60, size });
        // Members start at even offsets.
        let next = offset.checked_add(60).and_then(|o| o.checked_add(size)).and_then(|o| o.checked_add(size & 1));
        offset = next.ok_or_else(|| bad("a member is larger than any file"))?;
    }
    Ok((members, timestamp))
}

/// Uncompresses a member by the ending of its name.
fn decompress<'a>(name: &str, reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let reader = BufReader::with_capacity(1 << 17, reader);
    Ok(match name.rsplit('.').next().unwrap_or_default() {
        "tar" => Box::new(reader),
        "gz" => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        "xz" => Box::new(liblzma::bufread::XzDecoder::new_multi_decoder(reader)),
        "zst" => Box::new(zstd::stream::read::Decoder::with_buffer(reader)?),
        other => return Err(bad(&format!("its compression `{other}` is unknown"))),
    })
}

fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn build(compression: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        std::fs::create_dir_all(tree.join("DEBIAN")).unwrap();
        std::fs::create_dir_all(tree.join("usr/bin")).unwrap();
        std::fs::write(tree.join("usr/bin/a"), "hello").unwrap();
        let control = "Package: a\nVersion: 1:2-3\nArchitecture: all\nMaintainer: A <a@example.org>\nDescription: a\n";
        std::fs::write(tree.join("DEBIAN/control"), control).unwrap();
        let deb = dir.path().join("a.deb");
        let status = Command::new("dpkg-deb")
            .args([&format!("-Z{compression}"), "--root-owner-group", "-b"])
            .args([&tree, &deb])
            .env("SOURCE_DATE_EPOCH", "1234567890")
            .output()
            .unwrap();
        assert!(status.status.success(), "{status:?}");
        (dir, deb)
    }

    #[test]
    fn reads_every_compression() {
        for compression in ["xz", "gzip", "zstd", "none"] {
            let (_dir, path) = build(compression);
            let deb = Deb::open(&path).unwrap();
            assert_eq!(deb.timestamp, 1_234_567_890);
            assert_eq!(deb.control().get("version"), Some("1:2-3"));
            let mut archive = tar::Archive::new(deb.data().unwrap());
            let names: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned()).collect();
            assert!(names.contains(&PathBuf::from("./usr/bin/a")), "{names:?}");
        }
    }

    #[test]
    fn a_cut_file_is_an_error() {
        let (_dir, path) = build("xz");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..100]).unwrap();
        let text = Deb::open(&path).unwrap_err().to_string();
        assert!(text.contains("not a binary package"), "{text}");
    }

    proptest! {
        #[test]
        fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), header in any::<bool>()) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.deb");
            let mut all = if header { b"!<arch>\ncontrol.tar     0           0     0     100644  ".to_vec() } else { vec![] };
            all.extend(bytes);
            std::fs::write(&path, all).unwrap();
            let _ = Deb::open(&path);
        }
    }
}
