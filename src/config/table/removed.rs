//! Settings of older versions that are gone, and what to write instead.

/// Names and advice.
const REMOVED: &[(&str, &str)] = &[
    ("Cache", "use CacheDirectory= or PackageCacheDirectory="),
    ("Encrypt", "write `Encrypt=` into a partition definition in mkosi.repart/"),
    ("GPTFirstLBA", "describe partitions in mkosi.repart/"),
    ("HomeSize", "describe partitions in mkosi.repart/"),
    ("HostonlyInitrd", "use KernelModulesInitrdIncludeHost="),
    ("Netdev", "use RuntimeNetwork=interface"),
    ("NetworkVeth", "use RuntimeNetwork=interface"),
    ("QemuBootParam", "use KernelCommandLineExtra="),
    ("QemuCdrom", "use DiskType=scsi-cd"),
    ("QemuHeadless", "use Console=native"),
    ("RootSize", "describe partitions in mkosi.repart/"),
    ("RuntimeScratch", "use a definition in mkosi.repart/ or RuntimeTrees="),
    ("SkipFinalPhase", "use Format=none"),
    ("SourceFileTransfer", "sources are mounted; see BuildSourcesEphemeral="),
    ("SourceFileTransferFinal", "use ExtraTrees="),
    ("SshPort", "`mkosi ssh` uses VSock and needs no port"),
    ("SwapSize", "describe partitions in mkosi.repart/"),
    ("TarStripSELinuxContext", "use SELinuxRelabel=no"),
    ("UsrOnly", "describe partitions in mkosi.repart/"),
    ("WithUnifiedKernelImages", "use UnifiedKernelImages="),
];

/// A boolean of an older version that is two values of another setting now.
pub struct Turned {
    /// The old name.
    pub name: &'static str,
    /// The setting.
    pub setting: &'static str,
    /// What a false and a true value mean.
    pub values: [&'static str; 2],
}

const TURNED: &[Turned] = &[Turned { name: "QemuGui", setting: "Console", values: ["native", "gui"] }];

/// The boolean of an older version with this name.
pub fn turned(name: &str) -> Option<&'static Turned> {
    TURNED.iter().find(|turned| turned.name == name)
}

/// What to write instead of a setting that is gone.
pub fn advice(name: &str) -> Option<&'static str> {
    REMOVED.iter().find(|(removed, _)| *removed == name).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    #[test]
    fn none_of_them_is_a_setting() {
        for (name, _) in super::REMOVED {
            assert!(super::super::find(name).is_none(), "{name}");
        }
        assert!(super::advice("QemuHeadless").is_some());
        for turned in super::TURNED {
            assert!(super::super::find(turned.name).is_none() && super::super::find(turned.setting).is_some());
        }
    }
}
