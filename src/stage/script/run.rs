//! Runs the scripts of one setting, each in a sandbox of its own. Knows nothing of what becomes of their results.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::carried::Carried;
use super::environment::{CONFIG, Facts, Kind, config_json, environment, users};
use super::{access, sources, wrappers};
use crate::config::build_directory_below;
use crate::sandbox::{Cancel, Input, Mount, Output, Spec};
use crate::stage::{Context, Root, StageError, Tree, debian};

/// Settings whose directories builds write to.
pub const WRITTEN: [&str; 5] =
    ["BuildDirectory", "CacheDirectory", "OutputDirectory", "PackageCacheDirectory", "WorkspaceDirectory"];

/// What the scripts of a stage are given.
pub struct Runner<'a> {
    /// Their kind.
    pub kind: Kind,
    /// The image's tree.
    pub tree: Option<&'a Tree>,
    /// The directories that are handed on.
    pub carried: Option<&'a Carried>,
    /// `$DESTDIR`.
    pub dest: Option<&'a Path>,
    /// The sources, where they are not those of the profile.
    pub mounts: Vec<Mount>,
    /// Mounts on top of everything else.
    pub after: Vec<Mount>,
    /// Whether a user looks into the sandbox: then nothing of the user's own is changed.
    pub look: bool,
}

fn bind(source: &Path, target: &str, read_only: bool) -> Mount {
    Mount::Bind { source: source.to_path_buf(), target: target.into(), read_only, optional: false }
}

impl Runner<'_> {
    /// Nothing but the kind.
    pub fn new(kind: Kind) -> Self {
        Self { kind, tree: None, carried: None, dest: None, mounts: Vec::new(), after: Vec::new(), look: false }
    }

    /// Runs each script of the kind's setting, in order.
    pub fn all(&self, cx: &mut Context<'_>, arguments: &[&str]) -> Result<(), StageError> {
        let scripts = self.scripts(cx);
        let (base, sources, first) = self.base(cx)?;
        for (name, path) in scripts {
            let called = [&[name.as_str()], arguments].concat().join(" ");
            cx.note(&format!("running {called}"));
            let mut spec = self.spec(&base, &name, &path, arguments);
            let _held = sources.serve(&mut spec.mounts, first)?;
            cx.run(&spec).map_err(|error| match error {
                // The name in the sandbox is the same for all scripts of a kind.
                StageError::Command { exit, .. } => {
                    if cx.debug_shell {
                        // A mount serves one sandbox only.
                        if let Ok(_held) = sources.serve(&mut spec.mounts, first) {
                            debug_shell(cx, &spec, &called);
                        }
                    }
                    StageError::Command { command: called, exit }
                }
                StageError::Sandbox(text) => StageError::Sandbox(format!("{name}: {text}")),
                other => other,
            })?;
        }
        Ok(())
    }

    /// The scripts, by name, in order.
    fn scripts(&self, cx: &Context<'_>) -> Vec<(String, PathBuf)> {
        let scripts = cx.sources_of(self.kind.setting()).into_iter();
        let scripts = scripts.filter_map(|(name, source)| {
            let base = name.rsplit('/').next().unwrap_or(name).to_owned();
            Context::host_path(source).map(|path| (base, path.to_path_buf()))
        });
        scripts.collect()
    }

    /// The sandbox of the scripts for a user who looks into it, with the scripts in it: one alone where it was when it
    /// ran, several in a directory next to that.
    pub fn looked_into(&self, cx: &mut Context<'_>) -> Result<Spec, StageError> {
        // Nothing is noted here, so that no mount is left to be served.
        let (mut spec, ..) = self.base(cx)?;
        let scripts = self.scripts(cx);
        let alone = scripts.len() == 1;
        for (name, path) in scripts {
            let inside = self.kind.path();
            let inside = if alone { inside.to_owned() } else { format!("{inside}.d/{name}") };
            spec.mounts.push(bind(&path, &inside, true));
        }
        Ok(spec)
    }

    fn spec(&self, base: &Spec, name: &str, path: &Path, arguments: &[&str]) -> Spec {
        let mut spec = base.clone();
        let inside = self.kind.path();
        let in_image = self.tree.is_some() && name.ends_with(".chroot");
        let argv = if in_image { vec!["mkosi-chroot", inside] } else { vec![inside] };
        spec.argv = argv.into_iter().chain(arguments.iter().copied()).map(str::to_owned).collect();
        spec.mounts.push(bind(path, inside, true));
        spec
    }

    /// What all scripts of the stage have in common.
    /// Besides, the mounts of the sources and where they begin.
    fn base(&self, cx: &mut Context<'_>) -> Result<(Spec, sources::Mounts, usize), StageError> {
        let kind = self.kind;
        let mut spec = cx.spec(&[]);
        // The table says who gets it.
        spec.env.remove("SOURCE_DATE_EPOCH");
        if let Some(tree) = self.tree
            && cx.profile.root != Root::None
        {
            spec.mounts.push(cx.tree_mount(tree));
        }
        let build = if kind.has("BUILDDIR") { build_directory(cx)? } else { None };
        let (mut sources, first) = (sources::Mounts::default(), spec.mounts.len());
        if self.mounts.is_empty() {
            sources = sources::mounts(cx, kind, build.as_deref(), self.look)?;
            spec.mounts.extend(sources.mounts.iter().cloned());
        } else {
            spec.mounts.extend(self.mounts.iter().cloned());
        }
        if let Some(carried) = self.carried {
            for (variable, directory, target) in [
                ("OUTPUTDIR", &carried.out, "/work/out"),
                ("PACKAGEDIR", &carried.packages, "/work/packages"),
                ("ARTIFACTDIR", &carried.artifacts, "/work/artifacts"),
            ] {
                if kind.has(variable) {
                    spec.mounts.push(bind(directory, target, false));
                }
            }
        }
        if let Some(dest) = self.dest {
            spec.mounts.push(bind(dest, "/work/dest", false));
        }
        if let Some(build) = &build {
            // Only build scripts fill it.
            spec.mounts.push(bind(build, "/work/build", kind != Kind::Build || self.look));
        }
        spec.mounts.push(Mount::File { target: CONFIG.into(), contents: config_json(cx.view), mode: 0o644 });
        let facts =
            Facts { view: cx.view, build_directory: build.is_some(), cached: cx.cached, network: cx.profile.network };
        spec.env.extend(environment(kind, &facts));
        if cx.profile.network {
            spec.mounts.extend(debian::proxy(cx.view).mounts());
        }
        if kind == Kind::Sync {
            access::add(&mut spec);
        }
        if self.tree.is_some() {
            wrappers::add(cx, &mut spec)?;
        }
        spec.mounts.extend(self.after.iter().cloned());
        spec.cwd = "/work/src".into();
        Ok((spec, sources, first))
    }
}

