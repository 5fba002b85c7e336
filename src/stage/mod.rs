//! The code of the stages: one file per kind, each a function from a [`Context`] to named outputs.
//!
//! A stage knows what its context holds and nothing else: not the graph, not other images, not whether it is cached.

pub mod apply;
mod beside;
mod boot;
mod configure;
mod context;
mod debian;
mod derived;
mod disk;
mod error;
mod extension_release;
mod extra;
mod hwdb;
mod microcode;
mod modules;
mod oci;
mod output;
pub mod publish;
mod remove;
pub mod script;
mod seed;
mod selinux;
mod shell;
pub mod sign;
mod tokens;
mod tools;

use std::collections::BTreeMap;

pub use context::{Context, Profile, Root, Source, Tree, in_order};
pub use error::StageError;
pub use shell::{Left, shell};
pub use tools::{Tools, find_tool};

use crate::store::Artifact;

/// The outputs of a stage by name.
pub type Outputs = BTreeMap<String, Artifact>;

/// The code of a stage.
pub type StageFn = fn(&mut Context<'_>) -> Result<Outputs, StageError>;

/// Every stage's code by the name of its declaration. A test holds the two lists equal.
pub const STAGES: &[(&str, StageFn)] = &[
    ("sandbox-trees", extra::sandbox_trees),
    ("sync-scripts", script::sync),
    ("seed-packages", seed::packages),
    ("seed", seed::tree),
    ("sync", debian::sync),
    ("resolve", debian::resolve),
    ("download", debian::download),
    ("base", debian::base),
    ("packages", debian::packages),
    ("prepare", script::prepare),
    ("hwdb", hwdb::run),
    ("build-packages", debian::build_packages),
    ("resolve-volatile", debian::resolve_volatile),
    ("download-volatile", debian::download_volatile),
    ("volatile-packages", debian::volatile_packages),
    ("prepare-build", script::prepare_build),
    ("build", script::build),
    ("extra", extra::run),
    ("postinst", script::postinst),
    ("extension-release", extension_release::run),
    ("verity-certificate", beside::verity_certificate),
    ("configure", configure::run),
    ("bootloader", boot::bootloader),
    ("modules", modules::image),
    ("microcode", microcode::run),
    ("remove-packages", debian::remove_packages),
    ("remove", remove::run),
    ("finalize", script::finalize),
    ("selinux", selinux::run),
    ("modules-initrd", modules::initrd),
    ("esp-kernel", boot::esp_kernel),
    ("kernel", boot::kernel),
    ("artifacts", boot::artifacts),
    ("boot-parts", boot::parts),
    ("uki", boot::unified),
    ("addon", boot::addon),
    ("partitions", disk::partitions),
    ("disk", disk::disk),
    ("esp", disk::esp),
    ("sysext", disk::extension),
    ("confext", disk::extension),
    ("portable", disk::extension),
    ("nspawn", beside::nspawn),
    ("tar", output::tar),
    ("cpio", output::cpio),
    ("oci", oci::run),
    ("manifest", output::manifest),
    ("checksum", output::checksum),
    ("sign", sign::run),
    ("postoutput", script::postoutput),
    ("publish", publish::run),
];

/// The code of the stage of this name.
pub fn find(name: &str) -> Option<StageFn> {
    STAGES.iter().find(|(stage, _)| *stage == name).map(|(_, run)| *run)
}
