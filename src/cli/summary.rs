//! `mkosi summary`: what each image's settings are and where they come from, for people or as JSON.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize as _;
use serde_json::Value as Json;
use serde_json::ser::{PrettyFormatter, Serializer};

use crate::config::table::{Kind, SECTIONS, SETTINGS, Scope, Setting};
use crate::config::{Image, Loaded, Origin, Sourced, Value};
use crate::types::without_pins;

/// The JSON that mkosi's own `summary --json` prints: the same keys and shapes, sorted. PINs in URIs of keys are left out:
/// it ends up in logs, and nothing reads settings back from it.
pub fn json(loaded: &Loaded) -> String {
    let mut bytes = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut bytes, PrettyFormatter::with_indent(b"    "));
    // Writing to memory can't fail, and every key is a text.
    if hide_pins(loaded.to_json()).serialize(&mut serializer).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hide_pins(json: Json) -> Json {
    match json {
        Json::String(text) => Json::String(without_pins(&text)),
        Json::Array(items) => items.into_iter().map(hide_pins).collect(),
        Json::Object(fields) => fields.into_iter().map(|(name, value)| (name, hide_pins(value))).collect(),
        other => other,
    }
}

/// The settings by sections. A star marks what is not at its default; what set it stands behind. Paths below `here`
/// are shown relative to it. Where images were asked for, only those are shown. Without `all`, settings that are at their default and empty are left out.
pub fn text(loaded: &Loaded, here: &Path, all: bool) -> String {
    let mut text = String::new();
    let chosen = loaded.selected.iter().any(|name| name != "main");
    let shown = |image: &&Image| !chosen || loaded.selected.contains(&image.name);
    for image in loaded.tools.iter().chain(&loaded.images).filter(shown) {
        if !text.is_empty() {
            text.push('\n');
        }
        one(&mut text, image, here, all);
    }
    text
}

fn one(text: &mut String, image: &Image, here: &Path, all: bool) {
    let _ = writeln!(text, "image {}", image.name);
    for section in SECTIONS {
        let shown: Vec<(&Setting, &Sourced)> = SETTINGS
            .iter()
            .filter(|setting| setting.section == *section && belongs(setting, image))
            .filter_map(|setting| image.values.get(setting.name).map(|sourced| (*setting, sourced)))
            .filter(|(_, sourced)| all || sourced.origin != Origin::Default || !sourced.value.is_empty())
            .collect();
        if shown.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n  [{section}]");
        let width = shown.iter().map(|(setting, _)| setting.name.len()).max().unwrap_or(0);
        for (setting, sourced) in shown {
            let star = if sourced.origin == Origin::Default { ' ' } else { '*' };
            let lines = lines(setting, &sourced.value, here);
            let mut lines = lines.iter();
            let first = lines.next().map_or("", String::as_str);
            let _ = write!(text, "{star} {:<width$}  {first}", setting.name);
            match &sourced.origin {
                Origin::Default => text.push('\n'),
                origin => {
                    let _ = writeln!(text, "  ({})", origin_text(origin, here));
                }
            }
            for line in lines {
                let _ = writeln!(text, "  {:<width$}  {line}", "");
            }
        }
    }
}

/// Whether the setting has a meaning for the image: what belongs to the main image isn't shown for others.
fn belongs(setting: &Setting, image: &Image) -> bool {
    let main = matches!(setting.scope, Scope::Main | Scope::Tools | Scope::Initrd);
    setting.stores == setting.name && (image.name == "main" || !main)
}

fn short(path: &Path, here: &Path) -> String {
    match path.strip_prefix(here) {
        Ok(below) if below.as_os_str().is_empty() => ".".to_owned(),
        Ok(below) => below.display().to_string(),
        Err(_) => path.display().to_string(),
    }
}

fn origin_text(origin: &Origin, here: &Path) -> String {
    match origin {
        Origin::File { path, line, .. } => format!("{}:{line}", short(path, here)),
        Origin::DefaultPath(path) => short(path, here),
        other => other.to_string(),
    }
}

/// The value in lines: one for each item of a list or map.
fn lines(setting: &Setting, value: &Value, here: &Path) -> Vec<String> {
    let lines: Vec<String> = match (setting.kind, value) {
        // A secret isn't shown.
        (Kind::Password, Value::Map(_)) => vec!["(set)".to_owned()],
        (Kind::Credentials, Value::List(items)) => {
            items.iter().filter_map(|item| item.field("name")).map(|name| plain(name, here)).collect()
        }
        (Kind::Mode, Value::Number(mode)) => vec![format!("{mode:04o}")],
        (Kind::Bytes, Value::Number(size)) => vec![crate::types::human::bytes(u64::try_from(*size).unwrap_or(0))],
        (Kind::VsockCid, Value::Number(-1)) => vec!["auto".to_owned()],
        (Kind::VsockCid, Value::Number(-2)) => vec!["hash".to_owned()],
        (Kind::Dict { .. }, Value::Map(map)) => {
            map.iter().map(|(name, value)| format!("{name}={}", plain(value, here))).collect()
        }
        (_, Value::List(items)) => items.iter().map(|item| plain(item, here)).collect(),
        (_, value) => vec![plain(value, here)],
    };
    if lines.is_empty() { vec!["none".to_owned()] } else { lines }
}

fn plain(value: &Value, here: &Path) -> String {
    match value {
        Value::None => "none".to_owned(),
        Value::Bool(value) => if *value { "yes" } else { "no" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::Text(text) => without_pins(text),
        Value::Path(path) => short(path, here),
        Value::List(items) => items.iter().map(|item| plain(item, here)).collect::<Vec<_>>().join(" "),
        Value::Map(map) => match (map.get("source"), map.get("target"), map.get("type")) {
            (Some(source), Some(Value::None), _) => plain(source, here),
            (Some(source), Some(target), _) => format!("{}:{}", plain(source, here), plain(target, here)),
            (Some(source), None, Some(kind)) if source.is_empty() => plain(kind, here),
            (Some(source), None, Some(kind)) => format!("{}:{}", plain(kind, here), plain(source, here)),
            _ => map
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(name, value)| format!("{name}={}", plain(value, here)))
                .collect::<Vec<_>>()
                .join(" "),
        },
    }
}
