//! The kernel and initrd of a direct boot, and what the kernel finds its root file system by.
//!
//! Knows nothing of QEMU.

use std::path::{Path, PathBuf};

use object::read::pe::{PeFile32, PeFile64};
use object::{Object as _, ObjectSection as _};
use serde::Deserialize;

use super::error::{Result, RunError};
use super::process::finished;
use super::settings::Settings;
use super::tools::Tools;

/// What a kernel file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A UEFI program: a kernel with its EFI stub.
    Pe,
    /// A unified kernel image.
    Uki,
    /// Something that only QEMU can load.
    Unknown,
}

/// Looks into a kernel file.
///
/// # Errors
/// When it can't be read.
pub fn identify(path: &Path) -> Result<Kind> {
    let data = std::fs::read(path).map_err(RunError::io("read the kernel", path))?;
    let names: Vec<String> = if let Ok(file) = PeFile64::parse(data.as_slice()) {
        file.sections().filter_map(|section| section.name().ok().map(str::to_owned)).collect()
    } else if let Ok(file) = PeFile32::parse(data.as_slice()) {
        file.sections().filter_map(|section| section.name().ok().map(str::to_owned)).collect()
    } else {
        return Ok(Kind::Unknown);
    };
    let has = |name: &str| names.iter().any(|section| section == name);
    // As bootctl(1) tells them apart.
    Ok(if has(".linux") && has(".sdmagic") && has(".osrel") { Kind::Uki } else { Kind::Pe })
}

/// The initrd for a direct boot: the one beside the image, or those of `Initrds=`, joined in `directory`.
///
/// # Errors
/// When one can't be read, or the joined one not be written.
pub fn initrd(settings: &Settings, directory: &Path) -> Result<Option<PathBuf>> {
    let beside = settings.beside("initrd");
    if beside.exists() {
        return Ok(Some(beside));
    }
    if let Some(missing) = settings.initrds.iter().find(|path| !path.exists()) {
        return Err(RunError::unfit(
            format!("there is no initrd {}, which Initrds= names", missing.display()),
            "build the image again, which makes the default initrd, or name a file that is there",
        ));
    }
    match settings.initrds.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.clone())),
        several => {
            let mut joined = Vec::new();
            for path in several {
                joined.extend(std::fs::read(path).map_err(RunError::io("read the initrd", path))?);
                // The kernel looks for the next one at a multiple of four.
                joined.resize(joined.len().next_multiple_of(4), 0);
            }
            let path = directory.join("initrd");
            std::fs::write(&path, joined).map_err(RunError::io("write", &path))?;
            Ok(Some(path))
        }
    }
}

/// A partition as `systemd-repart --json=short` tells of it.
#[derive(Clone, Debug, Deserialize)]
struct Partition {
    #[serde(rename = "type")]
    kind: String,
    uuid: String,
}

/// The options that name the root file system of a disk image, and /usr where it is one of its own: a system that no boot
/// loader started can't find them out.
///
/// # Errors
/// When systemd-repart is missing or fails, or the image has neither a root nor a /usr partition.
pub fn root_of_disk(image: &Path, tools: &Tools) -> Result<Vec<String>> {
    let purpose = "find the root partition for a direct kernel boot";
    let repart = tools.need(
        &["systemd-repart"],
        purpose,
        "install systemd-repart, or give root= in \
                            --kernel-command-line-extra",
    )?;
    let mut command = tools.command(&repart);
    command.args(["--json=short", "--definitions=/", "--dry-run=yes"]).arg(image);
    let output = finished(&mut command, purpose)?;
    let partitions: Vec<Partition> = serde_json::from_slice(&output.stdout)
        .map_err(|error| RunError::Other(format!("systemd-repart printed no list of partitions: {error}")))?;
    let options = root_options(&partitions);
    if options.is_empty() {
        return Err(RunError::unfit(
            format!("{} has neither a root nor a /usr partition to boot from", image.display()),
            "give root= in --kernel-command-line-extra, or use --firmware=uefi",
        ));
    }
    Ok(options)
}

/// The root hash of a file system with verity is the UUIDs of its two partitions, one after the other (the
/// Discoverable Partitions Specification).
fn root_options(partitions: &[Partition]) -> Vec<String> {
    let is = |partition: &&Partition, what: &str, verity: bool| {
        partition.kind.starts_with(what)
            && !partition.kind.ends_with("-verity-sig")
            && partition.kind.ends_with("-verity") == verity
    };
    let option = |(what, hash, plain): (&str, &str, &str)| {
        let data = partitions.iter().find(|partition| is(partition, what, false))?;
        let verity = partitions.iter().find(|partition| is(partition, what, true));
        Some(match verity {
            Some(verity) => format!("{hash}={}{}", data.uuid, verity.uuid).replace('-', ""),
            None => format!("{plain}=PARTUUID={}", data.uuid),
        })
    };
    [("root", "roothash", "root"), ("usr", "usrhash", "mount.usr")].into_iter().filter_map(option).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(partitions: &[(&str, &str)]) -> String {
        let partition = |(kind, uuid): &(&str, &str)| Partition { kind: (*kind).into(), uuid: (*uuid).into() };
        root_options(&partitions.iter().map(partition).collect::<Vec<_>>()).join(" ")
    }

    #[test]
    fn the_root_of_a_disk() {
        assert_eq!(options(&[("esp", "1"), ("root-x86-64", "a-b")]), "root=PARTUUID=a-b");
        assert_eq!(options(&[("usr-arm64", "a-b")]), "mount.usr=PARTUUID=a-b");
        let verity = [("root-x86-64-verity-sig", "9-9"), ("root-x86-64-verity", "cc-d"), ("root-x86-64", "aa-b")];
        assert_eq!(options(&verity), "roothash=aabccd");
        let usr = [("usr-x86-64-verity", "2-2"), ("usr-x86-64", "1-1")];
        assert_eq!(options(&usr), "usrhash=1122");
        assert_eq!(options(&[usr[0], usr[1], ("root-x86-64", "a-b")]), "root=PARTUUID=a-b usrhash=1122");
        assert_eq!(options(&[("esp", "1")]), "");
    }

    #[test]
    fn what_is_no_program_is_unknown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"MZ and no more").unwrap();
        assert_eq!(identify(file.path()).unwrap(), Kind::Unknown);
        assert!(identify(Path::new("/nowhere")).is_err());
    }
}
