//! `mkosi burn`: writes a disk image to a drive, and makes its partition table fit.
//!
//! A drive that is in use is refused: by what the kernel says when it is opened for one user alone, and by mounts, swap
//! and devices on top of it.

use std::fs::File;
use std::io::{IsTerminal as _, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::error::{Result, RunError};
use super::process::finished;
use super::settings::Settings;
use super::tools::Tools;
use crate::types::human;

/// What is copied at a time.
const STEP: usize = 4 << 20;

/// Writes the image to the drive that `words` name.
///
/// # Errors
/// When the drive is in use, too small or of other sectors, when the user says no, or when writing fails.
pub fn run(settings: &Settings, tools: &Tools, words: &[String]) -> Result<u8> {
    if !matches!(settings.format.as_str(), "disk" | "esp") {
        return Err(RunError::unfit(
            format!("an image of Format={} can't be written to a drive", settings.format),
            "disk and esp images can",
        ));
    }
    if settings.names.compression() != crate::output::Compression::None {
        return Err(RunError::unfit(
            "a compressed image can't be written to a drive",
            "build it with CompressOutput=no",
        ));
    }
    let [target] = words else {
        return Err(RunError::unfit(
            "`mkosi burn` needs one drive to write to",
            "for example /dev/disk/by-id/usb-…; `lsblk` lists the drives",
        ));
    };
    let image = settings.built()?;
    let target = Path::new(target).canonicalize().map_err(RunError::io("find the drive", target))?;
    let mut source = File::open(&image).map_err(RunError::io("open", &image))?;
    let size = source.metadata().map_err(RunError::io("look at", &image))?.len();
    let drive = Drive::open(&target, Path::new("/"))?;
    check(&source, size, &drive)?;
    if drive.block && std::io::stdin().is_terminal() && !agreed(&image, size, &drive)? {
        return Err(RunError::Other("nothing was written".to_owned()));
    }
    write(&mut source, size, &drive)?;
    if has_table(&source)? {
        move_backup(&drive, tools)?;
    }
    crate::tell!("{} written to {}", human::bytes(size), target.display());
    Ok(0)
}

/// What is written to: a block device, or a file in its place.
struct Drive {
    path: PathBuf,
    file: File,
    block: bool,
    size: u64,
    /// The size of its sectors, where it has any.
    sector: Option<u64>,
    model: String,
}

impl Drive {
    /// Opens a drive that nobody uses. `root` is where `/proc` and `/sys` are looked for.
    fn open(path: &Path, root: &Path) -> Result<Self> {
        let meta = path.metadata().map_err(RunError::io("look at", path))?;
        let block = meta.file_type().is_block_device();
        if !block && !meta.is_file() {
            return Err(RunError::unfit(
                format!("{} is neither a drive nor a file", path.display()),
                "name a block device, as `lsblk` lists them",
            ));
        }
        let mut drive = Self {
            path: path.to_owned(),
            file: open(path, block)?,
            block,
            size: 0,
            sector: None,
            model: String::new(),
        };
        drive.size = drive.file.seek(SeekFrom::End(0)).map_err(RunError::io("find the size of", path))?;
        if block {
            let name = path.file_name().unwrap_or_default();
            let system = root.join("sys/class/block").join(name);
            if let Some(reason) = used(&system, root) {
                return Err(in_use(path, &reason));
            }
            let read = |file: &str| std::fs::read_to_string(system.join(file)).unwrap_or_default().trim().to_owned();
            if system.join("partition").exists() {
                return Err(RunError::unfit(
                    format!("{} is a partition, and the image has partitions of its own", path.display()),
                    "name the whole drive",
                ));
            }
            drive.sector = read("queue/logical_block_size").parse().ok();
            drive.model = read("device/model");
        }
        Ok(drive)
    }
}

fn in_use(path: &Path, reason: &str) -> RunError {
    RunError::unfit(
        format!("{} is in use: {reason}", path.display()),
        "unmount what is on it, if it is the drive that you mean",
    )
}

fn open(path: &Path, block: bool) -> Result<File> {
    let mut options = File::options();
    options.read(true).write(true);
    if block {
        // Of a block device this means: not while anything of it is mounted or belongs to another device (open(2)).
        options.custom_flags(libc::O_EXCL);
    }
    options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => RunError::unfit(
            format!("you may not write to {}", path.display()),
            "run `mkosi burn` as root: for example `sudo mkosi burn`",
        ),
        Some(libc::EBUSY) => in_use(path, "it or a partition of it is mounted, or part of another device"),
        _ => RunError::io("open for writing", path)(error),
    })
}

