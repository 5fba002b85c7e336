//! Small repositories that are made here.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mkosi::distro::{Distribution, Host, Repositories, Settings, Target};
use mkosi::sandbox::Mount;
use mkosi::types::Architecture;

use crate::bench::{Bench, run};

/// A repository in a directory, signed with a key of its own.
pub struct Repository {
    pub root: PathBuf,
    pub gnupg: PathBuf,
    pub packages: String,
}

impl Repository {
    pub fn new(bench: &Bench) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let (root, gnupg) = (bench.path("repository"), bench.path("gnupg"));
        std::fs::set_permissions(&gnupg, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { root, gnupg, packages: String::new() }
    }

    pub fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(&self.gnupg).args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"]);
        command
    }

    /// Makes a key and gives the path of a keyring with it.
    pub fn key(&self, name: &str) -> PathBuf {
        let parameters = ["--passphrase", "", "--quick-gen-key", name, "ed25519", "sign", "never"];
        run(self.gpg().args(parameters));
        let path = self.root.with_file_name(format!("{name}.gpg"));
        std::fs::write(&path, run(self.gpg().args(["--export", name]))).unwrap();
        path
    }

    /// Builds a package from lines of a control file, scripts and files, and adds it to the list.
    pub fn add(&mut self, name: &str, version: &str, fields: &str, files: &[(&str, &str)]) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let tree = tempfile::tempdir().unwrap();
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Test <test@example.org>\n{fields}\
             Description: a test\n"
        );
        let control = ("DEBIAN/control", control.as_str());
        std::fs::set_permissions(tree.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        for (path, contents) in files.iter().chain([&control]) {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, contents).unwrap();
            let mode = if contents.starts_with("#!") { 0o755 } else { 0o644 };
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let file = format!("{name}_{}_all.deb", version.replace(':', "%3a"));
        let deb = self.root.join(&file);
        run(Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).args([tree.path(), &deb]));
        let hash = String::from_utf8(run(Command::new("sha256sum").arg(&deb))).unwrap();
        let (hash, size) = (hash.split(' ').next().unwrap(), deb.metadata().unwrap().len());
        writeln!(self.packages, "{}Filename: {file}\nSize: {size}\nSHA256: {hash}\n", control.1).unwrap();
        deb
    }

    /// Writes the lists of a suite and signs them.
    pub fn publish(&self, suite: &str, key: Option<&str>) {
        let dists = self.root.join("dists").join(suite);
        let list = dists.join("main/binary-amd64/Packages");
        std::fs::create_dir_all(list.parent().unwrap()).unwrap();
        std::fs::write(&list, &self.packages).unwrap();
        let hash = String::from_utf8(run(Command::new("sha256sum").arg(&list))).unwrap();
        let release = format!(
            "Origin: Test\nSuite: {suite}\nCodename: {suite}\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: amd64\n\
             Components: main\nSHA256:\n {} {} main/binary-amd64/Packages\n",
            hash.split(' ').next().unwrap(),
            self.packages.len()
        );
        let path = dists.join("Release");
        std::fs::write(&path, release).unwrap();
        if let Some(key) = key {
            let signed = dists.join("InRelease");
            run(self.gpg().args(["--local-user", key, "--clearsign", "--output"]).args([&signed, &path]));
        }
    }

    pub fn repositories(&self, keyring: Option<&Path>) -> Repositories {
        let mirror = format!("file://{}", self.root.display());
        let settings = Settings { local_mirror: Some(mirror), ..Settings::default() };
        let mut all = Repositories::new(&target("test"), &settings, &Host::default()).unwrap();
        if let Some(keyring) = keyring {
            let bind = |path: &Path| (path.to_owned(), path.to_owned());
            let (source, target) = bind(keyring);
            all.mounts.push(Mount::Bind { source, target, read_only: true, optional: false });
            all.sources[0].signed_by = Some(keyring.to_owned());
        }
        all
    }
}

pub fn target(release: &str) -> Target {
    let (distribution, architecture) = (Distribution::Debian, Architecture::X86_64);
    Target { distribution, release: release.to_owned(), architecture }
}
