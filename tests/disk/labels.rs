//! Labels of SELinux, by a small policy; loop devices; the foreign range of ids.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use crate::project::{check, project};
use crate::support::stores::directory;
use crate::support::{MKOSI, Project, Ran, tool};

/// A policy of two types.
const POLICY: &str = "\
class file
class dir
sid kernel
class file { read }
class dir { read }
type etc_t;
type usr_t;
allow etc_t usr_t:file read;
user system_u roles object_r;
sid kernel system_u:object_r:etc_t
";

const CONTEXTS: &str = "/.*  system_u:object_r:usr_t\n/etc(/.*)?  system_u:object_r:etc_t\n/efi(/.*)?  <<none>>\n";

/// The label of a file in `/etc`, in an attribute: with an end, which it does not have in the policy's text.
const LABEL: &[u8] = b"system_u:object_r:etc_t\0";

/// A project with the policy in its tree.
fn labelled(cache: &Path, output: &str) -> Project {
    let project = project(cache, output);
    project.write("tree/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=small\n");
    project.write("tree/etc/selinux/small/contexts/files/file_contexts", CONTEXTS);
    project.write("policy.conf", POLICY);
    project.write("tree/etc/selinux/small/policy/none", "");
    let mut compile = Command::new("checkpolicy");
    compile.args(["-c", "31", "-o", "tree/etc/selinux/small/policy/policy.31", "policy.conf"]);
    tool(compile.current_dir(project.path()));
    project.script("mkosi.finalize", "echo made > \"$BUILDROOT/etc/made\"");
    project
}

fn has_label(path: &Path) -> bool {
    std::fs::read(path).unwrap().windows(LABEL.len()).any(|bytes| bytes == LABEL)
}

#[test]
fn every_file_is_labelled() {
    let project = labelled(&directory("cache-"), "SplitArtifacts=partitions,tar");
    project.write("mkosi.repart/10-root.conf", "[Partition]\nType=root\nFormat=ext4\nCopyFiles=/\nMinimize=guess\n");
    project.write("mkosi.repart/20-usr.conf", "[Partition]\nType=usr\nFormat=erofs\nCopyFiles=/etc:/\nMinimize=best\n");
    let get = "for f in etc etc/made etc/hostname opt/app efi/EFI/BOOT/BOOTX64.EFI; do\n\
               echo \"$f $(debugfs -R \"ea_get /$f security.selinux\" image.root-x86-64.raw)\"; done > labels";
    check(&project, &format!("e2fsck -fn image.root-x86-64.raw\nfsck.erofs image.usr-x86-64.raw\n{get}"));
    project.build();
    let label = |name: &str| {
        let labels = project.read("mkosi.output/labels");
        let line = labels.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).unwrap_or_default();
        line.split(':').nth(2).map(|kind| kind.trim_matches(|c: char| !c.is_alphanumeric() && c != '_').to_owned())
    };
    for (name, kind) in [("etc", "etc_t"), ("etc/made", "etc_t"), ("etc/hostname", "etc_t"), ("opt/app", "usr_t")] {
        assert!(
            label(name).is_some_and(|label| label.starts_with(kind)),
            "{name}: {}",
            project.read("mkosi.output/labels")
        );
    }
    assert_eq!(label("efi/EFI/BOOT/BOOTX64.EFI"), None);
    assert!(has_label(&project.output("image.usr-x86-64.raw")));
    let tar = std::fs::read(project.output("image.tar")).unwrap();
    let record = |name: &str, label: &[u8]| [name.as_bytes(), b"=", label].concat();
    let text = LABEL.strip_suffix(b"\0").unwrap();
    for record in [record("SCHILY.xattr.security.selinux", LABEL), record("RHT.security.selinux", text)] {
        assert!(tar.windows(record.len()).any(|bytes| bytes == record));
    }

    // Without a policy nothing is labelled, unless that is asked for.
    project.write("tree/etc/selinux/config", "SELINUX=enforcing\n");
    project.build();
    assert!(!has_label(&project.output("image.root-x86-64.raw")));
    project.configure("[Content]\nSELinuxRelabel=yes\n");
    project.fails(&[]).says("SELINUXTYPE=");
}

