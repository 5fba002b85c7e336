//! The documents of a layout, and what its layer says of removed files.

use super::*;

fn blob(compression: Compression) -> Blob {
    Blob { diff_id: "d".repeat(64), digest: "b".repeat(64), size: 12, compression }
}

fn description() -> Description<'static> {
    Description {
        architecture: Architecture::X86_64,
        created: 1_700_000_000,
        command: vec!["/sbin/init".to_owned()],
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        name: None,
        version: None,
    }
}

/// Each document, indented, under its name; blobs in the order in which they refer to each other.
fn shown(documents: &BTreeMap<String, String>) -> String {
    let named = |name: &str| (name.to_owned(), serde_json::from_str::<Value>(&documents[name]).unwrap());
    let (index, layout) = (named("index.json"), named("oci-layout"));
    let blob_of = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        let text = &documents[&blob_path(digest)];
        assert_eq!((sha256(text).as_str(), text.len() as u64), (digest, descriptor["size"].as_u64().unwrap()));
        named(&blob_path(digest))
    };
    let manifest = blob_of(&index.1["manifests"][0]);
    let config = blob_of(&manifest.1["config"]);
    assert_eq!(documents.len(), 4);
    [layout, index, manifest, config].map(|(name, value)| format!("{name}\n{value:#}\n")).join("\n")
}

#[test]
fn the_least_that_an_image_has() {
    insta::assert_snapshot!(shown(&documents(&blob(Compression::Gzip), &description()).unwrap()));
}

#[test]
fn all_that_an_image_can_have() {
    let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    let description = Description {
        architecture: Architecture::Arm64,
        command: vec!["/sbin/init".to_owned(), "systemd.unit=\"x\"".to_owned()],
        labels: map(&[("b", "2"), ("a", "ä=1")]),
        annotations: map(&[("org.opencontainers.image.version", "mine"), ("x", "y")]),
        name: Some("os"),
        version: Some("7"),
        ..description()
    };
    insta::assert_snapshot!(shown(&documents(&blob(Compression::Zstd), &description).unwrap()));
}

#[test]
fn what_no_image_can_have_is_refused() {
    let error = documents(&blob(Compression::Xz), &description()).unwrap_err().to_string();
    assert!(error.contains("xz"), "{error}");
    let description = Description { architecture: Architecture::Parisc, ..description() };
    let error = documents(&blob(Compression::None), &description).unwrap_err().to_string();
    assert!(error.contains("parisc"), "{error}");
}

#[test]
fn times_are_those_of_the_calendar() {
    let mut seconds: Vec<i64> = (-800..3000).map(|month| month * 2_629_746 + 12_345).collect();
    seconds.extend([0, -1, 951_782_399, 951_782_400, 951_868_800, 1_709_164_800, 4_107_542_399, 4_107_542_400]);
    let input: String = seconds.iter().map(|seconds| format!("@{seconds}\n")).collect();
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("times"), input).unwrap();
    let expected = super::super::testing::run(dir.path(), "date -u -f times +%Y-%m-%dT%H:%M:%SZ");
    let ours: String = seconds.iter().map(|seconds| format!("{}\n", rfc3339(*seconds))).collect();
    assert_eq!(ours, expected);
}

fn layer(entries: &[(&str, Kind)]) -> Layer {
    let meta = || Meta { mode: 0o755, uid: 0, gid: 0, xattrs: BTreeMap::new() };
    let entry = |(path, kind): &(&str, Kind)| Entry {
        path: path.as_bytes().to_vec(),
        kind: kind.clone(),
        meta: meta(),
        hardlink: None,
        mtime: 5,
    };
    let entries = entries.iter().map(entry).collect();
    let index = std::sync::Arc::new(crate::store::TreeIndex { entries });
    Layer { digest: index.digest(), dir: PathBuf::from("/layer"), index, size: 0 }
}

fn directory() -> Kind {
    Kind::Directory { opaque: false }
}

fn file(text: &str) -> Kind {
    Kind::File { digest: Digest::of(text.as_bytes()), size: text.len() as u64 }
}

#[test]
fn what_is_removed_of_the_base_is_marked_and_nothing_else() {
    let base = [
        layer(&[
            ("", directory()),
            ("gone", file("x")),
            ("kept", file("x")),
            ("tree", directory()),
            ("tree/a", directory()),
            ("tree/a/deep", file("x")),
            ("tree/b", file("x")),
            ("whole", directory()),
            ("whole/x", file("x")),
        ]),
        layer(&[("", directory()), ("base-only", file("x"))]),
    ];
    let upper = [
        layer(&[
            ("", directory()),
            ("gone", Kind::Whiteout),
            ("passing", file("x")),
            ("tree", Kind::Whiteout),
            ("whole", Kind::Whiteout),
        ]),
        // A directory that is made again has nothing of the old one; what came and went leaves no mark.
        layer(&[
            ("", directory()),
            ("new", file("y")),
            ("passing", Kind::Whiteout),
            ("tree", directory()),
            ("tree/b", file("y")),
        ]),
    ];
    let tree = layer_tree(&base, &upper).unwrap();
    let paths: Vec<&str> = tree.entries.iter().map(|merged| std::str::from_utf8(&merged.entry.path).unwrap()).collect();
    assert_eq!(paths, ["", ".wh.gone", ".wh.whole", "new", "tree", "tree/.wh.a", "tree/b"]);
    // Without a base there is nothing to remove anything from.
    let all = [base, upper].concat();
    let whole = layer_tree(&[], &all).unwrap();
    assert_eq!(whole, MergedTree::new(&all));
}

#[test]
fn a_name_that_means_something_else_is_refused() {
    let layers = [layer(&[("", directory()), ("a", directory()), ("a/.wh.b", file(""))])];
    let error = layer_tree(&[], &layers).unwrap_err().to_string();
    assert!(error.contains("a/.wh.b"), "{error}");
}
