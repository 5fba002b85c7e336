//! GRUB for machines with a BIOS: its first sector and its core image, which grub-bios-setup puts into the boot sector and
//! the BIOS boot partition.

use std::path::Path;

use super::super::context::BUILDROOT;
use super::super::{Context, StageError};
use super::{WORK, disk_file, tree};
use crate::boot::look::Look;
use crate::boot::wanted::{BIOS, grub_directory};
use crate::output::repart::{BIOS_BOOT, Partition};
use crate::sandbox::Mount;

/// The program. Debian has it beside GRUB's modules where only these are installed.
const SETUP: [&str; 3] = ["grub-bios-setup", "grub2-bios-setup", "/usr/lib/grub/i386-pc/grub-bios-setup"];

/// Puts GRUB for BIOS into the disk in `directory`, where the settings, the tree and the partitions want it.
pub fn install(cx: &mut Context<'_>, directory: &Path, partitions: &[Partition]) -> Result<(), StageError> {
    let bootable = cx.view.text("Bootable").unwrap_or("auto");
    let demanded = bootable == "enabled";
    let wanted = cx.view.text("BiosBootloader") == Some("grub") && bootable != "disabled" && !cx.view.bool("Overlay");
    if !wanted {
        return Ok(());
    }
    let merged = cx.merged();
    // One that was demanded and isn't there was told by the stage that installs boot loaders.
    let Some(modules) = grub_directory(&Look::new(&merged), BIOS) else { return Ok(()) };
    if let Some(missing) = lacks(partitions) {
        let why = format!("the disk has no {missing} for it (repart.d(5))");
        if demanded {
            return Err(StageError::Other(format!("Bootable=yes and BiosBootloader=grub ask for GRUB, and {why}")));
        }
        cx.note(&format!("GRUB for BIOS is passed over, since Bootable=auto: {why}"));
        return Ok(());
    }
    let Some(setup) = SETUP.iter().find_map(|name| cx.tools.find(name)) else {
        let why = "grub-bios-setup is not among the tools; set ToolsTree=default, or install it (Debian: grub-pc-bin)";
        if demanded {
            return Err(StageError::Other(format!("Bootable=yes and BiosBootloader=grub ask for GRUB, and {why}")));
        }
        cx.note(&format!("GRUB for BIOS is passed over, since Bootable=auto: {why}"));
        return Ok(());
    };
    cx.note("installing GRUB for BIOS");
    let disk = disk_file(Path::new(WORK)).to_string_lossy().into_owned();
    let directory_inside = format!("{BUILDROOT}/{modules}");
    let mut spec = cx.spec(&[&setup.to_string_lossy(), "--directory", &directory_inside, &disk]);
    spec.mounts.extend([
        Mount::Bind { source: directory.to_path_buf(), target: WORK.into(), read_only: false, optional: false },
        tree::read_only(cx)?,
    ]);
    hide_devices(&mut spec.mounts, &disk);
    cx.run(&spec)
}

/// The program opens the device that the directory with its modules lies on, for the case that it doesn't fit into the
/// partition, and looks in the kernel's list of mounts for it. Here there is no such device, and no right to open one:
/// it gets a list in which the disk itself is mounted, which it can open. Nothing else that it needs is in `/proc`.
fn hide_devices(mounts: &mut Vec<Mount>, disk: &str) {
    mounts.retain(|mount| !matches!(mount, Mount::Proc { .. }));
    let line = format!("1 0 1:1 / / - fat {disk}\n");
    mounts.push(Mount::File { target: "/proc/self/mountinfo".into(), contents: line.into_bytes(), mode: 0o444 });
}

/// The first partition that GRUB needs and the disk doesn't have.
fn lacks(partitions: &[Partition]) -> Option<&'static str> {
    let has = |fits: fn(&str) -> bool| partitions.iter().any(|partition| fits(&partition.kind));
    if !has(|kind| kind == BIOS_BOOT) {
        return Some("BIOS boot partition (Type=21686148-6449-6e6f-744e-656564454649)");
    }
    if !has(|kind| kind == "esp") {
        return Some("EFI system partition (Type=esp)");
    }
    (!has(|kind| kind.starts_with("root") || kind.starts_with("usr"))).then_some("root or usr partition")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_disk_lacks() {
        let partition =
            |kind: &str| Partition { kind: kind.to_owned(), uuid: String::new(), label: String::new(), roothash: None };
        let [bios, esp, usr] = [BIOS_BOOT, "esp", "usr-x86-64"].map(partition);
        assert!(lacks(&[]).unwrap().starts_with("BIOS"));
        assert!(lacks(std::slice::from_ref(&bios)).unwrap().starts_with("EFI"));
        assert!(lacks(&[bios.clone(), esp.clone()]).unwrap().starts_with("root"));
        assert_eq!(lacks(&[esp, usr, bios]), None);
    }
}
