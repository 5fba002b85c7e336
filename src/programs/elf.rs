//! What the headers of an ELF file say about the other files that a program is started with: elf(5), the gABI's chapter
//! on dynamic linking, and the `FDO` note about libraries that are loaded later
//! (<https://systemd.io/ELF_DLOPEN_METADATA/>).
//!
//! Knows nothing of where those files are.

use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, DT_STRSZ, DT_STRTAB, FileHeader32, FileHeader64, PT_LOAD};
use object::read::elf::{Dyn as _, FileHeader, ProgramHeader as _};
use object::{Endianness, FileKind};
use serde::{Deserialize, Serialize};

/// The type of the note that lists libraries to be loaded later, of the owner `FDO`.
const DLOPEN: u32 = 0x407c_0c0a;

/// Class (64 bits), byte order (big) and machine: only files of one kind go together.
pub(super) type Kind = (bool, bool, u16);

/// What a program or a library asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Elf {
    /// What goes together with it.
    pub kind: Kind,
    /// The program interpreter: the dynamic loader.
    pub interpreter: Option<String>,
    /// The libraries that it is linked to.
    pub needed: Vec<String>,
    /// Where they are looked for, for all that they need too; empty where there is a `runpath`.
    pub rpath: Vec<String>,
    /// Where they are looked for, for itself alone.
    pub runpath: Vec<String>,
    /// The libraries that it may load later; of each list the first that is there.
    pub later: Vec<Vec<String>>,
}

/// An item of the note's JSON.
#[derive(Deserialize)]
struct Later {
    soname: Vec<String>,
}

/// Reads the headers; nothing if it is no ELF file, or a damaged one, which could not be started either.
pub(super) fn parse(data: &[u8]) -> Option<Elf> {
    match FileKind::parse(data).ok()? {
        FileKind::Elf32 => headers::<FileHeader32<Endianness>>(data),
        FileKind::Elf64 => headers::<FileHeader64<Endianness>>(data),
        _ => None,
    }
}

fn headers<H: FileHeader<Endian = Endianness>>(data: &[u8]) -> Option<Elf> {
    let header = H::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let kind = (header.is_class_64(), header.is_big_endian(), header.e_machine(endian).0);
    let mut elf = Elf { kind, ..Elf::default() };
    let segments = header.program_headers(endian, data).ok()?;
    for segment in segments {
        if let Ok(Some(path)) = segment.interpreter(endian, data) {
            elf.interpreter = Some(text(path));
        }
        if let Ok(Some(mut notes)) = segment.notes(endian, data) {
            while let Ok(Some(note)) = notes.next() {
                if note.name() == b"FDO" && note.n_type(endian).0 == DLOPEN {
                    elf.later.extend(later(note.desc()));
                }
            }
        }
        let Ok(Some(entries)) = segment.dynamic(endian, data) else { continue };
        let end = entries.iter().position(|entry| entry.d_tag(endian).0 == 0).unwrap_or(entries.len());
        let entries = entries.get(..end).unwrap_or_default();
        let values = |tag| {
            let tagged = entries.iter().filter(move |entry| entry.d_tag(endian) == tag);
            tagged.map(move |entry| -> u64 { entry.d_val(endian).into() })
        };
        let (Some(address), Some(size)) = (values(DT_STRTAB).next(), values(DT_STRSZ).next()) else { continue };
        // The entry has the address in memory; the segment that is loaded there has the file's part.
        let loaded = segments.iter().filter(|segment| segment.p_type(endian) == PT_LOAD);
        let names = loaded.filter_map(|segment| segment.data_range(endian, data, address, size).ok().flatten()).next();
        let string = |at: u64| {
            let rest = names?.get(usize::try_from(at).ok()?..)?;
            Some(text(rest.split(|byte| *byte == 0).next()?))
        };
        elf.needed = values(DT_NEEDED).filter_map(string).collect();
        let paths = |tag| -> Vec<String> {
            let lists = values(tag).filter_map(string);
            lists.flat_map(|list| list.split(':').map(str::to_owned).collect::<Vec<_>>()).collect()
        };
        elf.runpath = paths(DT_RUNPATH);
        // ld.so(8): of a file that has both, only DT_RUNPATH counts.
        elf.rpath = if elf.runpath.is_empty() { paths(DT_RPATH) } else { Vec::new() };
    }
    Some(elf)
}

/// The libraries in a note; none if it can't be read.
fn later(json: &[u8]) -> Vec<Vec<String>> {
    let json = json.split(|byte| *byte == 0).next().unwrap_or_default();
    let items: Vec<Later> = serde_json::from_slice(json).unwrap_or_default();
    items.into_iter().map(|item| item.soname).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A 64-bit little-endian file for x86-64 of one note.
    fn with_note(owner: &str, kind: u32, json: &str) -> Vec<u8> {
        let padded = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.push(0);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
            bytes
        };
        let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
        let size = |text: &str| u32::try_from(text.len() + 1).unwrap();
        let note = [words(&[size(owner), size(json), kind]), padded(owner), padded(json)].concat();
        let length = u32::try_from(note.len()).unwrap();
        let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend(words(&[3 | 62 << 16, 1, 0, 0, 64, 0, 0, 0, 0, 64 | 56 << 16, 1, 0]));
        file.extend(words(&[4, 4, 120, 0, 0, 0, 0, 0, length, 0, length, 0, 4, 0]));
        [file, note].concat()
    }

    #[test]
    fn libraries_that_are_loaded_later_stand_in_a_note() {
        let json =
            r#"[{"feature":"x","priority":"suggested","soname":["liba.so.2","liba.so.1"]},{"soname":["libb.so"]}]"#;
        let elf = parse(&with_note("FDO", DLOPEN, json)).unwrap();
        assert_eq!(elf.later, [vec!["liba.so.2", "liba.so.1"], vec!["libb.so"]]);
        assert_eq!(elf.kind, (true, false, 62));
        for other in [with_note("FDO", 1, json), with_note("GNU", DLOPEN, json), with_note("FDO", DLOPEN, "[{]")] {
            assert_eq!(parse(&other).unwrap().later, Vec::<Vec<String>>::new());
        }
    }

    #[test]
    fn a_damaged_file_is_no_panic() {
        let file = with_note("FDO", DLOPEN, "[]");
        for end in 0..file.len() {
            parse(&file[..end]);
        }
        for at in 0..file.len() {
            let mut bad = file.clone();
            bad[at] = 0xff;
            parse(&bad);
        }
        assert_eq!(parse(b"#!/bin/sh\n"), None);
    }
}
