//! Virtual machines that really boot: a small initrd that mkosi makes, and the kernel of Debian for virtual machines.
//! Emulated, since not every host has KVM.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use crate::support::{Project, Ran, stores, tool, tools};

/// What the console, drives and shared directories need, in an order in which they can be loaded.
const MODULES: [&str; 9] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_modern_dev",
    "virtio_pci_legacy_dev",
    "virtio_pci",
    "virtio_console",
    "virtio_blk",
    "fuse",
    "virtiofs",
];

/// Neither root nor anyone here.
const OTHER: u32 = 54_321;

/// Ends the machine with a status, through QEMU's device for that.
const EXIT: &str = "#include <stdlib.h>\n#include <sys/io.h>\n\
    int main(int count, char **words) { return iopl(3) || (outb(atoi(words[count - 1]), 0xf4), 0); }\n";

/// Says what it was told on the console, where the machine has that device, and ends with the status that the kernel was
/// given.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
for round in 1 2; do
    for module in /modules/*.ko; do /bin/busybox insmod $module 2>/dev/null; done
done
if /bin/busybox grep -q 0x0003 /sys/bus/virtio/devices/*/device; then
    until [ -c /dev/hvc0 ]; do /bin/busybox sleep 0.1; done
    exec > /dev/hvc0 2>&1
fi
echo booted
/bin/busybox strings /sys/firmware/dmi/tables/DMI | /bin/busybox grep my.credential
echo TPM $(/bin/busybox cat /sys/class/tpm/tpm0/tpm_version_major)
for disk in /sys/block/vd*; do echo ${disk##*/} $(/bin/busybox cat $disk/size); done
[ -b /dev/vda ] && echo written | /bin/busybox dd of=/dev/vda bs=512 conv=sync,fsync 2>/dev/null
/bin/busybox mount -t virtiofs /shared /mnt && /bin/busybox cp /mnt/file /mnt/copy && /bin/busybox cat /mnt/copy \\
    && /bin/busybox stat -c 'owner %u' /mnt/file
/bin/busybox sleep 1
for word in $(/bin/busybox cat /proc/cmdline); do
    case $word in status=*) /bin/exit-with ${word#status=} ;; esac
done
/bin/busybox poweroff -f
";

/// The kernel, unpacked from its package.
pub fn unpacked() -> &'static Path {
    static UNPACKED: OnceLock<PathBuf> = OnceLock::new();
    UNPACKED.get_or_init(|| {
        let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kernel");
        let done = place.join("unpacked");
        if done.exists() {
            return done;
        }
        std::fs::create_dir_all(&place).unwrap();
        let architecture = tool(Command::new("dpkg").arg("--print-architecture"));
        let newest = format!("linux-image-cloud-{}", architecture.trim());
        let depends = tool(Command::new("apt-cache").args(["depends", "--important", &newest]));
        let package = depends.split_whitespace().find(|word| word.starts_with("linux-image-") && **word != newest);
        let package = package.unwrap_or_else(|| panic!("{newest} depends on no kernel: {depends}"));
        tool(Command::new("apt-get").args(["download", package]).current_dir(&place));
        let is_package = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "deb");
        let file = std::fs::read_dir(&place).unwrap().flatten().map(|entry| entry.path()).find(is_package).unwrap();
        let temporary = place.join("unpacking");
        tool(Command::new("dpkg-deb").arg("-x").arg(&file).arg(&temporary));
        std::fs::remove_file(file).unwrap();
        std::fs::rename(temporary, &done).unwrap();
        done
    })
}

/// The first file below a directory whose name fits.
pub fn found(directory: &Path, matches: &dyn Fn(&str) -> bool) -> Option<PathBuf> {
    let mut entries: Vec<_> = std::fs::read_dir(directory).unwrap().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    entries.into_iter().find_map(|entry| match entry.file_type().unwrap().is_dir() {
        true => found(&entry.path(), matches),
        false => matches(&entry.file_name().to_string_lossy()).then(|| entry.path()),
    })
}

