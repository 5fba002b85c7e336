//! `[Output]`: what is made, and what it is called.

use super::super::defaults;
use super::choices::{ARTIFACTS, COMPRESSION, FORMAT, MANIFEST};
use super::{Default, Item, Kind, Matcher, PathRule, Scope, Setting, Split};

const SECTION: &str = "Output";

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("Format", SECTION, &["--format", "-t"], Kind::Enum(&FORMAT))
        .meta("FORMAT")
        .letter('t')
        .default(Default::Text("disk"))
        .once(&["OutputFormat"], &[])
        .help("What kind of output to make"),
    Setting::new(
        "ManifestFormat",
        SECTION,
        &["--manifest-format"],
        Kind::List { item: Item::Choice(&MANIFEST), split: Split::Words },
    )
    .meta("FORMAT")
    .help("The kinds of manifest to write"),
    Setting::new("Output", SECTION, &["--output", "-o"], Kind::Name)
        .meta("NAME")
        .letter('o')
        .tools()
        .default(Default::From(defaults::output))
        .help("The output's name, without a directory and extension"),
    Setting::new("OutputExtension", SECTION, &["--output-extension"], Kind::Name)
        .meta("EXTENSION")
        .default(Default::From(defaults::output_extension))
        .help("The output's extension"),
    Setting::new("OutputSize", SECTION, &["--output-size"], Kind::Bytes)
        .meta("SIZE")
        .help("Grow the disk image to this size"),
    Setting::new("CompressOutput", SECTION, &["--compress-output"], Kind::Enum(&COMPRESSION))
        .meta("ALGORITHM")
        .default(Default::From(defaults::compression))
        .help("Compress the output as a whole"),
    Setting::new("CompressLevel", SECTION, &["--compress-level"], Kind::Number { min: 0 })
        .meta("LEVEL")
        .scope(Scope::Inherit)
        .default(Default::Number(3))
        .help("How hard to compress"),
    Setting::new("OutputDirectory", SECTION, &["--output-directory", "-O"], Kind::Path(PathRule::ANY))
        .meta("DIR")
        .letter('O')
        .scope(Scope::Universal)
        .tools()
        .at(&["output"])
        .once(&[], &["--output-dir"])
        .no_output()
        .help("Where outputs are put"),
    Setting::new("OutputMode", SECTION, &["--output-mode"], Kind::Mode)
        .meta("MODE")
        .scope(Scope::Universal)
        .help("The access mode of the outputs, in octal"),
    Setting::new("ImageVersion", SECTION, &["--image-version"], Kind::Text)
        .meta("VERSION")
        .letter('v')
        .scope(Scope::Inherit)
        .read(&["version"])
        .matched(Matcher::Version)
        .help("The image's version"),
    Setting::new("ImageId", SECTION, &["--image-id"], Kind::Text)
        .meta("ID")
        .letter('i')
        .scope(Scope::Inherit)
        .help("The image's name in os-release and in file names"),
    Setting::new("OciLabels", SECTION, &["--oci-labels"], Kind::Dict { passes: false })
        .meta("KEY=VALUE")
        .help("Labels of an OCI image's configuration"),
    Setting::new("OciAnnotations", SECTION, &["--oci-annotations"], Kind::Dict { passes: false })
        .meta("KEY=VALUE")
        .help("Annotations of an OCI image's manifest"),
    Setting::new("SplitArtifacts", SECTION, &["--split-artifacts"], Kind::Artifacts(&ARTIFACTS))
        .meta("ARTIFACT")
        .default(Default::Texts(&["uki", "kernel", "initrd"]))
        .help("What to put beside the image as files of their own"),
    Setting::new("RepartDirectories", SECTION, &["--repart-directory"], Kind::paths(PathRule::EXISTS))
        .meta("PATH")
        .at(&["repart"])
        .once(&[], &["--repart-dir"])
        .help("Directories with partition definitions of systemd-repart"),
    Setting::new("SectorSize", SECTION, &["--sector-size"], Kind::SectorSize)
        .meta("BYTES")
        .scope(Scope::Inherit)
        .help("The sector size of the disk image"),
    Setting::new("Overlay", SECTION, &["--overlay"], Kind::Bool)
        .help("Put only what was added to the base trees into the output"),
    Setting::new("Seed", SECTION, &["--seed"], Kind::Uuid)
        .meta("UUID")
        .read(&["seed"])
        .help("What the identifiers of partitions and file systems are derived from"),
    Setting::new("ElTorito", SECTION, &["--el-torito"], Kind::Feature)
        .help("Add a boot catalog, so that the disk image boots as an optical disc"),
    Setting::new("ElToritoSystem", SECTION, &["--el-torito-system"], Kind::Text)
        .meta("TEXT")
        .help("The system identifier in the ISO 9660 descriptor"),
    Setting::new("ElToritoVolume", SECTION, &["--el-torito-volume"], Kind::Text)
        .meta("TEXT")
        .help("The volume identifier in the ISO 9660 descriptor"),
    Setting::new("ElToritoPublisher", SECTION, &["--el-torito-publisher"], Kind::Text)
        .meta("TEXT")
        .help("The publisher identifier in the ISO 9660 descriptor"),
    Setting::new("CleanScripts", SECTION, &["--clean-script"], Kind::Scripts)
        .meta("PATH")
        .at(&["clean", "clean.d/*"])
        .no_output()
        .help("Scripts that run after outputs were removed"),
];
