//! All declarations: reads `graphs/*.toml`, checks that they fit each other, and puts them into an order.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;

use super::decl::{OF_PROGRAMS, SANDBOX_TREES};
use super::need::{Need, Parsed};
use super::{Condition, Network, PlanError, Programs, RootAccess, StageDecl};
use crate::types::suggest::nearest;

/// The stages by name, in an order in which each comes after what it needs.
#[derive(Clone, Debug)]
pub struct Declarations {
    stages: BTreeMap<String, Arc<StageDecl>>,
    order: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    stage: BTreeMap<String, StageDecl>,
}

/// The declarations that are part of the program.
const BUILT_IN: &[(&str, &str)] = &[
    ("packages.toml", include_str!("../../graphs/packages.toml")),
    ("image.toml", include_str!("../../graphs/image.toml")),
    ("disk.toml", include_str!("../../graphs/disk.toml")),
    ("output.toml", include_str!("../../graphs/output.toml")),
];

impl Declarations {
    /// The declarations in `graphs/`, checked against the settings that `known` accepts.
    ///
    /// # Errors
    /// As [`Declarations::parse`].
    pub fn built_in(known: &[&str]) -> Result<Self, PlanError> {
        Self::parse(BUILT_IN, known)
    }

    /// Reads declarations from `(file name, text)` pairs and checks that every name in them means something.
    ///
    /// # Errors
    /// A file that can't be read as declarations, a name that is declared twice, an unknown stage, output or
    /// setting, a condition that can't be read, or a cycle.
    pub fn parse(files: &[(&str, &str)], known: &[&str]) -> Result<Self, PlanError> {
        let mut stages: BTreeMap<String, StageDecl> = BTreeMap::new();
        for (name, text) in files {
            let file: File = toml::from_str(text)
                .map_err(|error| PlanError::Syntax { file: (*name).to_owned(), message: error.to_string() })?;
            for (stage, decl) in file.stage {
                if stages.insert(stage.clone(), decl).is_some() {
                    return Err(PlanError::Duplicate { file: (*name).to_owned(), stage });
                }
            }
        }
        let trees = stages.contains_key(SANDBOX_TREES);
        for (name, decl) in &mut stages {
            check_settings(name, decl, known)?;
            if trees && !decl.parsed.needs.iter().any(|need| need.stage == SANDBOX_TREES) {
                match decl.programs() {
                    Programs::None => {}
                    Programs::Unkeyed => decl.parsed.unkeyed_needs.push(Need::tree(SANDBOX_TREES)),
                    Programs::Keyed => decl.parsed.needs.push(Need::tree(SANDBOX_TREES)),
                }
            }
        }
        for (name, decl) in &stages {
            check_part(name, decl)?;
            check_needs(name, decl, &stages)?;
        }
        let order = order(&stages)?;
        Ok(Self { stages: stages.into_iter().map(|(name, decl)| (name, Arc::new(decl))).collect(), order })
    }

    /// A stage by name.
    pub fn get(&self, stage: &str) -> Option<&Arc<StageDecl>> {
        self.stages.get(stage)
    }

    /// Every stage, each after what it needs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Arc<StageDecl>)> {
        self.order.iter().filter_map(|name| self.stages.get_key_value(name).map(|(name, decl)| (name.as_str(), decl)))
    }

    /// Every setting that some stage declares.
    pub fn claimed_settings(&self) -> std::collections::BTreeSet<&str> {
        let conditions = self.stages.values().flat_map(|d| d.parsed.conditions().flat_map(Condition::settings));
        let programs = self.stages.values().any(|d| d.programs() != Programs::None);
        let of_programs = OF_PROGRAMS.iter().copied().filter(|_| programs);
        self.stages.values().flat_map(|d| d.visible()).chain(conditions).chain(of_programs).collect()
    }
}

fn check_settings(name: &str, decl: &mut StageDecl, known: &[&str]) -> Result<(), PlanError> {
    decl.parsed = Parsed::new(name, decl)?;
    let network = match &decl.sandbox.network {
        Network::Setting(setting) => Some(setting.as_str()),
        Network::No | Network::Yes => None,
    };
    let conditions = decl.parsed.conditions().flat_map(Condition::settings);
    let settings = decl.visible().chain(decl.files.iter().map(String::as_str));
    for setting in settings.chain(conditions).chain(network) {
        if !known.contains(&setting) {
            return Err(PlanError::UnknownSetting {
                stage: name.to_owned(),
                setting: setting.to_owned(),
                nearest: nearest(setting, known.iter().copied()).map(str::to_owned),
            });
        }
    }
    match decl.files.iter().map(String::as_str).chain(network).find(|s| !decl.settings.iter().any(|d| d == s)) {
        Some(setting) => Err(PlanError::FilesNotSettings { stage: name.to_owned(), setting: setting.to_owned() }),
        None => Ok(()),
    }
}

