//! What starts a kernel that is no unified image by the firmware alone: entries of systemd-boot, GRUB, shim, and QEMU.

use crate::machine::{Run, boot, boot_with_tools, turn};
use crate::support::{Project, tools};
use crate::system::{STATUS, project};

/// GRUB as Debian has built and signed it, its modules, and shim: in all images here, so that they share a tree.
const GRUB: &str = "Packages=grub-efi-amd64-bin grub-efi-amd64-signed shim-signed";

/// With Secure Boot the firmware checks the kernel, which has a signature of its own then. Initrds have none.
#[test]
#[ignore = "takes minutes where it is emulated: make test-boot"]
fn boot_entries_of_type_1_by_systemd_boot() {
    let _turn = turn();
    let secure = "[Validation]\nSecureBoot=yes\nSecureBootAutoEnroll=yes\n";
    // A locked kernel keeps the unit from the device that takes the status.
    for (more, firmware, status, state) in
        [("", "uefi", STATUS, "0, setup mode 1"), (secure, "uefi-secure-boot", 0, "1, setup mode 0")]
    {
        let project = project(tools::cache(), &format!("[Content]\nUnifiedKernelImages=none\n{more}"));
        if !more.is_empty() {
            project.done(&["genkey"]);
        }
        project.build();
        let run = boot(&project, &[&format!("--firmware={firmware}")]);
        run.assert_reported(status);
        assert_eq!(run.said("secure boot"), state, "{run:#?}");
        assert!(run.said("loader").starts_with("systemd-boot 257"), "{run:#?}");
        assert!(run.said("entry").starts_with("debian-6.12") && run.said("entry").ends_with(".conf"), "{run:#?}");
        assert_eq!(run.said("stub"), "", "{run:#?}");
        on_disk(&run);
    }
}

#[test]
#[ignore = "takes minutes where it is emulated: make test-boot"]
fn boot_a_unified_kernel_image_by_grub() {
    let _turn = turn();
    let project = project(tools::cache(), &format!("[Content]\nBootloader=grub\n{GRUB}\n"));
    project.build();
    let run = boot(&project, &["--firmware=uefi"]);
    run.assert_reported(STATUS);
    assert!(run.firmware.contains("Booting `debian-6.12"), "{run:#?}");
    assert!(run.said("stub").starts_with("systemd-stub 257"), "{run:#?}");
    on_disk(&run);
}

#[test]
#[ignore = "takes minutes where it is emulated: make test-boot"]
fn boot_a_kernel_and_its_initrds_by_grub() {
    let _turn = turn();
    let project = by_grub("grub");
    project.build();
    let run = boot(&project, &["--firmware=uefi"]);
    run.assert_reported(STATUS);
    started_by_grub(&run);
    assert_eq!(run.said("secure boot"), "0, setup mode 1", "{run:#?}");
}

/// Firmware with Microsoft's keys checks shim, shim has Debian's and checks GRUB, and GRUB by shim the kernel.
#[test]
#[ignore = "takes minutes where it is emulated: make test-boot"]
fn boot_by_programs_that_debian_has_signed() {
    let _turn = turn();
    let project = by_grub("grub-signed");
    project.configure("[Content]\nShimBootloader=signed\n");
    project.build();
    let run = boot(&project, &["--firmware=uefi-secure-boot", "--firmware-variables=microsoft"]);
    // A locked kernel keeps the unit from the device that takes the status.
    run.assert_reported(0);
    started_by_grub(&run);
    assert_eq!(run.said("secure boot"), "1, setup mode 0", "{run:#?}");
}

