//! Debian packages through apt and dpkg, for real: small repositories made here, and one release of Debian from the
//! mirror that this host uses itself. Needs root (or subordinate ids), gpg, dpkg-deb and apt.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use mkosi::distro::{
    Cx, Distribution, Error, Host, InstallOptions, Package, Proxy, Repositories, Request, Resolution, Settings, Source,
    Target, download, install, install_base, installed, remove, resolve, sync,
};
use mkosi::sandbox::{Cancel, HostRoot, Input, Mount, Output, Spec, Tools, host_root, set_executable};
use mkosi::types::Architecture;

/// Where one test works: its files, its log, and what the functions need.
struct Bench {
    dir: tempfile::TempDir,
    log: Vec<u8>,
    cancel: Cancel,
}

impl Bench {
    fn new() -> Self {
        set_executable(PathBuf::from(env!("CARGO_BIN_EXE_mkosi")));
        Self { dir: tempfile::tempdir().unwrap(), log: Vec::new(), cancel: Cancel::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn cx(&mut self) -> Cx<'_> {
        let work = self.path("work");
        Cx { cancel: &self.cancel, log: &mut self.log, tools: Tools::default(), work, parallel: true }
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&self.log).into_owned()
    }

    fn sync(&mut self, repositories: &Repositories) -> Result<Vec<String>, Error> {
        let out = self.path("synced");
        std::fs::remove_dir_all(&out).unwrap();
        sync(&mut self.cx(), repositories, &out).map(|info| info.warnings)
    }

    fn resolve(&mut self, repositories: &Repositories, request: &Request) -> Result<Resolution, Error> {
        let synced = self.path("synced");
        resolve(&mut self.cx(), repositories, &synced, None, request)
    }

    fn packages(&mut self, repositories: &Repositories, packages: &[&str]) -> Result<Vec<Package>, Error> {
        let packages = packages.iter().map(|p| (*p).to_owned()).collect();
        self.resolve(repositories, &Request { packages, ..Request::default() }).map(|r| r.packages)
    }

    /// A layer on others, lowest first: its upper directory, and the mount.
    fn layer(&self, name: &str, lowers: &[&str]) -> (PathBuf, Mount) {
        let (upper, work) = (self.path(name), self.path(&format!("{name}.work")));
        let lowers = lowers.iter().map(|lower| self.path(lower)).collect();
        (upper.clone(), Mount::Overlay { lowers, upper: Some((upper, work)), target: "/buildroot".into() })
    }

    /// Runs a script in the tree that the mount shows.
    fn chroot(&self, root: Mount, script: &str) -> (bool, String) {
        let mut mounts = host_root(&HostRoot::default());
        mounts.push(root);
        mounts.push(Mount::Proc { target: "/buildroot/proc".into() });
        let argv = ["chroot", "/buildroot", "sh", "-c", script].map(str::to_owned).to_vec();
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned())]);
        let spec = Spec { argv, env, mounts, ..Spec::default() };
        let mut text = Vec::new();
        let exit = spec.run(Input::Null, Output::Merged(&mut text), &self.cancel).unwrap();
        (exit.success(), String::from_utf8(text).unwrap())
    }
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A repository in a directory, signed with a key of its own.
struct Repository {
    root: PathBuf,
    gnupg: PathBuf,
    packages: String,
}

