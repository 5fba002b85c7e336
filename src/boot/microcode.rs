//! Processor microcode for the kernel's early loader: `kernel/x86/microcode/{AuthenticAMD,GenuineIntel}.bin` in a cpio
//! archive that is not packed (the kernel's `Documentation/arch/x86/microcode.rst`).
//!
//! Each file is all files of the vendor one after the other, or the one for a processor.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::modules::{FIRMWARE, ModulesError, Packed, follow, unpacked};
use crate::store::{Kind, MergedTree};

/// Where the kernel looks for microcode in an archive.
pub const PLACE: &str = "kernel/x86/microcode";

/// A processor, as `/proc/cpuinfo` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Processor {
    /// `GenuineIntel`, `AuthenticAMD` or another.
    pub vendor: String,
    /// The family.
    pub family: u32,
    /// The model.
    pub model: u32,
    /// The stepping.
    pub stepping: u32,
}

impl Processor {
    /// The first processor of `/proc/cpuinfo`, on x86.
    pub fn parse(text: &str) -> Option<Self> {
        let fields: BTreeMap<&str, &str> = text
            .lines()
            .skip_while(|line| line.trim().is_empty())
            .take_while(|line| !line.trim().is_empty())
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let number = |name: &str| fields.get(name)?.parse().ok();
        Some(Self {
            vendor: (*fields.get("vendor_id")?).to_owned(),
            family: number("cpu family")?,
            model: number("model")?,
            stepping: number("stepping")?,
        })
    }

    /// The name of the processor's file, below the vendor's directory of the firmware.
    fn files(&self) -> Vec<String> {
        match self.vendor.as_str() {
            "AuthenticAMD" if self.family > 0x15 => vec![format!("microcode_amd_fam{:x}h.bin", self.family)],
            "AuthenticAMD" => vec!["microcode_amd.bin".to_owned()],
            "GenuineIntel" => {
                let name = format!("{:02x}-{:02x}-{:02x}", self.family, self.model, self.stepping);
                vec![name.clone(), format!("{name}.initramfs")]
            }
            _ => Vec::new(),
        }
    }
}

/// The vendors, with the directory of their microcode among the firmware.
const VENDORS: [(&str, &str); 2] = [("AuthenticAMD", "amd-ucode"), ("GenuineIntel", "intel-ucode")];

/// Packed microcode has one of these at its end.
const PACKED: [&str; 4] = ["", ".xz", ".zst", ".gz"];

/// The files of the archive: for each vendor whose microcode the tree has, the vendor's name and the bytes. With a
/// processor, its microcode alone.
///
/// # Errors
/// A file that can't be read.
pub fn microcode(
    tree: &MergedTree,
    processor: Option<&Processor>,
) -> Result<BTreeMap<&'static str, Vec<u8>>, ModulesError> {
    let mut found = BTreeMap::new();
    for (vendor, directory) in VENDORS {
        let place = [FIRMWARE, b"/", directory.as_bytes()].concat();
        let names: Vec<String> = match processor {
            None => below(tree, &place),
            Some(one) if one.vendor == vendor => one.files(),
            Some(_) => continue,
        };
        let mut bytes = Vec::new();
        for name in names {
            let packed = PACKED.iter().map(|end| format!("{name}{end}"));
            let file = packed.filter_map(|name| file(tree, &place, &name)).next();
            let Some((path, name)) = file else { continue };
            let read = unpacked(&path, Packed::of(&name));
            bytes.extend(read.map_err(|source| ModulesError::Read { path, source })?);
            // Intel's second name is for the case that the first is not there.
            if processor.is_some() {
                break;
            }
        }
        if !bytes.is_empty() {
            found.insert(vendor, bytes);
        }
    }
    Ok(found)
}

/// The names of the files in a vendor's directory, sorted. AMD's come with signatures and a README beside them.
fn below(tree: &MergedTree, place: &[u8]) -> Vec<String> {
    let amd = place.ends_with(b"amd-ucode");
    let names = tree.below(place).iter().filter_map(|merged| {
        let name = std::str::from_utf8(merged.entry.path.get(place.len() + 1..)?).ok()?;
        let plain = PACKED.iter().skip(1).find_map(|end| name.strip_suffix(end)).unwrap_or(name);
        (!name.contains('/') && (!amd || plain.ends_with(".bin"))).then(|| name.to_owned())
    });
    names.collect()
}

/// Where a file lies on the host, and its own name, which tells how it is packed.
fn file(tree: &MergedTree, place: &[u8], name: &str) -> Option<(PathBuf, String)> {
    let end = follow(tree, &[place, b"/", name.as_bytes()].concat()).end?;
    let own = String::from_utf8_lossy(&end.entry.path).into_owned();
    matches!(end.entry.kind, Kind::File { .. }).then(|| (end.source.clone(), own))
}

#[cfg(test)]
mod tests {
    use super::super::modules::testing::tree_in;
    use super::*;

    const INTEL: &str = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 143\nmodel name\t: X\n\
                         stepping\t: 8\n\nprocessor\t: 1\nvendor_id\t: Other\n";

    #[test]
    fn a_processor_is_told_by_four_fields() {
        let intel = Processor { vendor: "GenuineIntel".to_owned(), family: 6, model: 143, stepping: 8 };
        assert_eq!(Processor::parse(INTEL), Some(intel));
        assert_eq!(Processor::parse("processor : 0\nBogoMIPS : 50\n"), None);
    }

    #[test]
    fn the_microcode_of_one_or_all() {
        let dir = tempfile::tempdir().unwrap();
        let packed = zstd::encode_all(&b"new"[..], 1).unwrap();
        let tree = tree_in(
            dir.path(),
            &[
                ("usr/lib/firmware/amd-ucode/README", b"text"),
                ("usr/lib/firmware/amd-ucode/microcode_amd.bin", b"old,"),
                ("usr/lib/firmware/amd-ucode/microcode_amd.bin.asc", b"signature"),
                ("usr/lib/firmware/amd-ucode/microcode_amd_fam19h.bin.zst", &packed),
                ("usr/lib/firmware/intel-ucode/06-8f-08.initramfs", b"8f,"),
                ("usr/lib/firmware/intel-ucode/06-9e-0a", b"9e,"),
                ("usr/lib/firmware/intel-ucode/06-9e-0b", b"->06-9e-0a"),
            ],
        );
        let of = |vendor: &str, family, model, stepping| {
            let one = Processor { vendor: vendor.to_owned(), family, model, stepping };
            microcode(&tree, Some(&one)).unwrap()
        };
        let all = microcode(&tree, None).unwrap();
        assert_eq!(all["AuthenticAMD"], b"old,new");
        assert_eq!(all["GenuineIntel"], b"8f,9e,9e,");
        assert_eq!(of("GenuineIntel", 6, 143, 8), BTreeMap::from([("GenuineIntel", b"8f,".to_vec())]));
        assert_eq!(of("GenuineIntel", 6, 158, 11), BTreeMap::from([("GenuineIntel", b"9e,".to_vec())]));
        assert_eq!(of("AuthenticAMD", 25, 1, 1), BTreeMap::from([("AuthenticAMD", b"new".to_vec())]));
        assert_eq!(of("AuthenticAMD", 21, 1, 1), BTreeMap::from([("AuthenticAMD", b"old,".to_vec())]));
        assert_eq!((of("AuthenticAMD", 23, 1, 1), of("Other", 6, 143, 8)), (BTreeMap::new(), BTreeMap::new()));
    }
}
