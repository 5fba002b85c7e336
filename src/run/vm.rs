//! `mkosi vm`: makes what a virtual machine needs, starts QEMU, and waits for its end.
//!
//! What is decided stands in `plan`, and the command line in `qemu`.

use std::fs::File;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::container::is_foreign;
use super::credentials::{self, Credentials, Ways};
use super::drives::{self, Access, Backing};
use super::error::{Result, RunError};
use super::firmware;
use super::journal;
use super::kernel::{self, Kind};
use super::machine;
use super::notify::{self, Listener};
use super::plan::{Host, Plan, plan};
use super::process::{self, Unwatched, Watch, finished};
use super::qemu::{self, Parts};
use super::register::register;
use super::settings::{Console, Feature, Firmware, Settings};
use super::snapshot::{self, Snapshot};
use super::state::{self, Entry, Running};
use super::swtpm::{self, Tpm};
use super::terminal::{Look, Terminal, hand_down, private};
use super::tools::Tools;
use super::variables;
use super::virtiofs::{self, How, Owners, Shared};
use super::vsock;
use super::watch::KvmWatch;
use crate::types::Architecture;

/// Boots the image in QEMU; gives the status to end with: the one that the system in the machine ended with, where it
/// tells.
///
/// # Errors
/// When the machine can't be made, or died at once.
pub fn run(settings: &Settings, tools: &Tools, extra: &[String]) -> Result<u8> {
    let image = settings.built()?;
    let (kvm, vsock) = (open_device("/dev/kvm"), open_device(vsock::DEVICE));
    let host = Host {
        architecture: Architecture::host(),
        root: rustix::process::geteuid().is_root(),
        no_kvm: kvm.as_ref().err().cloned(),
        no_vsock: vsock.as_ref().err().cloned(),
        swtpm: tools.find(&["swtpm"]).is_some() && tools.find(&["swtpm_setup"]).is_some(),
        pty_forward: tools.find(&["systemd-pty-forward"]).is_some(),
        firmware: firmware::descriptions(tools),
    };
    let plan = plan(settings, &host, extra)?;
    for note in &plan.notes {
        crate::tell!("note: {note}");
    }
    if settings.vmspawn {
        return super::vmspawn::run(settings, tools, &plan, &image, extra);
    }
    let program = program(settings, tools)?;
    let mut machine = Machine::make(settings, tools, &plan, &image, extra)?;
    let kvm = kvm.ok().filter(|_| plan.kvm);
    let vsock = match vsock.ok().filter(|_| plan.vsock) {
        Some(device) => Some((vsock::claim(&device, settings.vsock_cid, &image)?, device)),
        None => None,
    };
    let listener = machine.hear(settings, tools, vsock.is_some())?;
    let cid = vsock.as_ref().map(|(cid, _)| *cid);
    let _entry = enter(settings, cid)?;
    let mut watch = KvmWatch::new(listener.as_ref().map(Listener::reports));
    let copy = machine.directory.path().join("console");
    let copied = kvm.is_some() && !matches!(settings.console, Console::Gui | Console::Headless);
    if copied {
        watch.listen(&copy)?;
    }
    let ways = Ways {
        smbios: machine::has_smbios(settings.architecture, plan.firmware.is_uefi()),
        fw_cfg: machine::has_fw_cfg(settings.architecture),
        command_line: plan.kernel.is_some(),
    };
    let handed = credentials::hand(&machine.credentials, ways, machine.directory.path());
    for (path, contents) in &handed.files {
        std::fs::write(path, contents).map_err(RunError::io("write", path))?;
    }
    if !handed.lost.is_empty() {
        crate::tell!("note: these credentials can't be given to such a machine: {}", handed.lost.join(", "));
    }
    let parts = Parts {
        version: version(&program, tools)?,
        program,
        look: Look::of(|name| tools.variable(name).map(str::to_owned), |name| std::env::var(name).ok()),
        pty_forward: matches!(settings.console, Console::Interactive | Console::ReadOnly)
            .then(|| tools.find(&["systemd-pty-forward"]))
            .flatten(),
        terminal: Terminal::current(),
        processors: std::thread::available_parallelism().map_or(1, |count| u32::try_from(count.get()).unwrap_or(1)),
        kvm: kvm.as_ref().map(|file| file.as_raw_fd()),
        vsock: vsock.as_ref().map(|(cid, file)| (*cid, file.as_raw_fd())),
        variables: machine.variables.clone(),
        access: Access::of(&machine.snapshot.path),
        image: machine.snapshot.path.clone(),
        initrd: machine.initrd.clone(),
        root: machine.root.clone(),
        shares: machine.shares.iter().map(|share| (share.socket.clone(), share.tag.clone())).collect(),
        tpm: machine.tpm.as_ref().map(|tpm| tpm.socket.clone()),
        credentials: handed,
        drives: machine
            .drives
            .iter()
            .map(|drive| (drive.file_id.clone(), drive.path.clone(), Access::of(&drive.path)))
            .collect(),
        console_copy: copied.then_some(copy),
    };
    let line = qemu::command_line(settings, &plan, &parts, extra);
    let devices: Vec<File> = kvm.into_iter().chain(vsock.map(|(_, file)| file)).collect();
    let under_kvm = parts.kvm.is_some();
    let mut unwatched = Unwatched;
    let watched: &mut dyn Watch = if under_kvm { &mut watch } else { &mut unwatched };
    let mut command = command(&line, tools, &devices)?;
    let ended = process::run_machine(&mut command, watched, |pid| {
        // QEMU has its own now, and a machine's connection id is free again when all are closed.
        drop(devices);
        register(settings, pid, &machine.snapshot.path, cid, tools)
    })?;
    let reports = listener.map(Listener::finish);
    if let Some(status) = reports.as_ref().and_then(notify::Reports::exit_status) {
        return Ok(status);
    }
    let by_device = ended.status.code().and_then(qemu::exit_device_status).filter(|_| parts.vsock.is_none());
    if let Some(status) = by_device.filter(|_| machine::is_x86(settings.architecture)) {
        return Ok(status);
    }
    match watch.verdict(&ended).filter(|_| under_kvm) {
        Some(verdict) => Err(RunError::Other(verdict)),
        None => Ok(process::status_of(ended.status)),
    }
}