impl Repository {
    fn new(bench: &Bench) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let (root, gnupg) = (bench.path("repository"), bench.path("gnupg"));
        std::fs::set_permissions(&gnupg, std::fs::Permissions::from_mode(0o700)).unwrap();
        Self { root, gnupg, packages: String::new() }
    }

    fn gpg(&self) -> Command {
        let mut command = Command::new("gpg");
        command.arg("--homedir").arg(&self.gnupg).args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback"]);
        command
    }

    /// Makes a key and gives the path of a keyring with it.
    fn key(&self, name: &str) -> PathBuf {
        let parameters = ["--passphrase", "", "--quick-gen-key", name, "ed25519", "sign", "never"];
        run(self.gpg().args(parameters));
        let path = self.root.with_file_name(format!("{name}.gpg"));
        std::fs::write(&path, run(self.gpg().args(["--export", name]))).unwrap();
        path
    }

    /// Builds a package from lines of a control file, scripts and files, and adds it to the list.
    fn add(&mut self, name: &str, version: &str, fields: &str, files: &[(&str, &str)]) -> PathBuf {
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
    fn publish(&self, suite: &str, key: Option<&str>) {
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

    fn repositories(&self, keyring: Option<&Path>) -> Repositories {
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

fn target(release: &str) -> Target {
    let (distribution, architecture) = (Distribution::Debian, Architecture::X86_64);
    Target { distribution, release: release.to_owned(), architecture }
}

#[test]
fn signatures_are_checked() {
    let mut bench = Bench::new();
    let mut repository = Repository::new(&bench);
    repository.add("a", "1", "", &[]);
    let (good, other) = (repository.key("good"), repository.key("other"));
    repository.publish("test", Some("good"));
    assert_eq!(bench.sync(&repository.repositories(Some(&good))).unwrap(), [""; 0]);
    assert_eq!(bench.sync(&repository.repositories(None)).unwrap(), [""; 0]);
    let error = bench.sync(&repository.repositories(Some(&other))).unwrap_err();
    assert!(matches!(error, Error::Signature { .. }), "{error}");
    // One byte changed after signing.
    let path = repository.root.join("dists/test/InRelease");
    let text = std::fs::read_to_string(&path).unwrap().replace("Origin: Test", "Origin: Tess");
    std::fs::write(&path, text).unwrap();
    let error = bench.sync(&repository.repositories(Some(&good))).unwrap_err();
    assert!(matches!(error, Error::Signature { .. }), "{error}");
    // A list that is not the signed one.
    repository.publish("test", Some("good"));
    std::fs::write(repository.root.join("dists/test/main/binary-amd64/Packages"), "Package: evil\n").unwrap();
    let error = bench.sync(&repository.repositories(Some(&good))).unwrap_err();
    assert!(matches!(error, Error::Sync { .. }), "{error}");
}

/// A server that has nothing, for one run of apt: it tells the first lines of what it is asked for.
fn asked(mut action: impl FnMut(&str)) -> Vec<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let mut lines = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
                let Some(line) = head.lines().next() else { break };
                if line == "END" {
                    return lines;
                }
                lines.push(line.to_owned());
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
        }
        lines
    });
    action(&address);
    std::net::TcpStream::connect(address).unwrap().write_all(b"END\r\n\r\n").unwrap();
    server.join().unwrap()
}

#[test]
fn a_proxy_is_asked_but_for_what_is_excluded() {
    let mut bench = Bench::new();
    let mut sync = |mirror: &str, proxy: Proxy| {
        let settings = Settings { mirror: Some(mirror.to_owned()), key_check: false, proxy, ..Settings::default() };
        let mut repositories = Repositories::new(&target("test"), &settings, &Host::default()).unwrap();
        repositories.sources.truncate(1);
        bench.sync(&repositories).unwrap_err();
    };
    let through = asked(|address| {
        let url = Some(format!("http://{address}"));
        sync("http://mirror.invalid", Proxy { url, ..Proxy::default() });
    });
    assert_eq!(through[0], "GET http://mirror.invalid/debian/dists/test/InRelease HTTP/1.1", "{through:?}");
    for entry in ["127.0.0.1", "*"] {
        let directly = asked(|address| {
            let (url, exclude) = (Some("http://proxy.invalid:1".to_owned()), vec![entry.to_owned()]);
            sync(&format!("http://{address}"), Proxy { url, exclude, ..Proxy::default() });
        });
        assert_eq!(directly[0], "GET /debian/dists/test/InRelease HTTP/1.1", "{directly:?}");
    }
}

#[test]
fn synchronised_lists_are_the_same_every_time() {
    let mut bench = Bench::new();
    let mut repository = Repository::new(&bench);
    repository.add("a", "1", "", &[]);
    repository.publish("test", None);
    let mut all = repository.repositories(None);
    let optional = Source { suite: "test-security".to_owned(), optional: true, ..all.sources[0].clone() };
    all.sources.push(optional);
    let warnings = bench.sync(&all).unwrap();
    assert_eq!(warnings.len(), 1, "{}", bench.log());
    assert!(warnings[0].contains("test-security"), "{warnings:?}");
    let names = || {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(bench.dir.path().join("synced/lists")).unwrap() {
            let entry = entry.unwrap();
            found.push((entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()));
        }
        found.sort();
        found
    };
    let first = names();
    assert!(first.iter().all(|(name, _)| name != "lock" && name != "partial" && name != "auxfiles"));
    assert!(first.iter().any(|(name, _)| name.ends_with("_Packages")));
    sync_again(&bench, &all);
    assert_eq!(names(), first);
    // A suite that must be there is an error.
    all.sources[1].optional = false;
    assert!(matches!(bench.sync(&all), Err(Error::Sync { .. })));
}

