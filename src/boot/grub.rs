//! GRUB: its configuration on the EFI partition, the arguments of grub-mkimage(1), and where distributions put their
//! signed programs.

use super::loader::Entry;
use super::look::Look;
use crate::types::Architecture;

/// What the configuration starts with where the user has none. Without it GRUB stays in its menu.
pub const HEAD: &str = "set timeout=0\n";

/// Modules that every image of GRUB gets.
const MODULES: [&str; 21] = [
    "cat",
    "cmp",
    "div",
    "echo",
    "fat",
    "hello",
    "help",
    "keylayouts",
    "linux",
    "loadenv",
    "ls",
    "normal",
    "part_gpt",
    "read",
    "reboot",
    "search_fs_file",
    "search",
    "sleep",
    "test",
    "tr",
    "true",
];

/// The directory on the EFI partition that GRUB reads.
pub fn prefix(distribution: &str) -> &'static str {
    match distribution {
        "fedora" | "centos" | "rhel" | "rhel-ubi" | "rocky" | "alma" | "opensuse" => "grub2",
        _ => "grub",
    }
}

/// The path in the tree of GRUB's configuration.
pub fn config_path(distribution: &str) -> String {
    format!("efi/{}/grub.cfg", prefix(distribution))
}

/// The path in the tree of the configuration that GRUB as the distribution has signed it reads first, and its text:
/// it leads to the one above.
pub fn early_config(distribution: &str) -> (String, String) {
    let path = match distribution {
        "opensuse" => "efi/EFI/BOOT/grub.cfg".to_owned(),
        "alma" => "efi/EFI/almalinux/grub.cfg".to_owned(),
        name => format!("efi/EFI/{name}/grub.cfg"),
    };
    (path, format!("configfile /{}/grub.cfg\n", prefix(distribution)))
}

/// The configuration that is built into an image of GRUB: it finds the partition with the one above.
pub fn built_in_config(distribution: &str) -> String {
    let prefix = prefix(distribution);
    format!("search --no-floppy --set=root --file /{prefix}/grub.cfg\nset prefix=($root)/{prefix}\n")
}

/// The menu entry that starts a unified kernel image at `path` on the boot partition.
pub fn chain_entry(name: &str, path: &str) -> String {
    format!("if [ \"${{grub_platform}}\" == \"efi\" ]; then\nmenuentry \"{name}\" {{\n    chainloader {path}\n}}\nfi\n")
}

/// The menu entry that starts a kernel; `platforms` are those that it is shown on (`efi`, `pc`).
pub fn linux_entry(entry: &Entry, options: &str, platforms: &[&str]) -> String {
    let tests: Vec<String> =
        platforms.iter().map(|platform| format!("\"${{grub_platform}}\" == \"{platform}\"")).collect();
    format!(
        "if [ {} ]; then\nmenuentry \"{}-{}\" {{\n    linux {} {options}\n    initrd {}\n}}\nfi\n",
        tests.join(" -o "),
        entry.token,
        entry.version,
        entry.linux,
        entry.initrds.join(" ")
    )
}

/// An image of GRUB. Paths are those of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// The target, `i386-pc` or `x86_64-efi`.
    pub target: &'a str,
    /// The directory with its modules.
    pub directory: &'a str,
    /// The file with the built-in configuration.
    pub config: &'a str,
    /// The directory on the EFI partition that it reads.
    pub prefix: &'a str,
    /// Where it goes.
    pub output: &'a str,
    /// A file with its SBAT section.
    pub sbat: Option<&'a str>,
    /// Whether shim starts it.
    pub shim: bool,
    /// Modules of this target.
    pub modules: &'a [&'a str],
}

impl Image<'_> {
    /// The arguments after the program's name; `has` says whether a module is there.
    pub fn arguments(&self, has: impl Fn(&str) -> bool) -> Vec<String> {
        let mut argv: Vec<String> = [
            ("--directory", self.directory),
            ("--config", self.config),
            ("--prefix", &format!("/{}", self.prefix)),
            ("--output", self.output),
            ("--format", self.target),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value.to_owned()])
        .collect();
        if let Some(path) = self.sbat {
            argv.extend(["--sbat".to_owned(), path.to_owned()]);
        }
        if !self.shim {
            argv.push("--disable-shim-lock".to_owned());
        }
        let modules = MODULES.iter().chain(self.modules).filter(|module| has(module));
        argv.extend(modules.map(|module| (*module).to_owned()));
        argv
    }
}

