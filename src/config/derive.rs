//! What the main image hands down to other images, and the images that are made from its settings alone: the default
//! tools tree and the default initrd.
//!
//! Knows nothing of the order of images.

use std::collections::{BTreeMap, BTreeSet};

use super::context::{Context, Layer, Slot, assign};
use super::image::Image;
use super::load::{Candidate, DEFAULT_INITRD, Loader};
use super::loader::Extras;
use super::table::{self, SETTINGS, Scope};
use super::value::{Origin, Sourced, Value};

impl Loader<'_> {
    /// Gives an image what the main image hands down.
    pub(super) fn inherit(
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

    pub(super) fn pass_environment(&self, context: &mut Context<'_>, values: &BTreeMap<&'static str, Sourced>) {
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
    pub(super) fn tools(&self, main: &Context<'_>, values: &BTreeMap<&'static str, Sourced>) -> Option<Candidate> {
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
    pub(super) fn initrd(&self, main: &Context<'_>, values: &BTreeMap<&'static str, Sourced>) -> Option<Candidate> {
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

    /// The kernel modules that `default` stands for in an image's lists of them: those of the default initrd for the
    /// same distribution and architecture. Nothing where no list has it.
    pub(super) fn default_modules(&self, image: &Image) -> Option<Vec<Value>> {
        let wanted = ["KernelModules", "KernelInitrdModules"].iter().any(|list| image.texts(list).contains(&"default"));
        let resources = self.shared.input.resources.as_ref().filter(|_| wanted)?;
        let mut context = Context::new(self.shared, DEFAULT_INITRD);
        for name in ["Distribution", "Release", "Architecture"] {
            if let (Some(setting), Some(sourced)) = (table::find(name), image.values.get(name)) {
                assign(&mut context.cli, setting.name, Some(sourced.value.clone()), sourced.origin.clone());
            }
        }
        let path = resources.join("mkosi-initrd");
        context.load(&path, &path, Extras::default());
        Some(context.value("KernelModules").items().to_vec())
    }

    /// Reads the project's own file for the tools tree or initrd, and the built-in configuration.
    pub(super) fn derived(&self, mut context: Context<'_>, file: &str, builtin: &str) -> Candidate {
        if let Some(project) = &self.project {
            let path = project.join(file);
            if path.exists() {
                context.load(&path, project, Extras { profiles: path.is_dir(), local: path.is_dir() });
            }
        }
        if let Some(resources) = &self.shared.input.resources {
            let path = resources.join(builtin);
            // What a project may not set in these images, we may: the tools tree has files of its own in `mkosi.extra/`.
            context.unscoped = true;
            context.load(&path, &path, Extras { profiles: true, local: false });
        }
        let files = std::mem::take(&mut context.files);
        Candidate { files, ..self.candidate(&context.image, context.finish()) }
    }

    /// Gives an image the settings that the main image has for it under names with a prefix: in the layer that they
    /// stand in there.
    pub(super) fn derive(
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
}