fn sync_again(bench: &Bench, all: &Repositories) {
    let mut other = Bench::new();
    other.sync(all).unwrap();
    let (from, to) = (other.path("synced"), bench.path("synced"));
    std::fs::remove_dir_all(&to).unwrap();
    run(Command::new("cp").arg("-r").args([from, to]));
}

#[test]
fn names_versions_and_dependencies() {
    let mut bench = Bench::new();
    let mut repository = Repository::new(&bench);
    repository.add("frobnicate", "1:1.0", "Depends: helper\nRecommends: extra\n", &[]);
    repository.add("frobnicate", "1:2.0", "Depends: helper\nRecommends: extra\n", &[]);
    repository.add("helper", "3", "Provides: aid\n", &[]);
    repository.add("extra", "4", "", &[]);
    repository.add("broken", "1", "Depends: nowhere\n", &[]);
    repository.add("rival", "1", "Conflicts: helper\n", &[]);
    repository.publish("test", None);
    let all = repository.repositories(None);
    bench.sync(&all).unwrap();
    let show = |packages: Vec<Package>| {
        packages.iter().map(|p| format!("{}={}{}", p.name, p.version, if p.automatic { " auto" } else { "" })).collect()
    };
    let found: Vec<String> = show(bench.packages(&all, &["frobnicate"]).unwrap());
    assert_eq!(found, ["helper=3 auto", "frobnicate=1:2.0"]);
    let found: Vec<String> = show(bench.packages(&all, &["frobnicate=1:1.0", "aid"]).unwrap());
    assert_eq!(found, ["helper=3", "frobnicate=1:1.0"]);
    let found: Vec<String> = show(bench.packages(&all, &["extra/test"]).unwrap());
    assert_eq!(found, ["extra=4"]);
    let request = Request {
        packages: vec!["helper".to_owned()],
        build_packages: vec!["frobnicate".to_owned(), "helper".to_owned()],
        recommends: true,
        ..Request::default()
    };
    let both = bench.resolve(&all, &request).unwrap();
    assert_eq!(show(both.packages), ["helper=3"]);
    assert_eq!(show(both.build), ["extra=4 auto", "frobnicate=1:2.0"]);

    let error = bench.packages(&all, &["frobnikate"]).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::UnknownPackage { .. }) && text.contains("did you mean `frobnicate`"), "{text}");
    let text = bench.packages(&all, &["frobnicate=9"]).unwrap_err().to_string();
    assert!(text.contains("`9`") && text.contains("1:1.0, 1:2.0"), "{text}");
    let error = bench.packages(&all, &["broken"]).unwrap_err();
    assert!(
        matches!(error, Error::Unsolvable { .. }) && error.to_string().contains("nowhere"),
        "{error}\n{}",
        bench.log()
    );
    let request =
        Request { packages: vec!["helper".to_owned()], build_packages: vec!["rival".to_owned()], ..Request::default() };
    let error = bench.resolve(&all, &request).unwrap_err();
    assert!(matches!(error, Error::Unsolvable { .. }) && error.to_string().contains("helper"), "{error}");
}

