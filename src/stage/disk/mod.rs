//! Disk images: the stages that run systemd-repart(8). This part runs the program; the others say what on.
//!
//! A disk is made in two passes. The first makes all partitions but those that a boot loader reads; the kernel command
//! line needs its root hash. The second fills these, when the kernel stage has put unified kernel images into the tree.

mod definitions;
mod extension;
mod grub;
mod image;
mod keys;
mod links;
mod mcopy;
mod mkfs;
mod partitions;
mod quiet;
mod space;
mod tree;

use std::path::{Path, PathBuf};

use definitions::{Definitions, split_definitions};
pub use extension::{esp, extension};
pub use image::run as disk;
pub use partitions::run as partitions;

use super::derived::{of_tree, uuid};
use super::{Context, StageError};
use crate::boot::look::Look;
use crate::output::repart::{self, Reported};
use crate::sandbox::{self, BIN, EXECUTABLE, Input, Mount, Output, Rights, Spec};
use crate::store::{Entry, LABEL};
use crate::types::{Architecture, Encoder};

/// Becomes a program that stands before another one, if that is the name.
pub fn multi_call(name: &str) -> Option<std::process::ExitCode> {
    mcopy::multi_call(name).or_else(|| mkfs::multi_call(name))
}

/// The program.
const REPART: &str = "systemd-repart";
/// The directory of the disk in the sandbox.
const WORK: &str = "/work/disk";
/// What the disk's file is called there, whatever it is published as.
const DISK: &str = "image";

/// The file of a disk that is made in `directory`.
fn disk_file(directory: &Path) -> PathBuf {
    directory.join(format!("{DISK}.raw"))
}

/// One run of the program.
struct Pass<'a> {
    /// What it does, for the log.
    about: &'static str,
    /// The tree that files are copied from, at [`super::context::BUILDROOT`].
    root: Mount,
    /// The definitions' directories in the sandbox, and how they come there.
    definitions: &'a Definitions,
    /// The directory on the host that holds the disk.
    directory: &'a Path,
    /// What identifiers are derived from.
    seed: &'a str,
    /// The time of everything that it makes, in seconds since 1970; later times of files become this one.
    epoch: i64,
    /// Types of partitions that get their place and no contents.
    defer: Vec<String>,
    /// Types of partitions that are left out.
    exclude: Vec<String>,
    /// Arguments of this pass alone.
    more: Vec<String>,
    /// Whether it signs verity hashes, where there are keys.
    signs: bool,
}

/// The version of the program, which has to be one that builds disks from directories.
fn version(cx: &mut Context<'_>) -> Result<u32, StageError> {
    let (mut said, mut complaint) = (Vec::new(), Vec::new());
    let missing = |why: String| {
        StageError::Other(format!(
            "{REPART} {} or newer makes disk images, and it can't be run ({why}): install it (on Debian the package \
             systemd-repart or systemd), or set ToolsTree=default",
            repart::MINIMUM
        ))
    };
    if cx.tools.find(REPART).is_none() {
        return Err(missing("there is no such program".to_owned()));
    }
    let spec = cx.spec(&[REPART, "--version"]);
    let exit = match spec.run(Input::Null, Output::Split(&mut said, &mut complaint), cx.cancel) {
        Ok(exit) => exit,
        Err(crate::sandbox::Error::Setup(why)) => return Err(missing(why)),
        Err(other) => return Err(other.into()),
    };
    let text = String::from_utf8_lossy(&said);
    let Some(version) = repart::read_version(&text).filter(|_| exit.success()) else {
        let complaint = String::from_utf8_lossy(&complaint);
        return Err(missing(format!("it said: {}", text.lines().chain(complaint.lines()).next().unwrap_or("nothing"))));
    };
    new_enough(version)
}

fn new_enough(version: u32) -> Result<u32, StageError> {
    if version < repart::MINIMUM {
        return Err(StageError::Other(format!(
            "{REPART} is of version {version}, and disk images need {} or newer: set ToolsTree=default",
            repart::MINIMUM
        )));
    }
    Ok(version)
}

