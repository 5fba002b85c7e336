//! What other verbs have to know of a virtual machine that runs: one file for each, in the user's runtime directory.
//!
//! Knows nothing of how it runs.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::error::{Result, RunError};

/// A virtual machine that runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Running {
    /// Its name.
    pub machine: String,
    /// The process of mkosi.
    pub pid: u32,
    /// The command that gets a connection to it for SSH.
    pub proxy_command: String,
    /// Its connection id.
    #[serde(default)]
    pub cid: Option<u32>,
    /// The private key to log in with.
    pub ssh_key: Option<PathBuf>,
}

/// Where the files are.
pub fn directory() -> PathBuf {
    // The first is a user's session's, the second a service's (systemd.exec(5)).
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let own = named("XDG_RUNTIME_DIR").or_else(|| named("RUNTIME_DIRECTORY"));
    let uid = rustix::process::getuid();
    let runtime = match own {
        Some(path) => path,
        None if uid.is_root() => PathBuf::from("/run"),
        None => PathBuf::from(format!("/run/user/{}", uid.as_raw())),
    };
    runtime.join("mkosi/machine")
}

fn path(directory: &Path, machine: &str) -> PathBuf {
    directory.join(format!("{}.json", machine.replace('/', "-")))
}

fn locked(directory: &Path) -> Result<File> {
    let file = File::open(directory).map_err(RunError::io("open", directory))?;
    flock(&file, FlockOperation::LockExclusive).map_err(|error| RunError::io("lock", directory)(error.into()))?;
    Ok(file)
}

fn read(path: &Path) -> Option<Running> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// The entry of a machine, which goes when this is dropped.
pub struct Entry {
    path: PathBuf,
}

impl Entry {
    /// Enters a machine.
    ///
    /// # Errors
    /// When another one of that name runs, or the file can't be written.
    pub fn new(directory: &Path, running: &Running) -> Result<Self> {
        std::fs::create_dir_all(directory).map_err(RunError::io("make", directory))?;
        let _lock = locked(directory)?;
        let path = path(directory, &running.machine);
        if read(&path).is_some_and(|other| Path::new("/proc").join(other.pid.to_string()).exists()) {
            return Err(RunError::unfit(
                format!("a virtual machine named {} is running already", running.machine),
                "give this one another name with --machine=",
            ));
        }
        let text = serde_json::to_vec_pretty(running).unwrap_or_default();
        std::fs::write(&path, text).map_err(RunError::io("write", &path))?;
        Ok(Self { path })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The virtual machine of a name.
///
/// # Errors
/// When none runs.
pub fn find(directory: &Path, machine: &str) -> Result<Running> {
    let path = path(directory, machine);
    let running = read(&path).filter(|running| Path::new("/proc").join(running.pid.to_string()).exists());
    running.ok_or_else(|| {
        RunError::unfit(
            format!(
                "no virtual machine named {machine} with a VSock device is running: there is no {}",
                path.display()
            ),
            "start it with `mkosi vm`; --vsock=yes says why it has no VSock device",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_name() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("mkosi/machine");
        let mut running = Running {
            machine: "m".into(),
            pid: std::process::id(),
            proxy_command: "x".into(),
            cid: Some(3),
            ssh_key: Some("/key".into()),
        };
        let entry = Entry::new(&directory, &running).unwrap();
        assert_eq!(find(&directory, "m").unwrap(), running);
        assert!(Entry::new(&directory, &running).is_err());
        drop(entry);
        assert!(find(&directory, "m").unwrap_err().to_string().contains("mkosi vm"));
        // One whose mkosi was killed.
        running.pid = u32::MAX;
        std::mem::forget(Entry::new(&directory, &running).unwrap());
        assert!(find(&directory, "m").is_err());
        assert!(Entry::new(&directory, &running).is_ok());
    }
}
