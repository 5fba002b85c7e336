//! What a sandbox is made of, as handed to the child.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One step in making the sandbox's root file system. Targets are absolute paths in the new root; missing parent
/// directories are made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mount {
    /// A file or directory of the host, with the mounts below it.
    Bind {
        /// The path on the host.
        source: PathBuf,
        /// The path in the sandbox.
        target: PathBuf,
        /// Whether the sandbox may only read it.
        read_only: bool,
        /// Whether a missing source is passed over in silence.
        optional: bool,
    },
    /// A path of the host at the same place, with the mounts below it and all their attributes. A symbolic link is made
    /// anew.
    Same {
        /// The path, on the host and in the sandbox.
        path: PathBuf,
    },
    /// An overlay of directories on the host.
    Overlay {
        /// The lower directories, lowest first.
        lowers: Vec<PathBuf>,
        /// The upper directory that takes the changes and its work directory; without them the mount is read-only.
        upper: Option<(PathBuf, PathBuf)>,
        /// The path in the sandbox.
        target: PathBuf,
    },
    /// An overlay over a file system that the caller serves and keeps open until the sandbox has ended.
    Served {
        /// The descriptor that [`super::serve`] gave. A file system can be mounted once only.
        mount: i32,
        /// The upper directory that takes the changes, and its work directory.
        upper: (PathBuf, PathBuf),
        /// The path in the sandbox.
        target: PathBuf,
    },
    /// Parts of a tree that is made of directories on the host, read-only: each at the same path in the sandbox. A
    /// symbolic link is made anew, and what the tree lacks is passed over.
    Parts {
        /// The directories, lowest first.
        lowers: Vec<PathBuf>,
        /// The parts, as absolute paths in the tree.
        parts: Vec<PathBuf>,
        /// Files that stand in the tree as empty ones, whatever it has there: something is mounted on them later. Needs an
        /// overlay.
        points: Vec<PathBuf>,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// The path in the sandbox.
        target: PathBuf,
        /// The mode of its root directory.
        mode: u32,
    },
    /// The process file system of the sandbox's own PID namespace.
    Proc {
        /// The path in the sandbox.
        target: PathBuf,
    },
    /// A private `/dev` with the usual nodes, `pts`, `shm` and the standard links.
    Dev {
        /// The path in the sandbox.
        target: PathBuf,
    },
    /// A symbolic link.
    Symlink {
        /// The path in the sandbox.
        target: PathBuf,
        /// What it points to.
        points_to: PathBuf,
    },
    /// An empty directory.
    Directory {
        /// The path in the sandbox.
        target: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// A small read-only file with contents of its own.
    File {
        /// The path in the sandbox.
        target: PathBuf,
        /// Its contents.
        contents: Vec<u8>,
        /// Its mode.
        mode: u32,
    },
}

/// What a command may do that others may not. For the real root alone it makes a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rights {
    /// Nothing more.
    #[default]
    Usual,
    /// Writing security labels (`security.*` attributes), also those that the host's policy does not know.
    Labels,
    /// The same, and mounting file systems in its own namespace.
    Mounts,
}

/// A command and the world that it runs in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The program, looked up in the specification's own `PATH` within the sandbox, and its arguments.
    pub argv: Vec<String>,
    /// The whole environment: nothing is inherited.
    pub env: BTreeMap<String, String>,
    /// The working directory in the sandbox.
    pub cwd: PathBuf,
    /// The steps that make the root file system, in order, on an empty one.
    pub mounts: Vec<Mount>,
    /// Whether the host's network is shared; otherwise there is a loopback interface alone.
    pub network: bool,
    /// The host name within.
    pub hostname: String,
    /// The file mode creation mask.
    pub umask: u32,
    /// Whether the root of the new file system stays writable to the command.
    pub writable_root: bool,
    /// How many processes and threads it may have at once; more, and all of it is ended.
    #[serde(default = "most_processes")]
    pub processes: u64,
    /// How much memory in bytes it may take, more or less: it is looked at a few times in a second. None for what the
    /// machine has.
    #[serde(default)]
    pub memory: Option<u64>,
    /// What it may do that others may not.
    #[serde(default)]
    pub rights: Rights,
}

/// More than any build needs.
const fn most_processes() -> u64 {
    16_384
}

impl Spec {
    /// The specification as a line of JSON for people, without the contents of files and the values of variables: some
    /// are secret.
    pub fn describe(&self) -> String {
        let mut told = self.clone();
        for mount in &mut told.mounts {
            if let Mount::File { contents, .. } = mount {
                contents.clear();
            }
        }
        told.env.values_mut().for_each(|value| *value = "...".to_owned());
        serde_json::to_string(&told).unwrap_or_default()
    }
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            argv: Vec::new(),
            env: BTreeMap::new(),
            cwd: PathBuf::from("/"),
            mounts: Vec::new(),
            network: false,
            hostname: "mkosi".to_owned(),
            umask: 0o022,
            writable_root: false,
            processes: most_processes(),
            memory: None,
            rights: Rights::Usual,
        }
    }
}