/// Runs a pass and reads its report.
fn run(cx: &mut Context<'_>, pass: Pass<'_>) -> Result<Vec<Reported>, StageError> {
    cx.note(pass.about);
    let mut spec = command(cx, &pass)?;
    if pass.signs {
        keys::add(cx, &mut spec)?;
    }
    let mut report = Vec::new();
    let exit = {
        let mut log = quiet::Quiet::new(&mut *cx.log);
        spec.run(Input::Null, Output::Split(&mut report, &mut log), cx.cancel)?
    };
    if !exit.success() {
        if cx.cancel.is_cancelled() {
            return Err(StageError::Cancelled);
        }
        if let Some(error) = cannot_defer(cx, &pass)? {
            return Err(error);
        }
        return Err(StageError::Command { command: REPART.to_owned(), exit });
    }
    repart::read_report(&report).map_err(StageError::other)
}

/// What to do where the program failed since it is too old for `Verity=defer`.
fn cannot_defer(cx: &mut Context<'_>, pass: &Pass<'_>) -> Result<Option<StageError>, StageError> {
    if !pass.signs || cx.view.text("Verity") != Some("defer") || !pass.definitions.want_signature() {
        return Ok(None);
    }
    let version = version(cx)?;
    if version >= repart::DEFERS_SIGNATURES {
        return Ok(None);
    }
    let text = format!(
        "{REPART} is of version {version}, which wants the key even where the signature is made elsewhere (Verity=defer); \
         {} does not. Use newer tools (ToolsTree=default with a ToolsTreeRelease= that has them), or set Verity=hash and \
         leave the signature's partition out of the definitions",
        repart::DEFERS_SIGNATURES
    );
    Ok(Some(StageError::Setting { setting: "Verity".to_owned(), text }))
}

fn command(cx: &Context<'_>, pass: &Pass<'_>) -> Result<Spec, StageError> {
    let mut spec = cx.spec(&[REPART]);
    let always = ["--empty=allow", "--size=auto", "--dry-run=no", "--json=pretty", "--no-pager"];
    spec.argv.extend(always.map(str::to_owned));
    spec.argv.push(format!("--offline={}", if cx.profile.loop_devices { "no" } else { "yes" }));
    spec.argv.push(format!("--root={}", super::context::BUILDROOT));
    spec.argv.push(format!("--seed={}", pass.seed));
    let architecture = cx.view.text("Architecture").unwrap_or_default();
    if architecture != Architecture::host().name() {
        spec.argv.push(format!("--architecture={architecture}"));
    }
    if !disk_file(pass.directory).exists() {
        spec.argv.push("--empty=create".to_owned());
    }
    if let Some(size) = cx.view.get("SectorSize").as_number() {
        spec.argv.push(format!("--sector-size={size}"));
    }
    for (option, types) in [("--defer-partitions", &pass.defer), ("--exclude-partitions", &pass.exclude)] {
        if !types.is_empty() {
            spec.argv.push(format!("{option}={}", types.join(",")));
        }
    }
    spec.argv.extend(pass.definitions.targets.iter().map(|target| format!("--definitions={target}")));
    spec.argv.extend(pass.more.iter().cloned());
    spec.argv.push(disk_file(Path::new(WORK)).to_string_lossy().into_owned());

    spec.mounts.push(space::temporary(cx)?);
    spec.mounts.push(Mount::Bind {
        source: pass.directory.to_path_buf(),
        target: WORK.into(),
        read_only: false,
        optional: false,
    });
    spec.mounts.push(pass.root.clone());
    let before = mkfs::NAMES.into_iter().filter(|name| cx.tools.find(name).is_some());
    for name in before.chain([mcopy::NAME]) {
        spec.mounts.push(Mount::Symlink { target: Path::new(BIN).join(name), points_to: EXECUTABLE.into() });
    }
    spec.mounts.extend(pass.definitions.mounts.iter().cloned());
    if let Some((_, source)) = cx.sources_of("Passphrase").first() {
        const PASSPHRASE: &str = "/work/passphrase";
        spec.argv.push(format!("--key-file={PASSPHRASE}"));
        spec.mounts.extend(super::extra::source_mount(cx, source, PASSPHRASE)?);
    }
    environment(cx, pass, &mut spec)?;
    if cx.profile.loop_devices {
        spec.mounts.extend(sandbox::loop_devices().map_err(|error| {
            StageError::Other(format!("RepartOffline=no makes file systems on loop devices: {error}"))
        })?);
        spec.rights = Rights::Mounts;
    } else if has_labels(cx) {
        spec.rights = cx.label_rights();
    }
    Ok(spec)
}

