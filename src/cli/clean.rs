//! `mkosi clean` and `mkosi store`.

use anyhow::bail;

use super::options::Invocation;
use super::session::{outside, remove, store_directory};
use super::store_words;
use crate::config::Loaded;
use crate::store::Store;
use crate::types::human;

/// Removes the outputs of the images and the records of their publication; with `-f` their layers too, with `-ff` the
/// package pool as well.
///
/// # Errors
/// When something can't be removed.
pub fn clean(invocation: &Invocation, loaded: &Loaded) -> anyhow::Result<()> {
    let named = |name: &String| invocation.images.is_empty() || invocation.images.contains(name);
    let store = store_directory(loaded.image("main"));
    for image in loaded.images.iter().filter(|image| named(&image.name)) {
        let Some(output) = image.text("Output") else { continue };
        let directory = image.path("OutputDirectory").unwrap_or(&image.project);
        crate::stage::publish::clean(&store, directory, output)?;
        let Ok(entries) = std::fs::read_dir(directory) else { continue };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let ours = name == output || name.strip_prefix(output).is_some_and(|rest| rest.starts_with('.'));
            if ours {
                remove(&entry.path())?;
            }
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
