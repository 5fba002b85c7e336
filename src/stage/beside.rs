//! Files that lie beside the image, or in it for those who use it, and are copied as they are.

use std::collections::BTreeMap;

use super::apply::{Step, changed_by};
use super::{Context, Outputs, StageError};
use crate::config::Value;
use crate::store::Artifact;

/// Puts the settings of systemd.nspawn(5) beside the image.
pub fn nspawn(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let mut files = BTreeMap::new();
    for (_, source) in cx.sources_of("NSpawnSettings") {
        if let Some(path) = Context::host_path(source) {
            let text = std::fs::read(path).map_err(StageError::io("read", path))?;
            files.insert(".nspawn".to_owned(), cx.store.add_bytes(&text)?);
        }
    }
    Ok(Outputs::from([("files".to_owned(), Artifact::Files { files })]))
}

/// Puts the certificate of verity's signature where systemd looks for those that it trusts (systemd-dissect(1)): in
/// `/usr/lib/verity.d`, with the suffix `.crt`.
pub fn verity_certificate(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let kept = cx.view.get("VerityCertificateSource").field("type").and_then(Value::as_text).unwrap_or("file");
    let sources = cx.sources_of("VerityCertificate");
    // One that a provider has can't be copied.
    let Some((name, source)) = sources.first().filter(|_| kept == "file") else {
        return Ok(super::hwdb::unchanged(cx));
    };
    let Some(path) = Context::host_path(source) else {
        return Ok(super::hwdb::unchanged(cx));
    };
    let name = name.rsplit('/').next().unwrap_or(name);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    let contents = std::fs::read(path).map_err(StageError::io("read", path))?;
    let path = format!("usr/lib/verity.d/{stem}.crt");
    changed_by(cx, &[Step::Write { path, contents, mode: 0o644, keep: false }])
}
