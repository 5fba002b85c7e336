//! The enumerations of the settings: their choices, other spellings, and what a boolean means.

/// An enumeration.
#[derive(Debug, PartialEq, Eq)]
pub struct Choices {
    /// The choices in their canonical spelling.
    pub names: &'static [&'static str],
    /// Other spellings, and the choice that each means.
    pub aliases: &'static [(&'static str, &'static str)],
    /// The choices that a true and a false boolean mean.
    pub boolean: Option<(&'static str, &'static str)>,
}

impl Choices {
    const fn new(names: &'static [&'static str]) -> Self {
        Self { names, aliases: &[], boolean: None }
    }

    const fn boolean(mut self, yes: &'static str, no: &'static str) -> Self {
        self.boolean = Some((yes, no));
        self
    }

    const fn aliases(mut self, aliases: &'static [(&'static str, &'static str)]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The canonical spelling of a choice.
    pub fn find(&self, text: &str) -> Option<&'static str> {
        self.names
            .iter()
            .copied()
            .find(|name| *name == text)
            .or_else(|| self.aliases.iter().find(|(alias, _)| *alias == text).map(|(_, name)| *name))
    }

    /// The choices as a list for people.
    pub fn accepted(&self) -> String {
        let mut accepted = self.names.join(", ");
        if self.boolean.is_some() && !self.names.contains(&"yes") {
            accepted.push_str(", or a boolean");
        }
        accepted
    }
}

/// The distributions that an image can be made of.
pub static DISTRIBUTION: Choices = Choices::new(&[
    "fedora",
    "debian",
    "kali",
    "ubuntu",
    "postmarketos",
    "arch",
    "opensuse",
    "mageia",
    "centos",
    "rhel",
    "rhel-ubi",
    "openmandriva",
    "rocky",
    "alma",
    "azure",
    "custom",
]);

pub(super) static ARCHITECTURE: Choices = Choices::new(&[
    "alpha",
    "arc",
    "arm",
    "arm64",
    "ia64",
    "loongarch64",
    "mips-le",
    "mips64-le",
    "parisc",
    "ppc",
    "ppc64",
    "ppc64-le",
    "riscv32",
    "riscv64",
    "s390",
    "s390x",
    "tilegx",
    "x86",
    "x86-64",
]);

pub(super) static FORMAT: Choices = Choices::new(&[
    "confext",
    "cpio",
    "directory",
    "disk",
    "esp",
    "none",
    "portable",
    "sysext",
    "tar",
    "uki",
    "oci",
    "addon",
]);

pub(super) static MANIFEST: Choices = Choices::new(&["json", "changelog"]);

pub(super) static COMPRESSION: Choices = Choices::new(&["none", "zstd", "xz", "bz2", "gz", "lz4", "lzma"])
    .aliases(&[("zst", "zstd"), ("gzip", "gz")])
    .boolean("zstd", "none");

pub(super) static ARTIFACTS: Choices = Choices::new(&[
    "uki",
    "kernel",
    "initrd",
    "partitions",
    "tar",
    "pcrs",
    "roothash",
    "os-release",
    "kernel-modules-initrd",
    "repart-definitions",
]);

pub(super) static BOOTLOADER: Choices =
    Choices::new(&["none", "uki", "systemd-boot", "grub", "uki-signed", "systemd-boot-signed", "grub-signed"]);

pub(super) static BIOS_BOOTLOADER: Choices = Choices::new(&["none", "grub"]);

pub(super) static SHIM: Choices = Choices::new(&["none", "signed", "unsigned"]);

pub(super) static UKI: Choices = Choices::new(&["none", "auto", "signed", "unsigned"]).boolean("signed", "none");

pub(super) static CACHE_ONLY: Choices =
    Choices::new(&["always", "auto", "metadata", "never"]).aliases(&[("none", "auto")]).boolean("always", "auto");

pub(super) static INCREMENTAL: Choices = Choices::new(&["yes", "no", "strict"]).boolean("yes", "no");

pub(super) static EPHEMERAL_SOURCES: Choices = Choices::new(&["yes", "no", "buildcache"]).boolean("yes", "no");

pub(super) static SSH: Choices = Choices::new(&["always", "auto", "runtime", "never"]).boolean("always", "never");

pub(super) static VERITY: Choices =
    Choices::new(&["disabled", "hash", "signed", "defer", "auto"]).boolean("signed", "disabled");

pub(super) static SIGN_TOOL: Choices = Choices::new(&["auto", "sbsign", "systemd-sbsign"]);

pub(super) static KEY_SOURCE: Choices = Choices::new(&["file", "engine", "provider"]);

pub(super) static CERTIFICATE_SOURCE: Choices = Choices::new(&["file", "provider"]);

pub(super) static NETWORK: Choices = Choices::new(&["interface", "user", "none"]);

pub(super) static MONITOR: Choices = Choices::new(&["qemu", "vmspawn"]);

pub(super) static CONSOLE: Choices = Choices::new(&["interactive", "read-only", "native", "gui", "headless"]);

pub(super) static DISK: Choices = Choices::new(&["virtio-blk", "virtio-scsi", "nvme", "scsi-cd"]);

pub(super) static FIRMWARE: Choices = Choices::new(&["auto", "linux", "linux-noinitrd", "uefi", "uefi-secure-boot"]);
