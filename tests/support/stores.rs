//! Stores for the tests: packages are downloaded once and kept between runs; everything else is made anew.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::{Graph, Project, tool};

/// Packages that tests install beside those of the usual image.
const MORE: &str = "less tree nano file";

/// Where this process keeps its files. What processes that are gone have left is removed.
pub fn scratch() -> &'static Path {
    static SCRATCH: OnceLock<PathBuf> = OnceLock::new();
    SCRATCH.get_or_init(|| {
        let top = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build");
        std::fs::create_dir_all(&top).unwrap();
        for entry in std::fs::read_dir(&top).unwrap().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.strip_prefix("run-").is_some_and(|id| !Path::new("/proc").join(id).exists()) {
                tool(std::process::Command::new("rm").arg("-rf").arg(entry.path()));
            }
        }
        let own = top.join(format!("run-{}", std::process::id()));
        std::fs::create_dir_all(&own).unwrap();
        own
    })
}

/// A new directory of this process.
pub fn directory(name: &str) -> PathBuf {
    tempfile::Builder::new().prefix(name).tempdir_in(scratch()).unwrap().keep()
}

/// What was downloaded: the packages, and the metadata with its record.
struct Downloaded {
    store: PathBuf,
    key: String,
    layers: Vec<String>,
}

fn downloaded() -> &'static Downloaded {
    static DOWNLOADED: OnceLock<Downloaded> = OnceLock::new();
    DOWNLOADED.get_or_init(|| {
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("build/downloaded");
        std::fs::create_dir_all(&cache).unwrap();
        let project = Project::new(&cache);
        project.configure(&format!("[Content]\nPackages={MORE}\n"));
        project.done(&[]);
        let Graph(graph) = project.graph(&[]);
        let nodes = graph["nodes"].as_array().unwrap();
        let sync = nodes.iter().find(|node| node["stage"] == "sync").unwrap();
        let key = sync["key"].as_str().unwrap().to_owned();
        let store = cache.join("store");
        let record = std::fs::read(store.join("records").join(format!("{key}.json"))).unwrap();
        let record: serde_json::Value = serde_json::from_slice(&record).unwrap();
        let layers = find_layers(&record["record"]["outputs"]);
        assert!(!layers.is_empty(), "{record}");
        Downloaded { store, key, layers }
    })
}

fn find_layers(artifact: &serde_json::Value) -> Vec<String> {
    match artifact {
        serde_json::Value::Array(items) => items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect(),
        serde_json::Value::Object(fields) => fields.values().flat_map(find_layers).collect(),
        _ => Vec::new(),
    }
}

/// Fills the store of a `CacheDirectory=` with packages and metadata, and nothing else.
pub fn fill(cache: &Path) {
    let from = downloaded();
    let store = cache.join("store");
    for name in ["pool", "records", "layers"] {
        std::fs::create_dir_all(store.join(name)).unwrap();
    }
    let copy = |what: PathBuf, place: &str| {
        tool(std::process::Command::new("cp").arg("-a").arg(what).arg(store.join(place)));
    };
    copy(from.store.join("pool/."), "pool");
    copy(from.store.join("records").join(format!("{}.json", from.key)), "records");
    for layer in &from.layers {
        copy(from.store.join("layers").join(layer), "layers");
    }
}

/// A directory for `CacheDirectory=` whose store has packages and metadata, and nothing else.
pub fn fresh() -> PathBuf {
    let cache = directory("cache-");
    fill(&cache);
    cache
}

/// The usual image, built in a fresh store without any disturbance.
pub struct Reference {
    /// The store's `CacheDirectory=`. Tests that harm their store have one of their own.
    pub cache: PathBuf,
    /// The archive.
    pub tar: Vec<u8>,
    /// What ran.
    pub stages: Vec<String>,
    /// The keys.
    pub keys: std::collections::BTreeMap<String, String>,
    /// How long the build took.
    pub time: std::time::Duration,
}

/// The build that others are compared with.
pub fn reference() -> &'static Reference {
    static REFERENCE: OnceLock<Reference> = OnceLock::new();
    REFERENCE.get_or_init(|| {
        let cache = fresh();
        let project = Project::new(&cache);
        let begun = std::time::Instant::now();
        let ran = project.done(&[]);
        let time = begun.elapsed();
        let keys = project.graph(&[]).keys();
        Reference { cache, tar: project.tar(), stages: ran.names().map(str::to_owned).collect(), keys, time }
    })
}

/// The usual project in the store of the reference: nothing but its publication has to run.
pub fn shared() -> Project {
    let project = Project::new(&reference().cache);
    project.build().assert(&["publish"]);
    project
}
