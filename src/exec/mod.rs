//! Runs a plan: which node is ready, which may run at the same time, what the store has already.
//!
//! Prints nothing: it tells an [`Observer`] what happens. Knows nothing of what a stage does.

mod ahead;
mod digests;
mod error;
mod given;
mod log;
mod look;
mod lookup;
mod node;
mod observer;
mod reads;
mod scheduler;
mod tools;
mod tree;

use std::collections::BTreeMap;

pub use ahead::run_ahead;
pub use digests::HostDigests;
pub use error::ExecError;
pub use look::{LookError, Place, look};
pub use lookup::StoreLookup;
pub use observer::{Event, Observer, Outcome};
pub use scheduler::{Options, Summary, execute};
pub use tree::{ShownTree, show_tree};

/// What all nodes of one run of the program have in common, also where it runs nodes several times.
#[derive(Debug, Default)]
pub struct Shared {
    /// The keys whose actions have run.
    made: node::Made,
    /// Trees that had to be put together by copying, by their layers.
    trees: tools::Trees,
}

/// What a run ignores of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Force {
    /// Why no cached result is used for any node of the run, in words (`-ff`, `--no-cache`).
    pub all: Option<String>,
    /// Why volatile nodes run again (`--refresh`, `mkosi update`).
    pub volatile: Option<String>,
    /// Stages that run again, with the reason in words (`--rerun-build-scripts`).
    pub stages: BTreeMap<&'static str, String>,
    /// Whether an output that is not ours is replaced (`-f`).
    pub outputs: bool,
}

impl Force {
    /// Why `node` runs whatever the store has.
    pub fn reason(&self, node: &crate::plan::Node) -> Option<String> {
        if node.decl.publishes {
            return None;
        }
        // Repository metadata outlives a missing cache: only a wish for fresh metadata makes it volatile.
        if node.decl.volatile {
            return match node.image.text("CacheOnly") {
                Some("never") => Some("`CacheOnly=never` is set".to_owned()),
                Some("always" | "metadata") => None,
                _ => self.volatile.clone(),
            };
        }
        if node.fresh {
            return Some("`Incremental=no` is set".to_owned());
        }
        self.stages.get(&*node.stage).or(self.all.as_ref()).cloned()
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    use super::*;
    use crate::config::{Image, Origin, Sourced, Value};
    use crate::plan::{Declarations, Digests, compile};
    use crate::programs::{Identity, Parts};
    use crate::types::Digest;

    struct Fake;

    impl Digests for Fake {
        fn path(&self, _: &Path, _: &[PathBuf]) -> Result<Digest, String> {
            Ok(Digest::of(b"file"))
        }

        fn tool(&self, _: &str, _: &[PathBuf]) -> Result<Option<Arc<Identity>>, String> {
            Ok(Some(Arc::new(Identity { digest: Digest::of(b"tool"), parts: Parts::new() })))
        }
    }

    /// Why sync and base run in a project with this `CacheOnly=`.
    fn reasons(cache_only: &str, force: &Force) -> [Option<String>; 2] {
        const GRAPH: &str = "[stage.sync]\nabout = \"x\"\nversion = 1\npool = \"cpu\"\nvolatile = true\nsandbox = {}\n\
                             [stage.base]\nabout = \"x\"\nversion = 1\npool = \"cpu\"\nsandbox = {}\n";
        let value = Sourced { value: Value::text(cache_only), origin: Origin::Default };
        let values = BTreeMap::from([("CacheOnly", value)]);
        let image = Image { name: "main".to_owned(), project: PathBuf::from("/p"), values };
        let declarations = Declarations::parse(&[("x.toml", GRAPH)], &[]).unwrap();
        let plan = compile(&declarations, &[image], &["main".to_owned()], &Fake).unwrap();
        ["sync", "base"].map(|stage| force.reason(&plan.graph[plan.nodes["main"][stage]]))
    }

    #[test]
    fn cache_only_decides_about_metadata_alone() {
        let none = Force::default();
        let all = Force { all: Some("all".to_owned()), volatile: Some("volatile".to_owned()), ..Force::default() };
        assert_eq!(reasons("auto", &none), [None, None]);
        assert_eq!(reasons("auto", &all), [Some("volatile".to_owned()), Some("all".to_owned())]);
        assert_eq!(reasons("always", &all), [None, Some("all".to_owned())]);
        let stage = Force { stages: BTreeMap::from([("base", "asked".to_owned())]), ..Force::default() };
        assert_eq!(reasons("auto", &stage), [None, Some("asked".to_owned())]);
        assert_eq!(reasons("never", &none), [Some("`CacheOnly=never` is set".to_owned()), None]);
    }
}
