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
    ("QemuGui", "use Console=gui"),
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
        assert!(super::advice("QemuGui").is_some());
    }
}
