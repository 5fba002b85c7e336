//! Projects to compile, made-up digests, and a run whose outputs are named by the keys.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mkosi::config::{HostFacts, Image, LoadInput, Origin, Sourced, Value, load, table};
use mkosi::plan::{Declarations, Digests, Edge, NodeId, Plan, compile, key_of, node_inputs};
use mkosi::programs::{Identity, Parts};
use mkosi::store::Artifact;
use mkosi::types::{Architecture, Digest};

/// The declarations of the program.
pub fn declarations() -> Declarations {
    let known: Vec<&str> = table::names().collect();
    Declarations::built_in(&known).unwrap()
}

/// A project in a directory of its own.
pub struct Project {
    dir: tempfile::TempDir,
}

impl Project {
    /// A project with these files; a name that ends with `/` makes a directory.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            if name.ends_with('/') {
                std::fs::create_dir_all(&path).unwrap();
            } else {
                std::fs::write(&path, text).unwrap();
            }
        }
        Self { dir }
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }

    /// The images of the project on a made-up host.
    pub fn images(&self) -> Vec<Image> {
        let input = LoadInput {
            directory: Some(self.root().to_owned()),
            options: Vec::new(),
            images: Vec::new(),
            environment: BTreeMap::new(),
            host: HostFacts::new(Some("debian"), Some("trixie"), Architecture::X86_64),
            resources: None,
        };
        load(&input).unwrap_or_else(|error| panic!("{:?}", error.0)).images
    }

    pub fn image(&self) -> Image {
        self.images().pop().unwrap()
    }

    pub fn digests(&self) -> Fake {
        Fake { root: self.root().to_owned(), ..Fake::default() }
    }

    pub fn compile(&self, images: &[Image]) -> Plan {
        let goals: Vec<String> = images.iter().map(|image| image.name.clone()).collect();
        compile(&declarations(), images, &goals, &self.digests()).unwrap()
    }
}

/// Digests that follow from names alone.
#[derive(Default)]
pub struct Fake {
    /// What stands before every path and is no part of a digest.
    pub root: PathBuf,
    /// Paths and tools that hold something else.
    pub changed: BTreeSet<String>,
    /// Paths that can't be read, tools that are not there.
    pub missing: BTreeSet<String>,
}

impl Fake {
    fn of(&self, name: &str, rest: &str) -> Digest {
        let state = if self.changed.contains(name) { "changed" } else { "as it was" };
        Digest::of(format!("{name}\0{rest}\0{state}").as_bytes())
    }

    fn relative<'a>(&self, path: &'a Path) -> &'a str {
        path.strip_prefix(&self.root).unwrap_or(path).to_str().unwrap()
    }
}

impl Digests for Fake {
    fn path(&self, path: &Path, hidden: &[PathBuf]) -> Result<Digest, String> {
        let name = self.relative(path);
        if self.missing.contains(name) {
            return Err("there is no such file".to_owned());
        }
        let hidden: Vec<&str> = hidden.iter().map(|path| self.relative(path)).collect();
        Ok(self.of(name, &hidden.join("\0")))
    }

    fn tool(&self, name: &str, _: &[PathBuf]) -> Result<Option<Arc<Identity>>, String> {
        let identity = || Arc::new(Identity { digest: self.of(name, "tool"), parts: Parts::new() });
        Ok((!self.missing.contains(name)).then(identity))
    }
}

/// An output that is another one whenever the key is.
pub fn output(key: &Digest, name: &str) -> Artifact {
    Artifact::Value { value: format!("{key} {name}").into() }
}

/// The outputs of a node with `key`.
pub fn outputs(plan: &Plan, id: NodeId, key: &Digest) -> BTreeMap<String, Artifact> {
    plan.graph[id].decl.all_outputs().into_iter().map(|name| (name.to_owned(), output(key, name))).collect()
}

/// The keys of all nodes that are part of an image, after a run in which each output is named by its node's key.
pub fn keys(plan: &Plan) -> BTreeMap<NodeId, Digest> {
    let mut keys = BTreeMap::new();
    for id in plan.graph.node_indices().filter(|id| plan.graph[*id].skipped.is_none()) {
        let needs = plan.needs(id).into_iter().map(|(need, edge): (NodeId, &Edge)| {
            let key = keys.get(&need).unwrap_or_else(|| panic!("{} comes too late", plan.graph[need].name()));
            (edge.input.clone(), output(key, &edge.output))
        });
        let node = &plan.graph[id];
        let key = key_of(&node.stage, &node.decl, &node_inputs(node, &needs.collect(), &|_, _| None));
        keys.insert(id, key);
    }
    keys
}

/// The keys by image and stage.
pub fn keys_by_stage(plan: &Plan) -> BTreeMap<(String, String), Digest> {
    let keys = keys(plan);
    let stages = plan.nodes.iter().flat_map(|(image, stages)| stages.iter().map(move |(stage, id)| (image, stage, id)));
    stages.filter_map(|(image, stage, id)| Some(((image.clone(), stage.clone()), *keys.get(id)?))).collect()
}

