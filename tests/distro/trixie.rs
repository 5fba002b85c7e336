//! One release of Debian from the mirror that this host uses itself.

use std::fmt::Write as _;
use std::path::Path;

use mkosi::distro::{
    Cx, Host, InstallOptions, Package, Repositories, Request, Settings, download, install, install_base, installed,
    remove,
};

use crate::bench::{Bench, assert_same};
use crate::repository::target;

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
