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
use super::process::{self, Unwatched};
use super::settings::Settings;
use super::snapshot::{self, Snapshot};
use super::tools::Tools;
use crate::output::foreign;

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
    let version = process::systemd_version(&program, tools)?;
    allowed(settings, &image, version)?;
    let user = if settings.bind_user { Some(user()?) } else { None };
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
        _ => (None::<PathBuf>, None),
    };
    let core = rustix::process::getrlimit(rustix::process::Resource::Core);
    let parts = Parts {
        program: program.clone(),
        version,
        boot,
        image: (snapshot.path.clone(), snapshot.path.is_dir()),
        foreign: is_foreign(&snapshot.path),
        root: rustix::process::geteuid().is_root(),
        systemd: Path::new("/run/systemd/system").is_dir() && Path::new("/run/dbus/system_bus_socket").exists(),
        core: (core.current, core.maximum),
        credentials: files,
        journal: socket,
        user,
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

/// Whether this is a directory of the foreign range of ids (`ForeignUIDRange=`).
pub(super) fn is_foreign(image: &Path) -> bool {
    image.metadata().is_ok_and(|meta| meta.is_dir() && meta.uid() == foreign::FIRST)
}

/// Whether this user may run this image.
fn allowed(settings: &Settings, image: &Path, version: u32) -> Result<()> {
    let directory = settings.format == "directory";
    let owner = image.metadata().map_err(RunError::io("look at", image))?.uid();
    let helpers = Path::new("/run/systemd/io.systemd.NamespaceResource").exists()
        && Path::new("/run/systemd/io.systemd.MountFileSystem").exists();
    permitted(image, directory.then_some(owner), rustix::process::geteuid().is_root(), helpers, version)
}

/// Whether an image can be run; `owner` is that of a directory, `helpers` tells whether what helps users is there.
fn permitted(image: &Path, owner: Option<u32>, root: bool, helpers: bool, version: u32) -> Result<()> {
    let needed = match owner {
        None => FOR_USERS,
        Some(foreign::FIRST) => nspawn::MAPS_FOREIGN,
        Some(0) if root => return Ok(()),
        Some(0) => {
            return Err(RunError::unfit(
                "only root can run a directory image that belongs to root in a container",
                "run as root, build it with ForeignUIDRange=yes, or make a disk image with Format=disk",
            ));
        }
        Some(owner) => {
            return Err(RunError::unfit(
                format!(
                    "{} belongs to the user {owner}, and a container needs one that is root's or of the foreign range",
                    image.display()
                ),
                "build and run it as root, with ForeignUIDRange=yes, or make a disk image with Format=disk",
            ));
        }
    };
    if root || (version >= needed && helpers) {
        return Ok(());
    }
    Err(RunError::unfit(
        format!("only root can run this image in a container here: systemd-nspawn has version {version}"),
        format!("run as root; for users that takes version {needed}, systemd-nsresourced and systemd-mountfsd"),
    ))
}

/// The user whose home is bound: who runs this program, also through sudo(8) or run0(1).
fn user() -> Result<String> {
    let user = match rustix::process::getuid() {
        uid if uid.is_root() => std::env::var("SUDO_USER").ok().filter(|name| !name.is_empty() && name != "root"),
        uid => nix::unistd::User::from_uid(uid.as_raw().into()).ok().flatten().map(|user| user.name),
    };
    user.ok_or_else(|| {
        RunError::unfit(
            "BindUser= binds the home of the user who runs mkosi, and systemd-nspawn can't bind root's",
            "run mkosi as that user, or through sudo as root",
        )
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_run_which_image() {
        let told =
            |owner, root, helpers, version| match permitted(Path::new("/out/image"), owner, root, helpers, version) {
                Ok(()) => "yes".to_owned(),
                Err(error) => error.to_string(),
            };
        let foreign = Some(foreign::FIRST);
        for (owner, root, helpers, version) in [
            (None, true, false, 252),
            (None, false, true, 257),
            (Some(0), true, false, 252),
            (foreign, true, false, 252),
            (foreign, false, true, 258),
        ] {
            assert_eq!(told(owner, root, helpers, version), "yes", "{owner:?} {root} {helpers} {version}");
        }
        let no = [
            told(None, false, false, 258),
            told(Some(0), false, true, 258),
            told(Some(1000), true, true, 258),
            told(foreign, false, true, 257),
            told(foreign, false, false, 258),
        ];
        insta::assert_snapshot!(no.join("\n"));
    }
}
