//! A shell, or one command, in the tree of a stage: in the sandbox of its scripts, or in the image itself where the
//! stage runs none. Changes are thrown away. Knows nothing of how the stage's inputs were found.

use std::path::{Path, PathBuf};

use super::context::BUILDROOT;
use super::{Context, StageError, Tree, script};
use crate::sandbox::{Exit, Input, Output, Spec};
use crate::store::MergedTree;

/// What a stage that failed has left: its work directory.
#[derive(Clone, Debug)]
pub struct Left(pub PathBuf);

/// Shells in the order of preference.
const SHELLS: [&str; 2] = ["bash", "sh"];

/// Runs a command, or a shell if there is none, and tells how it ended. It talks to this program's own terminal.
///
/// # Errors
/// When the sandbox can't be made.
pub fn shell(cx: &mut Context<'_>, left: Option<&Left>, command: &[String]) -> Result<Exit, StageError> {
    let tree = match left {
        Some(Left(work)) => cx.open_left(work.join("upper"))?,
        None => cx.open_tree()?,
    };
    let (mut spec, in_image) = match script::looked_into(cx, &tree, left.map(|Left(work)| work.as_path()))? {
        Some(spec) => (spec, false),
        None => {
            let mut spec = cx.spec(&[]);
            spec.mounts.push(cx.tree_mount(&tree));
            spec.env.insert("BUILDROOT".to_owned(), BUILDROOT.to_owned());
            (spec, shell_of(&tree).is_some())
        }
    };
    // A shell wants to know its terminal; nothing is made from here.
    if let Ok(terminal) = std::env::var("TERM") {
        spec.env.insert("TERM".to_owned(), terminal);
    }
    spec.argv = if in_image { vec!["mkosi-chroot".to_owned()] } else { Vec::new() };
    match (command, in_image) {
        ([], true) => spec.argv.extend(shell_of(&tree).map(str::to_owned)),
        ([], false) => {
            let shell = SHELLS.into_iter().find(|name| cx.tools.find(name).is_some()).unwrap_or("sh");
            spec.argv.push(shell.to_owned());
            say(&spec);
        }
        (command, _) => spec.argv.extend(command.iter().cloned()),
    }
    Ok(spec.run(Input::Inherit, Output::Inherit, cx.cancel)?)
}

/// The shell of an image, if it has one.
fn shell_of(tree: &Tree) -> Option<&'static str> {
    let merged = MergedTree::new(&tree.lowers);
    let has = |path: &str| {
        let changed = |root: &Path| root.join(path).symlink_metadata().is_ok();
        merged.lookup(path.as_bytes()).is_some() || tree.above.as_deref().is_some_and(changed)
    };
    SHELLS.into_iter().find(|name| ["usr/bin", "bin"].iter().any(|dir| has(&format!("{dir}/{name}"))))
}

/// Tells where a shell outside the image is.
fn say(spec: &Spec) {
    let sources = if spec.env.contains_key("SRCDIR") { ", the sources at $SRCDIR" } else { "" };
    crate::tell!("The image is at $BUILDROOT{sources}; `mkosi-chroot` enters it. Changes are thrown away.");
}
