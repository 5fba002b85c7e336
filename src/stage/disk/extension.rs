//! Formats that are one disk each, made in one pass of definitions that the format has: extensions, portable services,
//! and an EFI system partition alone.

use std::collections::BTreeMap;

use super::super::{Context, Outputs, StageError};
use super::image::{hash_file, packed, split_off};
use super::partitions::deferred;
use super::{Definitions, Pass, disk_file, keys, run as pass, seed, signature_types, split_definitions, tree, version};
use crate::output::repart::{Partition, esp_definition, extension_definitions};
use crate::store::{Artifact, Kind, MergedTree};
use crate::types::Architecture;

/// Makes a system extension, a configuration extension or a portable service image; the stage has the format's name.
pub fn extension(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let version = version(cx)?;
    keys::check(cx, version)?;
    tree::restrict(cx);
    let verity = match cx.view.text("Verity").unwrap_or("auto") {
        "disabled" => false,
        "auto" => keys::given(cx),
        _ => true,
    };
    let texts = extension_definitions(cx.stage, verity);
    let (defer, mut exclude) = (deferred(cx, &[]), Vec::new());
    if cx.view.text("Verity") == Some("hash") {
        exclude = signature_types(cx.view.text("Architecture").unwrap_or_default());
    }
    let mut more = Vec::new();
    if cx.view.test("SplitArtifacts=partitions") {
        more.push("--split=yes".to_owned());
    }
    one(cx, "making the image", texts, defer, exclude, more)
}

/// Makes a disk of an EFI system partition alone, with what the tree has in `/boot` and `/efi`.
pub fn esp(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    version(cx)?;
    let architecture = cx.view.text("Architecture").unwrap_or_default();
    if architecture.parse().ok().and_then(Architecture::efi).is_none() {
        return Err(StageError::Other(format!("there is no UEFI on {architecture}, so that Format=esp can't be made")));
    }
    tree::restrict(cx);
    let sector = cx.view.get("SectorSize").as_number().and_then(|size| u64::try_from(size).ok());
    let texts = esp_definition(size(&cx.merged(), &["boot", "efi"]), sector);
    one(cx, "making the EFI system partition", texts, Vec::new(), Vec::new(), Vec::new())
}

/// What the files below some directories take, each in whole blocks.
fn size(tree: &MergedTree, directories: &[&str]) -> u64 {
    const BLOCK: u64 = 4096;
    let files = directories.iter().flat_map(|directory| tree.below(directory.as_bytes()));
    let sizes = files.map(|merged| match merged.entry.kind {
        Kind::File { size, .. } => size.div_ceil(BLOCK) * BLOCK,
        _ => 0,
    });
    sizes.sum()
}

fn one(
    cx: &mut Context<'_>,
    about: &'static str,
    texts: BTreeMap<String, String>,
    defer: Vec<String>,
    exclude: Vec<String>,
    more: Vec<String>,
) -> Result<Outputs, StageError> {
    let directory = cx.scratch("disk")?;
    let (seed, epoch) = (seed(cx), tree::epoch(cx, &cx.merged()));
    let root = tree::read_only(cx)?;
    let report = pass(
        cx,
        Pass {
            about,
            root,
            definitions: &Definitions::of_texts(&texts),
            directory: &directory,
            seed: &seed,
            epoch,
            defer: defer.clone(),
            exclude,
            more,
            // The one partition has nothing to sign.
            signs: cx.stage != "esp",
        },
    )?;
    let mut files = split_off(cx, &directory, &report, &defer)?;
    let partitions: Vec<Partition> = report.into_iter().map(|reported| reported.partition).collect();
    let suffix = super::super::output::extension(cx.view);
    // Firmware reads an EFI system partition as it is.
    let image = match cx.stage {
        "esp" => (suffix, cx.store.add_file(&disk_file(&directory))?),
        _ => packed(cx, &suffix, &disk_file(&directory), None)?,
    };
    files.extend([image]);
    files.extend(hash_file(cx, &partitions)?);
    files.extend(split_definitions(cx, &texts)?);
    Ok(Outputs::from([("files".to_owned(), Artifact::Files { files })]))
}
