//! Small projects with what must come out of them, checked by hand: `tests/config/NAME/project` is the project, and
//! `case.toml` beside it says how it is loaded and what is expected.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use mkosi::cli::options;
use mkosi::config::{HostFacts, Image, LoadInput, Loaded, Value, apply_answer, load};
use mkosi::types::Architecture;
use serde::Deserialize;
use serde_json::Value as Json;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The command line.
    #[serde(default)]
    arguments: Vec<String>,
    /// The environment.
    #[serde(default)]
    environment: BTreeMap<String, String>,
    /// The images in their order, where that is what the case is about.
    images: Option<Vec<String>>,
    /// Some of the values of each image, as `summary --json` shows them; `$D` is the project.
    #[serde(default)]
    expect: BTreeMap<String, BTreeMap<String, Json>>,
    /// What must be said.
    #[serde(default)]
    diagnostics: Said,
    /// Whether the reference does something else here, on purpose of ours.
    #[serde(default)]
    #[allow(dead_code)]
    beyond: bool,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    /// Parts of warnings or errors.
    #[serde(default)]
    contains: Vec<String>,
    /// Parts of errors, all of which must be found in one run.
    #[serde(default)]
    errors: Vec<String>,
}

fn expected(json: &Json, project: &Path) -> Json {
    match json {
        Json::String(text) if text == "<null>" => Json::Null,
        Json::String(text) => Json::String(text.replace("$D", &project.to_string_lossy())),
        Json::Array(items) => items.iter().map(|item| expected(item, project)).collect(),
        Json::Object(map) => map.iter().map(|(name, json)| (name.clone(), expected(json, project))).collect(),
        other => other.clone(),
    }
}

fn check(directory: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(directory.join("case.toml")).expect("case.toml");
    let case: Case = toml::from_str(&text).expect("case.toml is valid");
    let project = directory.join("project").canonicalize().expect("project");
    let invocation = options::parse(case.arguments.iter().map(OsString::from), &project).expect("the arguments");
    let input = LoadInput {
        directory: invocation.directory,
        options: invocation.settings,
        images: invocation.images,
        environment: case.environment,
        host: HostFacts::new(Some("debian"), Some("trixie"), Architecture::X86_64).with_systemd("257.1"),
        resources: None,
    };
    let mut wrong = Vec::new();
    let said = match load(&input) {
        Ok(loaded) => {
            if !case.diagnostics.errors.is_empty() {
                wrong.push("no error".to_owned());
            }
            let names: Vec<String> = loaded.images.iter().map(|image| image.name.clone()).collect();
            if case.images.is_some_and(|images| images != names) {
                wrong.push(format!("images: {names:?}"));
            }
            for image in &loaded.images {
                wrong.extend(round_trip(&loaded, image));
            }
            for (name, settings) in &case.expect {
                let Some(image) = loaded.image(name) else {
                    wrong.push(format!("no image {name}"));
                    continue;
                };
                let json = loaded.image_json(image);
                for (setting, value) in settings {
                    let value = expected(value, &project);
                    if json.get(setting) != Some(&value) {
                        wrong.push(format!("{name}.{setting}: {:?} instead of {value:?}", json.get(setting)));
                    }
                }
            }
            loaded.warnings
        }
        Err(diagnostics) => {
            if case.diagnostics.errors.is_empty() {
                wrong.push(format!("an error: {diagnostics}"));
            }
            for part in &case.diagnostics.errors {
                if !diagnostics.0.iter().any(|one| one.is_error() && one.to_string().contains(part.as_str())) {
                    wrong.push(format!("no error `{part}` in:\n{diagnostics}"));
                }
            }
            diagnostics.0
        }
    };
    for part in &case.diagnostics.contains {
        if !said.iter().any(|one| one.to_string().contains(part.as_str())) {
            wrong.push(format!("nothing says `{part}`: {said:?}"));
        }
    }
    if case.diagnostics.contains.is_empty() && case.diagnostics.errors.is_empty() && !said.is_empty() {
        wrong.push(format!("said without need: {}", said[0]));
    }
    wrong
}

/// A configure script that prints what it got changes nothing: every value survives the way to JSON and back.
fn round_trip(loaded: &Loaded, image: &Image) -> Vec<String> {
    let mut blank = image.clone();
    for sourced in blank.values.values_mut() {
        sourced.value = Value::None;
    }
    let answer = loaded.image_json(image);
    let back = apply_answer(loaded, &blank, &answer, Path::new("/script")).expect("the answer is valid");
    // The tools tree is shown as the path of its output; the scope of others is another image.
    let hidden = |name: &str| name.starts_with("ToolsTree") || name == "Include";
    let differing = image.values.keys().filter(|name| !hidden(name) && image.get(name) != back.get(name));
    differing
        .map(|name| format!("{}.{name}: {:?} and back {:?}", image.name, image.get(name), back.get(name)))
        .collect()
}

#[test]
fn configure_scripts_change_settings_and_nothing_else() {
    let input = LoadInput {
        directory: None,
        options: Vec::new(),
        images: Vec::new(),
        environment: BTreeMap::new(),
        host: HostFacts::new(Some("debian"), Some("trixie"), Architecture::X86_64),
        resources: None,
    };
    let loaded = load(&input).expect("nothing is configured");
    let answer = |change: Json| {
        let mut answer = loaded.image_json(&loaded.images[0]);
        for (name, value) in change.as_object().expect("an object") {
            answer[name] = value.clone();
        }
        apply_answer(&loaded, &loaded.images[0], &answer, Path::new("/configure"))
    };
    let image = answer(serde_json::json!({ "Packages": ["a"], "Hostname": "box" })).expect("valid");
    assert_eq!(image.texts("Packages"), ["a"]);
    assert_eq!(image.values["Packages"].origin.to_string(), "/configure");
    assert_eq!(image.values["Release"], loaded.images[0].values["Release"]);
    for wrong in [serde_json::json!({ "Pakages": ["a"] }), serde_json::json!({ "Packages": "a" })] {
        assert!(answer(wrong).is_err());
    }
    assert!(apply_answer(&loaded, &loaded.images[0], &Json::Null, Path::new("/configure")).is_err());
}

#[test]
fn every_case() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config");
    let mut directories: Vec<PathBuf> = cases
        .read_dir()
        .expect("tests/config")
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect();
    directories.sort();
    assert!(directories.len() >= 25, "{directories:?}");
    let wrong: Vec<String> = directories
        .iter()
        .flat_map(|directory| {
            let name = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            check(directory).into_iter().map(move |what| format!("{name}: {what}"))
        })
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
