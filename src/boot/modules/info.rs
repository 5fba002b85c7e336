//! What a kernel module says of itself: the `.modinfo` section of its ELF file, a list of `name=value` that zeros end
//! (the kernel's `include/linux/moduleparam.h`). The same is there for built-in modules in `modules.builtin.modinfo`,
//! with the module's name in front.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use object::{Object, ObjectSection};

use super::ModulesError;

/// How much of one module is read at most, in bytes. The largest there are unpack to some 100 MB.
const LIMIT: u64 = 1 << 30;

/// The suffixes of modules and how they are packed.
const SUFFIXES: [(&str, Packed); 4] =
    [(".ko", Packed::Plain), (".ko.gz", Packed::Gzip), (".ko.xz", Packed::Xz), (".ko.zst", Packed::Zstd)];

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packed {
    /// Not at all.
    Plain,
    /// gzip.
    Gzip,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

impl Packed {
    /// By the end of a file's name.
    pub fn of(name: &str) -> Self {
        let ends = [(".gz", Self::Gzip), (".xz", Self::Xz), (".zst", Self::Zstd)];
        ends.into_iter().find(|(end, _)| name.ends_with(end)).map_or(Self::Plain, |(_, packed)| packed)
    }
}

/// What a module needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Info {
    /// Modules: what it uses, what is to be loaded before and after it, what it can make use of. Normalised names.
    pub modules: Vec<String>,
    /// Firmware, below `/usr/lib/firmware`, perhaps with wildcards.
    pub firmware: Vec<String>,
    /// What it goes by besides its name, normalised, without the patterns of devices.
    pub aliases: Vec<String>,
}

impl Info {
    fn take(&mut self, field: &str, value: &str) {
        match field {
            "depends" => self.modules.extend(value.split(',').filter(|name| !name.is_empty()).map(normalise)),
            // `pre: a b post: c`; an initrd is to have them too (modprobe.d(5)).
            "softdep" | "weakdep" => {
                self.modules.extend(value.split_whitespace().filter(|word| !word.ends_with(':')).map(normalise));
            }
            "firmware" => self.firmware.push(value.to_owned()),
            "alias" => self.aliases.extend(plain_alias(value)),
            _ => {}
        }
    }
}

/// An alias that another module can name; those of devices are patterns.
pub fn plain_alias(alias: &str) -> Option<String> {
    (!alias.contains(['*', '?', '[', ':'])).then(|| normalise(alias))
}

/// The name of a module, in which a dash and an underscore are one.
pub fn normalise(name: &str) -> String {
    name.replace('_', "-")
}

/// The name of the module in a file of this name or path; `None` if it is no module.
pub fn module_name(path: &str) -> Option<String> {
    let name = path.rsplit('/').next()?;
    SUFFIXES.iter().find_map(|(suffix, _)| name.strip_suffix(suffix)).map(normalise)
}

/// A module's path without its suffixes.
pub fn without_suffix(path: &str) -> &str {
    SUFFIXES.iter().find_map(|(suffix, _)| path.strip_suffix(suffix)).unwrap_or(path)
}

/// Reads a file and unpacks it.
///
/// # Errors
/// When it can't be read, is damaged, or is larger than a module can be.
pub fn unpacked(path: &Path, packed: Packed) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::new();
    let read = match packed {
        Packed::Plain => file.take(LIMIT).read_to_end(&mut bytes),
        Packed::Gzip => flate2::read::MultiGzDecoder::new(file).take(LIMIT).read_to_end(&mut bytes),
        Packed::Xz => liblzma::read::XzDecoder::new_multi_decoder(file).take(LIMIT).read_to_end(&mut bytes),
        Packed::Zstd => zstd::Decoder::new(file)?.take(LIMIT).read_to_end(&mut bytes),
    };
    if read? as u64 == LIMIT {
        return Err(io::Error::other("it is larger than 1 GiB"));
    }
    Ok(bytes)
}

