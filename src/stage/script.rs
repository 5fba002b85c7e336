//! Scripts of the user: prepare, build, postinst and finalize.
//!
//! They run on the host's tools with the image at `$BUILDROOT`; one with the suffix `.chroot` runs in the image.
//! Each sees its sources at `$SRCDIR`, and what it changes there is thrown away.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::context::BUILDROOT;
use super::{Context, Outputs, Root, Source, StageError, Tree};
use crate::config::Value;
use crate::sandbox::{Mount, Spec};
use crate::store::{Artifact, lower_dirs};
use crate::types::Architecture;

/// Runs `mkosi.prepare final`.
pub fn prepare(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    changing(cx, "PrepareScripts", &["final"])
}

/// Runs `mkosi.prepare build` on the build overlay.
pub fn prepare_build(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    changing(cx, "PrepareScripts", &["build"])
}

/// Runs `mkosi.postinst final`.
pub fn postinst(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    changing(cx, "PostInstallationScripts", &["final"])
}

/// Runs `mkosi.finalize`; what it leaves in `$OUTPUTDIR` is published with the image.
pub fn finalize(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    let before = outputs_of_build(cx)?;
    let out = cx.scratch("out")?;
    run_all(cx, "FinalizeScripts", &["final"], &tree, None)?;
    let mut outputs = cx.close_tree(tree)?;
    let mut files = store_files(cx, &out)?;
    files.retain(|name, digest| before.get(name) != Some(digest));
    outputs.insert("out".to_owned(), Artifact::Files { files });
    Ok(outputs)
}

/// Runs `mkosi.build`: what it installs to `$DESTDIR` is the output `dest`, and what it leaves in `$OUTPUTDIR` `out`.
/// Its changes to the tree are thrown away.
pub fn build(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    let dest = cx.scratch("dest")?;
    let out = cx.scratch("out")?;
    set_mode(&dest, 0o755)?;
    run_all(cx, "BuildScripts", &[], &tree, Some(&dest))?;
    let layer = cx.store.add_layer(&dest, None, &cx.ingest())?;
    let files = store_files(cx, &out)?;
    Ok(Outputs::from([
        ("dest".to_owned(), Artifact::Tree { layers: vec![layer.digest] }),
        ("out".to_owned(), Artifact::Files { files }),
    ]))
}

fn changing(cx: &mut Context<'_>, setting: &str, arguments: &[&str]) -> Result<Outputs, StageError> {
    let tree = cx.open_tree()?;
    outputs_of_build(cx)?;
    run_all(cx, setting, arguments, &tree, None)?;
    cx.close_tree(tree)
}

/// Puts what the build scripts left in `$OUTPUTDIR` there again.
fn outputs_of_build(cx: &Context<'_>) -> Result<BTreeMap<String, crate::types::Digest>, StageError> {
    let out = cx.scratch("out")?;
    let Some(Artifact::Files { files }) = cx.needs.get("build.out") else {
        return Ok(BTreeMap::new());
    };
    for (name, digest) in files {
        let target = out.join(name);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(StageError::io("make the directory", parent))?;
        }
        let source = cx.store.need_file(digest)?;
        std::fs::copy(&source, &target).map_err(StageError::io("copy a build's output to", &target))?;
        set_mode(&target, 0o644)?;
    }
    Ok(files.clone())
}

/// Takes the regular files below a directory into the store, by their path.
fn store_files(cx: &Context<'_>, directory: &Path) -> Result<BTreeMap<String, crate::types::Digest>, StageError> {
    let mut files = BTreeMap::new();
    let mut queue = vec![directory.to_path_buf()];
    while let Some(current) = queue.pop() {
        let entries = std::fs::read_dir(&current).map_err(StageError::io("list", &current))?;
        for entry in entries {
            let path = entry.map_err(StageError::io("list", &current))?.path();
            let kind = path.symlink_metadata().map_err(StageError::io("look at", &path))?.file_type();
            if kind.is_dir() {
                queue.push(path);
            } else if kind.is_file() {
                let name = path.strip_prefix(directory).unwrap_or(&path).to_string_lossy().into_owned();
                files.insert(name, cx.store.add_file(&path)?);
            }
        }
    }
    Ok(files)
}