/// Opens a shell for the user in the sandbox as the script left it: the same mounts and variables, and what it wrote. One
/// that can't be opened is told of and changes nothing of the failure.
fn debug_shell(cx: &mut Context<'_>, failed: &Spec, called: &str) {
    let mut spec = failed.clone();
    let in_image = spec.argv.first().is_some_and(|word| word == "mkosi-chroot");
    let argv: &[&str] = if in_image { &["mkosi-chroot", "sh"] } else { &["sh"] };
    spec.argv = argv.iter().map(|word| (*word).to_owned()).collect();
    crate::tell!(
        "{called} failed; this is a shell where it ran (the script is {}). Leave it to end the build.",
        failed.env.get("SCRIPT").map_or("in /work", String::as_str)
    );
    // Ctrl-C in the shell is for what runs there; the build ends afterwards in any case.
    if let Err(error) = spec.run(Input::Inherit, Output::Inherit, &Cancel::default()) {
        cx.note(&format!("no shell could be opened: {error}"));
    }
}

/// The variables that the user sets, for tools that are no scripts.
pub fn variables(cx: &Context<'_>) -> BTreeMap<String, String> {
    users(cx.view).into_iter().collect()
}

/// The user's build directory: kept between builds and no part of any key.
fn build_directory(cx: &Context<'_>) -> Result<Option<PathBuf>, StageError> {
    let Some(directory) = cx.view.path("BuildDirectory") else {
        return Ok(None);
    };
    // Its specifiers were put in where the image's name was known.
    let own = build_directory_below(directory, cx.view.text("BuildKey").unwrap_or_default());
    std::fs::create_dir_all(&own).map_err(StageError::io("make the build directory", &own))?;
    Ok(Some(own))
}