#[test]
fn downloads_are_verified_and_a_missing_package_is_gone() {
    let mut bench = Bench::new();
    let mut repository = Repository::new(&bench);
    let (a, b) = (repository.add("a", "1", "", &[]), repository.add("b", "1", "", &[("usr/b", "b")]));
    repository.publish("test", None);
    let all = repository.repositories(None);
    bench.sync(&all).unwrap();
    let packages = bench.packages(&all, &["a", "b"]).unwrap();
    let pool = bench.path("pool");
    let kept = std::fs::read(&b).unwrap();
    std::fs::remove_file(&b).unwrap();
    let error = download(&mut bench.cx(), &packages, &all, &pool).unwrap_err();
    let Error::Gone { files } = &error else { panic!("{error}") };
    assert_eq!(files.as_slice(), ["b_1_all.deb"]);
    // The other one was kept, and nothing else.
    let left = |pool: &Path| std::fs::read_dir(pool).unwrap().count();
    assert_eq!(left(&pool), 1);
    // A package that is not what the lists say.
    let mut wrong = kept.clone();
    *wrong.last_mut().unwrap() ^= 1;
    std::fs::write(&b, wrong).unwrap();
    let error = download(&mut bench.cx(), &packages, &all, &pool).unwrap_err();
    assert!(matches!(error, Error::Download { .. }), "{error}");
    std::fs::write(&b, kept).unwrap();
    download(&mut bench.cx(), &packages, &all, &pool).unwrap();
    assert_eq!(left(&pool), 2);
    // All there: the repository is not asked. A damaged file is fetched again.
    std::fs::remove_file(&b).unwrap();
    download(&mut bench.cx(), &packages, &all, &pool).unwrap();
    let path = mkosi::distro::pool_path(&pool, &packages[0]);
    std::fs::write(&path, vec![0; packages[0].size as usize]).unwrap();
    download(&mut bench.cx(), &packages, &all, &pool).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), std::fs::read(&a).unwrap());
}

/// Installs packages in an empty tree both ways, and gives the tree and whether the parallel way was gone.
fn install_both_ways(bench: &mut Bench, all: &Repositories, names: &[&str]) -> (PathBuf, bool) {
    bench.sync(all).unwrap();
    let packages = bench.packages(all, names).unwrap();
    let pool = bench.path("pool");
    download(&mut bench.cx(), &packages, all, &pool).unwrap();
    let options = InstallOptions::new(&target("test"));
    for name in ["fast", "slow"] {
        // What base packages bring.
        for path in ["etc", "usr/sbin", "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
            std::fs::create_dir_all(bench.path(name).join(path)).unwrap();
        }
        for file in ["status", "available", "triggers/Unincorp"] {
            std::fs::write(bench.path(name).join("var/lib/dpkg").join(file), "").unwrap();
        }
        let (_, root) = bench.layer(name, &[]);
        let mut cx = Cx { parallel: name == "fast", ..bench.cx() };
        let done = install(&mut cx, root, &pool, &packages, &options);
        done.unwrap_or_else(|e| panic!("{name}: {e}\n{}", bench.log()));
    }
    assert_same(&[&bench.path("fast")], &[&bench.path("slow")]);
    (bench.path("fast"), bench.log().contains("packages are unpacked together"))
}

#[test]
fn plain_packages_are_unpacked_in_parallel() {
    let mut bench = Bench::new();
    let mut repository = Repository::new(&bench);
    repository.add(
        "a",
        "1",
        "",
        &[("etc/a.conf", "a"), ("DEBIAN/conffiles", "/etc/a.conf\n"), ("usr/lib/shared/a", "a")],
    );
    repository.add("b", "2", "Depends: a\n", &[("usr/lib/shared/b", "b"), ("DEBIAN/md5sums", "")]);
    repository.add(
        "c",
        "3",
        "Depends: b\n",
        &[("DEBIAN/md5sums", ""), ("DEBIAN/triggers", "interest-noawait /usr/lib/shared\n")],
    );
    repository.publish("test", None);
    let all = repository.repositories(None);
    let (tree, parallel) = install_both_ways(&mut bench, &all, &["c"]);
    assert!(!parallel, "a package without checksums is dpkg's");
    assert_eq!(std::fs::read_to_string(tree.join("etc/a.conf")).unwrap(), "a");

    let mut bench = Bench::new();
    let mut repository = Repository::new(&bench);
    let conf = [("etc/a.conf", "a"), ("DEBIAN/conffiles", "/etc/a.conf\n"), ("DEBIAN/md5sums", "")];
    repository.add("a", "1", "", &conf);
    repository.add("b", "2", "Depends: a\n", &[("usr/lib/shared/b", "b"), ("DEBIAN/md5sums", "")]);
    repository.publish("test", None);
    let all = repository.repositories(None);
    let (tree, parallel) = install_both_ways(&mut bench, &all, &["b"]);
    assert!(parallel, "{}", bench.log());
    assert!(!tree.join("etc/a.conf.dpkg-new").exists());
    assert_eq!(installed(&tree).unwrap().len(), 2);
}

