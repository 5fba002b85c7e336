//! The second pass: the partitions that a boot loader reads; then what becomes of the disk as a file.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::Path;

use super::super::{Context, Outputs, StageError};
use super::partitions::{Facts, Layout, deferred, read};
use super::{DISK, Definitions, Pass, disk_file, grub, keys, run as pass, split_definitions, tree, version};
use crate::output::repart::{self, Partition, Reported, root_hash, split_suffix};
use crate::output::{Compression, Compressor};
use crate::rootfs::copy_content;
use crate::store::Artifact;
use crate::types::Digest;

type Files = BTreeMap<String, Digest>;

/// Finishes the disk.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let layout: Layout = read(cx, "partitions.layout")?;
    let facts: Facts = read(cx, "partitions.facts")?;
    let first = match cx.needs.get("partitions.disk") {
        Some(Artifact::Files { files }) => files.values().next().copied(),
        _ => None,
    };
    let first = first.ok_or_else(|| StageError::Other("there is no disk of the first pass".to_owned()))?;
    let source = cx.store.need_file(&first)?;
    let catalog = el_torito(cx, &facts.partitions)?;
    let split = cx.view.test("SplitArtifacts=partitions");
    let mut files = Files::new();
    let directory = cx.scratch("disk")?;
    let disk = disk_file(&directory);
    let size = source.metadata().map_err(StageError::io("look at", &source))?.len();
    let grown = cx.view.get("OutputSize").as_number().and_then(|size| u64::try_from(size).ok());
    if let Some(wanted) = grown.filter(|wanted| *wanted <= size) {
        cx.note(&format!(
            "OutputSize={wanted} is no larger than the disk is already ({size} bytes): it stays as it is"
        ));
    }
    let fills = layout.deferred || !catalog.is_empty();
    if fills || split || grown.is_some_and(|wanted| wanted > size) {
        copy(&source, &disk)?;
    }
    if fills || split {
        let definitions = match layout.definitions.is_empty() {
            true => Definitions::of_project(cx)?,
            false => Definitions::of_texts(&layout.definitions),
        };
        tree::restrict(cx);
        let run = |cx: &mut Context<'_>, about, more| {
            let root = tree::read_only(cx)?;
            let defer = deferred(cx, &[]);
            let (seed, epoch) = (layout.seed.as_str(), layout.epoch);
            let directory = directory.as_path();
            let definitions = &definitions;
            let exclude = Vec::new();
            pass(cx, Pass { about, root, definitions, directory, seed, epoch, defer, exclude, more, signs: true })
        };
        if fills {
            run(cx, "filling the boot partitions", catalog)?;
            grub::install(cx, &directory, &facts.partitions)?;
        }
        if split {
            let report = run(cx, "splitting off the partitions", vec!["--split=yes".to_owned()])?;
            files.extend(split_off(cx, &directory, &report, &deferred(cx, &[]))?);
        }
    }
    if let Some(wanted) = grown.filter(|wanted| *wanted > size) {
        let file = OpenOptions::new().write(true).open(&disk).map_err(StageError::io("open", &disk))?;
        file.set_len(wanted).map_err(StageError::io("grow", &disk))?;
    }
    let made = if disk.exists() { disk } else { source };
    let known = (made != disk_file(&directory)).then_some(first);
    files.extend([packed(cx, &super::super::output::extension(cx.view), &made, known)?]);
    files.extend(hash_file(cx, &facts.partitions)?);
    files.extend(split_definitions(cx, &layout.definitions)?);
    Ok(Outputs::from([("files".to_owned(), Artifact::Files { files })]))
}

/// A copy by shared extents, or of what is not a hole.
fn copy(from: &Path, to: &Path) -> Result<(), StageError> {
    let input = File::open(from).map_err(StageError::io("open", from))?;
    let output = File::create(to).map_err(StageError::io("make", to))?;
    copy_content(&input, &output).map_err(StageError::io("write the copy", to))?;
    Ok(())
}

