//! The state of one image while its configuration is read: the layers of values, and which of them counts.
//!
//! Knows nothing of directories and of the order in which files are read.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::defaults::Lookup;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::load::LoadInput;
use super::read::Reader;
use super::refusal::Refusal;
use super::syntax::File;
use super::table::{self, Kind, SETTINGS, Setting};
use super::value::{Origin, Sourced, Value};
use super::words::Pattern;
use crate::types::suggest::nearest;

/// An assignment that was read.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    /// The value; `None` when the setting was reset.
    pub value: Option<Value>,
    /// Whether it was reset before, so that nothing of the layers below counts.
    pub reset: bool,
    /// Where the last assignment stands.
    pub origin: Origin,
}

/// Values by the setting's name.
pub(super) type Layer = BTreeMap<&'static str, Slot>;

/// What all images of a run share: the files that were parsed, and what was found wrong.
pub(super) struct Shared<'a> {
    pub input: &'a LoadInput,
    files: RefCell<HashMap<PathBuf, Option<Rc<File>>>>,
    pub diagnostics: RefCell<Diagnostics>,
    /// The hashes of these, so that a repetition is noticed without a look at each.
    told: RefCell<HashSet<u64>>,
    old_names: RefCell<BTreeSet<String>>,
    /// Unknown names of settings with the nearest known one: the comparison with all of them takes its time.
    misspelled: RefCell<HashMap<String, Option<&'static str>>>,
    /// What the reader of values found worth a warning, without its place.
    pub notes: RefCell<Vec<Refusal>>,
}

impl<'a> Shared<'a> {
    pub fn new(input: &'a LoadInput) -> Self {
        Self {
            input,
            files: RefCell::default(),
            diagnostics: RefCell::default(),
            told: RefCell::default(),
            old_names: RefCell::default(),
            misspelled: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    pub fn report(&self, diagnostic: Diagnostic) {
        let mut diagnostics = self.diagnostics.borrow_mut();
        if self.told.borrow_mut().insert(BuildHasherDefault::<DefaultHasher>::default().hash_one(&diagnostic)) {
            diagnostics.0.push(diagnostic);
        } else {
            diagnostics.push(diagnostic);
        }
    }

    /// The setting that is meant by a name that is none.
    pub fn nearest_setting(&self, name: &str) -> Option<&'static str> {
        *self.misspelled.borrow_mut().entry(name.to_owned()).or_insert_with(|| nearest(name, table::names()))
    }

    /// Whether an old name is met for the first time, so that it is spoken of once.
    pub fn first_use(&self, old_name: &str) -> bool {
        self.old_names.borrow_mut().insert(old_name.to_owned())
    }

    /// The parsed file; nothing when it can't be read, which was reported then.
    pub fn file(&self, path: &Path) -> Option<Rc<File>> {
        if let Some(known) = self.files.borrow().get(path) {
            return known.clone();
        }
        let file = match File::read(path) {
            Ok(file) => {
                for problem in &file.problems {
                    self.report(problem.clone());
                }
                Some(Rc::new(file))
            }
            Err(problem) => {
                self.report(*problem);
                None
            }
        };
        self.files.borrow_mut().insert(path.to_owned(), file.clone());
        file
    }
}

/// The state of one image.
#[derive(Clone)]
pub(super) struct Context<'a> {
    pub shared: &'a Shared<'a>,
    /// The image's name.
    pub image: String,
    /// Assignments that no file can overrule: the command line, and what the main image hands down.
    pub cli: Layer,
    /// Assignments of files.
    pub config: Layer,
    /// Defaults that another image gives.
    pub defaults: Layer,
    /// The files that were read, in their order.
    pub files: Vec<PathBuf>,
    /// What was included already, by device and inode.
    pub includes: HashSet<(u64, u64)>,
    /// What is being read now, by device and inode.
    pub stack: Vec<(u64, u64)>,
    /// Whether any setting may be set: images of mkosi.presets/ knew no scopes.
    pub unscoped: bool,
}

impl<'a> Context<'a> {
    pub fn new(shared: &'a Shared<'a>, image: &str) -> Self {
        Self {
            shared,
            image: image.to_owned(),
            cli: Layer::new(),
            config: Layer::new(),
            defaults: Layer::new(),
            files: Vec::new(),
            includes: HashSet::new(),
            stack: Vec::new(),
            unscoped: false,
        }
    }

    pub fn report(&self, diagnostic: Diagnostic) {
        self.shared.report(diagnostic);
    }

    pub fn reader<'b>(&'b self, directory: &'b Path) -> Reader<'b> {
        Reader {
            directory,
            environment: &self.shared.input.environment,
            keep_removals: false,
            notes: &self.shared.notes,
        }
    }

    /// Takes the value that files gave a setting so far, so that it can be added to without a copy.
    pub fn take(&mut self, setting: &Setting) -> Option<Value> {
        self.config.get_mut(setting.stores).and_then(|slot| slot.value.take())
    }

    /// Whether a file of this image may not set `setting`.
    pub fn prohibits(&self, setting: &Setting) -> bool {
        !self.unscoped && setting.prohibited_in(&self.image)
    }