#[test]
fn a_file_of_two_packages_is_left_to_dpkg() {
    let mut bench = Bench::new();
    let mut repository = Repository::new(&bench);
    repository.add("a", "1", "", &[("usr/lib/same", "a"), ("DEBIAN/md5sums", "")]);
    repository.add("b", "2", "Replaces: a\nDepends: a\n", &[("usr/lib/same", "b"), ("DEBIAN/md5sums", "")]);
    repository.publish("test", None);
    let all = repository.repositories(None);
    let (tree, parallel) = install_both_ways(&mut bench, &all, &["b"]);
    assert!(!parallel);
    assert_eq!(std::fs::read_to_string(tree.join("usr/lib/same")).unwrap(), "b");
}

#[test]
fn a_missing_tool_is_named() {
    let mut bench = Bench::new();
    let repository = Repository::new(&bench);
    repository.publish("test", None);
    let (synced, work) = (bench.path("synced"), bench.path("work"));
    let empty = bench.path("empty");
    std::fs::create_dir(empty.join("usr")).unwrap();
    let tools = Tools { layers: vec![empty], ..Tools::default() };
    let mut cx = Cx { cancel: &bench.cancel, log: &mut bench.log, tools, work, parallel: false };
    let error = sync(&mut cx, &repository.repositories(None), &synced).unwrap_err();
    assert!(matches!(error, Error::MissingTool { .. }) && error.to_string().contains("`apt`"), "{error}");
}

#[test]
fn debian_trixie_from_the_hosts_mirror() {
    let mut bench = Bench::new();
    let host = Host::read(Path::new("/")).with_network_settings();
    let target = target("trixie");
    let all = Repositories::new(&target, &Settings::default(), &host).unwrap();
    let mut clock = Clock::new();
    bench.sync(&all).unwrap();
    clock.lap("sync");
    let packages = ["systemd", "udev", "dbus"].map(str::to_owned).to_vec();
    let request = Request { base: true, packages, build_packages: vec!["make".to_owned()], ..Request::default() };
    let chosen = bench.resolve(&all, &request).unwrap();
    clock.lap("resolve");
    let names = |list: &[Package]| list.iter().map(|p| p.name.clone()).collect::<Vec<_>>();
    assert!(names(&chosen.base).contains(&"base-files".to_owned()) && !names(&chosen.base).contains(&"apt".to_owned()));
    assert!(names(&chosen.packages).contains(&"udev".to_owned()), "{:?}", names(&chosen.packages));
    assert_eq!(names(&chosen.build), ["make"]);
    let fewer = Request { packages: vec!["udev".to_owned()], build_packages: Vec::new(), ..request };
    assert_eq!(bench.resolve(&all, &fewer).unwrap().base, chosen.base);

    let pool = bench.path("pool");
    let everything: Vec<Package> =
        [&chosen.base, &chosen.packages, &chosen.build].into_iter().flatten().cloned().collect();
    clock.lap("resolve again");
    download(&mut bench.cx(), &everything, &all, &pool).unwrap();
    clock.lap("download");
    download(&mut bench.cx(), &everything, &all, &pool).unwrap();
    clock.lap("verify");
    let options = InstallOptions::new(&target);
    let (base, root) = bench.layer("base", &[]);
    install_base(&mut bench.cx(), root, &pool, &chosen.base, &options)
        .unwrap_or_else(|e| panic!("{e}\n{}", bench.log()));
    clock.lap("install base");
    let (layer, root) = bench.layer("packages", &["base"]);
    install(&mut bench.cx(), root, &pool, &chosen.packages, &options)
        .unwrap_or_else(|e| panic!("{e}\n{}", bench.log()));
    clock.lap("install packages");
    assert_eq!(bench.log().matches("packages are unpacked together").count(), 3, "{}", bench.log());

    // dpkg alone makes the very same trees.
    let (plain, root) = bench.layer("plain", &[]);
    install_base(&mut Cx { parallel: false, ..bench.cx() }, root, &pool, &chosen.base, &options).unwrap();
    clock.lap("install base by dpkg alone");
    assert_same(&[&base], &[&plain]);
    let (plain, root) = bench.layer("plain-packages", &["base"]);
    install(&mut Cx { parallel: false, ..bench.cx() }, root, &pool, &chosen.packages, &options).unwrap();
    clock.lap("install packages by dpkg alone");
    assert_same(&[&base, &layer], &[&base, &plain]);

    for path in ["var/log/dpkg.log", "var/log/apt", "var/cache/ldconfig/aux-cache", "usr/sbin/policy-rc.d"] {
        assert!(!base.join(path).exists() && !layer.join(path).exists(), "{path}");
    }
    assert_eq!(std::fs::read_to_string(layer.join("etc/machine-id")).unwrap(), "uninitialized\n");
    assert!(base.join("usr/share/doc/bash/README.Debian.gz").exists());
    let have = installed(&layer).unwrap();
    assert_eq!(have.len(), chosen.base.len() + chosen.packages.len());
    let check = "dpkg --audit; dpkg --verify; test -e /usr/lib/systemd/systemd && mount --version";
    let (_, root) = bench.layer("check", &["base", "packages"]);
    let (good, text) = bench.chroot(root, check);
    assert!(good && text.lines().count() == 1 && text.starts_with("mount from"), "{text}");

    let bare = InstallOptions { docs: false, ..options.clone() };
    let (thin, root) = bench.layer("thin", &[]);
    install_base(&mut bench.cx(), root, &pool, &chosen.base, &bare).unwrap();
    let (plain, root) = bench.layer("plain-thin", &[]);
    install_base(&mut Cx { parallel: false, ..bench.cx() }, root, &pool, &chosen.base, &bare).unwrap();
    assert_same(&[&thin], &[&plain]);
    assert!(!thin.join("usr/share/man/man1").exists() && thin.join("usr/share/doc/bash/copyright").exists());
    assert!(!thin.join("usr/share/doc/bash/README.Debian.gz").exists());
    clock.lap("install the base without documentation, both ways");

    let (upper, root) = bench.layer("removed", &["base", "packages"]);
    remove(&mut bench.cx(), root, &["dbus".to_owned()], &options).unwrap_or_else(|e| panic!("{e}\n{}", bench.log()));
    clock.lap("remove");
    let left: Vec<String> = installed(&upper).unwrap().into_iter().map(|p| p.name).collect();
    assert!(!left.contains(&"dbus".to_owned()) && !left.contains(&"dbus-daemon".to_owned()), "{left:?}");
    assert!(left.contains(&"udev".to_owned()));
    let (_, root) = bench.layer("check2", &["base", "packages", "removed"]);
    let (good, text) = bench.chroot(root, "dpkg --audit && dpkg --verify && test ! -e /usr/bin/dbus-daemon");
    assert!(good && text.is_empty(), "{text}");
    clock.print();
}