/// In a user namespace, as a user has one.
fn as_user(project: &Project) -> Ran {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--"]).arg(MKOSI);
    Ran::new(project.command_by::<&str>(command, &[]).output().unwrap())
}

/// Whether a user can label files on this kernel: where it has SELinux and no policy was loaded, every owner can.
fn users_label(project: &Project) -> bool {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--", "setfattr", "-n", "security.selinux", "-v", "x"]);
    command.arg(project.path().join("policy.conf")).output().unwrap().status.success()
}

#[test]
fn a_user_is_told_what_only_root_can_do() {
    let project = labelled(&directory("cache-"), "Bootable=no");
    let able = users_label(&project);
    let ran = as_user(&project);
    assert!(ran.success, "{}", ran.text);
    assert_eq!(has_label(&project.output("image.raw")), able);
    // Root's own build is another one.
    let ran = project.done(&["-f"]);
    assert!(ran.stages.contains_key("selinux"), "{}", ran.text);
    assert!(has_label(&project.output("image.raw")));

    let project = labelled(&directory("cache-"), "Bootable=no\n[Content]\nSELinuxRelabel=yes");
    let ran = as_user(&project);
    assert_eq!(ran.success, able, "{}", ran.text);
    if !able {
        ran.says("SELinuxRelabel=yes");
    }
    project.reconfigure("SELinuxRelabel=yes", "SELinuxRelabel=no\n[Build]\nRepartOffline=no");
    as_user(&project).says("RepartOffline=no");
    project.reconfigure("RepartOffline=no", "ForeignUIDRange=yes");
    project.reconfigure("Output=image", "Output=image\nFormat=directory");
    as_user(&project).says("ForeignUIDRange=yes");
}

#[test]
fn loop_devices_make_what_no_program_can() {
    let project = labelled(&directory("cache-"), "SplitArtifacts=partitions\n[Build]\nRepartOffline=no");
    // mkfs.xfs takes no attributes.
    project.write(
        "mkosi.repart/10-root.conf",
        "[Partition]\nType=root\nFormat=xfs\nCopyFiles=/\nSizeMinBytes=320M\nSizeMaxBytes=320M\n",
    );
    check(&project, "xfs_repair -n -f image.root-x86-64.raw");
    if Path::new("/dev/loop-control").exists() {
        project.build();
        assert!(has_label(&project.output("image.root-x86-64.raw")));
    } else {
        project.fails(&[]).says("modprobe loop");
    }
}

#[test]
fn a_directory_can_belong_to_the_foreign_range() {
    let project = project(&directory("cache-"), "Format=directory");
    project.script("mkosi.postinst", "chown 7:8 \"$BUILDROOT/opt/app\"");
    let owner = |name: &str| {
        let meta = project.output(name).symlink_metadata().unwrap();
        (meta.uid(), meta.gid())
    };
    project.build();
    assert_eq!((owner("image"), owner("image/opt/app")), ((0, 0), (7, 8)));
    project.configure("[Build]\nForeignUIDRange=yes\n");
    project.build_as_foretold().0.assert(&["publish"]);
    const FIRST: u32 = 2_147_352_576;
    assert_eq!((owner("image"), owner("image/opt/app")), ((FIRST, FIRST), (FIRST + 7, FIRST + 8)));
    // A container sees the ids of the tree.
    let busybox = project.output("image/bin");
    std::fs::create_dir_all(&busybox).unwrap();
    tool(Command::new("cp").arg("/bin/busybox").arg(&busybox));
    let shell = ["shell", "--", "/bin/busybox", "stat", "-c", "ids %u:%g", "/", "/opt/app"];
    let output = project.command(&shell).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && text.contains("ids 0:0") && text.contains("ids 7:8"), "{text}");
    project.done(&["clean"]);
    assert!(!project.output("image").exists());
}
