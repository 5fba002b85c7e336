//! Loads a project: the main image, the images of `mkosi.images/`, the tools tree, and their order.
//!
//! Prints nothing; what is found wrong is in the answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::assignments::with_details;
use super::context::{Context, Shared, assign, in_order};
use super::diagnostic::{Diagnostic, Diagnostics};
use super::host::HostFacts;
use super::image::Image;
use super::loader::{Extras, sorted_entries};
use super::read::Reader;
use super::table::{self, Scope};
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
    /// By image: the kernel modules that `default` stands for in lists of them, where one has it.
    pub default_modules: BTreeMap<String, Vec<Value>>,
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
pub fn project_directory(directory: Option<&Path>) -> Option<PathBuf> {
    let directory = directory?;
    let here = |name: &str| directory.join(name).exists();
    let apart = !here("mkosi.conf")
        && !here("mkosi.tools.conf")
        && (directory.join("mkosi/mkosi.conf").is_file() || here("mkosi/mkosi.tools.conf"));
    Some(if apart { directory.join("mkosi") } else { directory.to_owned() })
}

/// The name of the default initrd among the images.
pub const DEFAULT_INITRD: &str = "default-initrd";

pub(super) struct Loader<'a> {
    pub shared: &'a Shared<'a>,
    pub project: Option<PathBuf>,
}

/// An image with what it depends on, before the order is known.
pub(super) struct Candidate {
    pub image: Image,
    pub dependencies: Vec<String>,
    pub files: Vec<PathBuf>,
}

impl Loader<'_> {
    fn load(&self) -> Option<Loaded> {
        let input = self.shared.input;
        let here = self.project.clone().unwrap_or_default();
        if let Some(directory) = &input.directory
            && !directory.is_dir()
        {
            let what = match directory.metadata() {
                Ok(_) => "this is no directory; -C takes the one that the configuration lies in".to_owned(),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => "the directory does not exist".to_owned(),
                Err(error) => format!("can't enter the directory: {error}"),
            };
            self.shared.report(Diagnostic::error(what).in_file(directory));
            return None;
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
        // In a `mkosi box` the tools tree's programs are at hand already.
        let value = input.environment.get("MKOSI_IN_BOX").map(String::as_str);
        let boxed = matches!(value, Some("1" | "yes" | "true" | "on"));
        if let Some(tree) = values.get_mut("ToolsTree").filter(|_| boxed) {
            tree.value = Value::None;
        }
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
            // The main configuration of old was no image: its settings went to each image, which has them now. What counts
            // for all images counts for it too: where the store is, and which repositories there are.
            let mut bare = Context::new(self.shared, "main");
            for setting in table::SETTINGS.iter().filter(|setting| setting.stores == setting.name) {
                let common = matches!(setting.scope, Scope::Universal | Scope::Multiversal)
                    || setting.name == "History"
                    || explicit && setting.name == "Dependencies";
                if let Some(sourced) = values.get(setting.name).filter(|sourced| common && sourced.value != Value::None)
                {
                    assign(&mut bare.cli, setting.name, Some(sourced.value.clone()), sourced.origin.clone());
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

    pub(super) fn candidate(&self, name: &str, values: BTreeMap<&'static str, Sourced>) -> Candidate {
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
            let reader = Reader { keep_removals: true, ..main.reader(&option.directory) };
            let old = main.cli.get(setting.stores).and_then(|slot| slot.value.clone());
            let result = reader.add(setting.kind, &option.text, old);
            for note in self.shared.notes.take() {
                let message = format!("{}: {}", option.option, note.message);
                self.shared.report(with_details(Diagnostic::warning(message), note));
            }
            match result {
                Ok(value) => {
                    let spelled = if option.option.starts_with("--") || option.text.is_empty() {
                        format!("{}={}", option.option, option.text)
                    } else {
                        format!("{} {}", option.option, option.text)
                    };
                    let value = value.map(|value| in_order(setting, &value).into_owned());
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
}

/// What relative paths in a file are seen from: the project for `mkosi.images/x.conf`, as for a drop-in.
fn directory_of(path: &Path) -> PathBuf {
    if path.is_dir() {
        return path.to_owned();
    }
    path.parent().and_then(Path::parent).unwrap_or(path).to_owned()
}
