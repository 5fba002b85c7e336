//! Command lines for a table of configurations. A line with `+` is there beside those of the first configuration, one
//! with `-` is not.

use std::fmt::Write as _;

use super::host::{Made, USUAL, host};

/// The differences between two lists of lines, in their order.
fn difference(base: &[String], other: &[String]) -> String {
    let mut text = String::new();
    for line in base.iter().filter(|line| !other.contains(line)) {
        let _ = writeln!(text, "  - {line}");
    }
    for line in other.iter().filter(|line| !base.contains(line)) {
        let _ = writeln!(text, "  + {line}");
    }
    text
}

#[test]
fn qemu() {
    let made = Made::new();
    let host = host(&made);
    let base = made.qemu("--format=disk vm", &host, (10, 0)).unwrap();
    let mut text = format!("mkosi --format=disk vm\n  {}\n", base.join("\n  ").replace("[usual options]", USUAL));
    for arguments in [
        "--format=disk --firmware=uefi vm",
        "--format=disk --firmware=linux vm",
        "--format=disk --firmware=linux-noinitrd vm",
        "--format=disk --firmware-variables=microsoft vm",
        "--format=disk --linux=$D/linux vm",
        "--format=disk --kvm=no --tpm=no --vsock=no --runtime-network=none vm",
        "--format=disk --console=interactive vm",
        "--format=disk --console=read-only vm",
        "--format=disk --console=gui vm",
        "--format=disk --console=headless vm",
        "--format=disk --console=interactive --environment=SYSTEMD_TINT_BACKGROUND=no vm",
        "--format=disk --cpus=0 --ram=4G --maxmem=8G --cxl=yes --runtime-network=interface vm",
        "--format=disk --removable=yes --ephemeral=yes vm",
        "--format=disk --disk-type=nvme --output-extension=img vm",
        "--format=disk --disk-type=scsi-cd --removable=yes vm",
        "--format=disk --drive=a:1G::cache.no-flush=on --drive=b:1G:::a vm -- -device nvme,drive=a",
        "--format=disk --runtime-tree=$D/source --runtime-build-sources=yes vm",
        "--format=disk --kernel-command-line-extra=quiet --kernel-command-line-extra=ip=off vm",
        "--format=directory vm",
        "--format=directory --firmware=uefi vm",
        "--format=cpio --compress-output=no vm",
        "--format=uki vm",
        "--format=esp vm",
        "--format=disk --architecture=arm64 vm",
        "--format=cpio --compress-output=no --architecture=s390x --cxl=yes --runtime-size=8G --disk-type=nvme vm",
        "--format=disk --firmware=linux --firmware-variables=microsoft --vsock=no --vsock-cid=7 vm",
    ] {
        let _ = writeln!(text, "\nmkosi {arguments}");
        match made.qemu(arguments, &host, (10, 0)) {
            Ok(lines) => text.push_str(&difference(&base, &lines)),
            Err(error) => {
                let _ = writeln!(text, "  error: {}", error.replace('\n', "\n  "));
            }
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn hosts() {
    let made = Made::new();
    let whole = host(&made);
    let base = made.qemu("--format=disk vm", &whole, (10, 0)).unwrap();
    let mut poor = host(&made);
    poor.no_kvm = Some("can't open /dev/kvm: Permission denied".to_owned());
    poor.no_vsock = Some("can't open /dev/vhost-vsock: No such file or directory".to_owned());
    (poor.swtpm, poor.pty_forward, poor.root) = (false, false, false);
    let mut bare = poor.clone();
    bare.firmware.clear();
    let mut text = String::new();
    for (what, host, version, arguments) in [
        ("an old QEMU", &whole, (7, 2), "--format=disk vm"),
        ("a new QEMU", &whole, (11, 1), "--format=disk vm"),
        ("nothing but QEMU", &poor, (10, 0), "--format=disk vm"),
        ("nothing but QEMU", &poor, (10, 0), "--format=disk --kvm=yes vm"),
        ("nothing but QEMU", &poor, (10, 0), "--format=disk --vsock=yes vm"),
        ("nothing but QEMU", &poor, (10, 0), "--format=disk --console=interactive vm"),
        ("nothing but QEMU", &poor, (10, 0), "--format=disk --ssh=always vm"),
        ("nothing but QEMU", &poor, (10, 0), "--format=disk --runtime-network=interface vm"),
        ("no firmware", &bare, (10, 0), "--format=disk vm"),
        ("no firmware", &bare, (10, 0), "--format=disk --linux=$D/linux vm"),
    ] {
        let _ = writeln!(text, "\n{what}: mkosi {arguments}");
        match made.qemu(arguments, host, version) {
            Ok(lines) => text.push_str(&difference(&base, &lines)),
            Err(error) => {
                let _ = writeln!(text, "  error: {}", error.replace('\n', "\n  "));
            }
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn what_does_not_go_together() {
    let made = Made::new();
    let host = host(&made);
    let mut text = String::new();
    for arguments in [
        "--format=tar vm",
        "--format=disk --compress-output=zstd vm",
        "--format=disk --firmware-variables=custom --secure-boot-certificate= vm",
        "--format=disk --bind-user=yes vm",
        "--format=disk --linux=/nowhere/linux vm",
        "--format=disk --output=other --firmware=linux vm",
        "--format=directory --output=other --firmware=uefi vm",
        "--format=disk --architecture=arm64 --kvm=yes vm",
        "--format=disk --architecture=alpha vm",
        "--format=disk --architecture=s390x --tpm=yes vm",
        "--format=disk --architecture=arm64 --firmware=uefi-secure-boot vm",
    ] {
        let error = made.qemu(arguments, &host, (10, 0)).expect_err(arguments);
        let _ = writeln!(text, "mkosi {arguments}\n  error: {}\n", error.replace('\n', "\n  "));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn nspawn() {
    let made = Made::new();
    let mut text = String::new();
    for (arguments, systemd, version) in [
        ("--format=directory shell", true, 257),
        ("--format=directory boot", true, 257),
        ("--format=disk shell -- ls /", true, 257),
        ("--format=disk --register=no shell", false, 252),
        ("--format=disk --register=yes boot", false, 252),
        ("--format=directory --runtime-network=interface boot -- systemd.unit=rescue.target", true, 257),
        ("--format=directory --runtime-network=none --settings=$D/settings.nspawn shell", true, 257),
        ("--format=directory --runtime-tree=$D/source:a:b --runtime-build-sources=yes shell", true, 257),
        ("--format=directory --foreign-uid-range=yes --runtime-tree=$D/source:a --runtime-tree=$D:b shell", true, 257),
        ("--format=directory --foreign-uid-range=yes shell", true, 258),
        ("--format=directory --forward-journal=$D/j.journal --bind-user=yes boot", true, 257),
        ("--format=directory --forward-journal=$D/j boot", true, 261),
        ("--format=directory --unit-property=MemoryMax=2G --unit-property=CPUWeight=20 boot", true, 257),
        ("--format=directory --kernel-command-line-extra=quiet --kernel-command-line-extra=A-b=c boot", true, 257),
    ] {
        let _ = writeln!(text, "mkosi {arguments}    # systemd {version}");
        for line in made.nspawn(arguments, systemd, version) {
            let _ = writeln!(text, "  {line}");
        }
        text.push('\n');
    }
    insta::assert_snapshot!(text);
}

#[test]
fn vmspawn() {
    let made = Made::new();
    let mut text = String::new();
    for arguments in [
        "--format=disk --vmm=vmspawn vm",
        "--format=disk --vmm=vmspawn --firmware=uefi --ephemeral=yes --disk-type=nvme --runtime-size=8G vm",
        "--format=directory --vmm=vmspawn --runtime-network=interface --console=gui --kvm=no vm -- --pass-ssh-key=no",
        "--format=disk --vmm=vmspawn --firmware=linux --maxmem=4G --vsock-cid=7 --register=yes --console=headless vm",
        "--format=uki --vmm=vmspawn --runtime-tree=$D/source --bind-user=yes --forward-journal=$D/j vm",
    ] {
        let _ = writeln!(text, "mkosi {arguments}");
        for line in made.vmspawn(arguments) {
            let _ = writeln!(text, "  {line}");
        }
        text.push('\n');
    }
    insta::assert_snapshot!(text);
}
