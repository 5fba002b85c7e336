//! Processor architectures, in the names of mkosi's configuration and of the distributions.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! architectures {
    ($($variant:ident $name:literal $machine:literal $debian:literal $rpm:literal;)*) => {
        /// An architecture by the name that systemd uses for it (`ConditionArchitecture=` in systemd.unit(5)).
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Architecture {
            $(
                #[doc = concat!("`", $name, "`")]
                #[serde(rename = $name)]
                $variant,
            )*
        }

        impl Architecture {
            /// Every architecture.
            pub const ALL: &[Architecture] = &[$(Architecture::$variant),*];

            /// The name in configuration files, `x86-64` for instance.
            pub const fn name(self) -> &'static str {
                match self { $(Architecture::$variant => $name,)* }
            }

            /// The name that `uname -m` prints.
            pub const fn machine(self) -> &'static str {
                match self { $(Architecture::$variant => $machine,)* }
            }

            /// dpkg's name (`dpkg-architecture -L`), empty where Debian has none.
            pub const fn debian(self) -> &'static str {
                match self { $(Architecture::$variant => $debian,)* }
            }

            /// rpm's name, empty where it has none.
            pub const fn rpm(self) -> &'static str {
                match self { $(Architecture::$variant => $rpm,)* }
            }
        }
    };
}

architectures! {
    Alpha "alpha" "alpha" "alpha" "";
    Arc "arc" "arc" "arc" "";
    Arm "arm" "armv7l" "armhf" "armv7hl";
    Arm64 "arm64" "aarch64" "arm64" "aarch64";
    Ia64 "ia64" "ia64" "ia64" "";
    Loongarch64 "loongarch64" "loongarch64" "loong64" "loongarch64";
    MipsLe "mips-le" "mips" "mipsel" "";
    Mips64Le "mips64-le" "mips64" "mips64el" "";
    Parisc "parisc" "parisc" "hppa" "";
    Ppc "ppc" "ppc" "powerpc" "";
    Ppc64 "ppc64" "ppc64" "ppc64" "ppc64";
    Ppc64Le "ppc64-le" "ppc64le" "ppc64el" "ppc64le";
    Riscv32 "riscv32" "riscv32" "" "";
    Riscv64 "riscv64" "riscv64" "riscv64" "riscv64";
    S390 "s390" "s390" "s390" "";
    S390x "s390x" "s390x" "s390x" "s390x";
    Tilegx "tilegx" "tilegx" "" "";
    X86 "x86" "i686" "i386" "i686";
    X86_64 "x86-64" "x86_64" "amd64" "x86_64";
}

impl Architecture {
    /// The machine that this program was built for and runs on.
    pub fn host() -> Self {
        let machine = match std::env::consts::ARCH {
            "x86" => "i686",
            "arm" => "armv7l",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            other => other,
        };
        Self::ALL.iter().copied().find(|a| a.machine() == machine).unwrap_or(Self::X86_64)
    }

    /// The name in the file names of EFI programs (UEFI specification, "Removable Media Boot Behavior"), in lower
    /// case; nothing where there is no UEFI.
    pub const fn efi(self) -> Option<&'static str> {
        Some(match self {
            Self::Arm => "arm",
            Self::Arm64 => "aa64",
            Self::Loongarch64 => "loongarch64",
            Self::Riscv32 => "riscv32",
            Self::Riscv64 => "riscv64",
            Self::X86 => "ia32",
            Self::X86_64 => "x64",
            _ => return None,
        })
    }

    /// GRUB's name for it, as in `x86_64-efi`; nothing where GRUB is not used.
    pub const fn grub(self) -> Option<&'static str> {
        Some(match self {
            Self::Arm => "arm",
            Self::Arm64 => "arm64",
            Self::X86 => "i386",
            Self::X86_64 => "x86_64",
            _ => return None,
        })
    }

    /// The name in OCI images, which is Go's (`GOARCH`); nothing where Go has none.
    pub const fn oci(self) -> Option<&'static str> {
        Some(match self {
            Self::Arm => "arm",
            Self::Arm64 => "arm64",
            Self::Loongarch64 => "loong64",
            Self::MipsLe => "mipsle",
            Self::Mips64Le => "mips64le",
            Self::Ppc => "ppc",
            Self::Ppc64 => "ppc64",
            Self::Ppc64Le => "ppc64le",
            Self::Riscv32 => "riscv",
            Self::Riscv64 => "riscv64",
            Self::S390 => "s390",
            Self::S390x => "s390x",
            Self::X86 => "386",
            Self::X86_64 => "amd64",
            _ => return None,
        })
    }

    /// Whether it is one of the two that Intel and AMD make.
    pub const fn is_x86(self) -> bool {
        matches!(self, Self::X86 | Self::X86_64)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|a| a.name() == text).ok_or_else(|| format!("unknown architecture `{text}`"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for arch in Architecture::ALL {
            assert_eq!(arch.name().parse::<Architecture>().unwrap(), *arch);
        }
        assert!("x86_65".parse::<Architecture>().is_err());
    }
}
