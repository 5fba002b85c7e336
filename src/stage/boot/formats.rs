//! Outputs that are EFI programs: the stages `uki` and `addon`, whose tree becomes an initrd, and the unified kernel
//! image in an EFI partition.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::parts::Parts;
use super::uki::{Contents, PCRS, Recipe};
use super::{file_mount, kernel, keys, wishes};
use crate::boot::devicetrees::devicetrees;
use crate::boot::look::{Look, OS_RELEASE};
use crate::boot::names;
use crate::boot::pe;
use crate::output::archive::write_cpio;
use crate::sandbox::{Mount, Spec};
use crate::stage::apply::{Step, apply};
use crate::stage::hwdb::unchanged;
use crate::stage::output::archive_file;
use crate::stage::{Context, Outputs, StageError};
use crate::store::{Artifact, MergedTree};
use crate::types::Digest;

/// Where the stub, the kernel and the tree as an initrd are in the sandbox.
const STUB: &str = "/work/parts/stub";
const LINUX: &str = "/work/parts/linux";
const INITRD: &str = "/work/parts/initrd";

/// Where the program goes in the sandbox.
const OUTPUT: &str = "/work/out/program.efi";

/// Makes a unified kernel image whose initrd is the tree.
pub fn uki(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let parts = Parts::of(cx).filter(|parts| parts.kernel.is_some()).ok_or_else(nothing)?;
    let tree = read_only(cx)?;
    let (spec, out) = sandbox(cx, vec![tree])?;
    program(cx, spec, &parts, true, OUTPUT)?;
    finish(cx, out)
}

/// Makes an addon whose initrd is the tree.
pub fn addon(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let parts = Parts::of(cx).ok_or_else(nothing)?;
    let tree = read_only(cx)?;
    let has_files = !cx.merged().below(b"").is_empty();
    let (spec, out) = sandbox(cx, vec![tree])?;
    program(cx, spec, &parts, has_files, OUTPUT)?;
    finish(cx, out)
}

/// Puts a unified kernel image, whose initrd is the tree, where the firmware or the boot loader of an EFI partition
/// finds it.
pub fn esp(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let wishes = wishes(cx)?;
    let Some(parts) = Parts::of(cx) else {
        let mut outputs = unchanged(cx);
        outputs.insert("files".to_owned(), Artifact::Files { files: BTreeMap::new() });
        return Ok(outputs);
    };
    let merged = cx.merged();
    let look = Look::new(&merged);
    let distribution = cx.view.text("Distribution").unwrap_or_default().to_owned();
    let token = names::entry_token(&look, &distribution).map_err(StageError::other)?;
    let version = parts.kernel.as_ref().map(|(version, _)| version.clone()).unwrap_or_default();
    let format = cx.view.text("UnifiedKernelImageFormat");
    let name = kernel::checked(names::image_name(format, &token, &version, None))?;
    let path = kernel::image_path(&wishes, &distribution, &name)?;
    let tree = cx.open_tree()?;
    let (mut spec, out) = sandbox(cx, vec![cx.tree_mount(&tree)])?;
    // The steps see the tree with the image in it, so its directory is made first.
    let made = Step::Directory { path: kernel::parent(&path), mode: kernel::DIRECTORY };
    let steps = prepare(cx, &mut spec, &parts, true, &super::inside(&path))?;
    let steps: Vec<Step> =
        std::iter::once(made).chain(steps).chain([Step::Mode { path, mode: kernel::FILE }]).collect();
    apply(cx, spec, &steps)?;
    let mut outputs = cx.close_tree(tree)?;
    let layers = kernel::layers_of(cx, &outputs)?;
    let pcrs = Some(out.join("pcrs")).filter(|path| path.exists());
    outputs.insert("files".to_owned(), super::artifacts::split(cx, &wishes, layers, pcrs)?);
    Ok(outputs)
}

fn nothing() -> StageError {
    StageError::Other("the tree gave no stub and no kernel; this is a bug in mkosi, please report it".to_owned())
}

fn read_only(cx: &Context<'_>) -> Result<Mount, StageError> {
    let lowers = crate::store::lower_dirs(&cx.layers);
    Ok(Mount::Overlay { lowers, upper: None, target: crate::stage::context::BUILDROOT.into() })
}

