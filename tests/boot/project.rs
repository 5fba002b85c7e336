//! Projects whose image is a small tree with kernels, and the tools tree that they are made with.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::support::Project;

const TOOLS: &str = "\
[Distribution]
Distribution=debian
Release=trixie

[Output]
Format=directory
Output=tools
OutputDirectory=mkosi.output

[Content]
Packages=cryptsetup-bin
         dosfstools
         e2fsprogs
         erofs-utils
         libengine-pkcs11-openssl
         libtss2-dev
         mtools
         opensc
         openssl
         pkcs11-provider
         sbsigntool
         softhsm2
         systemd
         systemd-boot-efi
         systemd-boot-tools
         systemd-repart
         systemd-ukify
";

/// Where systemd's EFI programs are in a tree.
pub const PROGRAMS: &str = "usr/lib/systemd/boot/efi";

/// The programs for booting, as a directory. Kept from one run to the next.
pub fn tools() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| crate::support::tree("boot", TOOLS))
}

/// A project with two kernels; `more` are further lines of `mkosi.conf`.
pub fn project(cache: &Path, more: &str) -> Project {
    let project = Project::empty(cache);
    project.write(
        "mkosi.conf",
        &format!(
            "[Distribution]\nDistribution=custom\n[Output]\nOutput=image\nFormat=directory\nOutputDirectory=mkosi.output\n\
             [Content]\nBaseTrees=tree\nBootable=yes\nKernelCommandLine=quiet first\nInitrds=own.initrd\n\
             [Build]\nToolsTree={}\nBuildSources=src\n{more}\n",
            tools().display()
        ),
    );
    project.write("tree/usr/lib/os-release", "ID=debian\nIMAGE_ID=small\nPRETTY_NAME=\"A system\"\n");
    project.write("own.initrd", "an initrd\n");
    project.write("src/nothing", "");
    for name in ["linuxx64.efi.stub", "addonx64.efi.stub", "systemd-bootx64.efi"] {
        copy(&tools().join(PROGRAMS).join(name), &project.path().join("tree").join(PROGRAMS).join(name));
    }
    for version in ["6.9.1", "6.12.3"] {
        add_kernel(&project, version);
    }
    project
}

/// Adds a kernel to the tree.
pub fn add_kernel(project: &Project, version: &str) {
    let to = project.path().join(format!("tree/usr/lib/modules/{version}/vmlinuz"));
    copy(&tools().join(PROGRAMS).join("systemd-bootx64.efi"), &to);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.parent().unwrap()).unwrap();
    std::fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}
