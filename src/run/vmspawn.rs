//! `mkosi vm` with `VirtualMachineMonitor=vmspawn`: systemd-vmspawn makes the machine.

use std::path::{Path, PathBuf};

use super::cmdline;
use super::credentials;
use super::drives::{self, Access};
use super::error::{Result, RunError};
use super::journal;
use super::kernel::{self, Kind};
use super::network;
use super::plan::Plan;
use super::process::{self, Unwatched};
use super::settings::{DiskType, Firmware, Settings, VsockCid};
use super::snapshot::Snapshot;
use super::terminal::Terminal;
use super::tools::Tools;
use super::variables;
use super::vsock;

/// Older ones lack half of what is asked of it here, as the choice of firmware by its features.
const OLDEST: u32 = 261;

/// What was made for the machine.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The program.
    pub program: PathBuf,
    /// How many processors `CPUs=0` means.
    pub processors: u32,
    /// The image.
    pub image: PathBuf,
    /// The file with the firmware's variables.
    pub variables: Option<PathBuf>,
    /// Files with credentials, by name.
    pub credentials: Vec<(String, PathBuf)>,
    /// The initrd.
    pub initrd: Option<PathBuf>,
    /// The user whose home is bound.
    pub user: Option<String>,
    /// The user's terminal.
    pub terminal: Terminal,
    /// The connection id that is wished.
    pub cid: Option<u32>,
}

/// The command line, the program first. `extra` are further options of systemd-vmspawn, and options for the kernel.
pub fn command_line(settings: &Settings, plan: &Plan, parts: &Parts, extra: &[String]) -> Vec<String> {
    let mut line = vec![
        parts.program.to_string_lossy().into_owned(),
        format!("--cpus={}", if settings.cpus == 0 { parts.processors } else { settings.cpus }),
        match settings.max_mem {
            Some(most) => format!("--ram={}:{most}", settings.ram),
            None => format!("--ram={}", settings.ram),
        },
        format!("--kvm={}", settings.kvm.tristate()),
        format!("--vsock={}", settings.vsock.tristate()),
        format!("--tpm={}", settings.tpm.tristate()),
        // What the machine writes to either goes with it, and the next one starts as this one did.
        "--tpm-state=off".to_owned(),
        "--efi-nvram-state=off".to_owned(),
        format!("--console={}", settings.console.name()),
        format!("--register={}", settings.register.tristate()),
        format!("--machine={}", settings.machine_name()),
    ];
    line.extend(parts.cid.map(|cid| format!("--vsock-cid={cid}")));
    let features = features(plan.firmware, settings.enrolled());
    if !features.is_empty() {
        line.push(format!("--firmware-features={}", features.join(",")));
    }
    line.extend(settings.size.filter(|_| settings.format == "disk").map(|size| format!("--grow-image={size}")));
    if let Some(user) = &parts.user {
        line.extend([format!("--bind-user={user}"), "--bind-user-group=wheel".to_owned()]);
    }
    line.extend(network::vmspawn(settings));
    line.extend(parts.variables.as_ref().map(|path| format!("--efi-nvram-template={}", path.display())));
    line.extend(parts.credentials.iter().map(|(name, path)| format!("--load-credential={name}:{}", path.display())));
    if settings.ephemeral {
        line.push("--ephemeral".to_owned());
    }
    let bind = |source: &Path, target: &Path| format!("--bind={}:{}", source.display(), target.display());
    line.extend(settings.all_trees().map(|tree| bind(&tree.source, &tree.target)));
    if let Some((kernel, _)) = &plan.kernel {
        line.push(format!("--linux={}", kernel.display()));
        if plan.firmware.is_linux() {
            // A kernel with a UEFI stub would get UEFI firmware.
            line.push("--firmware=none".to_owned());
        }
        line.extend(parts.initrd.as_ref().map(|path| format!("--initrd={}", path.display())));
    }
    match settings.format.as_str() {
        "directory" => line.push(format!("--directory={}", parts.image.display())),
        "uki" => {}
        _ => line.push(format!("--image={}", parts.image.display())),
    }
    let disk = match settings.disk_type {
        DiskType::VirtioBlk => None,
        DiskType::VirtioScsi => Some("virtio-scsi"),
        DiskType::Nvme => Some("nvme"),
        DiskType::ScsiCd => Some("scsi-cd"),
    };
    line.extend(disk.map(|disk| format!("--image-disk-type={disk}")));
    line.extend(settings.forward_journal.iter().flat_map(|target| journal::options(target)));
    line.extend(extra.iter().cloned());
    line.extend(settings.command_line.iter().cloned());
    line.extend(cmdline::machine(settings, &parts.terminal));
    line
}