/// What the module in a file needs. `shown` is the path in the image, for errors.
///
/// # Errors
/// When it can't be read, or is no module.
pub fn read(path: &Path, shown: &str) -> Result<Info, ModulesError> {
    let bytes =
        unpacked(path, Packed::of(shown)).map_err(|source| ModulesError::Read { path: path.to_owned(), source })?;
    parse(&bytes).map_err(|reason| ModulesError::Module { path: shown.to_owned(), reason })
}

/// What a module's ELF file says.
fn parse(bytes: &[u8]) -> Result<Info, String> {
    let file = object::File::parse(bytes).map_err(|error| error.to_string())?;
    let section = file.section_by_name(".modinfo").ok_or("it has no section .modinfo")?;
    let data = section.data().map_err(|error| error.to_string())?;
    let mut info = Info::default();
    for (field, value) in fields(data) {
        info.take(&field, &value);
    }
    Ok(info)
}

/// What built-in modules need, by their normalised names.
pub fn parse_builtin(data: &[u8]) -> BTreeMap<String, Info> {
    let mut all: BTreeMap<String, Info> = BTreeMap::new();
    for (field, value) in fields(data) {
        if let Some((module, field)) = field.split_once('.') {
            all.entry(normalise(module)).or_default().take(field, &value);
        }
    }
    all
}

fn fields(data: &[u8]) -> impl Iterator<Item = (String, String)> {
    data.split(|byte| *byte == 0).filter_map(|field| {
        let text = String::from_utf8_lossy(field);
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::super::testing::elf;
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_module_tells_what_it_needs() {
        let module =
            elf("name=x\0depends=mbcache,jbd2,\0softdep=pre: crc32c post: foo_bar\0weakdep=y\0firmware=a/b.bin\0");
        let info = parse(&module).unwrap();
        assert_eq!(info.modules, names(&["mbcache", "jbd2", "crc32c", "foo-bar", "y"]));
        assert_eq!(info.firmware, names(&["a/b.bin"]));
        assert_eq!(parse(&elf("name=x\0depends=\0")).unwrap(), Info::default());
        assert!(parse(b"no elf").is_err());
    }

    #[test]
    fn packed_modules_are_unpacked() {
        let dir = tempfile::tempdir().unwrap();
        let module = elf("depends=a_b\0");
        let pack = |name: &str, bytes: Vec<u8>| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            read(&path, name).map(|info| info.modules).map_err(|error| error.to_string())
        };
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&module).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&module).unwrap();
        assert_eq!(pack("m.ko", module.clone()), Ok(names(&["a-b"])));
        assert_eq!(pack("m.ko.gz", gzip.finish().unwrap()), Ok(names(&["a-b"])));
        assert_eq!(pack("m.ko.xz", xz.finish().unwrap()), Ok(names(&["a-b"])));
        assert_eq!(pack("m.ko.zst", zstd::encode_all(&module[..], 1).unwrap()), Ok(names(&["a-b"])));
        let damaged = pack("n.ko.zst", b"damaged".to_vec()).unwrap_err();
        assert!(damaged.starts_with("can't read "), "{damaged}");
        let foreign = pack("n.ko", b"foreign".to_vec()).unwrap_err();
        assert!(foreign.starts_with("/n.ko is no kernel module"), "{foreign}");
    }

    #[test]
    fn built_in_modules_stand_in_one_file() {
        let info = parse_builtin(b"ext4.depends=jbd2\0i_8042.firmware=f.bin\0ext4.firmware=g\0nonsense\0");
        assert_eq!(info["ext4"], Info { modules: names(&["jbd2"]), firmware: names(&["g"]), aliases: Vec::new() });
        assert_eq!(info["i-8042"].firmware, ["f.bin"]);
        assert_eq!(info.len(), 2);
    }

    #[test]
    fn names_of_modules() {
        assert_eq!(module_name("kernel/fs/nls/nls_utf8.ko.xz").as_deref(), Some("nls-utf8"));
        assert_eq!((module_name("modules.dep"), module_name("x.ko.old")), (None, None));
        assert_eq!(without_suffix("a/b.ko.zst"), "a/b");
    }

    proptest! {
        #[test]
        fn nothing_that_is_read_ends_badly(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&bytes);
            let _ = parse_builtin(&bytes);
        }
    }
}
