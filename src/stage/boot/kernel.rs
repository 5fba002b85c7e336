//! The stage `kernel`: unified kernel images, or kernels with entries of type 1, below `/boot` and `/efi` of the tree.

use super::artifacts::split;
use super::uki::{Contents, PCRS, Recipe, Ukify, initrds};
use super::{inside, mount_files, results, signing_spec, type1, wishes};
use crate::boot::cmdline::{self, Partition};
use crate::boot::devicetrees::devicetrees;
use crate::boot::kernels::{Kernel, kernels};
use crate::boot::look::Look;
use crate::boot::wanted::Wishes;
use crate::boot::{Error, grub, names};
use crate::sandbox::Mount;
use crate::stage::apply::{Step, apply};
use crate::stage::hwdb::unchanged;
use crate::stage::{Context, Outputs, StageError};
use crate::store::{Artifact, Layer};

/// The mode of directories on boot partitions: FAT has none, so that it is what the mount gives.
pub const DIRECTORY: u32 = 0o700;

/// The mode of files on boot partitions.
pub const FILE: u32 = 0o600;

/// A kernel stage's facts about one tree.
pub struct Plan<'a> {
    /// What is wanted.
    pub wishes: &'a Wishes,
    /// The tree.
    pub look: &'a Look<'a>,
    /// What marks the image's entries.
    pub token: String,
    /// The distribution.
    pub distribution: String,
    /// The partitions of the disk.
    pub partitions: Vec<Partition>,
    /// The command line.
    pub command_line: Vec<String>,
    /// Whether kernels are booted as unified kernel images.
    pub uki: bool,
    /// Whether GRUB starts them on UEFI.
    pub grub_efi: bool,
    /// Whether GRUB starts them on BIOS.
    pub grub_bios: bool,
    /// `UnifiedKernelImageFormat=`.
    pub format: Option<String>,
    /// The times of files, in seconds since 1970.
    pub epoch: i64,
}

/// Puts the kernels of the tree where boot loaders find them.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let merged = cx.merged();
    let look = Look::new(&merged);
    let wishes = wishes(cx)?;
    let found = kernels(&look).map_err(StageError::other)?;
    if found.is_empty() {
        if wishes.demanded() {
            return Err(StageError::other(Error::Missing {
                wanted: "Bootable=yes asks for an image that boots".to_owned(),
                missing: "kernel in /usr/lib/modules/VERSION/vmlinuz".to_owned(),
                advice: "add one to Packages= (Debian: linux-image-amd64), or set Bootable=no".to_owned(),
            }));
        }
        let mut outputs = unchanged(cx);
        outputs.insert("files".to_owned(), split(cx, &wishes, cx.layers.clone(), None)?);
        return Ok(outputs);
    }
    let plan = plan(cx, &wishes, &look)?;
    let tree = cx.open_tree()?;
    let mut spec = signing_spec(cx);
    spec.mounts.push(cx.tree_mount(&tree));
    let out = results(cx, &mut spec)?;
    let mut steps = Vec::new();
    if plan.uki {
        unified(cx, &plan, &found, &mut spec.mounts, &mut steps)?;
    }
    if !plan.uki || plan.grub_bios {
        type1::install(cx, &plan, &found, &mut spec.mounts, &mut steps)?;
    }
    if plan.grub_efi || plan.grub_bios {
        steps.splice(0..0, grub_config(&plan));
    }
    apply(cx, spec, &steps)?;
    let mut outputs = cx.close_tree(tree)?;
    let layers = layers_of(cx, &outputs)?;
    let pcrs = out.join(PCRS.rsplit('/').next().unwrap_or(PCRS));
    outputs.insert("files".to_owned(), split(cx, &wishes, layers, pcrs.exists().then_some(pcrs))?);
    Ok(outputs)
}

