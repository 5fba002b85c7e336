//! Reads the settings for running from an image's configuration.
//!
//! Knows nothing of the host.

use std::path::{Path, PathBuf};

use super::{Console, Credential, DiskType, Drive, Feature, Firmware, Network, Settings, SharedTree, VsockCid};
use crate::config::{DEFAULT_INITRD, Image, Value, build_subdirectory};
use crate::output::{Compression, OutputNames};
use crate::run::error::{Result, RunError};

impl Settings {
    /// The settings of an image. `initrd` is the image that makes the default initrd, where there is one.
    ///
    /// # Errors
    /// When a value has no meaning here.
    pub fn new(image: &Image, initrd: Option<&Image>) -> Result<Self> {
        let text = |name: &str| image.text(name).unwrap_or_default();
        let owned = |name: &str| image.texts(name).into_iter().map(str::to_owned).collect::<Vec<_>>();
        let path = |name: &str| image.path(name).map(Path::to_owned);
        let bytes = |name: &str| image.get(name).as_number().and_then(|number| u64::try_from(number).ok());
        let format = text("Format").to_owned();
        let architecture = text("Architecture").parse().map_err(RunError::Other)?;
        let machine = image.text("Machine").filter(|name| !name.is_empty()).unwrap_or(&image.name).to_owned();
        let variables = image.get("FirmwareVariables");
        let cid = image.get("VSockCID").as_number().unwrap_or(-1);
        let build_directory = build_subdirectory(image);
        Ok(Self {
            image: image.name.clone(),
            machine,
            directory: directory(image),
            names: names(image),
            format,
            extension: text("OutputExtension").to_owned(),
            architecture,
            apt: matches!(text("Distribution"), "debian" | "ubuntu" | "kali"),
            firmware: match text("Firmware") {
                "linux" => Firmware::Linux,
                "linux-noinitrd" => Firmware::LinuxNoInitrd,
                "uefi" => Firmware::Uefi,
                "uefi-secure-boot" => Firmware::UefiSecureBoot,
                _ => Firmware::Auto,
            },
            firmware_variables: variables
                .as_path()
                .map(|path| path.to_string_lossy().into_owned())
                .or_else(|| variables.as_text().filter(|word| !word.is_empty()).map(str::to_owned)),
            certificate: path("SecureBootCertificate"),
            linux: match image.text("Linux").filter(|text| !text.is_empty()) {
                Some(text) => Some(expand_linux(text, build_directory.as_deref())?),
                None => None,
            },
            initrds: initrds(image, initrd),
            command_line: owned("KernelCommandLine"),
            command_line_extra: owned("KernelCommandLineExtra"),
            console: match text("Console") {
                "interactive" => Console::Interactive,
                "read-only" => Console::ReadOnly,
                "gui" => Console::Gui,
                "headless" => Console::Headless,
                _ => Console::Native,
            },
            cpus: bytes("CPUs").and_then(|count| u32::try_from(count).ok()).unwrap_or(1),
            ram: bytes("RAM").unwrap_or(2 << 30),
            max_mem: bytes("MaxMem"),
            kvm: feature(text("KVM")),
            cxl: image.bool("CXL"),
            vsock: feature(text("VSock")),
            vsock_cid: match u32::try_from(cid) {
                Ok(number) => VsockCid::Number(number),
                Err(_) if cid == -2 => VsockCid::Hash,
                Err(_) => VsockCid::Auto,
            },
            tpm: feature(text("TPM")),
            removable: image.bool("Removable"),
            disk_type: match text("DiskType") {
                "virtio-scsi" => DiskType::VirtioScsi,
                "nvme" => DiskType::Nvme,
                "scsi-cd" => DiskType::ScsiCd,
                _ => DiskType::VirtioBlk,
            },
            drives: image.get("Drives").items().iter().filter_map(drive).collect(),
            qemu_args: owned("QemuArgs"),
            ephemeral: image.bool("Ephemeral"),
            credentials: image.get("Credentials").items().iter().filter_map(credential).collect(),
            trees: trees(image.get("RuntimeTrees"), "/root/src"),
            build_trees: match image.bool("RuntimeBuildSources") {
                true => trees(image.get("BuildSources"), "/work/src")
                    .into_iter()
                    .chain(build_directory.map(|source| SharedTree { source, target: "/work/build".into() }))
                    .collect(),
                false => Vec::new(),
            },
            size: bytes("RuntimeSize"),
            network: match text("RuntimeNetwork") {
                "interface" => Network::Interface,
                "none" => Network::None,
                _ => Network::User,
            },
            bind_user: image.bool("BindUser"),
            unit_properties: owned("UnitProperties"),
            ssh_needed: matches!(text("Ssh"), "always" | "runtime"),
            ssh_key: path("SshKey"),
            ssh_certificate: path("SshCertificate"),
            vmspawn: text("VirtualMachineMonitor") == "vmspawn",
            forward_journal: path("ForwardJournal"),
            register: feature(text("Register")),
            nspawn_settings: path("NSpawnSettings"),
            sysupdate: path("SysupdateDirectory"),
            repart: image
                .get("RepartDirectories")
                .items()
                .iter()
                .filter_map(Value::as_path)
                .map(Path::to_owned)
                .collect(),
            split_partitions: image.texts("SplitArtifacts").contains(&"partitions"),
            relabel: feature(text("SELinuxRelabel")),
            storage_target: feature(text("StorageTargetMode")),
        })
    }
}

