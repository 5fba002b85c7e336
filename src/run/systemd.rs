//! `mkosi journalctl`, `coredumpctl` and `sysupdate`: systemd's own tools on the outputs.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::error::{Result, RunError};
use super::process::{self, Unwatched, become_program, finished};
use super::settings::Settings;
use super::tools::Tools;

/// Becomes a tool that looks into the image.
///
/// # Errors
/// When the image isn't one that it can look into, or the tool can't be started; otherwise it does not return.
pub fn inspect(settings: &Settings, tools: &Tools, tool: &str, extra: &[String]) -> Result<u8> {
    if !matches!(settings.format.as_str(), "disk" | "directory") {
        return Err(RunError::unfit(
            format!("{tool} can't look into an image of Format={}", settings.format),
            "it looks into directory and disk images",
        ));
    }
    if settings.ephemeral {
        return Err(RunError::unfit(
            format!("{tool} finds nothing: with Ephemeral= what a machine wrote is removed with its copy of the image"),
            "boot it with --ephemeral=no, and look again",
        ));
    }
    let image = settings.built()?;
    let program =
        tools.need(&[tool], "look into the image", "install systemd (coredumpctl: package systemd-coredump)")?;
    let option = if image.is_dir() { "--root" } else { "--image" };
    let mut command = tools.command(&program);
    command.arg(option).arg(&image).args(extra).envs(settings.environment.iter().cloned());
    Err(become_program(&mut command))
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
    let program = tools.need(
        &["systemd-sysupdate"],
        "update the host from the outputs",
        "install it (package systemd or systemd-container 251 or later)",
    )?;
    let _parts = if settings.format == "disk" && !settings.split_partitions {
        Some(split(settings, tools, &image)?)
    } else {
        None
    };
    let mut command = tools.command(&program);
    command.args(sysupdate_arguments(settings, definitions, extra)).envs(settings.environment.iter().cloned());
    let ended = process::run_machine(&mut command, &mut Unwatched, |_| Ok(()))?;
    Ok(process::status_of(ended.status))
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
    command.args(["--no-pager", "--pretty=no", "--split=yes", "--dry-run=no"]);
    command.args(settings.repart.iter().map(|directory| format!("--definitions={}", directory.display())));
    finished(command.arg(image), purpose)?;
    Ok(Parts(files()?.difference(&before).cloned().collect()))
}
