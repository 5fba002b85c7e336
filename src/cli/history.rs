//! `History=`: the options of the last build, which count again for verbs that don't build.
//!
//! Kept in `.mkosi-private/history/options.json` beside `mkosi.conf`.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::options::Invocation;
use super::verbs::Verb;
use crate::config::{Diagnostic, OptionSetting, table};

const FILE: &str = ".mkosi-private/history/options.json";

#[derive(Serialize, Deserialize)]
struct Kept {
    setting: String,
    text: String,
    option: String,
    directory: PathBuf,
}

/// Whether this run's options are to be kept.
pub fn is_new(invocation: &Invocation) -> bool {
    let builds = matches!(invocation.verb, Verb::Build | Verb::Update);
    let may_build = invocation.verb.builds_with_force() && invocation.force > 0;
    invocation.directory.is_some() && (builds || may_build) && !invocation.rerun_build_scripts
}

/// Whether the options of the last build count for this run.
fn counts(invocation: &Invocation) -> bool {
    let verb = invocation.verb;
    let never =
        matches!(verb, Verb::Update | Verb::Graph | Verb::Clean | Verb::Box | Verb::Store | Verb::LatestSnapshot);
    let anew = matches!(verb, Verb::Build) && !invocation.rerun_build_scripts;
    let forced = invocation.force > 0 && (verb == Verb::Summary || verb == Verb::Build || verb.runs());
    let reads = invocation.directory.is_some() && !verb.needs_no_configuration();
    reads && !never && !anew && !forced && !is_new(invocation)
}

/// Puts the options of the last build before those of this run. What was built with counts; settings for running and
/// includes can still be chosen anew. A history that can't be read is none.
pub fn recall(invocation: &mut Invocation, project: &Path) {
    if !counts(invocation) {
        return;
    }
    let Ok(text) = std::fs::read(project.join(FILE)) else { return };
    let kept: Vec<Kept> = match serde_json::from_slice(&text) {
        Ok(kept) => kept,
        Err(error) => {
            let warning = Diagnostic::warning(format!("the options of the last build can't be read: {error}"));
            invocation.warnings.push(warning.in_file(&project.join(FILE)).hint("build again, or remove it"));
            return;
        }
    };
    let mut settings: Vec<OptionSetting> = kept
        .into_iter()
        .filter(|kept| table::find(&kept.setting).is_some_and(|setting| !changes_freely(setting.section)))
        .map(|kept| OptionSetting {
            setting: kept.setting,
            text: kept.text,
            option: kept.option,
            directory: kept.directory,
        })
        .collect();
    let mut own = std::mem::take(&mut invocation.settings);
    own.retain(|option| {
        let old: Vec<&str> =
            settings.iter().filter(|kept| kept.setting == option.setting).map(|kept| kept.text.as_str()).collect();
        if old.is_empty() {
            return true;
        }
        if !old.contains(&option.text.as_str()) {
            let message = format!("{}: the image was built with another value, which counts", option.option);
            invocation.warnings.push(Diagnostic::warning(message).hint("add -f to build with this one"));
        }
        false
    });
    settings.append(&mut own);
    invocation.settings = settings;
}

fn changes_freely(section: &str) -> bool {
    matches!(section, "Include" | "Runtime")
}

/// Keeps the options of this run.
///
/// # Errors
/// When they can't be written.
pub fn keep(options: &[OptionSetting], project: &Path) -> std::io::Result<()> {
    let kept: Vec<Kept> = options
        .iter()
        .map(|option| Kept {
            setting: option.setting.clone(),
            text: option.text.clone(),
            option: option.option.clone(),
            directory: option.directory.clone(),
        })
        .collect();
    let file = project.join(FILE);
    let directory = file.parent().unwrap_or(project);
    std::fs::create_dir_all(directory)?;
    let mut new = tempfile::NamedTempFile::new_in(directory)?;
    new.write_all(&serde_json::to_vec_pretty(&kept)?)?;
    new.persist(&file).map_err(|error| error.error)?;
    Ok(())
}

/// Forgets the options of the last build.
///
/// # Errors
/// When they can't be removed.
pub fn forget(project: &Path) -> std::io::Result<()> {
    let file = project.join(FILE);
    match std::fs::remove_file(&file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Others may keep something here as well.
    for directory in file.ancestors().skip(1).take(2) {
        let _ = std::fs::remove_dir(directory);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::options::parse;

    fn recalled(project: &Path, arguments: &[&str]) -> (Vec<(String, String)>, usize) {
        let mut invocation = parse(arguments.iter().map(OsString::from), project).unwrap();
        recall(&mut invocation, project);
        let settings = invocation.settings.iter().map(|s| (s.setting.clone(), s.text.clone())).collect();
        (settings, invocation.warnings.len())
    }

    #[test]
    fn options_of_a_build_count_again() {
        let directory = tempfile::tempdir().unwrap();
        let project = directory.path();
        let built = parse(["-O", "out", "-p", "a", "--ram=1G"].map(OsString::from), project).unwrap();
        assert!(is_new(&built));
        keep(&built.settings, project).unwrap();
        let text = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
        };
        let out = [("OutputDirectory", "out"), ("Packages", "a")];
        assert_eq!(recalled(project, &["summary"]), (text(&out), 0));
        assert_eq!(recalled(project, &["-O", "other", "summary"]), (text(&out), 1));
        let with_ram = [out[0], out[1], ("RAM", "2G")];
        assert_eq!(recalled(project, &["--ram=2G", "summary"]), (text(&with_ram), 0), "running is free");
        assert_eq!(recalled(project, &["-f", "summary"]), (Vec::new(), 0));
        assert_eq!(recalled(project, &["build"]), (Vec::new(), 0));
        assert_eq!(recalled(project, &["-R", "build"]), (text(&out), 0));
        assert_eq!(recalled(project, &["graph"]), (Vec::new(), 0), "it shows what `build` would do");
        forget(project).unwrap();
        forget(project).unwrap();
        assert_eq!(recalled(project, &["summary"]), (Vec::new(), 0));
        assert!(!project.join(".mkosi-private").exists());
    }

    #[test]
    fn a_history_that_is_damaged_is_none() {
        let directory = tempfile::tempdir().unwrap();
        keep(&[], directory.path()).unwrap();
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert_eq!(recalled(directory.path(), &["summary"]), (Vec::new(), 1));
    }
}