/// A project whose image is the initrd.
pub fn project() -> Project {
    let project = Project::empty(&stores::fresh());
    project.write(
        "mkosi.conf",
        "[Distribution]\nDistribution=debian\nRelease=trixie\n\
         [Output]\nFormat=cpio\nCompressOutput=no\nOutputDirectory=mkosi.output\n\
         [Content]\nBaseTrees=tree\n\
         [Runtime]\nRAM=512M\nKVM=no\nTPM=no\nRuntimeNetwork=none\nCredentials=my.credential=told\n",
    );
    for directory in ["bin", "dev", "mnt", "modules", "proc", "sys"] {
        std::fs::create_dir_all(project.path().join("tree").join(directory)).unwrap();
    }
    let tree = project.path().join("tree");
    std::fs::copy("/bin/busybox", tree.join("bin/busybox"))
        .unwrap_or_else(|error| panic!("/bin/busybox: {error}: this test needs busybox-static"));
    for (number, module) in MODULES.iter().enumerate() {
        let name = format!("{module}.ko");
        let file = found(unpacked(), &|file| file.starts_with(&name)).unwrap_or_else(|| panic!("no {name}"));
        let target = tree.join(format!("modules/{number}-{name}"));
        if file.extension().is_some_and(|extension| extension == "xz") {
            let plain = Command::new("xz").arg("-dc").arg(&file).output().unwrap();
            assert!(plain.status.success());
            std::fs::write(target, plain.stdout).unwrap();
        } else {
            std::fs::copy(file, target).unwrap();
        }
    }
    project.write("exit.c", EXIT);
    tool(
        Command::new("gcc").args(["-static", "-O1", "-o", "tree/bin/exit-with", "exit.c"]).current_dir(project.path()),
    );
    project.write("tree/init", INIT);
    tool(Command::new("chmod").args(["0755", "tree/init"]).current_dir(project.path()));
    project
}

fn boot(project: &Project, more: &[&str]) -> (Ran, Option<i32>) {
    let kernel = found(&unpacked().join("boot"), &|name| name.starts_with("vmlinuz-")).unwrap();
    let linux = format!("--linux={}", kernel.display());
    let arguments = [&["-f", &linux], more, &["vm"]].concat();
    let output = project.command(&arguments).output().unwrap();
    let status = output.status.code();
    (Ran::new(output), status)
}

/// Built by `-f`, booted by QEMU itself, with a credential, a TPM and a drive, and the status of the system in it comes
/// back.
#[test]
fn an_initrd_boots_and_ends_with_its_status() {
    let project = project();
    let drive = format!("--drive=more:5M:{}::more:persist", project.path().display());
    let device = "--qemu-args=-device virtio-blk-pci,drive=more";
    let more = ["--firmware=linux", "--kernel-command-line-extra=status=7", "--tpm=yes", &drive, device];
    let (ran, status) = boot(&project, &more);
    assert_eq!(status, Some(7), "{}{}", ran.stdout, ran.text);
    assert!(ran.stdout.contains("booted"), "{}{}", ran.stdout, ran.text);
    assert!(ran.stdout.contains("io.systemd.credential.binary:my.credential=dG9sZA=="), "{}", ran.stdout);
    assert!(ran.stdout.contains("TPM 2") && ran.stdout.contains("vda 10240"), "{}{}", ran.stdout, ran.text);
    let drive = found(project.path(), &|name| name.starts_with("mkosi-drive-")).expect("a drive that persists");
    let drive = std::fs::read(drive).unwrap();
    assert!(drive.starts_with(b"written") && drive.len() == 5 << 20, "{}", ran.text);
    assert!(project.output("image.cpio").exists());
    // Without any console, and with an input that nobody reads.
    let (ran, status) = boot(&project, &["--console=headless", "--kernel-command-line-extra=status=8"]);
    assert_eq!((status, ran.stdout.as_str()), (Some(8), ""), "{}", ran.text);
}

