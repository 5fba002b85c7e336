//! What the system in the machine reports (sd_notify(3)): that it is up, and with what status it ends.
//!
//! Each message is a connection of its own. Knows nothing of how the machine was started.

use std::collections::BTreeMap;
use std::io::Read;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, getsockname, listen, socket,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::{Result, RunError};

/// The credential that tells the system where to report to.
pub const CREDENTIAL: &str = "vmm.notify_socket";
/// The host, as a virtual machine sees it.
const HOST: u32 = 2;
/// A message is small.
const LONGEST: u64 = 64 * 1024;
const MOMENT: Duration = Duration::from_millis(100);

/// A socket that virtual machines can connect to, and its address as systemd writes it.
///
/// # Errors
/// When it can't be made.
pub fn vsock_listener() -> Result<(OwnedFd, String)> {
    let failed = |error: nix::Error| RunError::Other(format!("can't listen on a VSock socket: {error}"));
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed)?;
    let any = VsockAddr::new(libc::VMADDR_CID_ANY, libc::VMADDR_PORT_ANY);
    bind(socket.as_raw_fd(), &any).map_err(failed)?;
    listen(&socket, Backlog::new(16).map_err(failed)?).map_err(failed)?;
    let address: VsockAddr = getsockname(socket.as_raw_fd()).map_err(failed)?;
    let text = format!("vsock-stream:{HOST}:{}", address.port());
    Ok((socket, text))
}

/// What was reported so far.
#[derive(Clone, Debug, Default)]
pub struct Reports(Arc<Mutex<BTreeMap<String, String>>>);

impl Reports {
    /// The last value of a field.
    pub fn get(&self, field: &str) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(field).cloned()
    }

    /// Whether anything came.
    pub fn any(&self) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// The status that the system ended with, if it said one.
    pub fn exit_status(&self) -> Option<u8> {
        let status: i64 = self.get("EXIT_STATUS")?.trim().parse().ok()?;
        // One that this program can't end with is a failure all the same.
        Some(u8::try_from(status).unwrap_or(1))
    }

    fn take(&self, text: &str) {
        let mut reports = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (field, value) in text.lines().filter_map(|line| line.split_once('=')) {
            reports.insert(field.to_owned(), value.to_owned());
        }
    }
}

/// Listens until it is dropped.
pub struct Listener {
    reports: Reports,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts to listen on a stream socket of any kind.
    pub fn start(socket: OwnedFd) -> Self {
        let (reports, stop) = (Reports::default(), Arc::new(AtomicBool::new(false)));
        let thread = {
            let (reports, stop) = (reports.clone(), Arc::clone(&stop));
            std::thread::spawn(move || serve(&socket, &reports, &stop))
        };
        Self { reports, stop, thread: Some(thread) }
    }

    /// What was reported so far.
    pub fn reports(&self) -> Reports {
        self.reports.clone()
    }

    /// Takes what is there still, and ends.
    pub fn finish(mut self) -> Reports {
        self.end();
        self.reports.clone()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.end();
    }
}

fn readable(fd: std::os::fd::BorrowedFd<'_>, time: Duration) -> bool {
    let time = Timespec::try_from(time).ok();
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, time.as_ref()).is_ok_and(|count| count > 0)
}

fn serve(socket: &OwnedFd, reports: &Reports, stop: &AtomicBool) {
    loop {
        // Asked before the wait: what came before the machine ended is read still.
        let last = stop.load(Ordering::SeqCst);
        if !readable(socket.as_fd(), if last { Duration::ZERO } else { MOMENT }) {
            if last {
                return;
            }
            continue;
        }
        if let Ok(connection) = accept4(socket, SockFlag::SOCK_CLOEXEC) {
            reports.take(&message(connection));
        }
    }
}

/// All that comes before the other side closes. One that says nothing for a while is left.
fn message(connection: OwnedFd) -> String {
    let mut file = std::fs::File::from(connection);
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    while bytes.len() as u64 <= LONGEST && readable(file.as_fd(), Duration::from_secs(5)) {
        match file.read(&mut buffer) {
            Ok(count @ 1..) => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            // A machine that is switched off resets its connections; what it said before counts.
            _ => break,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn the_last_status_counts() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let socket = UnixListener::bind(&path).unwrap();
        let listener = Listener::start(socket.into());
        let say = |text: &str| UnixStream::connect(&path).unwrap().write_all(text.as_bytes()).unwrap();
        assert!(!listener.reports().any());
        say("READY=1\nSTATUS=up\n");
        say("no field");
        say("EXIT_STATUS=3");
        let reports = listener.finish();
        assert_eq!((reports.get("READY").as_deref(), reports.exit_status()), (Some("1"), Some(3)));
        reports.take("EXIT_STATUS=999");
        assert_eq!(reports.exit_status(), Some(1));
        reports.take("EXIT_STATUS=x");
        assert_eq!(reports.exit_status(), None);
    }
}
