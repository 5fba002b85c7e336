//! Values that consist of parts: trees, dictionaries, credentials, drives of a virtual machine, profiles of unified
//! kernel images; and how the text of a list is cut.
//!
//! Knows nothing of single settings.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use super::paths;
use super::read::Reader;
use super::refusal::Refusal;
use super::scalars::bytes;
use super::syntax::{Entry, File, value};
use super::table::{Item, Kind, PathRule, Split};
use super::value::Value;
use super::words::{expand_variables, quoted};

fn map<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// `id:size[:directory[:options[:file-id[:flags]]]]`.
pub(super) fn drive(text: &str, reader: &Reader<'_>) -> Result<Value, Refusal> {
    const FORM: &str = "id:size[:directory[:options[:file-id[:flags]]]]";
    let parts: Vec<&str> = text.split(':').collect();
    let (id, size) = match parts.as_slice() {
        [id, size, ..] if parts.len() <= 6 && !id.is_empty() && !id.contains('/') => (*id, *size),
        _ => return Err(Refusal::new(format!("`{text}` is no drive")).about(text).accepting(FORM)),
    };
    let part = |index: usize| parts.get(index).copied().filter(|part| !part.is_empty());
    let directory = match part(2) {
        Some(directory) => reader.read(Kind::Path(PathRule::EXISTS), directory)?.unwrap_or(Value::None),
        None => Value::None,
    };
    let flags: Vec<&str> = part(5).map(|flags| flags.split(',').collect()).unwrap_or_default();
    if let Some(flag) = flags.iter().find(|flag| **flag != "persist") {
        return Err(Refusal::new(format!("`{flag}` is no flag of a drive")).about(flag).accepting("persist"));
    }
    Ok(map([
        ("id", Value::text(id)),
        ("size", bytes(size)?),
        ("directory", directory),
        ("options", part(3).map_or(Value::None, Value::text)),
        ("file_id", Value::text(part(4).unwrap_or(id))),
        ("flags", Value::List(flags.into_iter().map(Value::text).collect())),
    ]))
}

/// A file with a `[UKIProfile]` section.
pub(super) fn uki_profile(path: &Path) -> Result<Value, Refusal> {
    let file = File::read(path).map_err(|problem| Refusal::new(format!("{}: {}", path.display(), problem.message)))?;
    if let Some(problem) = file.problems.first() {
        return Err(Refusal::new(format!("{}: {}", path.display(), problem.message)));
    }
    let environment = BTreeMap::new();
    let notes = RefCell::default();
    let directory = path.parent().unwrap_or(Path::new("/"));
    let reader = Reader { directory, environment: &environment, keep_removals: false, notes: &notes };
    let mut profile = Value::Map(BTreeMap::new());
    let mut cmdline = Value::List(Vec::new());
    let mut sign = Value::Bool(true);
    let mut inside = false;
    for entry in &file.entries {
        match entry {
            Entry::Section { name, .. } => inside = name == "UKIProfile",
            Entry::Assignment { key, lines } if inside => {
                let text = value(lines);
                let (slot, kind) = match key.text.as_str() {
                    "Profile" => {
                        profile = lines_of_pairs(&text, &profile);
                        continue;
                    }
                    "Cmdline" => (&mut cmdline, Kind::List { item: Item::Text, split: Split::Spaces }),
                    "SignExpectedPcr" => (&mut sign, Kind::Bool),
                    other => {
                        return Err(Refusal::new(format!("{}: `{other}` is no setting of a profile", path.display()))
                            .accepting("Profile, Cmdline, SignExpectedPcr"));
                    }
                };
                let old = std::mem::replace(slot, Value::None);
                *slot = reader.add(kind, &text, Some(old))?.unwrap_or_else(|| kind.empty());
            }
            Entry::Assignment { .. } => {}
        }
    }
    Ok(map([("profile", profile), ("cmdline", cmdline), ("sign_expected_pcr", sign)]))
}

/// `KEY=value`, one a line: a title may have spaces in it.
fn lines_of_pairs(text: &str, old: &Value) -> Value {
    let mut pairs = match old {
        Value::Map(pairs) if !text.is_empty() => pairs.clone(),
        _ => BTreeMap::new(),
    };
    for line in text.lines().filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        pairs.insert(key.trim().to_owned(), Value::text(value.trim()));
    }
    Value::Map(pairs)
}

