//! The stage `boot-parts`: what an image that is itself booted takes from its own tree, before removals take it away.

use std::collections::BTreeMap;
use std::path::Path;

use crate::boot::kernels::kernels;
use crate::boot::look::Look;
use crate::boot::{Error, names};
use crate::stage::{Context, Outputs, StageError};
use crate::store::Artifact;
use crate::types::Digest;

/// The name of the stub among the outputs.
const STUB: &str = "stub";

/// What the name of the kernel among the outputs starts with; its version follows.
const KERNEL: &str = "kernel ";

/// Takes the stub, and for a unified kernel image the newest kernel.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let merged = cx.merged();
    let look = Look::new(&merged);
    let architecture = super::architecture(cx)?;
    let addon = cx.view.test("Format=addon");
    let mut files = BTreeMap::new();
    let kernel = if addon { None } else { kernels(&look).map_err(StageError::other)?.into_iter().next() };
    let demanded = cx.view.test("Format=uki") || cx.view.text("Bootable") == Some("enabled");
    if !addon && kernel.is_none() {
        if demanded {
            return Err(StageError::other(Error::Missing {
                wanted: "the output is to be a unified kernel image, or to hold one".to_owned(),
                missing: "kernel in /usr/lib/modules/VERSION/vmlinuz".to_owned(),
                advice: "add one to Packages= (Debian: linux-image-amd64)".to_owned(),
            }));
        }
        return Ok(outputs(files));
    }
    let path = if addon { names::addon_stub(architecture) } else { names::stub(architecture) };
    let path = path.ok_or_else(|| {
        let what = "a unified kernel image or an addon".to_owned();
        StageError::other(Error::NoEfi { architecture: architecture.name(), what })
    })?;
    let stub = look.file(&path).ok_or_else(|| {
        StageError::other(Error::Missing {
            wanted: "the output is to be an EFI program".to_owned(),
            missing: format!("/{path}"),
            advice: "add systemd's EFI stubs to Packages= (Debian: systemd-boot-efi)".to_owned(),
        })
    })?;
    files.insert(STUB.to_owned(), add(cx, &stub)?);
    if let Some(kernel) = kernel
        && let Some(image) = look.file(&kernel.image)
    {
        files.insert(format!("{KERNEL}{}", kernel.version), add(cx, &image)?);
    }
    Ok(outputs(files))
}

fn outputs(files: BTreeMap<String, Digest>) -> Outputs {
    Outputs::from([("files".to_owned(), Artifact::Files { files })])
}

fn add(cx: &Context<'_>, path: &Path) -> Result<Digest, StageError> {
    let to = cx.work.join("part");
    std::fs::copy(path, &to).map_err(StageError::io("copy to the store", path))?;
    Ok(cx.store.add_file(&to)?)
}

/// The parts that another stage took: the stub, and the kernel's version and image.
pub struct Parts {
    /// The stub.
    pub stub: Digest,
    /// The kernel's version and image.
    pub kernel: Option<(String, Digest)>,
}

impl Parts {
    /// What the stage gave, if it found anything.
    pub fn of(cx: &Context<'_>) -> Option<Self> {
        let Some(Artifact::Files { files }) = cx.needs.get("boot-parts.files") else { return None };
        let kernel = files.iter().find_map(|(name, digest)| Some((name.strip_prefix(KERNEL)?.to_owned(), *digest)));
        Some(Self { stub: *files.get(STUB)?, kernel })
    }
}
