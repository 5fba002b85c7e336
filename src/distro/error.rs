//! What can go wrong while packages are synchronised, resolved, fetched or installed.

use std::path::{Path, PathBuf};

/// Why a step failed. Each text says what was tried, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tool is not installed.
    #[error(
        "the program `{tool}` was not found among the tools: install the package `{package}` on the host, or set \
         ToolsTree=default; a tools tree of your own has to have it"
    )]
    MissingTool {
        /// The program.
        tool: String,
        /// The Debian package that has it.
        package: String,
    },
    /// The keyring that signs the archive is not there.
    #[error(
        "the keyring {path} that signs {uri} does not exist: install the package `{package}` on the host or in the \
         tools tree, set ToolsTree=default, or set RepositoryKeyCheck=no to go without"
    )]
    MissingKeyring {
        /// Where it was looked for.
        path: PathBuf,
        /// The repository.
        uri: String,
        /// The package that has it.
        package: &'static str,
    },
    /// The distribution has no such architecture.
    #[error("{distribution} has no packages for the architecture `{architecture}`")]
    Architecture {
        /// The distribution.
        distribution: &'static str,
        /// The architecture.
        architecture: String,
    },
    /// A file that should have a certificate or a key has none.
    #[error("{path} holds no {what} in the PEM format: correct the setting of the proxy that names it")]
    NotPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// A value that a line of a sources file can't hold.
    #[error("{what} `{value}` holds a space or a line break, so that apt can't read it: correct the setting")]
    BadValue {
        /// Which setting.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The metadata of a repository is not signed by a key that is trusted.
    #[error(
        "the signature of a repository could not be verified: {detail}\nCheck that the keyring is the one of this \
         distribution and is up to date"
    )]
    Signature {
        /// apt's own lines.
        detail: String,
    },
    /// The metadata could not be fetched.
    #[error("fetching repository metadata failed: {detail}\nCheck Mirror=, Release= and the network")]
    Sync {
        /// apt's own lines.
        detail: String,
    },
    /// A package that no repository has.
    #[error("no repository has a package `{name}`{}: check the spelling, Release= and Repositories=", .nearest.as_ref().map(|n| format!(" (did you mean `{n}`?)")).unwrap_or_default())]
    UnknownPackage {
        /// As written in the configuration.
        name: String,
        /// The nearest known name.
        nearest: Option<String>,
    },
    /// A name that stands for several packages.
    #[error("`{name}` is provided by several packages: name one of {providers}")]
    VirtualPackage {
        /// As written in the configuration.
        name: String,
        /// The packages, comma-separated.
        providers: String,
    },
    /// A version or release that a package does not have.
    #[error("the package `{name}` has no version or release `{wanted}`; the repositories have {available}")]
    UnknownVersion {
        /// The package.
        name: String,
        /// The version or release that was asked for.
        wanted: String,
        /// The versions that there are.
        available: String,
    },
    /// The solver found no set of packages.
    #[error("the packages can't be installed together ({what}): {detail}")]
    Unsolvable {
        /// Which list.
        what: String,
        /// apt's own lines.
        detail: String,
    },
    /// The mirror no longer has a package: its metadata is newer than ours. Refresh and resolve again.
    #[error("the mirror no longer has {}: refresh the metadata and resolve again", .files.join(", "))]
    Gone {
        /// The files.
        files: Vec<String>,
    },
    /// A package could not be fetched.
    #[error("fetching packages failed: {detail}\nWhat was fetched is kept; try again")]
    Download {
        /// apt's own lines.
        detail: String,
    },
    /// A file of the pool is missing or not what it should be.
    #[error("{path} is not the package {package}: {why}. Remove the file to fetch it again")]
    Pool {
        /// The file.
        path: PathBuf,
        /// The package.
        package: String,
        /// What is wrong.
        why: String,
    },
    /// dpkg or a maintainer script failed.
    #[error("{what} failed: {detail}\nThe log has the whole output")]
    Install {
        /// What was done.
        what: String,
        /// The last lines of the output.
        detail: String,
    },
    /// A file was not what its format says.
    #[error("{path}: {why}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A file could not be read or written.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The sandbox could not be made, or the run was cancelled.
    #[error(transparent)]
    Sandbox(#[from] crate::sandbox::Error),
}

impl Error {
    /// A closure for `map_err` that adds what was tried and on what.
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
