//! Outputs made of the finished tree: archives, the manifest, checksums.
//!
//! The files of an output are named by what follows the output's name (`.tar.zst`, `.manifest`), so that a build
//! under another name finds them in the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::{Context, Outputs, StageError};
use crate::config::View;
use crate::output::archive::{ArchiveOptions, write_cpio, write_tar};
use crate::output::manifest::{ImageInfo, extension_fields, installed_debs, manifest as manifest_json};
use crate::output::{Compression, Compressor, checksum};
use crate::store::{Artifact, Layer, MergedTree};
use crate::types::Digest;

/// Writes the tree as a tar archive.
pub fn tar(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    // Beside an image of another format it has a name of its own.
    let suffix = if cx.view.test("Format=tar") { extension(cx.view) } else { ".tar".to_owned() };
    archive(cx, &suffix, |tree, options, out| write_tar(tree, options, out).map(drop))
}

/// Writes the tree as a cpio archive.
pub fn cpio(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    archive(cx, &extension(cx.view), |tree, options, out| write_cpio(tree, options, out).map(drop))
}

type Writer = fn(&MergedTree, &ArchiveOptions, &mut dyn Write) -> crate::output::Result<()>;

/// Writes the stage's tree as a compressed archive to a file in the work directory.
///
/// # Errors
/// When the tree does not fit into the format, or the file can't be written.
pub fn archive_file(cx: &Context<'_>, write: Writer) -> Result<(PathBuf, Compression), StageError> {
    let path = cx.work.join("archive");
    let file = File::create(&path).map_err(StageError::io("make", &path))?;
    let (compression, mut out) = compressed(cx, &path, BufWriter::with_capacity(1 << 20, file))?;
    let mut layers = cx.layers.clone();
    if let Some(Artifact::Tree { layers: tabs }) = cx.needs.get("partitions.tabs") {
        for digest in tabs {
            layers.push(cx.store.need_layer(digest)?);
        }
    }
    let tree = image_tree(cx.view, &layers, &cx.needs);
    write(&tree, &archive_options(cx), &mut out).map_err(StageError::other)?;
    let mut out = out.finish().map_err(StageError::io("compress to", &path))?;
    out.flush().map_err(StageError::io("write", &path))?;
    Ok((path, compression))
}

/// A compressor to `out`, as the settings want it; `path` is where that goes, for errors.
///
/// # Errors
/// When there is no such compression or level.
pub fn compressed<W: Write>(cx: &Context<'_>, path: &Path, out: W) -> Result<(Compression, Compressor<W>), StageError> {
    let compression: Compression =
        cx.view.text("CompressOutput").unwrap_or("none").parse().map_err(StageError::other)?;
    let level = cx.view.get("CompressLevel").as_number().and_then(|level| u32::try_from(level).ok());
    let out = Compressor::new(compression, level, None, out).map_err(StageError::io("compress to", path))?;
    Ok((compression, out))
}

/// How an archive of an image is made.
pub fn archive_options(cx: &Context<'_>) -> ArchiveOptions {
    ArchiveOptions { epoch: cx.view.get("SourceDateEpoch").as_number(), skip_runtime: true }
}

fn archive(cx: &mut Context<'_>, suffix: &str, write: Writer) -> Result<Outputs, StageError> {
    let (path, compression) = archive_file(cx, write)?;
    let digest = cx.store.add_file(&path)?;
    let name = match compression.extension() {
        Some(extension) => format!("{suffix}.{extension}"),
        None => suffix.to_owned(),
    };
    Ok(files([(name, digest)]))
}

/// What follows the output's name in that of the image: `OutputExtension=` with its dot.
pub fn extension(view: &View) -> String {
    match view.text("OutputExtension").unwrap_or_default() {
        "" => String::new(),
        extension => format!(".{extension}"),
    }
}

/// The layers of a tree in two parts: with `Overlay=` those of the base trees, that an output doesn't show, and those that
/// it shows.
pub fn image_layers<'a>(
    view: &View,
    layers: &'a [Layer],
    needs: &BTreeMap<String, Artifact>,
) -> (&'a [Layer], &'a [Layer]) {
    match needs.get("base.lower") {
        Some(Artifact::Tree { layers: lower })
            if view.bool("Overlay")
                && layers.iter().map(|layer| layer.digest).take(lower.len()).eq(lower.iter().copied()) =>
        {
            layers.split_at(lower.len())
        }
        _ => (&[], layers),
    }
}

/// The tree that an output shows: all of it, or with `Overlay=` the difference to the base trees.
pub fn image_tree(view: &View, layers: &[Layer], needs: &BTreeMap<String, Artifact>) -> MergedTree {
    let (base, layers) = image_layers(view, layers, needs);
    MergedTree::difference(base, layers)
}

fn files<const N: usize>(files: [(String, Digest); N]) -> Outputs {
    Outputs::from([("files".to_owned(), Artifact::Files { files: BTreeMap::from(files) })])
}

/// Lists the installed packages.
pub fn manifest(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.merged();
    let packages = installed_debs(&tree).map_err(StageError::other)?;
    let text = |setting: &str| cx.view.text(setting).map(str::to_owned);
    let format = text("Format").unwrap_or_default();
    let output = text("Output").unwrap_or_default();
    let extension = extension_fields(&tree, &format, &output).map_err(StageError::other)?;
    let image = ImageInfo {
        name: text("ImageId"),
        version: text("ImageVersion"),
        distribution: text("Distribution").unwrap_or_default(),
        release: text("Release"),
        architecture: text("Architecture").unwrap_or_default(),
        format,
    };
    let mut made = BTreeMap::new();
    for format in cx.view.texts("ManifestFormat") {
        if format != "json" {
            cx.note(&format!("a manifest in the format `{format}` can't be made"));
            continue;
        }
        let contents = format!("{:#}\n", manifest_json(&image, &packages, &extension));
        made.insert(".manifest".to_owned(), cx.store.add_bytes(contents.as_bytes())?);
    }
    Ok(Outputs::from([("files".to_owned(), Artifact::Files { files: made })]))
}

/// Lists the SHA-256 sums of the output's files, under the names that they are published with.
pub fn checksum(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let mut sums = BTreeMap::new();
    for (name, digest) in named_files(cx.view.text("Output").unwrap_or("image"), &cx.needs) {
        let path = cx.store.need_file(&digest)?;
        sums.insert(name, checksum::sha256_file(&path).map_err(StageError::other)?);
    }
    let digest = cx.store.add_bytes(checksum::sums(&sums).as_bytes())?;
    Ok(files([(".SHA256SUMS".to_owned(), digest)]))
}

/// The files of an image by the names that they are published with. What scripts left in `$OUTPUTDIR` keeps its name;
/// where scripts had a last look at all of it, that is all there is.
pub fn named_files(output: &str, needs: &BTreeMap<String, Artifact>) -> BTreeMap<String, Digest> {
    if let Some(Artifact::Files { files }) = needs.get("postoutput.out") {
        return files.clone();
    }
    let mut named = BTreeMap::new();
    for (need, artifact) in needs {
        if let (Artifact::Files { files }, true) = (artifact, need.ends_with(".files") || need.ends_with(".split")) {
            named.extend(files.iter().map(|(name, digest)| (format!("{output}{name}"), *digest)));
        }
    }
    if let Some(Artifact::Files { files }) = super::script::latest(needs, "out") {
        named.extend(files.iter().map(|(name, digest)| (name.clone(), *digest)));
    }
    named
}
