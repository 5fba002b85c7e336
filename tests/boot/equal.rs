//! Equal inputs give equal bytes, in formats other than disks and archives: those that are EFI programs, file systems with
//! one partition, and an initrd. All are images of one project, on one base.

use std::path::Path;
use std::process::Command;

use crate::project::project;
use crate::support::stores::directory;
use crate::support::{Project, tool};

/// The images: name, format and file.
const IMAGES: [(&str, &str, &str); 8] = [
    ("loader", "esp", "loader.raw"),
    ("system", "sysext", "system.raw"),
    ("configuration", "confext", "configuration.raw"),
    ("service", "portable", "service.raw"),
    ("unified", "uki", "unified.efi"),
    ("more", "addon", "more.efi"),
    ("initrd", "cpio", "initrd.cpio"),
    ("container", "oci", "container/index.json"),
];

/// A project whose files are written in the order of `numbers`.
fn formats(cache: &Path, numbers: impl Iterator<Item = usize>) -> Project {
    let project = project(cache, "");
    project.reconfigure("Format=directory", "Format=none");
    project.reconfigure("Bootable=yes\n", "");
    // Enough names that the order in which a directory lists them matters.
    for number in numbers {
        project.write(&format!("tree/usr/share/data/{number}"), &"content ".repeat(number * 50));
        project.write(&format!("tree/etc/own.d/{number}"), &format!("{number}\n"));
    }
    let base = "[Content]\nBaseTrees=../../tree\nInitrds=../../own.initrd\nCleanPackageMetadata=no\n";
    for (name, format, _) in IMAGES {
        let more = match format {
            "cpio" => "MakeInitrd=yes\nRootPassword=secret\n[Output]\nCompressOutput=none\n",
            "esp" => "Bootable=yes\n[Output]\nSectorSize=512\n",
            _ => "",
        };
        project.write(&format!("mkosi.images/{name}/mkosi.conf"), &format!("[Output]\nFormat={format}\n{base}{more}"));
    }
    project
}

#[test]
fn another_store_gives_the_same_bytes_in_every_format() {
    let first = formats(&directory("cache-"), 0..40);
    first.done(&[]);
    // At another time, in another place.
    let second = formats(&directory("cache-"), (0..40).rev());

    second.done(&[]);
    let mut differing = Vec::new();
    for (name, format, file) in IMAGES {
        let [one, other] = [&first, &second].map(|project| {
            std::fs::read(project.output(file)).unwrap_or_else(|error| panic!("{name}: {file}: {error}"))
        });
        assert!(!one.is_empty());
        if one != other {
            differing.push(format);
        }
    }
    assert!(differing.is_empty(), "another store, other bytes: {differing:?}");

    // Root's password is where it belongs, without the day of the build, and on no command line.
    let initrd = String::from_utf8_lossy(&std::fs::read(first.output("initrd.cpio")).unwrap()).into_owned();
    let line = initrd.split(|c: char| c.is_control()).find(|line| line.starts_with("root:$6$")).expect("a shadow file");
    assert!(line.ends_with(":::::::"), "{line}");
    assert!(!initrd.contains("credstore"));
    let told = tool(Command::new("grep").args(["-rh", "firstboot"]).arg(first.cache.join("store/logs")));
    assert!(told.contains("--prompt-root-password") && !told.contains("$6$"), "{told}");
}
