//! `mkosi clean` and `mkosi store`.

use std::fs::File;
use std::path::Path;

use anyhow::bail;
use rustix::fs::{FlockOperation, flock};

use super::options::Invocation;
use super::session::{empty, outside, remove, store_directory};
use super::store_words;
use crate::config::{Loaded, build_subdirectory};
use crate::output::OutputNames;
use crate::store::Store;
use crate::types::human;

/// Removes the outputs of the images and the records of their publication; with `-f` their layers and build directories
/// too, with `-ff` the package pool as well.
///
/// # Errors
/// When something can't be removed.
pub fn clean(invocation: &Invocation, loaded: &Loaded) -> anyhow::Result<()> {
    let named = |name: &String| invocation.images.is_empty() || invocation.images.contains(name);
    let store = store_directory(loaded.image("main"));
    for image in loaded.images.iter().filter(|image| named(&image.name)) {
        let Some(output) = image.text("Output") else { continue };
        let directory = image.path("OutputDirectory").unwrap_or(&image.project);
        check_unused(&directory.join(output))?;
        crate::stage::publish::clean(&store, directory, output)?;
        // What is left and has an output's name is another program's, or of another store.
        let extension = image.text("OutputExtension").unwrap_or_default();
        let tree = matches!(image.text("Format"), Some("directory" | "oci"));
        for name in OutputNames::possible(output, extension).filter(|name| !is_of_project(name)) {
            let path = directory.join(&name);
            let is_tree = path.symlink_metadata().is_ok_and(|meta| meta.is_dir());
            // The user's own, which sources next to outputs may be.
            if name == output && is_tree && !tree {
                continue;
            }
            remove(&path)?;
        }
        if let Some(directory) = build_subdirectory(image).filter(|_| invocation.force > 0 || invocation.wipe_build_dir)
        {
            empty(&directory)?;
        }
    }
    let outside = outside();
    for image in loaded.images.iter().filter(|image| named(&image.name)) {
        let mut image = image.clone();
        image.take_environment_files(&outside)?;
        crate::stage::script::clean(&image, &mut std::io::stderr(), &crate::sandbox::Cancel::default())?;
    }
    if invocation.force > 0 {
        let store = Store::open(&store)?;
        let removed = store.forget_project(&loaded.project.to_string_lossy())?;
        crate::tell!("{} forgotten", human::count(removed, "result"));
        if invocation.force > 1 {
            store.empty_pool()?;
        }
    }
    Ok(())
}

/// Whether files of a project are called so, which an image called `mkosi` must not take with it. What was published
/// under such a name is known by its record.
fn is_of_project(name: &str) -> bool {
    name.starts_with("mkosi.")
}

/// Whether no machine runs on an image: they lock it.
fn check_unused(image: &Path) -> anyhow::Result<()> {
    let Ok(file) = File::open(image) else { return Ok(()) };
    if flock(&file, FlockOperation::NonBlockingLockExclusive) == Err(rustix::io::Errno::AGAIN) {
        bail!("{} is in use by a machine that runs: end it first, and clean then", image.display());
    }
    Ok(())
}

/// `mkosi store gc|verify|du`.
///
/// # Errors
/// When the words are none of these, or the store can't be read; damage that was found and not repaired.
pub fn store(invocation: &Invocation, loaded: &Loaded) -> anyhow::Result<String> {
    let store = Store::open(&store_directory(loaded.image("main")))?;
    let words: Vec<&str> = invocation.arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["du"] | [] => Ok(store_words::usage(&store.du()?)),
        ["gc"] => {
            let policy = store_words::policy(invocation.max_size.as_deref(), &invocation.keep_days)?;
            Ok(store_words::cleaned(&store.gc(&policy)?))
        }
        ["verify"] => {
            let report = store.verify(invocation.repair)?;
            let words = store_words::verified(&report, invocation.repair);
            let sound = report.damaged.is_empty() || invocation.repair;
            if sound { Ok(words) } else { bail!("{}", words.trim_end()) }
        }
        other => bail!("`mkosi store {}` is unknown: du, gc or verify", other.join(" ")),
    }
}