impl Reader<'_> {
    pub(super) fn tree(
        &self,
        text: &str,
        required: bool,
        absolute: bool,
        directory: bool,
        bare: bool,
    ) -> Result<Value, Refusal> {
        let (source, target) = match text.split_once(':') {
            Some((source, target)) if !bare => (source, Some(target)),
            _ => (text, None),
        };
        let rule = if required { PathRule::EXISTS } else { PathRule::ANY };
        let path = self.path(rule, source)?;
        if directory && path.as_path().is_some_and(|path| !path.is_dir()) {
            return Err(Refusal::new(format!("`{source}` is not a directory")).about(source));
        }
        let target = match target {
            Some(target) if absolute && !target.starts_with('/') => {
                return Err(Refusal::new(format!("the target `{target}` must be an absolute path"))
                    .about(text)
                    .hint(format!("write `{source}:/{target}`")));
            }
            Some("") => Value::text("."),
            Some(target) => Value::Text(paths::tidy(&expand_variables(target, self.environment))),
            None => Value::None,
        };
        Ok(Value::Map(BTreeMap::from([("source".to_owned(), path), ("target".to_owned(), target)])))
    }

    pub(super) fn dict(&self, text: &str, passes: bool, old: Option<Value>) -> Result<Option<Value>, Refusal> {
        let words = split_words(text, Split::Quoted)?;
        if words.is_empty() {
            return Ok(None);
        }
        let mut map = match old {
            Some(Value::Map(map)) => map,
            _ => BTreeMap::new(),
        };
        for word in words.iter().filter(|word| !word.is_empty()) {
            let (key, value) = match word.split_once('=') {
                Some((key, value)) => (key.trim(), value.trim().to_owned()),
                None if passes => (word.as_str(), self.environment.get(word.trim()).cloned().unwrap_or_default()),
                None => (word.as_str(), String::new()),
            };
            map.insert(key.trim().to_owned(), Value::Text(value));
        }
        Ok(Some(Value::Map(map)))
    }

    pub(super) fn credentials(&self, text: &str, old: Option<Value>) -> Result<Option<Value>, Refusal> {
        let mut items = old.map(Value::into_items).unwrap_or_default();
        let credential = |name: String, field: &str, value: Value| {
            Value::Map(BTreeMap::from([("name".to_owned(), Value::Text(name)), (field.to_owned(), value)]))
        };
        if !text.is_empty() && !text.contains('=') {
            let path = paths::joined(text, self.directory, self.environment);
            let mut files = match path.read_dir() {
                Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| !path.is_dir()).collect(),
                Err(_) if path.exists() => vec![path],
                Err(_) => return Err(self.missing(text, &path, &[])),
            };
            files.sort();
            for file in files {
                let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                items.push(credential(name, "path", Value::Path(file)));
            }
            return Ok(Some(Value::List(items)));
        }
        let words = split_words(text, Split::Quoted)?;
        if words.is_empty() {
            return Ok(None);
        }
        for word in words.iter().filter(|word| !word.is_empty()) {
            let (name, value) = word.split_once('=').unwrap_or((word, ""));
            items.push(credential(name.trim().to_owned(), "value", Value::text(value.trim())));
        }
        Ok(Some(Value::List(items)))
    }
}

/// The pieces of a list's text; some may be empty.
///
/// # Errors
/// When a quote is not closed.
pub(super) fn split_words(text: &str, split: Split) -> Result<Vec<String>, Refusal> {
    Ok(match split {
        Split::Words => {
            let words = text.split(|c: char| c == ',' || c.is_whitespace());
            words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
        }
        Split::Spaces => match text {
            "" => Vec::new(),
            text => text.split([' ', '\n']).map(str::to_owned).collect(),
        },
        Split::Quoted => {
            quoted(text).map_err(|problem| Refusal::new(format!("can't cut the text into words: {problem}")))?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drives() {
        let environment = BTreeMap::new();
        let notes = RefCell::default();
        let reader =
            Reader { directory: Path::new("/"), environment: &environment, keep_removals: false, notes: &notes };
        let value = drive("btrfs:10G::discard=on::persist", &reader).unwrap();
        assert_eq!(value.field("size"), Some(&Value::Number(10 << 30)));
        assert_eq!(value.field("file_id"), Some(&Value::text("btrfs")));
        assert_eq!(value.field("options"), Some(&Value::text("discard=on")));
        for bad in ["a", "a/b:1G", "a:1G:::::", "a:x", "a:1G::::loud", ":1G"] {
            assert!(drive(bad, &reader).is_err(), "{bad}");
        }
    }

    #[test]
    fn profiles() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("debug.conf");
        std::fs::write(&path, "[UKIProfile]\nProfile=ID=debug\n    TITLE=Boot with debugging\nCmdline=debug a=b\n")
            .unwrap();
        let value = uki_profile(&path).unwrap();
        assert_eq!(value.field("profile").and_then(|p| p.field("TITLE")), Some(&Value::text("Boot with debugging")));
        assert_eq!(value.field("cmdline").map(Value::items).unwrap_or_default().len(), 2);
        assert_eq!(value.field("sign_expected_pcr"), Some(&Value::Bool(true)));
        std::fs::write(&path, "[UKIProfile]\nProfil=ID=debug\n").unwrap();
        assert!(uki_profile(&path).is_err());
    }
}
