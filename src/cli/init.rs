//! `mkosi init`: writes a small project to start from.
//!
//! Knows nothing of how a configuration is read; a test loads what is written.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::options::Invocation;
use crate::config::table::DISTRIBUTION;
use crate::config::{HostFacts, OptionSetting, default_release};
use crate::types::suggest::nearest;

/// The files of a project: path, text with `@NAME@` for what differs, access mode.
const FILES: [(&str, &str, u32); 3] = [
    ("mkosi.conf", include_str!("../../resources/init/mkosi.conf"), 0o644),
    ("mkosi.extra/usr/local/bin/hello", include_str!("../../resources/init/hello"), 0o755),
    (".gitignore", include_str!("../../resources/init/gitignore"), 0o644),
];

/// Why no project could be written.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// An option that has no meaning here.
    #[error("`mkosi init` takes no {0}: write that setting into mkosi.conf afterwards (-C, -d and -r are accepted)")]
    Option(String),
    /// A distribution that isn't known.
    #[error("there is no distribution `{name}`{hint}\n  accepted: {}", DISTRIBUTION.accepted())]
    Distribution {
        /// What was given.
        name: String,
        /// The nearest name.
        hint: String,
    },
    /// The host is of a distribution that images can't be made of.
    #[error("the distribution of this host is not known: say which one the image is to have, `-d debian` for instance")]
    Host,
    /// `-C ''`.
    #[error("there is no directory to write a project into: leave out -C ''")]
    NoDirectory,
    /// A release that can't stand in a configuration file.
    #[error("`{0}` is no name of a release")]
    Release(String),
    /// A file or directory that can't be written.
    #[error("can't write {}: {error}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

/// Writes a project into the invocation's directory. What is there already stays as it is; where a project is there,
/// nothing is written. The answer says what was done, for people who stand in `here`.
///
/// # Errors
/// When the options have no meaning here, or a file can't be written.
pub fn init(invocation: &Invocation, host: &HostFacts, here: &Path) -> Result<String, InitError> {
    let directory = invocation.directory.as_deref().ok_or(InitError::NoDirectory)?;
    let (distribution, release) = target(&invocation.settings, host)?;
    let shown = |path: &str| {
        let path = directory.join(path);
        path.strip_prefix(here).unwrap_or(&path).display().to_string()
    };
    let existing = ["mkosi.conf", "mkosi/mkosi.conf", "mkosi.tools.conf"];
    if let Some(there) = existing.into_iter().find(|path| directory.join(path).symlink_metadata().is_ok()) {
        return Ok(format!(
            "there is a project already, nothing was written\n  exists   {}\n\nshow what it says: mkosi{} summary\n",
            shown(there),
            change(directory, here)
        ));
    }
    let id = id(directory);
    let packages: String = packages(&distribution).iter().map(|name| format!("    {name}\n")).collect();
    let mut text = String::new();
    for (path, template, mode) in FILES {
        let content = template
            .replace("@DISTRIBUTION@", &distribution)
            .replace("@RELEASE@", &release)
            .replace("@ID@", &id)
            .replace("@PACKAGES@\n", &packages);
        let written = write_new(&directory.join(path), content.as_bytes(), mode)?;
        text.push_str(&format!("  {}  {}\n", if written { "written" } else { "exists " }, shown(path)));
    }
    let release = if release.is_empty() { String::new() } else { format!(" {release}") };
    let mut text = format!("a project for {distribution}{release}:\n{text}");
    if matches!(distribution.as_str(), "debian" | "ubuntu") {
        let go = change(directory, here);
        text.push_str(&format!(
            "\nbuild it:             mkosi{go}\nshow what it says:    mkosi{go} summary\nsee what a build does: mkosi{go} graph\n"
        ));
    } else {
        text.push_str(&format!(
            "\nnote: this version builds Debian and Ubuntu alone; images of {distribution} come later. The project is \
             good for other implementations that read mkosi.conf.\n"
        ));
    }
    Ok(text)
}

/// The option that leads to the project.
fn change(directory: &Path, here: &Path) -> String {
    if directory == here {
        return String::new();
    }
    format!(" -C {}", directory.strip_prefix(here).unwrap_or(directory).display())
}

/// The distribution and release that were asked for, or the host's.
fn target(settings: &[OptionSetting], host: &HostFacts) -> Result<(String, String), InitError> {
    let (mut distribution, mut release) = (None, None);
    for setting in settings {
        match setting.setting.as_str() {
            "Distribution" => distribution = Some(setting.text.as_str()),
            "Release" => release = Some(setting.text.as_str()),
            _ => return Err(InitError::Option(setting.option.clone())),
        }
    }
    let distribution = match distribution {
        Some(name) => DISTRIBUTION.find(name).ok_or_else(|| InitError::Distribution {
            name: name.to_owned(),
            hint: nearest(name, DISTRIBUTION.names.iter().copied())
                .map_or_else(String::new, |near| format!("\n  hint: did you mean `{near}`?")),
        })?,
        None => host.distribution.as_deref().ok_or(InitError::Host)?,
    };
    let release = match release {
        Some(text) if text.is_empty() || text.contains(|c: char| c == '#' || c == '%' || !c.is_ascii_graphic()) => {
            return Err(InitError::Release(text.to_owned()));
        }
        Some(text) => text.to_owned(),
        None => match (host.distribution.as_deref(), &host.release) {
            (Some(name), Some(release)) if name == distribution => release.clone(),
            _ => stable_release(distribution).to_owned(),
        },
    };
    Ok((distribution.to_owned(), release))
}

