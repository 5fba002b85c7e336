//! Kernels and initrds as files of their own on the boot partition, with an entry of type 1 and a menu entry of GRUB.

use super::kernel::{DIRECTORY, FILE, Plan, modules, modules_of, parent};
use super::uki::{initrds, microcode};
use super::{environment, inside, keys, program};
use crate::boot::devicetrees::devicetrees;
use crate::boot::kernels::Kernel;
use crate::boot::loader::Entry;
use crate::boot::pe::{Program, identify};
use crate::boot::{cmdline, grub};
use crate::sandbox::Mount;
use crate::stage::apply::Step;
use crate::stage::{Context, StageError};

/// Adds the steps for every kernel; with a unified kernel image as the boot loader for the first alone.
pub fn install(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    kernels: &[Kernel],
    mounts: &mut Vec<Mount>,
    steps: &mut Vec<Step>,
) -> Result<(), StageError> {
    let mut own = Vec::new();
    let microcode = microcode(cx, &mut own)?;
    let mut given: Vec<(String, String)> =
        microcode.iter().map(|path| ("microcode.initrd".to_owned(), path.clone())).collect();
    given.extend(initrds(cx, &mut own)?);
    let modules = modules(cx, &mut own)?;
    // Signed ones of the distribution are not signed again.
    let efi = plan.wishes.efi().map_err(StageError::other)?;
    let signer = if efi && !plan.wishes.signed() { keys::secure_boot(cx, &mut own)? } else { None };
    // A second mount of the same file would be in vain.
    own.retain(|mount| !mounts.contains(mount));
    mounts.extend(own);
    let count = if plan.wishes.bare_uki() { 1 } else { kernels.len() };
    for kernel in kernels.iter().take(count) {
        let directory = format!("boot/{}/{}", plan.token, kernel.version);
        steps.push(Step::Directory { path: directory.clone(), mode: DIRECTORY });
        let image = plan.look.resolve(&kernel.image).unwrap_or_else(|| kernel.image.clone());
        let linux = format!("{directory}/vmlinuz");
        let is_efi = plan.look.file(&image).is_some_and(|file| identify(&file).is_ok_and(|kind| kind == Program::Efi));
        match &signer {
            Some(signer) if is_efi => {
                let argv = signer.tool.command(&signer.pair, &inside(&image), &inside(&linux));
                steps.push(program(argv, &environment(cx)));
                steps.push(Step::Mode { path: linux.clone(), mode: FILE });
            }
            _ => steps.push(put(&inside(&image), &linux, plan.epoch)),
        }
        let mut initrds = Vec::new();
        for (name, path) in &given {
            let to = format!("boot/{}/{name}", plan.token);
            steps.push(put(path, &to, plan.epoch));
            initrds.push(to);
        }
        if let Some(path) = modules_of(&modules, &kernel.version) {
            let to = format!("{directory}/kernel-modules.initrd");
            steps.push(put(&path, &to, plan.epoch));
            initrds.push(to);
        }
        let devicetree = devicetree(cx, plan, kernel, &directory, steps)?;
        let entry = Entry {
            token: plan.token.clone(),
            version: kernel.version.clone(),
            linux: below(&linux),
            initrds: initrds.iter().map(|path| below(path)).collect(),
            devicetree: devicetree.as_deref().map(below),
            options: plan.command_line.join(" "),
        };
        let path = entry.path();
        steps.push(Step::Directory { path: parent(&path), mode: DIRECTORY });
        steps.push(Step::Write { path, contents: entry.text().into_bytes(), mode: FILE, keep: false });
        steps.extend(menu_entry(cx, plan, &entry));
    }
    Ok(())
}

/// The one device tree of a kernel, put beside it.
fn devicetree(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    kernel: &Kernel,
    directory: &str,
    steps: &mut Vec<Step>,
) -> Result<Option<String>, StageError> {
    let patterns = cx.view.texts("Devicetrees");
    if patterns.is_empty() {
        return Ok(None);
    }
    let found = devicetrees(plan.look, &kernel.version, &patterns);
    let [only] = found.as_slice() else {
        return Err(StageError::Other(format!(
            "Devicetrees= chooses {} device trees of the kernel {}, and a boot loader entry has room for one: make the \
             pattern match one alone, or use unified kernel images",
            found.len(),
            kernel.version
        )));
    };
    let name = only.rsplit('/').next().unwrap_or_default();
    let to = format!("{directory}/{name}");
    let from = plan.look.resolve(only).unwrap_or_else(|| only.clone());
    steps.push(put(&inside(&from), &to, plan.epoch));
    Ok(Some(to))
}

/// What makes GRUB start the kernel. GRUB reads no partition table, so that the command line says where the root is.
fn menu_entry(cx: &Context<'_>, plan: &Plan<'_>, entry: &Entry) -> Option<Step> {
    let mut platforms = Vec::new();
    if plan.grub_efi && !plan.uki {
        platforms.push("efi");
    }
    if plan.grub_bios {
        platforms.push("pc");
    }
    if platforms.is_empty() {
        return None;
    }
    let said = cx.view.texts("KernelCommandLine");
    let said = said.iter().any(|o| o.starts_with("root=PARTUUID=") || o.starts_with("mount.usr=PARTUUID="));
    let root = cmdline::root(&plan.partitions).filter(|root| !said && !plan.command_line.contains(root));
    let options: Vec<&str> = root.as_deref().into_iter().chain([entry.options.as_str()]).collect();
    let text = grub::linux_entry(entry, &options.join(" "), &platforms);
    Some(Step::Append { path: grub::config_path(&plan.distribution), text, mode: FILE })
}

fn put(from: &str, to: &str, epoch: i64) -> Step {
    Step::Place { from: from.into(), to: to.to_owned(), mode: FILE, epoch }
}

/// A path of the tree as the boot partition has it.
fn below(path: &str) -> String {
    path.strip_prefix("boot").unwrap_or(path).to_owned()
}
