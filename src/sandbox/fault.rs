//! Why a step in making a sandbox failed, in words for the user. Knows nothing of the steps themselves.

use std::io;
use std::path::Path;

/// A step that failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The kernel refused something.
    #[error("could not {what}: {error}{hint}", hint = hint_text(.hint))]
    Refused {
        /// What was tried, and on which path.
        what: String,
        /// The kernel's reason.
        error: io::Error,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// The specification can't be met, whatever the kernel says.
    #[error("{0}")]
    Wrong(String),
}

pub(super) type Result<T> = std::result::Result<T, Fault>;

fn hint_text(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!(" ({hint})") }
}

/// Turns the result of a system call to a [`Fault`] that says what was tried.
pub(super) trait Tried<T> {
    /// Adds what was tried; the text is made only when it is needed.
    fn tried(self, what: impl FnOnce() -> String) -> Result<T>;
    /// The same, with advice that depends on the error's number.
    fn tried_or(self, what: impl FnOnce() -> String, hint: impl FnOnce(i32) -> &'static str) -> Result<T>;
}

impl<T, E: Into<io::Error>> Tried<T> for std::result::Result<T, E> {
    fn tried(self, what: impl FnOnce() -> String) -> Result<T> {
        self.tried_or(what, general_hint)
    }

    fn tried_or(self, what: impl FnOnce() -> String, hint: impl FnOnce(i32) -> &'static str) -> Result<T> {
        self.map_err(|error| {
            let error = error.into();
            let number = error.raw_os_error().unwrap_or(0);
            let special = hint(number);
            let hint = if special.is_empty() { general_hint(number) } else { special };
            Fault::Refused { what: what(), error, hint: hint.to_owned() }
        })
    }
}

/// Advice that fits an error's number wherever it comes up.
fn general_hint(number: i32) -> &'static str {
    match number {
        libc::ENOSYS => "this kernel is too old: Linux 5.12 or later is needed",
        libc::ENOSPC => "the disk is full, or a limit of /proc/sys/user/max_*_namespaces or fs.mount-max is reached",
        libc::EROFS => "a mount point below a read-only mount must exist beforehand",
        libc::ELOOP => "symbolic links lead in a circle",
        _ => "",
    }
}

/// A path for a message.
pub(super) fn show(path: &Path) -> String {
    path.display().to_string()
}
