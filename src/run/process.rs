//! Programs that are started: some run on the way, some beside the machine, and the one that is the machine.
//!
//! Knows nothing of what they do.

use std::io::Read as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{Result, RunError};
use super::terminal::Restore;
use super::tools::Tools;

/// The status of this program when another one failed in an unusual way.
const FAILED: u8 = 1;
/// The status of this program when Ctrl-C ended a machine that then ended well.
pub const INTERRUPTED: u8 = 130;

fn name(command: &Command) -> String {
    super::tools::program_of(command)
}

/// How a program ended, for people.
pub fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        _ => "ended".to_owned(),
    }
}

/// The status that this program ends with when another one ended so, as a shell has it.
pub fn status_of(status: ExitStatus) -> u8 {
    if status.success() && interrupted() {
        return INTERRUPTED;
    }
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code).unwrap_or(FAILED)
}

/// Runs a program to its end and gives what it printed. `purpose` stands behind "it had to".
///
/// # Errors
/// When it can't be started or fails.
pub fn finished(command: &mut Command, purpose: &str) -> Result<Output> {
    command.stdin(Stdio::null());
    let output = command.output().map_err(|source| RunError::Start { program: name(command), source })?;
    if output.status.success() {
        return Ok(output);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(RunError::Failed {
        program: name(command),
        how: how(output.status),
        purpose: purpose.to_owned(),
        text: text.trim_end().lines().map(|line| format!("\n  | {line}")).collect(),
    })
}

/// The version of a program of systemd.
///
/// # Errors
/// When it can't be started, or tells none.
pub fn systemd_version(program: &Path, tools: &Tools) -> Result<u32> {
    let output = finished(tools.command(program).arg("--version"), "tell its version")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = text.split_whitespace().nth(1).unwrap_or_default();
    let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| RunError::Other(format!("{} --version printed no version: {text}", program.display())))
}

/// Becomes the program.
///
/// # Errors
/// When that fails.
pub fn become_program(command: &mut Command) -> RunError {
    let source = command.exec();
    RunError::Start { program: name(command), source }
}

/// A program that runs beside the machine. It is ended when this is dropped.
pub struct Helper {
    child: Child,
    /// How long it may take to end.
    patience: Duration,
}

/// What most helpers need to end.
const PATIENCE: Duration = Duration::from_secs(2);

