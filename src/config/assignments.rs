//! The assignments of a file: which setting each is for, the specifiers in it, and what it includes.
//!
//! Knows nothing of which files are read.

use std::path::Path;

use super::context::{Context, assign};
use super::diagnostic::{Diagnostic, Severity};
use super::host;
use super::loader::{Extras, identity};
use super::refusal::Refusal;
use super::specifier::{self, Meaning};
use super::syntax::{Entry, File, Line, value};
use super::table::{self, CONDITIONS, Kind, OLD_SECTIONS, SECTIONS, SETTINGS, Setting, removed};
use super::value::{Origin, Value};
use super::words::boolean;
use crate::types::suggest::nearest;

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

impl Context<'_> {
    pub(super) fn assignments(&mut self, file: &File, directory: &Path) {
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
        let place = || file.place(key, written.chars().count());
        if name != written && self.shared.first_use("@") {
            let message = format!("`@` before a setting has no meaning any more: write `{name}=`");
            self.report(Diagnostic::warning(message).at(place()));
        }
        let turned = removed::turned(name);
        let Some(setting) = table::find(turned.map_or(name, |turned| turned.setting)) else {
            let warning = Diagnostic::warning(format!("there is no setting `{name}`; it is left out")).at(place());
            return self.report(match removed::advice(name) {
                Some(advice) => warning.hint(advice),
                None => warning.nearest(self.shared.nearest_setting(name)),
            });
        };
        if self.prohibits(setting) {
            return self.report(
                Diagnostic::error(format!("`{name}` can't be set for the image `{}`", self.image)).at(place()).hint(
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
            self.report(Diagnostic::warning(message).at(place()));
        }
        if name != setting.name {
            self.old_name(file, key, setting.name);
        }
        self.warn_of_indentation(file, key, setting, lines);
        let mut text = self.expand(&value(lines), file, directory, key, lines);
        if let Some(turned) = turned.filter(|_| !text.trim().is_empty()) {
            let Some(yes) = boolean(text.trim()) else {
                let refusal = Refusal::new(format!("`{text}` is not a boolean")).accepting("yes, no");
                return self.report(refused(file, key, lines, name, refusal));
            };
            let [off, on] = turned.values;
            (if yes { on } else { off }).clone_into(&mut text);
        }
        // What stands there already is lost where the text is refused; the configuration can't be used then anyway.
        let old = self.take(setting);
        let known = old.as_ref().map_or(0, |old| old.items().len());
        let result = self.reader(directory).add(setting.kind, &text, old);
        for note in self.shared.notes.take() {
            let mut warning = refused(file, key, lines, setting.name, note);
            warning.severity = Severity::Warning;
            self.report(warning);
        }
        match result {
            Ok(value) => {
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

    /// A section or setting that is indented more than the file belongs to the value above it, which is hardly meant.
    fn warn_of_indentation(&self, file: &File, key: &Line, setting: &Setting, lines: &[Line]) {
        for line in lines.iter().skip(1) {
            let section = line.text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let section = section.is_some_and(|name| SECTIONS.contains(&name) || CONDITIONS.contains(&name));
            let assignment = line.text.split_once('=').is_some_and(|(name, _)| table::find(name.trim()).is_some());
            if section || (assignment && !matches!(setting.kind, Kind::Dict { .. })) {
                let message = format!("this line is indented, so it is part of the value of `{}`", key.text);
                let place = file.place(line, line.text.chars().count());
                self.report(Diagnostic::warning(message).at(place).hint("start it where the other lines start"));
            }
        }
    }

    /// Reads what `Include=` names, unless it was read before.
    pub(super) fn load_includes(&mut self, named: &[Value], directory: &Path, at: Option<(&File, &Line, &[Line])>) {
        for item in named {
            let path = match (item, &self.shared.input.resources) {
                (Value::Path(path), _) => path.clone(),
                (Value::Text(name), Some(resources)) if resources.join(name).exists() => resources.join(name),
                (Value::Text(name), _) => {
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
