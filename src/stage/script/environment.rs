//! The variables that tell a script what is built: one table says which kind of script gets which. Nothing of them
//! depends on the host. Knows nothing of how a script is run.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::config::{Value, View};
use crate::stage::debian::proxy;
use crate::types::Architecture;

/// The kinds of scripts that run in a sandbox of a build (configure scripts belong to the configuration).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `mkosi.sync`
    Sync,
    /// `mkosi.prepare`
    Prepare,
    /// `mkosi.build`
    Build,
    /// `mkosi.postinst`
    PostInstallation,
    /// `mkosi.finalize`
    Finalize,
    /// `mkosi.postoutput`
    PostOutput,
    /// `mkosi.clean`
    Clean,
}

use Kind::{Build, Clean, Finalize, PostInstallation, PostOutput, Prepare, Sync};

impl Kind {
    /// The setting that lists the scripts.
    pub const fn setting(self) -> &'static str {
        match self {
            Sync => "SyncScripts",
            Prepare => "PrepareScripts",
            Build => "BuildScripts",
            PostInstallation => "PostInstallationScripts",
            Finalize => "FinalizeScripts",
            PostOutput => "PostOutputScripts",
            Clean => "CleanScripts",
        }
    }

    /// Where the script that runs is seen, whatever its file's name.
    pub const fn path(self) -> &'static str {
        match self {
            Sync => "/work/sync",
            Prepare => "/work/prepare",
            Build => "/work/build-script",
            PostInstallation => "/work/postinst",
            Finalize => "/work/finalize",
            PostOutput => "/work/postoutput",
            Clean => "/work/clean",
        }
    }

    /// Whether the kind gets this variable.
    pub fn has(self, variable: &str) -> bool {
        TABLE.iter().any(|(name, kinds)| *name == variable && kinds.contains(&self))
    }
}

const ALL: &[Kind] = &[Sync, Prepare, Build, PostInstallation, Finalize, PostOutput, Clean];
/// The kinds that work on the image's tree.
const IMAGE: &[Kind] = &[Prepare, Build, PostInstallation, Finalize];

/// Which kind gets which variable: the table of mkosi(1), section SCRIPTS. More than it says: what the scripts of
/// version 15 know (`SCRIPT`, `container`, `OUTPUTDIR` for build scripts), and `SOURCE_DATE_EPOCH` for `mkosi.postoutput`,
/// which mkosi sets there too. A variable without a value (no `ImageId=`) is not set.
pub const TABLE: &[(&str, &[Kind])] = &[
    ("ARCHITECTURE", ALL),
    ("ARTIFACTDIR", IMAGE),
    ("BUILDDIR", &[Build, PostInstallation, Finalize]),
    ("BUILDROOT", IMAGE),
    ("CACHED", &[Sync]),
    ("CHROOT_BUILDDIR", &[Build]),
    ("CHROOT_DESTDIR", &[Build]),
    ("CHROOT_OUTPUTDIR", &[Build, PostInstallation, Finalize]),
    ("CHROOT_SCRIPT", IMAGE),
    ("CHROOT_SRCDIR", IMAGE),
    ("DESTDIR", &[Build]),
    ("DISTRIBUTION", ALL),
    ("DISTRIBUTION_ARCHITECTURE", ALL),
    ("EFI_ARCHITECTURE", ALL),
    ("IMAGE_ID", ALL),
    ("IMAGE_VERSION", ALL),
    ("MKOSI_CONFIG", ALL),
    ("MKOSI_DEBUG", ALL),
    ("MKOSI_GID", ALL),
    ("MKOSI_UID", ALL),
    ("OUTPUTDIR", &[Build, PostInstallation, Finalize, PostOutput, Clean]),
    ("PACKAGEDIR", IMAGE),
    ("PROFILES", &[Sync, Prepare, Build, PostInstallation, Finalize, Clean]),
    ("QEMU_ARCHITECTURE", ALL),
    ("RELEASE", ALL),
    ("SCRIPT", IMAGE),
    ("SOURCE_DATE_EPOCH", &[Prepare, Build, PostInstallation, Finalize, PostOutput, Clean]),
    ("SRCDIR", ALL),
    ("WITH_DOCS", &[Prepare, Build]),
    ("WITH_NETWORK", IMAGE),
    ("WITH_TESTS", &[Prepare, Build]),
    ("container", IMAGE),
];

/// Where `$MKOSI_CONFIG` points.
pub const CONFIG: &str = "/work/config.json";

/// What the values are made of.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The settings that the stage declares.
    pub view: &'a View,
    /// Whether there is a build directory.
    pub build_directory: bool,
    /// Whether the image was built before.
    pub cached: bool,
    /// Whether the network is there.
    pub network: bool,
}

