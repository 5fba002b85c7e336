//! Equal inputs give equal bytes: in another store, for another user, and wherever a file system lists names.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use crate::project::{fill, project, tools};
use crate::support::stores::directory;
use crate::support::{MKOSI, Project, Ran, tool};

/// The default definitions, with an ESP, and one partition of each file system that is reproducible.
const DEFINITIONS: [(&str, &str); 4] = [
    ("00-esp", "Type=esp\nFormat=vfat\nCopyFiles=/efi:/\nSizeMinBytes=40M\nSizeMaxBytes=40M"),
    ("10-root", "Type=root\nFormat=ext4\nCopyFiles=/\nMinimize=guess\nMountPoint=/"),
    ("20-usr", "Type=usr\nFormat=erofs\nCopyFiles=/usr:/\nMinimize=best\nVerity=data\nVerityMatchKey=usr"),
    ("30-usr", "Type=usr-verity\nMinimize=best\nVerity=hash\nVerityMatchKey=usr"),
];

fn define(project: &Project) {
    // More than one attribute, which file systems list in orders of their own.
    let data = project.path().join("tree/usr/share/data");
    for name in ["user.b", "user.a", "user.c"] {
        tool(Command::new("setfattr").args(["-n", name, "-v", name]).arg(&data));
    }
    tool(Command::new("setfacl").args(["-m", "m::rx,d:o::rx"]).arg(&data));
    for (name, text) in DEFINITIONS {
        project.write(&format!("mkosi.repart/{name}.conf"), &format!("[Partition]\n{text}\n"));
    }
    project
        .write("mkosi.repart/40-var.conf", "[Partition]\nType=var\nFormat=squashfs\nCopyFiles=/usr:/\nMinimize=best\n");
}

fn disk(project: &Project) -> Vec<u8> {
    std::fs::read(project.output("image.raw")).unwrap()
}

#[test]
fn another_store_and_another_user_give_the_same_disk() {
    let first = project(&directory("cache-"), "");
    define(&first);
    first.build();
    let bytes = disk(&first);

    // Written in another order, at another time, in another place, and with so little memory that trees are copied
    // elsewhere.
    let second = Project::empty(&directory("cache-"));
    for number in (0..40).rev() {
        second.write(&format!("tree/efi/EFI/Linux/{number}.efi"), &format!("kernel {number}\n"));
    }
    fill(&second, "");
    define(&second);
    let memory = second.path().join("memory");
    std::fs::write(&memory, "MemTotal: 1000000 kB\nMemAvailable: 30000 kB\n").unwrap();
    let mut command = Command::new("unshare");
    let script = "mount --bind \"$0\" /proc/meminfo && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script]).arg(&memory).arg(MKOSI);
    let ran = Ran::new(second.command_by::<&str>(command, &[]).output().unwrap());
    assert!(ran.success, "{}", ran.text);
    assert!(disk(&second) == bytes, "another store, another disk");

    let user = format!("mkdisk{}", std::process::id());
    tool(Command::new("useradd").args(["--no-create-home", "--shell", "/bin/sh", &user]));
    let removed = Removed(&user);
    let ids = "820000-885535";
    tool(Command::new("usermod").args(["--add-subuids", ids, "--add-subgids", ids, &user]));
    let place = tempfile::tempdir().unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let program = place.path().join("mkosi");
    std::fs::copy(MKOSI, &program).unwrap();
    // The tools where the user reaches them.
    tool(Command::new("cp").args(["-a", "--reflink=auto"]).arg(tools()).arg(place.path().join("tools")));
    tool(Command::new("chmod").args(["-R", "a+rX"]).arg(place.path().join("tools")));
    let third = Project::within(place.path(), &place.path().join("cache"));
    fill(&third, "");
    define(&third);
    third.reconfigure(tools().to_str().unwrap(), place.path().join("tools").to_str().unwrap());
    let owner = format!("{user}:{user}");
    tool(Command::new("chown").args(["-R", &owner]).args([third.path(), program.as_path()]));
    tool(Command::new("chown").arg(&owner).arg(place.path()));
    let mut command = Command::new("runuser");
    command.args(["-u", &user, "--"]).arg(&program);
    let ran = Ran::new(third.command_by::<&str>(command, &[]).output().unwrap());
    assert!(ran.success, "{}", ran.text);
    assert!(disk(&third) == bytes, "another user, another disk");
    drop(removed);
}

struct Removed<'a>(&'a str);

impl Drop for Removed<'_> {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(self.0).output();
    }
}

/// The identifiers follow from the contents where no seed is given.
#[test]
fn another_tree_has_other_identifiers_unless_there_is_a_seed() {
    let cache = directory("cache-");
    let project = project(&cache, "Bootable=no");
    project.script("mkosi.postoutput", "cd \"$OUTPUTDIR\"\nsfdisk --json image.raw | grep '\"id\"\\|\"uuid\"' > ids");
    project.build();
    let ids = project.read("mkosi.output/ids");
    project.write("tree/etc/more", "more\n");
    project.build();
    let other = project.read("mkosi.output/ids");
    assert_ne!(other, ids);
    project.reconfigure("Bootable=no", "Bootable=no\nSeed=0e9a6fe0-68f6-408c-be13-136054d20445");
    project.build();
    let seeded = project.read("mkosi.output/ids");
    assert_ne!(seeded, other);
    project.write("tree/etc/more", "even more\n");
    project.build();
    assert_eq!(project.read("mkosi.output/ids"), seeded);
}