/// Everything that runs the machine comes from the tools tree: QEMU, its firmware, swtpm, virtiofsd, systemd-repart. The
/// image is a drive that grows, and what is written is gone with its copy.
#[test]
#[ignore = "takes minutes where it is emulated, and fetches QEMU: make test-boot"]
fn boot_with_the_tools_of_a_tree() {
    let initrd = project();
    initrd.done(&[]);
    let project = Project::empty(tools::cache());
    // The owner of what is shared, whoever that is, is root in the machine, and has to reach it here.
    let place = tempfile::tempdir().unwrap();
    let shared = place.path();
    std::fs::write(shared.join("file"), "shared with it\n").unwrap();
    for path in [shared, &shared.join("file")] {
        std::os::unix::fs::chown(path, Some(OTHER), Some(OTHER)).unwrap();
    }
    project.write(
        "mkosi.conf",
        &format!(
            "[Distribution]\nDistribution=debian\nRelease=trixie\n\
             [Output]\nFormat=disk\nOutputDirectory=mkosi.output\n{}{}\
             [Content]\nInitrds={}\n\
             [Runtime]\nRAM=512M\nKVM=no\nTPM=yes\nRuntimeNetwork=none\nFirmware=uefi\nEphemeral=yes\n\
             RuntimeSize=24M\nRuntimeTrees={}:/shared\nCredentials=my.credential=told\n\
             KernelCommandLineExtra=root=none status=9\n",
            tools::CONFIGURATION,
            tools::RUNNING,
            initrd.output("image.cpio").display(),
            shared.display()
        ),
    );
    std::fs::create_dir_all(project.output("")).unwrap();
    let image = project.output("image.raw");
    std::fs::File::create(&image).unwrap().set_len(8 << 20).unwrap();
    let mut child = Command::new("sfdisk").arg("--quiet").arg(&image).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"label: gpt\nstart=2048, size=4096\n").unwrap();
    assert!(child.wait().unwrap().success());
    let before = std::fs::read(&image).unwrap();
    project.done(&["-f", "box", "--", "qemu-system-x86_64", "--version"]);
    // Another program of the tree, on the outputs.
    project.write(
        "mkosi.sysupdate/10-image.transfer",
        "[Source]\nType=regular-file\nPath=/\nPathRelativeTo=explicit\nMatchPattern=image_@v.raw\n\
         [Target]\nType=regular-file\nPath=/var/tmp/none\nMatchPattern=image_@v.raw\n",
    );
    std::fs::write(project.output("image_47.raw"), "newer").unwrap();
    let versions = project.done(&["--split-artifacts=partitions", "sysupdate", "--", "--verify=no", "list"]).stdout;
    assert!(versions.contains("47"), "{versions}");
    std::fs::remove_file(project.output("image_47.raw")).unwrap();
    let kernel = found(&unpacked().join("boot"), &|name| name.starts_with("vmlinuz-")).unwrap();
    let output = project.command(&[&format!("--linux={}", kernel.display()), "vm"]).output().unwrap();
    let status = output.status.code();
    let ran = Ran::new(output);
    for text in ["booted", "my.credential", "TPM 2", "vda 49152", "shared with it", "owner 0"] {
        assert!(ran.stdout.contains(text), "no {text}: {}{}", ran.stdout, ran.text);
    }
    assert_eq!(status, Some(9), "{}{}", ran.stdout, ran.text);
    assert_eq!(std::fs::read_to_string(shared.join("copy")).unwrap(), "shared with it\n");
    assert_eq!(shared.join("copy").metadata().unwrap().uid(), OTHER);
    assert_eq!(std::fs::read(&image).unwrap(), before, "the image itself was written to");
    assert_eq!(std::fs::read_dir(project.output("")).unwrap().count(), 1, "the copy is gone");
}

/// The same through UEFI firmware, and an end without a status.
#[test]
#[ignore = "takes minutes where it is emulated: make test-boot"]
fn boot_through_firmware() {
    let project = project();
    for firmware in ["uefi", "uefi-secure-boot"] {
        let (ran, status) = boot(&project, &[&format!("--firmware={firmware}")]);
        assert_eq!(status, Some(0), "{}{}", ran.stdout, ran.text);
        assert!(ran.stdout.contains("booted"), "{}{}", ran.stdout, ran.text);
    }
}