/// The GRUB that the distribution has signed, as a path in the tree. Links that start at the root are passed over.
pub fn signed_image(look: &Look<'_>, architecture: Architecture) -> Option<String> {
    let efi = architecture.efi()?;
    [
        // Debian and Ubuntu, Fedora and CentOS, openSUSE.
        format!("usr/lib/grub/*-signed/grub{efi}.efi.signed"),
        format!("boot/efi/EFI/*/grub{efi}.efi"),
        "usr/share/efi/*/grub.efi".to_owned(),
    ]
    .iter()
    .flat_map(|pattern| look.glob(pattern))
    .find(|path| !look.is_absolute_link(path))
}

/// Where distributions put shim: patterns for the signed and for the unsigned program.
pub fn shim_patterns(efi: &str) -> ([String; 4], [String; 3]) {
    (
        [
            // Ubuntu, Debian, Fedora and CentOS, openSUSE.
            format!("usr/lib/shim/shim{efi}.efi.signed.latest"),
            format!("usr/lib/shim/shim{efi}.efi.signed"),
            format!("boot/efi/EFI/*/shim{efi}.efi"),
            "usr/share/efi/*/shim.efi".to_owned(),
        ],
        [
            // Debian and Ubuntu, Fedora and CentOS, Arch.
            format!("usr/lib/shim/shim{efi}.efi"),
            format!("usr/share/shim/*/*/shim{efi}.efi"),
            format!("usr/share/shim/shim{efi}.efi"),
        ],
    )
}

/// Where distributions put MokManager, which enrols keys for shim.
pub fn mok_patterns(efi: &str) -> ([String; 4], [String; 3]) {
    (
        [
            format!("usr/lib/shim/mm{efi}.efi.signed"),
            format!("usr/lib/shim/mm{efi}.efi"),
            format!("boot/efi/EFI/*/mm{efi}.efi"),
            "usr/share/efi/*/MokManager.efi".to_owned(),
        ],
        [
            format!("usr/lib/shim/mm{efi}.efi"),
            format!("usr/share/shim/*/*/mm{efi}.efi"),
            format!("usr/share/shim/mm{efi}.efi"),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::super::kernels::testing::Made;
    use super::*;

    fn entry() -> Entry {
        Entry {
            token: "debian".to_owned(),
            version: "6.12".to_owned(),
            linux: "/debian/6.12/vmlinuz".to_owned(),
            initrds: vec!["/debian/initrd".to_owned(), "/debian/6.12/kernel-modules.initrd".to_owned()],
            devicetree: None,
            options: String::new(),
        }
    }

    #[test]
    fn texts_and_arguments() {
        let image = Image {
            target: "x86_64-efi",
            directory: "/buildroot/usr/lib/grub/x86_64-efi",
            config: "/work/early.cfg",
            prefix: prefix("debian"),
            output: "/out",
            sbat: Some("/work/sbat"),
            shim: false,
            modules: &["chain"],
        };
        let (path, text) = early_config("alma");
        insta::assert_snapshot!(
            [
                built_in_config("fedora"),
                chain_entry("debian-6.12", "/EFI/Linux/debian-6.12.efi"),
                linux_entry(&entry(), "root=PARTUUID=x quiet", &["efi", "pc"]),
                image.arguments(|module| module != "keylayouts").join(" "),
                format!("{path}: {text}"),
            ]
            .join("\n")
        );
    }

    #[test]
    fn signed_images_are_found() {
        let made = Made::new(&[
            ("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed", "a"),
            ("boot/efi/EFI/fedora/grubx64.efi", "b"),
        ])
        .link("usr/lib/grub/a-signed/grubx64.efi.signed", "/boot/efi/EFI/fedora/grubx64.efi");
        let tree = made.tree();
        let found = signed_image(&Look::new(&tree), Architecture::X86_64);
        assert_eq!(found.as_deref(), Some("usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed"));
        assert_eq!(signed_image(&Look::new(&tree), Architecture::Arm64), None);
    }
}