/// A file by its name in the output directory, compressed as `CompressOutput=` says. `known` is its digest if the store
/// has it.
pub fn packed(
    cx: &Context<'_>,
    suffix: &str,
    path: &Path,
    known: Option<Digest>,
) -> Result<(String, Digest), StageError> {
    let compression: Compression =
        cx.view.text("CompressOutput").unwrap_or("none").parse().map_err(StageError::other)?;
    let Some(extension) = compression.extension() else {
        let digest = match known {
            Some(digest) => digest,
            None => cx.store.add_file(path)?,
        };
        return Ok((suffix.to_owned(), digest));
    };
    let level = cx.view.get("CompressLevel").as_number().and_then(|level| u32::try_from(level).ok());
    let to = cx.work.join("compressed");
    let file = File::create(&to).map_err(StageError::io("make", &to))?;
    let mut out = Compressor::new(compression, level, None, BufWriter::with_capacity(1 << 20, file))
        .map_err(StageError::io("compress to", &to))?;
    let mut input = File::open(path).map_err(StageError::io("open", path))?;
    std::io::copy(&mut input, &mut out).map_err(StageError::io("compress to", &to))?;
    out.finish().and_then(|mut out| out.flush()).map_err(StageError::io("compress to", &to))?;
    Ok((format!("{suffix}.{extension}"), cx.store.add_file(&to)?))
}

/// The partitions' files, which lie beside the disk. One of a type that was put off has a name in the report and no file.
pub fn split_off(
    cx: &Context<'_>,
    directory: &Path,
    report: &[Reported],
    put_off: &[String],
) -> Result<Files, StageError> {
    let mut files = Files::new();
    let made = report.iter().filter(|reported| !put_off.contains(&reported.partition.kind));
    for path in made.filter_map(|reported| reported.split.as_ref()) {
        let (Some(name), Some(suffix)) = (path.file_name(), split_suffix(DISK, path)) else {
            return Err(StageError::Other(format!("systemd-repart split a partition off to {}", path.display())));
        };
        files.extend([packed(cx, &suffix, &directory.join(name), None)?]);
    }
    Ok(files)
}

/// The root hash as a file, for signing elsewhere.
pub fn hash_file(cx: &Context<'_>, partitions: &[Partition]) -> Result<Option<(String, Digest)>, StageError> {
    match root_hash(partitions).filter(|_| cx.view.test("SplitArtifacts=roothash")) {
        Some((_, hash)) => Ok(Some((".roothash".to_owned(), cx.store.add_bytes(hash.as_bytes())?))),
        None => Ok(None),
    }
}

/// The options for an El Torito boot catalog, where one is wanted and can be made. GRUB for BIOS would take it for a file
/// system on the bare disk.
fn el_torito(cx: &mut Context<'_>, partitions: &[Partition]) -> Result<Vec<String>, StageError> {
    let wish = cx.view.text("ElTorito").unwrap_or("auto").to_owned();
    let has = |kind: &str| partitions.iter().any(|partition| partition.kind == kind);
    let version = version(cx)?;
    keys::check(cx, version)?;
    let fit = has("esp") && !has(repart::BIOS_BOOT);
    match wish.as_str() {
        "enabled" if version < repart::EL_TORITO => {
            return Err(StageError::Other(format!(
                "systemd-repart is of version {version}, and ElTorito=yes needs {} or newer: use newer tools with \
                 ToolsTree=, or leave it at ElTorito=auto",
                repart::EL_TORITO
            )));
        }
        "enabled" => {}
        "auto" if fit && version >= repart::EL_TORITO => {}
        _ => return Ok(Vec::new()),
    }
    let mut options = vec!["--el-torito=yes".to_owned()];
    for (option, setting) in [
        ("--el-torito-system", "ElToritoSystem"),
        ("--el-torito-volume", "ElToritoVolume"),
        ("--el-torito-publisher", "ElToritoPublisher"),
    ] {
        options.extend(cx.view.text(setting).map(|text| format!("{option}={text}")));
    }
    Ok(options)
}
