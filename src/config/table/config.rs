//! `[Include]` and `[Config]`: which files, profiles and images there are.

use super::{Item, Kind, PathRule, Scope, Setting, Split};

/// Configurations that come with the program, by the names that `Include=` takes.
pub(crate) const BUILTIN: &[&str] = &["mkosi-tools", "mkosi-initrd", "mkosi-vm", "mkosi-addon", "mkosi-obs"];

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        "Include",
        "Include",
        &["--include", "-I"],
        Kind::paths(PathRule { constants: BUILTIN, ..PathRule::EXISTS }),
    )
    .meta("PATH")
    .tools()
    .no_output()
    .help("Read a further configuration file or directory"),
    Setting::new("Profiles", "Config", &["--profile"], Kind::List { item: Item::Name, split: Split::Words })
        .meta("NAME")
        .scope(Scope::Inherit)
        .tools()
        .once(&["Profile"], &[])
        .help("Turn on profiles of mkosi.profiles/"),
    Setting::new("Dependencies", "Config", &["--dependency"], Kind::WORDS)
        .meta("IMAGE")
        .once(&["Presets"], &[])
        .help("Images that must be built before this one"),
    Setting::new("MinimumVersion", "Config", &["--minimum-version"], Kind::MinimumVersion)
        .meta("VERSION")
        .scope(Scope::Main)
        .no_output()
        .help("The least version of the configuration language that is needed"),
    Setting::new("ConfigureScripts", "Config", &["--configure-script"], Kind::Scripts)
        .meta("PATH")
        .at(&["configure"])
        .help("Scripts that may change the configuration before anything else runs"),
    Setting::new("PassEnvironment", "Config", &["--pass-environment"], Kind::SPACED)
        .meta("NAME")
        .scope(Scope::Main)
        .no_output()
        .help("Variables of Environment= that every image gets"),
];