/// Every entry below a directory: what it is, owner, mode, and the digest of what it holds. No times.
fn listing(root: &Path) -> BTreeMap<String, String> {
    use std::os::unix::fs::MetadataExt;
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let data = path.symlink_metadata().unwrap();
        let content = if data.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else if data.is_symlink() {
            std::fs::read_link(&path).unwrap().display().to_string()
        } else if data.is_file() {
            mkosi::types::Digest::of(&std::fs::read(&path).unwrap()).to_string()
        } else {
            "special".to_owned()
        };
        let links = if data.is_file() { data.nlink() } else { 0 };
        let text = format!("{:o} {}:{} {links} {content}", data.mode(), data.uid(), data.gid());
        found.insert(path.strip_prefix(root).unwrap().display().to_string(), text);
    }
    found
}

/// Asserts that two trees, each of layers from the lowest to the topmost, are equal, and names what differs.
fn assert_same(one: &[&Path], other: &[&Path]) {
    let tree = |layers: &[&Path]| layers.iter().flat_map(|layer| listing(layer)).collect::<BTreeMap<_, _>>();
    let (one, other) = (tree(one), tree(other));
    let names: std::collections::BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differ: Vec<String> = names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name))
        .map(|name| format!("{name}: {:?} != {:?}", one.get(name), other.get(name)))
        .collect();
    assert!(differ.is_empty(), "{} entries differ:\n{}", differ.len(), differ.join("\n"));
}

/// How long the steps of a test took; shown with `--nocapture`.
struct Clock {
    last: std::time::Instant,
    text: String,
}

impl Clock {
    fn new() -> Self {
        Self { last: std::time::Instant::now(), text: String::new() }
    }

    fn lap(&mut self, what: &str) {
        let _ = writeln!(self.text, "{what}: {:.2} s", self.last.elapsed().as_secs_f64());
        self.last = std::time::Instant::now();
    }

    fn print(&self) {
        println!("{}", self.text);
    }
}
