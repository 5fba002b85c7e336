//! The credentials that a machine is given (systemd.system-credentials(7)), and how a virtual machine gets them.
//!
//! Knows nothing of what they are for, beside those of its own: language, time zone, key for SSH.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::{Result, RunError};
use super::process::finished;
use super::settings::{Credential, Settings};
use super::tools::Tools;

/// Names and values.
pub type Credentials = BTreeMap<String, Vec<u8>>;

/// A mount in the machine: its tag and where it goes.
pub const FSTAB: &str = "fstab.extra";
const KEY: &str = "ssh.authorized_keys.root";

/// QEMU takes no longer names in its fw_cfg device.
const FW_CFG_NAME: usize = 55;

/// Everything that the settings and the host say.
///
/// # Errors
/// When a file can't be read, a program that prints a value fails, or SSH is asked for and there is no key for it.
pub fn collect(settings: &Settings, tools: &Tools) -> Result<Credentials> {
    let mut credentials = Credentials::from([("firstboot.locale".to_owned(), b"C.UTF-8".to_vec())]);
    for credential in &settings.credentials {
        let (name, value) = match credential {
            Credential::Value(name, value) => (name, value.clone().into_bytes()),
            Credential::File(name, path) => (name, file(path)?),
        };
        credentials.insert(name.clone(), value);
    }
    credentials.entry("firstboot.timezone".to_owned()).or_insert_with(|| time_zone().into_bytes());
    if !credentials.contains_key(KEY) {
        match &settings.ssh_certificate {
            Some(certificate) => match public_key(certificate, tools) {
                Ok(key) => {
                    credentials.insert(KEY.to_owned(), key);
                }
                Err(error) if settings.ssh_needed => return Err(error),
                // The certificate is there for secure boot, and whoever lacks the programs has no SSH client either.
                Err(RunError::Missing { .. }) => {}
                Err(error) => crate::tell!("note: `mkosi ssh` can't log in to the machine: {error}"),
            },
            None if settings.ssh_needed => {
                return Err(RunError::unfit(
                    "Ssh= is on, and there is no certificate to log in with",
                    "`mkosi genkey` makes a key and a certificate, mkosi.key and mkosi.crt",
                ));
            }
            None => {}
        }
    }
    Ok(credentials)
}

/// What a file holds, or prints where it can be executed.
fn file(path: &Path) -> Result<Vec<u8>> {
    let mode = path.metadata().map_err(RunError::io("read the credential", path))?.permissions().mode();
    if mode & 0o111 == 0 {
        return std::fs::read(path).map_err(RunError::io("read the credential", path));
    }
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    finished(&mut command, "print a credential").map(|output| output.stdout)
}

/// The host's time zone, as the link `/etc/localtime` has it.
fn time_zone() -> String {
    let link = std::fs::read_link("/etc/localtime").unwrap_or_default();
    let link = link.to_string_lossy();
    match link.split_once("zoneinfo/") {
        Some((_, zone)) if !zone.is_empty() => zone.to_owned(),
        _ => "UTC".to_owned(),
    }
}

/// The public key of a certificate as `authorized_keys` has it.
fn public_key(certificate: &Path, tools: &Tools) -> Result<Vec<u8>> {
    let purpose = "read the public key for SSH from SshCertificate=";
    let openssl = tools.need(&["openssl"], purpose, "install openssl")?;
    let keygen = tools.need(&["ssh-keygen"], purpose, "install the SSH client (package openssh-client or openssh)")?;
    let mut command = tools.command(&openssl);
    command.args(["x509", "-pubkey", "-noout", "-in"]).arg(certificate).env("OPENSSL_CONF", "/dev/null");
    let key = finished(&mut command, purpose)?.stdout;
    let mut file = tempfile::NamedTempFile::new().map_err(RunError::io("make a file in", std::env::temp_dir()))?;
    file.write_all(&key).map_err(RunError::io("write", file.path()))?;
    let mut command = tools.command(&keygen);
    command.args(["-i", "-m", "PKCS8", "-f"]).arg(file.path());
    Ok(finished(&mut command, purpose)?.stdout)
}

/// Adds a mount to those that the machine makes while it boots.
pub fn add_mount(credentials: &mut Credentials, tag: &str, target: &Path) {
    let text = credentials.entry(FSTAB.to_owned()).or_default();
    if !text.is_empty() && !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    text.extend(format!("{tag} {} virtiofs x-initrd.mount\n", target.display()).into_bytes());
}

/// How credentials reach a virtual machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ways {
    /// The system reads SMBIOS tables.
    pub smbios: bool,
    /// The system reads QEMU's fw_cfg device.
    pub fw_cfg: bool,
    /// The kernel's command line is ours.
    pub command_line: bool,
}

