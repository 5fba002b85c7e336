//! GRUB for machines with a BIOS: what is in the boot sector and in its partition. `tests/running/bios.rs` boots it.

use std::process::Command;

use crate::project::{check, partition_names, project, tools};
use crate::support::stores::directory;
use crate::support::{Project, tool};

const DEFINITIONS: [(&str, &str); 3] = [
    ("00-esp", "Type=esp\nFormat=vfat\nCopyFiles=/boot:/\nCopyFiles=/efi:/\nSizeMinBytes=40M\nSizeMaxBytes=40M"),
    ("05-bios", "Type=21686148-6449-6e6f-744e-656564454649\nLabel=bios\nSizeMinBytes=1M\nSizeMaxBytes=1M"),
    ("10-root", "Type=root\nFormat=ext4\nCopyFiles=/\nMinimize=guess"),
];

fn fill(cache: &std::path::Path) -> Project {
    let project = project(cache, "SplitArtifacts=partitions");
    project.configure("[Content]\nBootable=auto\nBootloader=none\nBiosBootloader=grub\n");
    for (name, text) in DEFINITIONS {
        project.write(&format!("mkosi.repart/{name}.conf"), &format!("[Partition]\n{text}\n"));
    }
    let modules = project.path().join("tree/usr/lib/grub");
    std::fs::create_dir_all(&modules).unwrap();
    tool(Command::new("cp").arg("-r").arg(tools().join("usr/lib/grub/i386-pc")).arg(&modules));
    project.script("mkosi.finalize", "cp \"$BUILDROOT/usr/lib/grub/i386-pc/core.img\" \"$OUTPUTDIR\"");
    project
}

/// The number at an offset, its least significant byte first.
fn number(bytes: &[u8], offset: usize, length: usize) -> u64 {
    bytes[offset..offset + length].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[test]
fn grub_is_in_the_boot_sector_and_in_its_partition() {
    let project = fill(&directory("cache-"));
    // GRUB's configuration may load it.
    project.write("tree/usr/share/grub/unicode.pf2", "a font\n");
    check(
        &project,
        "e2fsck -fn image.root-x86-64.raw\nmdir -b -s -i image.esp.raw :: | grep -x ::/grub/fonts/unicode.pf2",
    );
    project.build();
    assert_eq!(partition_names(&project), ["esp", "bios", "root-x86-64"]);
    let disk = std::fs::read(project.output("image.raw")).unwrap();
    let core = std::fs::read(project.output("core.img")).unwrap();
    let table: serde_json::Value = serde_json::from_str(&project.read("mkosi.output/table.json")).unwrap();
    let start = table["partitiontable"]["partitions"][1]["start"].as_u64().unwrap();

    // The boot sector is GRUB's, and says where the core image begins (`boot.S`: kernel_sector).
    assert!(disk[..440].windows(4).any(|bytes| bytes == b"GRUB"));
    assert_eq!(number(&disk, 0x5c, 8), start);
    // The core image is in the partition; what follows its head is not changed by the installation.
    let partition = &disk[start as usize * 512..][..1 << 20];
    let (from, to) = (core.len() / 2, core.len() - 512);
    assert!(partition[from..to] == core[from..to], "another core image than that of the tree");
    assert_eq!(std::fs::read(project.output("image.21686148-6449-6e6f-744e-656564454649.raw")).unwrap(), partition);

    // Equal inputs, equal bytes.
    let other = fill(&directory("cache-"));
    other.write("tree/usr/share/grub/unicode.pf2", "a font\n");
    other.done(&[]);
    assert!(std::fs::read(other.output("image.raw")).unwrap() == disk);

    // What it can't be put into.
    std::fs::remove_file(project.path().join("mkosi.repart/05-bios.conf")).unwrap();
    project.build();
    let without = std::fs::read(project.output("image.raw")).unwrap();
    assert!(!without[..440].windows(4).any(|bytes| bytes == b"GRUB"));
    project.reconfigure("Bootable=auto", "Bootable=yes\nInitrds=initrd");
    project.write("initrd", "");
    project.write("tree/usr/lib/modules/6.1/vmlinuz", "a kernel");
    project.fails(&[]).says("no BIOS boot partition");
}
