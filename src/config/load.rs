//! Loads a project: the main image, the images of `mkosi.images/`, the tools tree, and their order.
//!
//! Prints nothing; what is found wrong is in the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::context::{Context, Layer, Shared, Slot, assign};
use super::diagnostic::{Diagnostic, Diagnostics};
use super::host::HostFacts;
use super::image::Image;
use super::loader::{Extras, sorted_entries, with_details};
use super::read::Reader;
use super::table::{self, SETTINGS, Scope};
use super::value::{Origin, Sourced, Value};
use crate::types::suggest::nearest;

/// An assignment on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionSetting {
    /// The setting's name.
    pub setting: String,
    /// The text of the value.
    pub text: String,
    /// The option as it was spelled, for messages.
    pub option: String,
    /// The directory that relative paths in it are seen from.
    pub directory: PathBuf,
}

/// What a configuration is loaded from.
#[derive(Clone, Debug)]
pub struct LoadInput {
    /// The directory of the project; none to read no files at all.
    pub directory: Option<PathBuf>,
    /// The settings of the command line, in their order.
    pub options: Vec<OptionSetting>,
    /// The images that are asked for; none for the main image and what it depends on.
    pub images: Vec<String>,
    /// The environment of the program.
    pub environment: BTreeMap<String, String>,
    /// The host.
    pub host: HostFacts,
    /// The directory of the built-in configurations that `Include=mkosi-vm` and the like name, if they are installed.
    pub resources: Option<PathBuf>,
}

/// A project that was loaded.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The images, each after those that it depends on, the main image last.
    pub images: Vec<Image>,
    /// The default tools tree, where `ToolsTree=default`.
    pub tools: Option<Image>,
    /// The names of the images that were asked for; the main image where none was.
    pub selected: Vec<String>,
    /// The files that each image's configuration was read from, in their order.
    pub files: BTreeMap<String, Vec<PathBuf>>,
    /// The directory that the configuration lies in.
    pub project: PathBuf,
    /// What may not be meant as it is written.
    pub warnings: Vec<Diagnostic>,
}

impl Loaded {
    /// The image of a name.
    pub fn image(&self, name: &str) -> Option<&Image> {
        self.images.iter().chain(&self.tools).find(|image| image.name == name)
    }
}

/// Loads a project.
///
/// # Errors
/// When a file can't be read or a value isn't accepted: everything that was found, warnings included.
pub fn load(input: &LoadInput) -> Result<Loaded, Diagnostics> {
    let shared = Shared::new(input);
    let loaded = Loader { shared: &shared, project: project_directory(input.directory.as_deref()) }.load();
    let diagnostics = shared.diagnostics.take();
    match loaded {
        Some(loaded) if !diagnostics.has_errors() => Ok(Loaded { warnings: diagnostics.0, ..loaded }),
        _ => Err(diagnostics),
    }
}

/// The directory that the configuration lies in: `mkosi/` where the project keeps it apart from its sources.
fn project_directory(directory: Option<&Path>) -> Option<PathBuf> {
    let directory = directory?;
    let here = |name: &str| directory.join(name).exists();
    let apart = !here("mkosi.conf")
        && !here("mkosi.tools.conf")
        && (directory.join("mkosi/mkosi.conf").is_file() || here("mkosi/mkosi.tools.conf"));
    Some(if apart { directory.join("mkosi") } else { directory.to_owned() })
}

/// The name of the default initrd among the images.
const DEFAULT_INITRD: &str = "default-initrd";

struct Loader<'a> {
    shared: &'a Shared<'a>,
    project: Option<PathBuf>,
}

/// An image with what it depends on, before the order is known.
struct Candidate {
    image: Image,
    dependencies: Vec<String>,
    files: Vec<PathBuf>,
}

