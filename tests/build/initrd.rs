//! Kernel modules, firmware and initrds. Modules are made up; the default initrd is made of packages.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::stores::{directory, fresh};
use crate::support::{Project, tool};

const VERSION: &str = "6.1-made-up";

/// The least ELF file with a section `.modinfo`: elf(5), 64 bits, relocatable.
fn module(modinfo: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let names_at = 64 + modinfo.len();
    let headers_at = (names_at + names.len()).next_multiple_of(8);
    let mut bytes = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 62, 0, 1, 0, 0, 0];
    bytes.extend([0_u64, 0, headers_at as u64].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend(0_u32.to_le_bytes());
    bytes.extend([64_u16, 0, 0, 64, 3, 2].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend(modinfo.as_bytes());
    bytes.extend(names);
    bytes.resize(headers_at + 64, 0);
    for (name, kind, at, size) in [(1_u32, 1_u32, 64, modinfo.len()), (10, 3, names_at, names.len())] {
        bytes.extend([name, kind].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend([0_u64, 0, at as u64, size as u64, 0, 1, 0].iter().flat_map(|n| n.to_le_bytes()));
    }
    bytes
}

/// An image of files alone, with two kernels.
fn with_modules(cache: &Path) -> Project {
    let project = Project::empty(cache);
    project.write(
        "mkosi.conf",
        "[Distribution]\nDistribution=custom\n[Output]\nFormat=directory\nOutput=image\nOutputDirectory=mkosi.output\n\
         SplitArtifacts=kernel-modules-initrd\n\
         [Content]\nKernelModules=disk_a\n /net/\nKernelInitrdModules=disk-a\nFirmwareFiles=wanted.bin\n",
    );
    let write = |path: &str, bytes: &[u8]| {
        let path = project.path().join("mkosi.extra/usr/lib").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let modules = [
        ("drivers/disk_a.ko", "name=disk_a\0depends=lib-b\0firmware=disk.bin\0"),
        ("lib/lib-b.ko", "name=lib_b\0softdep=pre: crc\0"),
        ("crypto/crc_soft.ko", "name=crc_soft\0alias=crc\0"),
        ("net/nic.ko", "name=nic\0firmware=nic/*.fw\0"),
        ("sound/sound.ko", "name=sound\0firmware=sound.bin\0"),
    ];
    for (path, modinfo) in modules {
        write(&format!("modules/{VERSION}/kernel/{path}"), &module(modinfo));
    }
    write(&format!("modules/{VERSION}/modules.order"), b"");
    write(&format!("modules/{VERSION}/modules.builtin"), b"");
    for path in ["disk.bin.zst", "nic/1.fw", "sound.bin", "wanted.bin", "unwanted.bin", "intel-ucode/06-01-01"] {
        write(&format!("firmware/{path}"), b"x");
    }
    project.write("mkosi.skeleton/etc/empty", "");
    std::os::unix::fs::symlink("usr/lib", project.path().join("mkosi.extra/lib")).unwrap();
    project
}

/// The files and links below a directory of the output.
fn files(dir: &Path) -> BTreeSet<String> {
    let found = tool(Command::new("find").args([".", "!", "-type", "d", "-printf", "%P\n"]).current_dir(dir));
    found.lines().map(str::to_owned).collect()
}

/// The names in a cpio archive that may be packed.
fn listed(archive: &Path) -> BTreeSet<String> {
    let packed = archive.extension().is_some_and(|extension| extension == "zst");
    let mut unpack = Command::new(if packed { "zstdcat" } else { "cat" });
    let mut unpack = unpack.arg(archive).stdout(Stdio::piped()).spawn().unwrap();
    let text = tool(Command::new("cpio").args(["-it", "--quiet"]).stdin(unpack.stdout.take().unwrap()));
    assert!(unpack.wait().unwrap().success());
    text.lines().map(str::to_owned).collect()
}

#[test]
fn modules_and_firmware_are_kept_with_what_they_need() {
    let project = with_modules(&directory("modules"));
    project.build();
    let kernel = project.output("image/usr/lib/modules").join(VERSION);
    let text = |path: &str| std::fs::read_to_string(kernel.join(path)).unwrap();
    let kept = |dir: &Path| -> Vec<String> {
        files(dir).into_iter().filter(|path| path.ends_with(".ko")).map(|path| path.replace("kernel/", "")).collect()
    };
    assert_eq!(kept(&kernel), ["crypto/crc_soft.ko", "drivers/disk_a.ko", "lib/lib-b.ko", "net/nic.ko"]);
    assert!(!kernel.join("kernel/sound").exists());
    let firmware: Vec<String> = files(&project.output("image/usr/lib/firmware")).into_iter().collect();
    assert_eq!(firmware, ["disk.bin.zst", "intel-ucode/06-01-01", "nic/1.fw", "wanted.bin"]);
    let lists: BTreeSet<String> =
        text("modules.dep").lines().map(|l| l.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(lists.len(), 4, "{lists:?}");

    // The initrd has one module less, and lists of its own.
    let archive = project.output("image.kernel-modules-initrd");
    let names = listed(&archive);
    let base = format!("usr/lib/modules/{VERSION}");
    for name in ["kernel/drivers/disk_a.ko", "kernel/lib/lib-b.ko", "modules.dep", "modules.dep.bin"] {
        assert!(names.contains(&format!("{base}/{name}")), "{name} in {names:?}");
    }
    assert!(names.contains("usr/lib/firmware/disk.bin.zst") && names.contains("usr/lib/firmware/wanted.bin"));
    assert!(!names.iter().any(|name| name.contains("nic")), "{names:?}");
    let unpacked = tempfile::tempdir().unwrap();
    let unpack = std::fs::File::open(&archive).unwrap();
    tool(Command::new("cpio").args(["-id", "--quiet"]).current_dir(unpacked.path()).stdin(unpack));
    let own = std::fs::read_to_string(unpacked.path().join(&base).join("modules.dep")).unwrap();
    assert!(own.contains("disk_a.ko") && !own.contains("nic.ko"), "{own}");

    // Another store gives the same bytes.
    let bytes = std::fs::read(&archive).unwrap();
    let again = with_modules(&directory("modules"));
    again.build();
    assert!(bytes == std::fs::read(again.output("image.kernel-modules-initrd")).unwrap());

    // Another pattern is a change of `modules`, and one for the initrd of `modules-initrd` alone.
    project.reconfigure("KernelInitrdModules=disk-a", "KernelInitrdModules=nic");
    project.build_as_foretold().0.assert(&["kernel", "modules-initrd", "publish"]);
    assert!(listed(&archive).contains("usr/lib/firmware/nic/1.fw"));

    // A file elsewhere is nothing to the initrds; a module, or firmware, is.
    let runs = |stage: &str| project.build_as_foretold().0.stages.contains_key(stage);
    project.write("mkosi.extra/etc/another", "");
    let (ran, _) = project.build_as_foretold();
    assert!(ran.stages.contains_key("modules") && ran.stages.contains_key("publish"), "{}", ran.text);
    assert!(!["modules-initrd", "microcode"].iter().any(|stage| ran.stages.contains_key(*stage)), "{}", ran.text);
    let module = module("name=nic\0firmware=nic/*.fw\0depends=lib-b\0");
    let path = format!("mkosi.extra/usr/lib/modules/{VERSION}/kernel/net/nic.ko");
    std::fs::write(project.path().join(path), module).unwrap();
    assert!(runs("modules-initrd"));
    assert!(listed(&archive).contains(&format!("{base}/kernel/lib/lib-b.ko")));
    project.write("mkosi.extra/usr/lib/firmware/intel-ucode/06-01-01", "newer");
    assert!(runs("microcode"));
    let wrong = project.fails(&["--kernel-modules-include=a(?=b)"]);
    wrong.says("`a(?=b)` is no regular expression");
}

/// Others can start the kernel of an image that doesn't boot by itself.
#[test]
fn the_kernel_is_split_off_of_what_does_not_boot() {
    let project = Project::empty(&directory("cache-"));
    let conf = |format: &str| {
        format!(
            "[Distribution]\nDistribution=custom\n[Output]\nFormat={format}\nOutput=image\nOutputDirectory=mkosi.output\n\
             [Content]\nInitrds=own.initrd\nKernelModulesInitrd=no\n"
        )
    };
    project.write("own.initrd", "an initrd\n");
    project.write("mkosi.extra/usr/lib/os-release", "ID=small\n");
    project.write(&format!("mkosi.extra/usr/lib/modules/{VERSION}/vmlinuz"), "a kernel\n");
    for format in ["cpio", "directory\n[Content]\nBootable=no"] {
        project.write("mkosi.conf", &conf(format));
        project.build_as_foretold();
        assert_eq!(project.read("mkosi.output/image.vmlinuz"), "a kernel\n");
        assert!(project.read("mkosi.output/image.initrd").starts_with("an initrd\n"));
        assert!(!project.output("image.osrelease").exists());
        // A file elsewhere is nothing to them.
        project.write("mkosi.extra/usr/share/another", format);
        let (ran, _) = project.build_as_foretold();
        assert!(ran.stages.contains_key("publish") && !ran.stages.contains_key("artifacts"), "{}", ran.text);
    }
    project.configure("[Output]\nSplitArtifacts=os-release\n");
    project.build_as_foretold();
    assert_eq!(project.read("mkosi.output/image.osrelease"), "ID=small\n");
    // Nothing to do where the kernel stage does it, and where nothing is wanted.
    project.configure("[Output]\nSplitArtifacts=\nSplitArtifacts=uki,partitions\n");
    assert!(project.graph(&[]).stages("skipped").contains("artifacts"));
}

#[test]
fn the_default_initrd_is_made_once() {
    const MAIN: &str = "[Distribution]\nDistribution=debian\nRelease=trixie\n[Output]\nFormat=none\n\
                        OutputDirectory=mkosi.output\n[Content]\nInitrds=default\n";
    let project = Project::empty(&fresh());
    project.write("mkosi.conf", MAIN);
    for name in ["one", "two"] {
        project.write(&format!("mkosi.images/{name}.conf"), "[Output]\nFormat=none\n[Content]\nInitrds=default\n");
    }
    let ran = project.build();
    assert_eq!((ran.stages["base"], ran.stages["packages"], ran.stages["cpio"]), (1, 1, 1), "{}", ran.text);
    let archive = project.output("initrd.cpio.zst");
    let names = listed(&archive);
    for name in ["init", "etc/initrd-release", "usr/lib/systemd/systemd", "usr/lib/systemd/system/initrd.target"] {
        assert!(names.contains(name), "{name}");
    }
    let without = ["usr/lib/modules/", "boot/vmlinuz", "var/cache/", "usr/bin/dpkg", "var/lib/dpkg/"];
    assert!(!names.iter().any(|name| without.iter().any(|prefix| name.starts_with(prefix))));

    // Another project in the same store takes it as it is.
    let other = Project::empty(&project.cache);
    other.write("mkosi.conf", MAIN);
    other.build().assert(&["publish"]);
    assert!(std::fs::read(archive).unwrap() == std::fs::read(other.output("initrd.cpio.zst")).unwrap());
    // One with a wish of its own does not.
    let foretold = other.graph(&["--initrd-package=nano"]).foretold();
    assert!(foretold.contains("packages") && foretold.contains("cpio"), "{foretold:?}");
}