/// Why a drive can't be overwritten, by what stands in `/sys` and `/proc`: mounts, swap and devices on it or on its
/// partitions.
fn used(system: &Path, root: &Path) -> Option<String> {
    let mut parts = vec![system.to_owned()];
    let below = std::fs::read_dir(system).into_iter().flatten().flatten().map(|entry| entry.path());
    parts.extend(below.filter(|path| path.join("partition").exists()));
    let mounts = std::fs::read_to_string(root.join("proc/self/mountinfo")).unwrap_or_default();
    let swaps = std::fs::read_to_string(root.join("proc/swaps")).unwrap_or_default();
    for part in parts {
        let name = part.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = std::fs::read_to_string(part.join("dev")).unwrap_or_default();
        let number = number.trim();
        let mut mount = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        if let Some(fields) = mount.find(|fields| !number.is_empty() && fields.get(2) == Some(&number)) {
            return Some(format!("{name} is mounted at {}", fields.get(4).copied().unwrap_or("?")));
        }
        if swaps.lines().any(|line| line.split_whitespace().next() == Some(&format!("/dev/{name}"))) {
            return Some(format!("{name} is swap space"));
        }
        let mut holders = std::fs::read_dir(part.join("holders")).into_iter().flatten().flatten();
        if let Some(holder) = holders.next() {
            return Some(format!("{name} is part of {}", holder.file_name().to_string_lossy()));
        }
    }
    None
}

fn check(source: &File, size: u64, drive: &Drive) -> Result<()> {
    let meta = |file: &File| file.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    if meta(source) == meta(&drive.file) {
        return Err(RunError::unfit("the image can't be written to itself", "name another drive"));
    }
    if drive.size < size {
        return Err(RunError::unfit(
            format!("{} has {}, and the image {}", drive.path.display(), human::bytes(drive.size), human::bytes(size)),
            "take a larger one",
        ));
    }
    if let (Some(of_drive), Some(of_image)) = (drive.sector, sector_size(source)?)
        && of_drive != of_image
    {
        return Err(RunError::unfit(
            format!("the image has sectors of {of_image} bytes, and {} of {of_drive}", drive.path.display()),
            format!("build it with SectorSize={of_drive}"),
        ));
    }
    Ok(())
}

/// The size of the sectors that the image's partition table counts in: its header is in the second one.
fn sector_size(source: &File) -> Result<Option<u64>> {
    for size in [512, 1024, 2048, 4096] {
        let mut signature = [0; 8];
        match source.read_exact_at(&mut signature, size) {
            Ok(()) if &signature == b"EFI PART" => return Ok(Some(size)),
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(RunError::Other(format!("can't read the image: {error}"))),
        }
    }
    Ok(None)
}

fn has_table(source: &File) -> Result<bool> {
    sector_size(source).map(|size| size.is_some())
}

