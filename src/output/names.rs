//! The names of an image's outputs, as users' scripts expect them.

use super::Compression;

/// What a published file is to the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An image, or a file that is none of this image alone.
    Whole,
    /// It tells of the image, or holds a part of it: beside another image it would be wrong.
    Telling,
}

/// What may follow a base name and a dot, whatever the format.
const FILES: [(&str, Kind); 17] = [
    ("SHA256SUMS", Kind::Telling),
    ("SHA256SUMS.gpg", Kind::Telling),
    ("changelog", Kind::Telling),
    ("cpio", Kind::Whole),
    ("efi", Kind::Whole),
    ("initrd", Kind::Telling),
    ("kernel-modules-initrd", Kind::Telling),
    ("manifest", Kind::Telling),
    ("nspawn", Kind::Whole),
    ("osrelease", Kind::Telling),
    ("pcrs", Kind::Telling),
    ("raw", Kind::Whole),
    ("repart.d", Kind::Telling),
    ("roothash", Kind::Telling),
    ("tar", Kind::Whole),
    ("usrhash", Kind::Telling),
    ("vmlinuz", Kind::Telling),
];

/// The names that follow from an output's base name (`Output=`), format and compression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputNames {
    base: String,
    extension: Option<&'static str>,
    compression: Compression,
}

impl OutputNames {
    /// The names for `base`. `format` is one of `Format=`; formats that can't be compressed as a whole ignore
    /// `compression`.
    pub fn new(base: &str, format: &str, compression: Compression) -> Self {
        let extension = match format {
            "disk" | "esp" | "sysext" | "confext" | "portable" => Some("raw"),
            "tar" => Some("tar"),
            "cpio" => Some("cpio"),
            "uki" | "addon" => Some("efi"),
            _ => None,
        };
        let whole = matches!(format, "tar" | "cpio" | "disk" | "sysext" | "confext" | "portable");
        let compression = if whole { compression } else { Compression::None };
        Self { base: base.to_owned(), extension, compression }
    }

    /// The base name where `Output=` isn't set: the image's name, or for the main image `image_id` or `image`, and
    /// the version after an underscore.
    pub fn default_base(image: Option<&str>, image_id: Option<&str>, version: Option<&str>) -> String {
        let name = image.or(image_id).unwrap_or("image");
        match version.filter(|version| !version.is_empty()) {
            Some(version) => format!("{name}_{version}"),
            None => name.to_owned(),
        }
    }

    /// The base name itself.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// The image before it is compressed: `image.raw`.
    pub fn plain(&self) -> String {
        match self.extension {
            Some(extension) => self.with(extension),
            None => self.base.clone(),
        }
    }

    /// The image as it is published: `image.raw.zst`.
    pub fn image(&self) -> String {
        match self.compression.extension() {
            Some(extension) => format!("{}.{extension}", self.plain()),
            None => self.plain(),
        }
    }

    /// How the image is compressed as a whole.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The link from the base name to the image, as link and target: `image` to `image.raw.zst`. `None` if the
    /// image itself has that name.
    pub fn link(&self) -> Option<(String, String)> {
        let image = self.image();
        (image != self.base).then(|| (self.base.clone(), image))
    }

    /// Every name that publishing may give to an output with this base name and `OutputExtension=`, whatever the format.
    /// Only partitions that are split off and files of scripts have others; the record of the publication has these.
    pub fn possible(base: &str, extension: &str) -> impl Iterator<Item = String> {
        let own = Some(extension).filter(|extension| !extension.is_empty());
        let compressed = ["cpio", "raw", "tar"].into_iter().chain(own).flat_map(|whole| {
            let all = [Compression::Gzip, Compression::Xz, Compression::Zstd];
            all.into_iter().filter_map(Compression::extension).map(move |extension| format!("{whole}.{extension}"))
        });
        let beside = FILES.into_iter().map(|(name, _)| name).chain(own).map(str::to_owned).chain(compressed);
        std::iter::once(base.to_owned()).chain(beside.map(move |extension| format!("{base}.{extension}")))
    }

    /// Whether a published name is that of a file that tells of the image with this base name, or holds a part of it: beside
    /// another image it would be wrong. The images of other formats are none of these.
    pub fn tells_of(base: &str, name: &str) -> bool {
        let Some(extension) = name.strip_prefix(base).and_then(|rest| rest.strip_prefix('.')) else { return false };
        let first = extension.split('/').next().unwrap_or_default();
        // A partition has a name of its own before the extension.
        FILES.contains(&(first, Kind::Telling)) || first.contains(".raw")
    }

    /// A file beside the image: `efi`, `vmlinuz`, `initrd`, `pcrs`, `roothash`, `osrelease`,
    /// `kernel-modules-initrd`, `repart.d`, `nspawn`, `SHA256SUMS`, `SHA256SUMS.gpg`, `manifest`, `changelog`.
    pub fn with(&self, extension: &str) -> String {
        format!("{}.{extension}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tells_of_an_image() {
        for name in ["os.v.pcrs", "os.v.repart.d/10-root.conf", "os.v.root-x86-64.raw.zst", "os.v.SHA256SUMS.gpg"] {
            assert!(OutputNames::tells_of("os.v", name), "{name}");
        }
        for name in ["os.v", "os.v.raw", "os.v.raw.zst", "os.v.tar", "os.v.efi", "other.pcrs", "os.v/pcrs"] {
            assert!(!OutputNames::tells_of("os.v", name), "{name}");
        }
    }

    #[test]
    fn names_are_what_scripts_expect() {
        let base = OutputNames::default_base(None, Some("os"), Some("1.0"));
        assert_eq!(base, "os_1.0");
        assert_eq!(OutputNames::default_base(Some("initrd"), Some("os"), None), "initrd");
        assert_eq!(OutputNames::default_base(None, None, Some("")), "image");
        for (format, plain, image, link) in [
            ("tar", "os_1.0.tar", "os_1.0.tar.zst", true),
            ("disk", "os_1.0.raw", "os_1.0.raw.zst", true),
            ("uki", "os_1.0.efi", "os_1.0.efi", true),
            ("esp", "os_1.0.raw", "os_1.0.raw", true),
            ("directory", "os_1.0", "os_1.0", false),
            ("oci", "os_1.0", "os_1.0", false),
        ] {
            let names = OutputNames::new(&base, format, Compression::Zstd);
            assert_eq!((names.plain(), names.image()), (plain.to_owned(), image.to_owned()), "{format}");
            assert_eq!(names.link(), link.then(|| (base.clone(), image.to_owned())), "{format}");
        }
        let possible: Vec<String> = OutputNames::possible("os", "img").collect();
        for name in ["os", "os.img", "os.img.zst", "os.raw.xz", "os.manifest"] {
            assert!(possible.iter().any(|found| found == name), "{name}");
        }
        let names = OutputNames::new(&base, "tar", Compression::None);
        assert_eq!((names.image(), names.with("manifest")), ("os_1.0.tar".into(), "os_1.0.manifest".into()));
    }
}
