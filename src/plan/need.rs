//! What a declaration's texts about other stages and settings mean: needs and conditions.

use super::{Condition, PlanError, StageDecl};
use crate::config::Image;

/// An output of another stage that a stage needs: `stage.output`, or `stage.output if CONDITION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The stage.
    pub stage: String,
    /// Its output.
    pub output: String,
    /// What must hold of the image; nothing for always.
    pub condition: Option<Condition>,
}

impl Need {
    fn parse(stage: &str, text: &str) -> Result<Self, PlanError> {
        let (name, condition) = match text.split_once(" if ") {
            Some((name, condition)) => (name.trim(), Some(condition.trim())),
            None => (text.trim(), None),
        };
        let condition = condition.map(Condition::parse).transpose().map_err(|message| PlanError::Condition {
            stage: stage.to_owned(),
            condition: text.to_owned(),
            message,
        })?;
        let (need, output) = name.split_once('.').unwrap_or((name, "tree"));
        Ok(Self { stage: need.to_owned(), output: output.to_owned(), condition })
    }

    /// The tree of a stage.
    pub(super) fn tree(stage: &str) -> Self {
        Self { stage: stage.to_owned(), output: "tree".to_owned(), condition: None }
    }

    /// Whether an image's stage has this need.
    pub fn holds(&self, image: &Image) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.holds(image))
    }

    /// `stage.output`.
    pub fn name(&self) -> String {
        format!("{}.{}", self.stage, self.output)
    }
}

/// What was read of a declaration's texts.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// Conditions that must all hold.
    pub when: Vec<Condition>,
    /// Conditions whose outcome the stage may ask for.
    pub tests: Vec<Condition>,
    /// Conditions under which what is read of the sources is noted.
    pub traced: Vec<Condition>,
    /// Conditions under which commands get loop devices.
    pub loop_devices: Vec<Condition>,
    /// The stage whose tree it works on.
    pub tree: Option<Need>,
    /// Outputs of other stages that enter the key.
    pub needs: Vec<Need>,
    /// Outputs of other stages that don't.
    pub unkeyed_needs: Vec<Need>,
    /// Outputs of stages of the images that this one depends on.
    pub dependency_needs: Vec<Need>,
}

impl Parsed {
    pub(super) fn new(stage: &str, decl: &StageDecl) -> Result<Self, PlanError> {
        let condition = |text: &String| {
            Condition::parse(text).map_err(|message| PlanError::Condition {
                stage: stage.to_owned(),
                condition: text.clone(),
                message,
            })
        };
        let need = |text: &String| Need::parse(stage, text);
        Ok(Self {
            when: decl.when.iter().map(condition).collect::<Result<_, _>>()?,
            tests: decl.tests.iter().map(condition).collect::<Result<_, _>>()?,
            traced: decl.sandbox.traced.iter().map(condition).collect::<Result<_, _>>()?,
            loop_devices: decl.sandbox.loop_devices.iter().map(condition).collect::<Result<_, _>>()?,
            tree: decl.tree.as_ref().map(need).transpose()?,
            needs: decl.needs.iter().map(need).collect::<Result<_, _>>()?,
            unkeyed_needs: decl.unkeyed_needs.iter().map(need).collect::<Result<_, _>>()?,
            dependency_needs: decl.dependency_needs.iter().map(need).collect::<Result<_, _>>()?,
        })
    }

    /// Every need, that of the tree first.
    pub(super) fn all_needs(&self) -> impl Iterator<Item = &Need> {
        self.tree.iter().chain(&self.needs).chain(&self.unkeyed_needs).chain(&self.dependency_needs)
    }

    /// Every condition.
    pub(super) fn conditions(&self) -> impl Iterator<Item = &Condition> {
        let needs = self.all_needs().filter_map(|need| need.condition.as_ref());
        self.when.iter().chain(&self.tests).chain(&self.traced).chain(&self.loop_devices).chain(needs)
    }
}
