//! EFI programs: what kind of one a file is, and its sections (the "PE Format" specification of Microsoft; sections of
//! unified kernel images: UAPI Group specification UKI).

use std::fs::File;
use std::path::Path;

use object::read::{Object, ObjectSection, ReadCache};

use super::{Error, Result};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// A unified kernel image.
    Uki,
    /// An addon for one.
    Addon,
    /// Another EFI program, a kernel for instance.
    Efi,
    /// No EFI program.
    Other,
}

/// What `path` is.
///
/// # Errors
/// When it can't be opened.
pub fn identify(path: &Path) -> Result<Program> {
    let cache = ReadCache::new(open(path)?);
    let Ok(program) = object::File::parse(&cache) else { return Ok(Program::Other) };
    if !matches!(program.format(), object::BinaryFormat::Pe) {
        return Ok(Program::Other);
    }
    let names: Vec<String> = program.sections().filter_map(|section| section.name().ok().map(str::to_owned)).collect();
    let has = |name: &str| names.iter().any(|found| found == name);
    let part = [".cmdline", ".dtb", ".initrd", ".ucode"].into_iter().any(has);
    Ok(match (has(".linux"), has(".sdmagic"), has(".osrel")) {
        (true, true, true) => Program::Uki,
        (false, true, _) if part => Program::Addon,
        (true, true, _) if part => Program::Addon,
        _ => Program::Efi,
    })
}

/// The contents of the first section of this name.
///
/// # Errors
/// When the file can't be read.
pub fn section(path: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let cache = ReadCache::new(open(path)?);
    let failed = |error: object::Error| Error::Host { path: path.to_owned(), source: std::io::Error::other(error) };
    let program = object::File::parse(&cache).map_err(failed)?;
    let found = program.sections().find(|section| section.name().is_ok_and(|found| found == name));
    Ok(match found {
        Some(section) => Some(section.data().map_err(failed)?.to_vec()),
        None => None,
    })
}

/// The version of the systemd-stub or systemd-boot in a file, from its mark `#### LoaderInfo: systemd-stub 257 ####`.
///
/// # Errors
/// When the file can't be read.
pub fn systemd_version(path: &Path) -> Result<Option<String>> {
    let Some(mark) = section(path, ".sdmagic")? else { return Ok(None) };
    let text = String::from_utf8_lossy(&mark).into_owned();
    let version = text.trim_matches(['\0', '#', ' ', '\n']).strip_prefix("LoaderInfo: ").and_then(|rest| {
        let (_, version) = rest.split_once(' ')?;
        Some(version.trim().to_owned())
    });
    Ok(version)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|source| Error::Host { path: path.to_owned(), source })
}

#[cfg(test)]
pub mod testing {
    //! Small EFI programs for tests.

    /// A PE32+ file for x86-64 with these sections.
    pub fn program(sections: &[(&str, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 0x40];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c..0x40].copy_from_slice(&0x40_u32.to_le_bytes());
        bytes.extend(b"PE\0\0");
        let count = u16::try_from(sections.len()).unwrap();
        let optional: u16 = 112;
        bytes.extend(0x8664_u16.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend([0; 12]);
        bytes.extend(optional.to_le_bytes());
        bytes.extend(0x22_u16.to_le_bytes());
        let mut header = vec![0; usize::from(optional)];
        header[..2].copy_from_slice(&0x20b_u16.to_le_bytes());
        bytes.extend(header);
        let mut at = u32::try_from(bytes.len() + 40 * sections.len()).unwrap();
        for (name, data) in sections {
            let size = u32::try_from(data.len()).unwrap();
            let mut header = [0; 40];
            header[..name.len()].copy_from_slice(name.as_bytes());
            header[8..12].copy_from_slice(&size.to_le_bytes());
            header[12..16].copy_from_slice(&at.to_le_bytes());
            header[16..20].copy_from_slice(&size.to_le_bytes());
            header[20..24].copy_from_slice(&at.to_le_bytes());
            bytes.extend(header);
            at += size;
        }
        sections.iter().for_each(|(_, data)| bytes.extend(*data));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::testing::program;
    use super::*;

    fn kind(bytes: &[u8]) -> Program {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        identify(file.path()).unwrap()
    }

    #[test]
    fn kinds() {
        let magic: (&str, &[u8]) = (".sdmagic", b"#### LoaderInfo: systemd-stub 257.8-1 ####\0");
        assert_eq!(kind(&program(&[(".linux", b"k"), magic, (".osrel", b"ID=x")])), Program::Uki);
        assert_eq!(kind(&program(&[magic, (".cmdline", b"quiet")])), Program::Addon);
        assert_eq!(kind(&program(&[(".text", b"k")])), Program::Efi);
        assert_eq!(kind(b"\x7fELF"), Program::Other);
        assert_eq!(kind(b""), Program::Other);
    }

    #[test]
    fn sections_and_versions() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mark = b"#### LoaderInfo: systemd-stub 257.8-1~deb13u2 ####\0";
        std::fs::write(file.path(), program(&[(".sdmagic", mark), (".cmdline", b"a b")])).unwrap();
        assert_eq!(section(file.path(), ".cmdline").unwrap().as_deref(), Some(&b"a b"[..]));
        assert_eq!(section(file.path(), ".initrd").unwrap(), None);
        assert_eq!(systemd_version(file.path()).unwrap().as_deref(), Some("257.8-1~deb13u2"));
        std::fs::write(file.path(), program(&[(".sdmagic", b"")])).unwrap();
        assert_eq!(systemd_version(file.path()).unwrap(), None);
        assert!(section(Path::new("/none"), ".x").is_err());
    }
}
