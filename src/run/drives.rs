//! The drives of a virtual machine: the image, and those of `Drives=` with the files behind them.
//!
//! Knows nothing of the rest of the machine.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::error::{Result, RunError};
use super::qemu::escaped;
use super::settings::{DiskType, Drive, Settings};

/// `O_DIRECT` needs sizes in whole pages.
const PAGE: u64 = 4096;

/// How QEMU may reach a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Through io_uring(7).
    pub io_uring: bool,
    /// Past the page cache.
    pub direct: bool,
}

impl Access {
    /// What works for a file here.
    pub fn of(path: &Path) -> Self {
        let whole = path.metadata().is_ok_and(|meta| meta.len() % PAGE == 0);
        let flags = i32::try_from(OFlags::DIRECT.bits()).unwrap_or(0);
        let direct = whole && File::options().read(true).custom_flags(flags).open(path).is_ok();
        Self { io_uring: super::sys::has_io_uring(), direct }
    }
}

/// The arguments that attach the image. It is called `mkosi` within the machine monitor.
pub fn image(settings: &Settings, path: &Path, access: Access) -> Vec<String> {
    // Only a SCSI disk can be removable.
    let disk_type = match settings.disk_type {
        DiskType::VirtioBlk | DiskType::Nvme if settings.removable => DiskType::VirtioScsi,
        other => other,
    };
    let removable = if settings.removable { ",device_id=mkosi,removable=on" } else { "" };
    let device = match disk_type {
        DiskType::VirtioBlk => "virtio-blk-pci".to_owned(),
        DiskType::VirtioScsi => format!("scsi-hd{removable}"),
        DiskType::Nvme => "nvme,serial=mkosi".to_owned(),
        DiskType::ScsiCd => format!("scsi-cd{removable}"),
    };
    let mut arguments = Vec::new();
    if matches!(disk_type, DiskType::VirtioScsi | DiskType::ScsiCd) {
        arguments.extend(["-device", "virtio-scsi-pci,id=mkosi"].map(str::to_owned));
    }
    let blockdev = [
        "driver=raw".to_owned(),
        "node-name=mkosi".to_owned(),
        "discard=unmap".to_owned(),
        "file.driver=file".to_owned(),
        format!("file.filename={}", escaped(path)),
        format!("file.aio={}", aio(access)),
        format!("cache.direct={}", on(access.direct)),
        format!("cache.no-flush={}", on(settings.ephemeral)),
    ];
    arguments.extend(["-blockdev".to_owned(), blockdev.join(",")]);
    arguments.extend(["-device".to_owned(), format!("{device},drive=mkosi,bootindex=1")]);
    arguments
}

/// The arguments for `Drives=`. Which devices they belong to, `QemuArgs=` says. `files` are those behind them, by file
/// id.
pub fn further(drives: &[Drive], file: impl Fn(&str) -> Option<(PathBuf, Access)>) -> Vec<String> {
    let mut arguments = Vec::new();
    for drive in drives {
        let Some((path, access)) = file(&drive.file_id) else { continue };
        let mut blockdev = vec![
            "driver=raw".to_owned(),
            format!("node-name={}", drive.id),
            "file.driver=file".to_owned(),
            format!("file.filename={}", escaped(&path)),
            format!("file.aio={}", aio(access)),
            "file.locking=off".to_owned(),
            format!("cache.direct={}", on(access.direct)),
            "cache.no-flush=on".to_owned(),
        ];
        blockdev.extend(drive.options.clone());
        arguments.extend(["-blockdev".to_owned(), blockdev.join(",")]);
    }
    arguments
}

fn on(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

fn aio(access: Access) -> &'static str {
    if access.io_uring { "io_uring" } else { "threads" }
}

/// Has btrfs write a file in place, which suits drives; elsewhere, and for one that has contents, it changes nothing.
fn without_copies(file: &File) {
    if let Ok(flags) = rustix::fs::ioctl_getflags(file) {
        let _ = rustix::fs::ioctl_setflags(file, flags | rustix::fs::IFlags::NOCOW);
    }
}

/// The file behind a drive. One that does not persist goes when this is dropped.
pub struct Backing {
    /// Which drives it is for.
    pub file_id: String,
    /// Where it is.
    pub path: PathBuf,
    _temporary: Option<tempfile::TempPath>,
}

/// Makes the files behind the drives: the first drive of a file id says where and how large.
///
/// # Errors
/// When one can't be made.
pub fn make(settings: &Settings) -> Result<Vec<Backing>> {
    let mut files: Vec<Backing> = Vec::new();
    for drive in &settings.drives {
        if files.iter().any(|file| file.file_id == drive.file_id) {
            continue;
        }
        let name = format!("mkosi-drive-{}-{}", settings.machine, drive.file_id);
        let (file, path, temporary) = if drive.persist {
            let path = drive.directory.join(&name);
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
            (file.map_err(RunError::io("make the drive", &path))?, path, None)
        } else {
            let made = tempfile::Builder::new().prefix(&format!("{name}-")).tempfile_in(&drive.directory);
            let (file, path) = made.map_err(RunError::io("make a drive in", &drive.directory))?.into_parts();
            (file, path.to_path_buf(), Some(path))
        };
        without_copies(&file);
        let size = drive.size.next_multiple_of(PAGE);
        let now = file.metadata().map_err(RunError::io("look at the drive", &path))?.len();
        if now > size {
            return Err(RunError::unfit(
                format!("the drive {} has {now} bytes, which is more than the {size} of Drives=", path.display()),
                "remove it if what is on it is no longer needed, or raise the size",
            ));
        }
        file.set_len(size).map_err(RunError::io("set the size of the drive", &path))?;
        files.push(Backing { file_id: drive.file_id.clone(), path, _temporary: temporary });
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_shared_and_grow() {
        let directory = tempfile::tempdir().unwrap();
        let drive = |id: &str, file_id: &str, size, persist| Drive {
            id: id.into(),
            size,
            directory: directory.path().to_owned(),
            options: None,
            file_id: file_id.into(),
            persist,
        };
        let image = crate::config::Image {
            name: "main".into(),
            project: "/p".into(),
            values: [("Architecture", crate::config::Value::text("x86-64"))]
                .into_iter()
                .map(|(name, value)| (name, crate::config::Sourced { value, origin: crate::config::Origin::Default }))
                .collect(),
        };
        let mut settings = Settings::new(&image, None).unwrap();
        settings.drives = vec![drive("a", "x", 5000, true), drive("b", "x", 1, true), drive("c", "c", 4096, false)];
        let files = make(&settings).unwrap();
        assert_eq!(files.len(), 2);
        let kept = directory.path().join("mkosi-drive-main-x");
        assert_eq!(kept.metadata().unwrap().len(), 8192);
        drop(files);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "only the one that persists stays");
        settings.drives = vec![drive("a", "x", 100, true)];
        assert!(make(&settings).is_err(), "nothing is cut off");
    }
}
