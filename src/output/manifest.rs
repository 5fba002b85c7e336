//! The manifest of an image: which packages it holds, in the JSON shape that mkosi's users know, and where the
//! packages are read from.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use crate::store::{Kind, MergedTree};

use super::{Error, Result};

/// An installed package. The names of the fields in JSON are those of the package metadata that systemd reads from
/// executables.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PackageInfo {
    /// Its name.
    pub name: String,
    /// The source package it was built from; no part of the manifest.
    #[serde(skip)]
    pub source: String,
    /// Its version.
    pub version: String,
    /// Its architecture in the package manager's words.
    pub architecture: String,
    /// The size of its installed files in bytes.
    pub size: u64,
    /// The kind of package: `deb`, `rpm` or `pkg`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// What a manifest says of the image itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageInfo {
    /// `ImageId=`; `image` if `None`.
    pub name: Option<String>,
    /// The distribution.
    pub distribution: String,
    /// The architecture in mkosi's words.
    pub architecture: String,
    /// The output format.
    pub format: String,
    /// `ImageVersion=`.
    pub version: Option<String>,
    /// The distribution's release.
    pub release: Option<String>,
}

/// The manifest. `extension` holds the fields of a system extension's release file, empty for other images.
pub fn manifest(image: &ImageInfo, packages: &[PackageInfo], extension: &BTreeMap<String, String>) -> Value {
    let mut config = json!({
        "name": image.name.as_deref().unwrap_or("image"),
        "distribution": image.distribution,
        "architecture": image.architecture,
        "output_format": image.format,
    });
    for (key, value) in [("version", &image.version), ("release", &image.release)] {
        if let Some(value) = value {
            config[key] = json!(value);
        }
    }
    let mut packages: Vec<&PackageInfo> = packages.iter().collect();
    packages.sort();
    json!({ "manifest_version": 1, "config": config, "packages": packages, "extension": extension })
}

/// The packages in dpkg's database of a tree (`var/lib/dpkg/status`, see dpkg-query(1)), sorted. Those that are
/// removed but for their configuration files aren't installed and left out. Empty if there is no database.
pub fn installed_debs(tree: &MergedTree) -> Result<Vec<PackageInfo>> {
    Ok(parse_status(&read(tree, b"var/lib/dpkg/status")?.unwrap_or_default()))
}

/// The fields of an extension's release file (`extension-release.NAME` in the directory of its kind).
pub fn extension_fields(tree: &MergedTree, format: &str, name: &str) -> Result<BTreeMap<String, String>> {
    let dir = if format == "confext" { "etc" } else { "usr/lib" };
    let path = format!("{dir}/extension-release.d/extension-release.{name}");
    Ok(parse_environment(&read(tree, path.as_bytes())?.unwrap_or_default()))
}

/// What the tree's os-release(5) says.
pub fn os_release(tree: &MergedTree) -> Result<BTreeMap<String, String>> {
    Ok(parse_environment(&read(tree, b"usr/lib/os-release")?.unwrap_or_default()))
}

/// The content of a regular file of a tree.
fn read(tree: &MergedTree, path: &[u8]) -> Result<Option<String>> {
    let found = tree.entries.iter().find(|merged| merged.entry.path == path);
    let Some(merged) = found.filter(|merged| matches!(merged.entry.kind, Kind::File { .. })) else {
        return Ok(None);
    };
    let bytes = std::fs::read(&merged.source).map_err(|error| Error::io("read", &merged.source, error))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Paragraphs of `Field: value` lines (deb822(5)). Fields that go on over more lines are of no interest here, and
/// lines of another form are skipped.
fn parse_status(text: &str) -> Vec<PackageInfo> {
    let mut packages = Vec::new();
    let mut fields: BTreeMap<String, &str> = BTreeMap::new();
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            packages.extend(package(&fields));
            fields.clear();
        } else if !line.starts_with([' ', '\t', '#'])
            && let Some((key, value)) = line.split_once(':')
        {
            fields.insert(key.to_ascii_lowercase(), value.trim());
        }
    }
    packages.sort();
    packages
}