/// GRUB of the image's modules and a unified kernel image, both signed by a key of one's own. Shim knows it from its list of
/// such keys, while the firmware has Microsoft's, or is signed by it too, where the firmware has that key alone.
#[test]
#[ignore = "takes minutes where it is emulated, and fetches QEMU: make test-boot"]
fn boot_by_shim_what_was_signed_with_a_key_of_ones_own() {
    let _turn = turn();
    for (shim, variables) in [("signed", "microsoft-mok"), ("unsigned", "custom")] {
        let more =
            format!("shim-unsigned\nShimBootloader={shim}\n[Validation]\nSecureBoot=yes\nSecureBootAutoEnroll=no");
        let project = project(tools::cache(), &format!("[Content]\nBootloader=grub\n{GRUB} {more}\n"));
        project.done(&["genkey"]);
        project.build();
        add_tools(&project);
        let variables = format!("--firmware-variables={variables}");
        let run = boot_with_tools(&project, &["--firmware=uefi-secure-boot", &variables], |run| {
            run.firmware.contains("Access Denied") || run.firmware.contains("Security Violation")
        });
        run.assert_reported(0);
        assert!(run.firmware.contains("Booting `debian-6.12"), "{run:#?}");
        assert_eq!(run.said("secure boot"), "1, setup mode 0", "{run:#?}");
        assert!(run.said("stub").starts_with("systemd-stub 257"), "{run:#?}");
        on_disk(&run);
    }
}

/// No shim, no boot loader, nothing that enrols keys: firmware whose only key is one's own starts the image signed with it.
#[test]
#[ignore = "takes minutes where it is emulated, and fetches QEMU: make test-boot"]
fn boot_by_firmware_that_has_ones_own_key_alone() {
    let _turn = turn();
    let more = "[Content]\nBootloader=uki\n[Validation]\nSecureBoot=yes\nSecureBootAutoEnroll=no\n";
    let project = project(tools::cache(), more);
    project.done(&["genkey"]);
    project.build();
    add_tools(&project);
    let arguments = ["--firmware=uefi-secure-boot", "--firmware-variables=custom"];
    let run = boot_with_tools(&project, &arguments, |run| run.firmware.contains("Access Denied"));
    run.assert_reported(0);
    assert_eq!(run.said("secure boot"), "1, setup mode 0", "{run:#?}");
    assert!(!run.firmware.contains("enrolled") && run.said("stub").starts_with("systemd-stub 257"), "{run:#?}");
    on_disk(&run);
}

/// QEMU starts the kernel beside the image, with the programs of a tree. The first time it has no initrd, and Debian's
/// kernel no driver for the disk.
#[test]
#[ignore = "takes minutes where it is emulated, and fetches QEMU: make test-boot"]
fn boot_the_kernel_without_firmware() {
    let _turn = turn();
    let project = project(tools::cache(), "");
    project.build();
    project.write("shared/file", "with it\n");
    add_tools(&project);
    let no_root = |run: &Run| run.console.contains("Unable to mount root fs");
    let over = |run: &Run| run.console.contains("Kernel panic");
    let bare = boot_with_tools(&project, &["--firmware=linux-noinitrd"], over);
    assert!(no_root(&bare), "{bare:#?}");
    let run = boot_with_tools(&project, &["--firmware=linux", "--runtime-tree=shared:/shared"], |_| false);
    run.assert_reported(STATUS);
    assert!(!run.firmware.contains("BdsDxe") && !run.console.contains("proof: secure boot"), "{run:#?}");
    assert_eq!(run.said("shared"), "virtiofs with it", "{run:#?}");
    on_disk(&run);
}

/// Adds to the tree with the tools what runs images. Those make the same image, which is not made again for that.
fn add_tools(project: &Project) {
    project.configure(tools::RUNNING);
    project.done(&["-f", "box", "--", "true"]);
}

/// A project that boots by GRUB without unified kernel images. Nobody but the image tells the kernel its console then.
fn by_grub(loader: &str) -> Project {
    project(
        tools::cache(),
        &format!(
            "[Content]\nBootloader={loader}\nUnifiedKernelImages=none\n{GRUB}\nKernelCommandLine=console=hvc0 \
             loglevel=4\n"
        ),
    )
}

fn started_by_grub(run: &Run) {
    assert!(run.firmware.contains("Booting `debian-6.12"), "{run:#?}");
    assert!(run.said("started as").starts_with("BOOT_IMAGE=/debian/6.12"), "{run:#?}");
    assert_eq!(run.said("stub"), "", "{run:#?}");
    on_disk(run);
}

fn on_disk(run: &Run) {
    assert!(run.said("mount /").starts_with("ext4 /dev/vda2 "), "{run:#?}");
}
