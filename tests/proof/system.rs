//! The family of images: Debian with a kernel and a unit that reports and ends the system. They share one store, and in
//! it the tools, the default initrd and the tree that packages make.

use std::path::Path;
use std::process::Command;

use crate::support::{Project, tool, tools};

/// How the unit ends the machine.
pub const STATUS: u8 = 7;

/// What every machine is like. A simple processor is emulated the fastest, and with a second one Linux fails now and then:
/// QEMU's threads run what another one is just patching.
const RUNTIME: &str = "\
[Runtime]
KVM=no
TPM=no
CPUs=1
RAM=1G
RuntimeNetwork=none
Ephemeral=yes
QemuArgs=-cpu qemu64
";

/// Waits that suit an emulated machine, on a host that may have other work, and a target that is reached early. What
/// takes long and proves nothing is left out.
const COMMAND_LINE: &str = "systemd.unit=proof.target systemd.default_device_timeout_sec=1800 \
     systemd.default_timeout_start_sec=1800 systemd.mask=systemd-network-generator.service \
     systemd.mask=sys-kernel-debug.mount systemd.mask=sys-kernel-tracing.mount systemd.mask=dev-mqueue.mount \
     systemd.mask=dev-hugepages.mount proof=genuine";

const TARGET: &str = "\
[Unit]
Description=The system has told what it runs on
Requires=proof.service
After=proof.service
";

const SERVICE: &str = "\
[Unit]
Description=Tell what the system runs on, and end it
DefaultDependencies=no
Requires=local-fs.target
After=local-fs.target systemd-remount-fs.service
SuccessAction=exit
SuccessActionExitStatus=7
FailureAction=exit
FailureActionExitStatus=8

[Service]
Type=oneshot
ExecStart=/usr/lib/proof/report
StandardOutput=tty
StandardError=tty
TTYPath=/dev/console
";

const REPORT: &str = r#"#!/bin/sh
set -u
say() { echo "proof: $*"; }
variable() { od -An -tu1 -j4 -N1 "/sys/firmware/efi/efivars/$1-8be4df61-93ca-11d2-aa0d-00e098032b8c" | tr -d ' '; }
say begin
say "system $(. /usr/lib/os-release; echo "$ID $VERSION_ID")"
say "option $(tr ' ' '\n' </proc/cmdline | grep '^proof=')"
for place in / /usr; do
	say "mount $place $(findmnt -rno FSTYPE,SOURCE,OPTIONS "$place")"
done
if [ -d /sys/firmware/efi/efivars ]; then
	say "secure boot $(variable SecureBoot), setup mode $(variable SetupMode)"
fi
systemctl --failed --plain --no-legend | while read -r unit rest; do
	say "failed $unit"
done
say end
"#;

/// The last that runs (systemd-shutdown(8)): ends the machine with a status, through the device that `mkosi vm` gives to
/// machines without a VSock. Secure boot forbids the access, as a container does: the system ends then as any other.
const SHUTDOWN: &str = "#include <sys/io.h>\n\
    int main(void) { return iopl(3) || (outb(7, 0xf4), 0); }\n";

/// An empty project of the family, whose store is below `cache`. `more` are lines of any sections.
pub fn project(cache: &Path, more: &str) -> Project {
    let project = Project::empty(cache);
    fill(&project, more);
    project
}

/// Writes its files.
pub fn fill(project: &Project, more: &str) {
    project.write(
        "mkosi.conf",
        &format!(
            "[Distribution]\nDistribution=debian\nRelease=trixie\n\
             [Output]\nFormat=disk\nOutput=image\nOutputDirectory=mkosi.output\nManifestFormat=\n\
             [Content]\nBootable=yes\nPackages=kmod linux-image-cloud-amd64 systemd systemd-boot-efi udev\n\
             WithDocs=no\nKernelCommandLine={COMMAND_LINE}\n{RUNTIME}{}{more}\n",
            tools::CONFIGURATION
        ),
    );
    reports(project);
}

/// Adds the unit that reports.
pub fn reports(project: &Project) {
    let units = "mkosi.extra/usr/lib/systemd/system";
    project.write(&format!("{units}/proof.target"), TARGET);
    project.write(&format!("{units}/proof.service"), SERVICE);
    project.write("mkosi.extra/usr/lib/proof/report", REPORT);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(project.path().join("mkosi.extra/usr/lib/proof/report"), mode).unwrap();
    project.write("shutdown.c", SHUTDOWN);
    let place = "mkosi.extra/usr/lib/systemd/system-shutdown";
    std::fs::create_dir_all(project.path().join(place)).unwrap();
    let mut compiler = Command::new("gcc");
    compiler.args(["-static", "-O1", "-s", "-o", &format!("{place}/proof"), "shutdown.c"]);
    tool(compiler.current_dir(project.path()));
}

/// Adds definitions of partitions: an EFI system partition, and `what` (`root` or `usr`) with verity.
pub fn verity(project: &Project, what: &str, file_system: &str, copied: &str) {
    // A file system for firmware has sectors of 4 KiB here, and firmware knows FAT32 by the number of its clusters.
    project.write(
        "mkosi.repart/00-esp.conf",
        "[Partition]\nType=esp\nFormat=vfat\nCopyFiles=/efi:/\nCopyFiles=/boot:/\nSizeMinBytes=260M\n\
         SizeMaxBytes=260M\n",
    );
    project.write(
        &format!("mkosi.repart/10-{what}.conf"),
        &format!(
            "[Partition]\nType={what}\nFormat={file_system}\nCopyFiles={copied}\nVerity=data\nVerityMatchKey={what}\n\
             Minimize=guess\n"
        ),
    );
    project.write(
        &format!("mkosi.repart/11-{what}-verity.conf"),
        &format!("[Partition]\nType={what}-verity\nVerity=hash\nVerityMatchKey={what}\nMinimize=best\n"),
    );
}
