//! The first pass: every partition but those that a boot loader reads.

use serde::{Deserialize, Serialize};

use super::super::{Context, Outputs, StageError};
use super::{Definitions, Pass, disk_file, keys, run as pass, seed, signature_types, tree, version};
use crate::output::repart::{self, Partition, default_definitions};
use crate::store::Artifact;

/// The partitions that a boot loader reads.
const BOOT_PARTITIONS: [&str; 2] = ["esp", "xbootldr"];

/// What the second pass has to know of the first.
#[derive(Debug, Serialize, Deserialize)]
pub struct Layout {
    /// What identifiers are derived from.
    pub seed: String,
    /// The time of everything in it.
    pub epoch: i64,
    /// The definitions by name, where the project has none.
    pub definitions: std::collections::BTreeMap<String, String>,
    /// Whether partitions wait for the second pass.
    pub deferred: bool,
}

/// What the kernel stage knows of a disk.
#[derive(Debug, Serialize, Deserialize)]
pub struct Facts {
    /// The partitions in the order of their definitions.
    pub partitions: Vec<Partition>,
}

/// Makes the partitions.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let version = version(cx)?;
    keys::check(cx, version)?;
    tree::restrict(cx);
    let merged = cx.merged();
    let mut layout = Layout {
        seed: seed(cx),
        epoch: tree::epoch(cx, &merged),
        definitions: std::collections::BTreeMap::new(),
        deferred: false,
    };
    let definitions = if cx.sources_of("RepartDirectories").is_empty() {
        let filesystem = tree::filesystem(cx.view.text("Distribution").unwrap_or_default());
        layout.definitions = default_definitions(tree::boot(cx, &merged)?, filesystem);
        Definitions::of_texts(&layout.definitions)
    } else {
        Definitions::of_project(cx)?
    };
    let directory = cx.scratch("disk")?;
    let upper = tree::open(cx)?;
    let report = pass(
        cx,
        Pass {
            about: "making the partitions",
            root: cx.tree_mount(&upper),
            definitions: &definitions,
            directory: &directory,
            seed: &layout.seed,
            epoch: layout.epoch,
            defer: deferred(cx, &BOOT_PARTITIONS),
            exclude: Vec::new(),
            more: tabs(version),
            signs: true,
        },
    )?;
    let partitions: Vec<Partition> = report.into_iter().map(|reported| reported.partition).collect();
    check_signature(cx, &partitions)?;
    layout.deferred = partitions.iter().any(|partition| BOOT_PARTITIONS.contains(&partition.kind.as_str()));
    let disk = cx.store.add_file(&disk_file(&directory))?;
    let value = |value: serde_json::Result<serde_json::Value>| -> Result<Artifact, StageError> {
        Ok(Artifact::Value { value: value.map_err(StageError::other)? })
    };
    Ok(Outputs::from([
        ("disk".to_owned(), Artifact::Files { files: [("disk".to_owned(), disk)].into() }),
        ("facts".to_owned(), value(serde_json::to_value(Facts { partitions }))?),
        ("layout".to_owned(), value(serde_json::to_value(layout))?),
        ("tabs".to_owned(), written(cx, upper)?),
    ]))
}

/// The types of partitions that are not filled: `types`, and with `Verity=defer` the signatures.
pub fn deferred(cx: &Context<'_>, types: &[&str]) -> Vec<String> {
    let mut deferred: Vec<String> = types.iter().map(|kind| (*kind).to_owned()).collect();
    if cx.view.text("Verity") == Some("defer") {
        deferred.extend(signature_types(cx.view.text("Architecture").unwrap_or_default()));
    }
    deferred
}

/// `/etc/fstab` and `/etc/crypttab` are written to the tree before it is copied, if a definition has a mount point or an
/// encrypted volume.
fn tabs(version: u32) -> Vec<String> {
    let mut options = Vec::new();
    if version >= repart::TABS {
        options.extend(["--generate-fstab=/etc/fstab", "--generate-crypttab=/etc/crypttab"].map(str::to_owned));
    }
    if version >= repart::APPENDS {
        options.push("--append-fstab=auto".to_owned());
    }
    options
}

/// What the pass wrote to the tree, as a tree of one layer or none: other outputs that show the whole tree need it too.
fn written(cx: &Context<'_>, upper: super::super::Tree) -> Result<Artifact, StageError> {
    let below: Vec<_> = upper.lowers.iter().map(|layer| layer.digest).collect();
    let mut outputs = cx.close_tree(upper)?;
    let layers = match outputs.remove("tree") {
        Some(Artifact::Tree { layers }) => layers.into_iter().skip(below.len()).collect(),
        _ => Vec::new(),
    };
    Ok(Artifact::Tree { layers })
}

fn check_signature(cx: &Context<'_>, partitions: &[Partition]) -> Result<(), StageError> {
    let types = signature_types(cx.view.text("Architecture").unwrap_or_default());
    let signed = partitions.iter().any(|partition| types.contains(&partition.kind));
    if cx.view.text("Verity") == Some("signed") && !signed {
        return Err(StageError::Other(
            "Verity=signed, and no definition makes a partition for the signature: add one with Verity=signature to \
             mkosi.repart/ (repart.d(5))"
                .to_owned(),
        ));
    }
    Ok(())
}

/// Reads an output that is a value.
///
/// # Errors
/// When there is none, or it is another.
pub fn read<T: serde::de::DeserializeOwned>(cx: &Context<'_>, need: &str) -> Result<T, StageError> {
    match cx.needs.get(need) {
        Some(Artifact::Value { value }) => serde_json::from_value(value.clone())
            .map_err(|error| StageError::Other(format!("the stored output {need} can't be read: {error}"))),
        _ => Err(StageError::Other(format!("there is no output {need}"))),
    }
}
