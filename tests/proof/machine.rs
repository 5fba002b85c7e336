//! A machine that is started, what came from its console and its firmware, and how it ended.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::Project;

/// One that says nothing new for so long hangs.
const SILENT: Duration = Duration::from_secs(20 * 60);

/// What a machine said, and how it ended.
#[derive(Debug)]
pub struct Run {
    /// The status of `mkosi`; none where the test ended it.
    pub status: Option<i32>,
    /// From the console, with what `mkosi` itself said.
    pub console: String,
    /// From the firmware and boot loader, on the serial port.
    pub firmware: String,
}

/// Builds and machines of these tests come one after another: each takes all processors.
pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Run {
    /// The rest of the first line in which the unit said this.
    #[track_caller]
    pub fn said(&self, what: &str) -> &str {
        let marked = format!("proof: {what} ");
        let found = self.console.lines().find_map(|line| line.split_once(&marked));
        found.map(|(_, rest)| rest.trim_end()).unwrap_or_else(|| panic!("no {marked:?} in {self:#?}"))
    }

    /// Checks that the unit ran to its end, that no other one failed, and how the system ended.
    #[track_caller]
    pub fn assert_reported(&self, status: u8) {
        assert!(self.console.contains("proof: begin") && self.console.contains("proof: end"), "{self:#?}");
        assert!(!self.console.contains("proof: failed"), "{self:#?}");
        assert_eq!(self.status, Some(i32::from(status)), "{self:#?}");
        assert_eq!(self.said("system"), "debian 13");
        assert_eq!(self.said("option"), "proof=genuine");
    }
}

/// Runs the image to its end.
pub fn boot(project: &Project, arguments: &[&str]) -> Run {
    boot_until(project, project.command::<&str>(&[]), arguments, |_| false)
}

/// Runs the image with this command, until it ends or what it said is enough.
pub fn boot_until(project: &Project, mut command: Command, arguments: &[&str], enough: impl Fn(&Run) -> bool) -> Run {
    let serial = project.path().join("serial");
    let _ = std::fs::remove_file(&serial);
    // The tree with the tools has nothing that runs images: the host's programs do.
    command.args(arguments).args(["--tools-tree=", "vm", "--", "-serial"]).arg(format!("file:{}", serial.display()));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let said = Arc::new(Mutex::new(Vec::new()));
    let readers = [collect(child.stdout.take().unwrap(), &said), collect(child.stderr.take().unwrap(), &said)];
    let (mut last, mut news) = (0, Instant::now());
    let status = loop {
        std::thread::sleep(Duration::from_millis(100));
        let status = child.try_wait().unwrap();
        let run = so_far(&said, &serial);
        if let Some(status) = status {
            break status.code();
        }
        if enough(&run) {
            end(&mut child);
            break None;
        }
        if run.console.contains("Kernel panic") {
            end(&mut child);
            panic!("the machine's kernel gave up: {run:#?}");
        }
        let length = run.console.len() + run.firmware.len();
        if length != last {
            (last, news) = (length, Instant::now());
        }
        if news.elapsed() > SILENT {
            end(&mut child);
            panic!("the machine hangs: {run:#?}");
        }
    };
    for reader in readers {
        reader.join().unwrap();
    }
    Run { status, ..so_far(&said, &serial) }
}

fn so_far(said: &Mutex<Vec<u8>>, serial: &Path) -> Run {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let console = text(&said.lock().unwrap());
    Run { status: None, console, firmware: text(&std::fs::read(serial).unwrap_or_default()) }
}

fn end(child: &mut Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
    child.wait().unwrap();
}

fn collect(mut from: impl Read + Send + 'static, said: &Arc<Mutex<Vec<u8>>>) -> std::thread::JoinHandle<()> {
    let said = Arc::clone(said);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            said.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    })
}
