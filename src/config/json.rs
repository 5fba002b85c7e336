//! An image as JSON, in the shapes that mkosi's `summary --json` and configure scripts use, and back.
//!
//! Knows nothing of how JSON is printed or of running scripts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value as Json, json};

use super::image::Image;
use super::load::Loaded;
use super::specifier::expand_delayed;
use super::table::{Item, Kind, SETTINGS, Scope, Setting};
use super::value::{Origin, Sourced, Value};
use crate::types::Encoder;

/// The settings that an image's JSON has: not those for another image, nor what only reading needs.
fn shown() -> impl Iterator<Item = &'static Setting> {
    SETTINGS
        .iter()
        .copied()
        .filter(|setting| setting.stores == setting.name && setting.scope != Scope::Tools && setting.name != "Include")
}

impl Loaded {
    /// Everything as `mkosi summary --json` prints it.
    pub fn to_json(&self) -> Json {
        json!({
            "Images": self.images.iter().map(|image| self.image_json(image)).collect::<Vec<_>>(),
            "Tools": self.tools.as_ref().map(|tools| self.image_json(tools)),
        })
    }

    /// One image, as a configure script gets it on its standard input.
    pub fn image_json(&self, image: &Image) -> Json {
        let mut object: Map<String, Json> = shown()
            .map(|setting| match unknown_uuid(image, setting) {
                Some(uuid) => (setting.name.to_owned(), json!(uuid)),
                None => (setting.name.to_owned(), to_json(setting.kind, image.get(setting.name))),
            })
            .collect();
        if image.text("ToolsTree").is_some() {
            object.insert(
                "ToolsTree".to_owned(),
                self.tools.as_ref().map_or(Json::Null, |tools| path(&output_path(tools))),
            );
        }
        if let (Some(initrd), Some(Json::Array(items))) = (self.image("default-initrd"), object.get_mut("Initrds")) {
            for item in items.iter_mut().filter(|item| *item == "default") {
                *item = path(&output_path(initrd));
            }
        }
        if let Some(directory) = build_subdirectory(image) {
            object.insert("BuildSubdirectory".to_owned(), path(&directory));
        }
        let files = self.files.get(&image.name).map(Vec::as_slice).unwrap_or_default();
        object.insert("Files".to_owned(), files.iter().map(|file| path(file)).collect());
        object.insert("Image".to_owned(), json!(image.name));
        Json::Object(object)
    }
}

/// What is shown in the place of a UUID that is known only when the image is built: `random`, and a seed that nothing
/// sets. Readers of the JSON expect a UUID there.
fn unknown_uuid(image: &Image, setting: &Setting) -> Option<String> {
    let unknown = match image.get(setting.name) {
        Value::Text(text) => text == "random",
        Value::None => setting.name == "Seed",
        _ => false,
    };
    (setting.kind == Kind::Uuid && unknown).then(|| stand_in(image, setting))
}

/// A version 8 UUID (RFC 9562) that stands for an unknown one of this image.
fn stand_in(image: &Image, setting: &Setting) -> String {
    let digest = Encoder::new("mkosi.stand-in", 1).str(setting.name).str(&image.name).finish().hex();
    let part = |from: usize, to: usize| digest.get(from..to).unwrap_or_default();
    format!("{}-{}-8{}-a{}-{}", part(0, 8), part(8, 12), part(12, 15), part(15, 18), part(18, 30))
}

/// The directory below `BuildDirectory=` that an image's build scripts fill: the one that `BuildKey=` names.
pub fn build_subdirectory(image: &Image) -> Option<PathBuf> {
    let key = expand_key(image, image.text("BuildKey").unwrap_or_default());
    image.path("BuildDirectory").map(|directory| below(directory, &key))
}

/// The build directory of an expanded key: `-` is the whole one.
pub fn below(directory: &Path, key: &str) -> PathBuf {
    if key == "-" { directory.to_owned() } else { directory.join(key) }
}

/// A cache or build key with its `&` specifiers put in.
pub fn expand_key(image: &Image, key: &str) -> String {
    expand_delayed(key, |letter| {
        let setting = match letter {
            'd' => "Distribution",
            'r' => "Release",
            'a' => "Architecture",
            'i' => "ImageId",
            'v' => "ImageVersion",
            'I' => return Some(image.name.clone()),
            _ => return None,
        };
        image.text(setting).map(str::to_owned)
    })
}

/// Where an image's output is put, without its extension.
fn output_path(image: &Image) -> PathBuf {
    image.path("OutputDirectory").unwrap_or(&image.project).join(image.text("Output").unwrap_or_default())
}

