//! The initrd with the microcode of processors.

use std::collections::BTreeMap;

use super::modules::{archive, entry, file};
use super::{Context, Outputs, StageError};
use crate::boot::microcode::{PLACE, Processor, microcode};
use crate::config::Value;
use crate::output::Compression;
use crate::store::{Artifact, Kind, MergedEntry, MergedTree};

/// Makes an archive of the microcode in the tree, of all processors or of the host's; no file where there is none. The
/// kernel reads it before it can unpack anything.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let value = cx.view.get("MicrocodeHost");
    // What the host's processor is stands there in place of `yes`.
    let processor = value.field("vendor").map(|vendor| processor(value, vendor));
    let found = microcode(&cx.merged(), processor.as_ref()).map_err(StageError::other)?;
    let mut files = BTreeMap::new();
    if found.is_empty() {
        cx.note(match processor {
            None => "the image has no microcode in /usr/lib/firmware/amd-ucode or intel-ucode",
            Some(_) => "the image has no microcode for the host's processor",
        });
    } else {
        let mut entries: Vec<MergedEntry> = PLACE
            .match_indices('/')
            .map(|(at, _)| &PLACE[..at])
            .chain([PLACE])
            .map(|path| MergedEntry {
                entry: entry(path.as_bytes(), Kind::Directory { opaque: false }, 0o755),
                source: std::path::PathBuf::new(),
            })
            .collect();
        for (vendor, bytes) in found {
            let source = cx.work.join(vendor);
            std::fs::write(&source, bytes).map_err(StageError::io("write", &source))?;
            entries.push(file(format!("{PLACE}/{vendor}.bin").as_bytes(), &source)?);
        }
        let epoch = cx.epoch();
        for merged in &mut entries {
            merged.entry.mtime = epoch;
        }
        files.insert("microcode".to_owned(), archive(cx, &MergedTree { entries }, Compression::None)?);
    }
    Ok(Outputs::from([("files".to_owned(), Artifact::Files { files })]))
}

fn processor(value: &Value, vendor: &Value) -> Processor {
    let number = |name| value.field(name).and_then(Value::as_number).and_then(|n| u32::try_from(n).ok());
    Processor {
        vendor: vendor.as_text().unwrap_or_default().to_owned(),
        family: number("family").unwrap_or_default(),
        model: number("model").unwrap_or_default(),
        stepping: number("stepping").unwrap_or_default(),
    }
}
