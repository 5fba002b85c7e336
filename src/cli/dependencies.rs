//! `mkosi dependencies`: the packages that builds need, which are those of the built-in configuration of the tools tree.
//!
//! Knows nothing of the project: the list is for a host on which no project is built yet.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use anyhow::bail;

use super::options::{Stop, parse};
use super::{load_input, resources};
use crate::config::{Diagnostics, load};

/// The packages, a line each, sorted. `words` are options: `--profile=runtime`, `--distribution=fedora`.
///
/// # Errors
/// When an option isn't accepted.
pub fn list(words: &[String], here: &Path) -> anyhow::Result<String> {
    let own = ["--directory=", "--include=mkosi-tools", "build"];
    let arguments = own.iter().take(1).map(OsString::from).chain(words.iter().map(OsString::from));
    let invocation = match parse(arguments.chain(own.iter().skip(1).map(OsString::from)), here) {
        Ok(invocation) => invocation,
        Err(Stop::Show(text)) => return Ok(text),
        Err(Stop::Wrong(text)) => {
            let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            bail!("`mkosi dependencies` takes options after `--`, like `-- --profile=runtime`: {text}");
        }
    };
    if !invocation.images.is_empty() {
        bail!("`mkosi dependencies` takes options after `--`, like `-- --profile=runtime`, and no words");
    }
    let built_in = resources::resources(resources::runtime_directory().as_deref())?;
    let loaded = load(&load_input(&invocation, &built_in.path)).map_err(|Diagnostics(diagnostics)| {
        let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
        anyhow::Error::msg(lines.join("\n").trim_start_matches("error: ").to_owned())
    })?;
    let main = loaded.image("main");
    let packages: BTreeSet<&str> = main.into_iter().flat_map(|image| image.texts("Packages")).collect();
    Ok(packages.into_iter().map(|package| format!("{package}\n")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packages(words: &[&str]) -> BTreeSet<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        list(&words, Path::new("/")).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn profiles_and_distributions() {
        let debian = ["--distribution=debian", "--release=trixie", "--architecture=x86-64"];
        let plain = packages(&debian);
        assert!(plain.contains("erofs-utils") && plain.contains("systemd-repart"), "{plain:?}");
        assert!(!plain.contains("qemu-system"), "{plain:?}");
        let more = packages(&[&debian[..], &["--profile", "runtime"]].concat());
        for package in ["qemu-system", "ovmf", "swtpm", "swtpm-tools", "virtiofsd", "systemd-container"] {
            assert!(more.contains(package), "{package}: {more:?}");
        }
        assert!(more.is_superset(&plain));
        assert!(packages(&["--distribution=fedora", "--profile=runtime"]).contains("edk2-ovmf"));
    }

    #[test]
    fn what_is_no_option_is_told() {
        let fails = |word: &str| list(&[word.to_owned()], Path::new("/")).unwrap_err().to_string();
        for word in ["runtime", "--profle=runtime"] {
            assert!(fails(word).contains("-- --profile=runtime"), "{}", fails(word));
        }
        assert!(fails("--distribution=debain").contains("debian"), "{}", fails("--distribution=debain"));
    }
}
