//! The kernel's command line, and what it says of the partitions of the disk.

use serde::{Deserialize, Serialize};

use super::Result;
use super::look::Look;

/// Files with a command line in the image; the first that is there counts (kernel-install(8)).
const FILES: [&str; 2] = ["etc/kernel/cmdline", "usr/lib/kernel/cmdline"];

/// What is known of a partition before the kernels are put on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Its type, as systemd-repart names it: `root-x86-64`, `usr-x86-64-verity`, `esp`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its UUID.
    #[serde(default)]
    pub uuid: String,
    /// Its label.
    #[serde(default)]
    pub label: String,
    /// The root hash of a partition that verity protects.
    #[serde(default)]
    pub roothash: Option<String>,
}

/// The option `roothash=` or `usrhash=` of a disk with verity, as name and value. Of several partitions the first
/// counts, and one that holds the root goes before one with `/usr`.
pub fn roothash(partitions: &[Partition]) -> Option<(&'static str, &str)> {
    let hash = |prefix: &str| {
        let known = partitions.iter().filter(|partition| partition.kind.starts_with(prefix));
        // systemd-repart says TBD of a partition that it was not asked to make.
        known.filter_map(|partition| partition.roothash.as_deref()).find(|hash| *hash != "TBD")
    };
    hash("root").map(|hash| ("roothash", hash)).or_else(|| hash("usr").map(|hash| ("usrhash", hash)))
}

/// The option that tells the kernel where its root is, for boot loader entries that no generator of systemd reads.
pub fn root(partitions: &[Partition]) -> Option<String> {
    let uuid = |prefix: &str| partitions.iter().find(|p| p.kind.starts_with(prefix)).map(|p| p.uuid.as_str());
    roothash(partitions)
        .map(|(name, hash)| format!("{name}={hash}"))
        .or_else(|| uuid("root").map(|uuid| format!("root=PARTUUID={uuid}")))
        .or_else(|| uuid("usr").map(|uuid| format!("mount.usr=PARTUUID={uuid}")))
}

/// The command line that the image itself asks for.
///
/// # Errors
/// When its file can't be read.
pub fn of_image(look: &Look<'_>) -> Result<Option<String>> {
    let path = FILES.into_iter().find(|path| look.exists(path));
    Ok(path.map(|path| look.text(path)).transpose()?.flatten().map(|text| text.trim().to_owned()))
}

/// The whole command line: what the image asks for, the root hash, and the options of the configuration. In these
/// `root=PARTUUID` and `mount.usr=PARTUUID` get the partition's UUID, unless a root hash says which it is.
pub fn command_line(of_image: Option<String>, options: &[&str], partitions: &[Partition]) -> Vec<String> {
    let mut line: Vec<String> = of_image.into_iter().filter(|text| !text.is_empty()).collect();
    if let Some((name, hash)) = roothash(partitions) {
        line.push(format!("{name}={hash}"));
        line.extend(options.iter().map(|option| (*option).to_owned()));
        return line;
    }
    for option in options {
        let uuid =
            ["root", "mount.usr"].into_iter().find(|name| *option == format!("{name}=PARTUUID")).and_then(|name| {
                let prefix = name.trim_start_matches("mount.");
                partitions.iter().find(|partition| partition.kind.starts_with(prefix))
            });
        line.push(match uuid {
            Some(partition) => format!("{option}={}", partition.uuid),
            None => (*option).to_owned(),
        });
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(kind: &str, uuid: &str, roothash: Option<&str>) -> Partition {
        let roothash = roothash.map(str::to_owned);
        Partition { kind: kind.to_owned(), uuid: uuid.to_owned(), roothash, ..Partition::default() }
    }

    #[test]
    fn uuids_replace_what_asks_for_them() {
        let partitions = [partition("esp", "e", None), partition("root-x86-64", "r", None)];
        let options = ["root=PARTUUID", "mount.usr=PARTUUID", "quiet", "root=PARTUUID=x"];
        assert_eq!(
            command_line(Some("rw".to_owned()), &options, &partitions),
            ["rw", "root=PARTUUID=r", "mount.usr=PARTUUID", "quiet", "root=PARTUUID=x"]
        );
        assert_eq!(root(&partitions).as_deref(), Some("root=PARTUUID=r"));
        assert_eq!(command_line(Some(String::new()), &["a"], &[]), ["a"]);
        assert_eq!(root(&[]), None);
    }

    #[test]
    fn a_root_hash_comes_before_the_options_and_says_which_partition_it_is() {
        let partitions = [
            partition("usr-x86-64", "u", Some("uh")),
            partition("root-x86-64-verity", "v", Some("TBD")),
            partition("root-x86-64", "r", Some("rh")),
            partition("root-x86-64", "r2", Some("second")),
        ];
        assert_eq!(roothash(&partitions), Some(("roothash", "rh")));
        assert_eq!(command_line(None, &["root=PARTUUID"], &partitions), ["roothash=rh", "root=PARTUUID"]);
        assert_eq!(roothash(&partitions[..1]), Some(("usrhash", "uh")));
        assert_eq!(root(&partitions[..1]).as_deref(), Some("usrhash=uh"));
        assert_eq!(root(&[partition("usr-arm64", "u", None)]).as_deref(), Some("mount.usr=PARTUUID=u"));
    }

    #[test]
    fn facts_are_read() {
        let read: Vec<Partition> = serde_json::from_str(
            r#"[{"type":"esp","uuid":"1"},{"type":"root-x86-64","uuid":"2","label":"a","roothash":"b"}]"#,
        )
        .unwrap();
        assert_eq!(read[1].roothash.as_deref(), Some("b"));
    }
}