/// A sandbox with these mounts, and the directory on the host that it puts results in.
fn sandbox(cx: &Context<'_>, mounts: Vec<Mount>) -> Result<(Spec, PathBuf), StageError> {
    let mut spec = super::signing_spec(cx);
    spec.mounts.extend(mounts);
    let out = super::results(cx, &mut spec)?;
    Ok((spec, out))
}

fn program(cx: &mut Context<'_>, mut spec: Spec, parts: &Parts, initrd: bool, output: &str) -> Result<(), StageError> {
    let steps = prepare(cx, &mut spec, parts, initrd, output)?;
    apply(cx, spec, &steps)
}

/// The steps that make the program of the parts and the tree.
fn prepare(
    cx: &mut Context<'_>,
    spec: &mut Spec,
    parts: &Parts,
    initrd: bool,
    output: &str,
) -> Result<Vec<Step>, StageError> {
    let stub = cx.store.need_file(&parts.stub)?;
    spec.mounts.push(file_mount(stub.clone(), STUB));
    let mut initrds = Vec::new();
    if initrd {
        let (path, _) = archive_file(cx, |tree, options, out| write_cpio(tree, options, out).map(drop))?;
        spec.mounts.push(file_mount(path, INITRD));
        initrds.push(INITRD.to_owned());
    }
    let merged = cx.merged();
    let words: Vec<String> = cx.view.texts("KernelCommandLine").into_iter().map(str::to_owned).collect();
    let look = Look::new(&merged);
    let mut recipe = match &parts.kernel {
        Some(_) => Recipe::new(cx, &look, (stub, STUB.to_owned()), &words)?,
        None => Recipe::of_addon(cx, STUB.to_owned(), &words)?,
    };
    match &parts.kernel {
        Some((version, image)) => {
            let trees = devicetrees(&look, version, &cx.view.texts("Devicetrees")).into_iter();
            let trees = trees.filter_map(|path| look.resolve(&path)).map(|path| super::inside(&path)).collect();
            spec.mounts.push(file_mount(cx.store.need_file(image)?, LINUX));
            let contents = Contents { version, image: LINUX.to_owned(), initrds, output: output.to_owned() };
            recipe.add(contents, trees)?;
        }
        None => recipe.add_addon(output.to_owned(), initrds)?,
    }
    spec.mounts.append(&mut recipe.mounts);
    Ok(recipe.steps)
}

/// Takes the program and what is split from a unified kernel image into the store.
fn finish(cx: &Context<'_>, out: PathBuf) -> Result<Outputs, StageError> {
    let [program, pcrs] = [OUTPUT, PCRS].map(|path| out.join(path.rsplit('/').next().unwrap_or(path)));
    let mut files = if cx.view.test("Format=uki") { split(cx, &program, &pcrs)? } else { BTreeMap::new() };
    let digest: Digest = cx.store.add_file(&program)?;
    files.insert(format!(".{}", cx.view.text("OutputExtension").unwrap_or("efi")), digest);
    Ok(Outputs::from([("files".to_owned(), Artifact::Files { files })]))
}

fn split(cx: &Context<'_>, program: &Path, pcrs: &Path) -> Result<BTreeMap<String, Digest>, StageError> {
    keys::check_measured(cx, program)?;
    let wanted = cx.view.texts("SplitArtifacts");
    let mut files = BTreeMap::new();
    for (artifact, section, name) in [("kernel", ".linux", ".vmlinuz"), ("initrd", ".initrd", ".initrd")] {
        if wanted.contains(&artifact)
            && let Some(bytes) = pe::section(program, section).map_err(StageError::other)?
        {
            files.insert(name.to_owned(), cx.store.add_bytes(&bytes)?);
        }
    }
    if wanted.contains(&"pcrs") && pcrs.exists() {
        files.insert(".pcrs".to_owned(), super::artifacts::account(cx, pcrs)?);
    }
    if wanted.contains(&"os-release")
        && let Some(path) = Look::new(&MergedTree::new(&cx.layers)).file(OS_RELEASE)
    {
        let bytes = std::fs::read(&path).map_err(StageError::io("read", &path))?;
        files.insert(".osrelease".to_owned(), cx.store.add_bytes(&bytes)?);
    }
    Ok(files)
}