fn package(fields: &BTreeMap<String, &str>) -> Option<PackageInfo> {
    let get = |key: &str| fields.get(key).copied();
    let state = get("status")?.split_whitespace().nth(2)?;
    if state == "not-installed" || state == "config-files" {
        return None;
    }
    let name = get("package")?;
    // The source may have a version of its own: `Source: gcc-12 (12.2.0-14)`.
    let source = get("source").and_then(|source| source.split_whitespace().next()).unwrap_or(name);
    let kibibytes: u64 = get("installed-size").and_then(|size| size.parse().ok()).unwrap_or(0);
    Some(PackageInfo {
        name: name.to_owned(),
        source: source.to_owned(),
        version: get("version").unwrap_or_default().to_owned(),
        architecture: get("architecture").unwrap_or_default().to_owned(),
        size: kibibytes.saturating_mul(1024),
        kind: "deb".to_owned(),
    })
}

/// `KEY=value` lines as in os-release(5), with quotes and their backslashes taken off.
fn parse_environment(text: &str) -> BTreeMap<String, String> {
    let assignment = |line: &str| {
        let line = line.trim();
        let (key, value) = line.split_once('=').filter(|_| !line.starts_with('#'))?;
        let value = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let inner = value.get(1..).unwrap_or_default();
                let inner = inner.strip_suffix(quote).unwrap_or(inner);
                if quote == '"' { unescape(inner) } else { inner.to_owned() }
            }
            _ => unescape(value),
        };
        Some((key.to_owned(), value))
    };
    text.lines().filter_map(assignment).collect()
}

fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::{run, tree_of};
    use super::*;

    const STATUS: &str = "\
Package: zlib1g
Status: install ok installed
Installed-Size: 168
Architecture: amd64
Multi-Arch: same
Source: zlib (1:1.2.13)
Version: 1:1.2.13.dfsg-1
Description: compression library
 Status: deinstall ok config-files
 .
 More text.

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

no field here
Package: adduser
Status: install ok installed
Architecture: all
Version: 3.134
Conffiles:
 /etc/adduser.conf 0123456789abcdef
";

    #[test]
    fn the_shape_is_the_known_one() {
        let packages = parse_status(STATUS);
        assert_eq!(packages.iter().map(|p| p.source.as_str()).collect::<Vec<_>>(), ["adduser", "zlib"]);
        let image = ImageInfo {
            distribution: "debian".into(),
            architecture: "x86-64".into(),
            format: "tar".into(),
            version: Some("7".into()),
            ..Default::default()
        };
        let extension = BTreeMap::from([("ID".to_owned(), "debian".to_owned())]);
        let text = serde_json::to_string_pretty(&manifest(&image, &packages, &extension)).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn dpkg_query_agrees_about_this_machine() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("var/lib/dpkg")).unwrap();
        assert!(installed_debs(&tree_of(dir.path())).unwrap().is_empty());
        std::fs::copy("/var/lib/dpkg/status", dir.path().join("var/lib/dpkg/status")).unwrap();
        let ours: Vec<String> = installed_debs(&tree_of(dir.path()))
            .unwrap()
            .iter()
            .map(|p| format!("{}\t{}\t{}\t{}\t{}", p.name, p.source, p.version, p.architecture, p.size / 1024))
            .collect();
        let format = "${db:Status-Status}\\t${Package}\\t${source:Package}\\t${Version}\\t${Architecture}\\t${Installed-Size}\\n";
        let text = run(dir.path(), &format!("dpkg-query --admindir=var/lib/dpkg --show --showformat '{format}'"));
        let mut theirs: Vec<String> = text
            .lines()
            .filter_map(|line| line.split_once('\t').filter(|(state, _)| *state != "config-files"))
            .map(|(_, rest)| if rest.ends_with('\t') { format!("{rest}0") } else { rest.to_owned() })
            .collect();
        theirs.sort_by_key(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
        assert!(theirs.len() > 50);
        assert_eq!(ours, theirs);
    }

    #[test]
    fn release_files_lose_their_quotes() {
        let dir = tempfile::tempdir().unwrap();
        let release = dir.path().join("usr/lib/extension-release.d");
        std::fs::create_dir_all(&release).unwrap();
        let text = "# comment\nID=debian\nNAME=\"a \\\"b\\\" c\"\nX='single \\'\n\nbroken\n";
        std::fs::write(release.join("extension-release.x"), text).unwrap();
        let fields = extension_fields(&tree_of(dir.path()), "sysext", "x").unwrap();
        let expected = [("ID", "debian"), ("NAME", "a \"b\" c"), ("X", "single \\")];
        assert_eq!(fields, expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert!(extension_fields(&tree_of(dir.path()), "confext", "x").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn any_text_can_be_read(text in "(Package: [a-z]{0,3}|Status: [a-z ]{0,20}|[ -~]{0,9}|:|\n|\t){0,40}") {
            parse_status(&text);
            parse_environment(&text);
        }
    }
}