impl Loader<'_> {
    fn load(&self) -> Option<Loaded> {
        let input = self.shared.input;
        let here = self.project.clone().unwrap_or_default();
        if let Some(directory) = &input.directory {
            if !directory.is_dir() {
                self.shared.report(Diagnostic::error("the directory does not exist").in_file(directory));
                return None;
            }
        }
        let mut main = Context::new(self.shared, "main");
        self.options(&mut main);
        let included = main.cli.get("Include").and_then(|slot| slot.value.clone()).unwrap_or(Value::None);
        main.load_includes(included.items(), &here, None);
        main.files.clear();
        if let Some(project) = &self.project {
            main.load(project, project, Extras { profiles: true, local: true });
        }
        let mut values = main.finish();
        let tools = self.tools(&main, &values);
        if let Some(tree) = values.get_mut("ToolsTree") {
            match tree.value.as_text() {
                Some("no") => tree.value = Value::None,
                Some("yes") => tree.value = Value::text("default"),
                _ => {}
            }
        }

        let presets = self.presets_directory();
        let explicit = main.cli.contains_key("Dependencies") || main.config.contains_key("Dependencies");
        let subimages = self.subimages(&main, &values, presets.as_deref());
        if presets.is_some() {
            // The main configuration of old was no image: its settings went to each image, which has them now.
            let mut bare = Context::new(self.shared, "main");
            for name in ["Distribution", "Release", "Architecture", "OutputDirectory", "Dependencies"] {
                if let (Some(sourced), Some(setting)) = (values.get(name), table::find(name)) {
                    if explicit || name != "Dependencies" {
                        assign(&mut bare.cli, setting.name, Some(sourced.value.clone()), sourced.origin.clone());
                    }
                }
            }
            assign(&mut bare.cli, "Format", Some(Value::text("none")), Origin::Default);
            values = bare.finish();
        }
        if !explicit {
            let names = subimages.iter().map(|candidate| Value::text(candidate.image.name.as_str()));
            let value = Value::List(names.collect());
            values.insert("Dependencies", Sourced { value, origin: Origin::Default });
        }
        let initrd = self.initrd(&main, &values);
        let main = Candidate { files: main.files, ..self.candidate("main", values) };
        self.order(main, subimages, initrd, tools)
    }

    fn candidate(&self, name: &str, values: BTreeMap<&'static str, Sourced>) -> Candidate {
        let image = Image { name: name.to_owned(), project: self.project.clone().unwrap_or_default(), values };
        let dependencies = image.texts("Dependencies").into_iter().map(str::to_owned).collect();
        Candidate { image, dependencies, files: Vec::new() }
    }

    fn options(&self, main: &mut Context<'_>) {
        let input = self.shared.input;
        for option in &input.options {
            let Some(setting) = table::find(&option.setting) else {
                let error = Diagnostic::error(format!("{}: there is no setting `{}`", option.option, option.setting));
                self.shared.report(error.nearest(nearest(&option.setting, table::names())));
                continue;
            };
            let reader = Reader { directory: &option.directory, environment: &input.environment, keep_removals: true };
            let old = main.cli.get(setting.stores).and_then(|slot| slot.value.clone());
            match reader.read(setting.kind, &option.text, old.as_ref()) {
                Ok(value) => {
                    let spelled = if option.option.starts_with("--") || option.text.is_empty() {
                        format!("{}={}", option.option, option.text)
                    } else {
                        format!("{} {}", option.option, option.text)
                    };
                    assign(&mut main.cli, setting.stores, value, Origin::Option(spelled));
                }
                Err(refusal) => {
                    let message = format!("{}: {}", option.option, refusal.message);
                    self.shared.report(with_details(Diagnostic::error(message), refusal));
                }
            }
        }
    }

    fn presets_directory(&self) -> Option<PathBuf> {
        let project = self.project.as_deref()?;
        let presets = project.join("mkosi.presets");
        if !presets.is_dir() || project.join("mkosi.images").exists() {
            return None;
        }
        self.shared.report(
            Diagnostic::warning("the directory mkosi.presets/ is called mkosi.images/ now")
                .in_file(&presets)
                .hint("rename it, and take the numbers off its entries: Dependencies= orders the images"),
        );
        Some(presets)
    }

    fn subimages(
        &self,
        main: &Context<'_>,
        values: &BTreeMap<&'static str, Sourced>,
        presets: Option<&Path>,
    ) -> Vec<Candidate> {
        let Some(project) = &self.project else { return Vec::new() };
        let directory = presets.map_or_else(|| project.join("mkosi.images"), Path::to_owned);
        let mut candidates: Vec<Candidate> = Vec::new();
        for path in sorted_entries(&directory) {
            let file = path.extension().is_some_and(|extension| extension == "conf");
            if !path.is_dir() && !file {
                continue;
            }
            let Some(name) = path.file_name().map(|name| name.to_string_lossy().into_owned()) else { continue };
            let name = name.strip_suffix(".conf").unwrap_or(&name).to_owned();
            let name = match presets {
                Some(_) => name.trim_start_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned(),
                None => name,
            };
            if name.is_empty() || matches!(name.as_str(), "main" | "tools" | DEFAULT_INITRD) {
                let message = format!("`{name}` can't be the name of an image");
                self.shared.report(Diagnostic::error(message).in_file(&path));
                continue;
            }
            if candidates.iter().any(|other| other.image.name == name) {
                let message = format!("there are two images of the name `{name}`");
                self.shared.report(Diagnostic::error(message).in_file(&path));
                continue;
            }
            let mut context = Context::new(self.shared, &name);
            self.inherit(&mut context, main, values, presets.is_some());
            if context.load(&path, &directory_of(&path), Extras { profiles: path.is_dir(), local: true }) {
                let files = std::mem::take(&mut context.files);
                candidates.push(Candidate { files, ..self.candidate(&name, context.finish()) });
            }
        }
        candidates
    }

    /// Gives an image what the main image hands down.
    fn inherit(
        &self,
        context: &mut Context<'_>,
        main: &Context<'_>,
        values: &BTreeMap<&'static str, Sourced>,
        presets: bool,
    ) {
        if presets {
            context.unscoped = true;
            context.cli = main.cli.clone();
            context.config = main.config.clone();
            for layer in [&mut context.cli, &mut context.config] {
                layer.remove("Dependencies");
                layer.remove("Include");
            }
            return;
        }
        for setting in SETTINGS.iter().filter(|setting| setting.stores == setting.name) {
            let Some(sourced) = values.get(setting.name) else { continue };
            let slot = || Slot { value: Some(sourced.value.clone()), reset: false, origin: sourced.origin.clone() };
            match setting.scope {
                // Also what is not set counts, so that the image can't set it behind the main image's back.
                Scope::Universal | Scope::Multiversal if sourced.value == Value::None => {
                    context.cli.insert(setting.name, Slot { value: None, reset: true, origin: sourced.origin.clone() });
                }
                Scope::Universal | Scope::Multiversal => {
                    context.cli.insert(setting.name, slot());
                }
                Scope::Inherit if sourced.value != Value::None => {
                    context.config.insert(setting.name, slot());
                }
                _ => {}
            }
        }
        self.pass_environment(context, values);
    }

    fn pass_environment(&self, context: &mut Context<'_>, values: &BTreeMap<&'static str, Sourced>) {
        let (Some(environment), Some(passed)) = (values.get("Environment"), values.get("PassEnvironment")) else {
            return;
        };
        let passed: BTreeSet<&str> = passed.value.items().iter().filter_map(Value::as_text).collect();
        if let Value::Map(map) = &environment.value {
            let map: BTreeMap<String, Value> = map
                .iter()
                .filter(|(name, _)| passed.contains(name.as_str()))
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect();
            if !map.is_empty() {
                assign(&mut context.config, "Environment", Some(Value::Map(map)), environment.origin.clone());
            }
        }
    }

    /// The default tools tree as an image of its own.
    fn tools(&self, main: &Context<'_>, values: &BTreeMap<&'static str, Sourced>) -> Option<Candidate> {
        let wanted = values.get("ToolsTree").and_then(|sourced| sourced.value.as_text());
        if !matches!(wanted, Some("default" | "yes")) {
            return None;
        }
        let mut context = Context::new(self.shared, "tools");
        self.derive(&mut context, main, values, Scope::Tools, "ToolsTree");
        for setting in SETTINGS.iter().filter(|setting| setting.scope == Scope::Multiversal) {
            if let Some(sourced) = values.get(setting.name) {
                let value = Some(sourced.value.clone()).filter(|value| *value != Value::None);
                context.cli.insert(setting.name, Slot { value, reset: false, origin: sourced.origin.clone() });
            }
        }
        assign(&mut context.cli, "Format", Some(Value::text("directory")), Origin::Default);
        self.pass_environment(&mut context, values);
        Some(self.derived(context, "mkosi.tools.conf", "mkosi-tools"))
    }

    /// The default initrd as an image of its own, which images with `default` among their `Initrds=` depend on. There
    /// is none without the built-in configuration that says what is in it.
    fn initrd(&self, main: &Context<'_>, values: &BTreeMap<&'static str, Sourced>) -> Option<Candidate> {
        self.shared.input.resources.as_ref()?;
        let mut context = Context::new(self.shared, DEFAULT_INITRD);
        self.inherit(&mut context, main, values, false);
        for setting in SETTINGS.iter().filter(|setting| setting.scope == Scope::InitrdInherit) {
            if let Some(sourced) = values.get(setting.name).filter(|sourced| sourced.value != Value::None) {
                assign(&mut context.config, setting.name, Some(sourced.value.clone()), sourced.origin.clone());
            }
        }
        self.derive(&mut context, main, values, Scope::Initrd, "Initrd");
        Some(self.derived(context, "mkosi.initrd.conf", "mkosi-initrd"))
    }

    /// Reads the project's own file for the tools tree or initrd, and the built-in configuration.
    fn derived(&self, mut context: Context<'_>, file: &str, builtin: &str) -> Candidate {
        if let Some(project) = &self.project {
            let path = project.join(file);
            if path.exists() {
                context.load(&path, project, Extras { profiles: path.is_dir(), local: path.is_dir() });
            }
        }
        if let Some(resources) = &self.shared.input.resources {
            let path = resources.join(builtin);
            context.load(&path, &path, Extras { profiles: true, local: false });
        }
        let files = std::mem::take(&mut context.files);
        Candidate { files, ..self.candidate(&context.image, context.finish()) }
    }

    /// Gives an image the settings that the main image has for it under names with a prefix: in the layer that they
    /// stand in there.
    fn derive(
        &self,
        context: &mut Context<'_>,
        main: &Context<'_>,
        values: &BTreeMap<&'static str, Sourced>,
        scope: Scope,
        prefix: &str,
    ) {
        for setting in SETTINGS.iter().filter(|setting| setting.scope == scope) {
            let target = setting.name.strip_prefix(prefix).and_then(table::find);
            let (Some(target), Some(sourced)) = (target, values.get(setting.name)) else { continue };
            let layer: &mut Layer = if main.cli.contains_key(setting.name) {
                &mut context.cli
            } else if main.config.contains_key(setting.name) {
                &mut context.config
            } else {
                &mut context.defaults
            };
            let reset = main.cli.get(setting.name).is_some_and(|slot| slot.reset);
            let value = Some(sourced.value.clone()).filter(|value| *value != Value::None);
            layer.insert(target.name, Slot { value, reset, origin: sourced.origin.clone() });
        }
    }

    /// The images that are wanted, each after those that it depends on.
    fn order(
        &self,
        mut main: Candidate,
        mut subimages: Vec<Candidate>,
        initrd: Option<Candidate>,
        tools: Option<Candidate>,
    ) -> Option<Loaded> {
        let wants = |candidate: &Candidate| candidate.image.texts("Initrds").contains(&"default");
        if let Some(initrd) = initrd.filter(|_| wants(&main) || subimages.iter().any(wants)) {
            for candidate in subimages.iter_mut().chain([&mut main]).filter(|candidate| wants(candidate)) {
                candidate.dependencies.push(initrd.image.name.clone());
                if let Some(Sourced { value: Value::List(names), .. }) = candidate.image.values.get_mut("Dependencies")
                {
                    names.push(Value::text(DEFAULT_INITRD));
                }
            }
            subimages.push(initrd);
        }
        let names: Vec<String> = subimages.iter().map(|candidate| candidate.image.name.clone()).collect();
        let all: BTreeMap<&str, &Candidate> =
            subimages.iter().chain([&main]).map(|candidate| (candidate.image.name.as_str(), candidate)).collect();
        let known = |name: &str| all.contains_key(name);
        let unknown = |name: &str, what: String| {
            let error = Diagnostic::error(what).nearest(nearest(name, all.keys().copied()));
            if names.is_empty() {
                error.hint("mkosi.images/ has no images that match")
            } else {
                error.accepting(names.join(", "))
            }
        };
        let mut failed = false;
        for candidate in all.values() {
            for dependency in candidate.dependencies.iter().filter(|name| !known(name) || *name == "main") {
                let what =
                    format!("the image `{}` depends on `{dependency}`, which does not exist", candidate.image.name);
                let mut error = unknown(dependency, what);
                if let Some(Sourced { origin: Origin::File { path, line, column }, .. }) =
                    candidate.image.values.get("Dependencies")
                {
                    error = error.at(self.place(path, *line, *column, dependency));
                }
                self.shared.report(error);
                failed = true;
            }
        }
        let asked = &self.shared.input.images;
        for name in asked.iter().filter(|name| !known(name)) {
            self.shared.report(unknown(name, format!("there is no image `{name}`")));
            failed = true;
        }
        if failed {
            return None;
        }
        let mut wanted: Vec<&str> = Vec::new();
        for root in main.dependencies.iter().chain(asked.iter().filter(|name| *name != "main")) {
            if let Err(cycle) = visit(root, &all, &mut wanted, &mut Vec::new()) {
                self.shared.report(
                    Diagnostic::error(format!("images depend on each other in a circle: {}", cycle.join(" -> ")))
                        .hint("take one of these out of Dependencies="),
                );
                return None;
            }
        }
        let order: Vec<String> = levels(&subimages, &wanted).into_iter().chain(["main".to_owned()]).collect();
        let mut candidates: BTreeMap<String, Candidate> =
            subimages.into_iter().chain([main]).map(|candidate| (candidate.image.name.clone(), candidate)).collect();
        let mut files = BTreeMap::new();
        let tools = tools.map(|tools| {
            files.insert(tools.image.name.clone(), tools.files);
            tools.image
        });
        let mut loaded = Loaded {
            images: Vec::new(),
            tools,
            selected: if asked.is_empty() { vec!["main".to_owned()] } else { asked.clone() },
            files,
            project: self.project.clone().unwrap_or_default(),
            warnings: Vec::new(),
        };
        for name in order {
            if let Some(candidate) = candidates.remove(&name) {
                loaded.files.insert(name, candidate.files);
                loaded.images.push(candidate.image);
            }
        }
        Some(loaded)
    }

    fn place(&self, path: &Path, line: usize, column: usize, token: &str) -> super::diagnostic::Place {
        let mut place = super::diagnostic::Place { line, column, ..super::diagnostic::Place::file(path) };
        if let Some(file) = self.shared.file(path) {
            // The name may stand on a later line of the value than the assignment.
            let lines = file.source.iter().enumerate().skip(line.saturating_sub(1));
            if let Some((index, at)) =
                lines.into_iter().find_map(|(index, text)| text.find(token).map(|at| (index, at)))
            {
                let source = file.source.get(index).cloned().unwrap_or_default();
                place.line = index + 1;
                place.column = source.get(..at).map_or(1, |before| before.chars().count() + 1);
                place.length = token.chars().count();
                place.source = Some(source);
            }
        }
        place
    }
}