fn set_mode(path: &Path, mode: u32) -> Result<(), StageError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
        .map_err(StageError::io("set the mode of", path))
}

/// Runs each script of a setting, in order.
fn run_all(
    cx: &mut Context<'_>,
    setting: &str,
    arguments: &[&str],
    tree: &Tree,
    dest: Option<&Path>,
) -> Result<(), StageError> {
    let scripts: Vec<(String, PathBuf)> = cx
        .sources_of(setting)
        .into_iter()
        .filter_map(|(name, source)| {
            let base = name.rsplit('/').next().unwrap_or(name).to_owned();
            Context::host_path(source).map(|path| (base, path.to_path_buf()))
        })
        .collect();
    let sources = source_mounts(cx)?;
    for (name, path) in scripts {
        cx.note(&format!("running {name} {}", arguments.join(" ")));
        let spec = spec(cx, &name, &path, arguments, tree, dest, &sources)?;
        cx.run(&spec)?;
    }
    Ok(())
}

fn spec(
    cx: &Context<'_>,
    name: &str,
    path: &Path,
    arguments: &[&str],
    tree: &Tree,
    dest: Option<&Path>,
    sources: &[Mount],
) -> Result<Spec, StageError> {
    let inside = format!("/work/{name}");
    let in_image = name.ends_with(".chroot");
    let mut argv = if in_image { vec!["mkosi-chroot", &inside] } else { vec![inside.as_str()] };
    argv.extend(arguments);
    let mut spec = cx.spec(&argv);
    let bind = |source: &Path, target: &str, read_only| Mount::Bind {
        source: source.to_path_buf(),
        target: target.into(),
        read_only,
        optional: false,
    };
    if cx.profile.root != Root::None {
        spec.mounts.push(cx.tree_mount(tree));
    }
    spec.mounts.push(bind(path, &inside, true));
    spec.mounts.extend(sources.iter().cloned());
    spec.mounts.push(bind(&cx.scratch("out")?, "/work/out", false));
    environment(cx, &mut spec.env);
    let mut both = |name: &str, value: &str| {
        spec.env.insert(name.to_owned(), value.to_owned());
        spec.env.insert(format!("CHROOT_{name}"), value.to_owned());
    };
    both("SRCDIR", "/work/src");
    both("OUTPUTDIR", "/work/out");
    both("SCRIPT", &inside);
    if let Some(dest) = dest {
        both("DESTDIR", "/work/dest");
        if let Some(build) = build_directory(cx)? {
            both("BUILDDIR", "/work/build");
            spec.mounts.push(bind(&build, "/work/build", false));
        }
        spec.mounts.push(bind(dest, "/work/dest", false));
    }
    spec.env.insert("BUILDROOT".to_owned(), BUILDROOT.to_owned());
    spec.cwd = "/work/src".into();
    Ok(spec)
}

/// The variables that tell a script what is built. Nothing of them depends on the host.
fn environment(cx: &Context<'_>, env: &mut BTreeMap<String, String>) {
    let view = cx.view;
    let flag = |name: &str| if view.bool(name) { "1" } else { "0" }.to_owned();
    if let Value::Map(own) = view.get("Environment") {
        for (name, value) in own {
            env.insert(name.clone(), value.as_text().unwrap_or_default().to_owned());
        }
    }
    let arch = view.text("Architecture").and_then(|a| a.parse().ok()).unwrap_or_else(Architecture::host);
    env.insert("ARCHITECTURE".to_owned(), arch.name().to_owned());
    if matches!(view.text("Distribution"), Some("debian" | "ubuntu" | "kali")) {
        env.insert("DISTRIBUTION_ARCHITECTURE".to_owned(), arch.debian().to_owned());
    }
    for (variable, setting) in [
        ("DISTRIBUTION", "Distribution"),
        ("RELEASE", "Release"),
        ("IMAGE_ID", "ImageId"),
        ("IMAGE_VERSION", "ImageVersion"),
    ] {
        if let Some(text) = view.text(setting) {
            env.insert(variable.to_owned(), text.to_owned());
        }
    }
    env.insert("PROFILES".to_owned(), view.texts("Profiles").join(" "));
    for (variable, setting) in [("WITH_DOCS", "WithDocs"), ("WITH_TESTS", "WithTests"), ("WITH_NETWORK", "WithNetwork")]
    {
        env.insert(variable.to_owned(), flag(setting));
    }
    env.insert("container".to_owned(), "mkosi".to_owned());
}

