//! `mkosi.clean`, which `mkosi clean` runs: no stage of a build, and nothing of it is kept. Knows nothing of what else is
//! cleaned.

use std::io::Write;

use super::environment::{CONFIG, Facts, Kind, config_json, environment};
use super::{run, sources};
use crate::config::{Image, View};
use crate::sandbox::{Cancel, Input, Mount, Output, Tools};
use crate::stage::{StageError, context::host_spec};

/// The settings that a clean script knows of.
const SETTINGS: [&str; 16] = [
    "Architecture",
    "BuildDirectory",
    "BuildSources",
    "CacheDirectory",
    "CleanScripts",
    "Distribution",
    "Environment",
    "ImageId",
    "ImageVersion",
    "Output",
    "OutputDirectory",
    "PackageCacheDirectory",
    "Profiles",
    "Release",
    "SourceDateEpoch",
    "WorkspaceDirectory",
];

/// Runs the clean scripts of an image on its output directory and its own source directories.
///
/// # Errors
/// When a sandbox can't be made, or a script fails.
pub fn clean(image: &Image, log: &mut (dyn Write + Send), cancel: &Cancel) -> Result<(), StageError> {
    let view = View::new("clean-scripts", image, SETTINGS);
    let hidden: Vec<_> = run::WRITTEN.iter().filter_map(|setting| view.path(setting)).collect();
    for script in view.get("CleanScripts").paths() {
        let mut spec = host_spec(&[Kind::Clean.path()], false, &Tools::default());
        spec.mounts.extend(sources::writable(view.get("BuildSources"), &hidden));
        let directory = view.path("OutputDirectory").unwrap_or(&image.project);
        spec.mounts.push(if directory.is_dir() {
            bind(directory, "/work/out", false)
        } else {
            Mount::Directory { target: "/work/out".into(), mode: 0o755 }
        });
        spec.mounts.push(bind(script, Kind::Clean.path(), true));
        spec.mounts.push(Mount::File { target: CONFIG.into(), contents: config_json(&view), mode: 0o644 });
        let facts = Facts { view: &view, build_directory: false, cached: false, network: false };
        spec.env.extend(environment(Kind::Clean, &facts));
        spec.cwd = "/work/src".into();
        let exit = spec.run(Input::Null, Output::Merged(log), cancel)?;
        if !exit.success() {
            let command = script.file_name().unwrap_or_default().to_string_lossy().into_owned();
            return Err(StageError::Command { command, exit });
        }
    }
    view.check()?;
    Ok(())
}

fn bind(source: &std::path::Path, target: &str, read_only: bool) -> Mount {
    Mount::Bind { source: source.to_path_buf(), target: target.into(), read_only, optional: false }
}
