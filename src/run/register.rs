//! `Register=`: systemd-machined learns of a virtual machine.
//!
//! Knows nothing of how it runs.

use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};

use super::error::{Result, RunError};
use super::process::finished;
use super::settings::{Feature, Settings};
use super::tools::Tools;

/// The user's machined, where there is one (systemd 259 or later).
fn socket() -> PathBuf {
    let machine = super::state::directory();
    let runtime = machine.parent().and_then(Path::parent).unwrap_or(Path::new("/run"));
    runtime.join("systemd/machine/io.systemd.Machine")
}

/// Registers a virtual machine.
///
/// # Errors
/// When it is asked for without fail, and machined isn't there or refuses.
pub fn register(settings: &Settings, pid: u32, image: &Path, cid: Option<u32>, tools: &Tools) -> Result<()> {
    if settings.register == Feature::Disabled {
        return Ok(());
    }
    let socket = socket();
    if !socket.metadata().is_ok_and(|meta| meta.file_type().is_socket()) {
        return match settings.register {
            Feature::Enabled => Err(RunError::unfit(
                format!("the machine can't be registered: there is no {}", socket.display()),
                "that needs systemd-machined 259 or later (package systemd-container); Register=auto goes on without",
            )),
            _ => Ok(()),
        };
    }
    let purpose = "register the machine";
    let varlinkctl = tools.need(&["varlinkctl"], purpose, "install systemd, or use --register=no")?;
    let mut command = tools.command(&varlinkctl);
    command.envs(settings.environment.iter().cloned());
    command.arg("call").arg(&socket).arg("io.systemd.Machine.Register").arg(description(settings, pid, image, cid));
    let done = finished(&mut command, purpose).map(drop);
    match settings.register {
        Feature::Enabled => done,
        _ => {
            if let Err(error) = done {
                crate::tell!("note: {error}\r");
            }
            Ok(())
        }
    }
}

fn description(settings: &Settings, pid: u32, image: &Path, cid: Option<u32>) -> String {
    let mut json = serde_json::json!({
        "name": settings.machine_name(), "service": "mkosi", "class": "vm", "leader": pid, "allocateUnit": true,
    });
    if let Some(fields) = json.as_object_mut() {
        if image.is_dir() {
            fields.insert("rootDirectory".to_owned(), image.to_string_lossy().into());
        }
        if let Some(cid) = cid {
            fields.insert("vSockCid".to_owned(), cid.into());
            fields.insert("sshAddress".to_owned(), format!("vsock/{cid}").into());
        }
        if let Some(key) = &settings.ssh_key {
            fields.insert("sshPrivateKeyPath".to_owned(), key.to_string_lossy().into());
        }
    }
    json.to_string()
}
