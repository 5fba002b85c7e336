//! From the text of a setting to its value, by the setting's kind.
//!
//! Knows nothing of where the text stands, and nothing of other settings.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use glob::MatchOptions;

use super::lists::split_words;
use super::refusal::Refusal;
use super::scalars::{bytes, choice, minimum_version, mode, name, number, source, uuid};
use super::table::{Item, Kind, PathRule, Split};
use super::value::Value;
use super::words::{Pattern, boolean};
use super::{lists, paths};
use crate::types::suggest::nearest;

/// The version of the configuration language that is read, which `MinimumVersion=` is compared with.
pub const LANGUAGE_VERSION: &str = "27";

/// What a text is read with.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    /// What relative paths are seen from.
    pub directory: &'a Path,
    /// The environment of the program.
    pub environment: &'a BTreeMap<String, String>,
    /// Keep `!pattern` in the list, to be applied to another list that this one is appended to.
    pub keep_removals: bool,
    /// What is worth a warning is put here.
    pub notes: &'a RefCell<Vec<Refusal>>,
}

impl Reader<'_> {
    /// Reads an assignment to a setting that has no value yet; `None` is the answer when the assignment resets the
    /// setting.
    ///
    /// # Errors
    /// When the text isn't accepted.
    pub fn read(&self, kind: Kind, text: &str) -> Result<Option<Value>, Refusal> {
        self.add(kind, text, None)
    }

    /// Reads an assignment. `old` is the value so far, which lists add to; it is taken and not copied, so that a list
    /// that many files add to is read in the time that its length takes. `None` is the answer when the assignment
    /// resets the setting.
    ///
    /// # Errors
    /// When the text isn't accepted.
    pub fn add(&self, kind: Kind, text: &str, old: Option<Value>) -> Result<Option<Value>, Refusal> {
        match kind {
            // These two read the empty text in their own way.
            Kind::Source(choices) => return source(choices, text).map(Some),
            Kind::MinimumVersion if text.is_empty() => return Ok(old),
            Kind::Artifacts(_) if text.is_empty() => return Ok(Some(Value::List(Vec::new()))),
            Kind::List { .. } | Kind::Packages | Kind::Scripts | Kind::Artifacts(_) => {
                return self.list(kind, text, old);
            }
            Kind::Dict { passes } => return self.dict(text, passes, old),
            Kind::Credentials => return self.credentials(text, old),
            _ => {}
        }
        // A value that starts on the line after its name has a line end before it.
        match text.strip_prefix('\n').map_or(text, str::trim) {
            "" => Ok(None),
            text => self.scalar(kind, text, old.as_ref()).map(Some),
        }
    }

    /// Reads one item of a list that stands for itself, such as a file that was found: nothing is cut.
    ///
    /// # Errors
    /// When the item isn't accepted.
    pub fn add_item(&self, kind: Kind, text: &str, old: Option<Value>) -> Result<Option<Value>, Refusal> {
        let item = match kind {
            Kind::List { item, .. } => item,
            Kind::Scripts => Item::Path(PathRule::EXISTS),
            _ => return self.add(kind, text, old),
        };
        let mut items = old.map(Value::into_items).unwrap_or_default();
        items.push(self.item(item, text)?);
        Ok(Some(Value::List(items)))
    }

    fn scalar(&self, kind: Kind, text: &str, old: Option<&Value>) -> Result<Value, Refusal> {
        match kind {
            Kind::Bool => boolean(text)
                .map(Value::Bool)
                .ok_or_else(|| Refusal::new(format!("`{text}` is not a boolean")).accepting("yes, no")),
            Kind::Feature => match (text, boolean(text)) {
                ("auto", _) => Ok(Value::text("auto")),
                (_, Some(true)) => Ok(Value::text("enabled")),
                (_, Some(false)) => Ok(Value::text("disabled")),
                _ => Err(Refusal::new(format!("`{text}` is not a boolean or `auto`")).accepting("auto, yes, no")),
            },
            Kind::Text => Ok(Value::text(text)),
            Kind::Name => name(text),
            Kind::Number { min } => number(text, min),
            Kind::Mode => mode(text),
            Kind::Bytes => bytes(text),
            Kind::SectorSize => match number(text, 0)? {
                value @ Value::Number(size) if (512..=4096).contains(&size) && size.count_ones() == 1 => Ok(value),
                _ => Err(Refusal::new(format!("`{text}` is no sector size")).accepting("512, 1024, 2048, 4096")),
            },
            Kind::VsockCid => match text {
                "auto" => Ok(Value::Number(-1)),
                "hash" => Ok(Value::Number(-2)),
                _ => match text.parse::<i64>() {
                    Ok(cid) if (3..0xFFFF_FFFF).contains(&cid) => Ok(Value::Number(cid)),
                    _ => Err(Refusal::new(format!("`{text}` is no VSock connection ID"))
                        .accepting("auto, hash, or a number from 3 to 4294967294")),
                },
            },
            Kind::Uuid => uuid(text),
            Kind::MinimumVersion => minimum_version(text, old),
            Kind::Enum(choices) => choice(choices, text),
            Kind::Path(rule) => self.path(rule, text),
            Kind::KeyFile => {
                let path = paths::joined(text, self.directory, self.environment);
                // A key of an engine or provider is named in words or by a URI (RFC 7512), not by a file.
                Ok(if path.exists() { Value::Path(paths::resolve(&path)) } else { Value::text(text) })
            }
            Kind::Password => {
                let text = text.trim();
                let (hashed, password) =
                    text.strip_prefix("hashed:").map_or((false, text), |password| (true, password));
                Ok(Value::Map(BTreeMap::from([
                    ("hashed".to_owned(), Value::Bool(hashed)),
                    ("password".to_owned(), Value::text(password)),
                ])))
            }
            // The collections are read elsewhere.
            _ => Ok(Value::None),
        }
    }

    pub(super) fn path(&self, rule: PathRule, text: &str) -> Result<Value, Refusal> {
        if rule.constants.contains(&text) {
            return Ok(Value::text(text));
        }
        if rule.absolute && !paths::expand(text, self.environment).is_absolute() {
            return Err(Refusal::new(format!("`{text}` must be an absolute path")).about(text));
        }
        let written = paths::joined(text, self.directory, self.environment);
        if rule.required && !written.exists() {
            return Err(self.missing(text, &written, rule.constants));
        }
        if let Some(excluded) = rule.exclude.iter().find(|excluded| written.starts_with(excluded)) {
            return Err(Refusal::new(format!("`{text}` may not lie in {excluded}")).about(text));
        }
        Ok(Value::Path(paths::resolve(&written)))
    }

    pub(super) fn missing(&self, text: &str, path: &Path, constants: &[&'static str]) -> Refusal {
        let refusal = Refusal::new(format!("`{text}` does not exist")).about(text);
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let siblings: Vec<String> = path
            .parent()
            .and_then(|parent| parent.read_dir().ok())
            .map(|entries| entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
            .unwrap_or_default();
        let near =
            nearest(text, constants.iter().copied()).or_else(|| nearest(&name, siblings.iter().map(String::as_str)));
        match near {
            Some(near) => refusal.hint(format!("did you mean `{near}`?")),
            None => refusal.hint(format!("relative paths are seen from {}", self.directory.display())),
        }
    }

    fn list(&self, kind: Kind, text: &str, old: Option<Value>) -> Result<Option<Value>, Refusal> {
        let (item, split) = match kind {
            Kind::List { item, split } => (item, split),
            Kind::Artifacts(choices) => {
                if let Some(all) = boolean(text) {
                    let count = if all { 4 } else { 3 };
                    let names = choices.names.iter().take(count).copied();
                    return Ok(Some(Value::List(names.map(Value::text).collect())));
                }
                (Item::Choice(choices), Split::Words)
            }
            Kind::Scripts => (Item::Path(PathRule::EXISTS), Split::Words),
            _ => (Item::Word, Split::Words),
        };
        let words = split_words(text, split)?;
        // Only the empty text resets; Include= alone has nothing that could be reset.
        if words.is_empty() {
            return Ok(None);
        }
        let mut items = old.map(Value::into_items).unwrap_or_default();
        for word in words.into_iter().filter(|word| !word.is_empty()) {
            if kind == Kind::Scripts {
                for path in self.expand(&word)? {
                    items.push(self.item(item, &path)?);
                }
            } else if item != Item::Word {
                items.push(self.item(item, &word)?);
            } else if let Some(pattern) = word.strip_prefix('!') {
                let pattern = Pattern::new(pattern);
                items.retain(|kept| !kept.as_text().is_some_and(|kept| pattern.matches(kept)));
                if self.keep_removals {
                    items.push(Value::Text(word));
                }
            } else {
                items.push(Value::Text(word));
            }
        }
        Ok(Some(Value::List(items)))
    }

    /// The paths that a shell pattern stands for, sorted. A name that doesn't exist is noted and left out.
    fn expand(&self, word: &str) -> Result<Vec<String>, Refusal> {
        let written = paths::joined(word, self.directory, self.environment);
        if !word.contains(['*', '?', '[']) {
            if written.exists() {
                return Ok(vec![written.to_string_lossy().into_owned()]);
            }
            let mut note = self.missing(word, &written, &[]);
            note.message.push_str("; it is left out");
            self.notes.borrow_mut().push(note);
            return Ok(Vec::new());
        }
        // Signs in the directory's own name mean nothing, and `**` is no more than `*`, as in Python's glob.
        let below = paths::expand(word, self.environment);
        let mut pattern = below.to_string_lossy().into_owned();
        if below.is_relative() {
            pattern = format!("{}/{pattern}", glob::Pattern::escape(&self.directory.to_string_lossy()));
        }
        while pattern.contains("**") {
            pattern = pattern.replace("**", "*");
        }
        let options = MatchOptions { require_literal_leading_dot: true, ..MatchOptions::new() };
        let Ok(found) = glob::glob_with(&pattern, options) else {
            let note = Refusal::new(format!("`{word}` is neither a file nor a shell pattern; it is left out"));
            self.notes.borrow_mut().push(note.about(word));
            return Ok(Vec::new());
        };
        let mut found: Vec<PathBuf> = found.flatten().collect();
        found.sort();
        Ok(found.into_iter().map(|path| path.to_string_lossy().into_owned()).collect())
    }

    fn item(&self, item: Item, text: &str) -> Result<Value, Refusal> {
        match item {
            Item::Word | Item::Text => Ok(Value::text(text)),
            Item::Name => name(text),
            Item::Choice(choices) => choice(choices, text),
            Item::Regex if text == "default" || text == "host" => Ok(Value::text(text)),
            Item::Regex => Ok(Value::text(format!("re:{text}"))),
            Item::Path(rule) => self.path(rule, text),
            Item::Tree { required, absolute, directory, bare } => self.tree(text, required, absolute, directory, bare),
            Item::Drive => lists::drive(text, self),
            Item::UkiProfile => {
                let path = paths::absolute(text, self.directory, self.environment);
                lists::uki_profile(&path)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::{SETTINGS, find};
    use super::*;

    static EMPTY: BTreeMap<String, String> = BTreeMap::new();

    fn read(name: &str, text: &str, old: Option<&Value>) -> Result<Option<Value>, Refusal> {
        let notes = RefCell::default();
        let reader = Reader { directory: Path::new("/tmp"), environment: &EMPTY, keep_removals: false, notes: &notes };
        reader.add(find(name).unwrap().kind, text, old.cloned())
    }

    fn texts(value: &Value) -> Vec<&str> {
        value.items().iter().filter_map(Value::as_text).collect()
    }

    #[test]
    fn scalars() {
        assert_eq!(read("WithDocs", "off", None), Ok(Some(Value::Bool(false))));
        assert_eq!(read("Bootable", "yes", None), Ok(Some(Value::text("enabled"))));
        assert_eq!(read("CompressOutput", "zst", None), Ok(Some(Value::text("zstd"))));
        assert_eq!(read("CompressOutput", "no", None), Ok(Some(Value::text("none"))));
        assert_eq!(read("OutputSize", "1.5M", None), Ok(Some(Value::Number(1_572_864))));
        assert_eq!(read("OutputSize", "1", None), Ok(Some(Value::Number(4096))));
        assert_eq!(read("OutputMode", "0644", None), Ok(Some(Value::Number(0o644))));
        assert_eq!(read("Format", "", None), Ok(None));
        assert_eq!(
            read("Seed", "{0E9A6FE068F6408CBE13136054D20445}", None),
            Ok(Some(Value::text("0e9a6fe0-68f6-408c-be13-136054d20445")))
        );
        for (name, text) in [
            ("WithDocs", "maybe"),
            ("Format", "dsk"),
            ("OutputSize", "-1G"),
            ("OutputSize", "1T"),
            ("SectorSize", "513"),
            ("OutputMode", "9"),
            ("Output", "a/b"),
            ("Seed", "12"),
            ("VSockCID", "2"),
            ("CompressLevel", "-1"),
            ("Splash", "a.bmp"),
            ("MinimumVersion", "28"),
            ("ToolsTree", "/nowhere/at/all"),
            ("SecureBootKeySource", "x"),
        ] {
            assert!(read(name, text, None).is_err(), "{name}={text}");
        }
    }

    #[test]
    fn lists_add_remove_and_reset() {
        let one = read("Packages", "b, a\n(x if y)\n/p", None).unwrap().unwrap();
        assert_eq!(texts(&one), ["b", "a", "(x", "if", "y)", "/p"]);
        let two = read("Packages", "c !a*", Some(&one)).unwrap().unwrap();
        assert!(texts(&two).contains(&"c") && !texts(&two).contains(&"a"));
        assert_eq!(read("Packages", "", Some(&two)), Ok(None));
        assert_eq!(
            texts(&read("KernelModulesInclude", "default host ^a", None).unwrap().unwrap()),
            ["default", "host", "re:^a"]
        );
        assert_eq!(texts(&read("RemoveFiles", "!/a /b", None).unwrap().unwrap()), ["!/a", "/b"]);
    }

    #[test]
    fn trees_and_maps() {
        let tree = read("ExtraTrees", "nowhere/x:/usr/", None).unwrap().unwrap();
        let first = &tree.items()[0];
        assert_eq!(first.field("source").and_then(Value::as_path), Some(Path::new("/tmp/nowhere/x")));
        assert_eq!(first.field("target"), Some(&Value::text("/usr")));
        assert!(read("ExtraTrees", "a:usr", None).is_err());
        let environment = read("Environment", "A=1 B='x y'", None).unwrap().unwrap();
        assert_eq!(environment.field("B"), Some(&Value::text("x y")));
        let password = read("RootPassword", "hashed:$6$x", None).unwrap().unwrap();
        assert_eq!(password.field("hashed"), Some(&Value::Bool(true)));
    }

    #[test]
    fn a_list_is_added_to_without_a_copy() {
        let notes = RefCell::default();
        let reader = Reader { directory: Path::new("/tmp"), environment: &EMPTY, keep_removals: false, notes: &notes };
        for name in ["Packages", "KernelCommandLine", "RemoveFiles", "BuildScripts", "Credentials"] {
            let first = Value::text("first");
            let before = first.as_text().map(str::as_ptr);
            let value = reader.add(find(name).unwrap().kind, "a=b", Some(Value::List(vec![first]))).unwrap().unwrap();
            assert_eq!(value.items()[0].as_text().map(str::as_ptr), before, "{name}");
        }
        let old = Value::Map(BTreeMap::from([("A".to_owned(), Value::text("first"))]));
        let before = old.field("A").and_then(Value::as_text).map(str::as_ptr);
        let value = reader.add(find("Environment").unwrap().kind, "B=1", Some(old)).unwrap().unwrap();
        assert_eq!(value.field("A").and_then(Value::as_text).map(str::as_ptr), before);
    }

    proptest! {
        #[test]
        fn never_panics(index in 0..180usize, text in "\\PC{0,30}") {
            let notes = RefCell::default();
            let reader =
                Reader { directory: Path::new("/nowhere"), environment: &EMPTY, keep_removals: true, notes: &notes };
            let _ = reader.read(SETTINGS[index].kind, &text);
        }

        #[test]
        fn numbers_round_trip(number in 0..i64::MAX) {
            prop_assert_eq!(read("CompressLevel", &number.to_string(), None), Ok(Some(Value::Number(number))));
        }

        #[test]
        fn words_round_trip(words in proptest::collection::vec("[a-z*/:=-]{1,8}", 1..6)) {
            let value = read("RemoveFiles", &words.join(" "), None).unwrap().unwrap();
            prop_assert_eq!(texts(&value), words);
        }
    }
}