/// Finds everything that `name` depends on, and circles.
fn visit<'a>(
    name: &'a str,
    all: &BTreeMap<&'a str, &'a Candidate>,
    found: &mut Vec<&'a str>,
    path: &mut Vec<String>,
) -> Result<(), Vec<String>> {
    if let Some(start) = path.iter().position(|above| above == name) {
        let mut cycle: Vec<String> = path.iter().skip(start).cloned().collect();
        cycle.push(name.to_owned());
        return Err(cycle);
    }
    if found.contains(&name) {
        return Ok(());
    }
    let Some((name, candidate)) = all.get_key_value(name) else { return Ok(()) };
    path.push((*name).to_owned());
    for dependency in &candidate.dependencies {
        visit(dependency, all, found, path)?;
    }
    path.pop();
    found.push(name);
    Ok(())
}

/// The wanted images in rounds: first those that depend on nothing, then those that these were the last ones missing
/// for, and so on. Within a round the order is that of the images.
fn levels(images: &[Candidate], wanted: &[&str]) -> Vec<String> {
    let mut left: Vec<&Candidate> =
        images.iter().filter(|candidate| wanted.contains(&candidate.image.name.as_str())).collect();
    let mut order: Vec<String> = Vec::new();
    while !left.is_empty() {
        let (ready, rest): (Vec<&Candidate>, Vec<&Candidate>) =
            left.iter().partition(|candidate| candidate.dependencies.iter().all(|name| order.contains(name)));
        if ready.is_empty() {
            break;
        }
        order.extend(ready.into_iter().map(|candidate| candidate.image.name.clone()));
        left = rest;
    }
    order
}

/// What relative paths in a file are seen from: the project for `mkosi.images/x.conf`, as for a drop-in.
fn directory_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    path.parent().and_then(Path::parent).unwrap_or(path).to_owned()
}
