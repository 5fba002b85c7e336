//! A whole first tree from the mirror that the host's apt uses.

use super::*;
use crate::distro::{Distribution, Host, Settings, Target};
use crate::sandbox::Cancel;
use crate::types::Architecture;

#[test]
fn the_packages_of_a_real_release() {
    let target =
        Target { distribution: Distribution::Debian, release: "trixie".to_owned(), architecture: Architecture::host() };
    let host = Host::read(Path::new("/"));
    let repositories = Repositories::new(&target, &Settings::default(), &host).unwrap();
    let work = tempfile::tempdir().unwrap();
    let cancel = Cancel::default();
    let mut log = std::io::sink();
    let mut cx = Cx {
        cancel: &cancel,
        log: &mut log,
        tools: crate::sandbox::Tools::default(),
        work: work.path().to_owned(),
        parallel: true,
    };
    let packages = seed_packages(&mut cx, &repositories).unwrap();
    let names: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    for name in ["apt", "dpkg", "libc6", "base-files", "gpgv", "perl-base", "debian-archive-keyring"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    assert!((60..160).contains(&names.len()), "{names:?}");
    let at = |name: &str| names.iter().position(|n| *n == name).unwrap();
    assert!(at("libc6") < at("apt") && at("libapt-pkg7.0") < at("apt"), "{names:?}");
}
