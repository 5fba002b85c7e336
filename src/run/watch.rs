//! Finds out that a machine does not run under KVM, and tells how to go on.
//!
//! On some hosts, most of them virtual machines themselves, `/dev/kvm` can be opened and yet a guest dies at once: QEMU
//! then stops it and waits, or ends, or the guest hangs before its first word.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::sys::stat::Mode;

use super::error::{Result, RunError};
use super::notify::Reports;
use super::process::{Ended, Watch};

/// What to do about it.
const GO_ON: &str = "KVM does not work for it here: --kvm=no emulates the machine, which is slower";
/// A machine that ends sooner has not been used.
const SOON: Duration = Duration::from_secs(15);
/// How long a machine may be silent before that is mentioned.
const SILENT: Duration = Duration::from_secs(20);

/// Watches a machine under KVM.
pub struct KvmWatch {
    spoke: Arc<AtomicBool>,
    /// Whether the console can be listened to.
    listens: bool,
    reports: Option<Reports>,
    told: bool,
}

impl KvmWatch {
    /// A watch that has no console to listen to.
    pub fn new(reports: Option<Reports>) -> Self {
        Self { spoke: Arc::default(), listens: false, reports, told: false }
    }

    /// Listens to the copy of the console's output that QEMU writes to the named pipe `path`, which is made here.
    ///
    /// # Errors
    /// When the pipe can't be made.
    pub fn listen(&mut self, path: &Path) -> Result<()> {
        let failed = |error: nix::Error| RunError::io("make the pipe", path)(error.into());
        nix::unistd::mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR).map_err(failed)?;
        // Opened for writing as well, so that opening and reading never wait for QEMU's end of it.
        let pipe = File::options().read(true).write(true).open(path).map_err(RunError::io("open", path))?;
        let spoke = Arc::clone(&self.spoke);
        self.listens = true;
        // It ends with the program: what is read has to be taken away until then.
        std::thread::spawn(move || drain(pipe, &spoke));
        Ok(())
    }

    fn silent(&self) -> bool {
        !self.spoke.load(Ordering::SeqCst) && !self.reports.as_ref().is_some_and(Reports::any)
    }

    /// What the end of the machine's program says about KVM, if anything.
    pub fn verdict(&self, ended: &Ended) -> Option<String> {
        let failed = !ended.status.success();
        let refused = ended.errors.contains("not supported by this hypervisor");
        let died = ended.time < SOON && self.silent() && (failed || (self.listens && !super::process::interrupted()));
        (refused || died).then(|| {
            let seconds = ended.time.as_secs_f64();
            format!("the virtual machine {} after {seconds:.1} s without a word\n  hint: {GO_ON}", how(ended))
        })
    }
}

fn how(ended: &Ended) -> String {
    super::process::how(ended.status)
}

fn drain(mut pipe: File, spoke: &AtomicBool) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = pipe.read(&mut buffer) {
        spoke.store(true, Ordering::SeqCst);
    }
}

impl Watch for KvmWatch {
    fn look(&mut self, time: Duration, errors: &str) -> Option<String> {
        // QEMU keeps such a machine, for whoever wants to look at it; it never goes on.
        if errors.contains("KVM internal error") || errors.contains("KVM: entry failed") {
            return Some(format!("the virtual machine died after {:.1} s\n  hint: {GO_ON}", time.as_secs_f64()));
        }
        if self.listens && !self.told && time > SILENT && self.silent() {
            self.told = true;
            // The terminal is in raw mode.
            crate::tell_part!(
                "note: nothing came from the virtual machine for {} seconds. If it stays so, end it (Ctrl-A X) and \
                 try --kvm=no, which emulates it\r\n",
                SILENT.as_secs()
            );
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    fn ended(code: i32, seconds: u64, errors: &str) -> Ended {
        let status = ExitStatus::from_raw(code << 8);
        Ended { status, time: Duration::from_secs(seconds), errors: errors.to_owned() }
    }

    #[test]
    fn a_machine_that_dies_is_found() {
        let mut watch = KvmWatch::new(None);
        assert!(watch.look(Duration::ZERO, "").is_none());
        let hint = watch.look(Duration::ZERO, "KVM internal error. Suberror: 1").unwrap();
        assert!(hint.contains("--kvm=no"), "{hint}");
        assert!(watch.verdict(&ended(1, 1, "")).unwrap().contains("--kvm=no"));
        assert!(watch.verdict(&ended(0, 1, "")).is_none(), "without a console nobody can tell");
        assert!(watch.verdict(&ended(1, 100, "")).is_none());
        assert!(watch.verdict(&ended(1, 100, "SMM not supported by this hypervisor.")).is_some());
    }

    #[test]
    fn one_that_spoke_is_alive() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console");
        let mut watch = KvmWatch::new(None);
        watch.listen(&path).unwrap();
        assert!(watch.verdict(&ended(0, 1, "")).is_some());
        std::fs::write(&path, "hello").unwrap();
        while watch.silent() {
            std::thread::yield_now();
        }
        assert!(watch.verdict(&ended(0, 1, "")).is_none());
    }
}
