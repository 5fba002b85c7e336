//! Which images are wanted, and in which order they come.
//!
//! Knows nothing of files and of other settings.

use std::collections::BTreeMap;
use std::path::Path;

use super::diagnostic::{Diagnostic, Place};
use super::load::{Candidate, DEFAULT_INITRD, Loaded, Loader};
use super::value::{Origin, Sourced, Value};
use crate::types::suggest::nearest;

impl Loader<'_> {
    /// The images that are wanted, each after those that it depends on.
    pub(super) fn order(
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
        let asked = &self.shared.input.images;
        let mut failed = false;
        for name in asked.iter().filter(|name| !known(name)) {
            self.shared.report(unknown(name, format!("there is no image `{name}`")));
            failed = true;
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
        for candidate in all.values().filter(|one| one.image.name == "main" || wanted.contains(&&*one.image.name)) {
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
        if failed {
            return None;
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
            default_modules: BTreeMap::new(),
            project: self.project.clone().unwrap_or_default(),
            warnings: Vec::new(),
        };
        for name in order {
            if let Some(candidate) = candidates.remove(&name) {
                if let Some(modules) = self.default_modules(&candidate.image) {
                    loaded.default_modules.insert(name.clone(), modules);
                }
                loaded.files.insert(name, candidate.files);
                loaded.images.push(candidate.image);
            }
        }
        Some(loaded)
    }

    fn place(&self, path: &Path, line: usize, column: usize, token: &str) -> Place {
        let mut place = Place { line, column, ..Place::file(path) };
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
