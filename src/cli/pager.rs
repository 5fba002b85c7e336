//! Shows long output through a pager when it goes to a terminal.

use std::io::{ErrorKind, IsTerminal as _, Write as _};
use std::process::{Command, ExitCode, Stdio};

/// Whether standard output is a terminal.
pub fn on_terminal() -> bool {
    std::io::stdout().is_terminal()
}

/// Shows a text: through `$PAGER`, or less(1), on a terminal; as it is elsewhere and where no pager is wanted.
pub fn show(text: &str, no_pager: bool) -> ExitCode {
    let wanted = std::env::var("PAGER").unwrap_or_default();
    if no_pager || !on_terminal() || wanted == "cat" {
        return print(text);
    }
    page(text, &wanted).unwrap_or_else(|| print(text))
}

/// Shows a text through a pager; nothing if there is none.
fn page(text: &str, wanted: &str) -> Option<ExitCode> {
    let mut command = if wanted.is_empty() {
        Command::new("less")
    } else {
        // $PAGER may have arguments.
        let mut shell = Command::new("sh");
        shell.args(["-c", wanted]);
        shell
    };
    if std::env::var_os("LESS").is_none() {
        // Leave at once what fits on the screen, show emphasis, leave the text on the screen.
        command.env("LESS", "FRX");
    }
    let mut child = command.stdin(Stdio::piped()).spawn().ok()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever leaves the pager early has seen enough.
        let _ = stdin.write_all(text.as_bytes());
    }
    let status = child.wait().ok()?;
    // The shell says so when it finds no such program.
    (status.code() != Some(127)).then_some(ExitCode::SUCCESS)
}

/// Prints to standard output; a reader that went away is no failure.
pub fn print(text: &str) -> ExitCode {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}