/// A release to start with: one that doesn't change every day, where the distribution has that.
fn stable_release(distribution: &str) -> &'static str {
    match distribution {
        "debian" => "trixie",
        "ubuntu" => "noble",
        "fedora" => "43",
        other => default_release(other),
    }
}

/// The packages of a small system that can be booted in a container.
fn packages(distribution: &str) -> &'static [&'static str] {
    match distribution {
        "debian" | "ubuntu" | "kali" => &["systemd", "systemd-sysv", "udev", "dbus", "less"],
        "arch" => &["base", "less"],
        "postmarketos" => &["postmarketos-base-systemd", "systemd", "less"],
        "opensuse" => &["systemd", "udev", "dbus-1", "less"],
        "custom" => &[],
        _ => &["systemd", "systemd-udev", "dbus", "less"],
    }
}

/// The image's name: the directory's, as far as its characters may stand in a host name.
fn id(directory: &Path) -> String {
    let name = directory.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
    match name.trim_matches('-') {
        "" => "image".to_owned(),
        name => name.to_owned(),
    }
}

/// Writes a file where nothing is, not even a link that leads to nothing. Whether it was written is the answer.
fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<bool, InitError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| InitError::Write { path, error }
    };
    if let Some(parent) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o755).create(parent).map_err(failed(parent))?;
    }
    match OpenOptions::new().write(true).create_new(true).mode(mode).open(path) {
        Ok(mut file) => file.write_all(content).map(|()| true).map_err(failed(path)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::ffi::OsString;

    use super::*;
    use crate::cli::options::parse;
    use crate::config::{LoadInput, load};
    use crate::types::Architecture;

    fn host() -> HostFacts {
        HostFacts::new(Some("debian"), Some("bookworm"), Architecture::X86_64)
    }

    fn run(directory: &Path, arguments: &[&str]) -> Result<String, InitError> {
        let invocation = parse(arguments.iter().chain(&["init"]).map(OsString::from), directory).unwrap();
        init(&invocation, &host(), directory)
    }

    fn tree(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            if entry.path().is_dir() {
                found.extend(tree(&entry.path()));
            } else {
                found.insert(entry.path(), std::fs::read(entry.path()).unwrap());
            }
        }
        found
    }

    #[test]
    fn each_distribution_gets_a_project_that_loads_without_a_word() {
        for distribution in DISTRIBUTION.names {
            let directory = tempfile::tempdir().unwrap();
            let here = directory.path().canonicalize().unwrap().join("My box");
            std::fs::create_dir(&here).unwrap();
            run(&here, &["-d", distribution]).unwrap();
            let input = LoadInput {
                directory: Some(here.clone()),
                options: Vec::new(),
                images: Vec::new(),
                environment: BTreeMap::new(),
                host: host(),
                resources: None,
            };
            let loaded = load(&input).unwrap();
            assert_eq!(loaded.warnings, [], "{distribution}");
            let main = loaded.image("main").unwrap();
            assert_eq!(main.text("Distribution"), Some(*distribution));
            assert_eq!(main.text("ImageId"), Some("my-box"));
            let names: BTreeSet<&str> = main.texts("Packages").into_iter().collect();
            assert_eq!(names, packages(distribution).iter().copied().collect::<BTreeSet<_>>());
            assert!(!main.get("ExtraTrees").is_empty());
            if *distribution == "debian" {
                assert_eq!(main.text("Release"), Some("bookworm"), "the host's");
            }
        }
    }

    #[test]
    fn a_second_time_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        assert!(run(directory.path(), &[]).unwrap().contains("build it"));
        let before = tree(directory.path());
        assert_eq!(before.len(), 3);
        assert!(run(directory.path(), &["-d", "fedora"]).unwrap().contains("exists   mkosi.conf"));
        assert_eq!(tree(directory.path()), before);
    }

    #[test]
    fn what_is_there_stays() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(".gitignore"), "mine\n").unwrap();
        std::os::unix::fs::symlink("nowhere", directory.path().join("mkosi.extra")).unwrap();
        let error = run(directory.path(), &[]).unwrap_err();
        assert!(matches!(error, InitError::Write { .. }), "{error}");
        std::fs::remove_file(directory.path().join("mkosi.extra")).unwrap();
        std::fs::remove_file(directory.path().join("mkosi.conf")).unwrap();
        let text = run(directory.path(), &["-r", "sid"]).unwrap();
        assert!(text.contains("exists   .gitignore") && text.contains("written  mkosi.conf"), "{text}");
        assert_eq!(std::fs::read_to_string(directory.path().join(".gitignore")).unwrap(), "mine\n");
    }

    #[test]
    fn wrong_options() {
        let directory = tempfile::tempdir().unwrap();
        let wrong = |arguments: &[&str]| run(directory.path(), arguments).unwrap_err().to_string();
        assert!(wrong(&["-d", "debain"]).contains("did you mean `debian`"));
        assert!(wrong(&["-p", "vim"]).contains("--package"));
        assert!(wrong(&["-r", "a#b"]).contains("a#b"));
        assert!(wrong(&["-C", ""]).contains("-C ''"));
        assert_eq!(tree(directory.path()), BTreeMap::new());
    }
}
