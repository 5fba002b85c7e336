//! Decides how a virtual machine boots: firmware, kernel, acceleration, and what it has.
//!
//! A function of the settings and of what the host has. Knows nothing of arguments and processes.

use std::path::PathBuf;

use super::error::{Result, RunError};
use super::firmware::{self, Uefi, Wanted};
use super::kernel::{self, Kind};
use super::machine;
use super::settings::{Console, DiskType, Feature, Firmware, Network, Settings, VsockCid};
use super::swtpm;
use crate::types::Architecture;

/// What the host has.
#[derive(Clone, Debug)]
pub struct Host {
    /// Its architecture.
    pub architecture: Architecture,
    /// Whether this program is root.
    pub root: bool,
    /// Why `/dev/kvm` can't be used; none if it can.
    pub no_kvm: Option<String>,
    /// Why `/dev/vhost-vsock` can't be used; none if it can.
    pub no_vsock: Option<String>,
    /// Whether swtpm is there.
    pub swtpm: bool,
    /// Whether systemd-pty-forward is there.
    pub pty_forward: bool,
    /// The files that describe firmware, later ones overriding those of the same name.
    pub firmware: Vec<PathBuf>,
}

/// How a virtual machine boots.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The firmware.
    pub firmware: Firmware,
    /// What is known of it, where it is UEFI.
    pub uefi: Option<Uefi>,
    /// The kernel that QEMU loads, and what it is.
    pub kernel: Option<(PathBuf, Kind)>,
    /// The processor's virtualization is used.
    pub kvm: bool,
    /// It has a VSock device.
    pub vsock: bool,
    /// It has a TPM.
    pub tpm: bool,
    /// What the user should know.
    pub notes: Vec<String>,
}

/// Decides. `extra` are the arguments that the user adds for QEMU.
///
/// # Errors
/// When settings don't go together, or what they ask for isn't there.
pub fn plan(settings: &Settings, host: &Host, extra: &[String]) -> Result<Plan> {
    check(settings, host)?;
    let mut notes = Vec::new();
    let kvm = accelerate(settings, host, &mut notes)?;
    let vsock = match (&host.no_vsock, settings.vsock) {
        (_, Feature::Disabled) => false,
        (Some(why), Feature::Enabled) => {
            return Err(RunError::unfit(
                format!("the virtual machine can't have a VSock device: {why}"),
                "load the kernel module vhost_vsock, or use --vsock=auto",
            ));
        }
        (why, _) => why.is_none(),
    };
    let after = |name: &str| extra.iter().position(|word| word == name).and_then(|at| extra.get(at + 1));
    let mut given = settings.linux.clone().or_else(|| after("-kernel").map(PathBuf::from));
    if let ("uki" | "esp", Some(path)) = (settings.format.as_str(), &given) {
        notes.push(format!("the image has a kernel of its own: {} is not used", path.display()));
        given = None;
    }
    let given = match given {
        Some(path) if path.exists() => Some((kernel::identify(&path)?, path)),
        Some(path) => {
            return Err(RunError::unfit(
                format!("there is no kernel {}", path.display()),
                "give the path of a kernel to --linux=",
            ));
        }
        None => None,
    };
    let (firmware, uefi) = choose(settings, host, given.as_ref().map(|(kind, _)| *kind))?;
    let direct = firmware.is_linux() || matches!(settings.format.as_str(), "cpio" | "directory" | "uki");
    let kernel = match given {
        Some((kind, path)) => Some((path, kind)),
        None if direct => Some(built_kernel(settings, firmware)?),
        None => None,
    };
    let tpm = match settings.tpm {
        Feature::Auto => firmware.is_uefi() && host.swtpm && swtpm::device(settings.architecture).is_some(),
        wanted => wanted.required(),
    };
    without_effect(settings, host, firmware, kernel.is_some(), &mut notes);
    Ok(Plan { firmware, uefi, kernel, kvm, vsock, tpm, notes })
}