fn agreed(image: &Path, size: u64, drive: &Drive) -> Result<bool> {
    let model = if drive.model.is_empty() { String::new() } else { format!(", {}", drive.model) };
    crate::tell_part!(
        "Write {} ({}) to {} ({}{model})? Everything on it is lost. [y/N] ",
        image.display(),
        human::bytes(size),
        drive.path.display(),
        human::bytes(drive.size)
    );
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|error| RunError::Other(format!("can't read the answer: {error}")))?;
    Ok(matches!(line.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Copies all bytes, holes too: what was on the drive must not show through.
fn write(source: &mut File, size: u64, drive: &Drive) -> Result<()> {
    let failed = |error| RunError::io("write to", &drive.path)(error);
    let mut target = &drive.file;
    target.seek(SeekFrom::Start(0)).map_err(failed)?;
    source.seek(SeekFrom::Start(0)).map_err(|error| RunError::Other(format!("can't read the image: {error}")))?;
    let mut buffer = vec![0; STEP];
    let (mut done, mut told) = (0_u64, None);
    let terminal = std::io::stderr().is_terminal();
    while done < size {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Err(RunError::Other("the image became shorter while it was written".to_owned())),
            Ok(count) => count,
            Err(error) => return Err(RunError::Other(format!("can't read the image: {error}"))),
        };
        target.write_all(buffer.get(..count).unwrap_or_default()).map_err(failed)?;
        done += count as u64;
        let percent = done * 100 / size;
        if terminal && told != Some(percent) {
            told = Some(percent);
            crate::tell_part!("\r{percent:3} %");
        }
    }
    if terminal {
        crate::tell_part!("\r     \r");
    }
    drive.file.sync_all().map_err(failed)
}

/// The copy of the partition table belongs at the end of the drive, which may be larger than the image.
fn move_backup(drive: &Drive, tools: &Tools) -> Result<()> {
    let purpose = "make the partition table fit the drive";
    let sfdisk = tools.need(&["sfdisk"], purpose, "install util-linux (package fdisk)")?;
    let mut command = tools.command(&sfdisk);
    command.args(["--quiet", "--no-tell-kernel", "--lock=no", "--relocate", "gpt-bak-std"]).arg(&drive.path);
    finished(&mut command, purpose)?;
    if let (true, Some(blockdev)) = (drive.block, tools.find(&["blockdev"])) {
        // The kernel takes the new table in now; where it can't, it does when the drive is plugged in again.
        let _ = finished(tools.command(&blockdev).arg("--rereadpt").arg(&drive.path), purpose);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drive_in_use_is_found() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let system = root.path().join("sys/class/block/sdx");
        write("sys/class/block/sdx/dev", "8:16\n");
        write("sys/class/block/sdx/sdx1/dev", "8:17\n");
        write("sys/class/block/sdx/sdx1/partition", "1\n");
        let used = || used(&system, root.path());
        assert_eq!(used(), None);
        write("proc/self/mountinfo", "36 1 8:18 / /other rw - ext4 /dev/sdx2 rw\n36 1 8:17 / /data rw - ext4 x rw\n");
        assert_eq!(used().as_deref(), Some("sdx1 is mounted at /data"));
        write("proc/self/mountinfo", "");
        write("proc/swaps", "Filename Type\n/dev/sdx1 partition 1 0 -2\n");
        assert_eq!(used().as_deref(), Some("sdx1 is swap space"));
        write("proc/swaps", "");
        std::fs::create_dir_all(system.join("holders/dm-0")).unwrap();
        assert_eq!(used().as_deref(), Some("sdx is part of dm-0"));
    }

    #[test]
    fn what_can_not_be_written_to() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Drive::open(directory.path(), Path::new("/")).is_err());
        assert!(Drive::open(Path::new("/dev/null"), Path::new("/")).is_err());
        let path = directory.path().join("drive");
        std::fs::write(&path, [0; 100]).unwrap();
        let drive = Drive::open(&path, Path::new("/")).unwrap();
        let image = directory.path().join("image");
        std::fs::write(&image, [0; 101]).unwrap();
        let source = File::open(&image).unwrap();
        assert!(check(&source, 101, &drive).unwrap_err().to_string().contains("larger"));
        assert!(check(&drive.file, 100, &drive).unwrap_err().to_string().contains("itself"));
        let mut table = vec![0; 5000];
        table[4096..4104].copy_from_slice(b"EFI PART");
        std::fs::write(&image, &table).unwrap();
        assert_eq!(sector_size(&File::open(&image).unwrap()).unwrap(), Some(4096));
        std::fs::write(&path, vec![0; 6000]).unwrap();
        let drive = Drive { sector: Some(512), ..Drive::open(&path, Path::new("/")).unwrap() };
        let error = check(&File::open(&image).unwrap(), 5000, &drive).unwrap_err().to_string();
        assert!(error.contains("SectorSize=512"), "{error}");
    }
}
