//! What can't boot, and what is said of it.

use crate::project::{PROGRAMS, project};
use crate::support::stores::directory;

#[test]
fn what_is_missing_is_named() {
    let cache = directory("cache-");
    let project = project(&cache, "");
    std::fs::remove_dir_all(project.path().join("tree/usr/lib/modules")).unwrap();
    project.fails(&[]).says("linux-image-amd64");
    // Where it is up to the image, one without kernels doesn't boot.
    project.done(&["--bootable=auto"]);
    assert!(!project.output("image/efi/EFI").exists());
    crate::project::add_kernel(&project, "6.1");
    project.fails(&["--secure-boot=yes"]).says("mkosi genkey");
    // Debian's ukify of these tools has no option for that.
    project.fails(&["--split-artifacts=pcrs"]).says("SignExpectedPcrCertificate=");
    project.write("mkosi.crt", "");
    project.fails(&["--split-artifacts=pcrs"]).says("SplitArtifacts=pcrs needs ukify 258");
    std::fs::remove_file(project.path().join("mkosi.crt")).unwrap();
    std::fs::remove_file(project.path().join("tree").join(PROGRAMS).join("linuxx64.efi.stub")).unwrap();
    project.fails(&["--unified-kernel-images=unsigned"]).says("systemd-boot-efi");
    project
        .fails(&["--unified-kernel-images=none", "--splash=/usr/none", "--shim-bootloader=signed"])
        .says("shim-signed");
}

#[test]
fn a_key_is_made_once() {
    let project = project(&directory("cache-"), "");
    project.done(&["genkey", "--genkey-common-name=own", "--genkey-valid-days=3"]);
    use std::os::unix::fs::PermissionsExt;
    let key = project.path().join("mkosi.key");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let before = std::fs::read(&key).unwrap();
    project.fails(&["genkey"]).says("-f");
    assert!(std::fs::read(&key).unwrap() == before);
    project.done(&["genkey", "-f"]);
    assert!(std::fs::read(&key).unwrap() != before);
    project.fails(&["genkey", "-f", "--genkey-valid-days=soon"]).says("--genkey-valid-days");
}