fn command(line: &[String], tools: &Tools, devices: &[File]) -> Result<Command> {
    let (program, arguments) = line.split_first().ok_or_else(|| RunError::Other("no command line".to_owned()))?;
    let mut command = tools.command(Path::new(program));
    command.args(arguments).stdin(private(0)).stdout(private(1));
    for device in devices {
        hand_down(device).map_err(RunError::io("hand down a device to", program))?;
    }
    Ok(command)
}

fn open_device(path: &str) -> std::result::Result<File, String> {
    File::options().read(true).write(true).open(path).map_err(|error| format!("can't open {path}: {error}"))
}

/// The program that emulates the image's architecture.
fn program(settings: &Settings, tools: &Tools) -> Result<PathBuf> {
    let name = format!("qemu-system-{}", machine::qemu(settings.architecture));
    let native = settings.architecture == Architecture::host();
    // Fedora's relatives have only the native one, in a place of its own.
    let names: &[&str] = if native { &[&name, "qemu-kvm"] } else { &[&name] };
    tools.need(names, "run virtual machines", &format!("install it (package {})", package(settings.architecture)))
}

fn package(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86 | Architecture::X86_64 => "qemu-system-x86",
        Architecture::Arm | Architecture::Arm64 => "qemu-system-arm",
        Architecture::S390x => "qemu-system-s390x",
        Architecture::Ppc | Architecture::Ppc64 | Architecture::Ppc64Le => "qemu-system-ppc",
        _ => "qemu-system-misc",
    }
}

fn version(program: &Path, tools: &Tools) -> Result<(u32, u32)> {
    let output = finished(tools.command(program).arg("--version"), "tell its version")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    qemu::version(&text)
        .ok_or_else(|| RunError::Other(format!("{} --version printed no version: {text}", program.display())))
}

/// Tells other verbs how to reach the machine.
fn enter(settings: &Settings, cid: Option<u32>) -> Result<Option<Entry>> {
    let Some(cid) = cid else { return Ok(None) };
    let running = Running {
        machine: settings.machine.clone(),
        pid: std::process::id(),
        proxy_command: super::ssh::proxy_command(&Tools::new(Vec::new()).executable(), cid),
        cid: Some(cid),
        ssh_key: settings.ssh_key.clone(),
    };
    Entry::new(&state::directory(), &running).map(Some)
}

/// What is made for a virtual machine, and goes with it. Helpers end before their files go.
struct Machine {
    shares: Vec<Shared>,
    tpm: Option<Tpm>,
    _journal: Option<journal::Taken>,
    drives: Vec<Backing>,
    credentials: Credentials,
    variables: Option<(PathBuf, String)>,
    root: Vec<String>,
    initrd: Option<PathBuf>,
    snapshot: Snapshot,
    directory: tempfile::TempDir,
}

