//! `mkosi ssh`: a shell in the virtual machine that runs, over VSock.
//!
//! ssh(1) gets its connection from this program, started again under a hidden name: it connects, hands the socket over
//! on its standard output, and ends (`ProxyUseFdpass=` of ssh_config(5)).

use std::ffi::OsString;
use std::io::IoSlice;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::ExitCode;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, VsockAddr, connect, sendmsg, socket,
};

use super::error::{Result, RunError};
use super::process::become_program;
use super::settings::Settings;
use super::state::{self, Running};
use super::tools::Tools;

/// The hidden first argument.
pub const PROXY: &str = "ssh-proxy";

/// The command that connects to a machine, with this program at `executable`. ssh puts the port in.
pub fn proxy_command(executable: &Path, cid: u32) -> String {
    let program = executable;
    format!("'{}' {PROXY} {cid} %p", program.to_string_lossy().replace('\'', "'\\''").replace('%', "%%"))
}

/// The arguments of ssh(1).
///
/// # Errors
/// When the machine has no key to log in with.
pub fn arguments(running: &Running, executable: &Path, extra: &[String]) -> Result<Vec<String>> {
    let Some(key) = &running.ssh_key else {
        return Err(RunError::unfit(
            format!("the machine {} was started without a key for SSH", running.machine),
            "`mkosi genkey` makes one; build and start the image again with it",
        ));
    };
    // What stands in the note is for programs of the host.
    let proxy = running.cid.map_or_else(|| running.proxy_command.clone(), |cid| proxy_command(executable, cid));
    let mut arguments = vec!["-i".to_owned(), key.to_string_lossy().into_owned(), "-F".to_owned(), "none".to_owned()];
    for option in [
        // The machine is another one each time.
        "UserKnownHostsFile=/dev/null",
        "StrictHostKeyChecking=no",
        "LogLevel=ERROR",
        "ProxyUseFdpass=yes",
        &format!("ProxyCommand={proxy}"),
    ] {
        arguments.extend(["-o".to_owned(), option.to_owned()]);
    }
    arguments.push("root@mkosi".to_owned());
    arguments.extend(extra.iter().cloned());
    Ok(arguments)
}

/// Logs in.
///
/// # Errors
/// When no machine runs, or ssh can't be started; otherwise it does not return.
pub fn run(settings: &Settings, tools: &Tools, extra: &[String]) -> Result<u8> {
    let running = state::find(&state::directory(), &settings.machine)?;
    let arguments = arguments(&running, &tools.executable(), extra)?;
    let hint = "install the SSH client (package openssh-client or openssh)";
    let ssh = tools.need(&["ssh"], "log in to the virtual machine", hint)?;
    Err(become_program(tools.command(&ssh).args(arguments).envs(settings.environment.iter().cloned())))
}

/// The hidden entry: connects to the port of a machine and hands the socket to ssh. Returns when this is no such start.
pub fn proxy_entry(arguments: impl Iterator<Item = OsString>) -> Option<ExitCode> {
    let arguments: Vec<String> = arguments.map(|word| word.to_string_lossy().into_owned()).collect();
    match arguments.as_slice() {
        [_, word, cid, port] if word == PROXY => Some(match hand_over(cid, port) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                crate::tell!("can't connect to the virtual machine {cid}, port {port}: {error}");
                ExitCode::FAILURE
            }
        }),
        _ => None,
    }
}

fn hand_over(cid: &str, port: &str) -> std::io::Result<()> {
    let number = |text: &str| text.parse::<u32>().map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidInput));
    let address = VsockAddr::new(number(cid)?, number(port)?);
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    connect(socket.as_raw_fd(), &address)?;
    let sockets = [socket.as_raw_fd()];
    let message = [ControlMessage::ScmRights(&sockets)];
    sendmsg::<()>(std::io::stdout().as_raw_fd(), &[IoSlice::new(&[0])], &message, MsgFlags::empty(), None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_needed() {
        let mut running = Running {
            machine: "m".into(),
            pid: 1,
            proxy_command: "'/usr/bin/mkosi' ssh-proxy 3 %p".into(),
            cid: None,
            ssh_key: None,
        };
        assert!(arguments(&running, Path::new("/x"), &[]).unwrap_err().to_string().contains("mkosi genkey"));
        running.ssh_key = Some("/k".into());
        assert_eq!(
            arguments(&running, Path::new("/x"), &["true".to_owned()]).unwrap().join(" "),
            "-i /k -F none -o UserKnownHostsFile=/dev/null -o StrictHostKeyChecking=no -o LogLevel=ERROR \
             -o ProxyUseFdpass=yes -o ProxyCommand='/usr/bin/mkosi' ssh-proxy 3 %p root@mkosi true"
        );
        running.cid = Some(4);
        let words = arguments(&running, Path::new("/mkosi/mkosi"), &[]).unwrap();
        assert!(words.contains(&"ProxyCommand='/mkosi/mkosi' ssh-proxy 4 %p".to_owned()), "{words:?}");
    }
}
