//! The variables of UEFI firmware: a file of its own for each machine, with keys put in where that is asked for.
//!
//! Knows nothing of the machine.

use std::path::{Path, PathBuf};

use super::error::{Result, RunError};
use super::firmware::Uefi;
use super::process::finished;
use super::settings::Settings;
use super::tools::Tools;

/// The owner of keys that are added to a MOK list: shim's own GUID.
const SHIM: &str = "605dab50-e046-4300-abb6-3dd810dd8b23";

/// Makes the file in `directory`. Its format is the second part.
///
/// # Errors
/// When the template or a key can't be read, or virt-fw-vars is missing or fails.
pub fn make(settings: &Settings, uefi: &Uefi, directory: &Path, tools: &Tools) -> Result<(PathBuf, String)> {
    // Where the tools' programs see it, and where this one does.
    let name = &uefi.variables.filename;
    let template = tools.file(name).ok_or_else(|| {
        RunError::unfit(
            format!("there is no {}, where the firmware's description has its variables", name.display()),
            "install the firmware again (package ovmf, edk2-ovmf or qemu-efi-aarch64)",
        )
    })?;
    let path = directory.join("firmware-variables");
    let copy = |from: &Path| {
        std::fs::copy(from, &path).map_err(RunError::io("copy the firmware variables", from))?;
        // The template can't be written to, the copy must be.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).map_err(RunError::io("make writable", &path))
    };
    match (settings.firmware_variables.as_deref(), &settings.certificate) {
        (None | Some("microsoft"), _) => copy(&template)?,
        (Some(word @ ("custom" | "microsoft-mok")), Some(certificate)) => {
            let purpose = "put the certificate for secure boot into the firmware's variables";
            let hint = "install virt-firmware (package python3-virt-firmware), or give a file to FirmwareVariables=";
            let program = tools.need(&["virt-fw-vars"], purpose, hint)?;
            let mut command = tools.command(&program);
            command.arg("--input").arg(name).arg("--output").arg(&path).args(["--loglevel", "WARNING"]);
            if word == "custom" {
                command.arg("--enroll-cert").arg(certificate);
                command.args(["--add-db", "OvmfEnrollDefaultKeys"]).arg(certificate);
                command.args(["--no-microsoft", "--secure-boot"]);
            } else {
                command.args(["--add-mok", SHIM]).arg(certificate);
            }
            finished(&mut command, purpose)?;
        }
        (Some(file), _) => copy(Path::new(file))?,
    }
    let format = match settings.firmware_variables.as_deref() {
        None | Some("custom" | "microsoft") => uefi.variables.format.clone(),
        Some(_) => "raw".to_owned(),
    };
    Ok((path, format))
}
