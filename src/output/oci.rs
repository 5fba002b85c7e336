//! An OCI image layout of one layer: the layer's tree, the documents around it, and their names.
//!
//! Formats: the Open Container Initiative's image specification 1.0, "Image Layout", "Image Index", "Image Manifest",
//! "Image Configuration" and "Filesystem Layer". Knows nothing of stages, settings or the store's directories.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::checksum::hex;
use super::{Compression, Error, Result};
use crate::store::{Entry, Kind, Layer, MergedEntry, MergedTree, Meta, path_order};
use crate::types::{Architecture, Digest};

/// What the name of a file begins with that stands for one which a layer removes.
const WHITEOUT: &[u8] = b".wh.";

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A layer that was written: what is known of its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The SHA-256 of the tar archive, in hexadecimal.
    pub diff_id: String,
    /// The SHA-256 of the file, which may be compressed, in hexadecimal.
    pub digest: String,
    /// The size of the file in bytes.
    pub size: u64,
    /// How it is compressed.
    pub compression: Compression,
}

/// What an image says of itself.
#[derive(Clone, Debug)]
pub struct Description<'a> {
    /// The architecture of its programs.
    pub architecture: Architecture,
    /// When it was made, in seconds since 1970.
    pub created: i64,
    /// The program that a container runs, with its arguments.
    pub command: Vec<String>,
    /// Labels of the configuration.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the manifest. They count more than those that follow from the rest.
    pub annotations: BTreeMap<String, String>,
    /// The name in the index (`ImageId=`).
    pub name: Option<&'a str>,
    /// The image's version (`ImageVersion=`).
    pub version: Option<&'a str>,
}

/// The media type of a layer; nothing for a compression that layers can't have.
pub fn layer_type(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => Some("application/vnd.oci.image.layer.v1.tar"),
        Compression::Gzip => Some("application/vnd.oci.image.layer.v1.tar+gzip"),
        Compression::Zstd => Some("application/vnd.oci.image.layer.v1.tar+zstd"),
        Compression::Xz => None,
    }
}

/// The path of a blob in the layout.
pub fn blob_path(sha256: &str) -> String {
    format!("blobs/sha256/{sha256}")
}

/// The documents of a layout around its one layer, by their path in it.
///
/// # Errors
/// An architecture or a compression that OCI images don't have.
pub fn documents(layer: &Blob, description: &Description<'_>) -> Result<BTreeMap<String, String>> {
    let unfit = |reason| Error::Format { format: "OCI image", reason };
    let architecture = description
        .architecture
        .oci()
        .ok_or_else(|| unfit(format!("there is no name for the architecture {}", description.architecture)))?;
    let layer_type = layer_type(layer.compression)
        .ok_or_else(|| unfit(format!("its layers can't be compressed with {}", layer.compression)))?;
    let created = rfc3339(description.created);
    let mut config = json!({ "Cmd": description.command });
    if !description.labels.is_empty() {
        insert(&mut config, "Labels", json!(description.labels));
    }
    let config = json!({
        "created": created,
        "architecture": architecture,
        "os": "linux",
        "config": config,
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", layer.diff_id)] },
        "history": [{ "created": created, "comment": "Created by mkosi" }],
    })
    .to_string();
    let mut annotations = BTreeMap::new();
    if let Some(version) = description.version {
        annotations.insert("org.opencontainers.image.version".to_owned(), version.to_owned());
    }
    annotations.extend(description.annotations.clone());
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, &sha256(&config), config.len() as u64),
        "layers": [descriptor(layer_type, &layer.digest, layer.size)],
    });
    if !annotations.is_empty() {
        insert(&mut manifest, "annotations", json!(annotations));
    }
    let manifest = manifest.to_string();
    let mut listed = descriptor(MANIFEST, &sha256(&manifest), manifest.len() as u64);
    if let Some(name) = description.name {
        insert(&mut listed, "annotations", json!({ "org.opencontainers.image.ref.name": name }));
    }
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [listed] }).to_string();
    Ok(BTreeMap::from([
        (blob_path(&sha256(&config)), config),
        (blob_path(&sha256(&manifest)), manifest),
        ("index.json".to_owned(), index),
        ("oci-layout".to_owned(), json!({ "imageLayoutVersion": "1.0.0" }).to_string()),
    ]))
}

fn descriptor(media_type: &str, sha256: &str, size: u64) -> Value {
    json!({ "mediaType": media_type, "digest": format!("sha256:{sha256}"), "size": size })
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

fn sha256(text: &str) -> String {
    hex(Sha256::new_with_prefix(text))
}

/// A time as RFC 3339 has it, in UTC. Days are counted in years that begin with March, so that a leap day is the last
/// of its year.
fn rfc3339(seconds: i64) -> String {
    const DAY: i64 = 86_400;
    // From March 1 of the year 0 to the start of 1970.
    const START: i64 = 719_468;
    // Days in 400, 100 and 4 years, where the last day may be left out, and in one.
    const ERA: i64 = 146_097;
    const CENTURY: i64 = 36_524;
    const FOUR: i64 = 1_460;
    const YEAR: i64 = 365;
    let (days, time) = (seconds.div_euclid(DAY) + START, seconds.rem_euclid(DAY));
    let (era, day) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (day - day / FOUR + day / CENTURY - day / (ERA - 1)) / YEAR;
    let day = day - (YEAR * year + year / 4 - year / 100);
    // Months from March have 31, 30, 31, 30, 31 days, twice, and then the rest.
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

/// The tree that a layer holds: `layers` merged, and for each thing of `base`, the layers below them, that they remove
/// an empty file with a name of its own.
///
/// # Errors
/// A file whose name has another meaning in a layer.
pub fn layer_tree(base: &[Layer], layers: &[Layer]) -> Result<MergedTree> {
    let mut tree = MergedTree::difference(base, layers);
    let named =
        |merged: &&MergedEntry| merged.entry.kind != Kind::Whiteout && name(&merged.entry.path).starts_with(WHITEOUT);
    if let Some(merged) = tree.entries.iter().find(named) {
        return Err(Error::Unfit {
            path: super::copy::path_of(&merged.entry).to_owned(),
            format: "OCI layer",
            reason: "names that begin with `.wh.` stand for removed files there",
        });
    }
    for merged in tree.entries.iter_mut().filter(|merged| merged.entry.kind == Kind::Whiteout) {
        let path = &merged.entry.path;
        let directory = path.get(..path.len() - name(path).len()).unwrap_or_default();
        *merged = mark([directory, WHITEOUT, name(path)].concat());
    }
    tree.entries.sort_by(|a, b| path_order(&a.entry.path, &b.entry.path));
    Ok(tree)
}

fn mark(path: Vec<u8>) -> MergedEntry {
    let meta = Meta { mode: 0o644, uid: 0, gid: 0, xattrs: BTreeMap::new() };
    let kind = Kind::File { digest: Digest::of(b""), size: 0 };
    MergedEntry { entry: Entry { path, kind, meta, hardlink: None, mtime: 0 }, source: PathBuf::from("/dev/null") }
}

fn name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

#[cfg(test)]
#[path = "oci_tests.rs"]
mod tests;
