//! A made-up project and host, of which command lines are made.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mkosi::cli::options::{Invocation, parse};
use mkosi::cli::verbs::Verb;
use mkosi::config::{HostFacts, Image, LoadInput, load};
use mkosi::run::Settings;
use mkosi::run::credentials::{Credentials, Ways, hand};
use mkosi::run::drives::Access;
use mkosi::run::environment::variables;
use mkosi::run::machine;
use mkosi::run::plan::{Host, Plan, plan};
use mkosi::run::qemu::{Parts, command_line};
use mkosi::run::settings::VsockCid;
use mkosi::run::terminal::{Look, Terminal};
use mkosi::run::{nspawn, vmspawn};
use mkosi::types::Architecture;

/// The options that every kernel gets.
pub const USUAL: &str = "systemd.wants=network.target SYSTEMD_SULOGIN_FORCE=1 rw module_blacklist=vmw_vmci \
     systemd.tty.columns.hvc0=80 systemd.tty.rows.hvc0=24 systemd.tty.term.hvc0=vt220 ip=enc0:any ip=enp0s1:any \
     ip=enp0s2:any ip=host0:any ip=none loglevel=4 systemd.tty.term.console=vt220 systemd.tty.columns.console=80 \
     systemd.tty.rows.console=24 console=hvc0 TERM=vt220";

/// The directory of the project, which stands as `$D` in what is shown.
pub struct Made(tempfile::TempDir);

/// A host on which everything works.
pub fn host(made: &Made) -> Host {
    Host {
        architecture: Architecture::X86_64,
        root: true,
        no_kvm: None,
        no_vsock: None,
        swtpm: true,
        pty_forward: true,
        firmware: {
            let entries = std::fs::read_dir(made.path().join("firmware")).unwrap();
            entries.flatten().map(|entry| entry.path()).collect()
        },
    }
}

impl Made {
    pub fn new() -> Self {
        let made = Self(tempfile::tempdir().unwrap());
        for (name, architecture, machine, features) in [
            ("50-secure", "x86_64", "pc-q35-*", vec!["secure-boot", "requires-smm"]),
            ("40-enrolled", "x86_64", "pc-q35-*", vec!["secure-boot", "requires-smm", "enrolled-keys"]),
            ("60-plain", "x86_64", "pc-q35-*", vec![]),
            ("60-arm", "aarch64", "virt-*", vec![]),
        ] {
            let file = |kind| serde_json::json!({"filename": format!("/fw/{name}.{kind}"), "format": "raw"});
            let json = serde_json::json!({
                "interface-types": ["uefi"], "features": features, "tags": [],
                "mapping": {"device": "flash", "executable": file("code"), "nvram-template": file("vars")},
                "targets": [{"architecture": architecture, "machines": [machine]}],
            });
            made.write(&format!("firmware/{name}.json"), &json.to_string());
        }
        std::fs::write(made.path().join("image.efi"), unified_kernel_image()).unwrap();
        for name in ["image.vmlinuz", "image.raw", "linux", "mkosi.crt", "source/a", "settings.nspawn"] {
            made.write(name, "x");
        }
        made
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The settings and the command line of these arguments.
    pub fn settings(&self, arguments: &str) -> (Settings, Invocation) {
        let (image, invocation) = self.image(arguments);
        (Settings::new(&image, None).unwrap(), invocation)
    }

    /// The image and the command line of these arguments.
    fn image(&self, arguments: &str) -> (Image, Invocation) {
        let arguments = arguments.replace("$D", &self.path().to_string_lossy());
        let given = arguments.split(' ').filter(|word| !word.is_empty()).map(OsString::from);
        let fixed = ["--distribution=debian", "--release=trixie", "--architecture=x86-64", "--machine=m_1"];
        let all = fixed.iter().map(OsString::from).chain(given);
        let invocation = parse(all, self.path()).unwrap_or_else(|stop| panic!("{arguments}: {stop:?}"));
        let loaded = load(&LoadInput {
            directory: Some(self.path().to_owned()),
            options: invocation.settings.clone(),
            images: Vec::new(),
            environment: BTreeMap::new(),
            host: HostFacts::new(Some("debian"), Some("trixie"), Architecture::X86_64),
            resources: None,
        })
        .unwrap_or_else(|diagnostics| panic!("{arguments}: {diagnostics:?}"));
        (loaded.image("main").unwrap().clone(), invocation)
    }

    /// A text without the name of the directory.
    pub fn shown(&self, text: &str) -> String {
        text.replace(&*self.path().to_string_lossy(), "$D").replace(USUAL, "[usual options]")
    }

    /// The command line of QEMU, an option in each line.
    pub fn qemu(&self, arguments: &str, host: &Host, version: (u32, u32)) -> Result<Vec<String>, String> {
        let (image, invocation) = self.image(arguments);
        let settings = Settings::new(&image, None).unwrap();
        let plan = plan(&settings, host, &invocation.arguments).map_err(|error| self.shown(&error.to_string()))?;
        let variables = variables(&image, &BTreeMap::new()).unwrap();
        let look = Look::of(|name| variables.get(name).cloned(), |_| None);
        let parts = Parts { look, ..parts(&settings, &plan, version) };
        let words = command_line(&settings, &plan, &parts, &invocation.arguments);
        let notes = plan.notes.iter().map(|note| format!("note: {}", self.shown(note)));
        Ok(notes.chain(lines(&words.iter().map(|word| self.shown(word)).collect::<Vec<_>>())).collect())
    }
}

impl Made {
    /// The command line of systemd-nspawn.
    pub fn nspawn(&self, arguments: &str, systemd: bool, version: u32) -> Vec<String> {
        let (settings, invocation) = self.settings(arguments);
        let journal = (version < nspawn::FORWARDS_JOURNAL).then(|| "/run/c/journal".into());
        let parts = nspawn::Parts {
            program: "systemd-nspawn".into(),
            version,
            boot: invocation.verb == Verb::Boot,
            image: (settings.output(), settings.format == "directory"),
            foreign: arguments.contains("--foreign-uid-range=yes"),
            root: true,
            systemd,
            core: (Some(0), None),
            credentials: vec![("firstboot.locale".to_owned(), "/run/c/credential-firstboot.locale".into())],
            journal,
            user: settings.bind_user.then(|| "me".to_owned()),
        };
        let mine = |path: &Path| !path.ends_with("source");
        let words = nspawn::command_line(&settings, &parts, mine, &invocation.arguments);
        words.iter().map(|word| self.shown(word)).collect()
    }

