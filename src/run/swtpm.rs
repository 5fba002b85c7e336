//! A TPM in software (swtpm(8)) for the time that a virtual machine runs.
//!
//! Knows nothing of the machine.

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::error::{Result, RunError};
use super::machine;
use super::process::{Helper, finished};
use super::terminal::hand_down;
use super::tools::Tools;
use crate::types::Architecture;

/// The arguments for QEMU: a TPM behind the socket.
pub fn arguments(architecture: Architecture, socket: &Path) -> Vec<String> {
    let mut arguments = vec![
        "-chardev".to_owned(),
        format!("socket,id=tpm,path={}", super::qemu::escaped(socket)),
        "-tpmdev".to_owned(),
        "emulator,id=tpm0,chardev=tpm".to_owned(),
    ];
    let device = if machine::is_arm(architecture) { "tpm-tis-device" } else { "tpm-tis" };
    if machine::is_x86(architecture) || machine::is_arm(architecture) {
        arguments.extend(["-device".to_owned(), format!("{device},tpmdev=tpm0")]);
    }
    arguments
}

/// A TPM that runs. It and all that it knows goes when this is dropped.
pub struct Tpm {
    /// Where QEMU finds it.
    pub socket: PathBuf,
    _helper: Helper,
}

/// Starts a new TPM whose state is in `directory`.
///
/// # Errors
/// When swtpm is missing or fails.
pub fn start(directory: &Path, tools: &Tools) -> Result<Tpm> {
    let purpose = "give the virtual machine a TPM";
    let hint = "install swtpm and swtpm-tools, or use --tpm=no";
    let setup = tools.need(&["swtpm_setup"], purpose, hint)?;
    let swtpm = tools.need(&["swtpm"], purpose, hint)?;
    let state = directory.join("tpm");
    std::fs::create_dir(&state).map_err(RunError::io("make", &state))?;
    let mut command = tools.command(&setup);
    command.arg("--tpm-state").arg(&state).args(["--tpm2", "--pcr-banks", "sha256", "--config", "/dev/null"]);
    finished(&mut command, purpose)?;
    // The socket is there before swtpm, so that QEMU can't come too early.
    let socket = state.join("socket");
    let listener = UnixListener::bind(&socket).map_err(RunError::io("make the socket", &socket))?;
    hand_down(&listener).map_err(RunError::io("hand down the socket", &socket))?;
    let mut command = tools.command(&swtpm);
    command
        .args(["socket", "--tpm2", "--tpmstate"])
        .arg(format!("dir={}", state.display()))
        .args(["--ctrl", &format!("type=unixio,fd={}", listener.as_raw_fd())])
        // It tells of every connection.
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    Ok(Tpm { socket, _helper: Helper::start(&mut command)? })
}