/// What can be said without looking at files.
fn check(settings: &Settings, host: &Host) -> Result<()> {
    machine::machine(settings.architecture)?;
    let format = settings.format.as_str();
    if !matches!(format, "disk" | "cpio" | "uki" | "esp" | "directory") {
        return Err(RunError::unfit(
            format!("an image of Format={format} can't be booted in a virtual machine"),
            "formats that can: disk, directory, cpio, uki, esp",
        ));
    }
    if format != "cpio" && settings.names.compression() != crate::output::Compression::None {
        return Err(RunError::unfit(
            "a compressed image can't be booted in a virtual machine",
            "build it with CompressOutput=no",
        ));
    }
    if matches!(settings.firmware_variables.as_deref(), Some("custom" | "microsoft-mok"))
        && settings.certificate.is_none()
    {
        return Err(RunError::unfit(
            "FirmwareVariables= is to hold the certificate for secure boot, and there is none",
            "set SecureBootCertificate=, or make keys with `mkosi genkey`",
        ));
    }
    if settings.bind_user && !settings.vmspawn {
        return Err(RunError::unfit(
            "BindUser= works in containers and with --vmm=vmspawn, not with QEMU",
            "leave it out, or use --vmm=vmspawn",
        ));
    }
    if settings.tpm.required() && swtpm::device(settings.architecture).is_none() {
        return Err(RunError::unfit(
            format!("a virtual machine for {} can't have a TPM here", settings.architecture),
            "use --tpm=auto",
        ));
    }
    if settings.network == Network::Interface && !host.root {
        return Err(RunError::unfit(
            "only root can make the network interface for RuntimeNetwork=interface",
            "run as root, or use --runtime-network=user",
        ));
    }
    if matches!(settings.console, Console::Interactive | Console::ReadOnly) && !host.pty_forward && !settings.vmspawn {
        return Err(RunError::Missing {
            program: "systemd-pty-forward".to_owned(),
            purpose: format!("show the console with --console={}", settings.console.name()),
            hint: "install systemd 258 or later, or use --console=native, which needs nothing".to_owned(),
        });
    }
    Ok(())
}

/// Tells of settings that say something which such a machine, or what makes it, has no place for.
fn without_effect(settings: &Settings, host: &Host, firmware: Firmware, kernel: bool, notes: &mut Vec<String>) {
    let architecture = settings.architecture;
    let drive = matches!(settings.format.as_str(), "disk" | "esp");
    let no_vsock = match (settings.vsock, &host.no_vsock) {
        (Feature::Disabled, _) => Some("VSock=no"),
        (Feature::Auto, Some(why)) => Some(why.as_str()),
        _ => None,
    };
    let mut tell = |settings: &str, why: String| notes.push(format!("{settings} has no effect: {why}"));
    if let Some(why) = no_vsock {
        for (name, set) in [("VSockCID=", settings.vsock_cid != VsockCid::Auto), ("Ssh=", settings.ssh_needed)] {
            if set {
                tell(name, format!("the machine has no VSock device: {why}"));
            }
        }
    }
    if settings.cxl && settings.vmspawn {
        tell("CXL=", "systemd-vmspawn knows nothing of it".to_owned());
    } else if settings.cxl && !machine::has_cxl(architecture) {
        tell("CXL=", format!("a machine for {architecture} has none"));
    }
    if settings.size.is_some() && settings.format != "disk" {
        tell("RuntimeSize=", format!("an image of Format={} has no size of its own", settings.format));
    }
    for (name, set) in [("Removable=", settings.removable), ("DiskType=", settings.disk_type != DiskType::VirtioBlk)] {
        if set && !drive {
            tell(name, format!("an image of Format={} is no drive", settings.format));
        }
    }
    if settings.removable && drive && settings.vmspawn {
        tell("Removable=", "systemd-vmspawn knows nothing of it".to_owned());
    }
    if settings.firmware_variables.is_some() && !firmware.is_uefi() {
        tell("FirmwareVariables=", "the machine has no UEFI firmware".to_owned());
    }
    if !kernel && !settings.command_line_extra.is_empty() && !machine::has_smbios(architecture, firmware.is_uefi()) {
        tell("KernelCommandLineExtra=", format!("nothing hands it to the kernel on {architecture} with firmware"));
    }
}