    /// The value that counts now.
    pub fn value(&self, name: &str) -> Value {
        match table::find(name) {
            Some(setting) => self.sourced(setting).value,
            None => Value::None,
        }
    }

    /// The value that counts now, without a copy where it is the files' alone; lists may not be in their order yet.
    pub fn current(&self, setting: &Setting) -> Cow<'_, Value> {
        match (self.cli.get(setting.stores), self.config.get(setting.stores)) {
            (None, Some(Slot { value: Some(value), .. })) => Cow::Borrowed(value),
            _ => Cow::Owned(self.sourced(setting).value),
        }
    }

    /// The value that counts now, and where it came from.
    pub fn sourced(&self, setting: &Setting) -> Sourced {
        let name = setting.stores;
        let (cli, config) = (self.cli.get(name), self.config.get(name));
        if let Some(Slot { value: Some(value), reset, origin }) = cli {
            let below = config.and_then(|slot| slot.value.as_ref()).filter(|_| !reset);
            let below = below.map(|value| in_order(setting, value));
            let value = merge(below.as_deref(), value, setting.kind.removes());
            return Sourced { value, origin: origin.clone() };
        }
        if let (None, Some(Slot { value: Some(value), origin, .. })) = (cli, config) {
            return Sourced { value: in_order(setting, value).into_owned(), origin: origin.clone() };
        }
        if let (Some(slot), true) = (cli.or(config), setting.clears()) {
            let value = if setting.kind.is_collection() { setting.kind.empty() } else { Value::None };
            return Sourced { value, origin: slot.origin.clone() };
        }
        if let Some(Slot { value: Some(value), origin, .. }) = self.defaults.get(name) {
            return Sourced { value: value.clone(), origin: origin.clone() };
        }
        let get = |name: &str| self.value(name);
        let input = self.shared.input;
        let lookup = Lookup {
            get: &get,
            image: &self.image,
            directory: input.directory.as_deref(),
            host: &input.host,
            environment: &input.environment,
        };
        Sourced { value: setting.default_value(&lookup), origin: Origin::Default }
    }

    /// The values of all settings.
    pub fn finish(&self) -> BTreeMap<&'static str, Sourced> {
        SETTINGS
            .iter()
            .filter(|setting| setting.stores == setting.name)
            .map(|setting| (setting.name, self.sourced(setting)))
            .collect()
    }
}

/// Adds an assignment to a layer. `value` is `None` for a reset.
pub(super) fn assign(layer: &mut Layer, name: &'static str, value: Option<Value>, origin: Origin) {
    let reset = value.is_none() || layer.get(name).is_some_and(|slot| slot.reset);
    layer.insert(name, Slot { value, reset, origin });
}

/// The value in the order that its setting has. Packages are sorted when they are asked for, and not with each of the
/// files that add to them.
pub(super) fn in_order<'a>(setting: &Setting, value: &'a Value) -> Cow<'a, Value> {
    fn class(item: &Value) -> (u8, &str) {
        let text = item.as_text().unwrap_or_default();
        (if text.starts_with('(') { 2 } else { u8::from(text.starts_with('/')) }, text)
    }
    match value {
        Value::List(items) if setting.kind == Kind::Packages && !items.is_sorted_by_key(class) => {
            let mut items = items.clone();
            items.sort_by(|a, b| class(a).cmp(&class(b)));
            Cow::Owned(Value::List(items))
        }
        value => Cow::Borrowed(value),
    }
}

/// A value of the files with one of the command line on top. Where `removes`, `!pattern` in the upper list takes
/// items out of the lower one.
fn merge(below: Option<&Value>, above: &Value, removes: bool) -> Value {
    match (below, above) {
        (below, Value::List(above)) => {
            let pattern = |item: &Value| {
                item.as_text().filter(|_| removes).and_then(|text| text.strip_prefix('!')).map(str::to_owned)
            };
            let patterns: Vec<String> = above.iter().filter_map(pattern).collect();
            let patterns: Vec<Pattern<'_>> = patterns.iter().map(|pattern| Pattern::new(pattern)).collect();
            let stays =
                |item: &&Value| item.as_text().is_none_or(|text| !patterns.iter().any(|pattern| pattern.matches(text)));
            let below = below.map(Value::items).unwrap_or_default().iter().filter(stays);
            Value::List(below.chain(above.iter().filter(|item| pattern(item).is_none())).cloned().collect())
        }
        (Some(Value::Map(below)), Value::Map(above)) => {
            let mut map = below.clone();
            map.extend(above.iter().map(|(key, value)| (key.clone(), value.clone())));
            Value::Map(map)
        }
        _ => above.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_sorted_with_paths_and_conditions_last() {
        let list = |items: &[&str]| Value::List(items.iter().copied().map(Value::text).collect());
        let setting = table::find("Packages").unwrap();
        let value = list(&["b", "(x", "/p", "a"]);
        assert_eq!(*in_order(setting, &value), list(&["a", "b", "/p", "(x"]));
        let setting = table::find("RemoveFiles").unwrap();
        assert_eq!(*in_order(setting, &value), value);
    }
}