/// The variables of a kind. What the user sets in `Environment=`, which those of `EnvironmentFiles=` were added to,
/// comes after what is set here.
pub fn environment(kind: Kind, facts: &Facts<'_>) -> BTreeMap<String, String> {
    let mut env = BTreeMap::new();
    for (name, kinds) in TABLE {
        if kinds.contains(&kind)
            && let Some(value) = value(kind, name, facts)
        {
            env.insert((*name).to_owned(), value);
        }
    }
    // Sources belong to the user, and the script is root: git refuses to read them otherwise. Settings in variables
    // are ones that git takes `safe.directory` from (git-config(1)).
    for (name, value) in
        [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")]
    {
        env.insert(name.to_owned(), value.to_owned());
    }
    if facts.network {
        env.extend(proxy(facts.view).environment());
    }
    env.extend(users(facts.view));
    env
}

/// What the user sets in `Environment=`, which the variables of `EnvironmentFiles=` were added to.
pub fn users(view: &View) -> Vec<(String, String)> {
    match view.get("Environment") {
        Value::Map(own) => {
            own.iter().map(|(name, value)| (name.clone(), value.as_text().unwrap_or_default().to_owned())).collect()
        }
        _ => Vec::new(),
    }
}

fn value(kind: Kind, name: &str, facts: &Facts<'_>) -> Option<String> {
    let view = facts.view;
    let fixed = |text: &str| Some(text.to_owned());
    let flag = |setting: &str| Some(if view.bool(setting) { "1" } else { "0" }.to_owned());
    let text = |setting: &str| view.text(setting).map(str::to_owned);
    let architecture =
        || view.text("Architecture").and_then(|name| name.parse().ok()).unwrap_or_else(Architecture::host);
    match name {
        "ARCHITECTURE" => fixed(architecture().name()),
        "DISTRIBUTION_ARCHITECTURE" => of_distribution(view.text("Distribution")?, architecture()),
        "EFI_ARCHITECTURE" => architecture().efi().and_then(fixed),
        "QEMU_ARCHITECTURE" => qemu(architecture()).and_then(fixed),
        "DISTRIBUTION" => text("Distribution"),
        "RELEASE" => text("Release"),
        "IMAGE_ID" => text("ImageId"),
        "IMAGE_VERSION" => text("ImageVersion"),
        "PROFILES" => Some(view.texts("Profiles").join(" ")).filter(|names| !names.is_empty()),
        "SOURCE_DATE_EPOCH" => view.get("SourceDateEpoch").as_number().map(|epoch| epoch.to_string()),
        "WITH_DOCS" => flag("WithDocs"),
        "WITH_NETWORK" => flag("WithNetwork"),
        "WITH_TESTS" => flag("WithTests"),
        "CACHED" => fixed(if facts.cached { "1" } else { "0" }),
        "MKOSI_CONFIG" => fixed(CONFIG),
        // The same for every way to run mkosi: within the namespace the user is root.
        "MKOSI_DEBUG" | "MKOSI_GID" | "MKOSI_UID" => fixed("0"),
        "SCRIPT" | "CHROOT_SCRIPT" => fixed(kind.path()),
        "SRCDIR" | "CHROOT_SRCDIR" => fixed("/work/src"),
        "DESTDIR" | "CHROOT_DESTDIR" => fixed("/work/dest"),
        "OUTPUTDIR" | "CHROOT_OUTPUTDIR" => fixed("/work/out"),
        "BUILDDIR" | "CHROOT_BUILDDIR" => facts.build_directory.then(|| "/work/build".to_owned()),
        "PACKAGEDIR" => fixed("/work/packages"),
        "ARTIFACTDIR" => fixed("/work/artifacts"),
        "BUILDROOT" => fixed(crate::stage::context::BUILDROOT),
        "container" => fixed("mkosi"),
        _ => None,
    }
}

/// The architecture's name in the distribution's packages.
fn of_distribution(distribution: &str, architecture: Architecture) -> Option<String> {
    let name = match distribution {
        "debian" | "ubuntu" | "kali" => architecture.debian(),
        "arch" | "postmarketos" => architecture.machine(),
        "custom" => architecture.name(),
        _ => architecture.rpm(),
    };
    (!name.is_empty()).then(|| name.to_owned())
}

/// The architecture's name in `qemu-system-*`.
const fn qemu(architecture: Architecture) -> Option<&'static str> {
    Some(match architecture {
        Architecture::Alpha => "alpha",
        Architecture::Arm => "arm",
        Architecture::Arm64 => "aarch64",
        Architecture::Loongarch64 => "loongarch64",
        Architecture::MipsLe | Architecture::Mips64Le => "mips",
        Architecture::Parisc => "hppa",
        Architecture::Ppc => "ppc",
        Architecture::Ppc64 | Architecture::Ppc64Le => "ppc64",
        Architecture::Riscv32 => "riscv32",
        Architecture::Riscv64 => "riscv64",
        Architecture::S390x => "s390x",
        Architecture::X86 => "i386",
        Architecture::X86_64 => "x86_64",
        _ => return None,
    })
}

/// What `$MKOSI_CONFIG` holds: the settings that the stage declares, since those are what its key has. Of a path on
/// the host it has the last name.
pub fn config_json(view: &View) -> Vec<u8> {
    let object: Map<String, Json> = view
        .iter()
        // The arguments are no setting.
        .filter(|(name, _)| name.starts_with(char::is_uppercase))
        .map(|(name, value)| (name.to_owned(), to_json(value)))
        .collect();
    format!("{:#}\n", Json::Object(object)).into_bytes()
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::None => Json::Null,
        Value::Bool(value) => Json::from(*value),
        Value::Number(value) => Json::from(*value),
        Value::Text(text) => Json::from(text.as_str()),
        Value::Path(path) => Json::from(path.file_name().unwrap_or_default().to_string_lossy()),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(map) => map.iter().map(|(name, value)| (name.clone(), to_json(value))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_stands_once_and_in_order() {
        assert!(TABLE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn paths_of_the_host_are_not_in_the_configuration() {
        let value = Value::List(vec![Value::Path("/home/me/project/src".into()), Value::Number(3)]);
        assert_eq!(to_json(&value), serde_json::json!(["src", 3]));
    }
}
