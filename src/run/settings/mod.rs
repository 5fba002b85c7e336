//! The settings that decide how an image is run, as values with types.
//!
//! Knows nothing of the host.

mod kinds;
mod read;

use std::path::PathBuf;

pub use kinds::{Console, Credential, DiskType, Drive, Feature, Firmware, Network, SharedTree, VsockCid};

use super::error::{Result, RunError};
use crate::output::OutputNames;
use crate::types::Architecture;

/// How long the name of a host can be.
const LONGEST_NAME: usize = 64;

/// Everything that decides how an image is run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The image's name.
    pub image: String,
    /// The machine's name.
    pub machine: String,
    /// `Format=`.
    pub format: String,
    /// The directory with the outputs.
    pub directory: PathBuf,
    /// The names of the outputs.
    pub names: OutputNames,
    /// `OutputExtension=`, without a dot; may be empty.
    pub extension: String,
    /// The architecture of the image.
    pub architecture: Architecture,
    /// Whether its packages are Debian's or Ubuntu's.
    pub apt: bool,
    /// `Firmware=`.
    pub firmware: Firmware,
    /// `FirmwareVariables=`: a path, or one of its words.
    pub firmware_variables: Option<String>,
    /// `SecureBootCertificate=`.
    pub certificate: Option<PathBuf>,
    /// `Linux=`, with its specifiers put in.
    pub linux: Option<PathBuf>,
    /// `Initrds=`; `default` stands there as the output of the image that makes it.
    pub initrds: Vec<PathBuf>,
    /// `KernelCommandLine=`.
    pub command_line: Vec<String>,
    /// `KernelCommandLineExtra=`.
    pub command_line_extra: Vec<String>,
    /// `Console=`.
    pub console: Console,
    /// `CPUs=`; 0 for all.
    pub cpus: u32,
    /// `RAM=` in bytes.
    pub ram: u64,
    /// `MaxMem=` in bytes.
    pub max_mem: Option<u64>,
    /// `KVM=`.
    pub kvm: Feature,
    /// `CXL=`.
    pub cxl: bool,
    /// `VSock=`.
    pub vsock: Feature,
    /// `VSockCID=`.
    pub vsock_cid: VsockCid,
    /// `TPM=`.
    pub tpm: Feature,
    /// `Removable=`.
    pub removable: bool,
    /// `DiskType=`.
    pub disk_type: DiskType,
    /// `Drives=`.
    pub drives: Vec<Drive>,
    /// `QemuArgs=`.
    pub qemu_args: Vec<String>,
    /// `Ephemeral=`.
    pub ephemeral: bool,
    /// `Credentials=`.
    pub credentials: Vec<Credential>,
    /// `RuntimeTrees=`.
    pub trees: Vec<SharedTree>,
    /// What `RuntimeBuildSources=` shows: the sources and the build directory.
    pub build_trees: Vec<SharedTree>,
    /// `RuntimeSize=` in bytes.
    pub size: Option<u64>,
    /// `RuntimeNetwork=`.
    pub network: Network,
    /// `BindUser=`.
    pub bind_user: bool,
    /// `UnitProperties=`.
    pub unit_properties: Vec<String>,
    /// `Ssh=`: whether the image needs a key to be of use.
    pub ssh_needed: bool,
    /// `SshKey=`.
    pub ssh_key: Option<PathBuf>,
    /// `SshCertificate=`.
    pub ssh_certificate: Option<PathBuf>,
    /// Whether `VirtualMachineMonitor=vmspawn`.
    pub vmspawn: bool,
    /// `ForwardJournal=`.
    pub forward_journal: Option<PathBuf>,
    /// `Register=`.
    pub register: Feature,
    /// `NSpawnSettings=`.
    pub nspawn_settings: Option<PathBuf>,
    /// `SysupdateDirectory=`.
    pub sysupdate: Option<PathBuf>,
    /// `RepartDirectories=`.
    pub repart: Vec<PathBuf>,
    /// Whether the partitions are split artifacts already.
    pub split_partitions: bool,
    /// `SELinuxRelabel=`.
    pub relabel: Feature,
    /// `StorageTargetMode=`.
    pub storage_target: Feature,
}

impl Settings {
    /// The image among the outputs.
    pub fn output(&self) -> PathBuf {
        let plain = match self.extension.as_str() {
            "" => self.names.base().to_owned(),
            extension => self.names.with(extension),
        };
        self.directory.join(match self.names.compression().extension() {
            Some(packed) => format!("{plain}.{packed}"),
            None => plain,
        })
    }

    /// A file beside the image.
    pub fn beside(&self, extension: &str) -> PathBuf {
        self.directory.join(self.names.with(extension))
    }

    /// Whether `FirmwareVariables=` wants firmware with Microsoft's keys.
    pub fn enrolled(&self) -> bool {
        matches!(self.firmware_variables.as_deref(), Some("microsoft" | "microsoft-mok"))
    }

    /// The machine's name as systemd takes it, which wants that of a host (hostname(7)): a project's directory is often
    /// called otherwise.
    pub fn machine_name(&self) -> String {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '.';
        let mut name = String::new();
        for c in self.machine.chars().map(|c| if fits(c) { c } else { '-' }) {
            // Neither sign may follow another one.
            if name.len() < LONGEST_NAME && !(".-".contains(c) && (name.is_empty() || name.ends_with(['.', '-']))) {
                name.push(c);
            }
        }
        let name = name.trim_end_matches(['.', '-']);
        if name.is_empty() { "image".to_owned() } else { name.to_owned() }
    }

    /// All directories that the machine is to see.
    pub fn all_trees(&self) -> impl Iterator<Item = &SharedTree> {
        self.build_trees.iter().chain(&self.trees)
    }

    /// Checks that the image is there.
    ///
    /// # Errors
    /// When it has to be built first.
    pub fn built(&self) -> Result<PathBuf> {
        let path = self.output();
        // A directory's name is the link of an image in another format.
        let there = if self.format == "directory" {
            path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
        } else {
            path.exists()
        };
        if there {
            return Ok(path);
        }
        Err(RunError::unfit(
            format!("the image `{}` is not built: there is no {}", self.image, path.display()),
            "build it first with `mkosi build`, or add -f to do that now",
        ))
    }
}
