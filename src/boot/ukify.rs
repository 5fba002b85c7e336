//! The arguments of ukify(1).

use super::signing::{Keeper, Pair, SignTool};
use crate::config::version_satisfies;

/// What becomes of the measurements of the image's parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pcrs {
    /// Nothing.
    #[default]
    Ignored,
    /// They are signed.
    Signed(Pair),
    /// Their digests are printed, for a signature that is made elsewhere: the certificate of the key that will sign.
    Digests(String),
}

/// A unified kernel image, a profile of one, or an addon. Paths are those of the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// The architecture in EFI's words.
    pub efi: String,
    /// The stub that it starts with.
    pub stub: String,
    /// Where it goes.
    pub output: String,
    /// A file with the command line.
    pub command_line: Option<String>,
    /// The os-release file.
    pub os_release: Option<String>,
    /// The kernel's version and image.
    pub kernel: Option<(String, String)>,
    /// The file of its profile section.
    pub profile: Option<String>,
    /// Images whose profiles are joined to it.
    pub joined: Vec<String>,
    /// The profiles whose measurements are signed; empty for all.
    pub signed_profiles: Vec<String>,
    /// Device trees.
    pub devicetrees: Vec<String>,
    /// The picture.
    pub splash: Option<String>,
    /// Microcode, for the section of its own.
    pub microcode: Vec<String>,
    /// Initrds, in their order.
    pub initrds: Vec<String>,
    /// The key for Secure Boot, and the tool that signs with it.
    pub secure_boot: Option<(Pair, SignTool)>,
    /// The measurements.
    pub pcrs: Pcrs,
}

/// The least version of ukify that does what is asked for, and what that is.
pub fn least_version(
    profiles: bool,
    unsigned_profiles: bool,
    keepers: &[&Keeper],
    digests: bool,
) -> (&'static str, &'static str) {
    if unsigned_profiles || digests {
        ("258", if digests { "SplitArtifacts=pcrs" } else { "SignExpectedPcr=no in a profile" })
    } else if profiles {
        ("257", "UnifiedKernelImageProfiles=")
    } else if keepers.iter().any(|keeper| matches!(keeper, Keeper::Provider(_))) {
        ("257", "a key or certificate of a provider")
    } else if keepers.iter().any(|keeper| **keeper != Keeper::File) {
        ("256", "a key of an engine")
    } else {
        ("254", "unified kernel images")
    }
}

impl Build {
    /// The arguments after the program's name, for a ukify of this version.
    pub fn arguments(&self, version: &str) -> Vec<String> {
        let mut argv = vec!["build".to_owned()];
        let mut option = |name: &str, value: &str| argv.extend([name.to_owned(), value.to_owned()]);
        if let Some(path) = &self.os_release {
            option("--os-release", &format!("@{path}"));
        }
        if let Some((version, image)) = &self.kernel {
            option("--uname", version);
            option("--linux", image);
        }
        if let Some(path) = &self.profile {
            option("--profile", &format!("@{path}"));
        }
        self.joined.iter().for_each(|path| option("--join-profile", path));
        self.signed_profiles.iter().for_each(|name| option("--sign-profile", name));
        let devicetree = if self.devicetrees.len() == 1 { "--devicetree" } else { "--devicetree-auto" };
        self.devicetrees.iter().for_each(|path| option(devicetree, path));
        if let Some(path) = &self.splash {
            option("--splash", path);
        }
        self.microcode.iter().for_each(|path| option("--microcode", path));
        self.initrds.iter().for_each(|path| option("--initrd", path));
        argv.extend(self.pcr_arguments(version));
        argv.extend(self.secure_boot_arguments());
        let mut option = |name: &str, value: &str| argv.extend([name.to_owned(), value.to_owned()]);
        if let Some(path) = &self.command_line {
            option("--cmdline", &format!("@{path}"));
        }
        option("--efi-arch", &self.efi);
        option("--stub", &self.stub);
        option("--output", &self.output);
        argv
    }

    fn secure_boot_arguments(&self) -> Vec<String> {
        let Some((pair, tool)) = &self.secure_boot else { return Vec::new() };
        let mut argv = vec!["--signtool".to_owned(), tool.name().to_owned()];
        if self.kernel.is_some() {
            argv.push("--sign-kernel".to_owned());
        }
        argv.extend(pair.ukify_keeper());
        argv.extend(["--secureboot-private-key".to_owned(), pair.key.clone()]);
        if let Keeper::Provider(name) = &pair.certificate_keeper {
            argv.extend(["--certificate-provider".to_owned(), name.clone()]);
        }
        argv.extend(["--secureboot-certificate".to_owned(), pair.certificate.clone()]);
        argv
    }