/// The user's build directory: kept between builds and no part of any key.
fn build_directory(cx: &Context<'_>) -> Result<Option<PathBuf>, StageError> {
    let Some(directory) = cx.view.path("BuildDirectory") else {
        return Ok(None);
    };
    let text = |setting| cx.view.text(setting).unwrap_or_default();
    let own = directory.join(format!("{}~{}~{}", text("Distribution"), text("Release"), text("Architecture")));
    std::fs::create_dir_all(&own).map_err(StageError::io("make the build directory", &own))?;
    Ok(Some(own))
}

/// Mounts the build sources at `/work/src`, outer paths first. Writes go to a directory that is thrown away, and
/// hidden paths are whited out there.
fn source_mounts(cx: &Context<'_>) -> Result<Vec<Mount>, StageError> {
    let mut mounts = vec![Mount::Directory { target: "/work/src".into(), mode: 0o755 }];
    if !cx.profile.sources {
        return Ok(mounts);
    }
    let targets: Vec<String> = cx
        .view
        .get("BuildSources")
        .items()
        .iter()
        .map(|item| item.field("target").and_then(Value::as_text).unwrap_or("").trim_matches('/').to_owned())
        .collect();
    let mut sources = Vec::new();
    for (name, source) in cx.sources_of("BuildSources") {
        let index = name.split('/').next().and_then(|index| index.parse::<usize>().ok()).unwrap_or(0);
        sources.push((targets.get(index).cloned().unwrap_or_default(), index, source.clone()));
    }
    sources.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    for (target, index, source) in sources {
        let target = if target.is_empty() { "/work/src".to_owned() } else { format!("/work/src/{target}") };
        let upper = cx.scratch(&format!("src-{index}"))?;
        let work = cx.scratch(&format!("src-{index}-overlay"))?;
        let lowers = match source {
            Source::Host { path, hidden } => {
                if !path.is_dir() {
                    mounts.push(Mount::Bind { source: path, target: target.into(), read_only: true, optional: false });
                    continue;
                }
                hide(&upper, &path, &hidden)?;
                vec![path]
            }
            Source::Image(Artifact::Tree { layers }) => {
                let layers = layers.iter().map(|d| cx.store.need_layer(d)).collect::<Result<Vec<_>, _>>()?;
                lower_dirs(&layers)
            }
            Source::Image(_) => continue,
        };
        mounts.push(Mount::Overlay { lowers, upper: Some((upper, work)), target: target.into() });
    }
    Ok(mounts)
}

/// Whites out hidden paths of `root` in an upper directory.
fn hide(upper: &Path, root: &Path, hidden: &[PathBuf]) -> Result<(), StageError> {
    for path in hidden {
        let Ok(relative) = path.strip_prefix(root) else { continue };
        if path.symlink_metadata().is_err() {
            continue;
        }
        let target = upper.join(relative);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent).map_err(StageError::io("make the directory", parent))?;
        }
        nix::sys::stat::mknod(
            &target,
            nix::sys::stat::SFlag::S_IFCHR,
            nix::sys::stat::Mode::empty(),
            nix::sys::stat::makedev(0, 0),
        )
        .map_err(|errno| StageError::Io {
            action: "make the whiteout",
            path: target.clone(),
            error: errno.into(),
        })?;
    }
    Ok(())
}
