//! The key and certificate that sign the root hash of verity.

use super::super::{Context, StageError, tokens};
use crate::config::Value;
use crate::output::repart;
use crate::sandbox::Spec;

/// A setting, the setting that tells where its file is kept, the options for both, and where a file is seen.
const OPTIONS: [(&str, &str, &str, &str, &str); 2] = [
    ("VerityKey", "VerityKeySource", "--private-key", "--private-key-source", "/work/verity.key"),
    ("VerityCertificate", "VerityCertificateSource", "--certificate", "--certificate-source", "/work/verity.crt"),
];

/// Whether there is something to sign with.
pub fn given(cx: &Context<'_>) -> bool {
    OPTIONS.iter().all(|(setting, ..)| !cx.view.get(setting).is_empty())
}

/// Whether one of them is not a file.
pub fn elsewhere(cx: &Context<'_>) -> bool {
    OPTIONS.iter().any(|(_, source, ..)| kind(cx.view.get(source)) != "file")
}

fn kind(source: &Value) -> &str {
    source.field("type").and_then(Value::as_text).unwrap_or("file")
}

/// Hands over the key and the certificate, if `Verity=` wants signatures and there are both.
pub fn add(cx: &Context<'_>, spec: &mut Spec) -> Result<(), StageError> {
    let verity = cx.view.text("Verity").unwrap_or("auto");
    if !matches!(verity, "auto" | "signed") {
        return Ok(());
    }
    if !given(cx) {
        if verity == "signed" {
            return Err(StageError::Other(
                "Verity=signed needs VerityKey= and VerityCertificate=: run `mkosi genkey` for a pair of them"
                    .to_owned(),
            ));
        }
        return Ok(());
    }
    for (setting, source, option, source_option, target) in OPTIONS {
        let source = cx.view.get(source);
        if kind(source) != "file" {
            let name = source.field("source").and_then(Value::as_text).unwrap_or_default();
            spec.argv.push(format!("{source_option}={}:{name}", kind(source)));
        }
        match cx.sources_of(setting).first() {
            Some((_, file)) => {
                spec.argv.push(format!("{option}={target}"));
                spec.mounts.extend(super::super::extra::source_mount(cx, file, target)?);
            }
            // A name that an engine or provider knows.
            None => spec.argv.push(format!("{option}={}", cx.view.text(setting).unwrap_or_default())),
        }
    }
    if elsewhere(cx) {
        let names = OPTIONS.map(|(setting, ..)| cx.view.text(setting).unwrap_or_default());
        spec.mounts.extend(tokens::mounts(cx, &names));
    }
    Ok(())
}

/// Checks that this version of systemd-repart can use the keys.
pub fn check(cx: &Context<'_>, version: u32) -> Result<(), StageError> {
    if elsewhere(cx) && given(cx) && version < repart::KEY_SOURCES {
        return Err(StageError::Other(format!(
            "systemd-repart is of version {version}, and keys of engines and providers (VerityKeySource=) need {} or \
             newer: set ToolsTree=default",
            repart::KEY_SOURCES
        )));
    }
    Ok(())
}