fn path(path: &Path) -> Json {
    Json::String(path.to_string_lossy().into_owned())
}

fn to_json(kind: Kind, value: &Value) -> Json {
    match (kind, value) {
        (_, Value::None) => Json::Null,
        (_, Value::Bool(value)) => json!(value),
        (_, Value::Number(value)) => json!(value),
        (_, Value::Text(value)) => json!(value),
        (_, Value::Path(value)) => path(value),
        (Kind::Password, map) => json!([
            to_json(Kind::Text, map.field("password").unwrap_or(&Value::None)),
            map.field("hashed").and_then(Value::as_bool).unwrap_or(false),
        ]),
        (Kind::List { item: Item::Tree { bare: true, .. }, .. }, Value::List(items)) => {
            items.iter().map(|tree| to_json(Kind::Text, tree.field("source").unwrap_or(&Value::None))).collect()
        }
        (kind, Value::List(items)) => items.iter().map(|item| to_json(kind, item)).collect(),
        // What the user wrote keeps its names; fields of ours are written as the reference writes its own.
        (Kind::Dict { .. }, Value::Map(map)) => {
            map.iter().map(|(name, value)| (name.clone(), to_json(Kind::Text, value))).collect()
        }
        (Kind::Credentials, map @ Value::Map(_)) => json!({
            "Name": to_json(Kind::Text, map.field("name").unwrap_or(&Value::None)),
            "Path": to_json(Kind::Text, map.field("path").unwrap_or(&Value::None)),
            "Value": to_json(Kind::Text, map.field("value").unwrap_or(&Value::None)),
        }),
        (_, Value::Map(map)) => map
            .iter()
            .map(|(name, value)| {
                let kind = if name == "profile" { Kind::Dict { passes: false } } else { Kind::Text };
                (capitals(name), to_json(kind, value))
            })
            .collect(),
    }
}

fn capitals(name: &str) -> String {
    name.split('_')
        .flat_map(|part| {
            let mut chars = part.chars();
            chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect::<Vec<_>>()
        })
        .collect()
}

fn small(name: &str) -> String {
    let mut result = String::new();
    for (index, c) in name.chars().enumerate() {
        if c.is_ascii_uppercase() && index > 0 {
            result.push('_');
        }
        result.push(c.to_ascii_lowercase());
    }
    result
}

/// Why a configure script's answer can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    /// Not a JSON object.
    #[error("the script's answer is no JSON object: print the object that it got on standard input, changed as needed")]
    NoObject,
    /// A field that no setting has.
    #[error("the script's answer has the field `{0}`, which is no setting: leave it out or correct its name")]
    Unknown(String),
    /// A field with a value of another type.
    #[error("the script's answer has a value of the wrong type in the field `{0}`: it was `{1}`")]
    Type(String, String),
}

/// The image with the changes that a configure script made: `answer` is the object that it printed. What changed
/// has `script` as its origin.
///
/// # Errors
/// When the answer isn't an object of settings.
pub fn apply_answer(loaded: &Loaded, image: &Image, answer: &Json, script: &Path) -> Result<Image, JsonError> {
    let Json::Object(answer) = answer else { return Err(JsonError::NoObject) };
    let Json::Object(before) = loaded.image_json(image) else { return Err(JsonError::NoObject) };
    let mut changed = image.clone();
    for (name, new) in answer {
        if matches!(name.as_str(), "Files" | "Image" | "BuildSubdirectory") || before.get(name) == Some(new) {
            continue;
        }
        let Some(setting) = shown().find(|setting| setting.name == name) else {
            return Err(JsonError::Unknown(name.clone()));
        };
        let value = match new.as_str() {
            Some(uuid) if setting.kind == Kind::Uuid && uuid == stand_in(image, setting) => Some(Value::text("random")),
            _ => from_json(setting.kind, new),
        };
        let value = value.ok_or_else(|| JsonError::Type(name.clone(), new.to_string().chars().take(80).collect()))?;
        changed.values.insert(setting.name, Sourced { value, origin: Origin::DefaultPath(script.to_owned()) });
    }
    Ok(changed)
}