impl Helper {
    /// Starts it.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        // A group of its own: Ctrl-C is for the machine, which may need it for its end.
        let child = command.stdin(Stdio::null()).process_group(0).spawn();
        let child = child.map_err(|source| RunError::Start { program: name(command), source })?;
        Ok(Self { child, patience: PATIENCE })
    }

    /// Starts it with a socket as its standard input.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start_with_socket(command: &mut Command, socket: std::os::fd::OwnedFd) -> Result<Self> {
        let child = command.stdin(socket).process_group(0).spawn();
        let child = child.map_err(|source| RunError::Start { program: name(command), source })?;
        Ok(Self { child, patience: PATIENCE })
    }

    /// The same, for one that has something to finish before it ends.
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        send(&self.child, Signal::SIGTERM);
        let begun = Instant::now();
        while begun.elapsed() < self.patience {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn send(child: &Child, signal: Signal) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

/// The process that runs the machine now; 0 for none.
static MACHINE: AtomicI32 = AtomicI32::new(0);
/// Whether that is this program itself, which builds.
static OWN: AtomicBool = AtomicBool::new(false);
/// How often a signal came.
static SIGNALS: AtomicU32 = AtomicU32::new(0);

/// From here on Ctrl-C and SIGTERM end the machine, and this program goes on to tidy up. A second one kills it.
pub fn pass_signals_on() {
    crate::sandbox::on_interrupt(|came| {
        let signal = match SIGNALS.fetch_add(1, Ordering::SeqCst) {
            // The terminal sends Ctrl-C to it too, and it ends by the first that comes.
            0 if OWN.load(Ordering::SeqCst) => Signal::try_from(came).unwrap_or(Signal::SIGTERM),
            0 => Signal::SIGTERM,
            _ => Signal::SIGKILL,
        };
        let pid = MACHINE.load(Ordering::SeqCst);
        if pid > 0 {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    });
}

/// Waits for this program, started again, that signals are passed on to.
///
/// # Errors
/// When the kernel refuses.
pub fn wait(child: &mut Child) -> std::io::Result<ExitStatus> {
    OWN.store(true, Ordering::SeqCst);
    MACHINE.store(i32::try_from(child.id()).unwrap_or(0), Ordering::SeqCst);
    let status = child.wait();
    MACHINE.store(0, Ordering::SeqCst);
    OWN.store(false, Ordering::SeqCst);
    status
}

/// Whether a signal asked for the end.
pub fn interrupted() -> bool {
    SIGNALS.load(Ordering::SeqCst) > 0
}

/// How the machine's program ended.
#[derive(Debug)]
pub struct Ended {
    /// Its status.
    pub status: ExitStatus,
    /// How long it ran.
    pub time: Duration,
    /// The last lines that it printed on standard error.
    pub errors: String,
}

/// What the machine's program is watched for.
pub trait Watch {
    /// Called a few times in a second with what was printed on standard error so far. An answer ends the program, and
    /// is told to the user.
    fn look(&mut self, time: Duration, errors: &str) -> Option<String>;
}

/// Watches for nothing.
pub struct Unwatched;

impl Watch for Unwatched {
    fn look(&mut self, _: Duration, _: &str) -> Option<String> {
        None
    }
}

/// How much of standard error is kept.
const KEPT: usize = 16 * 1024;

/// Starts the program of the machine and waits for its end. The terminal is then as it was. `started` is called with
/// its process id.
///
/// # Errors
/// When it can't be started, or `started` or the watch found a reason to stop.
pub fn run_machine(
    command: &mut Command,
    watch: &mut dyn Watch,
    started: impl FnOnce(u32) -> Result<()>,
) -> Result<Ended> {
    pass_signals_on();
    let restore = Restore::new();
    let begun = Instant::now();
    let mut child =
        command.stderr(Stdio::piped()).spawn().map_err(|source| RunError::Start { program: name(command), source })?;
    MACHINE.store(i32::try_from(child.id()).unwrap_or(0), Ordering::SeqCst);
    if interrupted() {
        send(&child, Signal::SIGTERM);
    }
    let errors = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let reader = child.stderr.take().map(|mut stderr| {
        let errors = std::sync::Arc::clone(&errors);
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut buffer) {
                let part = buffer.get(..count).unwrap_or_default();
                let _ = std::io::Write::write_all(&mut std::io::stderr(), part);
                let mut kept = errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                kept.extend_from_slice(part);
                let over = kept.len().saturating_sub(KEPT);
                kept.drain(..over);
            }
        })
    });
    let text = || {
        let kept = errors.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        String::from_utf8_lossy(&kept).into_owned()
    };
    let mut failure = started(child.id()).err();
    let status = loop {
        if failure.is_some() {
            send(&child, Signal::SIGTERM);
            std::thread::sleep(Duration::from_millis(300));
            let _ = child.kill();
        }
        match child.try_wait() {
            Ok(Some(status)) => break Ok(status),
            Ok(None) => {}
            Err(error) => break Err(error),
        }
        if failure.is_none() {
            failure = watch.look(begun.elapsed(), &text()).map(RunError::Other);
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    MACHINE.store(0, Ordering::SeqCst);
    drop(restore);
    // What was left behind may hold the pipe open; then nobody waits for it.
    if let Some(reader) = reader {
        let deadline = Instant::now() + Duration::from_millis(500);
        while !reader.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let status = status.map_err(|source| RunError::Start { program: name(command), source })?;
    match failure {
        Some(error) => Err(error),
        None => Ok(Ended { status, time: begun.elapsed(), errors: text() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_goes_with_its_owner() {
        let helper = Helper::start(Command::new("sleep").arg("600")).unwrap();
        let directory = std::path::PathBuf::from(format!("/proc/{}", helper.id()));
        assert!(directory.exists());
        drop(helper);
        assert!(!directory.exists());
    }

    #[test]
    fn a_failure_tells_what_was_said() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo one >&2; echo two >&2; exit 4"]);
        let error = finished(&mut command, "test this").unwrap_err().to_string();
        assert_eq!(error, "sh ended with status 4, and it had to test this\n  | one\n  | two");
    }

    #[test]
    fn a_watch_can_end_it() {
        struct Stop;
        impl Watch for Stop {
            fn look(&mut self, _: Duration, errors: &str) -> Option<String> {
                errors.contains("stuck").then(|| "it is stuck".to_owned())
            }
        }
        let mut command = Command::new("sh");
        command.args(["-c", "echo stuck >&2; exec sleep 600"]);
        assert_eq!(run_machine(&mut command, &mut Stop, |_| Ok(())).unwrap_err().to_string(), "it is stuck");
        let mut command = Command::new("sh");
        command.args(["-c", "exit 7"]);
        let ended = run_machine(&mut command, &mut Unwatched, |_| Ok(())).unwrap();
        assert_eq!((status_of(ended.status), ended.errors.as_str()), (7, ""));
    }
}
