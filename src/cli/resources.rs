//! The built-in configurations, which `Include=mkosi-vm` and the like name: they are part of the program, and are
//! put where a build can copy their files from.
//!
//! Knows nothing of what they say.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use include_dir::{Dir, DirEntry, include_dir};

static BUILT_IN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/resources");

/// The directory of the built-in configurations.
#[derive(Debug)]
pub struct Resources {
    /// Where they are.
    pub path: PathBuf,
    /// Removed at the end, where no lasting place could be written.
    _temporary: Option<tempfile::TempDir>,
}

/// The directory of the built-in configurations: in `runtime`, where they stay for the next run, else in a temporary
/// directory.
///
/// # Errors
/// When neither can be written.
pub fn resources(runtime: Option<&Path>) -> std::io::Result<Resources> {
    if let Some(path) = runtime.and_then(|runtime| lasting(runtime).ok()) {
        return Ok(Resources { path, _temporary: None });
    }
    let directory = tempfile::Builder::new().prefix("mkosi-resources-").tempdir()?;
    write(&BUILT_IN, directory.path())?;
    Ok(Resources { path: directory.path().to_owned(), _temporary: Some(directory) })
}

/// Where files may be put that are of use until the machine is restarted: for root `/run`, else the user's own
/// directory there.
pub fn runtime_directory() -> Option<PathBuf> {
    if crate::sandbox::started_as_root() {
        return Some(PathBuf::from("/run"));
    }
    std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The directory below `runtime` that is named by what is in it.
fn lasting(runtime: &Path) -> std::io::Result<PathBuf> {
    let directory = runtime.join("mkosi-resources");
    std::fs::DirBuilder::new().recursive(true).mode(0o755).create(&directory)?;
    // A directory of somebody else could be changed at any time.
    if directory.symlink_metadata()?.uid() != nix::unistd::geteuid().as_raw() {
        return Err(std::io::Error::other("the directory is another user's"));
    }
    let mut hasher = blake3::Hasher::new();
    digest(&BUILT_IN, &mut hasher);
    let name: String = hasher.finalize().to_hex().chars().take(16).collect();
    let path = directory.join(name);
    if complete(&BUILT_IN, &path) {
        return Ok(path);
    }
    // Beside each other, two runs write two directories, and the later one takes the first one's place.
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(&directory)?;
    write(&BUILT_IN, new.path())?;
    std::fs::set_permissions(new.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    if std::fs::rename(new.path(), &path).is_err() && !complete(&BUILT_IN, &path) {
        // What is there is damaged.
        std::fs::remove_dir_all(&path)?;
        std::fs::rename(new.path(), &path)?;
    }
    // Where it was renamed there is nothing left to remove.
    let _ = new.close();
    Ok(path)
}

fn digest(directory: &Dir<'_>, hasher: &mut blake3::Hasher) {
    for entry in directory.entries() {
        let path = entry.path().to_string_lossy().into_owned();
        hasher.update(&(path.len() as u64).to_le_bytes()).update(path.as_bytes());
        match entry {
            DirEntry::Dir(directory) => digest(directory, hasher),
            DirEntry::File(file) => {
                hasher.update(&(file.contents().len() as u64).to_le_bytes()).update(file.contents());
            }
        }
    }
}

/// Whether every file is there and says what it should.
fn complete(directory: &Dir<'_>, target: &Path) -> bool {
    directory.entries().iter().all(|entry| match entry {
        DirEntry::Dir(directory) => complete(directory, target),
        DirEntry::File(file) => {
            std::fs::read(target.join(file.path())).is_ok_and(|contents| contents == file.contents())
        }
    })
}

fn write(directory: &Dir<'_>, target: &Path) -> std::io::Result<()> {
    for entry in directory.entries() {
        let path = target.join(entry.path());
        match entry {
            DirEntry::Dir(directory) => {
                std::fs::DirBuilder::new().mode(0o755).create(&path)?;
                write(directory, target)?;
            }
            DirEntry::File(file) => std::fs::File::create_new(&path)?.write_all(file.contents())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::OsString;

    use super::*;
    use crate::cli::options::parse;
    use crate::config::table::DISTRIBUTION;
    use crate::config::{HostFacts, LoadInput, Loaded, load};
    use crate::types::Architecture;

    fn loaded(resources: &Path, arguments: &[&str]) -> Loaded {
        let invocation = parse(["-C", ""].iter().chain(arguments).map(OsString::from), Path::new("/")).unwrap();
        load(&LoadInput {
            directory: None,
            options: invocation.settings,
            images: Vec::new(),
            environment: BTreeMap::new(),
            host: HostFacts::new(Some("debian"), Some("trixie"), Architecture::X86_64),
            resources: Some(resources.to_owned()),
        })
        .unwrap()
    }

    fn on_disk(directory: &Path, files: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            if entry.path().is_dir() { on_disk(&entry.path(), files) } else { files.push(entry.path()) }
        }
    }

    #[test]
    fn all_of_the_directory_is_in_the_program() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("resources");
        let mut files = Vec::new();
        on_disk(&source, &mut files);
        assert!(files.len() > 100);
        for file in files {
            let name = file.strip_prefix(&source).unwrap();
            let built_in = BUILT_IN.get_file(name).unwrap_or_else(|| panic!("{} is missing", name.display()));
            assert_eq!(built_in.contents(), std::fs::read(&file).unwrap(), "{}", name.display());
        }
    }

    #[test]
    fn they_stay_and_are_mended() {
        let runtime = tempfile::tempdir().unwrap();
        let first = resources(Some(runtime.path())).unwrap();
        let file = first.path.join("mkosi-vm/mkosi.conf");
        let before = std::fs::metadata(&file).unwrap().ino();
        let again = resources(Some(runtime.path())).unwrap();
        assert_eq!((again.path.as_path(), std::fs::metadata(&file).unwrap().ino()), (first.path.as_path(), before));
        std::fs::write(&file, "damaged").unwrap();
        assert_eq!(resources(Some(runtime.path())).unwrap().path, first.path);
        assert!(complete(&BUILT_IN, &first.path));
        assert_eq!(std::fs::read_dir(runtime.path().join("mkosi-resources")).unwrap().count(), 1);
    }

    #[test]
    fn without_a_lasting_place_they_go_again() {
        let temporary = resources(Some(Path::new("/proc/nowhere"))).unwrap();
        let path = temporary.path.clone();
        assert!(complete(&BUILT_IN, &path));
        drop(temporary);
        assert!(!path.exists());
    }

    #[test]
    fn every_distribution_gets_its_initrd_tools_and_machine_without_a_warning() {
        let runtime = tempfile::tempdir().unwrap();
        let resources = resources(Some(runtime.path())).unwrap();
        let profiles = "--initrd-profile=lvm,network,nfs,pkcs11,plymouth,raid";
        let tools = "--tools-tree-profile=devel,misc,package-manager,runtime,debug,gui";
        for distribution in DISTRIBUTION.names.iter().filter(|name| **name != "custom") {
            let arguments = [
                "-d",
                distribution,
                "--include=mkosi-vm",
                "--tools-tree=default",
                &format!("--tools-tree-distribution={distribution}"),
                profiles,
                tools,
            ];
            let loaded = loaded(&resources.path, &arguments);
            assert_eq!(loaded.warnings, [], "{distribution}");
            let main = loaded.image("main").unwrap();
            assert_eq!(main.text("Bootable"), Some("enabled"));
            assert!(main.texts("Packages").contains(&"systemd"));
            let initrd = loaded.image("default-initrd").unwrap();
            assert_eq!((initrd.text("Format"), initrd.text("Output")), (Some("cpio"), Some("initrd")));
            assert!(initrd.bool("MakeInitrd") && initrd.texts("Packages").contains(&"lvm2"));
            let tools = loaded.tools.as_ref().unwrap();
            assert_eq!(tools.text("Output"), Some("mkosi.tools"));
            let extra = tools.get("ExtraTrees").items().first().and_then(|tree| tree.field("source"));
            let file = "usr/share/p11-kit/modules/opensc.module";
            assert!(extra.is_some_and(|tree| tree.paths()[0].join(file).exists()), "its own files go into the tree");
            for package in ["systemd", "gcc", "jq", "swtpm", "gdb"] {
                assert!(tools.texts("Packages").contains(&package), "{distribution} {package}");
            }
        }
    }

    #[test]
    fn debian_by_release() {
        let runtime = tempfile::tempdir().unwrap();
        let resources = resources(Some(runtime.path())).unwrap();
        let packages = |arguments: &[&str], image: &str| -> Vec<String> {
            let arguments: Vec<&str> = arguments.iter().copied().chain(["--include=mkosi-vm"]).collect();
            let loaded = loaded(&resources.path, &arguments);
            loaded.image(image).unwrap().texts("Packages").into_iter().map(str::to_owned).collect()
        };
        let has = |list: &[String], name: &str| list.iter().any(|package| package == name);
        let trixie = packages(&["-d", "debian", "-r", "trixie"], "default-initrd");
        assert!(has(&trixie, "systemd-cryptsetup") && has(&trixie, "systemd-repart"));
        let bookworm = packages(&["-d", "debian", "-r", "bookworm"], "default-initrd");
        assert!(!has(&bookworm, "systemd-cryptsetup") && has(&bookworm, "libcryptsetup12"));
        let arm = packages(&["-d", "debian", "-r", "trixie", "--architecture=arm64"], "main");
        assert!(has(&arm, "linux-image-cloud-arm64") && !has(&arm, "linux-image-generic"));
        let ubuntu = packages(&["-d", "ubuntu", "-r", "noble"], "main");
        assert!(has(&ubuntu, "linux-image-generic") && !has(&ubuntu, "systemd-boot-efi-signed"));
    }
}