fn from_json(kind: Kind, json: &Json) -> Option<Value> {
    if json.is_null() {
        return Some(Value::None);
    }
    match kind {
        Kind::Bool => json.as_bool().map(Value::Bool),
        Kind::Number { .. } | Kind::Mode | Kind::Bytes | Kind::SectorSize | Kind::VsockCid => {
            json.as_i64().map(Value::Number)
        }
        Kind::Text | Kind::Name | Kind::Uuid | Kind::MinimumVersion => json.as_str().map(Value::text),
        Kind::Feature => json.as_str().filter(|text| ["auto", "enabled", "disabled"].contains(text)).map(Value::text),
        Kind::Enum(choices) => json.as_str().and_then(|text| choices.find(text)).map(Value::text),
        Kind::Path(rule) => json.as_str().map(|text| path_or(rule.constants, text)),
        Kind::KeyFile => {
            json.as_str().map(|text| if text.starts_with('/') { path_or(&[], text) } else { Value::text(text) })
        }
        Kind::Source(_) => Some(fields(json.as_object()?, |_, field| field.as_str().map(Value::text))?),
        Kind::Password => {
            let [password, hashed] = json.as_array()?.as_slice() else { return None };
            Some(Value::Map(BTreeMap::from([
                ("password".to_owned(), Value::text(password.as_str()?)),
                ("hashed".to_owned(), Value::Bool(hashed.as_bool()?)),
            ])))
        }
        Kind::Dict { .. } => texts(json),
        Kind::Packages => items(json, |item| item.as_str().map(Value::text)),
        Kind::Scripts => items(json, |item| item.as_str().map(|text| path_or(&[], text))),
        Kind::Artifacts(choices) => items(json, |item| choices.find(item.as_str()?).map(Value::text)),
        Kind::Credentials => items(json, |item| {
            let object = item.as_object()?;
            let mut map = BTreeMap::from([("name".to_owned(), Value::text(object.get("Name")?.as_str()?))]);
            match (object.get("Path").and_then(Json::as_str), object.get("Value").and_then(Json::as_str)) {
                (Some(text), _) => map.insert("path".to_owned(), Value::Path(text.into())),
                (None, Some(text)) => map.insert("value".to_owned(), Value::text(text)),
                (None, None) => return None,
            };
            Some(Value::Map(map))
        }),
        Kind::List { item, .. } => items(json, |json| from_item(item, json)),
    }
}

fn from_item(item: Item, json: &Json) -> Option<Value> {
    match item {
        Item::Word | Item::Text | Item::Name | Item::Regex => json.as_str().map(Value::text),
        Item::Choice(choices) => json.as_str().and_then(|text| choices.find(text)).map(Value::text),
        Item::Path(rule) => json.as_str().map(|text| path_or(rule.constants, text)),
        Item::Tree { bare: true, .. } => Some(Value::Map(BTreeMap::from([
            ("source".to_owned(), path_or(&[], json.as_str()?)),
            ("target".to_owned(), Value::None),
        ]))),
        Item::Tree { .. } => fields(json.as_object()?, |name, field| match name {
            "source" => field.as_str().map(|text| path_or(&[], text)),
            _ => optional(field),
        }),
        Item::Drive => fields(json.as_object()?, |name, field| match name {
            "size" => field.as_i64().map(Value::Number),
            "flags" => items(field, |flag| flag.as_str().map(Value::text)),
            "directory" if !field.is_null() => field.as_str().map(|text| path_or(&[], text)),
            _ => optional(field),
        }),
        Item::UkiProfile => fields(json.as_object()?, |name, field| match name {
            "profile" => texts(field),
            "cmdline" => items(field, |option| option.as_str().map(Value::text)),
            _ => field.as_bool().map(Value::Bool),
        }),
    }
}

fn path_or(constants: &[&str], text: &str) -> Value {
    if constants.contains(&text) { Value::text(text) } else { Value::Path(text.into()) }
}

fn optional(json: &Json) -> Option<Value> {
    if json.is_null() { Some(Value::None) } else { json.as_str().map(Value::text) }
}

fn items(json: &Json, item: impl Fn(&Json) -> Option<Value>) -> Option<Value> {
    json.as_array()?.iter().map(item).collect::<Option<Vec<_>>>().map(Value::List)
}

fn texts(json: &Json) -> Option<Value> {
    let map = json.as_object()?.iter().map(|(name, text)| Some((name.clone(), Value::text(text.as_str()?))));
    map.collect::<Option<BTreeMap<_, _>>>().map(Value::Map)
}

fn fields(object: &Map<String, Json>, field: impl Fn(&str, &Json) -> Option<Value>) -> Option<Value> {
    let map = object.iter().map(|(name, json)| {
        let name = small(name);
        field(&name, json).map(|value| (name, value))
    });
    map.collect::<Option<BTreeMap<_, _>>>().map(Value::Map)
}
