//! What things that boot are called: the token of an image's entries, the files of unified kernel images, and the
//! places where firmware and shim look (UEFI specification, "Removable Media Boot Behavior"; Boot Loader Specification).

use super::Result;
use super::look::Look;
use crate::config::expand_delayed;
use crate::types::Architecture;

/// What marks the entries of an image: what `/etc/kernel/entry-token` says, else the machine's ID, the image's, the
/// operating system's (kernel-install(8)); `distribution` where the image knows none of these.
///
/// # Errors
/// When a file of the image can't be read.
pub fn entry_token(look: &Look<'_>, distribution: &str) -> Result<String> {
    for path in ["etc/kernel/entry-token", "usr/lib/kernel/entry-token"] {
        let text = look.text(path)?.unwrap_or_default();
        if let Some(token) = text.lines().next().map(str::trim).filter(|token| is_token(token)) {
            return Ok(token.to_owned());
        }
    }
    let machine = look.text("etc/machine-id")?.unwrap_or_default();
    let machine = machine.trim();
    let is_id = machine.len() == 32 && machine.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_id && machine.bytes().any(|byte| byte != b'0') {
        return Ok(machine.to_owned());
    }
    let release = look.os_release()?;
    let field = |wanted: &str| {
        release.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone()).filter(|value| is_token(value))
    };
    Ok(field("IMAGE_ID").or_else(|| field("ID")).unwrap_or_else(|| distribution.to_owned()))
}

/// Whether a text can be a part of a file's name on the EFI partition.
fn is_token(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('.') && !text.contains('/') && !text.chars().any(char::is_control)
}

/// The name of a unified kernel image without its extension. `format` is that of `UnifiedKernelImageFormat=`: `&e` is
/// the token, `&k` the kernel's version, `&h` the root hash.
pub fn image_name(format: Option<&str>, token: &str, version: &str, roothash: Option<&str>) -> String {
    let default = if roothash.is_some() { "&e-&k-&h" } else { "&e-&k" };
    let format = format.filter(|format| !format.is_empty()).unwrap_or(default);
    expand_delayed(format, |letter| match letter {
        'e' => Some(token.to_owned()),
        'k' => Some(version.to_owned()),
        'h' => roothash.map(str::to_owned),
        _ => None,
    })
}

/// The path in the tree of the program that firmware starts; nothing where there is no UEFI.
pub fn boot_binary(architecture: Architecture) -> Option<String> {
    Some(format!("efi/EFI/BOOT/BOOT{}.EFI", architecture.efi()?.to_uppercase()))
}

/// The path in the tree of the program that shim starts.
pub fn second_stage(architecture: Architecture, distribution: &str) -> Option<String> {
    let efi = architecture.efi()?;
    Some(match distribution {
        "opensuse" => "efi/EFI/BOOT/grub.EFI".to_owned(),
        _ => format!("efi/EFI/BOOT/grub{efi}.EFI"),
    })
}

/// The path in the tree of the stub that a unified kernel image starts with.
pub fn stub(architecture: Architecture) -> Option<String> {
    Some(format!("usr/lib/systemd/boot/efi/linux{}.efi.stub", architecture.efi()?))
}

/// The path in the tree of the stub of an addon.
pub fn addon_stub(architecture: Architecture) -> Option<String> {
    Some(format!("usr/lib/systemd/boot/efi/addon{}.efi.stub", architecture.efi()?))
}

#[cfg(test)]
mod tests {
    use super::super::kernels::testing::Made;
    use super::*;

    fn token(files: &[(&str, &str)]) -> String {
        let made = Made::new(files);
        entry_token(&Look::new(&made.tree()), "debian").unwrap()
    }

    #[test]
    fn tokens() {
        let release = ("usr/lib/os-release", "ID=debian\nIMAGE_ID=\"mine\"\n");
        let machine = ("etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        assert_eq!(token(&[release, machine, ("etc/kernel/entry-token", "tok\n")]), "tok");
        assert_eq!(
            token(&[release, machine, ("etc/kernel/entry-token", "../x\n")]),
            "0123456789abcdef0123456789abcdef"
        );
        assert_eq!(token(&[release, ("etc/machine-id", "uninitialized\n")]), "mine");
        assert_eq!(token(&[("etc/os-release", "ID='fedora'\n")]), "fedora");
        assert_eq!(token(&[]), "debian");
    }

    #[test]
    fn names_of_images() {
        assert_eq!(image_name(None, "t", "6.1", None), "t-6.1");
        assert_eq!(image_name(Some(""), "t", "6.1", Some("ab")), "t-6.1-ab");
        assert_eq!(image_name(Some("x&&&k&h&q"), "t", "6.1", None), "x&6.1");
        assert_eq!(boot_binary(Architecture::Arm64).as_deref(), Some("efi/EFI/BOOT/BOOTAA64.EFI"));
        assert_eq!(boot_binary(Architecture::S390x), None);
        assert_eq!(second_stage(Architecture::X86_64, "debian").as_deref(), Some("efi/EFI/BOOT/grubx64.EFI"));
        assert_eq!(second_stage(Architecture::X86_64, "opensuse").as_deref(), Some("efi/EFI/BOOT/grub.EFI"));
    }
}
