//! What the parent hands to `sandbox-init`, and what comes back. Knows nothing of how either acts on it.

use std::fs::File;
use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use super::Spec;

/// The name of the hidden entry, as first argument.
pub(super) const INIT: &str = "sandbox-init";

/// A specification and what only the parent knows.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) spec: Spec,
    /// The parent's process id: the child ends when it has another parent by the time it looks.
    pub(super) parent: u32,
    /// Whether the command gets a session of its own, without the user's terminal.
    pub(super) new_session: bool,
}

/// One line on the status pipe.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Message {
    /// The sandbox could not be made.
    Fault(String),
    /// The command could not be started; the number is the exit status that a shell would give (126 or 127).
    Command(i32, String),
    /// The command exited with this status.
    Exit(i32),
    /// The command was ended by this signal.
    Signal(i32),
}

/// The writing end of the status pipe.
pub(super) struct Status(pub(super) File);

impl Status {
    /// Sends a message. When nobody reads any more there is nobody to tell, so a failure is passed over.
    pub(super) fn send(&self, message: &Message) {
        if let Ok(mut line) = serde_json::to_vec(message) {
            line.push(b'\n');
            let _ = (&self.0).write_all(&line);
        }
    }
}

/// Reads the whole pipe and gives the first message, which is the one nearest to the cause.
pub(super) fn first_message(mut pipe: File) -> Option<Message> {
    let mut text = Vec::new();
    pipe.read_to_end(&mut text).ok()?;
    parse_first(&text)
}

/// The first message in what came through the pipe.
pub(super) fn parse_first(text: &[u8]) -> Option<Message> {
    text.split(|byte| *byte == b'\n').find_map(|line| serde_json::from_slice(line).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_counts() {
        let (reader, writer) = std::io::pipe().unwrap();
        let status = Status(File::from(std::os::fd::OwnedFd::from(writer)));
        status.send(&Message::Command(127, "line one\nline two".to_owned()));
        status.send(&Message::Exit(127));
        drop(status);
        let got = first_message(File::from(std::os::fd::OwnedFd::from(reader)));
        assert_eq!(got, Some(Message::Command(127, "line one\nline two".to_owned())));
    }

    #[test]
    fn a_torn_message_is_none() {
        assert_eq!(parse_first(b"{\"exi"), None);
        assert_eq!(parse_first(b""), None);
    }
}
