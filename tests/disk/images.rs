//! Disks with definitions of their own, and the defaults.

use std::process::Command;

use crate::project::{add_keys, check, partition_names, project};
use crate::support::stores::directory;
use crate::support::{Project, tool};

/// One partition of each kind of file system, verity with a signature, and boot partitions.
const DEFINITIONS: [(&str, &str); 10] = [
    ("00-esp", "Type=esp\nFormat=vfat\nCopyFiles=/efi:/\nSizeMinBytes=40M\nSizeMaxBytes=40M"),
    ("05-xbootldr", "Type=xbootldr\nFormat=vfat\nCopyFiles=/boot:/\nSizeMinBytes=40M\nSizeMaxBytes=40M"),
    ("10-usr", "Type=usr\nFormat=erofs\nCopyFiles=/usr:/\nVerity=data\nVerityMatchKey=usr\nMinimize=best"),
    ("11-usr-verity", "Type=usr-verity\nVerity=hash\nVerityMatchKey=usr\nMinimize=best"),
    ("12-usr-sig", "Type=usr-verity-sig\nVerity=signature\nVerityMatchKey=usr"),
    ("20-root", "Type=root\nFormat=ext4\nCopyFiles=/\nMinimize=guess\nMountPoint=/"),
    ("30-home", "Type=home\nFormat=btrfs\nCopyFiles=/usr:/\nSizeMinBytes=128M\nSizeMaxBytes=128M\nMountPoint=/home"),
    ("40-srv", "Type=srv\nFormat=xfs\nCopyFiles=/usr:/\nSizeMinBytes=320M\nSizeMaxBytes=320M"),
    ("50-var", "Type=var\nFormat=squashfs\nCopyFiles=/usr:/\nMinimize=best"),
    ("60-swap", "Type=swap\nFormat=swap\nSizeMinBytes=1M\nSizeMaxBytes=1M"),
];

/// Each partition by the tool of its file system; what is in them; the hashes.
///
/// By another name, since systemd-dissect takes a root hash beside an image for that of its root partition.
const CHECKS: &str = "\
ln image.raw whole.raw
systemd-dissect --validate --image-policy=usr=signed:=open whole.raw
if systemd-dissect --validate --image-policy=root=signed:=open whole.raw; then exit 1; fi
rm whole.raw
e2fsck -fn image.root-x86-64.raw
debugfs -R 'cat /etc/fstab' image.root-x86-64.raw > fstab
btrfs check --readonly image.home.raw
xfs_repair -n -f image.srv.raw
fsck.vfat -n image.esp.raw
fsck.vfat -n image.xbootldr.raw
mdir -b -s -i image.esp.raw :: > esp
fsck.erofs image.usr-x86-64.raw
unsquashfs -lc image.var.raw > squashfs
unsquashfs -quiet -no-progress -dest unpacked image.var.raw
rm -r unpacked
veritysetup verify image.usr-x86-64.raw image.usr-x86-64-verity.raw \"$(cat image.roothash)\"
";

fn definitions(project: &Project) {
    for (name, text) in DEFINITIONS {
        project.write(&format!("mkosi.repart/{name}.conf"), &format!("[Partition]\n{text}\n"));
    }
}

#[test]
fn partitions_of_every_kind_are_what_they_should_be() {
    let cache = directory("cache-");
    let project = project(
        &cache,
        "Seed=0e9a6fe0-68f6-408c-be13-136054d20445\nSplitArtifacts=partitions,roothash,repart-definitions,os-release,tar",
    );
    definitions(&project);
    add_keys(&project);
    check(&project, CHECKS);
    project.build();

    assert_eq!(
        partition_names(&project),
        [
            "esp",
            "xbootldr",
            "usr-x86-64",
            "usr-x86-64-verity",
            "usr-x86-64-verity-sig",
            "root-x86-64",
            "home",
            "srv",
            "var",
            "swap"
        ]
    );
    let output = |name: &str| project.read(&format!("mkosi.output/{name}"));
    assert!(output("esp").contains("::/EFI/Linux/0.efi") && output("esp").contains("BOOTX64.EFI"), "{}", output("esp"));
    // Sorted, whatever the host's file system says.
    let kernel = |line: &&str| line.contains("/Linux/") && line.ends_with(".efi");
    let names: Vec<String> = output("esp").lines().filter(kernel).map(str::to_owned).collect();
    assert!(names.len() == 40 && names.is_sorted(), "{names:?}");
    assert!(output("squashfs").contains("share/data/39"), "{}", output("squashfs"));
    assert!(output("fstab").contains(" / ext4 ") && output("fstab").contains(" /home btrfs "), "{}", output("fstab"));
    // An archive of the whole tree has the same.
    let mut tar = Command::new("tar");
    let archived = tool(tar.arg("-xOf").arg(project.output("image.tar")).arg("./etc/fstab"));
    assert_eq!(archived, output("fstab"));
    assert_eq!(output("image.repart.d/50-var.conf"), project.read("mkosi.repart/50-var.conf"));
    assert_eq!(output("image.osrelease"), project.read("tree/usr/lib/os-release"));
    check_signature(&project);

    // The definitions are those of the two passes alone.
    project
        .write("mkosi.repart/60-swap.conf", "[Partition]\nType=swap\nFormat=swap\nSizeMinBytes=2M\nSizeMaxBytes=2M\n");
    let (ran, _) = project.build_as_foretold();
    ran.assert(&["partitions", "disk", "postoutput", "publish"]);
}