fn plan<'a>(cx: &Context<'_>, wishes: &'a Wishes, look: &'a Look<'a>) -> Result<Plan<'a>, StageError> {
    let partitions = partitions(cx)?;
    let of_image = cmdline::of_image(look).map_err(StageError::other)?;
    let options = cx.view.texts("KernelCommandLine");
    let distribution = cx.view.text("Distribution").unwrap_or_default().to_owned();
    Ok(Plan {
        token: names::entry_token(look, &distribution).map_err(StageError::other)?,
        command_line: cmdline::command_line(of_image, &options, &partitions),
        uki: wishes.uki(look, Ukify::is_there(cx)).map_err(StageError::other)?,
        grub_efi: wishes.grub_efi(look).map_err(StageError::other)?,
        grub_bios: wishes.grub_bios(look).map_err(StageError::other)?,
        format: cx.view.text("UnifiedKernelImageFormat").map(str::to_owned),
        epoch: cx.epoch(),
        wishes,
        look,
        distribution,
        partitions,
    })
}

/// What the first pass over the disk told of its partitions.
fn partitions(cx: &Context<'_>) -> Result<Vec<Partition>, StageError> {
    match cx.needs.get("partitions.facts") {
        Some(Artifact::Value { value }) => {
            let partitions = value.get("partitions").cloned().unwrap_or_default();
            serde_json::from_value(partitions).map_err(StageError::other)
        }
        _ => Ok(Vec::new()),
    }
}

/// The kernel modules for the initrd of a kernel, by the kernel's version.
pub fn modules(cx: &Context<'_>, mounts: &mut Vec<Mount>) -> Result<Vec<(String, String)>, StageError> {
    mount_files(cx, "modules-initrd.files", "/work/modules", mounts)
}

/// The path of the modules of a kernel.
pub fn modules_of(modules: &[(String, String)], version: &str) -> Option<String> {
    modules.iter().find(|(name, _)| name == version).map(|(_, path)| path.clone())
}

fn unified(
    cx: &mut Context<'_>,
    plan: &Plan<'_>,
    kernels: &[Kernel],
    mounts: &mut Vec<Mount>,
    steps: &mut Vec<Step>,
) -> Result<(), StageError> {
    let mut recipe = None;
    let given = initrds(cx, mounts)?;
    let modules = modules(cx, mounts)?;
    for kernel in kernels {
        let path = place(plan, &kernel.version)?;
        steps.push(Step::Directory { path: parent(&path), mode: DIRECTORY });
        if plan.wishes.prebuilt_uki() {
            let pattern = format!("usr/lib/modules/{}/*.efi", kernel.version);
            match plan.look.glob(&pattern).into_iter().find_map(|path| plan.look.resolve(&path)) {
                Some(from) => steps.push(Step::Place {
                    from: inside(&from).into(),
                    to: path.clone(),
                    mode: FILE,
                    epoch: plan.epoch,
                }),
                None if plan.wishes.demanded() => return Err(no_prebuilt(&kernel.version)),
                None => {
                    cx.note(&format!("the image has no {pattern}: the kernel {} is left out", kernel.version));
                    continue;
                }
            }
        } else {
            let recipe = match &mut recipe {
                Some(recipe) => recipe,
                None => recipe.insert(Recipe::new(cx, plan.look, stub(plan)?, &plan.command_line)?),
            };
            let mut initrds: Vec<String> = given.iter().map(|(_, path)| path.clone()).collect();
            initrds.extend(modules_of(&modules, &kernel.version));
            let trees = devicetrees(plan.look, &kernel.version, &cx.view.texts("Devicetrees"));
            let image = plan.look.resolve(&kernel.image).unwrap_or_else(|| kernel.image.clone());
            let contents = Contents { version: &kernel.version, image: inside(&image), initrds, output: inside(&path) };
            let trees = trees.iter().filter_map(|path| plan.look.resolve(path)).map(|path| inside(&path)).collect();
            recipe.add(contents, trees)?;
            steps.append(&mut recipe.steps);
            steps.push(Step::Mode { path: path.clone(), mode: FILE });
        }
        if plan.grub_efi {
            let name = path.rsplit('/').next().unwrap_or_default().trim_end_matches(".efi").to_owned();
            let below = path.trim_start_matches("boot").trim_start_matches("efi").to_owned();
            let text = grub::chain_entry(&name, &below);
            steps.push(Step::Append { path: grub::config_path(&plan.distribution), text, mode: FILE });
        }
        if plan.wishes.bare_uki() {
            break;
        }
    }
    mounts.extend(recipe.map(|recipe| recipe.mounts).unwrap_or_default());
    Ok(())
}

