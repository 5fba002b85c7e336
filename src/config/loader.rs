//! Reads the configuration of one image: a file or a directory with `mkosi.conf`, its drop-ins, the files that set
//! something by being there, includes and profiles.
//!
//! Knows nothing of which images there are.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::context::{Context, assign};
use super::diagnostic::Diagnostic;
use super::host;
use super::read::Refusal;
use super::specifier::{self, Meaning};
use super::syntax::{Entry, File, Line, value};
use super::table::{self, CONDITIONS, Kind, OLD_SECTIONS, PathRule, SECTIONS, SETTINGS, Setting, removed};
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

/// A refused value as an error with its place.
pub(super) fn refused(file: &File, key: &Line, lines: &[Line], name: &str, refusal: Refusal) -> Diagnostic {
    let place = match refusal.token.as_deref() {
        Some("") => file.place(key, key.text.chars().count()),
        token => file.place_of(key, lines, token),
    };
    with_details(Diagnostic::error(format!("{name}: {}", refusal.message)).at(place), refusal)
}

/// A diagnostic with what the refusal says besides its message.
pub(super) fn with_details(mut diagnostic: Diagnostic, refusal: Refusal) -> Diagnostic {
    diagnostic.accepted = refusal.accepted;
    diagnostic.hint = refusal.hint;
    diagnostic
}

