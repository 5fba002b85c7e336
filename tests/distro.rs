//! Debian packages through apt and dpkg, for real: small repositories made here, and one release of Debian from the
//! mirror that this host uses itself. Needs root (or subordinate ids), gpg, dpkg-deb and apt.

#[path = "distro/bench.rs"]
mod bench;
#[path = "distro/proxy.rs"]
mod proxy;
#[path = "distro/repository.rs"]
mod repository;
#[path = "distro/trixie.rs"]
mod trixie;

use std::path::{Path, PathBuf};
use std::process::Command;

use mkosi::distro::{
    Cx, Error, InstallOptions, Package, Repositories, Request, Source, download, install, installed, sync,
};
use mkosi::sandbox::Tools;

use bench::{Bench, assert_same, run};
use repository::{Repository, target};

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
