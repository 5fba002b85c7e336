//! The image while it runs: either locked, or a copy that goes afterwards (`Ephemeral=`); and its size.
//!
//! Knows nothing of what runs it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{FlockOperation, flock};

use super::error::{Result, RunError};
use super::process::finished;
use super::settings::Settings;
use super::tools::Tools;

/// The image for the time that it runs.
pub struct Snapshot {
    /// Where it is.
    pub path: PathBuf,
    copied: bool,
    _lock: Option<File>,
}

impl Snapshot {
    /// Takes the image of the settings, which has to be built.
    ///
    /// # Errors
    /// When another machine runs on it, or it can't be copied.
    pub fn take(settings: &Settings, image: &Path) -> Result<Self> {
        if matches!(settings.format.as_str(), "cpio" | "uki") {
            // They are only read.
            return Ok(Self { path: image.to_owned(), copied: false, _lock: None });
        }
        let open = || File::open(image).map_err(RunError::io("open", image));
        if !settings.ephemeral {
            let lock = open()?;
            return match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok(Self { path: image.to_owned(), copied: false, _lock: Some(lock) }),
                Err(rustix::io::Errno::AGAIN) => Err(RunError::unfit(
                    format!("{} is in use by another machine", image.display()),
                    "--ephemeral=yes runs a copy",
                )),
                Err(error) => Err(RunError::io("lock", image)(error.into())),
            };
        }
        let lock = open()?;
        flock(&lock, FlockOperation::LockShared).map_err(|error| RunError::io("lock", image)(error.into()))?;
        let real = image.canonicalize().map_err(RunError::io("find", image))?;
        let directory = real.parent().unwrap_or(Path::new("/"));
        // Beside the image: a file system that can share blocks does so only within itself. The name becomes part of a
        // socket's, so it is short.
        let name = real.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let place = tempfile::Builder::new().prefix(&format!(".{name}-")).rand_bytes(12).tempdir_in(directory);
        let path = place.map_err(RunError::io("make a copy of the image in", directory))?.keep();
        let mut snapshot = Self { path: path.clone(), copied: true, _lock: None };
        let mut copy = Command::new("cp");
        copy.args(["--archive", "--reflink=auto", "--sparse=auto", "--no-target-directory", "--"]).arg(&real);
        if real.is_dir() {
            finished(copy.arg(&path), "copy the image")?;
        } else {
            // The directory only held the name.
            std::fs::remove_dir(&path).map_err(RunError::io("remove", &path))?;
            snapshot.path = path;
            finished(copy.arg(&snapshot.path), "copy the image")?;
        }
        Ok(snapshot)
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.copied {
            return;
        }
        let removed = match self.path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => crate::store::remove_tree(&self.path).map_err(|error| error.to_string()),
            Ok(_) => std::fs::remove_file(&self.path).map_err(|error| error.to_string()),
            Err(_) => Ok(()),
        };
        if let Err(error) = removed {
            crate::tell!("warning: can't remove the copy of the image {}: {error}", self.path.display());
        }
    }
}

/// Grows a disk image (`RuntimeSize=`).
///
/// # Errors
/// When systemd-repart is missing or fails.
pub fn grow(settings: &Settings, image: &Path, tools: &Tools) -> Result<()> {
    let (Some(size), "disk") = (settings.size, settings.format.as_str()) else { return Ok(()) };
    let purpose = "grow the image to RuntimeSize=";
    let repart = tools.need(&["systemd-repart"], purpose, "install systemd-repart, or leave out RuntimeSize=")?;
    let mut command = tools.command(&repart);
    command.args(["--definitions=/", "--no-pager", "--pretty=no", "--dry-run=no"]);
    let size = size.next_multiple_of(4096);
    finished(command.arg(format!("--size={size}")).arg(image), purpose)?;
    let now = image.metadata().map_err(RunError::io("look at", image))?.len();
    if now < size {
        // Old ones do nothing, and don't say so, where there are no definitions.
        return Err(RunError::unfit(
            format!("systemd-repart left the image at {}", crate::types::human::bytes(now)),
            "RuntimeSize= takes systemd-repart 254 or later, which the default tools tree has",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Image, Origin, Sourced, Value};

    fn settings(directory: &Path, format: &str, ephemeral: bool) -> Settings {
        let values = [
            ("Architecture", Value::text("x86-64")),
            ("Format", Value::text(format)),
            ("Ephemeral", Value::Bool(ephemeral)),
        ];
        let values = values.into_iter().map(|(name, value)| (name, Sourced { value, origin: Origin::Default }));
        let image = Image { name: "main".into(), project: directory.to_owned(), values: values.collect() };
        Settings::new(&image, None).unwrap()
    }

    #[test]
    fn one_machine_at_a_time_or_copies() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image.raw");
        std::fs::write(&image, "x").unwrap();
        let fixed = settings(directory.path(), "disk", false);
        let first = Snapshot::take(&fixed, &image).unwrap();
        let error = Snapshot::take(&fixed, &image).err().unwrap().to_string();
        assert!(error.contains("--ephemeral=yes"), "{error}");
        drop(first);
        let moving = settings(directory.path(), "disk", true);
        let (one, two) = (Snapshot::take(&moving, &image).unwrap(), Snapshot::take(&moving, &image).unwrap());
        std::fs::write(&one.path, "changed").unwrap();
        assert_eq!((std::fs::read(&two.path).unwrap(), std::fs::read(&image).unwrap()), (b"x".into(), b"x".into()));
        drop((one, two));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_copy_of_a_tree() {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        std::fs::create_dir_all(image.join("etc")).unwrap();
        std::fs::write(image.join("etc/file"), "x").unwrap();
        let copy = Snapshot::take(&settings(directory.path(), "directory", true), &image).unwrap();
        assert_eq!(std::fs::read(copy.path.join("etc/file")).unwrap(), b"x");
        let path = copy.path.clone();
        drop(copy);
        assert!(!path.exists() && image.join("etc/file").exists());
    }
}