fn identity(path: &Path) -> Option<(u64, u64)> {
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
                    return self.report(problem.in_file(path));
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

    fn assignments(&mut self, file: &File, directory: &Path) {
        self.files.push(file.path.clone());
        let mut section = "";
        for entry in &file.entries {
            match entry {
                Entry::Section { name, line } => {
                    section = OLD_SECTIONS.iter().find(|(old, _)| old == name).map_or(name.as_str(), |(_, new)| new);
                    if section != name && self.shared.first_use(&format!("[{name}]")) {
                        let place = file.place(line, name.chars().count() + 2);
                        let message = format!("the section [{name}] is called [{section}] now");
                        self.report(Diagnostic::warning(message).at(place));
                    }
                    let known = SECTIONS.contains(&section) || CONDITIONS.contains(&section);
                    if !known && !section.starts_with("X-") {
                        let place = file.place(line, name.chars().count() + 2);
                        let message = format!("there is no section [{name}]; what stands in it is left out");
                        let near = nearest(name, SECTIONS.iter().chain(CONDITIONS).copied());
                        self.report(
                            Diagnostic::warning(message).at(place).accepting(SECTIONS.join(", ")).nearest(near),
                        );
                    }
                }
                Entry::Assignment { key, lines } if SECTIONS.contains(&section) => {
                    self.assignment(file, directory, section, key, lines);
                }
                Entry::Assignment { .. } => {}
            }
        }
    }

    fn assignment(&mut self, file: &File, directory: &Path, section: &str, key: &Line, lines: &[Line]) {
        let written = key.text.as_str();
        let name = written.strip_prefix('@').unwrap_or(written);
        let place = file.place(key, written.chars().count());
        if name != written && self.shared.first_use("@") {
            let message = format!("`@` before a setting has no meaning any more: write `{name}=`");
            self.report(Diagnostic::warning(message).at(place.clone()));
        }
        let Some(setting) = table::find(name) else {
            let warning = Diagnostic::warning(format!("there is no setting `{name}`; it is left out")).at(place);
            return self.report(match removed::advice(name) {
                Some(advice) => warning.hint(advice),
                None => warning.nearest(nearest(name, table::names())),
            });
        };
        if self.prohibits(setting) {
            return self.report(
                Diagnostic::error(format!("`{name}` can't be set for the image `{}`", self.image)).at(place).hint(
                    if self.image == "tools" {
                        "set it in mkosi.conf, or with its ToolsTree form"
                    } else {
                        "set it in the main image's mkosi.conf; it counts for all images"
                    },
                ),
            );
        }
        if section != setting.section {
            let message = format!("`{name}` belongs in [{}], not in [{section}]", setting.section);
            self.report(Diagnostic::warning(message).at(place));
        }
        if name != setting.name {
            self.old_name(file, key, setting.name);
        }
        let text = self.expand(&value(lines), file, directory, key, lines);
        let old = self.config.get(setting.stores).and_then(|slot| slot.value.clone());
        match self.reader(directory).read(setting.kind, &text, old.as_ref()) {
            Ok(value) => {
                let known = old.as_ref().map_or(0, |old| old.items().len());
                let added: Vec<Value> = match (&value, setting.name) {
                    (Some(value), "Include") => value.items().iter().skip(known).cloned().collect(),
                    _ => Vec::new(),
                };
                let origin = Origin::File { path: file.path.clone(), line: key.number, column: key.column };
                assign(&mut self.config, setting.stores, value, origin);
                self.load_includes(&added, directory, Some((file, key, lines)));
            }
            Err(refusal) => self.report(refused(file, key, lines, setting.name, refusal)),
        }
    }

    /// Reads what `Include=` names, unless it was read before.
    pub(super) fn load_includes(&mut self, named: &[Value], directory: &Path, at: Option<(&File, &Line, &[Line])>) {
        for item in named {
            let path = match (item, &self.shared.input.resources) {
                (Value::Path(path), _) => path.clone(),
                (Value::Text(name), Some(resources)) => resources.join(name),
                (Value::Text(name), None) => {
                    let error = Diagnostic::error(format!("the built-in configuration `{name}` is not installed"))
                        .hint("write the packages and settings that it stands for into a file of the project");
                    self.report(match at {
                        Some((file, key, lines)) => error.at(file.place_of(key, lines, Some(name))),
                        None => error,
                    });
                    continue;
                }
                _ => continue,
            };
            let Some(identity) = identity(&path) else { continue };
            if self.stack.contains(&identity) {
                let warning =
                    Diagnostic::warning("this is being read already: it includes itself, and is left out here");
                self.report(match at {
                    Some((file, key, lines)) => {
                        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
                        warning.at(file.place_of(key, lines, name.as_deref()))
                    }
                    None => warning.in_file(&path),
                });
            } else if self.includes.insert(identity) {
                self.load(&path, directory, Extras { profiles: path.is_dir(), local: false });
            }
        }
    }

    pub(super) fn old_name(&self, file: &File, key: &Line, new: &str) {
        if self.shared.first_use(&key.text) {
            let message = format!("`{}` is called `{new}` now", key.text.trim_start_matches('@'));
            self.report(Diagnostic::warning(message).at(file.place(key, key.text.chars().count())));
        }
    }

    /// The text with its specifiers put in.
    pub(super) fn expand(&self, text: &str, file: &File, directory: &Path, key: &Line, lines: &[Line]) -> String {
        let meaning = |letter: char| {
            let path = |path: &Path| Meaning::Text(path.to_string_lossy().into_owned());
            match letter {
                'C' => path(file.path.canonicalize().unwrap_or(file.path.clone()).parent().unwrap_or(directory)),
                'P' => path(directory),
                'D' => match &self.shared.input.directory {
                    Some(top) => path(&super::paths::resolve(top)),
                    None => path(directory),
                },
                'F' => {
                    Meaning::Text(host::filesystem(self.value("Distribution").as_text().unwrap_or_default()).to_owned())
                }
                'I' => Meaning::Text(self.image.clone()),
                letter => match SETTINGS.iter().find(|setting| setting.specifier == Some(letter)) {
                    None => Meaning::Unknown,
                    Some(setting) => match self.value(setting.name) {
                        Value::Text(text) => Meaning::Text(text),
                        Value::Path(value) => path(&value),
                        _ => Meaning::Unset(setting.name),
                    },
                },
            }
        };
        specifier::expand(text, meaning, |letter, setting| {
            let place = file.place_of(key, lines, Some(&format!("%{letter}")));
            self.report(match setting {
                Some(setting) => Diagnostic::warning(format!(
                    "`%{letter}` stands for `{setting}`, which is not set yet here: nothing is put in"
                ))
                .at(place),
                None => Diagnostic::warning(format!("`%{letter}` stands for nothing; it is left out"))
                    .at(place)
                    .hint("write `%%` for a percent sign"),
            });
        })
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
) -> Result<String, Diagnostic> {
    let metadata = path.metadata().map_err(|error| Diagnostic::error(format!("can't read it: {error}")))?;
    if metadata.is_dir() {
        return Err(Diagnostic::error("a file is expected here, but this is a directory"));
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
            return Err(Diagnostic::error(format!("it failed with {}: {said}", output.status)));
        }
        return String::from_utf8(output.stdout).map_err(|_| Diagnostic::error("what it prints is not UTF-8"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Diagnostic::error(format!("can't read it: {error}")))?;
    if text.starts_with("#!") {
        return Err(Diagnostic::error("this is a script, but it is not executable")
            .hint(format!("chmod +x {}", path.display())));
    }
    Ok(text)
}
