//! What is in images that boot.

use std::path::Path;

use mkosi::boot::pe::{Program, identify, section};

use crate::project::project;
use crate::sections::{
    INSPECT, add_profile, check_profile, check_sections, check_type_1, equip, microcode_of_the_host,
};
use crate::support::stores::directory;
use crate::support::tools;

const UKI: &str = "image/boot/EFI/Linux/small-6.12.3.efi";

fn text(path: &Path, name: &str) -> String {
    let bytes = section(path, name).unwrap().unwrap_or_else(|| panic!("{} has no {name}", path.display()));
    String::from_utf8_lossy(&bytes).trim_end_matches('\0').to_owned()
}

#[test]
fn unified_images_are_made_for_each_kernel_and_again_for_another_command_line() {
    let cache = directory("cache-");
    let equipped = |cache: &Path| {
        let project = project(cache, "[Output]\nSplitArtifacts=uki,kernel,initrd,os-release\n");
        equip(&project, "board/");
        project
    };
    let first = equipped(&cache);
    first.script("mkosi.postoutput", INSPECT);
    first.build();
    let uki = first.output(UKI);
    check_sections(&first, &uki);
    assert_eq!(identify(&uki).unwrap(), Program::Uki);
    assert_eq!(text(&uki, ".cmdline"), "quiet first");
    assert_eq!(text(&uki, ".uname"), "6.12.3");
    assert!(text(&uki, ".osrel").contains("IMAGE_ID=small"));
    assert!(text(&uki, ".initrd").contains("an initrd"));
    assert!(first.output("image/boot/EFI/Linux/small-6.9.1.efi").exists());
    assert!(first.output("image/efi/EFI/BOOT/BOOTX64.EFI").exists());
    assert!(!first.output("image/efi/loader/random-seed").exists());
    // Beside the image lies what belongs to the newest kernel.
    let bytes = |path: &Path| std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let made = bytes(&uki);
    assert!(bytes(&first.output("image.efi")) == made);
    assert!(text(&first.output("image.efi"), ".initrd").contains("an initrd"));
    assert!(first.read("mkosi.output/image.initrd").contains("an initrd"));
    assert_eq!(first.read("mkosi.output/image.osrelease"), first.read("tree/usr/lib/os-release"));

    let second = equipped(&directory("cache-"));
    second.build();
    assert!(bytes(&second.output(UKI)) == made, "another store, another image");

    first.reconfigure("quiet first", "quiet second");
    first.build_as_foretold().0.assert(&["kernel", "postoutput", "publish"]);
    assert_eq!(text(&first.output(UKI), ".cmdline"), "quiet second");
    first.configure("[Content]\nMicrocodeHost=yes\n");
    first.build_as_foretold().0.assert(&["kernel", "microcode", "postoutput", "publish"]);
    microcode_of_the_host(&first.output(UKI));
}

/// Of a disk with a unified kernel image the file systems stay; `tests/disk/images.rs` changes the definitions.
#[test]
fn another_command_line_makes_the_kernel_and_the_disk_alone() {
    let project = project(&directory("cache-"), "");
    project.reconfigure("Format=directory", "Format=disk");
    project.build();
    project.reconfigure("quiet first", "quiet second");
    project.build_as_foretold().0.assert(&["kernel", "disk", "publish"]);
}

#[test]
fn what_boots_is_signed() {
    let project = project(
        &directory("cache-"),
        "[Validation]\nSecureBoot=yes\nSecureBootSignTool=sbsign\n[Content]\nUnifiedKernelImageFormat=own-&k\n",
    );
    project.done(&["genkey"]);
    add_profile(&project);
    let certificate = project.read("mkosi.crt");
    project.write("src/certificate", &certificate);
    project.script(
        "mkosi.postoutput",
        "cd \"$OUTPUTDIR\"\nfor f in image.efi image.vmlinuz image/efi/EFI/BOOT/BOOTX64.EFI; do sbverify --cert \"$SRCDIR/certificate\" $f; done",
    );
    let ran = project.build();
    assert!(ran.stages.contains_key("postoutput"), "{}", ran.text);
    let uki = project.output("image/boot/EFI/Linux/own-6.12.3.efi");
    assert!(text(&uki, ".pcrsig").contains("sha256"));
    assert!(text(&uki, ".pcrpkey").contains("PUBLIC KEY"));
    check_profile(&uki, &[".pcrsig"]);
    for variable in ["PK", "KEK", "db"] {
        assert!(project.output(&format!("image/efi/loader/keys/auto/{variable}.auth")).exists(), "{variable}");
    }
    // Neither the store nor a log has the key.
    let key = project.read("mkosi.key");
    let secret = key.lines().nth(3).unwrap();
    let found = std::process::Command::new("grep").args(["-rlF", secret]).arg(&project.cache).output().unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}

