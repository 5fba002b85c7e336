//! `[Content]`: what is in the image, and how it boots.

use super::super::defaults;
use super::choices::{BIOS_BOOTLOADER, BOOTLOADER, SHIM, SSH, UKI};
use super::{Default, Item, Kind, PathRule, Scope, Setting, Split};

const SECTION: &str = "Content";

const REGEXES: Kind = Kind::List { item: Item::Regex, split: Split::Words };
const TEXTS: Kind = Kind::List { item: Item::Text, split: Split::Words };
const SCRIPTS: Kind = Kind::Scripts;

const fn tree(required: bool, bare: bool) -> Kind {
    Kind::List { item: Item::Tree { required, absolute: true, directory: false, bare }, split: Split::Words }
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("Packages", SECTION, &["--package", "-p"], Kind::Packages)
        .meta("PACKAGE")
        .tools()
        .help("Packages to install"),
    Setting::new("BuildPackages", SECTION, &["--build-package"], Kind::Packages)
        .meta("PACKAGE")
        .help("Packages that only the build scripts need"),
    Setting::new("VolatilePackages", SECTION, &["--volatile-package"], Kind::Packages)
        .meta("PACKAGE")
        .help("Packages to install after the build scripts have run"),
    Setting::new("PackageDirectories", SECTION, &["--package-directory"], Kind::paths(PathRule::EXISTS))
        .meta("PATH")
        .scope(Scope::Universal)
        .tools()
        .at(&["packages"])
        .help("Directories with further packages"),
    Setting::new(
        "VolatilePackageDirectories",
        SECTION,
        &["--volatile-package-directory"],
        Kind::paths(PathRule::EXISTS),
    )
    .meta("PATH")
    .scope(Scope::Universal)
    .help("Directories with further packages for VolatilePackages="),
    Setting::new("WithRecommends", SECTION, &["--with-recommends"], Kind::Bool)
        .help("Install recommended packages too"),
    Setting::new("WithDocs", SECTION, &["--with-docs"], Kind::Bool)
        .default(Default::Bool(true))
        .help("Install documentation"),
    Setting::new("BaseTrees", SECTION, &["--base-tree"], tree(false, true))
        .meta("PATH")
        .help("Trees that the image is built on top of"),
    Setting::new("SkeletonTrees", SECTION, &["--skeleton-tree"], tree(true, false))
        .meta("PATH[:TARGET]")
        .at(&["skeleton", "skeleton.tar"])
        .once(&["SkeletonTree"], &[])
        .help("Trees that are copied in before packages are installed"),
    Setting::new("ExtraTrees", SECTION, &["--extra-tree"], tree(false, false))
        .meta("PATH[:TARGET]")
        .at(&["extra", "extra.tar"])
        .once(&["ExtraTree"], &[])
        .help("Trees that are copied in after packages are installed"),
    Setting::new("RemovePackages", SECTION, &["--remove-package"], Kind::WORDS)
        .meta("PACKAGE")
        .help("Packages to remove in the end"),
    Setting::new("RemoveFiles", SECTION, &["--remove-files"], TEXTS).meta("GLOB").help("Files to remove in the end"),
    Setting::new("CleanPackageMetadata", SECTION, &["--clean-package-metadata"], Kind::Feature)
        .help("Remove the package manager's database and other files of it"),
    Setting::new("SourceDateEpoch", SECTION, &["--source-date-epoch"], Kind::Number { min: 0 })
        .meta("SECONDS")
        .scope(Scope::Multiversal)
        .default(Default::From(defaults::source_date_epoch))
        .nullable()
        .help("The newest time that anything in the image may have, in seconds since 1970"),
    Setting::new("SyncScripts", SECTION, &["--sync-script"], SCRIPTS)
        .meta("PATH")
        .tools()
        .at(&["sync", "sync.d/*"])
        .help("Scripts that fetch sources before anything is built"),
    Setting::new("PrepareScripts", SECTION, &["--prepare-script"], SCRIPTS)
        .meta("PATH")
        .tools()
        .at(&["prepare", "prepare.chroot", "prepare.d/*"])
        .once(&["PrepareScript"], &[])
        .help("Scripts that run, with network, after packages are installed"),
    Setting::new("BuildScripts", SECTION, &["--build-script"], SCRIPTS)
        .meta("PATH")
        .at(&["build", "build.chroot", "build.d/*"])
        .once(&["BuildScript"], &[])
        .help("Scripts that build from source and install to $DESTDIR"),
    Setting::new("PostInstallationScripts", SECTION, &["--postinst-script"], SCRIPTS)
        .meta("PATH")
        .at(&["postinst", "postinst.chroot", "postinst.d/*"])
        .once(&["PostInstallationScript"], &[])
        .help("Scripts that run after extra trees are copied in"),
    Setting::new("FinalizeScripts", SECTION, &["--finalize-script"], SCRIPTS)
        .meta("PATH")
        .at(&["finalize", "finalize.chroot", "finalize.d/*"])
        .once(&["FinalizeScript"], &[])
        .help("Scripts that run as the last step before the output is made"),
    Setting::new("PostOutputScripts", SECTION, &["--postoutput-script"], SCRIPTS)
        .meta("PATH")
        .at(&["postoutput", "postoutput.d/*"])
        .help("Scripts that run after the outputs are made"),
    Setting::new("Bootable", SECTION, &["--bootable"], Kind::Feature)
        .help("Make an image that boots: with an EFI partition, a boot loader and kernels"),
    Setting::new("Bootloader", SECTION, &["--bootloader"], Kind::Enum(&BOOTLOADER))
        .meta("NAME")
        .default(Default::Text("systemd-boot"))
        .help("The boot loader for UEFI"),
    Setting::new("BiosBootloader", SECTION, &["--bios-bootloader"], Kind::Enum(&BIOS_BOOTLOADER))
        .meta("NAME")
        .default(Default::Text("none"))
        .help("The boot loader for BIOS"),
    Setting::new("ShimBootloader", SECTION, &["--shim-bootloader"], Kind::Enum(&SHIM))
        .meta("KIND")
        .default(Default::Text("none"))
        .help("Install shim as the first stage of booting"),
    Setting::new("UnifiedKernelImages", SECTION, &["--unified-kernel-images"], Kind::Enum(&UKI))
        .meta("KIND")
        .default(Default::Text("auto"))
        .help("Use unified kernel images with systemd-boot and grub"),
    Setting::new("UnifiedKernelImageFormat", SECTION, &["--unified-kernel-image-format"], Kind::Name)
        .meta("FORMAT")
        .help("The file name of unified kernel images, with & specifiers"),
    Setting::new(
        "UnifiedKernelImageProfiles",
        SECTION,
        &["--uki-profile"],
        Kind::List { item: Item::UkiProfile, split: Split::Words },
    )
    .meta("PATH")
    .at(&["uki-profiles/*.conf"])
    .help("Files with further profiles for unified kernel images"),
    Setting::new("Initrds", SECTION, &["--initrd"], Kind::paths(PathRule { constants: &["default"], ..PathRule::ANY }))
        .meta("PATH")
        .default(Default::From(defaults::initrds))
        .help("Initrds to boot with; `default` is one that is built"),
    Setting::new("MicrocodeHost", SECTION, &["--microcode-host"], Kind::Bool)
        .help("Only add the microcode of the host's processor"),
    Setting::new("InitrdProfiles", SECTION, &["--initrd-profile"], Kind::WORDS)
        .meta("PROFILE")
        .scope(Scope::Initrd)
        .help("Profiles of the default initrd: lvm, network, nfs, pkcs11, plymouth, raid"),
    Setting::new("InitrdPackages", SECTION, &["--initrd-package"], Kind::WORDS)
        .meta("PACKAGE")
        .scope(Scope::Initrd)
        .help("Further packages for the default initrd"),
    Setting::new("InitrdVolatilePackages", SECTION, &["--initrd-volatile-package"], Kind::WORDS)
        .meta("PACKAGE")
        .scope(Scope::Initrd)
        .help("Further packages for the default initrd that change often"),
    Setting::new("Devicetrees", SECTION, &["--devicetrees"], TEXTS)
        .meta("NAME")
        .once(&["Devicetree"], &[])
        .help("Device trees for the kernel, as names of files of the kernel's package"),
    Setting::new("Splash", SECTION, &["--splash"], Kind::Path(PathRule { absolute: true, ..PathRule::ANY }))
        .meta("PATH")
        .help("The picture to show while booting, as a path in the image"),
    Setting::new("KernelCommandLine", SECTION, &["--kernel-command-line"], Kind::SPACED)
        .meta("OPTIONS")
        .help("Options for the kernel"),
    Setting::new("KernelModulesInclude", SECTION, &["--kernel-modules-include"], REGEXES)
        .meta("REGEX")
        .stores("KernelModules")
        .help("Kernel modules to keep, as regular expressions"),
    Setting::new("KernelModulesExclude", SECTION, &["--kernel-modules-exclude"], REGEXES)
        .meta("REGEX")
        .help("Kernel modules to leave out, as regular expressions"),
    Setting::new("KernelModules", SECTION, &["--kernel-modules"], TEXTS)
        .meta("GLOB")
        .help("Kernel modules to keep, or with `-` to leave out"),
    Setting::new("KernelModulesIncludeHost", SECTION, &["--kernel-modules-include-host"], Kind::Bool)
        .help("Keep the kernel modules that the host has loaded"),
    Setting::new("KernelModulesInitrd", SECTION, &["--kernel-modules-initrd"], Kind::Bool)
        .default(Default::Bool(true))
        .help("Add an initrd with the kernel modules"),
    Setting::new("KernelModulesInitrdInclude", SECTION, &["--kernel-modules-initrd-include"], REGEXES)
        .meta("REGEX")
        .stores("KernelInitrdModules")
        .help("Kernel modules to put in that initrd, as regular expressions"),
    Setting::new("KernelModulesInitrdExclude", SECTION, &["--kernel-modules-initrd-exclude"], REGEXES)
        .meta("REGEX")
        .help("Kernel modules to leave out of that initrd, as regular expressions"),
    Setting::new("KernelInitrdModules", SECTION, &["--kernel-initrd-modules"], TEXTS)
        .meta("GLOB")
        .help("Kernel modules to put in that initrd, or with `-` to leave out"),
    Setting::new("KernelModulesInitrdIncludeHost", SECTION, &["--kernel-modules-initrd-include-host"], Kind::Bool)
        .help("Put the kernel modules that the host has loaded in that initrd"),
    Setting::new("FirmwareInclude", SECTION, &["--firmware-include"], REGEXES)
        .meta("REGEX")
        .stores("FirmwareFiles")
        .help("Firmware to keep, as regular expressions"),
    Setting::new("FirmwareExclude", SECTION, &["--firmware-exclude"], REGEXES)
        .meta("REGEX")
        .help("Firmware to leave out, as regular expressions"),
    Setting::new("FirmwareFiles", SECTION, &["--firmware-files"], TEXTS)
        .meta("GLOB")
        .help("Firmware to keep, or with `-` to leave out"),
    Setting::new("Locale", SECTION, &["--locale"], Kind::Text).meta("LOCALE").help("The system's locale"),
    Setting::new("LocaleMessages", SECTION, &["--locale-messages"], Kind::Text)
        .meta("LOCALE")
        .help("The locale of messages"),
    Setting::new("Keymap", SECTION, &["--keymap"], Kind::Text)
        .meta("KEYMAP")
        .scope(Scope::InitrdInherit)
        .help("The keyboard layout of the console"),
    Setting::new("Timezone", SECTION, &["--timezone"], Kind::Text)
        .meta("TIMEZONE")
        .scope(Scope::InitrdInherit)
        .help("The time zone"),
    Setting::new("Hostname", SECTION, &["--hostname"], Kind::Text)
        .meta("HOSTNAME")
        .scope(Scope::InitrdInherit)
        .help("The host name"),
    Setting::new("RootPassword", SECTION, &["--root-password"], Kind::Password)
        .meta("PASSWORD")
        .scope(Scope::InitrdInherit)
        .read(&["rootpw"])
        .once(&["Password"], &["--password"])
        .help("The password of root, or `hashed:` and its hash"),
    Setting::new("RootShell", SECTION, &["--root-shell"], Kind::Text).meta("SHELL").help("The login shell of root"),
    Setting::new("MachineId", SECTION, &["--machine-id"], Kind::Uuid)
        .meta("ID")
        .read(&["machine-id"])
        .help("The machine ID, or `random`"),
    Setting::new("Autologin", SECTION, &["--autologin", "-a"], Kind::Bool)
        .short("yes")
        .help("Log root in on the console without a password"),
    Setting::new("MakeInitrd", SECTION, &["--make-initrd"], Kind::Bool).help("Make the image fit to be an initrd"),
    Setting::new("Ssh", SECTION, &["--ssh"], Kind::Enum(&SSH))
        .meta("WHEN")
        .default(Default::Text("auto"))
        .help("Set up SSH, so that `mkosi ssh` can log in"),
    Setting::new("SELinuxRelabel", SECTION, &["--selinux-relabel"], Kind::Feature).help("Label all files for SELinux"),
];
