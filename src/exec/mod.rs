//! Runs a plan: which node is ready, which may run at the same time, what the store has already.
//!
//! Prints nothing: it tells an [`Observer`] what happens. Knows nothing of what a stage does.

mod ahead;
mod digests;
mod error;
mod lookup;
mod node;
mod observer;
mod scheduler;

pub use ahead::run_ahead;
pub use digests::HostDigests;
pub use error::ExecError;
pub use lookup::StoreLookup;
pub use observer::{Event, Observer, Outcome};
pub use scheduler::{Options, Summary, execute};

/// What a run ignores of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Force {
    /// Why no cached result is used for any node of the run, in words (`-ff`, `--no-cache`).
    pub all: Option<String>,
    /// Why volatile nodes run again (`--refresh`, `mkosi update`).
    pub volatile: Option<String>,
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
            return self.volatile.clone();
        }
        if node.fresh {
            return Some("`Incremental=no` is set".to_owned());
        }
        self.all.clone()
    }
}
