//! systemd-repart(8): what it reports, the facts of a disk that other stages need, and the definitions that are used
//! where a project has none (repart.d(5)).
//!
//! Knows nothing of stages, of sandboxes, or of how the program is run.

mod definitions;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use definitions::{BIOS_BOOT, Boot, default_definitions, esp_definition, extension_definitions};

/// The oldest version that builds disk images from a directory.
pub const MINIMUM: u32 = 254;
/// The first version that writes `/etc/fstab` and `/etc/crypttab`.
pub const TABS: u32 = 256;
/// The first version that wants no key for a signature that is put off.
pub const DEFERS_SIGNATURES: u32 = 258;
/// The first version that adds to an `/etc/fstab` that is there.
pub const APPENDS: u32 = 258;
/// The first version that makes an El Torito boot catalog.
pub const EL_TORITO: u32 = 261;
/// The first version that takes keys and certificates from OpenSSL engines and providers.
pub const KEY_SOURCES: u32 = 256;

/// One partition of a disk: what the kernel command line and offline signing need of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its type by the name of the Discoverable Partitions Specification (`root-x86-64`), or the type's UUID.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its UUID.
    pub uuid: String,
    /// Its label.
    pub label: String,
    /// The root hash of its verity data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roothash: Option<String>,
}

/// A partition as the program reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    /// What is kept of it.
    pub partition: Partition,
    /// The file that its contents were split off to.
    pub split: Option<PathBuf>,
}

/// A report that can't be read, or says what no disk of ours has.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is not the JSON that was expected.
    #[error("systemd-repart gave a report that can't be read: {0}; it said: {1}")]
    Json(serde_json::Error, String),
    /// A root hash where none belongs.
    #[error("systemd-repart gave the partition of type {0} a root hash; only root and usr partitions have one")]
    RootHash(String),
}

#[derive(Deserialize)]
struct Row {
    #[serde(rename = "type")]
    kind: String,
    uuid: String,
    label: Option<String>,
    roothash: Option<String>,
    split_path: Option<String>,
}

/// Reads what `systemd-repart --json=` printed.
///
/// # Errors
/// When it isn't the expected JSON, or names a root hash where none can be.
pub fn read_report(text: &[u8]) -> Result<Vec<Reported>, ReportError> {
    let rows: Vec<Row> = serde_json::from_slice(text)
        .map_err(|error| ReportError::Json(error, String::from_utf8_lossy(text).trim().to_owned()))?;
    let read = |row: Row| {
        // A partition that was put off has no hash yet.
        let roothash = row.roothash.filter(|hash| hash != "TBD" && hash != "-");
        if roothash.is_some() && !(row.kind.starts_with("root") || row.kind.starts_with("usr")) {
            return Err(ReportError::RootHash(row.kind));
        }
        let label = row.label.unwrap_or_default();
        let split = row.split_path.filter(|path| path != "-").map(PathBuf::from);
        Ok(Reported { partition: Partition { kind: row.kind, uuid: row.uuid, label, roothash }, split })
    };
    rows.into_iter().map(read).collect()
}

/// The version in what `systemd-repart --version` printed: `systemd 257 (257.13-1)` is 257, `261~devel` is 261.
pub fn read_version(text: &str) -> Option<u32> {
    let word = text.split_whitespace().nth(1)?;
    let digits = word.find(|c: char| !c.is_ascii_digit()).map_or(word, |end| word.get(..end).unwrap_or_default());
    digits.parse().ok()
}

/// The root hash that names the disk on the kernel command line, with the option's name: `usrhash` where `/usr` has
/// verity alone, else `roothash`. Of several the first counts.
pub fn root_hash(partitions: &[Partition]) -> Option<(&'static str, &str)> {
    let first = |prefix: &str| partitions.iter().find(|p| p.kind.starts_with(prefix) && p.roothash.is_some());
    let found = first("root").map(|p| ("roothash", p)).or_else(|| first("usr").map(|p| ("usrhash", p)));
    found.and_then(|(option, partition)| Some((option, partition.roothash.as_deref()?)))
}

/// What follows the name of the disk's file in that of a file that a partition was split off to: `.root-x86-64.raw`.
pub fn split_suffix(disk: &str, split: &Path) -> Option<String> {
    let name = split.file_name()?.to_str()?;
    Some(name.strip_prefix(disk)?.to_owned()).filter(|suffix| suffix.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"[
        {"type": "esp", "label": "esp", "uuid": "76b50e6a-8923-43f8-b5a9-3b993c04d821", "partno": 0,
         "split_path": "/work/disk/image.esp.raw"},
        {"type": "root-x86-64-verity", "label": "v", "uuid": "b", "roothash": "TBD", "split_path": "-"},
        {"type": "root-x86-64", "label": "r", "uuid": "c", "roothash": "00ff"}]"#;

    #[test]
    fn a_report_is_read() {
        let report = read_report(REPORT.as_bytes()).unwrap();
        let hashes: Vec<Option<&str>> = report.iter().map(|r| r.partition.roothash.as_deref()).collect();
        assert_eq!(hashes, [None, None, Some("00ff")]);
        let split = report[0].split.as_deref().unwrap();
        assert_eq!(split_suffix("image", split).unwrap(), ".esp.raw");
        assert_eq!(split_suffix("im", split), None);
        assert_eq!(report[1].split, None);
        let wrong = r#"[{"type": "swap", "uuid": "a", "roothash": "1"}]"#;
        assert!(read_report(wrong.as_bytes()).unwrap_err().to_string().contains("swap"));
        assert!(read_report(b"no\n").unwrap_err().to_string().ends_with("it said: no"));
    }

    #[test]
    fn versions_are_numbers() {
        assert_eq!(read_version("systemd 257 (257.13-1~deb13u1)\n+PAM"), Some(257));
        assert_eq!(read_version("systemd 261~devel (261~devel)"), Some(261));
        assert_eq!(read_version("systemd"), None);
    }

    #[test]
    fn the_hash_of_the_root_goes_first() {
        let partition = |kind: &str, roothash: &str| Partition {
            kind: kind.to_owned(),
            uuid: String::new(),
            label: String::new(),
            roothash: (!roothash.is_empty()).then(|| roothash.to_owned()),
        };
        let (root, usr) = (partition("root-x86-64-verity", "bb"), partition("usr-x86-64-verity", "aa"));
        let plain = partition("root-x86-64", "");
        assert_eq!(root_hash(std::slice::from_ref(&plain)), None);
        assert_eq!(root_hash(&[plain.clone(), usr.clone()]), Some(("usrhash", "aa")));
        assert_eq!(root_hash(&[usr, plain, root]), Some(("roothash", "bb")));
    }
}