/// What the firmware must have or, after a `~`, must not (systemd-vmspawn(1)).
fn features(firmware: Firmware, enrolled: bool) -> Vec<&'static str> {
    let secure_boot = match firmware {
        Firmware::UefiSecureBoot => Some("secure-boot"),
        Firmware::Uefi => Some("~secure-boot"),
        _ => None,
    };
    secure_boot.into_iter().chain(enrolled.then_some("enrolled-keys")).collect()
}

/// Boots the image; gives the status to end with.
///
/// # Errors
/// When the machine can't be made.
pub fn run(settings: &Settings, tools: &Tools, plan: &Plan, image: &Path, extra: &[String]) -> Result<u8> {
    if !matches!(settings.format.as_str(), "disk" | "esp" | "directory" | "uki") {
        return Err(RunError::unfit(
            format!("systemd-vmspawn can't boot an image of Format={}", settings.format),
            "use --vmm=qemu",
        ));
    }
    let program = tools.need(
        &["systemd-vmspawn"],
        "boot the image with --vmm=vmspawn",
        &format!("install it (package systemd-container {OLDEST} or later), or use --vmm=qemu"),
    )?;
    let version = process::systemd_version(&program, tools)?;
    if version < OLDEST {
        return Err(RunError::unfit(
            format!("systemd-vmspawn has version {version}, and --vmm=vmspawn needs {OLDEST} or later"),
            "use --vmm=qemu, or a tools tree of a distribution that has it (ToolsTreeRelease=)",
        ));
    }
    let place = tempfile::Builder::new().prefix("mkosi-vm-").tempdir();
    let place = place.map_err(RunError::io("make a directory in", std::env::temp_dir()))?;
    let variables = match &plan.uefi {
        Some(uefi) => Some(variables::make(settings, uefi, place.path(), tools)?.0),
        None => None,
    };
    let mut files = Vec::new();
    for (name, value) in credentials::collect(settings, tools)? {
        let path = place.path().join(format!("credential-{}", name.replace('/', "-")));
        std::fs::write(&path, value).map_err(RunError::io("write", &path))?;
        files.push((name, path));
    }
    // It copies an image that is to stay as it is itself.
    let kept = Settings { ephemeral: false, ..settings.clone() };
    let _lock = if settings.ephemeral { None } else { Some(Snapshot::take(&kept, image)?) };
    // A unified kernel image has its initrds in it.
    let initrd = match &plan.kernel {
        Some((_, kind)) if *kind != Kind::Uki && plan.firmware != Firmware::LinuxNoInitrd => {
            kernel::initrd(settings, place.path())?
        }
        _ => None,
    };
    let drives = drives::make(settings)?;
    let mut qemu = settings.qemu_args.clone();
    qemu.extend(drives::further(&settings.drives, |file_id| {
        let found = drives.iter().find(|drive| drive.file_id == file_id)?;
        Some((found.path.clone(), Access::of(&found.path)))
    }));
    let parts = Parts {
        program: program.clone(),
        processors: std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
        image: image.to_owned(),
        variables,
        credentials: files,
        initrd,
        user: settings
            .bind_user
            .then(|| nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten())
            .flatten()
            .map(|user| user.name),
        terminal: Terminal::current(),
        cid: match settings.vsock_cid {
            _ if !settings.vsock.wanted() => None,
            VsockCid::Auto => None,
            VsockCid::Hash => Some(vsock::hashed(image, 0)),
            VsockCid::Number(cid) => Some(cid),
        },
    };
    let line = command_line(settings, plan, &parts, extra);
    let mut command = tools.command(&program);
    command.args(line.iter().skip(1));
    if !qemu.is_empty() {
        let words: Vec<String> = qemu.iter().map(|word| shell_quoted(word)).collect();
        command.env("SYSTEMD_VMSPAWN_QEMU_EXTRA", words.join(" "));
    }
    let ended = process::run_machine(&mut command, &mut Unwatched, |_| Ok(()))?;
    if !ended.status.success() && !Path::new("/run/systemd/system").is_dir() {
        crate::tell!("note: systemd-vmspawn needs a host that systemd runs on; --vmm=qemu does not");
    }
    Ok(process::status_of(ended.status))
}

/// A word that a shell reads as one.
fn shell_quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%+=:,./-_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_microsoft_are_asked_for() {
        assert_eq!(features(Firmware::UefiSecureBoot, true), ["secure-boot", "enrolled-keys"]);
        assert_eq!(features(Firmware::Uefi, true), ["~secure-boot", "enrolled-keys"]);
        assert_eq!(features(Firmware::UefiSecureBoot, false), ["secure-boot"]);
        assert_eq!(features(Firmware::Linux, true), ["enrolled-keys"]);
        assert!(features(Firmware::Linux, false).is_empty());
    }
}
