//! The hardware database in `/usr/lib/udev/hwdb.bin` (systemd-hwdb(8)).

use super::apply::{Step, apply};
use super::{Context, Outputs, StageError};

/// Compiles the database, where the tree has sources for one. One in `/etc` would hide it and is removed.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    if cx.merged().lookup(b"usr/lib/udev/hwdb.d").is_none() {
        return Ok(unchanged(cx));
    }
    let tree = cx.open_tree()?;
    let mut spec = cx.spec(&[]);
    spec.mounts.push(cx.tree_mount(&tree));
    let argv = ["systemd-hwdb", "--root=/buildroot", "--usr", "update"].map(str::to_owned).to_vec();
    let steps = [
        Step::Run { argv, accept: Vec::new(), env: Vec::new() },
        Step::Remove { pattern: "/etc/udev/hwdb.bin".to_owned() },
    ];
    apply(cx, spec, &steps)?;
    cx.close_tree(tree)
}

/// The tree as it was.
pub fn unchanged(cx: &Context<'_>) -> Outputs {
    let layers = cx.layers.iter().map(|layer| layer.digest).collect();
    Outputs::from([("tree".to_owned(), crate::store::Artifact::Tree { layers })])
}
