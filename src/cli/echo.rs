//! What the user types while spinners are shown.
//!
//! The cursor stands at the right end of the last spinner's line. The `^C` that a terminal shows for Ctrl-C begins a line
//! of its own there, and the spinners are then no longer where they are looked for: one would stay.

use rustix::termios::{LocalModes, OptionalActions, Termios};

/// As long as it lives, the terminal shows nothing for Ctrl-C and the like.
pub struct NoControls {
    before: Option<Termios>,
}

impl NoControls {
    /// Changes the terminal that standard error is, where this program is in its foreground.
    pub fn new() -> Self {
        let before = rustix::termios::tcgetattr(std::io::stderr()).ok().filter(|_| in_foreground());
        let before = before.filter(|termios| termios.local_modes.contains(LocalModes::ECHOCTL));
        if let Some(termios) = &before {
            let mut quiet = termios.clone();
            quiet.local_modes.remove(LocalModes::ECHOCTL);
            let _ = rustix::termios::tcsetattr(std::io::stderr(), OptionalActions::Now, &quiet);
        }
        Self { before }
    }
}

impl Drop for NoControls {
    fn drop(&mut self) {
        // A shell puts its terminal back itself when it takes it over.
        if let Some(termios) = self.before.as_ref().filter(|_| in_foreground()) {
            let _ = rustix::termios::tcsetattr(std::io::stderr(), OptionalActions::Now, termios);
        }
    }
}

/// The kernel stops a program that changes a terminal in whose background it is (termios(3)).
fn in_foreground() -> bool {
    rustix::termios::tcgetpgrp(std::io::stderr()).is_ok_and(|group| group == rustix::process::getpgrp())
}
