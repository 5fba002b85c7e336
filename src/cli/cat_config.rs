//! `mkosi cat-config`: the configuration files of each image, in the order in which they are read.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::{Image, Loaded};
use crate::types::without_pins;

/// The files with their texts, without PINs in URIs of keys. Paths below `here` are shown relative to it. Where images were
/// asked for, only theirs are shown.
///
/// # Errors
/// When a file can't be read any more.
pub fn render(loaded: &Loaded, here: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let chosen = loaded.selected.iter().any(|name| name != "main");
    let shown = |image: &&Image| !chosen || loaded.selected.contains(&image.name);
    for image in loaded.images.iter().chain(&loaded.tools).filter(shown) {
        let Some(files) = loaded.files.get(&image.name) else { continue };
        if !text.is_empty() {
            text.push('\n');
        }
        let _ = writeln!(text, "### IMAGE: {}", image.name);
        for file in files {
            let _ = writeln!(text, "# {}", file.strip_prefix(here).unwrap_or(file).display());
            text.push_str(&without_pins(&std::fs::read_to_string(file)?));
            if !text.ends_with('\n') {
                text.push('\n');
            }
        }
    }
    Ok(text)
}
