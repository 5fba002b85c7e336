//! What single settings for running can say.

use std::path::PathBuf;

/// A setting that can be left to mkosi.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Feature {
    /// Where it works.
    Auto,
    /// Or it is an error.
    Enabled,
    /// Never.
    Disabled,
}

impl Feature {
    /// Whether it is to be had without fail.
    pub fn required(self) -> bool {
        self == Self::Enabled
    }

    /// Whether it is to be had where it works.
    pub fn wanted(self) -> bool {
        self != Self::Disabled
    }

    /// As systemd's tools take it.
    pub fn tristate(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Enabled => "yes",
            Self::Disabled => "no",
        }
    }
}

/// `Firmware=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// What fits the image.
    Auto,
    /// QEMU loads the kernel.
    Linux,
    /// QEMU loads the kernel and no initrd.
    LinuxNoInitrd,
    /// UEFI without secure boot.
    Uefi,
    /// UEFI with secure boot.
    UefiSecureBoot,
}

impl Firmware {
    /// Whether it is UEFI.
    pub fn is_uefi(self) -> bool {
        matches!(self, Self::Uefi | Self::UefiSecureBoot)
    }

    /// Whether QEMU loads the kernel itself.
    pub fn is_linux(self) -> bool {
        matches!(self, Self::Linux | Self::LinuxNoInitrd)
    }
}

/// `Console=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// A terminal, through systemd-pty-forward.
    Interactive,
    /// The same, and nothing can be typed.
    ReadOnly,
    /// QEMU's own terminal, with its monitor.
    Native,
    /// A window.
    Gui,
    /// None.
    Headless,
}

impl Console {
    /// The name in configuration files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Interactive => "interactive",
            Self::ReadOnly => "read-only",
            Self::Native => "native",
            Self::Gui => "gui",
            Self::Headless => "headless",
        }
    }
}

/// `RuntimeNetwork=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// Translated by the virtual machine monitor; a container has the host's.
    User,
    /// An interface on the host.
    Interface,
    /// None.
    None,
}

/// `DiskType=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskType {
    /// virtio-blk.
    VirtioBlk,
    /// A SCSI disk.
    VirtioScsi,
    /// NVMe.
    Nvme,
    /// A SCSI CD-ROM.
    ScsiCd,
}

/// `VSockCID=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VsockCid {
    /// One that is free.
    Auto,
    /// One that follows from the image's path.
    Hash,
    /// This one.
    Number(u32),
}

/// A directory of the host and where it is to be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedTree {
    /// The directory.
    pub source: PathBuf,
    /// Where it is mounted, an absolute path.
    pub target: PathBuf,
}

/// A further drive of a virtual machine (`Drives=`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// Its id, which `drive=` of a QEMU device names.
    pub id: String,
    /// Bytes.
    pub size: u64,
    /// Where the file behind it lies.
    pub directory: PathBuf,
    /// Properties for `-blockdev`.
    pub options: Option<String>,
    /// Drives of the same file id share their file.
    pub file_id: String,
    /// Whether the file stays.
    pub persist: bool,
}

/// A credential that is to be given to the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// This value.
    Value(String, String),
    /// What is in the file, or what it prints where it can be executed.
    File(String, PathBuf),
}
