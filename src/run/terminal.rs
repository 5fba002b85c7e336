//! The user's terminal: what it is, and leaving it as it was.
//!
//! Knows nothing of what runs on it.

use std::fs::File;
use std::io::Write as _;
use std::process::Stdio;

use rustix::fs::OFlags;
use rustix::termios::{OptionalActions, Termios};

/// The terminal as a guest is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terminal {
    /// Its width in characters.
    pub columns: u16,
    /// Its height in characters.
    pub lines: u16,
    /// Its type, `$TERM`.
    pub term: String,
}

impl Terminal {
    /// The terminal of this program; the usual size where there is none.
    pub fn current() -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok().filter(|size| size.ws_col > 0);
        let (columns, lines) = size.map_or((80, 24), |size| (size.ws_col, size.ws_row));
        let on_terminal = rustix::termios::isatty(std::io::stderr());
        let term = match std::env::var("TERM") {
            Ok(term) if on_terminal && term != "unknown" && !term.is_empty() => term,
            _ if on_terminal => "vt220".to_owned(),
            _ => "dumb".to_owned(),
        };
        Self { columns, lines, term }
    }
}

/// What of the terminal shows that it is a machine's, where that is done by one of systemd's tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Another colour behind the text.
    pub background: bool,
    /// A title.
    pub title: bool,
}

impl Look {
    /// As systemd's own variables have it: those of `Environment=`, which `own` gives, and those of this program, which
    /// `outside` gives. A no in either place counts.
    pub fn of(own: impl Fn(&str) -> Option<String>, outside: impl Fn(&str) -> Option<String>) -> Self {
        let no = |value: Option<String>| {
            value.is_some_and(|value| matches!(value.to_lowercase().as_str(), "0" | "no" | "n" | "false" | "f" | "off"))
        };
        let wanted = |name: &str| !no(own(name)) && !no(outside(name));
        Self { background: wanted("SYSTEMD_TINT_BACKGROUND"), title: wanted("SYSTEMD_ADJUST_TERMINAL_TITLE") }
    }
}

/// The state of the terminal, which is put back when this is dropped: a program that is killed leaves it raw.
pub struct Restore {
    settings: Option<Termios>,
    flags: Vec<(u8, OFlags)>,
}

impl Restore {
    /// Remembers the state of the terminal.
    pub fn new() -> Self {
        let settings = rustix::termios::tcgetattr(std::io::stdin()).ok();
        let flags = (0..3).filter_map(|stream| Some((stream, flags(stream)?))).collect();
        Self { settings, flags }
    }
}

impl Default for Restore {
    fn default() -> Self {
        Self::new()
    }
}

fn flags(stream: u8) -> Option<OFlags> {
    match stream {
        0 => rustix::fs::fcntl_getfl(std::io::stdin()),
        1 => rustix::fs::fcntl_getfl(std::io::stdout()),
        _ => rustix::fs::fcntl_getfl(std::io::stderr()),
    }
    .ok()
}

impl Drop for Restore {
    fn drop(&mut self) {
        for (stream, flags) in &self.flags {
            let _ = match stream {
                0 => rustix::fs::fcntl_setfl(std::io::stdin(), *flags),
                1 => rustix::fs::fcntl_setfl(std::io::stdout(), *flags),
                _ => rustix::fs::fcntl_setfl(std::io::stderr(), *flags),
            };
        }
        let Some(settings) = &self.settings else { return };
        let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Drain, settings);
        if rustix::termios::isatty(std::io::stdout()) {
            // Firmware turns line wrapping off, and colours stay as they were last.
            let _ = std::io::stdout().write_all(b"\x1b[?7h\x1b[0m").and_then(|()| std::io::stdout().flush());
        }
    }
}

/// Another opening of one of this program's streams. QEMU makes its streams non-blocking, which all programs that share
/// the opening would feel. A plain file is shared all the same: its readers know no waiting, and all who write to it
/// go on at one place.
pub fn private(stream: u8) -> Stdio {
    let path = format!("/proc/self/fd/{stream}");
    if std::fs::metadata(&path).is_ok_and(|meta| meta.is_file()) {
        return Stdio::inherit();
    }
    match File::options().read(stream == 0).write(stream != 0).open(&path) {
        Ok(file) => file.into(),
        Err(_) => Stdio::inherit(),
    }
}

/// Clears close-on-exec, so that the next program that is started has the descriptor.
pub fn hand_down(descriptor: &impl std::os::fd::AsFd) -> std::io::Result<()> {
    let fd = descriptor.as_fd();
    let flags = rustix::io::fcntl_getfd(fd)?;
    Ok(rustix::io::fcntl_setfd(fd, flags - rustix::io::FdFlags::CLOEXEC)?)
}
