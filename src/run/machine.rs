//! What QEMU calls an architecture, which machine it emulates for it, and what that machine can do.
//!
//! Knows nothing of images.

use super::error::{Result, RunError};
use crate::types::Architecture;

/// The part of `qemu-system-…` for an architecture; empty where QEMU has none.
pub fn qemu(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::Arm => "arm",
        Architecture::MipsLe | Architecture::Mips64Le => "mips",
        Architecture::Parisc => "hppa",
        Architecture::Ppc64Le => "ppc64",
        Architecture::X86 => "i386",
        Architecture::Arc | Architecture::Ia64 | Architecture::S390 | Architecture::Tilegx => "",
        other => other.machine(),
    }
}

/// The type of machine (`-machine help`).
///
/// # Errors
/// When there is none that images of the architecture boot on.
pub fn machine(architecture: Architecture) -> Result<&'static str> {
    Ok(match architecture {
        Architecture::X86 | Architecture::X86_64 => "q35",
        Architecture::Arm | Architecture::Arm64 | Architecture::Riscv64 | Architecture::Loongarch64 => "virt",
        Architecture::S390x => "s390-ccw-virtio",
        Architecture::Ppc | Architecture::Ppc64 | Architecture::Ppc64Le => "pseries",
        other => {
            return Err(RunError::unfit(
                format!("QEMU has no machine that an image for {other} can run on"),
                "run it on real hardware of that kind",
            ));
        }
    })
}

/// Whether it is a processor of Intel's kind.
pub fn is_x86(architecture: Architecture) -> bool {
    matches!(architecture, Architecture::X86 | Architecture::X86_64)
}

/// Whether it is a processor of ARM's kind.
pub fn is_arm(architecture: Architecture) -> bool {
    matches!(architecture, Architecture::Arm | Architecture::Arm64)
}

/// Whether UEFI is there for it.
pub fn has_uefi(architecture: Architecture) -> bool {
    matches!(
        architecture,
        Architecture::X86
            | Architecture::X86_64
            | Architecture::Arm
            | Architecture::Arm64
            | Architecture::Riscv32
            | Architecture::Riscv64
            | Architecture::Loongarch64
    )
}

/// Whether the system sees SMBIOS tables.
pub fn has_smbios(architecture: Architecture, uefi: bool) -> bool {
    is_x86(architecture) || (is_arm(architecture) && uefi)
}

/// Whether systemd in the guest finds credentials in QEMU's fw_cfg device.
pub fn has_fw_cfg(architecture: Architecture) -> bool {
    is_x86(architecture) || is_arm(architecture)
}

/// Whether CXL devices can be had.
pub fn has_cxl(architecture: Architecture) -> bool {
    is_x86(architecture) || is_arm(architecture)
}

/// Whether the processor of the host runs the guest's code under KVM.
pub fn can_kvm(guest: Architecture, host: Architecture) -> bool {
    guest == host || (guest == Architecture::X86 && host == Architecture::X86_64)
}

/// The model of the network card.
pub fn network_card(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::S390x => "virtio",
        _ => "virtio-net-pci",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_machine_has_a_program() {
        for architecture in Architecture::ALL {
            if machine(*architecture).is_ok() {
                assert!(!qemu(*architecture).is_empty(), "{architecture}");
            }
        }
        assert!(machine(Architecture::Alpha).is_err());
        assert!(can_kvm(Architecture::X86, Architecture::X86_64) && !can_kvm(Architecture::X86_64, Architecture::X86));
    }
}