fn accelerate(settings: &Settings, host: &Host, notes: &mut Vec<String>) -> Result<bool> {
    let fits = machine::can_kvm(settings.architecture, host.architecture);
    match (settings.kvm, fits, &host.no_kvm) {
        (Feature::Disabled, ..) => Ok(false),
        (Feature::Enabled, false, _) => Err(RunError::unfit(
            format!("an image for {} can't use KVM on {}", settings.architecture, host.architecture),
            "use --kvm=no: it is emulated then",
        )),
        (Feature::Enabled, true, Some(why)) => Err(RunError::unfit(
            format!("KVM can't be used: {why}"),
            "get access to /dev/kvm (the group kvm), or use --kvm=no: the machine is emulated then, which is slow",
        )),
        (Feature::Auto, true, Some(why)) => {
            notes.push(format!("the machine is emulated, which is slow: {why}"));
            Ok(false)
        }
        (_, false, _) => Ok(false),
        (_, true, None) => Ok(true),
    }
}

/// The firmware that is wished, or the first that fits where that is left to mkosi.
fn choose(settings: &Settings, host: &Host, kernel: Option<Kind>) -> Result<(Firmware, Option<Uefi>)> {
    let architecture = settings.architecture;
    let candidates: &[Firmware] = match (settings.firmware, kernel) {
        (Firmware::Auto, Some(Kind::Unknown)) => &[Firmware::Linux],
        (Firmware::Auto, _) if !machine::has_uefi(architecture) => &[Firmware::Linux],
        // QEMU loads kernels as well, where no firmware is there to do it.
        (Firmware::Auto, Some(_)) => &[Firmware::UefiSecureBoot, Firmware::Uefi, Firmware::Linux],
        (Firmware::Auto, None) if matches!(settings.format.as_str(), "cpio" | "directory") => &[Firmware::Linux],
        (Firmware::Auto, None) if machine::is_x86(architecture) || (machine::is_arm(architecture) && settings.apt) => {
            &[Firmware::UefiSecureBoot, Firmware::Uefi]
        }
        (Firmware::Auto, None) => &[Firmware::Uefi],
        (Firmware::Linux, _) => &[Firmware::Linux],
        (Firmware::LinuxNoInitrd, _) => &[Firmware::LinuxNoInitrd],
        (Firmware::Uefi, _) => &[Firmware::Uefi],
        (Firmware::UefiSecureBoot, _) => &[Firmware::UefiSecureBoot],
    };
    let mut first = None;
    for firmware in candidates {
        if !firmware.is_uefi() {
            return Ok((*firmware, None));
        }
        let wanted = Wanted {
            architecture: machine::qemu(architecture),
            machine: machine::machine(architecture)?,
            secure_boot: *firmware == Firmware::UefiSecureBoot,
            enrolled: settings.enrolled(),
        };
        match firmware::find(&host.firmware, wanted) {
            Ok(uefi) => return Ok((*firmware, Some(uefi))),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| RunError::Other("there is no firmware to choose from".to_owned())))
}

/// The kernel among the outputs.
fn built_kernel(settings: &Settings, firmware: Firmware) -> Result<(PathBuf, Kind)> {
    let path = match (firmware.is_uefi(), settings.format.as_str()) {
        (true, "uki") => settings.output(),
        (true, _) => settings.beside("efi"),
        (false, _) => settings.beside("vmlinuz"),
    };
    if path.exists() {
        let kind = kernel::identify(&path)?;
        return Ok((path, kind));
    }
    let artifact = if firmware.is_uefi() { "uki" } else { "kernel" };
    Err(RunError::unfit(
        format!("there is no kernel to boot: {} is not among the outputs", path.display()),
        format!("install a kernel in the image and build it with SplitArtifacts={artifact}, or give one to --linux="),
    ))
}
