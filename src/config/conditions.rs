//! `[Match]`, `[TriggerMatch]`, `[Assert]` and `[TriggerAssert]` of a file.
//!
//! Knows nothing of settings' assignments.

use std::path::Path;

use super::assignments::refused;
use super::context::Context;
use super::diagnostic::Diagnostic;

use super::matching::{CONDITIONS, matches};
use super::refusal::Refusal;
use super::syntax::{Entry, File, Line, value};
use super::table::{self, DISTRIBUTION, Kind, Scope};
use super::version;
use crate::types::suggest::nearest;

/// What the conditions of one section say together.
struct Section<'a> {
    name: &'a str,
    /// Whether any triggering condition (`|`) holds, if there are some.
    triggered: Option<bool>,
    /// Whether a plain condition doesn't hold.
    failed: bool,
}

impl Context<'_> {
    /// Whether the file's conditions hold: of `[Match]` and `[TriggerMatch]`, or of the `Assert` sections, where what
    /// doesn't hold is reported as an error.
    pub(super) fn conditions_hold(&self, file: &File, directory: &Path, asserts: bool) -> bool {
        let (plain, trigger) = if asserts { ("Assert", "TriggerAssert") } else { ("Match", "TriggerMatch") };
        let mut any_trigger = None;
        let mut section: Option<Section<'_>> = None;
        let mut hold = true;
        let close = |section: Option<Section<'_>>, any_trigger: &mut Option<bool>, hold: &mut bool| {
            let Some(section) = section else { return };
            let holds = !section.failed && section.triggered != Some(false);
            if section.name == trigger {
                *any_trigger = Some(any_trigger.unwrap_or(false) || holds);
            } else if !holds {
                if asserts && !section.failed {
                    self.report(
                        Diagnostic::error("none of the `|` conditions of [Assert] is satisfied").in_file(&file.path),
                    );
                }
                *hold = false;
            }
        };
        for entry in &file.entries {
            match entry {
                Entry::Section { name, .. } => {
                    close(section.take(), &mut any_trigger, &mut hold);
                    let ours = name == plain || name == trigger;
                    section = ours.then_some(Section { name, triggered: None, failed: false });
                }
                Entry::Assignment { key, lines } => {
                    let Some(section) = section.as_mut() else { continue };
                    if section.failed && !asserts {
                        continue;
                    }
                    self.condition(file, directory, section, key, lines, asserts);
                }
            }
            // What follows a condition that doesn't hold isn't looked at: it may not apply to this image at all.
            if !hold && !asserts {
                return false;
            }
        }
        close(section.take(), &mut any_trigger, &mut hold);
        if any_trigger == Some(false) {
            if asserts {
                self.report(Diagnostic::error("none of the [TriggerAssert] sections is satisfied").in_file(&file.path));
            }
            hold = false;
        }
        hold
    }

    fn condition(
        &self,
        file: &File,
        directory: &Path,
        section: &mut Section<'_>,
        key: &Line,
        lines: &[Line],
        asserts: bool,
    ) {
        let raw = value(lines);
        let triggering = raw.starts_with('|');
        let text = raw.strip_prefix('|').unwrap_or(&raw);
        let negated = text.starts_with('!');
        let text = text.strip_prefix('!').unwrap_or(text);
        let text = self.expand(text, file, directory, key, lines);
        let result = match self.holds(file, directory, key, &text) {
            Ok(result) => result != negated,
            Err(refusal) => {
                self.report(refused(file, key, lines, &key.text, refusal));
                false
            }
        };
        if triggering {
            section.triggered = Some(section.triggered.unwrap_or(false) || result);
        } else if !result {
            section.failed = true;
            if asserts && section.name == "Assert" {
                let place = file.place_of(key, lines, None);
                self.report(Diagnostic::error(format!("`{}={raw}` is not satisfied", key.text)).at(place));
            }
        }
    }

    fn holds(&self, file: &File, directory: &Path, key: &Line, text: &str) -> Result<bool, Refusal> {
        let input = self.shared.input;
        match key.text.as_str() {
            "PathExists" => {
                let path = super::paths::joined(text, directory, &input.environment);
                return Ok(!text.is_empty() && path.exists());
            }
            "SystemdVersion" => {
                return Ok(!text.is_empty()
                    && input.host.systemd_version().is_some_and(|found| version::satisfies(found, text)));
            }
            "HostArchitecture" => {
                let kind = table::find("Architecture").map(|setting| setting.kind);
                let wanted = match kind {
                    Some(kind) => self.reader(directory).read(kind, text)?,
                    None => None,
                };
                return Ok(wanted.is_some_and(|wanted| wanted.as_text() == Some(input.host.architecture.name())));
            }
            "Image" => return Ok(super::words::glob_matches(text, &self.image)),
            _ => {}
        }
        let name = key.text.as_str();
        let Some(setting) = table::find(name) else {
            let known = table::names().chain(CONDITIONS.iter().copied());
            let refusal = Refusal::new(format!("there is no condition `{name}`")).about("");
            return Err(match nearest(name, known) {
                Some(near) => refusal.hint(format!("did you mean `{near}`?")),
                None => refusal,
            });
        };
        if setting.scope == Scope::Main && self.image != "main" && !self.unscoped {
            return Err(Refusal::new(format!(
                "`{name}` belongs to the main image, and can't be matched in `{}`",
                self.image
            )));
        }
        if name != setting.name {
            self.old_name(file, key, setting.name);
        }
        let value = self.current(setting);
        match matches(setting, text, &value, &self.reader(directory)) {
            // A distribution that isn't known here can't be this image's: skip the file instead of refusing all.
            Err(refusal) if matches!(setting.kind, Kind::Enum(choices) if std::ptr::eq(choices, &DISTRIBUTION)) => {
                let mut warning = refused(file, key, &[], name, refusal);
                warning.severity = super::diagnostic::Severity::Warning;
                self.report(warning);
                Ok(false)
            }
            other => other,
        }
    }
}