/// By ukify 258, which trixie lacks. Told are the measurements of the newest kernel's image, as they are when they are signed.
#[test]
#[ignore = "fetches the tools of another release: make test-boot"]
fn boot_measurements_are_told_for_a_signature_made_elsewhere() {
    let project = project(tools::cache(), "[Output]\nSplitArtifacts=uki,pcrs\n[Validation]\nSignExpectedPcr=no\n");
    let tree = format!("ToolsTree={}", crate::project::tools().display());
    project.reconfigure(
        &tree,
        "ToolsTree=default\nToolsTreeDistribution=debian\nToolsTreeRelease=forky\nToolsTreeProfiles=",
    );
    project.done(&["genkey"]);
    project.build();
    let told = project.read("mkosi.output/image.pcrs");
    assert_eq!(told, told.trim_end());
    let policies = |text: &str| -> Vec<[String; 3]> {
        let json: serde_json::Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let banks = json["sha256"].as_array().unwrap_or_else(|| panic!("{text}"));
        banks.iter().map(|bank| ["pcrs", "pkfp", "pol"].map(|field| bank[field].to_string())).collect()
    };
    assert!(!policies(&told).is_empty());
    // ukify leaves room for the signature.
    assert!(!text(&project.output("image.efi"), ".pcrsig").contains("\"sig\""));
    project.reconfigure("SignExpectedPcr=no", "SignExpectedPcr=yes");
    project.build();
    let signed = text(&project.output("image.efi"), ".pcrsig");
    assert!(signed.contains("\"sig\""), "{signed}");
    assert!(!project.output("image.pcrs").exists());
    assert_eq!(policies(&told), policies(&signed));
    assert!(policies(&signed) != policies(&text(&project.output("image/boot/EFI/Linux/small-6.9.1.efi"), ".pcrsig")));

    // systemd-repart of that release leaves a signature of verity to others too.
    project.reconfigure("Format=directory", "Format=sysext\nSplitArtifacts=");
    project.reconfigure("SplitArtifacts=uki,pcrs", "SplitArtifacts=partitions,roothash");
    project.reconfigure("SignExpectedPcr=yes", "Verity=defer");
    project.build();
    assert_eq!(project.read("mkosi.output/image.roothash").len(), 64);
    assert!(project.output("image.root-x86-64-verity.raw").exists());
    assert!(!project.output("image.root-x86-64-verity-sig.raw").exists());
}

#[test]
fn kernels_without_unified_images_have_entries() {
    let project = project(&directory("cache-"), "[Content]\nUnifiedKernelImages=none\n");
    equip(&project, "board/");
    project.fails(&[]).says("chooses 2 device trees of the kernel 6.12.3");
    project.reconfigure("Devicetrees=board/", "Devicetrees=one.dtb");
    project.build();
    let entry = project.read("mkosi.output/image/boot/loader/entries/small-6.12.3.conf");
    check_type_1(&project, &entry);
    for line in ["linux /small/6.12.3/vmlinuz", "options quiet first", "initrd /small/own.initrd"] {
        assert!(entry.lines().any(|found| found == line), "{line} in {entry}");
    }
    for file in ["small/6.12.3/vmlinuz", "small/own.initrd", "loader/entries/small-6.9.1.conf"] {
        assert!(project.output(&format!("image/boot/{file}")).exists(), "{file}");
    }
    assert!(!project.output("image.efi").exists());
}

#[test]
fn outputs_that_are_efi_programs() {
    let project = project(&directory("cache-"), "");
    project.reconfigure("Format=directory", "Format=uki");
    project.script("mkosi.postoutput", INSPECT);
    let inspected =
        || -> serde_json::Value { serde_json::from_str(&project.read("mkosi.output/inspected.json")).unwrap() };
    add_profile(&project);
    equip(&project, "one.dtb");
    project.build();
    let uki = project.output("image.efi");
    let tree = std::fs::read(project.path().join("tree/usr/lib/modules/6.12.3/dtb/board/one.dtb")).unwrap();
    assert_eq!(section(&uki, ".dtb").unwrap(), Some(tree));
    assert_eq!(inspected()[".uname"]["text"], "6.12.3");
    assert_eq!(identify(&uki).unwrap(), Program::Uki);
    assert_eq!(text(&uki, ".cmdline"), "quiet first");
    check_profile(&uki, &[]);
    project.reconfigure("Format=uki", "Format=addon");
    // Profiles and the picture are those of whole images.
    project.build();
    assert_eq!(section(&uki, ".profile").unwrap(), None);
    assert_eq!(section(&uki, ".splash").unwrap(), None);
    assert_eq!(identify(&uki).unwrap(), Program::Addon);
    let addon = inspected();
    assert!(addon[".cmdline"]["text"] == "quiet first" && addon[".uname"].is_null(), "{addon}");
}
