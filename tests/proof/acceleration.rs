//! A host on which `/dev/kvm` opens and a guest dies under it: what is said then. QEMU and the device are made up.

use std::process::Command;

use crate::support::{MKOSI, Project, Ran, stores};

/// Starts the program where `/dev/kvm` is a device that opens, whatever the host has.
const HOST: &str = "set -e
mount -t tmpfs dev dev
for name in null zero random urandom tty; do cp -a /dev/$name dev; done
mknod dev/kvm c 1 3
ln -s /proc/self/fd dev/fd
mount --bind dev /dev
exec \"$@\"";

fn run(qemu: &str, arguments: &[&str]) -> Ran {
    let project = Project::empty(&stores::directory("cache-"));
    project.write(
        "mkosi.conf",
        "[Distribution]\nDistribution=debian\nRelease=trixie\nArchitecture=x86-64\n\
         [Output]\nFormat=disk\nOutput=image\nOutputDirectory=mkosi.output\n[Build]\nExtraSearchPaths=search\n\
         [Runtime]\nTPM=no\nVSock=no\nRuntimeNetwork=none\n",
    );
    project.write("mkosi.output/image.raw", "a disk");
    project.write("dev/nothing", "");
    project.script("search/systemd-vmspawn", "echo systemd 260 '(260-1)'");
    let version = "[ \"$1\" = --version ] && echo QEMU emulator version 7.2.0 && exit 0";
    project.script("search/qemu-system-x86_64", &format!("{version} || :\n{qemu}"));
    let mut command = Command::new("unshare");
    command.current_dir(project.path()).args(["--mount", "sh", "-c", HOST, "sh", MKOSI]);
    let all = [&["--firmware=uefi"], arguments, &["vm"]].concat();
    Ran::new(project.command_by(command, &all).output().unwrap())
}

#[test]
fn a_guest_that_dies_under_kvm_is_ended_with_the_way_to_go_on() {
    for qemu in ["echo KVM internal error. Suberror: 1 >&2; exec sleep 600", "exit 1"] {
        let ran = run(qemu, &[]);
        assert!(!ran.success, "{}", ran.text);
        ran.says("the virtual machine");
        ran.says("--kvm=no");
    }
    // Of an emulated one nothing of that is said. It has the variables of the configuration.
    let ran = run("echo $WORD; exit 1", &["--kvm=no", "--environment=WORD=told"]);
    assert!(!ran.success && !ran.text.contains("KVM") && ran.stdout == "told\n", "{} {}", ran.stdout, ran.text);
}

#[test]
fn an_old_vmspawn_is_refused() {
    let ran = run("exit 1", &["--kvm=no", "--vmm=vmspawn"]);
    assert!(!ran.success && ran.text.contains("has version 260, and --vmm=vmspawn needs 261"), "{}", ran.text);
}
