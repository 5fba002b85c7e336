//! `mkosi shell` and `mkosi boot`: makes what a container needs, starts systemd-nspawn, and waits for its end.
//!
//! The command line stands in `nspawn`.

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use super::credentials;
use super::error::{Result, RunError};
use super::journal;
use super::nspawn::{self, Parts};
use super::process::{self, Helper, Unwatched, finished};
use super::settings::Settings;
use super::snapshot::{self, Snapshot};
use super::tools::Tools;

const HINT: &str = "install it (package systemd-container), or boot the image with `mkosi vm`";
/// From this version on a user can run disk images, with the help of systemd-nsresourced and systemd-mountfsd.
const FOR_USERS: u32 = 257;

/// Starts a shell or a command in the image, or its init system; gives the status that it ends with.
///
/// # Errors
/// When the container can't be made.
pub fn run(settings: &Settings, tools: &Tools, boot: bool, extra: &[String]) -> Result<u8> {
    let what = if boot { "boot the image in a container" } else { "run a shell in the image" };
    check(settings, what)?;
    let image = settings.built()?;
    let program = tools.need(&["systemd-nspawn"], what, HINT)?;
    let version = version(&program, tools)?;
    allowed(settings, &image, version)?;
    let place = tempfile::Builder::new().prefix("mkosi-container-").tempdir();
    let place = place.map_err(RunError::io("make a directory in", std::env::temp_dir()))?;
    let mut files = Vec::new();
    for (name, value) in credentials::collect(settings, tools)? {
        let path = place.path().join(format!("credential-{}", name.replace('/', "-")));
        std::fs::write(&path, value).map_err(RunError::io("write", &path))?;
        files.push((name, path));
    }
    let _settings = own_settings(settings)?;
    let snapshot = Snapshot::take(settings, &image)?;
    snapshot::grow(settings, &snapshot.path, tools)?;
    let (socket, _journal) = match &settings.forward_journal {
        Some(target) if boot && version < nspawn::FORWARDS_JOURNAL => {
            let path = place.path().join("journal");
            let listener = UnixListener::bind(&path).map_err(RunError::io("make the socket", &path))?;
            (Some(path), Some(journal::start(target, listener.into(), tools)?))
        }
        _ => (None::<PathBuf>, None::<Helper>),
    };
    let core = rustix::process::getrlimit(rustix::process::Resource::Core);
    let parts = Parts {
        program: program.clone(),
        version,
        boot,
        image: (snapshot.path.clone(), snapshot.path.is_dir()),
        systemd: Path::new("/run/systemd/system").is_dir() && Path::new("/run/dbus/system_bus_socket").exists(),
        core: (core.current, core.maximum),
        credentials: files,
        journal: socket,
        user: settings.bind_user.then(user).flatten(),
    };
    let owned_by_root = |path: &Path| path.metadata().is_ok_and(|meta| meta.uid() == 0);
    let line = nspawn::command_line(settings, &parts, owned_by_root, extra);
    let mut command = tools.command(&program);
    command.args(line.iter().skip(1));
    let ended = process::run_machine(&mut command, &mut Unwatched, |_| Ok(()))?;
    Ok(process::status_of(ended.status))
}

fn check(settings: &Settings, what: &str) -> Result<()> {
    if !matches!(settings.format.as_str(), "directory" | "disk") {
        return Err(RunError::unfit(
            format!("can't {what}: it is one of Format={}", settings.format),
            "containers take directory and disk images",
        ));
    }
    if settings.names.compression() != crate::output::Compression::None {
        return Err(RunError::unfit(format!("can't {what}: it is compressed"), "build it with CompressOutput=no"));
    }
    Ok(())
}

/// Whether this user may run this image.
fn allowed(settings: &Settings, image: &Path, version: u32) -> Result<()> {
    let root = rustix::process::geteuid().is_root();
    if settings.format == "directory" {
        let owner = image.metadata().map_err(RunError::io("look at", image))?.uid();
        if owner != 0 {
            return Err(RunError::unfit(
                format!("{} belongs to the user {owner}, and a container needs one that is root's", image.display()),
                "build and run it as root, or make a disk image with Format=disk",
            ));
        }
        if !root {
            return Err(RunError::unfit(
                "only root can run a directory image in a container",
                "run as root, or make a disk image with Format=disk",
            ));
        }
        return Ok(());
    }
    let helpers = Path::new("/run/systemd/io.systemd.NamespaceResource").exists()
        && Path::new("/run/systemd/io.systemd.MountFileSystem").exists();
    if root || (version >= FOR_USERS && helpers) {
        return Ok(());
    }
    Err(RunError::unfit(
        format!("only root can run an image in a container here: systemd-nspawn has version {version}"),
        format!("run as root; for users that takes version {FOR_USERS}, systemd-nsresourced and systemd-mountfsd"),
    ))
}

fn version(program: &Path, tools: &Tools) -> Result<u32> {
    let output = finished(tools.command(program).arg("--version"), "tell its version")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let word = text.split_whitespace().nth(1).unwrap_or_default();
    let digits: String = word.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map_err(|_| RunError::Other(format!("{} --version printed no version: {text}", program.display())))
}

fn user() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name)
}

/// `NSpawnSettings=` where systemd-nspawn looks for it: beside the image, under the machine's name. Goes when dropped.
fn own_settings(settings: &Settings) -> Result<Option<tempfile::TempPath>> {
    let Some(source) = &settings.nspawn_settings else { return Ok(None) };
    let target = settings.directory.join(format!("{}.nspawn", settings.machine_name()));
    let there = target.exists();
    std::fs::copy(source, &target).map_err(RunError::io("copy NSpawnSettings= from", source))?;
    // One that was there is the build's, and stays with its new contents.
    if there {
        return Ok(None);
    }
    tempfile::TempPath::try_from_path(&target).map(Some).map_err(RunError::io("keep track of", &target))
}
