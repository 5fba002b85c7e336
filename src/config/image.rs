//! One image's settings, and the restricted view of them that a stage gets.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{Sourced, Value};

/// What an image and a view of it read in the same way, on top of `get`.
macro_rules! getters {
    () => {
        /// The value of a boolean setting; false where it is not set.
        pub fn bool(&self, setting: &str) -> bool {
            self.get(setting).as_bool().unwrap_or(false)
        }

        /// The value of a text setting.
        pub fn text(&self, setting: &str) -> Option<&str> {
            self.get(setting).as_text()
        }

        /// The texts of a list setting.
        pub fn texts(&self, setting: &str) -> Vec<&str> {
            self.get(setting).items().iter().filter_map(Value::as_text).collect()
        }

        /// The value of a path setting.
        pub fn path(&self, setting: &str) -> Option<&Path> {
            self.get(setting).as_path()
        }
    };
}

/// An image (preset) of the project with a value for every setting of the table.
#[derive(Clone, Debug)]
pub struct Image {
    /// The name: the file or directory name in `mkosi.images/`, or `main`.
    pub name: String,
    /// The directory that the project's configuration lies in.
    pub project: PathBuf,
    /// The values by the setting's name in configuration files (`Packages`, `Format`, ...).
    pub values: BTreeMap<&'static str, Sourced>,
}

static NONE: Value = Value::None;

impl Image {
    /// The value of a setting; `Value::None` for one that is not in the table.
    pub fn get(&self, setting: &str) -> &Value {
        self.values.get(setting).map_or(&NONE, |sourced| &sourced.value)
    }

    getters!();
}

/// What went wrong when a stage asked for a setting.
#[derive(Debug, thiserror::Error)]
#[error(
    "stage `{stage}` asked for the setting `{setting}`, which its declaration does not name: \
     add it to `settings` of `{stage}` in graphs/"
)]
pub struct ViewError {
    /// The stage that asked.
    pub stage: String,
    /// The setting it asked for.
    pub setting: String,
}

/// An image's settings restricted to those that a stage's declaration names. Asking for another is remembered and
/// fails the node, so that a key can't miss what the stage depends on.
#[derive(Debug)]
pub struct View {
    stage: String,
    values: BTreeMap<String, Value>,
    tests: BTreeMap<String, bool>,
    denied: RefCell<BTreeSet<String>>,
}

impl View {
    /// The view that `stage` gets of `image`: just the settings in `names`.
    pub fn new<'a>(stage: &str, image: &Image, names: impl IntoIterator<Item = &'a str>) -> Self {
        let values = names.into_iter().map(|name| (name.to_owned(), image.get(name).clone())).collect();
        Self { stage: stage.to_owned(), values, tests: BTreeMap::new(), denied: RefCell::default() }
    }

    /// Adds the outcomes of conditions over settings that are not in the view themselves.
    pub fn with_tests(mut self, tests: BTreeMap<String, bool>) -> Self {
        self.tests = tests;
        self
    }

    /// The outcome of a condition that the declaration names.
    pub fn test(&self, condition: &str) -> bool {
        self.tests.get(condition).copied().unwrap_or_else(|| {
            self.denied.borrow_mut().insert(condition.to_owned());
            false
        })
    }

    /// The settings in this view with their values, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }

    /// The value of a setting.
    pub fn get(&self, setting: &str) -> &Value {
        self.values.get(setting).unwrap_or_else(|| {
            self.denied.borrow_mut().insert(setting.to_owned());
            &NONE
        })
    }

    getters!();

    /// The first setting that was asked for and is not in the view, as an error.
    pub fn check(&self) -> Result<(), ViewError> {
        match self.denied.borrow().first() {
            None => Ok(()),
            Some(setting) => Err(ViewError { stage: self.stage.clone(), setting: setting.clone() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;

    #[test]
    fn a_view_tells_of_what_was_asked_beyond_it() {
        let value = |value| Sourced { value, origin: Origin::Default };
        let values = BTreeMap::from([("Format", value(Value::text("tar"))), ("Release", value(Value::text("x")))]);
        let image = Image { name: "main".to_owned(), project: PathBuf::from("/p"), values };
        let view = View::new("tar", &image, ["Format"]).with_tests(BTreeMap::from([("A".to_owned(), true)]));
        assert_eq!(view.text("Format"), Some("tar"));
        assert!(view.test("A"));
        assert!(view.check().is_ok());
        assert_eq!(view.text("Release"), None);
        let error = view.check().unwrap_err().to_string();
        assert!(error.contains("`tar`") && error.contains("`Release`"), "{error}");
        let view = View::new("tar", &image, ["Format"]);
        assert!(!view.test("B"));
        assert!(view.check().unwrap_err().to_string().contains("`B`"));
    }
}
