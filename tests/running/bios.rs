//! A disk that a BIOS boots: SeaBIOS starts GRUB from the boot sector, GRUB the kernel and initrd on the EFI partition.

use std::process::{Command, Stdio};

use crate::boot;
use crate::support::{Project, tools};

#[test]
fn a_bios_boots_the_disk() {
    let initrd = boot::project();
    initrd.done(&[]);
    let project = Project::empty(tools::cache());
    project.write("mkosi.conf", tools::CONFIGURATION);
    project.configure(
        "[Distribution]\nDistribution=custom\n\
         [Output]\nFormat=disk\nOutput=image\nOutputDirectory=mkosi.output\n\
         [Content]\nBaseTrees=tree\nBootable=yes\nBootloader=none\nBiosBootloader=grub\nKernelModulesInitrd=no\n\
         Initrds=initrd.cpio\nKernelCommandLine=status=9\nCleanPackageMetadata=no\n",
    );
    std::fs::copy(initrd.output("image.cpio"), project.path().join("initrd.cpio")).unwrap();
    project.write("tree/usr/lib/os-release", "ID=debian\nPRETTY_NAME=\"A system\"\n");
    let kernel = boot::found(&boot::unpacked().join("boot"), &|name| name.starts_with("vmlinuz-")).unwrap();
    let version = kernel.file_name().unwrap().to_str().unwrap().trim_start_matches("vmlinuz-").to_owned();
    project.write(&format!("tree/usr/lib/modules/{version}/none"), "");
    std::fs::copy(&kernel, project.path().join(format!("tree/usr/lib/modules/{version}/vmlinuz"))).unwrap();
    // GRUB's modules belong to the image.
    project.script(
        "mkosi.prepare",
        "mkdir -p \"$BUILDROOT/usr/lib/grub\"\ncp -r /usr/lib/grub/i386-pc \"$BUILDROOT/usr/lib/grub\"",
    );
    for (name, text) in [
        ("00-esp", "Type=esp\nFormat=vfat\nCopyFiles=/boot:/\nCopyFiles=/efi:/\nSizeMinBytes=120M\nSizeMaxBytes=120M"),
        ("05-bios", "Type=21686148-6449-6e6f-744e-656564454649\nSizeMinBytes=1M\nSizeMaxBytes=1M"),
        ("10-root", "Type=root\nFormat=ext4\nCopyFiles=/usr/lib/os-release\nSizeMinBytes=20M\nSizeMaxBytes=20M"),
    ] {
        project.write(&format!("mkosi.repart/{name}.conf"), &format!("[Partition]\n{text}\n"));
    }
    project.done(&[]);
    // `mkosi vm` starts UEFI firmware alone.
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35,accel=tcg", "-m", "512M", "-display", "none", "-nodefaults", "-no-user-config"]);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04", "-no-reboot", "-chardev", "stdio,id=console"]);
    qemu.args(["-device", "virtio-serial-pci", "-device", "virtconsole,chardev=console", "-drive"]);
    qemu.arg(format!("file={},format=raw,if=virtio,readonly=on", project.output("image.raw").display()));
    let output = qemu.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    // What is written to the device is doubled, and one more.
    assert_eq!(output.status.code(), Some(19), "{text}");
    assert!(text.contains("booted"), "{text}");
}
