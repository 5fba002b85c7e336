//! Defaults that follow from other settings, the host and the environment.
//!
//! Knows nothing of files or of the command line.

use std::collections::BTreeMap;
use std::path::Path;

use super::host::{self, HostFacts};
use super::table::DISTRIBUTION;
use super::value::Value;

/// What a default can ask for.
pub struct Lookup<'a> {
    /// The value that another setting has now.
    pub get: &'a dyn Fn(&str) -> Value,
    /// The image's name.
    pub image: &'a str,
    /// The directory that mkosi was started in.
    pub directory: Option<&'a Path>,
    /// The host.
    pub host: &'a HostFacts,
    /// The environment of the program.
    pub environment: &'a BTreeMap<String, String>,
}

impl Lookup<'_> {
    fn text(&self, name: &str) -> String {
        (self.get)(name).as_text().unwrap_or_default().to_owned()
    }

    /// The host's distribution and release, which the environment can overrule.
    fn host(&self) -> (Option<&str>, Option<&str>) {
        let variable = |name: &str| self.environment.get(name).map(String::as_str);
        match variable("MKOSI_HOST_DISTRIBUTION").filter(|name| DISTRIBUTION.find(name).is_some()) {
            Some(name) => match variable("MKOSI_HOST_RELEASE") {
                Some(release) => (Some(name), Some(release)),
                None => (
                    Some(name),
                    self.host.release.as_deref().filter(|_| self.host.distribution.as_deref() == Some(name)),
                ),
            },
            None => (self.host.distribution.as_deref(), self.host.release.as_deref()),
        }
    }

    /// A variable for the scripts, or else of the program's environment.
    fn variable(&self, names: &[&str]) -> Option<String> {
        let set = (self.get)("Environment");
        names
            .iter()
            .find_map(|name| set.field(name).and_then(Value::as_text).map(str::to_owned))
            .or_else(|| names.iter().find_map(|name| self.environment.get(*name).cloned()))
    }
}

pub(super) fn distribution(lookup: &Lookup<'_>) -> Value {
    Value::text(lookup.host().0.unwrap_or("custom"))
}

pub(super) fn release(lookup: &Lookup<'_>) -> Value {
    let distribution = lookup.text("Distribution");
    match lookup.host() {
        (Some(host), Some(release)) if host == distribution => Value::text(release),
        _ => Value::text(host::default_release(&distribution)),
    }
}

pub(super) fn architecture(lookup: &Lookup<'_>) -> Value {
    Value::text(lookup.host.architecture.name())
}

pub(super) fn repository_key_fetch(lookup: &Lookup<'_>) -> Value {
    let wanted = host::fetches_keys(&lookup.text("Distribution"));
    let tree = (lookup.get)("ToolsTree");
    let tools = match &tree {
        Value::Text(word) if word == "default" || word == "yes" => lookup.text("ToolsTreeDistribution"),
        Value::Path(path) => host::os_release(path).0.unwrap_or_default(),
        _ => lookup.host.distribution.clone().unwrap_or_default(),
    };
    Value::Bool(tools == "nixos" || (tools == "ubuntu" && wanted))
}

pub(super) fn output(lookup: &Lookup<'_>) -> Value {
    let id = lookup.text("ImageId");
    let name = match (lookup.image, id.as_str()) {
        ("main", "") => "image",
        ("main", id) => id,
        (image, _) => image,
    };
    match lookup.text("ImageVersion").as_str() {
        "" => Value::text(name),
        version => Value::text(format!("{name}_{version}")),
    }
}

pub(super) fn output_extension(lookup: &Lookup<'_>) -> Value {
    Value::text(match lookup.text("Format").as_str() {
        "confext" | "disk" | "esp" | "portable" | "sysext" => "raw",
        "cpio" => "cpio",
        "tar" => "tar",
        "uki" | "addon" => "efi",
        _ => "",
    })
}

pub(super) fn compression(lookup: &Lookup<'_>) -> Value {
    Value::text(match lookup.text("Format").as_str() {
        "tar" | "cpio" | "uki" | "esp" | "addon" => "zstd",
        "oci" => "gz",
        _ => "none",
    })
}

pub(super) fn source_date_epoch(lookup: &Lookup<'_>) -> Value {
    let set = lookup.variable(&["SOURCE_DATE_EPOCH"]);
    set.and_then(|text| text.parse().ok()).filter(|seconds| *seconds >= 0).map_or(Value::None, Value::Number)
}

pub(super) fn initrds(lookup: &Lookup<'_>) -> Value {
    let (format, bootable) = (lookup.text("Format"), lookup.text("Bootable"));
    let overlay = (lookup.get)("Overlay").as_bool().unwrap_or(false);
    let never = matches!(format.as_str(), "uki" | "esp") || bootable == "disabled";
    let unfit =
        matches!(format.as_str(), "cpio" | "directory" | "sysext" | "confext" | "addon" | "portable") || overlay;
    let distribution = lookup.text("Distribution");
    let has_kernel = ["Packages", "VolatilePackages"].iter().any(|setting| {
        (lookup.get)(setting)
            .items()
            .iter()
            .filter_map(Value::as_text)
            .any(|package| host::is_kernel_package(&distribution, package))
    });
    let wanted = !never && (bootable != "auto" || (!unfit && has_kernel));
    Value::List(if wanted { vec![Value::text("default")] } else { Vec::new() })
}

pub(super) fn checksum(lookup: &Lookup<'_>) -> Value {
    Value::Bool((lookup.get)("Sign").as_bool().unwrap_or(false))
}

pub(super) fn tools_tree_distribution(lookup: &Lookup<'_>) -> Value {
    Value::text(lookup.host().0.map_or("custom", host::tools_distribution))
}

pub(super) fn tools_tree_release(lookup: &Lookup<'_>) -> Value {
    Value::text(host::default_release(&lookup.text("ToolsTreeDistribution")))
}

pub(super) fn tools_tree_mirror(lookup: &Lookup<'_>) -> Value {
    if lookup.text("Distribution") == lookup.text("ToolsTreeDistribution") {
        (lookup.get)("Mirror")
    } else {
        Value::None
    }
}

pub(super) fn build_sources(lookup: &Lookup<'_>) -> Value {
    let source = lookup.directory.map(|directory| {
        Value::Map(BTreeMap::from([
            ("source".to_owned(), Value::Path(directory.to_owned())),
            ("target".to_owned(), Value::None),
        ]))
    });
    Value::List(source.into_iter().collect())
}

pub(super) fn proxy_url(lookup: &Lookup<'_>) -> Value {
    let names = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];
    lookup.variable(&names).map_or(Value::None, Value::Text)
}

pub(super) fn proxy_exclude(lookup: &Lookup<'_>) -> Value {
    match lookup.variable(&["no_proxy", "NO_PROXY"]) {
        Some(hosts) => Value::List(hosts.split(',').map(Value::text).collect()),
        None => Value::None,
    }
}

pub(super) fn proxy_peer_certificate(lookup: &Lookup<'_>) -> Value {
    lookup.host.certificates.clone().map_or(Value::None, Value::Path)
}

pub(super) fn proxy_client_key(lookup: &Lookup<'_>) -> Value {
    (lookup.get)("ProxyClientCertificate")
}

pub(super) fn machine(lookup: &Lookup<'_>) -> Value {
    let name = lookup.directory.and_then(Path::file_name);
    name.map_or(Value::None, |name| Value::text(name.to_string_lossy()))
}
