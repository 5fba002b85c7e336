//! Which ways of booting an image are wanted, from the settings and what is at hand.

use super::look::Look;
use super::{Error, Result, names};
use crate::types::Architecture;

/// What the configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wishes {
    /// `Bootable=`: `auto`, `enabled` or `disabled`.
    pub bootable: String,
    /// `Bootloader=`.
    pub bootloader: String,
    /// `BiosBootloader=`.
    pub bios_bootloader: String,
    /// `ShimBootloader=`.
    pub shim: String,
    /// `UnifiedKernelImages=`.
    pub unified: String,
    /// The architecture.
    pub architecture: Architecture,
    /// Whether the output is an EFI partition.
    pub esp: bool,
    /// Whether the output is a disk.
    pub disk: bool,
    /// Whether the format and the base trees leave it to `Bootable=auto` to boot by UEFI.
    pub fits: bool,
    /// Whether only what was added to base trees is put out.
    pub overlay: bool,
}

impl Wishes {
    /// Whether `Bootable=yes` was said: what is missing is an error then.
    pub fn demanded(&self) -> bool {
        self.bootable == "enabled"
    }

    /// Whether the boot loader is one that the distribution has signed.
    pub fn signed(&self) -> bool {
        self.bootloader.ends_with("-signed")
    }

    /// Whether the firmware starts a unified kernel image without a boot loader.
    pub fn bare_uki(&self) -> bool {
        self.bootloader.trim_end_matches("-signed") == "uki"
    }

    /// Whether the boot loader is systemd-boot.
    pub fn systemd_boot(&self) -> bool {
        self.bootloader.trim_end_matches("-signed") == "systemd-boot"
    }

    /// Whether the boot loader for UEFI is GRUB.
    pub fn grub(&self) -> bool {
        self.bootloader.trim_end_matches("-signed") == "grub"
    }

    /// Whether shim comes first.
    pub fn shim(&self) -> bool {
        self.shim != "none"
    }

