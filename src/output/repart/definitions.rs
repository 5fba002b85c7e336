//! Partition definitions (repart.d(5)) for projects that have none, and for the formats that have no others.

use std::collections::BTreeMap;
use std::fmt::Write;

/// The type of the partition that GRUB's code for BIOS is put into (GPT has no space before the first partition).
pub const BIOS_BOOT: &str = "21686148-6449-6e6f-744e-656564454649";

/// How a disk boots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Boot {
    /// By UEFI, from an EFI system partition.
    pub uefi: bool,
    /// By BIOS, through GRUB.
    pub bios: bool,
}

/// Texts by the file's name.
pub type Definitions = BTreeMap<String, String>;

fn definition(lines: &[(&str, &str)]) -> String {
    let mut text = "[Partition]\n".to_owned();
    for (name, value) in lines {
        // A `String` takes everything that is written to it.
        let _ = writeln!(text, "{name}={value}");
    }
    text
}

/// A disk of boot partitions, where `boot` wants them, and one root partition with everything in it, as small as can
/// be. With GRUB for BIOS, kernels and initrds lie in the EFI system partition twice.
pub fn default_definitions(boot: Boot, filesystem: &str) -> Definitions {
    let mut files = Definitions::new();
    if boot.uefi || boot.bios {
        let size = if boot.bios { "1G" } else { "512M" };
        let lines = [
            ("Type", "esp"),
            ("Format", "vfat"),
            ("CopyFiles", "/boot:/"),
            ("CopyFiles", "/efi:/"),
            ("SizeMinBytes", size),
            ("SizeMaxBytes", size),
        ];
        files.insert("00-esp.conf".to_owned(), definition(&lines));
    }
    if boot.bios {
        let lines = [("Type", BIOS_BOOT), ("SizeMinBytes", "1M"), ("SizeMaxBytes", "1M")];
        files.insert("05-bios.conf".to_owned(), definition(&lines));
    }
    let lines = [("Type", "root"), ("Format", filesystem), ("CopyFiles", "/"), ("Minimize", "guess")];
    files.insert("10-root.conf".to_owned(), definition(&lines));
    files
}

/// An EFI system partition alone, for contents of `bytes` in all. Firmware takes a file system for FAT32 only if it
/// has enough clusters, so that it has a least size, which is larger unless `sector` says that sectors are small.
pub fn esp_definition(bytes: u64, sector: Option<u64>) -> Definitions {
    const MIB: u64 = 1 << 20;
    /// For what the file system itself needs.
    const RESERVE: u64 = 10 * MIB;
    let least = if sector == Some(512) { 36 * MIB } else { 260 * MIB };
    let size = bytes.max(least - RESERVE) + RESERVE;
    // Older versions of systemd-repart make a size that isn't a multiple of the grain a little smaller or larger.
    let (size, most) = (size.to_string(), (size + 4096).to_string());
    let lines = [
        ("Type", "esp"),
        ("Format", "vfat"),
        ("CopyFiles", "/boot:/"),
        ("CopyFiles", "/efi:/"),
        ("SizeMinBytes", size.as_str()),
        ("SizeMaxBytes", most.as_str()),
    ];
    Definitions::from([("00-esp.conf".to_owned(), definition(&lines))])
}

/// The definitions of a system extension, configuration extension or portable service image: one erofs with what such
/// an image may hold; with `verity`, its hashes and their signature beside it.
pub fn extension_definitions(format: &str, verity: bool) -> Definitions {
    let contents: &[&str] = match format {
        "sysext" => &["/opt/", "/usr/"],
        "confext" => &["/etc/"],
        _ => &["/"],
    };
    let mut lines = vec![("Type", "root"), ("Format", "erofs")];
    lines.extend(contents.iter().map(|path| ("CopyFiles", *path)));
    if verity {
        lines.extend([("Verity", "data"), ("VerityMatchKey", "root")]);
    }
    lines.push(("Minimize", "best"));
    let mut files = Definitions::from([("10-root.conf".to_owned(), definition(&lines))]);
    if verity {
        let hash = [("Type", "root-verity"), ("Verity", "hash"), ("VerityMatchKey", "root"), ("Minimize", "best")];
        let signature = [("Type", "root-verity-sig"), ("Verity", "signature"), ("VerityMatchKey", "root")];
        files.insert("20-root-verity.conf".to_owned(), definition(&hash));
        files.insert("30-root-verity-sig.conf".to_owned(), definition(&signature));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &Definitions) -> Vec<&str> {
        files.keys().map(String::as_str).collect()
    }

    #[test]
    fn default_disks() {
        let plain = default_definitions(Boot::default(), "ext4");
        assert_eq!(plain["10-root.conf"], "[Partition]\nType=root\nFormat=ext4\nCopyFiles=/\nMinimize=guess\n");
        assert_eq!(names(&plain), ["10-root.conf"]);
        let uefi = default_definitions(Boot { uefi: true, bios: false }, "btrfs");
        assert_eq!(names(&uefi), ["00-esp.conf", "10-root.conf"]);
        assert!(uefi["00-esp.conf"].contains("CopyFiles=/boot:/\nCopyFiles=/efi:/\nSizeMinBytes=512M\n"));
        let bios = default_definitions(Boot { uefi: false, bios: true }, "ext4");
        assert_eq!(names(&bios), ["00-esp.conf", "05-bios.conf", "10-root.conf"]);
        assert!(bios["00-esp.conf"].contains("SizeMaxBytes=1G\n"));
    }

    #[test]
    fn an_esp_is_large_enough_for_firmware() {
        let size = |bytes, sector| {
            let text = esp_definition(bytes, sector).remove("00-esp.conf").unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("SizeMinBytes=")).unwrap();
            line.parse::<u64>().unwrap() >> 20
        };
        assert_eq!((size(0, Some(512)), size(0, None), size(100 << 20, Some(512))), (36, 260, 110));
    }

    #[test]
    fn extensions_hold_what_they_may() {
        let sysext = extension_definitions("sysext", false);
        assert_eq!(names(&sysext), ["10-root.conf"]);
        assert!(sysext["10-root.conf"].contains("CopyFiles=/opt/\nCopyFiles=/usr/\nMinimize=best\n"));
        let confext = extension_definitions("confext", true);
        assert_eq!(names(&confext), ["10-root.conf", "20-root-verity.conf", "30-root-verity-sig.conf"]);
        assert!(confext["10-root.conf"].contains("CopyFiles=/etc/\nVerity=data\n"));
        assert!(extension_definitions("portable", false)["10-root.conf"].contains("CopyFiles=/\n"));
    }
}
