//! What dpkg's database in a tree says.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, deb822};

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