/// A stage whose commands see a tree, or that adds to it, sees all of it.
fn check_part(name: &str, decl: &StageDecl) -> Result<(), PlanError> {
    let alone = decl.tree.is_some() && !decl.changes && decl.sandbox.root == RootAccess::None;
    if decl.part.is_empty() || alone {
        return Ok(());
    }
    Err(PlanError::Part { stage: name.to_owned() })
}

fn check_needs(name: &str, decl: &StageDecl, stages: &BTreeMap<String, StageDecl>) -> Result<(), PlanError> {
    let unknown = |wanted: &str| PlanError::UnknownStage {
        stage: name.to_owned(),
        wanted: wanted.to_owned(),
        nearest: nearest(wanted, stages.keys().map(String::as_str)).map(str::to_owned),
    };
    for need in decl.parsed.all_needs() {
        let other = stages.get(&need.stage).ok_or_else(|| unknown(&need.stage))?;
        // Below a stage that has no tree of its own stands the tree of another.
        let below = decl.parsed.tree.as_ref() == Some(need);
        if !below && !other.all_outputs().contains(&need.output.as_str()) {
            return Err(PlanError::UnknownOutput {
                stage: name.to_owned(),
                wanted: need.name(),
                of: need.stage.clone(),
                nearest: nearest(&need.output, other.all_outputs()).map(str::to_owned),
            });
        }
    }
    Ok(())
}

fn order(stages: &BTreeMap<String, StageDecl>) -> Result<Vec<String>, PlanError> {
    let mut graph = petgraph::graphmap::DiGraphMap::<&str, ()>::new();
    for (name, decl) in stages {
        graph.add_node(name);
        for need in decl.parsed.all_needs() {
            graph.add_edge(need.stage.as_str(), name, ());
        }
    }
    match petgraph::algo::toposort(&graph, None) {
        Ok(order) => Ok(order.into_iter().map(str::to_owned).collect()),
        Err(cycle) => {
            let start = cycle.node_id();
            let ring = petgraph::algo::tarjan_scc(&graph)
                .into_iter()
                .find(|component| component.contains(&start))
                .unwrap_or_else(|| vec![start]);
            let mut ring: Vec<String> = ring.into_iter().map(str::to_owned).collect();
            ring.extend(ring.first().cloned());
            Err(PlanError::Cycle { stages: ring })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["Packages", "Format", "WithNetwork"];

    fn error(text: &str) -> String {
        Declarations::parse(&[("x.toml", text)], KNOWN).unwrap_err().to_string()
    }

    fn stage(name: &str, rest: &str) -> String {
        format!("[stage.{name}]\nabout = \"x\"\nversion = 1\npool = \"cpu\"\nsandbox = {{}}\n{rest}\n")
    }

    #[test]
    fn errors_name_what_is_wrong() {
        insta::assert_snapshot!(
            [
                error(&stage("a", "settings = [\"Pakcages\"]")),
                error(&(stage("pack", "changes = true") + &stage("b", "tree = \"pakc\""))),
                error(&(stage("a", "outputs = [\"files\"]") + &stage("b", "needs = [\"a.filse\"]"))),
                error(&(stage("a", "tree = \"b\"\nchanges = true") + &stage("b", "tree = \"a\"\nchanges = true"))),
                error(&stage("a", "when = [\"Format==\"]\nfiles = [\"Packages\"]")),
                error(&stage("a", "when = [\"?\"]")),
                error(&stage("a", "sandbox2 = 1")),
                error(&stage("a", "changes = true\npart = [\"usr\"]")),
            ]
            .join("\n")
        );
    }

    #[test]
    fn the_order_follows_the_needs() {
        let text = stage("z", "changes = true") + &stage("a", "tree = \"z\"");
        let declarations = Declarations::parse(&[("x.toml", &text)], KNOWN).unwrap();
        let names: Vec<&str> = declarations.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["z", "a"]);
    }
}
