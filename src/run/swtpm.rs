//! A TPM in software (swtpm(8)) for the time that a virtual machine runs.
//!
//! Knows nothing of the machine.

use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::error::{Result, RunError};
use super::machine;
use super::process::{Helper, finished};
use super::terminal::hand_down;
use super::tools::Tools;
use crate::types::Architecture;

/// The device that an architecture has for a TPM; none where there is none.
pub fn device(architecture: Architecture) -> Option<&'static str> {
    match architecture {
        architecture if machine::is_x86(architecture) => Some("tpm-tis"),
        architecture if machine::is_arm(architecture) => Some("tpm-tis-device"),
        _ => None,
    }
}

/// The arguments for QEMU: a TPM behind the socket.
pub fn arguments(architecture: Architecture, socket: &Path) -> Vec<String> {
    let mut arguments = vec![
        "-chardev".to_owned(),
        format!("socket,id=tpm,path={}", super::qemu::escaped(socket)),
        "-tpmdev".to_owned(),
        "emulator,id=tpm0,chardev=tpm".to_owned(),
    ];
    if let Some(device) = device(architecture) {
        arguments.extend(["-device".to_owned(), format!("{device},tpmdev=tpm0")]);
    }
    arguments
}

/// swtpm_setup knows profiles from this version on.
const HAS_PROFILES: (u32, u32) = (0, 10);

/// The options that make the state of a TPM.
fn setup(state: &Path, version: Option<(u32, u32)>) -> Vec<String> {
    let state = state.to_string_lossy();
    let mut options: Vec<&str> =
        vec!["--tpm-state", &state, "--tpm2", "--pcr-banks", "sha256", "--config", "/dev/null"];
    if version.is_some_and(|version| version >= HAS_PROFILES) {
        // Else the state holds algorithms that the libraries of a host in FIPS mode refuse.
        options.extend(["--profile-name=custom", "--profile-remove-disabled=check"]);
    }
    options.into_iter().map(str::to_owned).collect()
}

/// The version that `swtpm_setup --version` prints, as its last word.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().next_back()?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The version of swtpm_setup; some end with a failure when they are asked.
fn version_of(command: &mut Command) -> Option<(u32, u32)> {
    let output = command.arg("--version").stdin(Stdio::null()).output().ok()?;
    version(&String::from_utf8_lossy(&output.stdout))
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
    let program = tools.need(&["swtpm_setup"], purpose, hint)?;
    let swtpm = tools.need(&["swtpm"], purpose, hint)?;
    let state = directory.join("tpm");
    std::fs::create_dir(&state).map_err(RunError::io("make", &state))?;
    let version = version_of(&mut tools.command(&program));
    finished(tools.command(&program).args(setup(&state, version)), purpose)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_ones_leave_out_what_the_host_forbids() {
        let options = |text: &str| setup(Path::new("/s"), version(text)).join(" ");
        let old = "--tpm-state /s --tpm2 --pcr-banks sha256 --config /dev/null";
        assert_eq!(options("TPM emulator setup tool version 0.7.1"), old);
        assert_eq!(options("something else"), old);
        let new = format!("{old} --profile-name=custom --profile-remove-disabled=check");
        assert_eq!(options("TPM emulator setup tool version 0.10.2\n"), new);
        assert_eq!(options("TPM emulator setup tool version 1.0.0"), new);
    }

    #[test]
    fn a_device_for_whom_has_one() {
        assert!(arguments(Architecture::Arm64, Path::new("/s")).contains(&"tpm-tis-device,tpmdev=tpm0".to_owned()));
        assert!(device(Architecture::S390x).is_none());
    }
}