impl Machine {
    fn make(settings: &Settings, tools: &Tools, plan: &Plan, image: &Path, extra: &[String]) -> Result<Self> {
        let directory = tempfile::Builder::new().prefix("mkosi-vm-").tempdir();
        let directory = directory.map_err(RunError::io("make a directory in", std::env::temp_dir()))?;
        let place = directory.path();
        let variables = match &plan.uefi {
            Some(uefi) => Some(variables::make(settings, uefi, place, tools)?),
            None => None,
        };
        let snapshot = Snapshot::take(settings, image)?;
        snapshot::grow(settings, &snapshot.path, tools)?;
        let mut credentials = credentials::collect(settings, tools)?;
        let mut shares = Vec::new();
        let root = root(settings, tools, plan, &snapshot.path, place, &mut shares)?;
        for tree in settings.all_trees() {
            let tag = virtiofs::tag(&tree.target)?;
            credentials::add_mount(&mut credentials, &tag, &tree.target);
            shares.push(virtiofs::start(place, shares.len(), &tree.source, tag, How::OF_USER, tools)?);
        }
        let separate = plan.kernel.as_ref().is_some_and(|(_, kind)| *kind != Kind::Uki);
        let initrd = match settings.format.as_str() {
            "cpio" => Some(snapshot.path.clone()),
            _ if !separate || plan.firmware == Firmware::LinuxNoInitrd => None,
            _ if extra.iter().any(|word| word == "-initrd") => None,
            _ => kernel::initrd(settings, place)?,
        };
        let tpm = if plan.tpm { Some(swtpm::start(place, tools)?) } else { None };
        let drives = drives::make(settings)?;
        Ok(Self { shares, tpm, _journal: None, drives, credentials, variables, root, initrd, snapshot, directory })
    }

    /// Listens to what the system in the machine reports.
    fn hear(&mut self, settings: &Settings, tools: &Tools, vsock: bool) -> Result<Option<Listener>> {
        if let (Some(target), true) = (&settings.forward_journal, vsock) {
            let (socket, address) = notify::vsock_listener()?;
            self._journal = Some(journal::start(target, socket, tools)?);
            self.credentials.insert(journal::CREDENTIAL.to_owned(), address.into_bytes());
        } else if settings.forward_journal.is_some() {
            crate::tell!("note: without a VSock device the machine can't send its journal (ForwardJournal=)");
        }
        if !vsock {
            return Ok(None);
        }
        let (socket, address): (OwnedFd, String) = match notify::vsock_listener() {
            Ok(made) => made,
            Err(error) if settings.vsock == Feature::Auto => {
                crate::tell!("note: the system in the machine can't report to mkosi: {error}");
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        self.credentials.insert(notify::CREDENTIAL.to_owned(), address.into_bytes());
        Ok(Some(Listener::start(socket)))
    }
}

/// How a directory image is to be seen in the machine whose root it is.
fn as_root(settings: &Settings, image: &Path) -> Result<How> {
    let foreign = is_foreign(image);
    if foreign && !rustix::process::geteuid().is_root() {
        return Err(RunError::unfit(
            "only root can boot a directory image of the foreign range of ids (ForeignUIDRange=) in a virtual machine",
            "run as root, build it with ForeignUIDRange=no, or make a disk image with Format=disk",
        ));
    }
    Ok(How {
        owners: if foreign { Owners::Foreign } else { Owners::Kept },
        labels: settings.relabel.required() && image.join("etc/selinux/config").exists(),
    })
}

/// What a directly booted kernel finds its root by.
fn root(
    settings: &Settings,
    tools: &Tools,
    plan: &Plan,
    image: &Path,
    place: &Path,
    shares: &mut Vec<Shared>,
) -> Result<Vec<String>> {
    let said = settings.command_line_extra.iter().any(|option| option.starts_with("root="));
    if plan.kernel.is_none() || said {
        return Ok(Vec::new());
    }
    Ok(match settings.format.as_str() {
        "disk" => kernel::root_of_disk(image, tools)?,
        "directory" => {
            shares.push(virtiofs::start(place, 0, image, "root".to_owned(), as_root(settings, image)?, tools)?);
            vec!["root=root".to_owned(), "rootfstype=virtiofs".to_owned()]
        }
        _ => Vec::new(),
    })
}
