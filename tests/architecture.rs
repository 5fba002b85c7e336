//! Upper layers use lower ones, never the other way round (`docs/architecture.md`), and files stay readable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The modules from the lowest to the topmost. Modules of one line don't use each other unless named in `BESIDE`.
const LAYERS: &[&[&str]] = &[
    &["types"],
    &["reads"],
    &["config", "rootfs", "sandbox", "store"],
    &["boot", "distro", "output", "programs"],
    &["stage"],
    &["plan"],
    &["exec"],
    &["run"],
    &["cli"],
];

/// Uses within one line of `LAYERS` that are meant.
const BESIDE: &[(&str, &str)] = &[];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn all_sources() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths.sort();
    let module = |path: &Path| {
        let relative = path.strip_prefix(&root).unwrap();
        relative.components().next().unwrap().as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
    };
    paths
        .into_iter()
        .map(|path| {
            let text = std::fs::read_to_string(&path).unwrap();
            (module(&path), path, text)
        })
        .collect()
}

#[test]
fn upper_layers_use_lower_ones_only() {
    let level: BTreeMap<&str, usize> =
        LAYERS.iter().enumerate().flat_map(|(level, names)| names.iter().map(move |name| (*name, level))).collect();
    let mut wrong = Vec::new();
    let mut uses = 0;
    for (module, path, text) in all_sources() {
        if matches!(module.as_str(), "lib" | "main") {
            continue;
        }
        let own = *level.get(module.as_str()).unwrap_or_else(|| panic!("src/{module} has no place in LAYERS"));
        for (index, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap();
            for part in code.split("crate::").skip(1) {
                let used: String = part.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(other) = level.get(used.as_str()) else { continue };
                uses += 1;
                let beside = BESIDE.contains(&(module.as_str(), used.as_str()));
                if used != module && *other >= own && !beside {
                    wrong.push(format!("{}:{}: {module} uses {used}", path.display(), index + 1));
                }
            }
        }
    }
    assert!(uses > 50, "only {uses} uses found: the test no longer reads the sources");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_module_says_what_it_is() {
    for (_, path, text) in all_sources() {
        assert!(text.starts_with("//!"), "{} does not open with what it does", path.display());
    }
}

#[test]
fn unsafe_stays_in_the_system_call_layer() {
    for (_, path, text) in all_sources() {
        let has = text.contains("allow(unsafe_code)");
        assert!(!has || path.ends_with("sys.rs"), "{} allows unsafe code", path.display());
        let blocks = text.matches("unsafe {").count();
        let reasons = text.matches("SAFETY:").count();
        assert!(blocks <= reasons, "{}: {blocks} unsafe blocks and {reasons} SAFETY lines", path.display());
    }
}
