//! The command line of QEMU.
//!
//! A function of its arguments: it looks at nothing and starts nothing.

use std::path::{Path, PathBuf};

use super::cmdline;
use super::credentials::Handed;
use super::drives::{self, Access};
use super::firmware::Uefi;
use super::kernel::Kind;
use super::machine;
use super::network;
use super::plan::Plan;
use super::settings::{Console, Firmware, Settings};
use super::swtpm;
use super::terminal::{Look, Terminal};
use super::virtiofs;

/// QEMU takes `/dev/kvm` as a descriptor from this version on.
const TAKES_KVM: (u32, u32) = (9, 0);
/// The monitor is an object of its own from this version on, which the option `-mon` is to give way to.
const HAS_MONITOR_OBJECT: (u32, u32) = (11, 1);
/// The port of the device that ends the machine with a status.
const EXIT_PORT: u32 = 0xf4;

/// What was made for the machine, and where QEMU finds it.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The program.
    pub program: PathBuf,
    /// Its version.
    pub version: (u32, u32),
    /// systemd-pty-forward, where the console goes through it.
    pub pty_forward: Option<PathBuf>,
    /// What systemd-pty-forward changes of the terminal.
    pub look: Look,
    /// The user's terminal.
    pub terminal: Terminal,
    /// How many processors `CPUs=0` means.
    pub processors: u32,
    /// The descriptor of `/dev/kvm`.
    pub kvm: Option<i32>,
    /// The connection id and the descriptor of `/dev/vhost-vsock`.
    pub vsock: Option<(u32, i32)>,
    /// The file with the firmware's variables, and its format.
    pub variables: Option<(PathBuf, String)>,
    /// The image, where it is a drive, and how it may be reached; for `cpio` it is the initrd.
    pub image: PathBuf,
    /// How the image may be reached.
    pub access: Access,
    /// The initrd.
    pub initrd: Option<PathBuf>,
    /// What the kernel finds its root by.
    pub root: Vec<String>,
    /// Directories that are shared: the socket and the tag.
    pub shares: Vec<(PathBuf, String)>,
    /// The socket of the TPM.
    pub tpm: Option<PathBuf>,
    /// The credentials.
    pub credentials: Handed,
    /// The files behind further drives, by file id.
    pub drives: Vec<(String, PathBuf, Access)>,
    /// Where a copy of the console's output goes.
    pub console_copy: Option<PathBuf>,
}

/// A path within an option: a comma would end it.
pub fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

/// The command line, the program first. `extra` goes last.
pub fn command_line(settings: &Settings, plan: &Plan, parts: &Parts, extra: &[String]) -> Vec<String> {
    let mut line = Line::default();
    pty_forward(&mut line, settings, parts);
    line.add([parts.program.to_string_lossy().into_owned()]);
    basics(&mut line, settings, plan, parts);
    line.add(network::qemu(settings));
    acceleration(&mut line, parts);
    if let Some((cid, fd)) = parts.vsock {
        line.option("-device", format!("vhost-vsock-pci,guest-cid={cid},vhostfd={fd}"));
    } else if machine::is_x86(settings.architecture) {
        // Without the socket the system has no other way to end with a status.
        line.option("-device", format!("isa-debug-exit,iobase={EXIT_PORT:#x},iosize=0x4"));
    }
    console(&mut line, settings, parts);
    if let (Some(uefi), Some(variables)) = (&plan.uefi, &parts.variables) {
        firmware(&mut line, settings, plan.firmware, uefi, variables);
    }
    for (number, (socket, tag)) in parts.shares.iter().enumerate() {
        line.add(virtiofs::arguments(socket, tag, number));
    }
    kernel(&mut line, settings, plan, parts);
    if matches!(settings.format.as_str(), "disk" | "esp") {
        line.add(drives::image(settings, &parts.image, parts.access));
    }
    if let Some(socket) = &parts.tpm {
        line.add(swtpm::arguments(settings.architecture, socket));
    }
    line.add(parts.credentials.arguments.clone());
    line.add(drives::further(&settings.drives, |file_id| {
        let found = parts.drives.iter().find(|(id, ..)| id == file_id);
        found.map(|(_, path, access)| (path.clone(), *access))
    }));
    line.add(settings.qemu_args.clone());
    line.add(extra.to_vec());
    line.0
}

#[derive(Default)]
struct Line(Vec<String>);

impl Line {
    fn add(&mut self, words: impl IntoIterator<Item = String>) {
        self.0.extend(words);
    }

    fn option(&mut self, name: &str, value: impl Into<String>) {
        self.add([name.to_owned(), value.into()]);
    }
}

fn pty_forward(line: &mut Line, settings: &Settings, parts: &Parts) {
    let Some(program) = &parts.pty_forward else { return };
    line.add([program.to_string_lossy().into_owned()]);
    if parts.look.background {
        // Dark green, so that nobody takes it for the host.
        line.add(["--background=48;2;12;51;19".to_owned()]);
    }
    if parts.look.title {
        line.add([format!("--title=Virtual Machine {}", settings.machine)]);
    }
    if settings.console == Console::ReadOnly {
        line.add(["--read-only".to_owned()]);
    }
}

const MIB: u64 = 1 << 20;

