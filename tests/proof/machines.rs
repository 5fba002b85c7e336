//! Virtual machines under UEFI, from the firmware to the unit.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::process::Command;

use crate::machine::{boot, boot_until, turn};
use crate::support::user::User;
use crate::support::{stores, tool, tools};
use crate::system::{STATUS, fill, project, verity};

/// The firmware starts a unified kernel image whose initrd is the whole tree. It unpacks in seconds.
#[test]
fn an_efi_partition_boots_and_ends_with_a_status() {
    let _turn = turn();
    let project = project(tools::cache(), "[Output]\nFormat=esp\n[Runtime]\nRAM=2G\n");
    project.build();
    let run = boot(&project, &["--firmware=uefi"]);
    run.assert_reported(STATUS);
    assert!(run.said("mount /").starts_with("rootfs "), "{run:#?}");
}

#[test]
#[ignore = "takes minutes where it is emulated: make test-boot"]
fn boot_a_unified_kernel_image_with_a_root_on_ext4() {
    let _turn = turn();
    let project = project(tools::cache(), "[Content]\nBootloader=uki\n");
    project.build();
    let run = boot(&project, &["--firmware=uefi"]);
    run.assert_reported(STATUS);
    assert!(run.said("mount /").starts_with("ext4 /dev/vda2 "), "{run:#?}");
    assert!(run.said("secure boot").starts_with('0'), "{run:#?}");
}

/// systemd-boot enrols the keys and starts again; then the firmware itself checks what it starts.
#[test]
#[ignore = "takes minutes where it is emulated: make test-boot"]
fn boot_with_enrolled_keys_and_nothing_that_was_changed() {
    let _turn = turn();
    let project = project(tools::cache(), "[Validation]\nSecureBoot=yes\nSecureBootAutoEnroll=yes\n");
    project.done(&["genkey"]);
    project.build();
    let secure = ["--firmware=uefi-secure-boot"];
    let run = boot(&project, &secure);
    // A locked kernel keeps the unit from the device that takes the status.
    run.assert_reported(0);
    assert!(run.firmware.contains("keys successfully enrolled"), "{run:#?}");
    assert_eq!(run.said("secure boot"), "1, setup mode 0", "{run:#?}");

    // Another command line in the same image, which is all that the signature has against it.
    let image = project.output("image.raw");
    let found = tool(Command::new("grep").args(["-obaF", "proof=genuine"]).arg(&image));
    let places: Vec<&str> = found.lines().collect();
    assert_eq!(places.len(), 1, "{places:?}");
    let offset: u64 = places[0].split(':').next().unwrap().parse().unwrap();
    let mut file = std::fs::File::options().write(true).open(&image).unwrap();
    file.seek(SeekFrom::Start(offset)).unwrap();
    file.write_all(b"proof=altered").unwrap();
    drop(file);
    let command = project.command::<&str>(&[]);
    let refused = boot_until(&project, command, &secure, |run| run.firmware.contains("Access denied"));
    assert!(refused.firmware.contains("Access denied"), "{refused:#?}");
    assert!(!refused.firmware.contains("EFI stub") && !refused.console.contains("proof:"), "{refused:#?}");
}

#[test]
#[ignore = "takes minutes where it is emulated: make test-boot"]
fn boot_a_root_under_verity() {
    let _turn = turn();
    let project = project(tools::cache(), "");
    verity(&project, "root", "ext4", "/");
    project.build();
    let run = boot(&project, &["--firmware=uefi"]);
    run.assert_reported(STATUS);
    assert!(run.said("mount /").starts_with("ext4 /dev/mapper/root ro"), "{run:#?}");
}

#[test]
#[ignore = "takes minutes where it is emulated: make test-boot"]
fn boot_usr_on_erofs_under_verity_and_a_root_in_memory() {
    let _turn = turn();
    let project = project(tools::cache(), "[Content]\nKernelCommandLine=root=tmpfs\n");
    verity(&project, "usr", "erofs", "/usr:/");
    project.build();
    let run = boot(&project, &["--firmware=uefi"]);
    run.assert_reported(STATUS);
    assert!(run.said("mount /usr").starts_with("erofs /dev/mapper/usr ro"), "{run:#?}");
    assert!(run.said("mount /").starts_with("tmpfs "), "{run:#?}");
}

#[test]
#[ignore = "takes minutes where it is emulated: make test-boot"]
fn boot_what_an_ordinary_user_built() {
    let _turn = turn();
    let user = User::new("b", Some("820000-885535"));
    let cache = user.place().join("cache");
    stores::fill(&cache);
    let project = crate::support::Project::within(user.place(), &cache);
    fill(&project, "");
    user.own();
    let built = user.run(&project, &[]);
    assert!(built.success, "{}", built.text);
    let run = boot_until(&project, user.command(&project, &[]), &["--firmware=uefi"], |_| false);
    run.assert_reported(STATUS);
    assert!(run.said("mount /").starts_with("ext4 /dev/vda2 "), "{run:#?}");
}
