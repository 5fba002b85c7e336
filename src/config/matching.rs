//! One condition of `[Match]`: whether a value satisfies it.
//!
//! Knows nothing of files and sections.

use std::path::PathBuf;

use super::read::Reader;
use super::refusal::Refusal;
use super::scalars::choice;
use super::table::{Choices, Item, Kind, Matcher, Setting};
use super::value::Value;
use super::version;
use super::words::{Pattern, boolean, glob_matches};

/// Conditions that aren't settings.
pub(super) const CONDITIONS: &[&str] = &["PathExists", "SystemdVersion", "HostArchitecture", "Image"];

/// Whether `value`, which `setting` has now, satisfies a condition.
///
/// # Errors
/// When the condition can't be satisfied by any value.
pub(super) fn matches(setting: &Setting, condition: &str, value: &Value, reader: &Reader<'_>) -> Result<bool, Refusal> {
    if *value == Value::None {
        return Ok(false);
    }
    match setting.matcher {
        Matcher::Version => Ok(value.as_text().is_some_and(|version| version::satisfies(version, condition))),
        Matcher::Architecture if condition == "uefi" => Ok(value.as_text().is_some_and(has_uefi)),
        Matcher::Target => {
            let wanted = super::paths::tidy(condition.trim_start_matches('/'));
            let targets = value.items().iter().filter_map(|tree| tree.field("target")).filter_map(Value::as_text);
            Ok(targets.into_iter().any(|target| target == wanted))
        }
        Matcher::Architecture | Matcher::Kind => by_kind(setting.kind, condition, value, reader),
    }
}

fn by_kind(kind: Kind, condition: &str, value: &Value, reader: &Reader<'_>) -> Result<bool, Refusal> {
    match kind {
        Kind::Bool => match boolean(condition) {
            Some(wanted) => Ok(value.as_bool() == Some(wanted)),
            None => Err(Refusal::new(format!("`{condition}` is not a boolean")).accepting("yes, no")),
        },
        Kind::Feature => Ok(reader.read(kind, condition)?.as_ref() == Some(value)),
        Kind::Enum(choices) => enumeration(choices, condition, value),
        Kind::Number { .. } | Kind::Mode | Kind::Bytes | Kind::SectorSize | Kind::VsockCid => {
            let (operator, number) = version::split_operator(condition).unwrap_or(("==", condition));
            let wanted = reader.read(kind, number.trim())?.and_then(|number| number.as_number());
            Ok(match (value.as_number(), wanted) {
                (Some(value), Some(wanted)) => match operator {
                    "!=" => value != wanted,
                    "<=" => value <= wanted,
                    ">=" => value >= wanted,
                    ">" => value > wanted,
                    "<" => value < wanted,
                    _ => value == wanted,
                },
                _ => false,
            })
        }
        Kind::Text | Kind::Name | Kind::Uuid | Kind::MinimumVersion => {
            let text = value.as_text().unwrap_or_default();
            Ok(match version::split_operator(condition) {
                Some(_) => version::satisfies(text, condition),
                None => glob_matches(condition, text),
            })
        }
        Kind::Dict { .. } => Ok(match condition.split_once('=') {
            Some((key, wanted)) => value.field(key).and_then(Value::as_text) == Some(wanted),
            None => value.field(condition).is_some(),
        }),
        Kind::List { .. } | Kind::Packages | Kind::Scripts | Kind::Artifacts(_) | Kind::Credentials
            if condition.is_empty() =>
        {
            Ok(value.items().is_empty())
        }
        Kind::List { item: Item::Choice(choices), .. } | Kind::Artifacts(choices) => {
            choice(choices, condition)?;
            Ok(value.items().iter().any(|item| item.as_text() == Some(condition)))
        }
        Kind::List { .. } | Kind::Packages | Kind::Scripts | Kind::Credentials => {
            let wanted = Wanted::new(condition, reader);
            Ok(value.items().iter().any(|item| wanted.by(item)))
        }
        Kind::Path(_) | Kind::KeyFile => Ok(Wanted::new(condition, reader).by(value)),
        Kind::Source(choices) => {
            let wanted = choice(choices, condition)?;
            Ok(value.field("type") == Some(&wanted))
        }
        Kind::Password => Ok(boolean(condition) == Some(true)),
    }
}

