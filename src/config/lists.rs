//! Items of lists that have a grammar of their own: drives of a virtual machine, profiles of unified kernel images.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use super::read::{Reader, Refusal};
use super::scalars::bytes;
use super::syntax::{Entry, File, value};
use super::table::{Item, Kind, PathRule, Split};
use super::value::Value;

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
        Some(directory) => reader.read(Kind::Path(PathRule::EXISTS), directory, None)?.unwrap_or(Value::None),
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
                *slot = reader.read(kind, &text, Some(slot))?.unwrap_or_else(|| kind.empty());
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
