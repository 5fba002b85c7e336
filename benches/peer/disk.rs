//! A disk image that boots: a kernel and systemd on ext4, a unified kernel image with the default initrd, systemd-boot.
//! Both programs have the tools of the same tree, which ours makes first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::measure::{Table, run};
use crate::others::Python;
use crate::{clear, told};

const TOOLS: &str = "\
[Distribution]
Distribution=debian
Release=trixie

[Output]
Format=directory
Output=tools
OutputDirectory=mkosi.output

[Content]
Packages=
        apt
        cpio
        debian-archive-keyring
        dosfstools
        e2fsprogs
        gpgv
        kmod
        mtools
        python3
        systemd
        systemd-boot-tools
        systemd-repart
        systemd-ukify
        udev
        uidmap
        util-linux
        zstd
";

const DISK: &str = "\
[Distribution]
Distribution=debian
Release=trixie

[Output]
Format=disk
Output=disk
OutputDirectory=mkosi.output

[Content]
Bootable=yes
Bootloader=systemd-boot
KernelCommandLine=console=ttyS0
Packages=
        dbus
        KERNEL
        systemd
        systemd-boot-efi
        systemd-sysv
        udev
";

/// Where the projects and the tools are.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new(dir: &Path) -> Self {
        let place = Self { dir: dir.join("disk") };
        let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
        let disk = DISK.replace("KERNEL", &format!("linux-image-cloud-{architecture}"));
        for (project, text) in [("tools", TOOLS), ("ours", disk.as_str()), ("theirs", disk.as_str())] {
            fs::create_dir_all(place.dir.join(project)).expect("no directory");
            fs::write(place.dir.join(project).join("mkosi.conf"), text).expect("not written");
            place.edit(project, usize::MAX);
        }
        place
    }

    /// Changes the one file of `ExtraTrees=`.
    fn edit(&self, project: &str, round: usize) {
        let etc = self.dir.join(project).join("mkosi.extra/etc");
        fs::create_dir_all(&etc).expect("no directory");
        fs::write(etc.join("edited"), format!("{round}\n")).expect("not written");
    }

    fn tools(&self) -> PathBuf {
        self.dir.join("tools/mkosi.output/tools")
    }

    fn ours(&self, project: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mkosi"));
        command.arg("-C").arg(self.dir.join(project)).arg("--cache-directory").arg(self.dir.join("cache"));
        if project != "tools" {
            command.arg("--tools-tree").arg(self.tools());
        }
        command.args(arguments);
        command
    }
}

/// Measures a full build from warm package caches, and one after an edit. A test looks at the configuration alone.
pub fn measure(dir: &Path, table: &mut Table, rounds: usize, test: bool) {
    let place = Place::new(dir);
    let must = |command: Command| run(command, dir).unwrap_or_else(|why| panic!("{why}"));
    if test {
        must(place.ours("tools", &["summary"]));
        return;
    }
    must(place.ours("tools", &["build"]));
    must(place.ours("ours", &["build"]));
    let sources = crate::sources(&place.dir.join("cache")).expect("a build leaves its repositories in the store");
    let theirs = place.dir.join("theirs");
    let python = told(Python::new(dir, &sources, &theirs, Some(&place.tools())), "Debian's mkosi");
    for round in 0..rounds {
        let mut measured = |what: &'static str, who: &'static str, command: Command| match run(command, dir) {
            Ok(time) => table.add(what, who, time),
            Err(why) => assert!(who != "mkosi", "{why}"),
        };
        clear(&place.dir.join("ours/mkosi.output"));
        measured("disk, full", "mkosi", place.ours("ours", &["--no-cache", "build"]));
        if let Some(python) = &python {
            python.forget();
            measured("disk, full", "Debian's mkosi", python.command(&["-ff", "--cache-only=metadata", "build"]));
        }
        place.edit("ours", round);
        measured("disk, edit", "mkosi", place.ours("ours", &["build"]));
        if let Some(python) = &python {
            place.edit("theirs", round);
            measured("disk, edit", "Debian's mkosi", python.command(&["-f", "--cache-only=always", "build"]));
        }
    }
}