/// Where the image of a kernel goes in the tree.
fn place(plan: &Plan<'_>, version: &str) -> Result<String, StageError> {
    let hash = cmdline::roothash(&plan.partitions).map(|(_, hash)| hash);
    let name = checked(names::image_name(plan.format.as_deref(), &plan.token, version, hash))?;
    image_path(plan.wishes, &plan.distribution, &name)
}

/// The path in the tree of a unified kernel image of this name.
pub fn image_path(wishes: &Wishes, distribution: &str, name: &str) -> Result<String, StageError> {
    if !wishes.bare_uki() {
        return Ok(format!("boot/EFI/Linux/{name}.efi"));
    }
    let path = match wishes.shim() {
        true => names::second_stage(wishes.architecture, distribution),
        false => names::boot_binary(wishes.architecture),
    };
    path.ok_or_else(|| {
        let what = format!("Bootloader={}", wishes.bootloader);
        StageError::other(Error::NoEfi { architecture: wishes.architecture.name(), what })
    })
}

/// A name that can be that of a file.
pub fn checked(name: String) -> Result<String, StageError> {
    if name.is_empty() || name.contains('/') {
        return Err(StageError::Other(format!(
            "UnifiedKernelImageFormat= gives `{name}`, which can't be a file's name; docs/boot.md has its specifiers"
        )));
    }
    Ok(name)
}

/// The layers of the tree among a stage's outputs.
pub fn layers_of(cx: &Context<'_>, outputs: &Outputs) -> Result<Vec<Layer>, StageError> {
    match outputs.get("tree") {
        Some(Artifact::Tree { layers }) => {
            Ok(layers.iter().map(|digest| cx.store.need_layer(digest)).collect::<Result<_, _>>()?)
        }
        _ => Ok(Vec::new()),
    }
}

/// The stub's path on the host and in the sandbox.
fn stub(plan: &Plan<'_>) -> Result<(std::path::PathBuf, String), StageError> {
    let path = names::stub(plan.wishes.architecture).unwrap_or_default();
    match (plan.look.file(&path), plan.look.resolve(&path)) {
        (Some(file), Some(resolved)) => Ok((file, inside(&resolved))),
        _ => Err(StageError::other(Error::Missing {
            wanted: "a unified kernel image is wanted".to_owned(),
            missing: format!("/{path}"),
            advice: "add systemd's EFI stub to Packages= (Debian: systemd-boot-efi), or set UnifiedKernelImages=none"
                .to_owned(),
        })),
    }
}

fn no_prebuilt(version: &str) -> StageError {
    StageError::other(Error::Missing {
        wanted: "a unified kernel image that the distribution has signed is wanted".to_owned(),
        missing: format!("/usr/lib/modules/{version}/*.efi"),
        advice: "add the package that has it, or set UnifiedKernelImages=none to boot the kernel that it has signed \
                 (unsigned builds an image that a signed shim refuses)"
            .to_owned(),
    })
}

/// The beginning of GRUB's configuration, where the user has none, and the one that leads to it.
fn grub_config(plan: &Plan<'_>) -> Vec<Step> {
    let path = grub::config_path(&plan.distribution);
    let mut steps = vec![Step::Directory { path: parent(&path), mode: DIRECTORY }];
    let contents = grub::HEAD.as_bytes().to_vec();
    steps.push(Step::Write { path, contents, mode: FILE, keep: true });
    if plan.grub_efi {
        let (path, text) = grub::early_config(&plan.distribution);
        steps.push(Step::Directory { path: parent(&path), mode: DIRECTORY });
        steps.push(Step::Write { path, contents: text.into_bytes(), mode: FILE, keep: false });
    }
    steps
}

/// The directory of a path.
pub fn parent(path: &str) -> String {
    path.rsplit_once('/').map_or_else(String::new, |(parent, _)| parent.to_owned())
}
