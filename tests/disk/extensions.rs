//! System extensions, configuration extensions, portable services, and an EFI system partition alone.

use crate::project::{add_keys, check, partition_names, project};
use crate::support::Project;
use crate::support::stores::directory;

/// What is in the image, with what kind of file it is; the image as systemd takes it apart.
const LOOK: &str = "\
systemd-dissect --validate image.raw
offset=$(sfdisk --json image.raw | sed -n 's/.*\"start\": *\\([0-9]*\\).*/\\1/p' | head -n 1)
dd if=image.raw of=part bs=512 skip=\"$offset\" status=none
fsck.erofs --extract=tree --preserve --overwrite part
(cd tree && find . -type c -printf 'gone %p\\n' -o -printf '%p\\n' | sort) > list
cp tree/usr/lib/extension-release.d/* tree/etc/extension-release.d/* . 2>/dev/null || true
rm -rf part tree
";

/// The hashes, where there are any.
const HASHES: &str = "\
test ! -e image.root-x86-64-verity.raw ||
    veritysetup verify image.root-x86-64.raw image.root-x86-64-verity.raw \"$(cat image.roothash)\"
";

fn list(project: &Project) -> Vec<String> {
    project.read("mkosi.output/list").lines().map(str::to_owned).collect()
}

fn has(project: &Project, path: &str) -> bool {
    list(project).iter().any(|line| line == path)
}

#[test]
fn each_kind_holds_what_it_may_and_says_what_it_is_for() {
    let project = project(
        &directory("cache-"),
        "Format=sysext\nImageId=app\nImageVersion=7\nSplitArtifacts=roothash,repart-definitions,partitions",
    );
    check(&project, &format!("{LOOK}{HASHES}"));
    project.build();
    assert_eq!(partition_names(&project), ["root-x86-64"]);
    assert!(has(&project, "./usr/share/data/1") && has(&project, "./opt/app") && !has(&project, "./etc"));
    assert_eq!(
        project.read("mkosi.output/extension-release.image"),
        "ID=debian\nVERSION_ID=13\nSYSEXT_ID=app\nSYSEXT_VERSION_ID=7\nSYSEXT_SCOPE=\"initrd system portable\"\n\
         ARCHITECTURE=x86-64\n"
    );
    assert!(!project.output("image.roothash").exists());
    let definitions = |project: &Project| -> Vec<String> {
        let names = std::fs::read_dir(project.output("image.repart.d")).unwrap();
        let mut names: Vec<String> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(definitions(&project), ["10-root.conf"]);

    add_keys(&project);
    project.reconfigure("Format=sysext", "Format=confext");
    project.configure("[Build]\nEnvironment=CONFEXT_SCOPE=system\n");
    project.build();
    assert_eq!(partition_names(&project), ["root-x86-64", "root-x86-64-verity", "root-x86-64-verity-sig"]);
    assert!(has(&project, "./etc/hostname") && !has(&project, "./usr"));
    let release = project.read("mkosi.output/extension-release.image");
    assert!(release.contains("CONFEXT_ID=app\n") && release.contains("CONFEXT_SCOPE=system\n"), "{release}");
    assert_eq!(project.read("mkosi.output/image.roothash").len(), 64);
    assert_eq!(definitions(&project).len(), 3);

    project.configure("[Validation]\nVerity=hash\n");
    project.build();
    assert_eq!(partition_names(&project), ["root-x86-64", "root-x86-64-verity"]);

    project.reconfigure("Format=confext", "Format=portable");
    project.reconfigure("Verity=hash", "Verity=no");
    project.build();
    assert_eq!(partition_names(&project), ["root-x86-64"]);
    for path in ["./etc/machine-id", "./etc/resolv.conf", "./etc/hostname", "./usr/lib/os-release"] {
        assert!(has(&project, path), "{path} of {:?}", list(&project));
    }
}

#[test]
fn an_overlay_holds_the_difference_alone() {
    let project = project(&directory("cache-"), "Format=sysext\nOverlay=yes");
    project.write("mkosi.extra/usr/bin/more", "more\n");
    // Removed in one layer and made again in another: nothing of the old directory may come back on the base.
    project.write("tree/usr/share/again/old", "old\n");
    // Empty ones are left out, unless the base has them.
    project.write("tree/usr/share/bare/file", "only\n");
    project.script(
        "mkosi.postinst",
        "rm -r \"$BUILDROOT/usr/share/again\" \"$BUILDROOT/usr/share/bare/file\"; mkdir -p \"$BUILDROOT/usr/empty/more\"",
    );
    project.script(
        "mkosi.finalize",
        "rm \"$BUILDROOT/usr/share/data/1\"; mkdir \"$BUILDROOT/usr/share/again\"; echo x >\"$BUILDROOT/usr/share/again/new\"",
    );
    project.write("mkosi.repart/root.conf", "[Partition]\nType=root\nFormat=erofs\nCopyFiles=/\nMinimize=best\n");
    check(&project, LOOK);
    for format in ["sysext", "disk"] {
        project.done(&["--format", format]);
        for path in ["./usr/bin/more", "./usr/share/again/new", "gone ./usr/share/again/old", "gone ./usr/share/data/1"]
        {
            assert!(has(&project, path), "{format}: {path} of {:?}", list(&project));
        }
        // In a disk they stay.
        assert_eq!(has(&project, "./usr/empty/more"), format == "disk", "{:?}", list(&project));
        assert!(has(&project, "gone ./usr/share/bare/file"), "{:?}", list(&project));
        assert_eq!(has(&project, "./usr/lib/extension-release.d/extension-release.image"), format == "sysext");
        assert!(!has(&project, "./usr/share/data/2") && !has(&project, "./opt/app"), "{:?}", list(&project));
    }
}

#[test]
fn an_esp_is_a_disk_of_its_own() {
    let project = project(&directory("cache-"), "Format=esp\nSectorSize=512\nBootable=no");
    check(
        &project,
        "dd if=image.raw of=part bs=1M skip=1 count=36 status=none\nfsck.vfat -n part\nmdir -b -s -i part :: > list\nrm part",
    );
    project.build();
    assert_eq!(partition_names(&project), ["esp"]);
    assert!(has(&project, "::/EFI/Linux/7.efi") && has(&project, "::/loader.conf"), "{:?}", list(&project));
}

/// There is no system of its own in it, and so nothing to fetch.
#[test]
fn an_extension_without_a_base_holds_what_is_put_into_it() {
    let project = project(&directory("cache-"), "Format=sysext");
    project.reconfigure("Distribution=custom", "Distribution=debian\nRelease=trixie");
    project.reconfigure("BaseTrees=tree\n", "");
    project.write("mkosi.extra/usr/bin/more", "more\n");
    check(&project, LOOK);
    let ran = project.build();
    assert!(!ran.stages.contains_key("sync"), "{}", ran.text);
    let files = [".", "./usr", "./usr/bin", "./usr/bin/more", "./usr/lib", "./usr/lib/extension-release.d"];
    assert_eq!(list(&project), [&files[..], &["./usr/lib/extension-release.d/extension-release.image"]].concat());
    project.configure("[Content]\nPackages=bash\n");
    let failed = project.fails(&[]);
    failed.says("`Packages=`");
    failed.says("set `BaseTrees=`");
}