    /// The command line of systemd-vmspawn.
    pub fn vmspawn(&self, arguments: &str) -> Vec<String> {
        let (settings, invocation) = self.settings(arguments);
        let plan = plan(&settings, &host(self), &[]).unwrap();
        let parts = vmspawn::Parts {
            program: "systemd-vmspawn".into(),
            processors: 8,
            image: settings.output(),
            variables: plan.uefi.as_ref().map(|_| "/run/vm/variables".into()),
            credentials: vec![("firstboot.locale".to_owned(), "/run/vm/credential-firstboot.locale".into())],
            initrd: None,
            user: settings.bind_user.then(|| "me".to_owned()),
            terminal: Terminal { columns: 80, lines: 24, term: "vt220".to_owned() },
            cid: match settings.vsock_cid {
                VsockCid::Number(cid) => Some(cid),
                _ => None,
            },
        };
        let words = vmspawn::command_line(&settings, &plan, &parts, &invocation.arguments);
        words.iter().map(|word| self.shown(word)).collect()
    }
}

/// A UEFI program with the sections of a unified kernel image, all of them empty (the PE format's specification).
fn unified_kernel_image() -> Vec<u8> {
    let mut image = vec![0; 0x40];
    image[..2].copy_from_slice(b"MZ");
    image[0x3c] = 0x40;
    image.extend(b"PE\0\0");
    let sections = [".linux", ".sdmagic", ".osrel"];
    let mut head = [0; 20];
    head[..2].copy_from_slice(&0x8664_u16.to_le_bytes());
    head[2] = u8::try_from(sections.len()).unwrap();
    head[16] = 112;
    image.extend(head);
    let mut optional = [0; 112];
    optional[..2].copy_from_slice(&0x20b_u16.to_le_bytes());
    image.extend(optional);
    for name in sections {
        let mut section = [0; 40];
        section[..name.len()].copy_from_slice(name.as_bytes());
        image.extend(section);
    }
    image
}

/// Words with each option and its value in one line.
pub fn lines(words: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words {
        match lines.last_mut() {
            Some(last) if !word.starts_with('-') && last.starts_with('-') && !last.contains(' ') => {
                last.push(' ');
                last.push_str(word);
            }
            _ => lines.push(word.clone()),
        }
    }
    lines
}

/// Everything that a plan needs, at places that don't matter.
fn parts(settings: &Settings, plan: &Plan, version: (u32, u32)) -> Parts {
    let run = |name: &str| PathBuf::from("/run/vm").join(name);
    let mut shares: Vec<(PathBuf, String)> = Vec::new();
    if settings.format == "directory" {
        shares.push((run("fs0"), "root".to_owned()));
    }
    for tree in settings.all_trees() {
        shares.push((run(&format!("fs{}", shares.len())), tree.target.to_string_lossy().into_owned()));
    }
    let access = Access { io_uring: true, direct: true };
    let ways = Ways {
        smbios: machine::has_smbios(settings.architecture, plan.firmware.is_uefi()),
        fw_cfg: machine::has_fw_cfg(settings.architecture),
        command_line: plan.kernel.is_some(),
    };
    let credentials = Credentials::from([("firstboot.locale".to_owned(), b"C.UTF-8".to_vec())]);
    Parts {
        program: format!("/usr/bin/qemu-system-{}", machine::qemu(settings.architecture)).into(),
        version,
        look: Look::of(|_| None, |_| None),
        pty_forward: matches!(settings.console.name(), "interactive" | "read-only").then(|| "pty-forward".into()),
        terminal: Terminal { columns: 80, lines: 24, term: "vt220".to_owned() },
        processors: 8,
        kvm: plan.kvm.then_some(3),
        vsock: plan.vsock.then_some((4242, 4)),
        variables: plan.uefi.as_ref().map(|uefi| (run("variables"), uefi.variables.format.clone())),
        image: settings.output(),
        access,
        initrd: (settings.format == "cpio").then(|| settings.output()),
        root: if plan.kernel.is_some() && settings.format == "disk" { vec!["root=PARTUUID=1".into()] } else { vec![] },
        shares,
        tpm: plan.tpm.then(|| run("tpm/socket")),
        credentials: hand(&credentials, ways, Path::new("/run/vm")),
        drives: settings.drives.iter().map(|drive| (drive.file_id.clone(), run(&drive.file_id), access)).collect(),
        console_copy: plan.kvm.then(|| run("console")),
    }
}
