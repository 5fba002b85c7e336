//! Reads the configuration of one image: a file or a directory with `mkosi.conf`, its drop-ins, the files that set
//! something by being there, includes and profiles.
//!
//! Knows nothing of which images there are.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::assignments::with_details;
use super::context::{Context, assign};
use super::diagnostic::Diagnostic;
use super::table::{self, Kind, PathRule, SETTINGS, Setting};
use super::value::{Origin, Value};
use crate::types::suggest::nearest;

/// What is read besides the file or the `mkosi.conf` of the directory.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extras {
    /// `mkosi.profiles/`.
    pub profiles: bool,
    /// `mkosi.local/` and `mkosi.local.conf`.
    pub local: bool,
}

/// The device and inode of what a path leads to.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    path.metadata().ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

impl Context<'_> {
    /// Reads a file, or a directory with everything that is looked for in it. Relative paths in a file are seen from
    /// `directory`; a directory is its own. Whether its conditions hold is the answer.
    pub(super) fn load(&mut self, path: &Path, directory: &Path, extras: Extras) -> bool {
        let Some(identity) = identity(path) else {
            let dangling = path.symlink_metadata().is_ok();
            self.report(
                Diagnostic::warning(if dangling {
                    "this link leads to nothing; it is left out"
                } else {
                    "this can't be read; it is left out"
                })
                .in_file(path),
            );
            return false;
        };
        if self.stack.contains(&identity) {
            self.report(
                Diagnostic::warning("the configuration includes itself here; the repetition is left out").in_file(path),
            );
            return true;
        }
        self.stack.push(identity);
        let holds = if path.is_dir() { self.load_directory(path, extras) } else { self.load_file(path, directory) };
        self.stack.pop();
        holds
    }

    fn load_file(&mut self, path: &Path, directory: &Path) -> bool {
        let Some(file) = self.shared.file(path) else { return true };
        if !self.conditions_hold(&file, directory, false) {
            return false;
        }
        self.conditions_hold(&file, directory, true);
        self.assignments(&file, directory);
        true
    }

    fn load_directory(&mut self, path: &Path, extras: Extras) -> bool {
        let main = path.join("mkosi.conf");
        let file = match main.symlink_metadata() {
            Err(_) => None,
            Ok(_) if !main.exists() => {
                self.report(Diagnostic::warning("this link leads to nothing; it is left out").in_file(&main));
                None
            }
            Ok(_) => self.shared.file(&main),
        };
        if let Some(file) = &file {
            if !self.conditions_hold(file, path, false) {
                return false;
            }
            self.conditions_hold(file, path, true);
        }
        if extras.local {
            self.load_local(path);
        }
        self.default_paths(path);
        if let Some(file) = &file {
            // So that a file that includes this one is noticed.
            let depth = self.stack.len();
            self.stack.extend(identity(&main));
            self.assignments(file, path);
            self.stack.truncate(depth);
        }
        for entry in sorted_entries(&path.join("mkosi.conf.d")) {
            if entry.extension().is_some_and(|extension| extension == "conf") || entry.is_dir() {
                self.load(&entry, path, Extras::default());
            }
        }
        if extras.profiles {
            self.load_profiles(path);
        }
        true
    }

    /// What `mkosi.local` says counts as much as the command line.
    fn load_local(&mut self, path: &Path) {
        for name in ["mkosi.local", "mkosi.local.conf"] {
            let local = path.join(name);
            if !(if name == "mkosi.local" { local.is_dir() } else { local.is_file() }) {
                continue;
            }
            self.load(&local, path, Extras::default());
            let set: Vec<&'static str> = self.config.keys().copied().collect();
            for name in set {
                let Some(setting) = table::find(name) else { continue };
                let sourced = self.sourced(setting);
                let reset = self.cli.get(name).is_some_and(|slot| slot.reset);
                self.cli
                    .insert(name, super::context::Slot { value: Some(sourced.value), reset, origin: sourced.origin });
            }
            self.config.clear();
        }
    }

    fn load_profiles(&mut self, path: &Path) {
        let profiles = self.value("Profiles");
        for profile in profiles.items().iter().filter_map(Value::as_text) {
            let directory = path.join("mkosi.profiles");
            let mut found = false;
            for candidate in [directory.join(profile), directory.join(format!("{profile}.conf"))] {
                if candidate.exists() {
                    found = true;
                    self.load(&candidate, path, Extras::default());
                }
            }
            if !found && directory.is_dir() && self.shared.first_use(&format!("profile {profile}")) {
                let names: Vec<String> = sorted_entries(&directory)
                    .iter()
                    .filter_map(|entry| entry.file_stem())
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect();
                // A profile may be defined in another directory, so this is no error and not even unusual.
                if let Some(near) = nearest(profile, names.iter().map(String::as_str)) {
                    self.report(
                        Diagnostic::warning(format!("there is no profile `{profile}` here"))
                            .in_file(&directory)
                            .nearest(Some(near)),
                    );
                }
            }
        }
    }

    /// Files and directories that set something by being there.
    fn default_paths(&mut self, directory: &Path) {
        // One listing instead of a look at each of some 70 names.
        let names: Vec<String> = directory
            .read_dir()
            .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        for setting in SETTINGS.iter().filter(|setting| !setting.default_paths.is_empty()) {
            if self.prohibits(setting) {
                continue;
            }
            for suffix in setting.default_paths {
                let name = format!("mkosi.{suffix}");
                match name.split_once("/*") {
                    None if names.contains(&name) => self.default_path(setting, directory, &directory.join(&name)),
                    Some((parent, extension)) if names.iter().any(|name| name == parent) => {
                        for entry in sorted_entries(&directory.join(parent)) {
                            if entry.to_string_lossy().ends_with(extension) && entry.exists() {
                                self.default_path(setting, directory, &entry);
                            }
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn default_path(&mut self, setting: &'static Setting, directory: &Path, path: &Path) {
        if !path.exists() {
            self.report(Diagnostic::warning("this link leads to nothing; it is left out").in_file(path));
            return;
        }
        self.warn_of_readers(setting, path);
        let text = if setting.reads_path {
            match run_or_read(path, directory, &self.shared.input.environment) {
                Ok(text) => text.trim_end_matches('\n').to_owned(),
                Err(mut problem) => {
                    problem.message = format!("{}: {}", setting.name, problem.message);
                    return self.report((*problem).in_file(path));
                }
            }
        } else {
            path.to_string_lossy().into_owned()
        };
        let old = self.config.get(setting.stores).and_then(|slot| slot.value.clone());
        match self.reader(directory).read_item(setting.kind, &text, old.as_ref()) {
            Ok(value) => assign(&mut self.config, setting.stores, value, Origin::DefaultPath(path.to_owned())),
            Err(refusal) => {
                let message = format!("{}: {}", setting.name, refusal.message);
                self.report(with_details(Diagnostic::error(message).in_file(path), refusal));
            }
        }
    }

    fn warn_of_readers(&self, setting: &Setting, path: &Path) {
        let secret = matches!(setting.kind, Kind::Password | Kind::Path(PathRule { secret: true, .. }))
            || (setting.kind == Kind::KeyFile && setting.default_paths == ["key"]);
        let open = path.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o007 != 0);
        if secret && open && self.shared.first_use(&format!("mode {}", path.display())) {
            self.report(
                Diagnostic::warning("everybody on this machine can read this secret")
                    .in_file(path)
                    .hint(format!("chmod go= {}", path.display())),
            );
        }
    }
}

/// The entries of a directory by their names; none where there is no directory.
pub(super) fn sorted_entries(directory: &Path) -> Vec<PathBuf> {
    let mut entries: Vec<PathBuf> =
        directory.read_dir().map(|entries| entries.flatten().map(|entry| entry.path()).collect()).unwrap_or_default();
    entries.sort();
    entries
}

/// What a program prints, or the text of a file that can't be executed.
fn run_or_read(
    path: &Path,
    directory: &Path,
    environment: &std::collections::BTreeMap<String, String>,
) -> Result<String, Box<Diagnostic>> {
    let metadata = path.metadata().map_err(|error| Diagnostic::error(format!("can't read it: {error}")))?;
    if metadata.is_dir() {
        return Err(Diagnostic::error("a file is expected here, but this is a directory").into());
    }
    if let Some(what) = super::syntax::endless(path) {
        return Err(Diagnostic::error(format!("a file is expected here, but this is {what}")).into());
    }
    if metadata.permissions().mode() & 0o111 != 0 {
        let output = std::process::Command::new(path)
            .current_dir(directory)
            .env_clear()
            .envs(environment)
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|error| {
                Diagnostic::error(format!("can't run it: {error}"))
                    .hint("check its first line, or take the executable bit off if it is no program")
            })?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = said.lines().last().unwrap_or("it printed no message");
            return Err(Diagnostic::error(format!("it failed with {}: {said}", output.status)).into());
        }
        return String::from_utf8(output.stdout).map_err(|_| Diagnostic::error("what it prints is not UTF-8").into());
    }
    let text = std::fs::read_to_string(path).map_err(|error| Diagnostic::error(format!("can't read it: {error}")))?;
    if text.starts_with("#!") {
        return Err(Diagnostic::error("this is a script, but it is not executable")
            .hint(format!("chmod +x {}", path.display()))
            .into());
    }
    Ok(text)
}
