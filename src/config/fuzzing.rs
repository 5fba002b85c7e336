//! What the fuzz targets in `fuzz/` call: the parts of the language by themselves, with what must hold for any input.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use super::matching;
use super::read::Reader;
use super::specifier::{self, Meaning};
use super::syntax::{Entry, File, Line};
use super::table::{Item, Kind, SETTINGS};
use super::value::Value;

/// Parses a configuration file: every entry has its place in the file, and can be told of.
pub fn file(text: &str) {
    let file = File::parse(Path::new("mkosi.conf"), text);
    let check = |line: &Line| {
        let source = file.source.get(line.number.wrapping_sub(1)).expect("the line exists");
        assert!(line.column >= 1 && line.column <= source.chars().count() + 1, "column {}", line.column);
        let _ = file.place(line, line.text.chars().count());
    };
    for entry in &file.entries {
        match entry {
            Entry::Section { line, .. } => check(line),
            Entry::Assignment { key, lines } => {
                check(key);
                lines.iter().for_each(check);
                let _ = file.place_of(key, lines, lines.last().map(|line| line.text.as_str()));
            }
        }
    }
    for problem in &file.problems {
        let _ = problem.to_string();
    }
}

/// Reads a value of a setting and compares it with a condition: the same answer each time.
pub fn condition(setting: u8, text: &str, condition: &str) {
    let environment = BTreeMap::from([("HOME".to_owned(), "/home".to_owned())]);
    let notes = RefCell::default();
    let reader =
        Reader { directory: Path::new("/nowhere"), environment: &environment, keep_removals: false, notes: &notes };
    let Some(setting) = SETTINGS.get(usize::from(setting) % SETTINGS.len()) else { return };
    // These look at files, which a fuzzer can name at will: `/**` is the whole host.
    if matches!(setting.kind, Kind::Scripts | Kind::Credentials | Kind::List { item: Item::UkiProfile, .. }) {
        return;
    }
    let value = reader.read(setting.kind, text).ok().flatten().unwrap_or(Value::None);
    let first = matching::matches(setting, condition, &value, &reader);
    assert_eq!(first, matching::matches(setting, condition, &value, &reader));
}

/// Puts specifiers in: what has none is left as it is, and a doubled sign always becomes one.
pub fn specifiers(text: &str) {
    let meaning = |letter: char| match letter {
        'a'..='m' => Meaning::Text("x".to_owned()),
        'n'..='z' => Meaning::Unset("Release"),
        _ => Meaning::Unknown,
    };
    let _ = specifier::expand(text, meaning, |_, _| {});
    assert_eq!(specifier::expand(&text.replace('%', "%%"), meaning, |_, _| panic!("a specifier")), text);
    let _ = specifier::expand_delayed(text, |letter| letter.is_lowercase().then(|| "x".to_owned()));
    assert_eq!(specifier::expand_delayed(&text.replace('&', "&&"), |_| panic!("a specifier")), text);
}