fn enumeration(choices: &Choices, condition: &str, value: &Value) -> Result<bool, Refusal> {
    let text = value.as_text().unwrap_or_default();
    if condition.contains(['*', '?', '[']) {
        return Ok(glob_matches(condition, text));
    }
    Ok(choice(choices, condition)?.as_text() == Some(text))
}

/// What an item of a list is compared with, read once for all items.
struct Wanted<'a> {
    text: &'a str,
    pattern: Pattern<'a>,
    path: PathBuf,
}

impl<'a> Wanted<'a> {
    fn new(text: &'a str, reader: &Reader<'_>) -> Self {
        let path = super::paths::absolute(text, reader.directory, reader.environment);
        Self { text, pattern: Pattern::new(text), path }
    }

    /// A text by a shell pattern, a path by where it leads to, a tree by its source.
    fn by(&self, item: &Value) -> bool {
        match item {
            Value::Text(text) => text == self.text || self.pattern.matches(text),
            Value::Path(path) => *path == self.path || self.pattern.matches(&path.to_string_lossy()),
            Value::Map(map) => {
                ["source", "name", "id"].iter().filter_map(|field| map.get(*field)).any(|value| self.by(value))
            }
            _ => false,
        }
    }
}

/// The architectures that the UEFI specification knows.
fn has_uefi(architecture: &str) -> bool {
    matches!(architecture, "x86" | "x86-64" | "arm" | "arm64" | "riscv32" | "riscv64" | "loongarch64")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::super::table::find;
    use super::*;

    fn check(name: &str, condition: &str, value: &Value) -> Result<bool, Refusal> {
        let environment = BTreeMap::new();
        let notes = std::cell::RefCell::default();
        let reader =
            Reader { directory: Path::new("/"), environment: &environment, keep_removals: false, notes: &notes };
        matches(find(name).unwrap(), condition, value, &reader)
    }

    #[test]
    fn by_the_kind_of_setting() {
        let yes = Ok(true);
        assert_eq!(check("Distribution", "debian", &Value::text("debian")), yes);
        assert_eq!(check("Architecture", "uefi", &Value::text("arm64")), yes);
        assert_eq!(check("Architecture", "uefi", &Value::text("s390x")), Ok(false));
        assert_eq!(check("Release", ">=40", &Value::text("42")), yes);
        assert_eq!(check("ImageVersion", "1.0", &Value::text("1.00")), yes);
        assert_eq!(check("ImageId", "my-*", &Value::text("my-image")), yes);
        assert_eq!(check("Bootable", "yes", &Value::text("enabled")), yes);
        assert_eq!(check("WithNetwork", "no", &Value::Bool(false)), yes);
        assert_eq!(check("RAM", ">=1G", &Value::Number(2 << 30)), yes);
        let list = Value::List(vec![Value::text("a"), Value::text("linux-image-amd64")]);
        assert_eq!(check("Packages", "linux-*", &list), yes);
        assert_eq!(check("Profiles", "", &Value::List(Vec::new())), yes);
        assert_eq!(check("Mirror", "*", &Value::None), Ok(false));
        let environment = Value::Map(BTreeMap::from([("A".to_owned(), Value::text("1"))]));
        assert_eq!(check("Environment", "A=1", &environment), yes);
        assert_eq!(check("Environment", "A", &environment), yes);
        assert_eq!(check("Environment", "A=2", &environment), Ok(false));
        assert!(check("Distribution", "debain", &Value::text("debian")).is_err());
    }
}
