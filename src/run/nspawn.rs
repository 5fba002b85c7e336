//! The command line of systemd-nspawn, for `mkosi shell` and `mkosi boot`.
//!
//! A function of its arguments: it looks at nothing and starts nothing.

use std::path::{Path, PathBuf};

use super::cmdline;
use super::journal;
use super::network;
use super::settings::{Feature, Settings, SharedTree};
use crate::output::foreign;

/// What was made for the container, and what the host has.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The program.
    pub program: PathBuf,
    /// Its version.
    pub version: u32,
    /// Whether the init system of the image is started, and not a shell.
    pub boot: bool,
    /// The image, and whether it is a directory.
    pub image: (PathBuf, bool),
    /// Whether it is a directory of the foreign range of ids.
    pub foreign: bool,
    /// Whether root runs it.
    pub root: bool,
    /// Whether systemd runs on the host, which can keep the container in a unit of its own.
    pub systemd: bool,
    /// The limits of core files, soft and hard; none for no limit.
    pub core: (Option<u64>, Option<u64>),
    /// Files with credentials, by name.
    pub credentials: Vec<(String, PathBuf)>,
    /// The socket that the journal goes to, where systemd-nspawn has no option for it.
    pub journal: Option<PathBuf>,
    /// The user whose home is bound.
    pub user: Option<String>,
}

/// From this version on systemd-nspawn gives the files of the foreign range to the container's own ids, in its mount alone.
pub const MAPS_FOREIGN: u32 = 258;

/// systemd-nspawn forwards the journal itself from this version on.
pub const FORWARDS_JOURNAL: u32 = 261;

/// The command line, the program first. `owned_by_root` tells whether a directory is root's; `extra` goes last.
pub fn command_line(
    settings: &Settings,
    parts: &Parts,
    owned_by_root: impl Fn(&Path) -> bool,
    extra: &[String],
) -> Vec<String> {
    let mut line: Vec<String> = vec![parts.program.to_string_lossy().into_owned()];
    let mut add = |words: &[&str]| line.extend(words.iter().map(|word| (*word).to_owned()));
    add(&["--quiet", "--link-journal=no", "--suppress-sync=yes"]);
    for argument in network::nspawn(settings) {
        add(&[&argument]);
    }
    if settings.nspawn_settings.is_some() {
        add(&["--settings=trusted"]);
    }
    if parts.boot {
        add(&["--boot"]);
    } else {
        let limit = |limit: Option<u64>| limit.map_or("infinity".to_owned(), |bytes| bytes.to_string());
        add(&[&format!("--rlimit=RLIMIT_CORE={}:{}", limit(parts.core.0), limit(parts.core.1)), "--console=autopipe"]);
    }
    add(&[&format!("--machine={}", settings.machine_name())]);
    match (settings.register, parts.systemd) {
        // Nobody is there to register with, or to make a unit.
        (Feature::Auto | Feature::Disabled, false) => add(&["--register=no", "--keep-unit"]),
        (Feature::Disabled, true) => add(&["--register=no"]),
        _ => add(&["--register=yes"]),
    }
    // Without systemd on the host there is no unit.
    for property in settings.unit_properties.iter().filter(|_| parts.systemd) {
        add(&[&format!("--property={property}")]);
    }
    for (name, path) in &parts.credentials {
        add(&[&format!("--load-credential={name}:{}", path.display())]);
    }
    let (image, directory) = &parts.image;
    add(&[&format!("{}={}", if *directory { "--directory" } else { "--image" }, image.display())]);
    if parts.foreign {
        match (parts.root, parts.version >= MAPS_FOREIGN) {
            (true, true) => add(&["--private-users=pick", "--private-users-ownership=foreign"]),
            // The container has the very ids that its files belong to.
            (true, false) => add(&[&format!("--private-users={}:{}", foreign::FIRST, foreign::COUNT)]),
            (false, _) => add(&["--private-users=managed", "--private-users-ownership=foreign"]),
        }
    } else if parts.user.is_some() && parts.root {
        // A user of the host is bound to ids of the container's own alone. The files stay root's, mapped in its mount.
        add(&["--private-users=pick", "--private-users-ownership=map"]);
    }
    // The ids of the host are nobody's in a container with ids of its own.
    let own_ids = parts.foreign || parts.user.is_some();
    for tree in settings.all_trees() {
        let same = owned_by_root(&tree.source) && !own_ids;
        add(&[&format!("--bind={}", bind(tree, same))]);
    }
    if let Some(user) = &parts.user {
        add(&[&format!("--bind-user={user}")]);
        if parts.version >= 258 {
            add(&["--bind-user-group=wheel"]);
        }
    }
    if let (Some(target), true) = (&settings.forward_journal, parts.boot) {
        match &parts.journal {
            None => journal::options(target).iter().for_each(|option| add(&[option])),
            Some(socket) => add(&[
                &format!("--bind={}:/run/host/journal/socket:{}", escaped(socket), ids(!own_ids)),
                "--set-credential=journal.forward_to_socket:/run/host/journal/socket",
            ]),
        }
    }
    if parts.boot {
        // The kernel gives init what it does not know itself: assignments become variables, unless there is a dot in
        // the name, and the rest arguments.
        let mut arguments = extra.to_vec();
        for option in settings.command_line.iter().cloned().chain(cmdline::container(settings)) {
            match option.split_once('=') {
                Some((name, value)) if !name.contains('.') => {
                    add(&[&format!("--setenv={}={value}", name.replace('-', "_"))]);
                }
                _ => arguments.push(option),
            }
        }
        line.extend(arguments);
    } else if !extra.is_empty() {
        add(&["--"]);
        line.extend(extra.to_vec());
    }
    line
}

/// A tree as `--bind=` takes it. Mounts below it stay away: the output directory is often among them, and with it the
/// container's own root. The owner of the tree is root in the container.
fn bind(tree: &SharedTree, same_ids: bool) -> String {
    format!("{}:{}:norbind,{}", escaped(&tree.source), escaped(&tree.target), ids(same_ids))
}

/// Whether the owner of what is bound is root in the container, or who it is on the host.
fn ids(same: bool) -> &'static str {
    if same { "noidmap" } else { "rootidmap" }
}

/// A colon within a path.
fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('\\', "\\\\").replace(':', "\\:")
}