/// The edges into the node of a stage: input, stage, output.
pub fn edges(plan: &Plan, image: &str, stage: &str) -> Vec<(String, String, String)> {
    let needs = plan.needs(plan.nodes[image][stage]).into_iter();
    needs.map(|(need, edge)| (edge.input.clone(), plan.graph[need].name(), edge.output.clone())).collect()
}

/// The same image with another value for a setting.
pub fn with(image: &Image, setting: &'static str, value: Value) -> Image {
    let mut image = image.clone();
    image.values.insert(setting, Sourced { value, origin: Origin::Option(format!("--{setting}")) });
    image
}

/// The stages that the rich image has no use for, since its format is another, or the host has a package manager.
pub const OTHER_FORMATS: &[&str] = &[
    "addon",
    "artifacts",
    "boot-parts",
    "confext",
    "cpio",
    "disk",
    "esp",
    "esp-kernel",
    "extension-release",
    "oci",
    "partitions",
    "portable",
    "seed",
    "seed-packages",
    "sysext",
    "uki",
];

/// An image in which every stage but those of the other formats has something to do.
pub fn rich() -> Project {
    rich_of("tar")
}

/// The same in another format.
pub fn rich_of(format: &str) -> Project {
    let project = Project::new(&[
        (
            "mkosi.conf",
            "[Distribution]\nDistribution=debian\nRelease=trixie\nMirror=http://mirror.example/debian\n\
             Repositories=contrib\n\
             [Output]\nFormat=@\nManifestFormat=json\nImageId=rich\nImageVersion=1\nCompressOutput=zstd\n\
             OutputDirectory=out\n\
             [Content]\nPackages=bash\nVolatilePackages=curl\nBuildPackages=gcc\nBaseTrees=lower\n\
             RemovePackages=perl-base\nRemoveFiles=/usr/share/man\nCleanPackageMetadata=yes\nSourceDateEpoch=1\n\
             Locale=C.UTF-8\nHostname=rich\nPackageDirectories=debs\nVolatilePackageDirectories=vdebs\n\
             Initrds=own.initrd\n\
             [Validation]\nChecksum=yes\nSign=yes\nSecureBootKey=boot.key\nSecureBootCertificate=boot.crt\n\
             SignExpectedPcrKey=pcr.key\nSignExpectedPcrCertificate=pcr.crt\n\
             [Build]\nBuildSources=src\nBuildDirectory=builddir\nEnvironment=A=1\nCacheDirectory=cache\n",
        ),
        ("lower/", ""),
        ("src/", ""),
        ("debs/", ""),
        ("own.initrd", ""),
        ("boot.key", ""),
        ("boot.crt", ""),
        ("pcr.key", ""),
        ("pcr.crt", ""),
        ("vdebs/", ""),
        ("mkosi.env", ""),
        ("mkosi.crt", ""),
        ("mkosi.sync", ""),
        ("mkosi.postoutput", ""),
        ("mkosi.sandbox/", ""),
        ("mkosi.skeleton/", ""),
        ("mkosi.extra/", ""),
        ("mkosi.prepare", ""),
        ("mkosi.build", ""),
        ("mkosi.postinst", ""),
        ("mkosi.finalize", ""),
        ("mkosi.nspawn", ""),
        ("mkosi.repart/", ""),
        ("mkosi.key", ""),
        ("mkosi.crt", ""),
        ("mkosi.passphrase", ""),
    ]);
    let path = project.root().join("mkosi.conf");
    let text = std::fs::read_to_string(&path).unwrap().replace("Format=@", &format!("Format={format}"));
    std::fs::write(&path, text).unwrap();
    let secret = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(project.root().join("mkosi.passphrase"), secret).unwrap();
    project
}

/// A base image, two on top of it with an equal base of their own, and one that only differs in what it makes.
pub fn four() -> Project {
    let sub = |rest: &str| format!("[Output]\nFormat=tar\n[Content]\n{rest}");
    Project::new(&[
        ("mkosi.conf", "[Output]\nFormat=none\nOutputDirectory=out\n[Distribution]\nDistribution=debian\n"),
        ("mkosi.images/base.conf", "[Output]\nFormat=directory\n[Content]\nPackages=systemd\n"),
        ("mkosi.images/app.conf", &sub("BaseTrees=%O/base\nPackages=nginx\n")),
        ("mkosi.images/one.conf", &sub("Packages=bash\n")),
        ("mkosi.images/two.conf", &sub("Packages=bash\nHostname=two\n")),
    ])
}

/// A default tools tree.
pub fn tools_image() -> Image {
    let files = [("mkosi.conf", "[Distribution]\nDistribution=debian\nRelease=bookworm\n[Content]\nPackages=apt\n")];
    let image = with(&Project::new(&files).image(), "Format", Value::text("directory"));
    let image = with(&image, "OutputDirectory", Value::Path("/tools".into()));
    Image { name: "tools".to_owned(), ..image }
}
