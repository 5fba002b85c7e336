//! What a node makes, and the record of how it was made.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::types::{Digest, Encoder};

/// One output of a node, by reference to objects in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Artifact {
    /// A whole tree: overlay differences from the lowest to the topmost.
    Tree {
        /// The layers, lowest first.
        layers: Vec<Digest>,
    },
    /// Named files, the name first: packages of a set, or the files of an output.
    Files {
        /// Name to content digest of an object under `files/`.
        files: BTreeMap<String, Digest>,
    },
    /// A small value that is kept in the record itself.
    Value {
        /// The value.
        value: serde_json::Value,
    },
}

impl Artifact {
    /// The digest that enters the keys of the nodes that need this output.
    pub fn digest(&self) -> Digest {
        let mut encoder = Encoder::new("mkosi.artifact", 1);
        match self {
            Self::Tree { layers } => {
                encoder.str("tree").list(layers.len());
                for layer in layers {
                    encoder.digest(layer);
                }
            }
            Self::Files { files } => {
                encoder.str("files").map(files);
            }
            // serde_json's map is sorted, and numbers print one way, so equal values give equal bytes.
            Self::Value { value } => {
                encoder.str("value").str(&value.to_string());
            }
        }
        encoder.finish()
    }
}

/// Whose last run a record was: a place in a project that keeps its name while its keys change. Only explanations
/// and clean-up use it; it never enters a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The project's directory.
    pub project: String,
    /// The image's name.
    pub image: String,
    /// The node's name within the image.
    pub node: String,
}

/// What an action read of sources of which only that enters its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Read {
    /// The key of all its other inputs.
    pub pre: Digest,
    /// What it looked at: a shape below `traces/`.
    pub shape: Digest,
    /// What was there, for explanations: a file of the store.
    pub seen: Digest,
}

/// The record of one action: what went in, what came out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The action's key.
    pub key: Digest,
    /// The stage's kind, for people.
    pub kind: String,
    /// The digest of every single input by its name (`setting/Packages`, `file/mkosi.postinst`,
    /// `need/base.tree`, `tool/dpkg`, ...).
    pub inputs: BTreeMap<String, Digest>,
    /// The outputs by name.
    pub outputs: BTreeMap<String, Artifact>,
    /// How long the action took, in milliseconds.
    pub duration_ms: u64,
    /// The size of the new objects that it made, in bytes.
    pub size: u64,
    /// When it ended, in seconds since 1970. For people and clean-up; never in a key.
    pub finished: u64,
    /// What it read of its sources, where that was noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Box<Read>>,
}
