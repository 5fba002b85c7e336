//! What `SplitArtifacts=` puts beside the image of a kernel: the unified kernel image, the kernel, the initrd, the
//! measurements, the os-release file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::kernel::{modules, modules_of};
use super::keys;
use super::uki::initrds;
use crate::boot::kernels::kernels;
use crate::boot::look::{Look, OS_RELEASE};
use crate::boot::names;
use crate::boot::pe::{self, Program, identify};
use crate::boot::wanted::Wishes;
use crate::config::compare_versions;
use crate::sandbox::Mount;
use crate::stage::{Context, Outputs, StageError};
use crate::store::{Artifact, Layer, MergedTree};
use crate::types::Digest;

/// What is split off of an image that no stage makes bootable: its kernel can still be started by others.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let merged = cx.merged();
    // An extension's os-release would be that of the system below it.
    let own = cx.view.test("Format!=sysext,confext") && cx.view.test("!Overlay");
    let wanted: Vec<_> =
        cx.view.texts("SplitArtifacts").into_iter().filter(|name| own || *name != "os-release").collect();
    let files = of_tree(cx, &wanted, &Look::new(&merged), None)?;
    Ok(Outputs::from([("files".to_owned(), Artifact::Files { files })]))
}

/// The artifacts of the finished tree, named by what follows the output's name. `pcrs` is ukify's account of the
/// measurements.
pub fn split(
    cx: &Context<'_>,
    wishes: &Wishes,
    layers: Vec<Layer>,
    pcrs: Option<PathBuf>,
) -> Result<Artifact, StageError> {
    let wanted = cx.view.texts("SplitArtifacts");
    let merged = MergedTree::new(&layers);
    let look = Look::new(&merged);
    let uki = unified_image(cx, wishes, &look)?;
    if let Some(uki) = &uki {
        keys::check_measured(cx, uki)?;
    }
    let mut files = of_tree(cx, &wanted, &look, uki.as_deref())?;
    if let Some(path) = pcrs.filter(|_| wanted.contains(&"pcrs")) {
        files.insert(".pcrs".to_owned(), account(cx, &path)?);
    }
    Ok(Artifact::Files { files })
}

/// Those that are files of the tree, or of the unified image of its newest kernel.
fn of_tree(
    cx: &Context<'_>,
    wanted: &[&str],
    look: &Look<'_>,
    uki: Option<&Path>,
) -> Result<BTreeMap<String, Digest>, StageError> {
    let mut files = BTreeMap::new();
    let mut add = |name: &str, digest: Digest| files.insert(name.to_owned(), digest);
    if let Some(path) = uki.filter(|_| wanted.contains(&"uki")) {
        add(".efi", copy(cx, path)?);
    }
    let found = kernels(look).map_err(StageError::other)?;
    if wanted.contains(&"kernel") {
        // That in the unified image is signed.
        match (uki, found.first().and_then(|kernel| look.file(&kernel.image))) {
            (Some(uki), _) => drop(section(cx, uki, ".linux")?.map(|digest| add(".vmlinuz", digest))),
            (None, Some(image)) => drop(add(".vmlinuz", copy(cx, &image)?)),
            (None, None) => {}
        }
    }
    if wanted.contains(&"initrd") {
        let mut mounts = Vec::new();
        let mut parts = initrds(cx, &mut mounts)?.into_iter().map(|(_, path)| path).collect::<Vec<_>>();
        match (uki, found.first()) {
            _ if parts.is_empty() => {}
            (Some(uki), _) => drop(section(cx, uki, ".initrd")?.map(|digest| add(".initrd", digest))),
            (None, Some(kernel)) => {
                parts.extend(modules_of(&modules(cx, &mut mounts)?, &kernel.version));
                add(".initrd", join(cx, &mounts, &parts)?);
            }
            (None, None) => {}
        }
    }
    if wanted.contains(&"os-release") {
        let path = [OS_RELEASE, "etc/os-release"].iter().find_map(|path| look.file(path));
        if let Some(path) = path {
            add(".osrelease", copy(cx, &path)?);
        }
    }
    Ok(files)
}

/// The unified kernel image that the firmware or the boot loader starts first.
fn unified_image(cx: &Context<'_>, wishes: &Wishes, look: &Look<'_>) -> Result<Option<PathBuf>, StageError> {
    if !wishes.efi().map_err(StageError::other)? || wishes.unified == "none" {
        return Ok(None);
    }
    let distribution = cx.view.text("Distribution").unwrap_or_default();
    let first = [names::boot_binary(wishes.architecture), names::second_stage(wishes.architecture, distribution)];
    for path in first.into_iter().flatten() {
        if let Some(file) = look.file(&path)
            && identify(&file).map_err(StageError::other)? == Program::Uki
        {
            return Ok(Some(file));
        }
    }
    let mut images = look.glob("boot/EFI/Linux/*.efi");
    images.sort_by(|a, b| compare_versions(b, a));
    Ok(images.iter().find_map(|path| look.file(path)))
}

fn copy(cx: &Context<'_>, path: &Path) -> Result<Digest, StageError> {
    let to = cx.work.join("artifact");
    std::fs::copy(path, &to).map_err(StageError::io("copy to the store", path))?;
    Ok(cx.store.add_file(&to)?)
}

/// ukify's account of the measurements. It prints the room for the signature as well, as spaces.
pub fn account(cx: &Context<'_>, path: &Path) -> Result<Digest, StageError> {
    let text = std::fs::read(path).map_err(StageError::io("read", path))?;
    Ok(cx.store.add_bytes(text.trim_ascii_end())?)
}

fn section(cx: &Context<'_>, image: &Path, name: &str) -> Result<Option<Digest>, StageError> {
    match pe::section(image, name).map_err(StageError::other)? {
        Some(bytes) => Ok(Some(cx.store.add_bytes(&bytes)?)),
        None => Ok(None),
    }
}

/// The initrds in one file. The kernel wants each to begin at a multiple of four bytes.
fn join(cx: &Context<'_>, mounts: &[Mount], parts: &[String]) -> Result<Digest, StageError> {
    use std::io::Write;
    let to = cx.work.join("artifact");
    let failed = StageError::io("write", &to);
    let write = || -> std::io::Result<()> {
        let mut out = std::io::BufWriter::new(std::fs::File::create(&to)?);
        for part in parts {
            let source = mounts.iter().find_map(|mount| match mount {
                Mount::Bind { source, target, .. } if target == Path::new(part) => Some(source),
                _ => None,
            });
            let Some(source) = source else { continue };
            let size = std::io::copy(&mut std::fs::File::open(source)?, &mut out)?;
            let padding = usize::try_from((4 - size % 4) % 4).unwrap_or(0);
            out.write_all([0; 4].get(..padding).unwrap_or_default())?;
        }
        out.flush()
    };
    write().map_err(failed)?;
    Ok(cx.store.add_file(&to)?)
}
