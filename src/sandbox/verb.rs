//! The hidden entry `sandbox-run`: runs a specification from standard input, to look into a sandbox by hand and to
//! test what needs a process of its own. Knows nothing of images.

use super::{Cancel, Exit, Input, Output, Spec, enter_user_namespace, sys};

/// The name of the hidden entry, as first argument.
pub(super) const ENTRY: &str = "sandbox-run";

/// Reads a [`Spec`] as JSON, runs it with this process's output, and ends as the command ended.
pub(super) fn main() -> ! {
    match run() {
        Ok(Exit::Code(code)) => std::process::exit(code),
        Ok(Exit::Signal(signal)) => sys::die_by(signal),
        Err(text) => {
            crate::tell!("mkosi: {text}");
            std::process::exit(125)
        }
    }
}

fn run() -> Result<Exit, String> {
    enter_user_namespace().map_err(|error| error.to_string())?;
    let spec: Spec = serde_json::from_reader(std::io::stdin())
        .map_err(|error| format!("the specification on standard input can't be read: {error}"))?;
    spec.run(Input::Null, Output::Inherit, &Cancel::default()).map_err(|error| error.to_string())
}
