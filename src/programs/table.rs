//! What is known of programs that stages run, beside what their files say: the package that has them, the modules of
//! Python that they import, what they run and what they load while they work.
//!
//! Knows nothing of which stage runs what.

/// A program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Program {
    /// Its name, without a directory.
    name: &'static str,
    /// The package of Debian that has it.
    package: &'static str,
    /// The modules of Python that it imports and that are no part of Python itself.
    pub modules: &'static [&'static str],
    /// Programs that it runs and no stage names beside it: their names, or a directory of which all count.
    pub runs: &'static [&'static str],
    /// Libraries that it loads while it works and that no note in its files names.
    pub loads: &'static [&'static str],
    /// What a library of it loads: the library, and a file or a directory beside that library.
    pub plugins: &'static [(&'static str, &'static str)],
}

const fn program(name: &'static str, package: &'static str) -> Program {
    Program { name, package, modules: &[], runs: &[], loads: &[], plugins: &[] }
}

impl Program {
    const fn modules(self, modules: &'static [&'static str]) -> Self {
        Self { modules, ..self }
    }

    const fn runs(self, runs: &'static [&'static str]) -> Self {
        Self { runs, ..self }
    }

    const fn loads(self, loads: &'static [&'static str]) -> Self {
        Self { loads, ..self }
    }

    const fn plugins(self, plugins: &'static [(&'static str, &'static str)]) -> Self {
        Self { plugins, ..self }
    }
}

/// Who decides which packages are installed, where apt doesn't do that itself.
const SOLVERS: &[&str] = &["/usr/lib/apt/planners", "/usr/lib/apt/solvers"];

/// What signs takes keys from there.
const PROVIDERS: &[(&str, &str)] = &[("libcrypto.so.3", "engines-3"), ("libcrypto.so.3", "ossl-modules")];

/// The code page in which FAT has its short names (mkfs.fat(8), mtools(5)).
const CODE_PAGE: &[(&str, &str)] = &[("libc.so.6", "gconv/IBM850.so")];

/// The programs, sorted by name.
const PROGRAMS: &[Program] = &[
    program("apt-cache", "apt").runs(SOLVERS),
    program("apt-get", "apt").runs(SOLVERS),
    program("bootctl", "systemd-boot-tools"),
    program("bsdtar", "libarchive-tools"),
    program("chroot", "coreutils"),
    program("cryptsetup", "cryptsetup-bin"),
    program("depmod", "kmod"),
    program("dpkg", "dpkg").runs(&["dpkg-split", "rm"]),
    program("dpkg-deb", "dpkg"),
    program("fsck.fat", "dosfstools"),
    program("gpg", "gpg"),
    program("gpgv", "gpgv"),
    program("grub-bios-setup", "grub-pc-bin"),
    program("grub-mkimage", "grub-common"),
    program("mcopy", "mtools").plugins(CODE_PAGE),
    program("mkfs.btrfs", "btrfs-progs"),
    program("mkfs.erofs", "erofs-utils"),
    program("mkfs.ext4", "e2fsprogs"),
    program("mkfs.fat", "dosfstools").plugins(CODE_PAGE),
    program("mkfs.vfat", "dosfstools").plugins(CODE_PAGE),
    program("mkfs.xfs", "xfsprogs"),
    program("mksquashfs", "squashfs-tools"),
    program("modinfo", "kmod"),
    program("openssl", "openssl").plugins(PROVIDERS),
    program("pesign", "pesign"),
    program("qemu-system-aarch64", "qemu-system-arm"),
    program("qemu-system-x86_64", "qemu-system-x86"),
    program("sbsign", "sbsigntool").plugins(PROVIDERS),
    program("sbverify", "sbsigntool"),
    program("setfiles", "policycoreutils"),
    program("ssh", "openssh-client"),
    program("ssh-keygen", "openssh-client"),
    program("swtpm", "swtpm"),
    program("swtpm_setup", "swtpm-tools"),
    program("systemctl", "systemd"),
    program("systemd-dissect", "systemd-container"),
    program("systemd-firstboot", "systemd"),
    program("systemd-hwdb", "udev"),
    program("systemd-measure", "systemd").loads(&["libtss2-esys.so.0"]).plugins(PROVIDERS),
    program("systemd-nspawn", "systemd-container"),
    // From systemd 256 on its files name these themselves.
    program("systemd-repart", "systemd-repart").loads(&["libcryptsetup.so.12", "libtss2-esys.so.0"]).plugins(PROVIDERS),
    program("systemd-sbsign", "systemd-boot-tools").plugins(PROVIDERS),
    program("systemd-sysusers", "systemd"),
    program("systemd-tmpfiles", "systemd"),
    program("tar", "tar"),
    // What cryptography imports is there too.
    program("ukify", "systemd-ukify").modules(&["_cffi_backend", "cryptography", "ordlookup", "pefile"]),
    program("veritysetup", "cryptsetup-bin"),
    program("virtiofsd", "virtiofsd"),
];

/// What is known of a program, by its name or path.
pub(super) fn of(name: &str) -> Option<&'static Program> {
    let name = name.rsplit('/').next().unwrap_or(name);
    PROGRAMS.iter().find(|program| program.name == name)
}

/// The package of Debian that has a program, where that is known.
pub fn package_of(program: &str) -> Option<&'static str> {
    of(program).map(|program| program.package)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_sorted() {
        assert!(PROGRAMS.windows(2).all(|pair| pair[0].name < pair[1].name));
    }

    #[test]
    fn a_program_is_known_by_its_path_too() {
        assert_eq!(package_of("/usr/lib/systemd/ukify"), Some("systemd-ukify"));
        assert_eq!(package_of("true"), None);
    }
}
