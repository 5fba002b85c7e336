//! What a unified kernel image may hold beside kernel and initrd: a picture, device trees, microcode, profiles.

use std::path::Path;

use mkosi::boot::microcode::Processor;
use mkosi::boot::pe::section;
use object::read::{Object as _, ObjectSection as _};

use crate::support::Project;

/// What ukify says of the image, beside it.
pub const INSPECT: &str = "cd \"$OUTPUTDIR\"\nukify inspect image.efi --all --json=short > inspected.json";

/// Adds the picture, two device trees of the newer kernel and one of the other, and microcode; `trees` chooses device
/// trees.
pub fn equip(project: &Project, trees: &str) {
    project.configure(&format!("[Content]\nSplash=/usr/share/splash.bmp\nDevicetrees={trees}\n"));
    let write = |path: &str, bytes: &[u8]| {
        let path = project.path().join("tree/usr").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    write("share/splash.bmp", &picture());
    for path in ["6.12.3/dtb/board/one.dtb", "6.12.3/dtb/board/two.dtb", "6.9.1/dtb/board/one.dtb"] {
        write(&format!("lib/modules/{path}"), &device_tree(&format!("maker,{path}")));
    }
    let (directory, name) = of_the_host();
    write(&format!("lib/firmware/{directory}/{name}"), b"for the host");
    write("lib/firmware/intel-ucode/01-01-01", b"for another of Intel");
    write("lib/firmware/amd-ucode/microcode_amd_famffh.bin", b"for another of AMD");
}

/// Checks the sections of the newer kernel's image, and that ukify reads the same.
pub fn check_sections(project: &Project, uki: &Path) {
    let tree = |path: &str| std::fs::read(project.path().join("tree").join(path)).unwrap();
    let found = sections(uki);
    let of = |wanted: &str| found.iter().filter(|(name, _)| name == wanted).map(|(_, data)| data).collect::<Vec<_>>();
    assert_eq!(of(".splash"), [&tree("usr/share/splash.bmp")]);
    let trees = ["one", "two"].map(|name| tree(&format!("usr/lib/modules/6.12.3/dtb/board/{name}.dtb")));
    assert_eq!(of(".dtbauto"), [&trees[0], &trees[1]]);
    assert!(of(".dtb").is_empty());
    let [microcode] = of(".ucode")[..] else { panic!("one section: {:?}", of(".ucode").len()) };
    for text in ["for the host", "for another of Intel", "for another of AMD"] {
        assert!(has(microcode, text), "{text}");
    }
    // The kernel reads it before it can unpack anything: it is not in the initrd.
    assert!(of(".initrd").iter().all(|initrd| !has(initrd, "for the host")));
    // Of one device tree the stub has no choice to make.
    let other = sections(&project.output("image/boot/EFI/Linux/small-6.9.1.efi"));
    let only: Vec<_> = other.iter().filter(|(name, _)| name.starts_with(".dtb")).collect();
    assert_eq!(only, [&(".dtb".to_owned(), tree("usr/lib/modules/6.9.1/dtb/board/one.dtb"))]);

    let inspected: serde_json::Value = serde_json::from_str(&project.read("mkosi.output/inspected.json")).unwrap();
    for name in [".splash", ".ucode", ".linux", ".initrd", ".uname"] {
        assert_eq!(inspected[name]["size"].as_u64(), Some(of(name)[0].len() as u64), "{name} of {inspected}");
    }
    assert_eq!(inspected[".cmdline"]["text"], "quiet first");
}

/// Checks that the microcode is that of this machine's processor.
pub fn microcode_of_the_host(uki: &Path) {
    let microcode = section(uki, ".ucode").unwrap().expect("microcode");
    assert!(has(&microcode, "for the host") && !has(&microcode, "for another"));
}

/// Checks what an entry of type 1 says of them.
pub fn check_type_1(project: &Project, entry: &str) {
    let lines: Vec<&str> = entry.lines().filter(|line| line.starts_with("initrd ")).collect();
    assert_eq!(lines[..2], ["initrd /small/microcode.initrd", "initrd /small/own.initrd"]);
    let initrd = std::fs::read(project.output("image/boot/small/microcode.initrd")).unwrap();
    assert!(has(&initrd, "kernel/x86/microcode/GenuineIntel.bin"));
    let tree = entry.lines().find_map(|line| line.strip_prefix("devicetree /")).unwrap_or_else(|| panic!("{entry}"));
    let put = std::fs::read(project.output("image/boot").join(tree)).unwrap();
    assert!(has(&put, "maker,6.12.3/dtb/board/one.dtb"));
}

/// Adds a profile.
pub fn add_profile(project: &Project) {
    project.write(
        "mkosi.uki-profiles/debug.conf",
        "[UKIProfile]\nProfile=ID=debug\n        TITLE=With debugging\nCmdline=debug\n",
    );
}

/// Checks that the image's own profile ends the sections that all have, and that the added one has a command line of its
/// own, and `more`, of which the image has one as well (UAPI Group specification UKI, multi-profile).
pub fn check_profile(uki: &Path, more: &[&str]) {
    let found = sections(uki);
    let starts: Vec<usize> = (0..found.len()).filter(|at| found[*at].0 == ".profile").collect();
    let [main, debug] = starts[..] else { panic!("two profiles: {starts:?}") };
    let text = |at: usize| String::from_utf8_lossy(&found[at].1).trim_end_matches('\0').trim_end().to_owned();
    assert_eq!([text(main), text(debug)], ["ID=main", "ID=debug\nTITLE=\"With debugging\""]);
    let lines: Vec<_> = (0..found.len()).filter(|at| found[*at].0 == ".cmdline").collect();
    assert!(lines.len() == 2 && lines[0] < main && debug < lines[1], "{lines:?}");
    assert_eq!([text(lines[0]), text(lines[1])], ["quiet first", "quiet first debug"]);
    assert!(found[..main].iter().any(|(name, _)| name == ".linux"));
    let names = |from: usize, to: usize| found[from..to].iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    assert_eq!(names(main + 1, debug), more);
    assert_eq!(names(debug + 1, found.len()), [&[".cmdline"], more].concat());
}

/// The sections of a program, in their order. What ukify fills up at their ends is not theirs.
fn sections(path: &Path) -> Vec<(String, Vec<u8>)> {
    let bytes = std::fs::read(path).unwrap();
    let program = object::File::parse(bytes.as_slice()).unwrap();
    let sections = program.sections();
    sections.map(|section| (section.name().unwrap().to_owned(), section.data().unwrap().to_vec())).collect()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The directory among the firmware and the name of the microcode for this machine's processor.
fn of_the_host() -> (&'static str, String) {
    let processor = Processor::parse(&std::fs::read_to_string("/proc/cpuinfo").unwrap()).expect("an x86 processor");
    let Processor { vendor, family, model, stepping } = processor;
    match vendor.as_str() {
        "GenuineIntel" => ("intel-ucode", format!("{family:02x}-{model:02x}-{stepping:02x}")),
        "AuthenticAMD" if family > 0x15 => ("amd-ucode", format!("microcode_amd_fam{family:x}h.bin")),
        "AuthenticAMD" => ("amd-ucode", "microcode_amd.bin".to_owned()),
        other => panic!("this test knows no microcode of {other}"),
    }
}

/// A picture of one white pixel (BMP with a header of 40 bytes).
fn picture() -> Vec<u8> {
    let mut picture = b"BM".to_vec();
    for number in [58_u32, 0, 54, 40, 1, 1, 1 | 24 << 16, 0, 4, 0, 0, 0, 0, 0x00ff_ffff] {
        picture.extend(number.to_le_bytes());
    }
    picture
}

/// A flattened device tree whose root has one property, `compatible` (Devicetree Specification, chapter 5).
fn device_tree(compatible: &str) -> Vec<u8> {
    let strings = b"compatible\0";
    let mut value = compatible.as_bytes().to_vec();
    value.push(0);
    let length = u32::try_from(value.len()).unwrap();
    value.resize(value.len().next_multiple_of(4), 0);
    let (begin_node, end_node, property, end) = (1_u32, 2_u32, 3_u32, 9_u32);
    let mut structure: Vec<u8> = [begin_node, 0, property, length, 0].iter().flat_map(|n| n.to_be_bytes()).collect();
    structure.extend(value);
    structure.extend([end_node, end].iter().flat_map(|n| n.to_be_bytes()));
    let [head, reserved] = [40, 16];
    let of_structure = u32::try_from(structure.len()).unwrap();
    let of_strings = u32::try_from(strings.len()).unwrap();
    let total = head + reserved + of_structure + of_strings;
    let header = [
        0xd00d_feed,
        total,
        head + reserved,
        head + reserved + of_structure,
        head,
        17,
        16,
        0,
        of_strings,
        of_structure,
    ];
    let mut tree: Vec<u8> = header.iter().flat_map(|n: &u32| n.to_be_bytes()).collect();
    tree.extend([0; 16]);
    tree.extend(structure);
    tree.extend(strings);
    tree
}