    fn pcr_arguments(&self, version: &str) -> Vec<String> {
        // SHA-1 is left out: not every OpenSSL signs it, and nothing needs it.
        let banks = ["--pcr-banks".to_owned(), "sha256".to_owned()];
        match &self.pcrs {
            Pcrs::Ignored => Vec::new(),
            Pcrs::Digests(certificate) => {
                let mut argv = vec!["--policy-digest".to_owned(), "--json=short".to_owned()];
                argv.extend(banks);
                argv.extend(["--pcr-certificate".to_owned(), certificate.clone()]);
                argv
            }
            Pcrs::Signed(pair) => {
                let mut argv = banks.to_vec();
                // An engine or provider may keep the public half to itself, so the certificate is handed over too.
                if pair.key_keeper != Keeper::File {
                    let new = version_satisfies(version, ">=258");
                    let name = if new { "--pcr-certificate" } else { "--pcr-public-key" };
                    argv.extend([name.to_owned(), pair.certificate.clone()]);
                    // The same keeper serves both signatures; ukify takes it once.
                    if self.secure_boot.is_none() {
                        // ukify takes providers together with this tool alone, even where nothing is signed with it.
                        if [&pair.key_keeper, &pair.certificate_keeper].iter().any(|k| matches!(k, Keeper::Provider(_)))
                        {
                            argv.extend(["--signtool".to_owned(), "systemd-sbsign".to_owned()]);
                        }
                        argv.extend(pair.ukify_keeper());
                        if let Keeper::Provider(name) = &pair.certificate_keeper {
                            argv.extend(["--certificate-provider".to_owned(), name.clone()]);
                        }
                    }
                }
                argv.extend(["--pcr-private-key".to_owned(), pair.key.clone()]);
                argv
            }
        }
    }
}

/// The contents of a profile section: `NAME=value` lines, quoted where the value is more than letters and digits.
pub fn profile_section<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let plain = |value: &str| !value.is_empty() && value.chars().all(char::is_alphanumeric);
    let line = |(name, value): (&str, &str)| match plain(value) {
        true => format!("{name}={value}\n"),
        false => format!("{name}=\"{value}\"\n"),
    };
    fields.into_iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(keeper: Keeper) -> Pair {
        let certificate_keeper = if matches!(keeper, Keeper::Provider(_)) { keeper.clone() } else { Keeper::File };
        Pair {
            key: "/keys/key".to_owned(),
            key_keeper: keeper,
            certificate: "/keys/crt".to_owned(),
            certificate_keeper,
        }
    }

    fn build() -> Build {
        let text = |text: &str| text.to_owned();
        Build {
            efi: text("x64"),
            stub: text("/stub"),
            output: text("/out.efi"),
            command_line: Some(text("/cmdline")),
            os_release: Some(text("/os-release")),
            kernel: Some((text("6.12"), text("/vmlinuz"))),
            initrds: vec![text("/a"), text("/b")],
            ..Build::default()
        }
    }

    #[test]
    fn argument_lists() {
        let tool = SignTool::Systemd("/sign".to_owned());
        let signed = Build {
            secure_boot: Some((pair(Keeper::File), tool.clone())),
            pcrs: Pcrs::Signed(pair(Keeper::File)),
            ..build()
        };
        let all = Build {
            joined: vec!["/p1".to_owned()],
            signed_profiles: vec!["main".to_owned(), "debug".to_owned()],
            devicetrees: vec!["/d1".to_owned(), "/d2".to_owned()],
            splash: Some("/splash".to_owned()),
            microcode: vec!["/ucode".to_owned()],
            pcrs: Pcrs::Digests("/keys/crt".to_owned()),
            ..build()
        };
        let provider = pair(Keeper::Provider("pkcs11".to_owned()));
        let kept = Build { pcrs: Pcrs::Signed(provider.clone()), ..build() };
        let both = Build { secure_boot: Some((provider, tool)), ..kept.clone() };
        let profile = Build {
            kernel: None,
            os_release: None,
            initrds: Vec::new(),
            profile: Some("/profile".to_owned()),
            ..build()
        };
        let line = |build: &Build, version: &str| build.arguments(version).join(" ");
        insta::assert_snapshot!(
            [
                line(&build(), "257"),
                line(&signed, "257"),
                line(&all, "258"),
                line(&kept, "257"),
                line(&both, "258"),
                line(&profile, "257"),
            ]
            .join("\n")
        );
    }

    #[test]
    fn profiles_and_versions() {
        assert_eq!(
            profile_section([("ID", "debug"), ("TITLE", "With debugging")]),
            "ID=debug\nTITLE=\"With debugging\"\n"
        );
        let [engine, provider] = [Keeper::Engine("p".to_owned()), Keeper::Provider("p".to_owned())];
        assert_eq!(least_version(false, false, &[&provider], false).0, "257");
        assert_eq!(least_version(false, false, &[], false).0, "254");
        assert_eq!(least_version(true, false, &[], false).0, "257");
        assert_eq!(least_version(true, true, &[], false).0, "258");
        assert_eq!(least_version(false, false, &[&Keeper::File, &engine], false).0, "256");
        assert_eq!(least_version(false, false, &[], true).0, "258");
    }
}