fn basics(line: &mut Line, settings: &Settings, plan: &Plan, parts: &Parts) {
    let architecture = settings.architecture;
    let mut machine = format!("type={}", machine::machine(architecture).unwrap_or("none"));
    if plan.firmware.is_uefi() && machine::is_x86(architecture) {
        // Secure boot rests on it: without, the system could write to the variables itself.
        let smm = if plan.firmware == Firmware::UefiSecureBoot { "on" } else { "off" };
        machine.push_str(&format!(",smm={smm}"));
    }
    if !parts.shares.is_empty() {
        machine.push_str(",memory-backend=mem");
    }
    if settings.cxl && machine::has_cxl(architecture) {
        machine.push_str(",cxl=on");
    }
    if machine::is_x86(architecture) {
        machine.push_str(",hpet=off");
    }
    line.option("-machine", machine);
    line.option("-smp", if settings.cpus == 0 { parts.processors } else { settings.cpus }.to_string());
    let mut memory = format!("{}M", settings.ram / MIB);
    if let Some(most) = settings.max_mem {
        memory.push_str(&format!(",maxmem={}M", most / MIB));
    }
    line.option("-m", memory);
    line.option("-object", "rng-random,filename=/dev/urandom,id=rng0");
    line.option("-device", "virtio-rng-pci,rng=rng0,id=rng-device0");
    line.option("-device", "virtio-balloon,free-page-reporting=on");
    line.add(["-no-user-config".to_owned()]);
    if !parts.shares.is_empty() {
        // virtiofsd reads and writes the machine's memory.
        line.option("-object", format!("memory-backend-memfd,id=mem,size={}M,share=on", settings.ram / MIB));
    }
}

fn acceleration(line: &mut Line, parts: &Parts) {
    match parts.kvm {
        Some(fd) if parts.version >= TAKES_KVM => {
            line.option("-add-fd", format!("fd={fd},set=1,opaque=/dev/kvm"));
            line.option("-cpu", "host");
            line.option("-accel", "kvm,device=/dev/fdset/1");
        }
        Some(_) => {
            line.option("-cpu", "host");
            line.option("-accel", "kvm");
        }
        None => {
            line.option("-cpu", "max");
            line.option("-accel", "tcg");
        }
    }
}

fn console(line: &mut Line, settings: &Settings, parts: &Parts) {
    // Else QEMU would add a CD-ROM drive, which some firmware complains of.
    line.add(["-nodefaults".to_owned()]);
    if settings.console == Console::Gui {
        let display = if machine::is_arm(settings.architecture) { "virtio-gpu-pci" } else { "virtio-vga" };
        line.option("-device", display);
        line.option("-display", "sdl,gl=on");
        line.option("-audio", "driver=pipewire,model=virtio");
        return;
    }
    line.add(["-nographic".to_owned()]);
    if settings.console == Console::Headless {
        return;
    }
    let copy = parts.console_copy.as_ref().map(|path| format!(",logfile={}", escaped(path))).unwrap_or_default();
    line.option("-chardev", format!("stdio,mux=on,id=console,signal=off{copy}"));
    line.option("-device", "virtio-serial-pci,id=mkosi-virtio-serial-pci");
    line.option("-device", "virtconsole,chardev=console");
    if parts.version >= HAS_MONITOR_OBJECT {
        line.option("-object", "monitor-hmp,id=monitor,chardev=console");
    } else {
        line.option("-mon", "console");
    }
}

fn firmware(line: &mut Line, settings: &Settings, firmware: Firmware, uefi: &Uefi, variables: &(PathBuf, String)) {
    let code = &uefi.code;
    let file = escaped(&code.filename);
    line.option("-drive", format!("if=pflash,format={},readonly=on,file={file}", code.format));
    line.option("-drive", format!("file={},if=pflash,format={}", escaped(&variables.0), variables.1));
    if firmware == Firmware::UefiSecureBoot && machine::is_x86(settings.architecture) {
        line.option("-global", "ICH9-LPC.disable_s3=1");
        line.option("-global", "driver=cfi.pflash01,property=secure,value=on");
    }
}

fn kernel(line: &mut Line, settings: &Settings, plan: &Plan, parts: &Parts) {
    let smbios = machine::has_smbios(settings.architecture, plan.firmware.is_uefi());
    let kernel = plan.kernel.as_ref();
    if let Some((path, _)) = kernel {
        line.option("-kernel", path.to_string_lossy());
    }
    if let Some(initrd) = &parts.initrd {
        line.option("-initrd", initrd.to_string_lossy());
    }
    let mut options = parts.root.clone();
    options.extend(parts.credentials.options.iter().cloned());
    options.extend(cmdline::machine(settings, &parts.terminal));
    if kernel.is_some_and(|(_, kind)| *kind != Kind::Uki || !smbios) {
        let all: Vec<&str> = settings.command_line.iter().chain(&options).map(String::as_str).collect();
        line.option("-append", all.join(" "));
    } else if smbios {
        // For systemd's stub and boot loader, whichever starts the kernel.
        let text = options.join(" ").replace(',', ",,");
        for program in ["stub", "boot"] {
            line.option("-smbios", format!("type=11,value=io.systemd.{program}.kernel-cmdline-extra={text}"));
        }
    }
}

/// The status that the machine's system ended with, read from QEMU's own: the exit device gives `2n + 1`. Zero can't be
/// told from a failure of QEMU, so it means that the machine was switched off.
pub fn exit_device_status(status: i32) -> Option<u8> {
    (status > 1 && status % 2 == 1).then(|| u8::try_from(status / 2).ok()).flatten()
}

/// The version that `qemu --version` prints.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once("version ")?;
    let mut numbers = rest.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(version("QEMU emulator version 7.2.22 (Debian 1:7.2)\nCopyright"), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(version("something else"), None);
    }

    #[test]
    fn statuses() {
        assert_eq!([0, 1, 2, 3, 7, 255].map(exit_device_status), [None, None, None, Some(1), Some(3), Some(127)]);
    }

    #[test]
    fn a_comma_stays_in_its_path() {
        assert_eq!(escaped(Path::new("/a,b")), "/a,,b");
    }
}