/// The directory with an image's outputs.
fn directory(image: &Image) -> PathBuf {
    image.path("OutputDirectory").unwrap_or(&image.project).to_owned()
}

/// Their names.
fn names(image: &Image) -> OutputNames {
    let text = |name: &str| image.text(name).unwrap_or_default();
    let compression = text("CompressOutput").parse().unwrap_or(Compression::None);
    OutputNames::new(image.text("Output").unwrap_or("image"), text("Format"), compression)
}

/// The files of `Initrds=`, in their order.
fn initrds(image: &Image, default: Option<&Image>) -> Vec<PathBuf> {
    // The base name is a link to the output, whatever its format and compression.
    let output = |initrd: &Image| directory(initrd).join(names(initrd).base());
    let file = |item: &Value| match (item, default) {
        (Value::Path(path), _) => path.clone(),
        (_, Some(initrd)) => output(initrd),
        // Whoever needs it will find that it isn't there.
        _ => directory(image).join(DEFAULT_INITRD),
    };
    image.get("Initrds").items().iter().map(file).collect()
}

fn feature(text: &str) -> Feature {
    match text {
        "enabled" => Feature::Enabled,
        "disabled" => Feature::Disabled,
        _ => Feature::Auto,
    }
}

fn drive(value: &Value) -> Option<Drive> {
    let text = |name: &str| value.field(name).and_then(Value::as_text);
    let id = text("id")?.to_owned();
    Some(Drive {
        size: value.field("size").and_then(Value::as_number).and_then(|size| u64::try_from(size).ok())?,
        directory: value.field("directory").and_then(Value::as_path).unwrap_or(Path::new("/var/tmp")).to_owned(),
        options: text("options").map(str::to_owned),
        file_id: text("file_id").unwrap_or(&id).to_owned(),
        persist: value
            .field("flags")
            .is_some_and(|flags| flags.items().iter().any(|flag| flag.as_text() == Some("persist"))),
        id,
    })
}

fn credential(value: &Value) -> Option<Credential> {
    let name = value.field("name").and_then(Value::as_text)?.to_owned();
    Some(match value.field("path").and_then(Value::as_path) {
        Some(path) => Credential::File(name, path.to_owned()),
        None => {
            let value = value.field("value").and_then(Value::as_text).unwrap_or_default().to_owned();
            Credential::Value(name, value)
        }
    })
}

/// The trees of a list, with targets below `prefix` where they are not absolute. An absolute target of the sources is
/// seen from `prefix` too.
fn trees(value: &Value, prefix: &str) -> Vec<SharedTree> {
    let sources = prefix == "/work/src";
    let tree = |item: &Value| {
        let source = item.field("source").and_then(Value::as_path)?.to_owned();
        let target = item.field("target").and_then(Value::as_text).unwrap_or_default();
        let target = if sources { target.trim_start_matches('/') } else { target };
        let target = if target.is_empty() { PathBuf::from(prefix) } else { Path::new(prefix).join(target) };
        Some(SharedTree { source, target })
    };
    value.items().iter().filter_map(tree).collect()
}

