//! Projects whose image is a small tree of plain files, and the tools tree that they are made with.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::support::{Project, tool};

/// What makes and checks disks.
const TOOLS: &str = "\
[Distribution]
Distribution=debian
Release=trixie

[Output]
Format=directory
Output=tools
OutputDirectory=mkosi.output

[Content]
Packages=btrfs-progs
         cryptsetup-bin
         dosfstools
         e2fsprogs
         erofs-utils
         fdisk
         grub-common
         grub-pc-bin
         mtools
         openssl
         policycoreutils
         squashfs-tools
         systemd
         systemd-container
         systemd-repart
         xfsprogs
";

/// The programs for disks, as a directory. Kept from one run to the next.
pub fn tools() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| crate::support::tree("disk", TOOLS))
}

/// A project with a tree of some files, without packages and scripts.
pub fn project(cache: &Path, output: &str) -> Project {
    let project = Project::empty(cache);
    fill(&project, output);
    project
}

/// Writes the files of such a project; `output` are lines of its section `[Output]`.
pub fn fill(project: &Project, output: &str) {
    project.write(
        "mkosi.conf",
        &format!(
            "[Distribution]\nDistribution=custom\n[Output]\nOutput=image\nOutputDirectory=mkosi.output\n{output}\n\
             [Content]\nBaseTrees=tree\nCleanPackageMetadata=no\n[Build]\nToolsTree={}\n",
            tools().display()
        ),
    );
    project.write("tree/usr/lib/os-release", "ID=debian\nVERSION_ID=13\nPRETTY_NAME=\"A system\"\n");
    // Enough names that the order in which a directory lists them matters.
    for number in 0..40 {
        project.write(&format!("tree/usr/share/data/{number}"), &"content ".repeat(number * 50));
        project.write(&format!("tree/efi/EFI/Linux/{number}.efi"), &format!("kernel {number}\n"));
    }
    project.write("tree/efi/EFI/BOOT/BOOTX64.EFI", "loader\n");
    project.write("tree/boot/loader.conf", "timeout 3\n");
    project.write("tree/etc/hostname", "disk\n");
    project.write("tree/opt/app", "app\n");
}

/// A key and a certificate for the root hash.
pub fn add_keys(project: &Project) {
    let path = |name: &str| project.path().join(name);
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=test", "-keyout"]);
    tool(command.arg(path("mkosi.key")).arg("-out").arg(path("mkosi.crt")));
}

/// A script that looks at the outputs with the tools that made them. It leaves the partition table as `table.json`.
pub fn check(project: &Project, checks: &str) {
    let text = format!("cd \"$OUTPUTDIR\"\nsfdisk --verify image.raw\nsfdisk --json image.raw > table.json\n{checks}");
    project.script("mkosi.postoutput", &text);
}

/// Types of the partitions in the table that the script left.
pub fn partition_names(project: &Project) -> Vec<String> {
    let table: serde_json::Value = serde_json::from_str(&project.read("mkosi.output/table.json")).unwrap();
    let partitions = table["partitiontable"]["partitions"].as_array().unwrap();
    partitions.iter().map(|partition| partition["name"].as_str().unwrap().to_owned()).collect()
}
