//! `[Runtime]`: how an image is run. Nothing here but the file that lies beside it can change an output.

use super::super::defaults;
use super::choices::{CONSOLE, DISK, FIRMWARE, MONITOR, NETWORK};
use super::{Default, Item, Kind, PathRule, Scope, Setting, Split};

const SECTION: &str = "Runtime";

const fn setting(name: &'static str, options: &'static [&'static str], kind: Kind, help: &'static str) -> Setting {
    Setting::new(name, SECTION, options, kind).scope(Scope::Main).no_output().help(help)
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("NSpawnSettings", SECTION, &["--settings"], Kind::Path(PathRule::EXISTS))
        .scope(Scope::Main)
        .help("A .nspawn file to put beside the image")
        .meta("PATH")
        .at(&["nspawn"]),
    setting("Ephemeral", &["--ephemeral"], Kind::Bool, "Run a copy of the image that is removed afterwards"),
    setting("Credentials", &["--credential"], Kind::Credentials, "Credentials for the container or virtual machine")
        .meta("NAME=VALUE")
        .at(&["credentials"]),
    setting(
        "KernelCommandLineExtra",
        &["--kernel-command-line-extra"],
        Kind::SPACED,
        "Further options for the kernel when the image is run",
    )
    .meta("OPTIONS"),
    setting(
        "RuntimeTrees",
        &["--runtime-tree"],
        Kind::List {
            item: Item::Tree { required: false, absolute: false, directory: false, bare: false },
            split: Split::Words,
        },
        "Directories to mount in the running image",
    )
    .meta("SOURCE[:TARGET]"),
    setting("RuntimeSize", &["--runtime-size"], Kind::Bytes, "Grow the disk image to this size before it is run")
        .meta("SIZE"),
    setting("RuntimeNetwork", &["--runtime-network"], Kind::Enum(&NETWORK), "The network of the running image")
        .meta("KIND")
        .default(Default::Text("user")),
    setting(
        "RuntimeBuildSources",
        &["--runtime-build-sources"],
        Kind::Bool,
        "Mount the sources and the build directory in the running image",
    ),
    setting("BindUser", &["--bind-user"], Kind::Bool, "Give the running image the account of the user"),
    setting(
        "UnitProperties",
        &["--unit-property"],
        Kind::List { item: Item::Text, split: Split::Quoted },
        "Properties of the unit that systemd-nspawn makes for a container",
    )
    .meta("PROPERTY"),
    setting("SshKey", &["--ssh-key"], Kind::Path(PathRule::SECRET), "The private key of `mkosi ssh`")
        .meta("PATH")
        .at(&["key"]),
    setting("SshCertificate", &["--ssh-certificate"], Kind::Path(PathRule::EXISTS), "The certificate of `mkosi ssh`")
        .meta("PATH")
        .at(&["crt"]),
    setting(
        "VirtualMachineMonitor",
        &["--vmm"],
        Kind::Enum(&MONITOR),
        "The program that `mkosi vm` runs the image with",
    )
    .meta("NAME")
    .default(Default::Text("qemu")),
    setting("Machine", &["--machine"], Kind::Text, "The name of the running machine")
        .meta("NAME")
        .default(Default::From(defaults::machine))
        .nullable(),
    setting("ForwardJournal", &["--forward-journal"], Kind::Path(PathRule::ANY), "Where the machine's journal is kept")
        .meta("PATH"),
    setting(
        "SysupdateDirectory",
        &["--sysupdate-directory"],
        Kind::Path(PathRule::EXISTS),
        "The directory with transfer definitions of systemd-sysupdate",
    )
    .meta("PATH")
    .at(&["sysupdate"])
    .once(&[], &["--sysupdate-dir"]),
    setting("Console", &["--console"], Kind::Enum(&CONSOLE), "How the console of the virtual machine is shown")
        .meta("MODE")
        .default(Default::Text("native")),
    setting("CPUs", &["--cpus"], Kind::Number { min: 0 }, "How many processors the virtual machine has; 0 for all")
        .meta("COUNT")
        .default(Default::Number(1))
        .once(&["QemuSmp"], &["--qemu-smp"]),
    setting("RAM", &["--ram"], Kind::Bytes, "How much memory the virtual machine has")
        .meta("BYTES")
        .default(Default::Number(2 << 30))
        .once(&["QemuMem"], &["--qemu-mem"]),
    setting("MaxMem", &["--maxmem"], Kind::Bytes, "How much memory the virtual machine can be given later")
        .meta("BYTES"),
    setting("KVM", &["--kvm"], Kind::Feature, "Use the processor's virtualization").once(&["QemuKvm"], &["--qemu-kvm"]),
    setting("CXL", &["--cxl"], Kind::Bool, "Give the virtual machine CXL devices"),
    setting("VSock", &["--vsock"], Kind::Feature, "Give the virtual machine a VSock device")
        .once(&["QemuVsock"], &["--qemu-vsock"]),
    setting("VSockCID", &["--vsock-cid"], Kind::VsockCid, "The VSock connection ID: a number, `auto` or `hash`")
        .meta("NUMBER")
        .default(Default::Number(-1))
        .once(&["QemuVsockConnectionId"], &["--qemu-vsock-cid"]),
    setting("TPM", &["--tpm"], Kind::Feature, "Give the virtual machine a TPM").once(&["QemuSwtpm"], &["--qemu-swtpm"]),
    setting("Removable", &["--removable"], Kind::Bool, "Attach the image as a removable drive")
        .once(&["QemuRemovable"], &["--qemu-removable"]),
    setting("DiskType", &["--disk-type"], Kind::Enum(&DISK), "The kind of drive that the image is attached as")
        .meta("KIND")
        .default(Default::Text("virtio-blk")),
    setting("Firmware", &["--firmware"], Kind::Enum(&FIRMWARE), "The firmware of the virtual machine")
        .meta("KIND")
        .default(Default::Text("auto"))
        .once(&["QemuFirmware"], &["--qemu-firmware"]),
    setting(
        "FirmwareVariables",
        &["--firmware-variables"],
        Kind::Path(PathRule { constants: &["custom", "microsoft", "microsoft-mok"], ..PathRule::ANY }),
        "The file with the firmware's variables",
    )
    .meta("PATH")
    .once(&["QemuFirmwareVariables"], &["--qemu-firmware-variables"]),
    setting("Linux", &["--linux"], Kind::Text, "The kernel to boot directly")
        .meta("PATH")
        .once(&["QemuKernel"], &["--qemu-kernel"]),
    setting(
        "Drives",
        &["--drive"],
        Kind::List { item: Item::Drive, split: Split::Spaces },
        "Further drives of the virtual machine",
    )
    .meta("ID:SIZE[:DIR[:OPTIONS[:FILEID[:FLAGS]]]]")
    .once(&["QemuDrives"], &["--qemu-drive"]),
    setting(
        "QemuArgs",
        &["--qemu-args"],
        Kind::List { item: Item::Text, split: Split::Quoted },
        "Further arguments for the virtual machine monitor",
    )
    .meta("ARGUMENTS"),
    setting("Register", &["--register"], Kind::Feature, "Register the running machine with systemd-machined"),
    setting(
        "StorageTargetMode",
        &["--storage-target-mode"],
        Kind::Feature,
        "Offer the image over the network when it is served",
    ),
];
