//! What dpkg's database in a tree says, and taking it away (`CleanPackageMetadata=`).

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::apt::{environment, run_logged, tools};
use super::{Cx, Error, deb822};
use crate::sandbox::{Mount, Spec};

/// An installed package, for a manifest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Installed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture in dpkg's words.
    pub architecture: String,
    /// The source package, where its name is another one.
    pub source: Option<String>,
    /// The estimate of its installed size in KiB.
    pub size: u64,
}

/// Every package that the dpkg database below `root` has as installed, sorted; none if there is no database.
///
/// # Errors
/// When the database can't be read.
pub fn installed(root: &Path) -> Result<Vec<Installed>, Error> {
    let path = root.join("var/lib/dpkg/status");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(Error::io("could not read", &path)(e)),
    };
    let entry = |stanza: &deb822::Paragraph| {
        let field = |name: &str| stanza.get(name).map(str::to_owned);
        stanza.get("Status")?.ends_with(" installed").then_some(())?;
        Some(Installed {
            name: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture")?,
            source: field("Source").and_then(|s| s.split_whitespace().next().map(str::to_owned)),
            size: stanza.get("Installed-Size").and_then(|s| s.parse().ok()).unwrap_or(0),
        })
    };
    let mut all: Vec<Installed> = deb822::parse(&text).iter().filter_map(entry).collect();
    all.sort();
    Ok(all)
}

/// `CleanPackageMetadata=`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CleanMetadata {
    /// Remove a tool's metadata if the tree doesn't have the tool.
    Auto,
    /// Remove it.
    Yes,
    /// Keep it.
    No,
}

/// Removes the databases and caches of dpkg and apt from the tree that the mount shows at `/buildroot`.
///
/// # Errors
/// When the sandbox or a removal fails.
pub fn clean_metadata(cx: &mut Cx<'_>, root: Mount, mode: CleanMetadata) -> Result<(), Error> {
    const SCRIPT: &str = r#"set -eu
cd /buildroot
gone() { [ "$1" = yes ] || ! { [ -e "usr/bin/$2" ] || [ -e "bin/$2" ]; }; }
if gone "$1" dpkg; then rm -rf var/lib/dpkg; fi
if gone "$1" apt-get; then rm -rf var/lib/apt var/cache/apt; fi
"#;
    let argument = match mode {
        CleanMetadata::No => return Ok(()),
        CleanMetadata::Yes => "yes",
        CleanMetadata::Auto => "auto",
    };
    let mut mounts = tools(cx, false);
    mounts.push(root);
    let argv = ["sh", "-c", SCRIPT, "sh", argument].map(str::to_owned).to_vec();
    let spec = Spec { argv, env: environment(), mounts, ..Spec::default() };
    let printed = run_logged(cx, &spec)?;
    if printed.exit.success() {
        return Ok(());
    }
    Err(Error::Install { what: "removing package metadata".to_owned(), detail: printed.stderr })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_what_is_installed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(installed(dir.path()).unwrap(), []);
        std::fs::create_dir_all(dir.path().join("var/lib/dpkg")).unwrap();
        let text = "Package: b\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nSource: s (2)\n\n\
                    Package: c\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n\n\
                    Package: a\nStatus: install ok installed\nVersion: 2\nArchitecture: amd64\nInstalled-Size: 12\n";
        std::fs::write(dir.path().join("var/lib/dpkg/status"), text).unwrap();
        let names: Vec<_> = installed(dir.path()).unwrap().into_iter().map(|p| (p.name, p.source, p.size)).collect();
        assert_eq!(names, [("a".to_owned(), None, 12), ("b".to_owned(), Some("s".to_owned()), 0)]);
    }
}