/// Whether the files of the tree have labels of its own policy: copies of them lose these where the right to write them is
/// missing. Where the host has SELinux, all files have labels, which say nothing of the image.
fn has_labels(cx: &Context<'_>) -> bool {
    let labelled = |entry: &Entry| entry.meta.xattrs.contains_key(LABEL);
    cx.layers.iter().flat_map(|layer| &layer.index.entries).any(labelled)
        && Look::new(&cx.merged()).exists(super::selinux::CONFIG)
}

/// The user's variables, then those that make equal bytes of equal inputs.
fn environment(cx: &Context<'_>, pass: &Pass<'_>, spec: &mut Spec) -> Result<(), StageError> {
    for (name, value) in super::script::variables(cx) {
        spec.env.entry(name).or_insert(value);
    }
    spec.env.insert("SOURCE_DATE_EPOCH".to_owned(), pass.epoch.to_string());
    // Since xfsprogs 6.16.
    spec.env.insert("DETERMINISTIC_SEED".to_owned(), "1".to_owned());
    let old_kernel = match (cx.view.text("Distribution"), cx.view.text("Release")) {
        (Some("centos"), Some(release)) => release.starts_with('9'),
        (Some("ubuntu"), Some("jammy")) => true,
        _ => false,
    };
    for filesystem in ["EXT2", "EXT3", "EXT4"] {
        let name = format!("SYSTEMD_REPART_MKFS_OPTIONS_{filesystem}");
        let user = spec.env.get(&name).map(String::as_str);
        let options = ext_options(user, pass.seed, old_kernel && filesystem == "EXT4");
        spec.env.insert(name, options);
    }
    Ok(())
}

/// What mke2fs(8) is given beside what systemd-repart gives it. The seed of its directory hashes is drawn at random
/// otherwise; of several `-E` the last one counts, so that it has to repeat what systemd-repart says there. A user's
/// own `-E` stays alone. The kernels of some releases don't know the feature `orphan_file`.
fn ext_options(user: Option<&str>, seed: &str, old_kernel: bool) -> String {
    let mut options: Vec<String> = user.map(str::to_owned).into_iter().collect();
    if !user.is_some_and(|user| user.split_whitespace().any(|word| word.starts_with("-E"))) {
        let seed = uuid_of("mkosi.hash-seed", seed);
        options.insert(0, format!("-E discard,lazy_itable_init=1,hash_seed={seed}"));
    }
    if old_kernel && user.is_none() {
        options.push("-O ^orphan_file".to_owned());
    }
    options.join(" ")
}

/// `Seed=`, or else one that follows from the tree: equal images are equal, and others have other identifiers.
fn seed(cx: &Context<'_>) -> String {
    match cx.view.text("Seed") {
        Some(seed) if seed != "random" => seed.to_owned(),
        _ => uuid(&of_tree(cx, "mkosi.seed")),
    }
}

fn uuid_of(domain: &str, text: &str) -> String {
    uuid(&Encoder::new(domain, 1).str(text).finish())
}

/// The types of the partitions with verity's signature.
fn signature_types(architecture: &str) -> Vec<String> {
    ["root", "usr"].map(|name| format!("{name}-{architecture}-verity-sig")).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_ext4_keep_what_the_user_says() {
        let seed = "0e9a6fe0-68f6-408c-be13-136054d20445";
        let hash_seed = uuid_of("mkosi.hash-seed", seed);
        assert_ne!(hash_seed, seed);
        let extended = format!("-E discard,lazy_itable_init=1,hash_seed={hash_seed}");
        assert_eq!(ext_options(None, seed, false), extended);
        assert_eq!(ext_options(Some("-m 1"), seed, true), format!("{extended} -m 1"));
        assert_eq!(ext_options(Some("-E nodiscard"), seed, false), "-E nodiscard");
        assert_eq!(ext_options(None, seed, true), format!("{extended} -O ^orphan_file"));
    }

    #[test]
    fn an_old_program_is_told_with_its_version() {
        assert_eq!(new_enough(254).unwrap(), 254);
        let told = new_enough(252).unwrap_err().to_string();
        assert!(told.contains("252") && told.contains("254") && told.contains("ToolsTree=default"), "{told}");
    }
}
