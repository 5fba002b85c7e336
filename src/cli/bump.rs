//! `mkosi bump` and `--auto-bump`: the next version of the image, in `mkosi.version`.
//!
//! Knows nothing of how a version is compared or used.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why there is no next version.
#[derive(Debug, thiserror::Error)]
pub enum BumpError {
    /// `-C ''`.
    #[error("there is no project whose version could be raised: leave out -C ''")]
    NoDirectory,
    /// The version is what a program prints.
    #[error("{} is a program: it decides about the version by itself, so the version can't be raised", .0.display())]
    Executable(PathBuf),
    /// A file that can't be read or written, or a program that can't be run.
    #[error("can't {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or program.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// `mkosi.bump` failed or printed no version.
    #[error("{} {what}: it must print the next version", path.display())]
    Script {
        /// The program.
        path: PathBuf,
        /// What went wrong.
        what: String,
    },
}

impl BumpError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |error| Self::Io { action, path, error }
    }
}

/// The version after that of the project: what `mkosi.bump` prints if it is there, else the last number of
/// `mkosi.version` plus one, and 1 for a project that has no version.
///
/// # Errors
/// When the version can't be raised.
pub fn next(project: &Path) -> Result<String, BumpError> {
    let file = project.join("mkosi.version");
    let version = match std::fs::read_to_string(&file) {
        Ok(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(BumpError::io("read", &file)(error)),
    };
    if file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0) {
        return Err(BumpError::Executable(file));
    }
    let script = project.join("mkosi.bump");
    if script.exists() {
        return printed(&script, project);
    }
    Ok(version.map_or_else(|| "1".to_owned(), |version| raised(&version)))
}

/// A version with its last number raised; `.2` is added where the last part is no number.
fn raised(version: &str) -> String {
    let (before, last) = version.rsplit_once('.').map_or(("", version), |(before, last)| (before, last));
    let digits = last.bytes().all(|byte| byte.is_ascii_digit());
    match last.parse::<u64>().ok().filter(|_| digits).and_then(|number| number.checked_add(1)) {
        Some(number) if before.is_empty() && !version.starts_with('.') => number.to_string(),
        Some(number) => format!("{before}.{number}"),
        None => format!("{version}.2"),
    }
}

fn printed(script: &Path, project: &Path) -> Result<String, BumpError> {
    let output = Command::new(script)
        .current_dir(project)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(BumpError::io("run", script))?;
    let failed = |what: String| BumpError::Script { path: script.to_owned(), what };
    if !output.status.success() {
        return Err(failed(format!("ended with {}", output.status)));
    }
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if text.is_empty() || text.contains(char::is_whitespace) || text.contains('\u{fffd}') {
        return Err(failed(format!("printed `{text}`")));
    }
    Ok(text)
}

/// Writes the version of the project. A killed run leaves the old version or the new one.
///
/// # Errors
/// When it can't be written.
pub fn write(project: &Path, version: &str) -> Result<(), BumpError> {
    let file = project.join("mkosi.version");
    let failed = || BumpError::io("write", &file);
    // What a link leads to is written, and the link stays.
    let target = file.canonicalize().unwrap_or_else(|_| file.clone());
    let directory = target.parent().unwrap_or(project);
    let mode = target.metadata().map_or(0o644, |metadata| metadata.permissions().mode() & 0o777);
    let mut new = tempfile::Builder::new().prefix(".mkosi.version-").tempfile_in(directory).map_err(failed())?;
    new.write_all(format!("{version}\n").as_bytes()).map_err(failed())?;
    new.as_file().set_permissions(PermissionsExt::from_mode(mode)).map_err(failed())?;
    new.persist(&target).map_err(|error| failed()(error.error))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn versions() {
        for (old, new) in [
            ("1", "2"),
            ("1.9", "1.10"),
            ("0.1.99", "0.1.100"),
            ("1.0~rc1", "1.0~rc1.2"),
            ("v1", "v1.2"),
            ("2024.", "2024..2"),
            ("1.18446744073709551615", "1.18446744073709551615.2"),
        ] {
            assert_eq!(raised(old), new);
        }
    }

    #[test]
    fn from_file_to_file() {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path();
        assert_eq!(next(project).unwrap(), "1");
        write(project, "1.4").unwrap();
        assert_eq!(std::fs::read_to_string(project.join("mkosi.version")).unwrap(), "1.4\n");
        assert_eq!(next(project).unwrap(), "1.5");
        let script = project.join("mkosi.bump");
        std::fs::write(&script, "#!/bin/sh\necho $(cat mkosi.version)-x\n").unwrap();
        assert!(next(project).unwrap_err().to_string().contains("mkosi.bump"), "not executable");
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(next(project).unwrap(), "1.4-x");
        std::fs::write(&script, "#!/bin/sh\necho two words\n").unwrap();
        assert!(next(project).unwrap_err().to_string().contains("two words"));
        std::fs::set_permissions(project.join("mkosi.version"), PermissionsExt::from_mode(0o755)).unwrap();
        assert!(matches!(next(project).unwrap_err(), BumpError::Executable(_)));
    }

    proptest! {
        #[test]
        fn always_something_else(version in "[0-9a-z.~-]{1,20}") {
            prop_assert_ne!(raised(&version), version);
        }
    }
}
