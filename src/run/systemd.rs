//! `mkosi journalctl`, `coredumpctl` and `sysupdate`: systemd's own tools on the outputs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::{Result, RunError};
use super::process::{self, Unwatched, become_program, finished};
use super::settings::Settings;
use super::tools::Tools;

/// Becomes a tool that looks into the image, or into the journal that a machine sent to the host where nothing stays in
/// the image.
///
/// # Errors
/// When there is nothing that it can look into, or the tool can't be started; otherwise it does not return.
pub fn inspect(settings: &Settings, tools: &Tools, tool: &str, extra: &[String]) -> Result<u8> {
    let (option, place) = journal(settings, tool)?;
    let purpose = "look for what the system wrote";
    let program = tools.need(&[tool], purpose, "install systemd (coredumpctl: package systemd-coredump)")?;
    Err(become_program(tools.command(&program).arg(option).arg(&place).args(extra)))
}

/// Where the journal is, and the option that says so.
fn journal(settings: &Settings, tool: &str) -> Result<(&'static str, PathBuf)> {
    let fits = matches!(settings.format.as_str(), "disk" | "directory");
    let packed = settings.names.compression() != crate::output::Compression::None;
    if fits && !packed && !settings.ephemeral {
        let image = settings.built()?;
        return Ok((if image.is_dir() { "--root" } else { "--image" }, image));
    }
    if let Some(target) = &settings.forward_journal {
        return match target.metadata() {
            Ok(meta) => Ok((if meta.is_dir() { "--directory" } else { "--file" }, target.clone())),
            Err(error) => Err(RunError::unfit(
                format!("{tool} can't read the journal of ForwardJournal= at {}: {error}", target.display()),
                "boot the image first",
            )),
        };
    }
    Err(match (fits, packed) {
        (false, _) => RunError::unfit(
            format!("{tool} can't look into an image of Format={}", settings.format),
            "it looks into directory and disk images, and into the journal of ForwardJournal=",
        ),
        (true, true) => RunError::unfit(
            format!("{tool} can't look into a compressed image"),
            "build it with CompressOutput=no, or name the journal of a machine with --forward-journal=PATH",
        ),
        (true, false) => RunError::unfit(
            format!("{tool} finds nothing: with Ephemeral= what a machine wrote is removed with its copy of the image"),
            "boot it with --ephemeral=no or --forward-journal=PATH, and look again",
        ),
    })
}

/// The command line of systemd-sysupdate, without the program.
pub fn sysupdate_arguments(settings: &Settings, definitions: &Path, extra: &[String]) -> Vec<String> {
    let mut arguments = vec![
        format!("--definitions={}", definitions.display()),
        format!("--transfer-source={}", settings.directory.display()),
    ];
    arguments.extend(extra.iter().cloned());
    arguments
}

/// Runs systemd-sysupdate with the outputs as its source; gives the status that it ends with.
///
/// # Errors
/// When there are no definitions, or a tool is missing or can't be started.
pub fn sysupdate(settings: &Settings, tools: &Tools, extra: &[String]) -> Result<u8> {
    let Some(definitions) = &settings.sysupdate else {
        return Err(RunError::unfit(
            "there are no transfer definitions for systemd-sysupdate",
            "put them into mkosi.sysupdate/, or name their directory with SysupdateDirectory=",
        ));
    };
    let image = settings.built()?;
    let hint = "install it (package systemd or systemd-container, of systemd 257 or later)";
    let purpose = "update the host from the outputs";
    let program = tools.need(&["systemd-sysupdate"], purpose, hint)?;
    let version = process::systemd_version(&program, tools)?;
    if version < TRANSFER_SOURCE {
        return Err(RunError::unfit(
            format!("systemd-sysupdate can't be told where the outputs are: it has version {version}"),
            format!("that takes version {TRANSFER_SOURCE}, which the default tools tree has (ToolsTree=default)"),
        ));
    }
    let _parts = if settings.format == "disk" && !settings.split_partitions {
        Some(split(settings, tools, &image)?)
    } else {
        None
    };
    let place = tempfile::Builder::new().prefix("mkosi-sysupdate-").tempdir();
    let place = place.map_err(RunError::io("make a directory in", std::env::temp_dir()))?;
    let mut command = tools.command_seeing(&program, None, of_host(tools, place.path())?);
    command.args(sysupdate_arguments(settings, definitions, extra));
    let ended = process::run_machine(&mut command, &mut Unwatched, |_| Ok(()))?;
    Ok(process::status_of(ended.status))
}

