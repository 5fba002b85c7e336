//! Turns the calling process to the command: working directory, rights, signals, descriptors, exec. Knows nothing of
//! how the file system around it was made.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};

use super::fault::{Fault, Result, Tried, show};
use super::sys;
use super::wire::Message;

/// A command line and what goes with it.
pub(super) struct Command<'a> {
    pub(super) argv: &'a [String],
    pub(super) env: &'a BTreeMap<String, String>,
    pub(super) cwd: &'a Path,
    pub(super) umask: u32,
    pub(super) new_session: bool,
    /// The rights to take away before the program starts, when this is where they are taken.
    pub(super) harden: Option<super::harden::Limits>,
}

impl Command<'_> {
    /// Becomes the command. Returns only when that fails.
    pub(super) fn exec(&self) -> Message {
        match self.prepare() {
            Ok((candidates, argv, env)) => self.try_all(&candidates, &argv, &env),
            Err(fault) => Message::Fault(fault.to_string()),
        }
    }

    #[allow(clippy::type_complexity)]
    fn prepare(&self) -> Result<(Vec<CString>, Vec<CString>, Vec<CString>)> {
        let argv = self.argv.iter().map(|text| c_string(text)).collect::<Result<Vec<_>>>()?;
        let env =
            self.env.iter().map(|(key, value)| c_string(&format!("{key}={value}"))).collect::<Result<Vec<_>>>()?;
        let candidates = self.candidates()?.iter().map(|path| c_string(&show(path))).collect::<Result<Vec<_>>>()?;
        rustix::process::chdir(self.cwd)
            .tried(|| format!("enter the working directory {} in the sandbox", show(self.cwd)))?;
        if self.new_session {
            rustix::process::setsid().tried(|| "start a session of its own".to_owned())?;
        }
        sys::close_on_exec_from_3().tried(|| "close the descriptors of the parent".to_owned())?;
        if let Some(limits) = &self.harden {
            limits.apply()?;
        }
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(self.umask));
        sys::reset_signals();
        Ok((candidates, argv, env))
    }

    /// The paths that the program may have.
    fn candidates(&self) -> Result<Vec<PathBuf>> {
        let program = self.argv.first().ok_or_else(|| Fault::Wrong("there is no command to run".to_owned()))?;
        if program.contains('/') {
            return Ok(vec![PathBuf::from(program)]);
        }
        let path = self.env.get("PATH").map_or("", String::as_str);
        Ok(path.split(':').filter(|part| part.starts_with('/')).map(|part| Path::new(part).join(program)).collect())
    }

    fn try_all(&self, candidates: &[CString], argv: &[CString], env: &[CString]) -> Message {
        let program = self.argv.first().map_or("", String::as_str);
        let mut refused: Option<(PathBuf, io::Error)> = None;
        for candidate in candidates {
            let error = sys::exec(candidate, argv, env);
            let path = PathBuf::from(candidate.to_string_lossy().as_ref());
            let missing = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR));
            if refused.is_none() && (!missing || path.symlink_metadata().is_ok_and(|data| !data.is_dir())) {
                refused = Some((path, error));
            }
        }
        let Some((path, error)) = refused else {
            let where_ = match candidates {
                [only] if program.contains('/') => return not_found(&only.to_string_lossy(), "no such file"),
                [] => "PATH names no directory".to_owned(),
                _ => format!("it is in none of {}", self.env.get("PATH").map_or("", String::as_str)),
            };
            return not_found(program, &where_);
        };
        let hint = match error.raw_os_error() {
            Some(libc::ENOENT) => {
                " (the interpreter in its first line, or the dynamic linker that it needs, is missing)"
            }
            Some(libc::ENOEXEC) => " (it has no #! line, or is for another architecture)",
            Some(libc::EACCES) => " (is it executable?)",
            Some(libc::E2BIG) => " (arguments and environment are too long)",
            _ => "",
        };
        Message::Command(126, format!("could not run {}: {error}{hint}", show(&path)))
    }
}

fn not_found(program: &str, why: &str) -> Message {
    Message::Command(127, format!("could not run {program}: {why}"))
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Fault::Wrong(format!("{text:?} has a NUL byte and can't be handed to a program")))
}
