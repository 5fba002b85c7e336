//! The state of one image while its configuration is read: the layers of values, and which of them counts.
//!
//! Knows nothing of directories and of the order in which files are read.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::defaults::Lookup;
use super::diagnostic::{Diagnostic, Diagnostics};
use super::load::LoadInput;
use super::read::{Reader, Refusal};
use super::syntax::File;
use super::table::{self, SETTINGS, Setting};
use super::value::{Origin, Sourced, Value};
use super::words::glob_matches;

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
    old_names: RefCell<BTreeSet<String>>,
    /// What the reader of values found worth a warning, without its place.
    pub notes: RefCell<Vec<Refusal>>,
}

impl<'a> Shared<'a> {
    pub fn new(input: &'a LoadInput) -> Self {
        Self {
            input,
            files: RefCell::default(),
            diagnostics: RefCell::default(),
            old_names: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    pub fn report(&self, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push(diagnostic);
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

    /// The value that counts now, and where it came from.
    pub fn sourced(&self, setting: &Setting) -> Sourced {
        let name = setting.stores;
        let (cli, config) = (self.cli.get(name), self.config.get(name));
        if let Some(Slot { value: Some(value), reset, origin }) = cli {
            let below = config.and_then(|slot| slot.value.as_ref()).filter(|_| !reset);
            return Sourced { value: merge(below, value, setting.kind.removes()), origin: origin.clone() };
        }
        if let (None, Some(Slot { value: Some(value), origin, .. })) = (cli, config) {
            return Sourced { value: value.clone(), origin: origin.clone() };
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

/// A value of the files with one of the command line on top. Where `removes`, `!pattern` in the upper list takes
/// items out of the lower one.
fn merge(below: Option<&Value>, above: &Value, removes: bool) -> Value {
    match (below, above) {
        (below, Value::List(above)) => {
            let pattern = |item: &Value| {
                item.as_text().filter(|_| removes).and_then(|text| text.strip_prefix('!')).map(str::to_owned)
            };
            let patterns: Vec<String> = above.iter().filter_map(pattern).collect();
            let stays = |item: &&Value| {
                item.as_text().is_none_or(|text| !patterns.iter().any(|pattern| glob_matches(pattern, text)))
            };
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