/// systemd-sysupdate has `--transfer-source=` from this version on.
const TRANSFER_SOURCE: u32 = 257;
/// Where the system in the initrd of a host notes its root device, where that can't be told from `/`.
const VOLATILE_ROOT: &str = "volatile-root";

/// What the systemd-sysupdate of a tools tree has to see of the host, which it updates: what the host is, and its root
/// device, since `/` is another file system there. The directory `place` stands at `/run/systemd` then.
fn of_host(tools: &Tools, place: &Path) -> Result<Vec<(PathBuf, PathBuf)>> {
    let release = PathBuf::from("/usr/lib/os-release");
    if tools.are_of_host() {
        return Ok(Vec::new());
    }
    let mut shown = vec![(release.clone(), release)];
    match root_device(&Tools::new(Vec::new())) {
        Ok(device) => {
            let link = place.join(VOLATILE_ROOT);
            std::os::unix::fs::symlink(&device, &link).map_err(RunError::io("make the link", &link))?;
            shown.push((place.to_owned(), "/run/systemd".into()));
        }
        // Most transfers need none.
        Err(error) => crate::tell!("note: transfers to partitions of the host with Path=auto can't work: {error}"),
    }
    Ok(shown)
}

/// The device of the host's root file system, by programs of the host: only outside of the tree `/` is the host's.
fn root_device(host: &Tools) -> Result<String> {
    let purpose = "tell the root device";
    let ask = |program: &Path, arguments: &[&str]| {
        finished(host.command(program).args(arguments), purpose)
            .map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    // It sees through encryption too; older ones can't tell.
    let told = match host.find(&["bootctl"]) {
        Some(bootctl) => ask(&bootctl, &["--print-root-device"]),
        None => Err(host.missing("bootctl", purpose, "install it (package systemd-boot)")),
    };
    told.or_else(|error| {
        let mounted = host.find(&["findmnt"]).map(|findmnt| ask(&findmnt, &["-nvo", "SOURCE", "/"]));
        match mounted {
            Some(Ok(device)) if device.starts_with("/dev/") && !device.starts_with("/dev/mapper/") => Ok(device),
            _ => Err(error),
        }
    })
}

/// Partitions in files of their own, which go when this is dropped.
struct Parts(Vec<PathBuf>);

impl Drop for Parts {
    fn drop(&mut self) {
        for path in &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Makes files of the partitions beside the image, for transfers of single partitions.
fn split(settings: &Settings, tools: &Tools, image: &Path) -> Result<Parts> {
    let files = || -> Result<BTreeSet<PathBuf>> {
        let entries = std::fs::read_dir(&settings.directory);
        let entries = entries.map_err(RunError::io("read the directory", &settings.directory))?;
        Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect())
    };
    let purpose = "split the image into its partitions";
    let repart =
        tools.need(&["systemd-repart"], purpose, "install systemd-repart, or build with SplitArtifacts=partitions")?;
    let before = files()?;
    let mut command = tools.command(&repart);
    // No partition is made or changed: the definitions may be others than those that the image was built with.
    command.args(["--no-pager", "--pretty=no", "--split=yes", "--dry-run=yes"]);
    command.args(settings.repart.iter().map(|directory| format!("--definitions={}", directory.display())));
    finished(command.arg(image), purpose)?;
    Ok(Parts(files()?.difference(&before).cloned().collect()))
}
