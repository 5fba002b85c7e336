//! Configure scripts: programs of the project that change the configuration of an image before it is built.
//!
//! Each gets the image as JSON and prints it with its changes. They run on the host's tools, in a sandbox that shows
//! the sources read-only and no network; nothing of an image is there yet.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::config::{EnvironmentError, Image, JsonError, Loaded, Value, apply_answer, environment};
use crate::sandbox::{Cancel, Exit, HostRoot, Input, Mount, Output, PATH, Spec, Tools, host_root};
use crate::types::Architecture;

const SOURCES: &str = "/work/src";
const SCRIPT: &str = "/work/configure";

/// Why a configure script's changes can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// It can't be executed.
    #[error("the configure script {} is not executable\n  hint: chmod +x {}", .0.display(), .0.display())]
    Mode(PathBuf),
    /// It can't be read.
    #[error("can't read the configure script {}: {error}", path.display())]
    Read {
        /// The script.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A file of `EnvironmentFiles=`.
    #[error(transparent)]
    Environment(#[from] EnvironmentError),
    /// The sandbox could not be made.
    #[error("can't run the configure script {}: {error}", path.display())]
    Sandbox {
        /// The script.
        path: PathBuf,
        /// Why.
        error: crate::sandbox::Error,
    },
    /// It failed.
    #[error("the configure script {} of the image `{image}` {how}", path.display())]
    Failed {
        /// The script.
        path: PathBuf,
        /// The image.
        image: String,
        /// How it ended.
        how: String,
    },
    /// What it printed is no JSON.
    #[error("the configure script {} of the image `{image}` printed no JSON: {error}\n{excerpt}  hint: what is printed \
             for people belongs on standard error", path.display())]
    Syntax {
        /// The script.
        path: PathBuf,
        /// The image.
        image: String,
        /// What is wrong, with line and column.
        error: serde_json::Error,
        /// The line.
        excerpt: String,
    },
    /// What it printed is no configuration.
    #[error("{}, for the image `{image}`: {error}", path.display())]
    Answer {
        /// The script.
        path: PathBuf,
        /// The image.
        image: String,
        /// What is wrong.
        error: JsonError,
    },
    /// It made an image depend on another that isn't there.
    #[error("the configure scripts make the image `{image}` depend on `{dependency}`, which is not among those loaded")]
    Dependency {
        /// The image.
        image: String,
        /// What it is to depend on.
        dependency: String,
    },
}

/// Runs the configure scripts of all images, in their order, and puts the changes into `loaded`.
///
/// # Errors
/// When a script can't be run, fails, or prints what can't be used.
pub fn run(loaded: &mut Loaded, outside: &BTreeMap<String, String>, debug: bool) -> Result<(), ConfigureError> {
    let mut ran = false;
    for index in 0..loaded.images.len() {
        let Some(image) = loaded.images.get(index) else { continue };
        let scripts: Vec<PathBuf> =
            image.get("ConfigureScripts").items().iter().filter_map(Value::as_path).map(Path::to_owned).collect();
        for script in scripts {
            let Some(image) = loaded.images.get(index) else { continue };
            let changed = run_one(loaded, image, &script, outside, debug)?;
            if let Some(image) = loaded.images.get_mut(index) {
                *image = changed;
            }
            ran = true;
        }
    }
    if ran {
        let tools = loaded.tools.as_ref().map(|tools| tools.name.as_str());
        for image in &loaded.images {
            let unknown = |name: &&str| loaded.image(name).is_none() && tools != Some(name);
            if let Some(dependency) = image.texts("Dependencies").into_iter().find(unknown) {
                return Err(ConfigureError::Dependency {
                    image: image.name.clone(),
                    dependency: dependency.to_owned(),
                });
            }
        }
    }
    Ok(())
}

fn run_one(
    loaded: &Loaded,
    image: &Image,
    script: &Path,
    outside: &BTreeMap<String, String>,
    debug: bool,
) -> Result<Image, ConfigureError> {
    let (path, name) = (script.to_owned(), image.name.clone());
    let spec = spec(image, script, outside, debug)?;
    let input = loaded.image_json(image).to_string();
    let mut answer = Vec::new();
    let mut errors = std::io::stderr();
    let exit = spec
        .run(Input::Bytes(input.as_bytes()), Output::Split(&mut answer, &mut errors), &Cancel::default())
        .map_err(|error| ConfigureError::Sandbox { path: path.clone(), error })?;
    let how = match exit {
        Exit::Code(0) => None,
        Exit::Code(code) => Some(format!("ended with status {code}")),
        Exit::Signal(signal) => Some(format!("was ended by signal {signal}")),
    };
    if let Some(how) = how {
        return Err(ConfigureError::Failed { path, image: name, how });
    }
    let json = serde_json::from_slice(&answer).map_err(|error| {
        let excerpt = excerpt(&answer, &error);
        ConfigureError::Syntax { path: path.clone(), image: name.clone(), error, excerpt }
    })?;
    apply_answer(loaded, image, &json, script).map_err(|error| ConfigureError::Answer { path, image: name, error })
}

/// The line of an answer that an error is about, with a mark. Only the part around the mark, as a line may be long.
fn excerpt(answer: &[u8], error: &serde_json::Error) -> String {
    let text = String::from_utf8_lossy(answer);
    let Some(line) = text.lines().nth(error.line().saturating_sub(1)) else { return String::new() };
    let column = error.column().saturating_sub(1);
    let start = column.saturating_sub(40);
    let shown: String = line.chars().skip(start).take(80).map(|c| if c.is_control() { ' ' } else { c }).collect();
    let number = error.line().to_string();
    let gutter = " ".repeat(number.len());
    format!("{gutter} |\n{number} | {shown}\n{gutter} | {}^\n", " ".repeat(column - start))
}

fn spec(image: &Image, script: &Path, outside: &BTreeMap<String, String>, debug: bool) -> Result<Spec, ConfigureError> {
    let failed = |error| ConfigureError::Read { path: script.to_owned(), error };
    let mode = script.metadata().map_err(failed)?.permissions().mode();
    let bind = |source: &Path, target: PathBuf| Mount::Bind {
        source: source.to_owned(),
        target,
        read_only: true,
        optional: false,
    };
    let layers = image.path("ToolsTree").filter(|tree| *tree != Path::new("/")).map(Path::to_owned);
    let tools = Tools { layers: layers.into_iter().collect(), ..Tools::default() };
    let mut mounts = host_root(&HostRoot { tools, ..HostRoot::default() });
    mounts.push(Mount::Directory { target: SOURCES.into(), mode: 0o755 });
    let mut sources: Vec<(PathBuf, &Path)> = image
        .get("BuildSources")
        .items()
        .iter()
        .filter_map(|tree| {
            let target = tree.field("target").and_then(Value::as_text).unwrap_or_default();
            let target: PathBuf = Path::new(SOURCES).join(target.trim_matches('/')).components().collect();
            Some((target, tree.field("source").and_then(Value::as_path)?))
        })
        .collect();
    // Outer ones first, so that they don't hide the others.
    sources.sort();
    mounts.extend(sources.into_iter().map(|(target, source)| bind(source, target)));
    mounts.push(match (mode & 0o111, image.bool("MakeScriptsExecutable")) {
        (0, false) => return Err(ConfigureError::Mode(script.to_owned())),
        // Executable here, and untouched in the project.
        (0, true) => {
            let contents = std::fs::read(script).map_err(failed)?;
            Mount::File { target: SCRIPT.into(), contents, mode: 0o755 }
        }
        _ => bind(script, SCRIPT.into()),
    });
    let env = variables(image, outside, debug)?;
    Ok(Spec { argv: vec![SCRIPT.to_owned()], env, cwd: SOURCES.into(), mounts, ..Spec::default() })
}

/// The variables that a configure script gets: what is to be built, where its sources are, and the image's own.
fn variables(
    image: &Image,
    outside: &BTreeMap<String, String>,
    debug: bool,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH.to_owned())]);
    let mut set = |name: &str, value: &str| {
        if !value.is_empty() {
            env.insert(name.to_owned(), value.to_owned());
        }
    };
    for (variable, setting) in [
        ("DISTRIBUTION", "Distribution"),
        ("RELEASE", "Release"),
        ("ARCHITECTURE", "Architecture"),
        ("IMAGE_ID", "ImageId"),
        ("IMAGE_VERSION", "ImageVersion"),
        ("http_proxy", "ProxyUrl"),
        ("https_proxy", "ProxyUrl"),
        ("HTTP_PROXY", "ProxyUrl"),
        ("HTTPS_PROXY", "ProxyUrl"),
    ] {
        set(variable, image.text(setting).unwrap_or_default());
    }
    if let Some(architecture) = image.text("Architecture").and_then(|name| name.parse::<Architecture>().ok()) {
        set("DISTRIBUTION_ARCHITECTURE", distribution_architecture(image, architecture));
        set("QEMU_ARCHITECTURE", crate::run::machine::qemu(architecture));
        set("EFI_ARCHITECTURE", efi_architecture(architecture));
    }
    if image.name != "main" {
        set("SUBIMAGE", &image.name);
    }
    if let Some(seconds) = image.get("SourceDateEpoch").as_number() {
        set("SOURCE_DATE_EPOCH", &seconds.to_string());
    }
    let excluded = image.texts("ProxyExclude").join(",");
    set("no_proxy", &excluded);
    set("NO_PROXY", &excluded);
    set("PROFILES", &image.texts("Profiles").join(" "));
    set("SRCDIR", SOURCES);
    set("MKOSI_UID", &nix::unistd::getuid().to_string());
    set("MKOSI_GID", &nix::unistd::getgid().to_string());
    set("MKOSI_DEBUG", if debug { "1" } else { "0" });
    set("TERM", "dumb");
    env.extend(environment(image, outside)?);
    Ok(env)
}

fn distribution_architecture(image: &Image, architecture: Architecture) -> &'static str {
    match image.text("Distribution") {
        Some("debian" | "ubuntu" | "kali") => architecture.debian(),
        Some("arch" | "postmarketos") => architecture.machine(),
        _ => architecture.rpm(),
    }
}

/// The architecture in the names of UEFI programs (`BOOTX64.EFI`), in small letters; empty where there is no UEFI.
fn efi_architecture(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86 => "ia32",
        Architecture::X86_64 => "x64",
        Architecture::Arm => "arm",
        Architecture::Arm64 => "aa64",
        Architecture::Riscv32 => "riscv32",
        Architecture::Riscv64 => "riscv64",
        Architecture::Loongarch64 => "loongarch64",
        _ => "",
    }
}