/// Puts `&b`, the build directory, and `&&` into the value of `Linux=`.
fn expand_linux(text: &str, build_directory: Option<&Path>) -> Result<PathBuf> {
    let mut result = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (c, c == '&') {
            (_, true) => match rest.next() {
                Some('&') => result.push('&'),
                Some('b') => result.push_str(&build_directory.unwrap_or(Path::new("")).to_string_lossy()),
                other => {
                    let specifier: String = std::iter::once('&').chain(other).collect();
                    return Err(RunError::unfit(
                        format!("`{specifier}` in Linux={text} is no specifier"),
                        "`&b` is the build directory and `&&` is `&`",
                    ));
                }
            },
            (c, false) => result.push(c),
        }
    }
    let path = PathBuf::from(result);
    Ok(std::path::absolute(&path).unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::{Origin, Sourced};

    #[test]
    fn targets() {
        let tree = |source: &str, target: Option<&str>| {
            Value::Map(BTreeMap::from([
                ("source".to_owned(), Value::Path(source.into())),
                ("target".to_owned(), target.map_or(Value::None, Value::text)),
            ]))
        };
        let list = Value::List(vec![tree("/a", None), tree("/b", Some("x")), tree("/c", Some("/y"))]);
        let targets = |prefix| trees(&list, prefix).into_iter().map(|tree| tree.target).collect::<Vec<_>>();
        assert_eq!(targets("/root/src"), ["/root/src", "/root/src/x", "/y"].map(PathBuf::from));
        assert_eq!(targets("/work/src"), ["/work/src", "/work/src/x", "/work/src/y"].map(PathBuf::from));
    }

    #[test]
    fn names_that_systemd_takes() {
        let values = [("Architecture", Value::text("x86-64")), ("Format", Value::text("disk"))];
        let values = values.into_iter().map(|(name, value)| (name, Sourced { value, origin: Origin::Default }));
        let image = Image { name: "main".into(), project: "/p".into(), values: values.collect() };
        let mut settings = Settings::new(&image, None).unwrap();
        for (given, name) in
            [("a_b", "a-b"), ("My Project (2)", "My-Project-2"), ("v1.2", "v1.2"), (".x..y-_", "x.y"), ("ä", "image")]
        {
            settings.machine = given.to_owned();
            assert_eq!(settings.machine_name(), name);
        }
        settings.machine = "long".repeat(40);
        assert_eq!(settings.machine_name().len(), 64);
    }

    #[test]
    fn specifiers_of_the_kernel() {
        assert_eq!(expand_linux("&b/a&&b", Some(Path::new("/build"))).unwrap(), Path::new("/build/a&b"));
        assert!(expand_linux("/x&y", None).unwrap_err().to_string().contains("`&y`"));
    }

    #[test]
    fn the_default_initrd_is_an_output() {
        let image = |name: &str, values: &[(&'static str, Value)]| {
            let sourced = |value: &Value| Sourced { value: value.clone(), origin: Origin::Default };
            let values = values.iter().map(|(name, value)| (*name, sourced(value))).collect();
            Image { name: name.into(), project: "/p".into(), values }
        };
        let made = [("Output", Value::text("initrd")), ("OutputDirectory", Value::Path("/out".into()))];
        let initrd = image(DEFAULT_INITRD, &made);
        let list = vec![Value::Path("/a".into()), Value::text("default"), Value::Path("/b".into())];
        let main = image("main", &[("Initrds", Value::List(list))]);
        assert_eq!(initrds(&main, Some(&initrd)), ["/a", "/out/initrd", "/b"].map(PathBuf::from));
        assert_eq!(initrds(&main, None), ["/a", "/p/default-initrd", "/b"].map(PathBuf::from));
        assert!(initrds(&initrd, Some(&initrd)).is_empty());
    }
}