/// Where each credential goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handed {
    /// Arguments for QEMU.
    pub arguments: Vec<String>,
    /// Files that the arguments name, with their contents.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// Options for the kernel.
    pub options: Vec<String>,
    /// Names of those that could not be handed over.
    pub lost: Vec<String>,
}

/// Finds a way for each credential. Their files go into `directory`, where nobody else can read them: arguments can be
/// seen by every user of the host.
pub fn hand(credentials: &Credentials, ways: Ways, directory: &Path) -> Handed {
    let mut handed = Handed::default();
    for (name, value) in credentials {
        let path = directory.join(format!("credential-{}", name.replace('/', "-")));
        let key = format!("opt/io.systemd.credentials/{name}");
        let shown = super::qemu::escaped(&path);
        if ways.smbios {
            let text = format!("io.systemd.credential.binary:{name}={}", STANDARD.encode(value));
            handed.arguments.extend(["-smbios".to_owned(), format!("type=11,path={shown}")]);
            handed.files.push((path, text.into_bytes()));
        } else if ways.fw_cfg && key.len() <= FW_CFG_NAME {
            handed.arguments.extend(["-fw_cfg".to_owned(), format!("name={key},file={shown}")]);
            handed.files.push((path, value.clone()));
        } else if ways.command_line {
            handed.options.push(format!("systemd.set_credential_binary={name}:{}", STANDARD.encode(value)));
        } else {
            handed.lost.push(name.clone());
        }
    }
    handed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_by_what_there_is() {
        let long = "a".repeat(40);
        let credentials = Credentials::from([("a.b".to_owned(), b"x\ny".to_vec()), (long.clone(), Vec::new())]);
        let none = Ways { smbios: false, fw_cfg: false, command_line: false };
        let hand = |ways| hand(&credentials, ways, Path::new("/d"));
        let smbios = hand(Ways { smbios: true, ..none });
        assert_eq!(smbios.arguments[..2], ["-smbios", "type=11,path=/d/credential-a.b"]);
        assert_eq!(smbios.files[0].1, b"io.systemd.credential.binary:a.b=eAp5");
        let fw_cfg = hand(Ways { fw_cfg: true, ..none });
        assert_eq!(
            fw_cfg.arguments,
            ["-fw_cfg", "name=opt/io.systemd.credentials/a.b,file=/d/credential-a.b"],
            "QEMU takes no long name"
        );
        assert_eq!((fw_cfg.files, fw_cfg.lost), (vec![("/d/credential-a.b".into(), b"x\ny".to_vec())], vec![long]));
        let options = hand(Ways { command_line: true, ..none }).options;
        assert_eq!(options[0], "systemd.set_credential_binary=a.b:eAp5");
        assert!(!hand(none).lost.is_empty());
    }

    #[test]
    fn mounts_add_up() {
        let mut credentials = Credentials::from([(FSTAB.to_owned(), b"own /own ext4".to_vec())]);
        add_mount(&mut credentials, "t1", Path::new("/root/src"));
        add_mount(&mut credentials, "t2", Path::new("/work/src"));
        let text = String::from_utf8(credentials[FSTAB].clone()).unwrap();
        assert_eq!(text, "own /own ext4\nt1 /root/src virtiofs x-initrd.mount\nt2 /work/src virtiofs x-initrd.mount\n");
    }

    #[test]
    fn a_file_is_read_and_a_program_run() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("name");
        std::fs::write(&path, "#!/bin/sh\nprintf value\n").unwrap();
        assert!(file(&path).unwrap().starts_with(b"#!"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(file(&path).unwrap(), b"value");
        std::fs::write(&path, "#!/bin/sh\necho no >&2; exit 3\n").unwrap();
        assert!(file(&path).unwrap_err().to_string().contains("status 3"));
    }

    /// The certificate is often there for secure boot alone.
    #[test]
    fn a_key_that_nobody_asked_for_may_be_missing() {
        use crate::config::{Image, Origin, Sourced, Value};
        let values = [
            ("Architecture", Value::text("x86-64")),
            ("Format", Value::text("disk")),
            ("SshCertificate", Value::Path("/nowhere/mkosi.crt".into())),
        ];
        let values = values.into_iter().map(|(name, value)| (name, Sourced { value, origin: Origin::Default }));
        let image = Image { name: "main".into(), project: "/nowhere".into(), values: values.collect() };
        let mut settings = Settings::new(&image, None).unwrap();
        let tree = tempfile::tempdir().unwrap();
        let tools = Tools::new(Vec::new()).of_tree(vec![tree.path().to_owned()]);
        assert!(!collect(&settings, &tools).unwrap().contains_key(KEY));
        settings.ssh_needed = true;
        assert!(collect(&settings, &tools).unwrap_err().to_string().contains("openssl"));
    }
}