/// The signature's partition is JSON (Discoverable Partitions Specification), padded with zeros.
fn check_signature(project: &Project) {
    let bytes = std::fs::read(project.output("image.usr-x86-64-verity-sig.raw")).unwrap();
    let text = bytes.split(|byte| *byte == 0).next().unwrap();
    let json: serde_json::Value = serde_json::from_slice(text).unwrap();
    let hash = project.read("mkosi.output/image.roothash");
    assert_eq!(json["rootHash"].as_str().unwrap(), hash);
    let file = |name: &str| project.path().join(name);
    std::fs::write(file("signature"), json["signature"].as_str().unwrap()).unwrap();
    std::fs::write(file("hash"), &hash).unwrap();
    tool(
        Command::new("openssl").args(["base64", "-d", "-A", "-in"]).arg(file("signature")).arg("-out").arg(file("der")),
    );
    let mut verify = Command::new("openssl");
    verify.args(["smime", "-verify", "-binary", "-inform", "DER", "-noverify", "-in"]).arg(file("der"));
    tool(verify.arg("-content").arg(file("hash")).arg("-certfile").arg(file("mkosi.crt")));
}

#[test]
fn the_file_is_named_grown_and_packed_as_asked() {
    let cache = directory("cache-");
    let project = project(
        &cache,
        "OutputExtension=img\nManifestFormat=json\nBootable=no\n\
        SplitArtifacts=repart-definitions",
    );
    project.build();
    // The definitions that are there without the user's.
    let definition = project.read("mkosi.output/image.repart.d/10-root.conf");
    assert!(definition.contains("Type=root") && definition.contains("CopyFiles=/"), "{definition}");
    assert!(project.output("image.img").is_file());
    assert_eq!(std::fs::read_link(project.output("image")).unwrap().to_str(), Some("image.img"));
    let size = project.output("image.img").metadata().unwrap().len();
    let bytes = std::fs::read(project.output("image.img")).unwrap();

    project.reconfigure("OutputExtension=img", "OutputExtension=img\nOutputSize=256M\nCompressOutput=zstd");
    project.build_as_foretold().0.assert(&["disk", "publish"]);
    assert!(!project.output("image.img").exists());
    let unpacked = project.path().join("unpacked");
    tool(Command::new("zstd").arg("-dq").arg(project.output("image.img.zst")).arg("-o").arg(&unpacked));
    let grown = std::fs::read(&unpacked).unwrap();
    assert!(size < 256 << 20 && grown.len() == 256 << 20);
    assert!(grown[..bytes.len()] == bytes[..] && grown[bytes.len()..].iter().all(|byte| *byte == 0));

    // One that is too small changes nothing.
    project.reconfigure("OutputSize=256M\nCompressOutput=zstd", "OutputSize=1M");
    // What is no longer made is no longer there.
    project.reconfigure("SplitArtifacts=repart-definitions", "SplitArtifacts=");
    project.build();
    assert!(!project.output("image.repart.d").exists());
    assert!(std::fs::read(project.output("image.img")).unwrap() == bytes);
}

#[test]
fn what_can_not_be_made_is_told() {
    let cache = directory("cache-");
    let project = project(&cache, "ElTorito=yes");
    project.write("mkosi.repart/10-root.conf", "[Partition]\nType=root\nFormat=nosuchfs\nSizeMinBytes=10M\n");
    let ran = project.fails(&[]);
    ran.says("nosuchfs");
    project.write("mkosi.repart/10-root.conf", "[Partition]\nType=root\nFormat=ext4\nSizeMinBytes=10M\n");
    project.fails(&[]).says("ElTorito=yes");
    project.reconfigure("ElTorito=yes", "ElTorito=no");
    project.configure("[Validation]\nVerity=signed\n");
    project.fails(&[]).says("mkosi genkey");
    add_keys(&project);
    project.fails(&[]).says("Verity=signature");
    // Of trixie's systemd-repart.
    project.reconfigure("Verity=signed", "Verity=defer");
    for (name, text) in &DEFINITIONS[2..5] {
        project.write(&format!("mkosi.repart/{name}.conf"), &format!("[Partition]\n{text}\n"));
    }
    let failed = project.fails(&[]);
    failed.says("mkosi.conf:");
    failed.says("made elsewhere (Verity=defer); 258 does not");
}

/// LUKS draws its keys at random, so that no two of them are equal; that one can be opened is all there is to check.
#[test]
fn an_encrypted_partition_opens_with_the_passphrase() {
    let cache = directory("cache-");
    let project = project(&cache, "SplitArtifacts=partitions");
    project.write(
        "mkosi.repart/10-root.conf",
        "[Partition]\nType=root\nFormat=ext4\nCopyFiles=/usr:/\nEncrypt=key-file\nEncryptedVolume=root\nSizeMinBytes=64M\n\
         SizeMaxBytes=64M\n",
    );
    project.write("mkosi.passphrase", "secret");
    let secret = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(project.path().join("mkosi.passphrase"), secret).unwrap();
    check(
        &project,
        "printf secret > key\ncryptsetup open --test-passphrase --key-file key image.root-x86-64.raw\n\
         if printf other | cryptsetup open --test-passphrase --key-file - image.root-x86-64.raw; then exit 1; fi",
    );
    project.build();
}
