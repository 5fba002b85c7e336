//! What can be wrong with declarations and with the graph made of them.

use std::path::PathBuf;

use crate::output::CompressionError;

/// A graph that can't be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A file under `graphs/` is not what a declaration looks like.
    #[error("graphs/{file}: {message}")]
    Syntax {
        /// The file's name.
        file: String,
        /// What the parser says, with line and column.
        message: String,
    },
    /// Two declarations share a name.
    #[error("graphs/{file}: stage `{stage}` is declared a second time")]
    Duplicate {
        /// The file of the second declaration.
        file: String,
        /// The stage.
        stage: String,
    },
    /// A stage needs one that is not declared.
    #[error("stage `{stage}` needs `{wanted}`, and no stage of that name is declared{}", hint(.nearest))]
    UnknownStage {
        /// The stage that needs.
        stage: String,
        /// The name it used.
        wanted: String,
        /// The nearest declared name.
        nearest: Option<String>,
    },
    /// A stage needs an output that the other does not have.
    #[error("stage `{stage}` needs `{wanted}`, and stage `{of}` has no such output{}", hint(.nearest))]
    UnknownOutput {
        /// The stage that needs.
        stage: String,
        /// The need as written.
        wanted: String,
        /// The stage whose output was named.
        of: String,
        /// The nearest output.
        nearest: Option<String>,
    },
    /// A stage names a setting that is not in the settings table.
    #[error("stage `{stage}` names the setting `{setting}`, which is not in the settings table{}", hint(.nearest))]
    UnknownSetting {
        /// The stage.
        stage: String,
        /// The name it used.
        setting: String,
        /// The nearest setting.
        nearest: Option<String>,
    },
    /// A stage's `files` is not among its `settings`.
    #[error("stage `{stage}` lists `{setting}` in `files` but not in `settings`")]
    FilesNotSettings {
        /// The stage.
        stage: String,
        /// The setting.
        setting: String,
    },
    /// A stage has a `part` that can't be all that it sees.
    #[error(
        "stage `{stage}` has a `part`, so it needs a `tree`, may not have `changes`, and its `sandbox.root` is `none`"
    )]
    Part {
        /// The stage.
        stage: String,
    },
    /// Stages need each other in a circle.
    #[error("stages need each other in a circle: {}", .stages.join(" -> "))]
    Cycle {
        /// The stages of the circle; the first stands at the end again.
        stages: Vec<String>,
    },
    /// Images need each other's outputs in a circle.
    #[error("images need each other's outputs in a circle: {}; take one of these paths out", .images.join(" -> "))]
    ImageCycle {
        /// The images of the circle; the first stands at the end again.
        images: Vec<String>,
    },
    /// A path lies where another image's output goes, and that image makes none.
    #[error(
        "image `{image}`: `{setting}=` names {}, an output of image `{other}`, and no stage makes the output of \
         `Format={format}`", .path.display()
    )]
    NoOutput {
        /// The image.
        image: String,
        /// The setting that names the path.
        setting: String,
        /// The path.
        path: PathBuf,
        /// The image whose output would lie there.
        other: String,
        /// That image's format.
        format: Box<str>,
    },
    /// The default tools tree is wanted, and there is no such image.
    #[error("image `{image}`: `ToolsTree=default` is set, and the image `tools` makes no directory")]
    NoToolsTree {
        /// The image.
        image: String,
    },
    /// A path lies inside another image's output, where it can't be told what will be there.
    #[error(
        "image `{image}`: `{setting}=` names {}, which lies inside the output of image `{other}`; \
         name that output as a whole, or take the part out in a script", .path.display()
    )]
    InsideOutput {
        /// The image.
        image: String,
        /// The setting that names the path.
        setting: String,
        /// The path.
        path: PathBuf,
        /// The image whose output it lies in.
        other: String,
    },
    /// A format or distribution that no stage makes.
    #[error("image `{image}`: `{setting}={value}` ({origin}) can't be built yet; what works is {works}")]
    Unsupported {
        /// The image.
        image: String,
        /// `Format` or `Distribution`.
        setting: &'static str,
        /// What was asked for.
        value: String,
        /// Where.
        origin: String,
        /// The values that can be built.
        works: String,
    },
    /// Packages are asked for, and the distribution has none.
    #[error(
        "image `{image}`: `{setting}=` ({origin}) needs a package manager, and `Distribution=custom` has none; \
         set `Distribution=`, or make the tree of `BaseTrees=`, `SkeletonTrees=` and scripts"
    )]
    NoPackages {
        /// The image.
        image: String,
        /// The setting that asks for packages.
        setting: &'static str,
        /// Where.
        origin: String,
    },
    /// An extension is to get packages, and there is nothing to add them to.
    #[error(
        "image `{image}`: `{setting}=` ({origin}) adds packages to a system, and an extension (`Format={format}`) has none \
         of its own: set `BaseTrees=` to the system that it is for, and `Overlay=yes`"
    )]
    ExtensionPackages {
        /// The image.
        image: String,
        /// The setting that asks for packages.
        setting: &'static str,
        /// The format.
        format: String,
        /// Where.
        origin: String,
    },
    /// A disk is to be made on loop devices, and the user may not use them.
    #[error(
        "image `{image}`: `RepartOffline=no` ({origin}) wants loop devices and mounts, which only root can use: run as \
         root, or leave it at yes (subvolumes work without since systemd 257; XFS then has no extended attributes of \
         files)"
    )]
    LoopDevices {
        /// The image.
        image: String,
        /// Where it was asked for.
        origin: String,
    },
    /// A directory is to belong to ids that the user can't give files to.
    #[error(
        "image `{image}`: `ForeignUIDRange=yes` ({origin}) gives files to the ids 2147352576 to 2147418111, which only root \
         can: run as root, or leave it out"
    )]
    ForeignIds {
        /// The image.
        image: String,
        /// Where it was asked for.
        origin: String,
    },
    /// A difference is asked for, and there can be none.
    #[error("image `{image}`: `Overlay=yes` ({origin}) is the difference to base trees, and {why}")]
    Overlay {
        /// The image.
        image: String,
        /// Where it was asked for.
        origin: String,
        /// What stands against it.
        why: &'static str,
    },
    /// A compression that layers of OCI images can't have.
    #[error(
        "image `{image}`: `CompressOutput=xz` ({origin}) is nothing that programs for OCI images read; set gz, zstd or none"
    )]
    OciCompression {
        /// The image.
        image: String,
        /// Where it was asked for.
        origin: String,
    },
    /// A compression or a level of it that there isn't.
    #[error("image `{image}`: `{setting}=` ({origin}): {why}")]
    Compression {
        /// The image.
        image: String,
        /// The setting.
        setting: &'static str,
        /// Where.
        origin: String,
        /// What is wrong, and what there is.
        why: CompressionError,
    },
    /// A condition that can't be read.
    #[error("stage `{stage}`: condition `{condition}`: {message}")]
    Condition {
        /// The stage.
        stage: String,
        /// The condition as written.
        condition: String,
        /// What is wrong with it.
        message: String,
    },
    /// A host file that is an input of a node can't be hashed.
    #[error("image `{image}`: `{setting}=` names {}, which can't be read: {message}", .path.display())]
    Input {
        /// The image.
        image: String,
        /// The setting that names the file.
        setting: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        message: String,
    },
}

fn hint(nearest: &Option<String>) -> String {
    nearest.as_ref().map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
