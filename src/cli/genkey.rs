//! `mkosi genkey`: a key and a certificate for Secure Boot, measurements and verity, made by openssl.
//!
//! Knows nothing of what is signed with them.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::options::Invocation;

/// The length of the RSA key, in bits: what every firmware takes.
const BITS: &str = "rsa:2048";

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
pub enum GenkeyError {
    /// `-C ''`.
    #[error("there is no project to make a key for: leave out -C ''")]
    NoDirectory,
    /// There is a key already.
    #[error(
        "{} exists already; what is signed with it would no longer be trusted with a new one. Move mkosi.key and \
         mkosi.crt away first, or replace both with -f", .0.display()
    )]
    Exists(PathBuf),
    /// The number of days is none.
    #[error("`{0}` is no number of days: write --genkey-valid-days=730 for two years")]
    Days(String),
    /// The name can't stand in a certificate's subject.
    #[error("`{0}` can't be the common name of a certificate: take a text without `/`, `\\` and line ends")]
    Name(String),
    /// openssl is missing.
    #[error("can't start openssl: {0}; install it (Debian: openssl)")]
    NoOpenssl(std::io::Error),
    /// openssl failed.
    #[error("openssl failed: {0}")]
    Openssl(String),
    /// A file could not be written.
    #[error("can't {action} {}: {error}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> GenkeyError {
    let path = path.to_owned();
    move |error| GenkeyError::Io { action, path, error }
}

/// Makes `mkosi.key` and `mkosi.crt` in the project's directory; gives what to tell the user.
///
/// # Errors
/// When there is one of them already, unless forced; when they can't be made.
pub fn genkey(invocation: &Invocation, project: Option<&Path>) -> Result<String, GenkeyError> {
    let project = project.ok_or(GenkeyError::NoDirectory)?;
    let [key, certificate] = ["mkosi.key", "mkosi.crt"].map(|name| project.join(name));
    for path in [&key, &certificate] {
        if path.symlink_metadata().is_ok() && invocation.force == 0 {
            return Err(GenkeyError::Exists(path.clone()));
        }
    }
    let days = &invocation.genkey_valid_days;
    if !days.parse::<u32>().is_ok_and(|days| days > 0) {
        return Err(GenkeyError::Days(days.clone()));
    }
    let name = invocation.genkey_common_name.clone().unwrap_or_else(default_name);
    if name.is_empty() || name.contains(['/', '\\', '\n']) {
        return Err(GenkeyError::Name(name));
    }
    let work =
        tempfile::Builder::new().prefix(".mkosi.genkey-").tempdir_in(project).map_err(io("write in", project))?;
    let [new_key, new_certificate] = ["key", "crt"].map(|name| work.path().join(name));
    // openssl writes into it and leaves its mode: nobody else may read it at any moment.
    let secret = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new_key);
    drop(secret.map_err(io("make", &new_key))?);
    let output = Command::new("openssl")
        .args(["req", "-new", "-x509", "-newkey", BITS, "-nodes", "-days", days, "-subj"])
        .arg(format!("/CN={name}/"))
        .arg("-keyout")
        .arg(&new_key)
        .arg("-out")
        .arg(&new_certificate)
        // The host's own settings may ask for more than a plain certificate.
        .env("OPENSSL_CONF", "/dev/null")
        .stdin(Stdio::null())
        .output()
        .map_err(GenkeyError::NoOpenssl)?;
    if !output.status.success() {
        return Err(GenkeyError::Openssl(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    std::fs::rename(&new_key, &key).map_err(io("put in place", &key))?;
    std::fs::rename(&new_certificate, &certificate).map_err(io("put in place", &certificate))?;
    Ok(format!(
        "made mkosi.key and mkosi.crt for {name}, valid for {days} days\n\
         Keep mkosi.key secret and out of version control. Make new ones before these expire.\n"
    ))
}

/// `mkosi of USER`.
fn default_name() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
    format!("mkosi of {}", user.unwrap_or_else(|| "root".to_owned()))
}
