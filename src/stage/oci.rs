//! An OCI image: one layer of the tree, in a directory that programs for containers read.
//!
//! The files of the output are named by what follows the output's name (`/index.json`), as everywhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};

use super::output::{archive_options, compressed, extension, image_layers};
use super::{Context, Outputs, StageError};
use crate::config::Value;
use crate::output::archive::write_tar;
use crate::output::checksum::Summing;
use crate::output::oci::{Blob, Description, blob_path, documents, layer_tree};
use crate::store::Artifact;

/// The program that the container of an image runs.
const INIT: &str = "/sbin/init";

/// Makes an image layout.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let architecture = cx.view.text("Architecture").unwrap_or_default().parse().map_err(StageError::Other)?;
    let path = cx.work.join("layer");
    let layer = write_layer(cx, &path)?;
    let mut command = vec![INIT.to_owned()];
    command.extend(cx.view.texts("KernelCommandLine").into_iter().map(str::to_owned));
    let description = Description {
        architecture,
        created: cx.epoch(),
        command,
        labels: pairs(cx.view.get("OciLabels")),
        annotations: pairs(cx.view.get("OciAnnotations")),
        name: cx.view.text("ImageId").filter(|name| !name.is_empty()),
        version: cx.view.text("ImageVersion").filter(|version| !version.is_empty()),
    };
    let texts = documents(&layer, &description).map_err(StageError::other)?;
    let directory = extension(cx.view);
    let mut files = BTreeMap::new();
    for (name, text) in texts {
        files.insert(format!("{directory}/{name}"), cx.store.add_bytes(text.as_bytes())?);
    }
    files.insert(format!("{directory}/{}", blob_path(&layer.digest)), cx.store.add_file(&path)?);
    Ok(Outputs::from([("files".to_owned(), Artifact::Files { files })]))
}

/// Writes the tree to the file `path`, which is summed up before and after it is compressed, on the way.
fn write_layer(cx: &Context<'_>, path: &std::path::Path) -> Result<Blob, StageError> {
    let (base, layers) = image_layers(cx.view, &cx.layers, &cx.needs);
    let tree = layer_tree(base, layers).map_err(StageError::other)?;
    let file = File::create(path).map_err(StageError::io("make", path))?;
    let file = Summing::new(BufWriter::with_capacity(1 << 20, file));
    let (compression, out) = compressed(cx, path, file)?;
    let out = write_tar(&tree, &archive_options(cx), Summing::new(out)).map_err(StageError::other)?;
    let (out, diff_id, _) = out.finish();
    let (mut out, digest, size) = out.finish().map_err(StageError::io("compress to", path))?.finish();
    out.flush().map_err(StageError::io("write", path))?;
    Ok(Blob { diff_id, digest, size, compression })
}

fn pairs(value: &Value) -> BTreeMap<String, String> {
    match value {
        Value::Map(map) => {
            map.iter().map(|(name, value)| (name.clone(), value.as_text().unwrap_or_default().to_owned())).collect()
        }
        _ => BTreeMap::new(),
    }
}
