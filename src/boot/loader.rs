//! Boot loader entries of type 1: a text file, a kernel and its initrds on the boot partition (Boot Loader
//! Specification).

use std::fmt::Write;

/// A kernel as the boot loader finds it. Paths are those on the partition, with a leading slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What marks the image's entries.
    pub token: String,
    /// The kernel's version.
    pub version: String,
    /// The kernel's image.
    pub linux: String,
    /// The initrds, in their order.
    pub initrds: Vec<String>,
    /// The device tree.
    pub devicetree: Option<String>,
    /// The command line.
    pub options: String,
}

impl Entry {
    /// The path of the entry in the tree.
    pub fn path(&self) -> String {
        format!("boot/loader/entries/{}-{}.conf", self.token, self.version)
    }

    /// The entry's text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |key: &str, value: &str| {
            // Writing to a string can't fail.
            let _ = writeln!(text, "{key} {value}");
        };
        line("title", &format!("{} {}", self.token, self.version));
        line("version", &self.version);
        line("linux", &self.linux);
        line("options", &self.options);
        self.initrds.iter().for_each(|path| line("initrd", path));
        if let Some(path) = &self.devicetree {
            line("devicetree", path);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry() {
        let entry = Entry {
            token: "debian".to_owned(),
            version: "6.12".to_owned(),
            linux: "/debian/6.12/vmlinuz".to_owned(),
            initrds: vec!["/debian/initrd".to_owned(), "/debian/6.12/kernel-modules.initrd".to_owned()],
            devicetree: Some("/debian/6.12/a.dtb".to_owned()),
            options: "quiet rw".to_owned(),
        };
        assert_eq!(entry.path(), "boot/loader/entries/debian-6.12.conf");
        insta::assert_snapshot!(entry.text());
    }
}