    /// Whether the image is to boot by UEFI.
    ///
    /// # Errors
    /// It is demanded of an architecture that has no UEFI.
    pub fn efi(&self) -> Result<bool> {
        if self.esp {
            return Ok(true);
        }
        if self.bootable == "disabled" || self.bootloader == "none" || (!self.fits && !self.demanded()) {
            return Ok(false);
        }
        if self.architecture.efi().is_none() {
            if self.demanded() {
                let what = format!("Bootloader={}", self.bootloader);
                return Err(Error::NoEfi { architecture: self.architecture.name(), what });
            }
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether kernels are booted as unified kernel images. `auto` takes them where the stub is in the image and ukify
    /// among the tools.
    ///
    /// # Errors
    /// As [`Wishes::efi`].
    pub fn uki(&self, look: &Look<'_>, has_ukify: bool) -> Result<bool> {
        let stub = || names::stub(self.architecture).is_some_and(|stub| look.exists(&stub));
        Ok(self.efi()?
            && (self.bare_uki()
                || matches!(self.unified.as_str(), "signed" | "unsigned")
                || (self.unified == "auto" && has_ukify && stub())))
    }

    /// Whether the unified kernel images are those that the distribution has built and signed.
    pub fn prebuilt_uki(&self) -> bool {
        self.unified == "signed" || (self.unified == "auto" && self.signed())
    }

    /// Whether GRUB is the boot loader for UEFI.
    ///
    /// # Errors
    /// As [`Wishes::efi`]; it is demanded, and the image has no modules of GRUB.
    pub fn grub_efi(&self, look: &Look<'_>) -> Result<bool> {
        let Some(grub) = self.architecture.grub() else { return Ok(false) };
        if !self.grub() || !self.efi()? {
            return Ok(false);
        }
        if !self.signed() && self.demanded() && grub_directory(look, &format!("{grub}-efi")).is_none() {
            return Err(missing_grub("Bootloader=grub", &format!("{grub}-efi"), "grub-efi-amd64-bin"));
        }
        Ok(true)
    }

    /// Whether GRUB is the boot loader for BIOS.
    ///
    /// # Errors
    /// It is demanded, and the image has no modules of GRUB.
    pub fn grub_bios(&self, look: &Look<'_>) -> Result<bool> {
        if self.bootable == "disabled" || !self.disk || self.bios_bootloader != "grub" || self.overlay {
            return Ok(false);
        }
        let has = grub_directory(look, BIOS).is_some();
        if !has && self.demanded() {
            return Err(missing_grub("BiosBootloader=grub", BIOS, "grub-pc-bin"));
        }
        Ok(has)
    }
}

/// GRUB's name for machines with a BIOS.
pub const BIOS: &str = "i386-pc";

/// The places where distributions have GRUB's modules.
const GRUB: [&str; 2] = ["usr/lib/grub", "usr/share/grub2"];

/// The directory in the tree with GRUB's modules for a target. One that is empty has none.
pub fn grub_directory(look: &Look<'_>, target: &str) -> Option<String> {
    GRUB.iter().map(|directory| format!("{directory}/{target}")).find(|directory| !look.names(directory).is_empty())
}

fn missing_grub(wanted: &str, target: &str, package: &str) -> Error {
    Error::Missing {
        wanted: format!("Bootable=yes and {wanted} ask for GRUB"),
        missing: format!("/usr/lib/grub/{target}"),
        advice: format!("add GRUB's modules to Packages= (Debian: {package})"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::testing::Made;
    use super::*;

    fn wishes() -> Wishes {
        let text = |text: &str| text.to_owned();
        Wishes {
            bootable: text("auto"),
            bootloader: text("systemd-boot"),
            bios_bootloader: text("none"),
            shim: text("none"),
            unified: text("auto"),
            architecture: Architecture::X86_64,
            esp: false,
            disk: true,
            fits: true,
            overlay: false,
        }
    }

    #[test]
    fn uefi_is_wanted() {
        assert!(wishes().efi().unwrap());
        assert!(!Wishes { fits: false, ..wishes() }.efi().unwrap());
        assert!(Wishes { fits: false, bootable: "enabled".to_owned(), ..wishes() }.efi().unwrap());
        assert!(!Wishes { bootloader: "none".to_owned(), ..wishes() }.efi().unwrap());
        let disabled = Wishes { bootable: "disabled".to_owned(), ..wishes() };
        assert!(!disabled.efi().unwrap());
        assert!(Wishes { esp: true, ..disabled }.efi().unwrap());
        let s390 = Wishes { architecture: Architecture::S390x, ..wishes() };
        assert!(!s390.efi().unwrap());
        let error = Wishes { bootable: "enabled".to_owned(), ..s390 }.efi().unwrap_err().to_string();
        assert!(error.contains("s390x") && error.contains("Bootable=no"), "{error}");
    }

    #[test]
    fn unified_images_are_wanted() {
        let with = Made::new(&[("usr/lib/systemd/boot/efi/linuxx64.efi.stub", "")]).tree();
        let without = Made::new(&[]).tree();
        let uki = |wishes: &Wishes, tree, has| wishes.uki(&Look::new(tree), has).unwrap();
        assert!(uki(&wishes(), &with, true));
        assert!(!uki(&wishes(), &with, false) && !uki(&wishes(), &without, true));
        assert!(uki(&Wishes { unified: "unsigned".to_owned(), ..wishes() }, &without, false));
        assert!(!uki(&Wishes { unified: "none".to_owned(), ..wishes() }, &with, true));
        let bare = Wishes { unified: "none".to_owned(), bootloader: "uki-signed".to_owned(), ..wishes() };
        assert!(uki(&bare, &without, false) && bare.signed() && !bare.prebuilt_uki());
        assert!(Wishes { unified: "auto".to_owned(), ..bare }.prebuilt_uki());
    }

    #[test]
    fn grub_is_wanted() {
        let with = Made::new(&[("usr/lib/grub/i386-pc/boot.img", "")]).tree();
        let without = Made::new(&[("usr/share/grub/unicode.pf2", "")]).tree();
        let suse = Made::new(&[("usr/share/grub2/i386-pc/boot.img", "")]).tree();
        assert_eq!(grub_directory(&Look::new(&suse), BIOS).as_deref(), Some("usr/share/grub2/i386-pc"));
        let both = Wishes { bootloader: "grub".to_owned(), bios_bootloader: "grub".to_owned(), ..wishes() };
        assert!(both.grub_bios(&Look::new(&with)).unwrap() && !both.grub_bios(&Look::new(&without)).unwrap());
        assert!(both.grub_efi(&Look::new(&without)).unwrap());
        assert!(!Wishes { disk: false, ..both.clone() }.grub_bios(&Look::new(&with)).unwrap());
        let demanded = Wishes { bootable: "enabled".to_owned(), ..both };
        for error in [demanded.grub_bios(&Look::new(&without)), demanded.grub_efi(&Look::new(&without))] {
            assert!(error.unwrap_err().to_string().contains("Packages="));
        }
    }
}
