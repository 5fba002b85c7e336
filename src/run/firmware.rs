//! QEMU's descriptions of firmware (docs/interop/firmware.json of QEMU): which one fits.
//!
//! Knows nothing of images.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::{Result, RunError};
use super::tools::Tools;

/// Where descriptions are: a file in a later directory overrides one of the same name in an earlier one.
const DIRECTORIES: [&str; 2] = ["/usr/share/qemu/firmware", "/etc/qemu/firmware"];

/// The files that describe the firmware of the tools, later ones overriding those of the same name.
pub fn descriptions(tools: &Tools) -> Vec<PathBuf> {
    DIRECTORIES.iter().flat_map(|directory| tools.files(Path::new(directory))).collect()
}

/// A file of flash memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Flash {
    /// The file.
    pub filename: PathBuf,
    /// `raw` or `qcow2`.
    pub format: String,
}

#[derive(Debug, Deserialize)]
struct Description {
    #[serde(rename = "interface-types", default)]
    interfaces: Vec<String>,
    mapping: Mapping,
    #[serde(default)]
    targets: Vec<Target>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct Mapping {
    executable: Option<Flash>,
    #[serde(rename = "nvram-template")]
    variables: Option<Flash>,
}

#[derive(Debug, Deserialize)]
struct Target {
    architecture: String,
    #[serde(default)]
    machines: Vec<String>,
}

/// What the firmware must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// QEMU's name of the architecture.
    pub architecture: &'a str,
    /// The type of machine.
    pub machine: &'a str,
    /// With secure boot.
    pub secure_boot: bool,
    /// With Microsoft's keys in its variables.
    pub enrolled: bool,
}

/// Firmware that fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uefi {
    /// Its code.
    pub code: Flash,
    /// What its variables start as.
    pub variables: Flash,
}

/// The first description that fits, in the order of their names. A later file overrides an earlier one of the same name,
/// and an empty one only takes that away.
///
/// # Errors
/// When none fits: what is missing, and what each lacks.
pub fn find(descriptions: &[PathBuf], wanted: Wanted<'_>) -> Result<Uefi> {
    let mut files: BTreeMap<_, &PathBuf> = BTreeMap::new();
    for path in descriptions.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        files.insert(path.file_name().unwrap_or_default(), path);
    }
    let mut passed_over = String::new();
    for path in files.values() {
        let text = std::fs::read(path).map_err(RunError::io("read", path))?;
        if text.is_empty() {
            continue;
        }
        let reason = match serde_json::from_slice::<Description>(&text) {
            Ok(description) => match fits(description, wanted) {
                Ok(uefi) => return Ok(uefi),
                Err(reason) => reason,
            },
            Err(error) => format!("can't be read: {error}"),
        };
        passed_over.push_str(&format!("\n  {}: {reason}", path.display()));
    }
    let kind = if wanted.secure_boot { "UEFI firmware with secure boot" } else { "UEFI firmware" };
    let keys = if wanted.enrolled { " and Microsoft's keys" } else { "" };
    Err(RunError::unfit(
        format!(
            "no {kind}{keys} for {} ({}) is described in {}{passed_over}",
            wanted.architecture, wanted.machine, DIRECTORIES[0]
        ),
        "install it (package ovmf, edk2-ovmf or qemu-efi-aarch64), or use --firmware=linux",
    ))
}

fn fits(description: Description, wanted: Wanted<'_>) -> std::result::Result<Uefi, String> {
    let has = |feature: &str| description.features.iter().any(|name| name == feature);
    if !description.interfaces.iter().any(|kind| kind == "uefi") {
        return Err("no UEFI".to_owned());
    }
    // Machines are patterns of versioned names: pc-q35-* is what the alias q35 stands for.
    let target = |target: &Target| {
        target.architecture == wanted.architecture && target.machines.iter().any(|name| name.contains(wanted.machine))
    };
    if !description.targets.iter().any(target) {
        return Err("for other machines".to_owned());
    }
    match (wanted.secure_boot, has("secure-boot")) {
        (true, false) => return Err("without secure boot".to_owned()),
        (false, true) => return Err("with secure boot".to_owned()),
        _ => {}
    }
    match (wanted.enrolled, has("enrolled-keys")) {
        (true, false) => return Err("without Microsoft's keys".to_owned()),
        (false, true) => return Err("with Microsoft's keys".to_owned()),
        _ => {}
    }
    match (description.mapping.executable, description.mapping.variables) {
        (Some(code), Some(variables)) => Ok(Uefi { code, variables }),
        _ => Err("without a template for variables".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const Q35: Wanted<'_> = Wanted { architecture: "x86_64", machine: "q35", secure_boot: false, enrolled: false };

    fn describe(directory: &Path, name: &str, features: &[&str], machine: &str) {
        let json = serde_json::json!({
            "description": name, "interface-types": ["uefi"], "features": features, "tags": [],
            "mapping": {"device": "flash",
                "executable": {"filename": format!("/fw/{name}.code"), "format": "raw"},
                "nvram-template": {"filename": format!("/fw/{name}.vars"), "format": "raw"}},
            "targets": [{"architecture": "x86_64", "machines": [machine]}],
        });
        std::fs::write(directory.join(name), json.to_string()).unwrap();
    }

    #[test]
    fn by_features() {
        let top = tempfile::tempdir().unwrap();
        let (usr, etc) = (top.path().join("usr"), top.path().join("etc"));
        std::fs::create_dir_all(&usr).unwrap();
        std::fs::create_dir_all(&etc).unwrap();
        describe(&usr, "10-other.json", &[], "microvm");
        describe(&usr, "40-enrolled.json", &["secure-boot", "enrolled-keys", "requires-smm"], "pc-q35-*");
        describe(&usr, "50-secure.json", &["secure-boot", "requires-smm"], "pc-q35-*");
        describe(&usr, "60-plain.json", &["acpi-s3"], "pc-q35-*");
        describe(&usr, "70-later.json", &["acpi-s3"], "pc-q35-*");
        std::fs::write(usr.join("00-damaged.json"), "{").unwrap();
        std::fs::write(usr.join("README"), "no description").unwrap();
        let descriptions = || -> Vec<PathBuf> {
            let files = |directory| std::fs::read_dir(directory).unwrap().flatten().map(|entry| entry.path());
            files(&usr).chain(files(&etc)).collect()
        };
        let code = |wanted| find(&descriptions(), wanted).unwrap().code.filename;
        let plain = code(Q35);
        assert_eq!(plain, Path::new("/fw/60-plain.json.code"));
        assert_eq!(code(Wanted { secure_boot: true, ..Q35 }), Path::new("/fw/50-secure.json.code"));
        let enrolled = Wanted { secure_boot: true, enrolled: true, ..Q35 };
        assert_eq!(code(enrolled), Path::new("/fw/40-enrolled.json.code"));
        // The administrator's word counts.
        std::fs::write(etc.join("60-plain.json"), "").unwrap();
        assert_eq!(code(Q35), Path::new("/fw/70-later.json.code"));
        let error = find(&descriptions(), Wanted { architecture: "aarch64", ..Q35 }).unwrap_err().to_string();
        assert!(error.contains("aarch64") && error.contains("for other machines"), "{error}");
        assert!(error.contains("00-damaged.json: can't be read"), "{error}");
    }
}
