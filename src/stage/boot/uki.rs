//! Unified kernel images: ukify and what it is given.

use std::path::{Path, PathBuf};

use super::keys::{self, Signer};
use super::{environment, file_mount, inside, mount_files, program, text_mount, tool};
use crate::boot::look::{Look, OS_RELEASE};
use crate::boot::signing::{Keeper, Pair};
use crate::boot::ukify::{Build, Pcrs, least_version, profile_section};
use crate::boot::{Error, names, pe};
use crate::config::{Value, version_satisfies};
use crate::sandbox::{Input, Mount, Output};
use crate::stage::apply::Step;
use crate::stage::script::latest;
use crate::stage::{Context, Source, StageError};
use crate::store::{Artifact, MergedTree};
use crate::types::Architecture;

const UKIFY: [&str; 2] = ["ukify", "/usr/lib/systemd/ukify"];

/// Where ukify's account of the measurements goes in the sandbox.
pub const PCRS: &str = "/work/out/pcrs";

/// ukify as it is among the tools.
#[derive(Clone, Debug)]
pub struct Ukify {
    program: String,
    version: String,
}

impl Ukify {
    /// Whether it is among the tools.
    pub fn is_there(cx: &Context<'_>) -> bool {
        tool(cx, &UKIFY).is_some()
    }

    /// Finds it and asks for its version.
    pub fn find(cx: &mut Context<'_>) -> Result<Self, StageError> {
        let program = tool(cx, &UKIFY).ok_or_else(|| {
            StageError::Other(
                "unified kernel images need ukify, which is not among the tools; set ToolsTree=default, install it \
                 (Debian 13: systemd-ukify), or set UnifiedKernelImages=none"
                    .to_owned(),
            )
        })?;
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let spec = cx.spec(&[&program, "--version"]);
        let exit = spec.run(Input::Null, Output::Split(&mut out, &mut err), cx.cancel)?;
        if !exit.success() {
            cx.note(&String::from_utf8_lossy(&err));
            return Err(StageError::Command { command: format!("{program} --version"), exit });
        }
        // `ukify 257 (257.13-1~deb13u1)`
        let text = String::from_utf8_lossy(&out).into_owned();
        let version = text.split_whitespace().nth(1).unwrap_or("0").to_owned();
        Ok(Self { program, version })
    }

    fn needs(&self, version: &str, what: &str) -> Result<(), StageError> {
        if version_satisfies(&self.version, &format!(">={version}")) {
            return Ok(());
        }
        Err(StageError::Other(format!(
            "{what} needs ukify {version}, and the one among the tools is {}; ToolsTree=default with a newer \
             ToolsTreeRelease= has one",
            self.version
        )))
    }
}

/// A kernel for an image. Paths are those of the sandbox.
pub struct Contents<'a> {
    /// Its version.
    pub version: &'a str,
    /// Its image.
    pub image: String,
    /// Initrds in their order.
    pub initrds: Vec<String>,
    /// Where the image goes.
    pub output: String,
}

/// What all images of one tree have in common, and the steps that make them.
pub struct Recipe {
    ukify: Ukify,
    architecture: Architecture,
    stub: String,
    os_release: Option<String>,
    splash: Option<String>,
    /// Microcode for its own section, and what goes in front of the initrds instead where there is none.
    microcode: (Vec<String>, Vec<String>),
    signer: Option<Signer>,
    pcrs: Pcrs,
    /// How many images tell of their measurements.
    accounts: usize,
    joined: Vec<String>,
    signed_profiles: Vec<String>,
    command_line: Option<String>,
    environment: Vec<(String, String)>,
    /// What the sandbox has to hold.
    pub mounts: Vec<Mount>,
    /// What makes the images.
    pub steps: Vec<Step>,
}

impl Recipe {
    /// Looks up what an addon needs: a command line, and what signs it. `stub` is the stub's path in the sandbox.
    pub fn of_addon(cx: &mut Context<'_>, stub: String, command_line: &[String]) -> Result<Self, StageError> {
        let ukify = Ukify::find(cx)?;
        let mut recipe = Self::bare(cx, ukify, stub)?;
        recipe.check_version(false, false, false)?;
        recipe.command_line = recipe.command_line_file("main", command_line);
        Ok(recipe)
    }

    /// What all have: the key for Secure Boot.
    fn bare(cx: &Context<'_>, ukify: Ukify, stub: String) -> Result<Self, StageError> {
        let mut mounts = Vec::new();
        let signer = keys::secure_boot(cx, &mut mounts)?;
        let steps = signer.iter().flat_map(|signer| keys::validate(cx, &signer.pair)).collect();
        Ok(Self {
            ukify,
            architecture: super::architecture(cx)?,
            stub,
            os_release: None,
            splash: None,
            microcode: (Vec::new(), Vec::new()),
            signer,
            pcrs: Pcrs::Ignored,
            accounts: 0,
            joined: Vec::new(),
            signed_profiles: Vec::new(),
            command_line: None,
            environment: environment(cx),
            mounts,
            steps,
        })
    }

    /// Checks that ukify is new enough for what is asked of it.
    fn check_version(&self, profiles: bool, unsigned: bool, digests: bool) -> Result<(), StageError> {
        let mut pairs: Vec<&Pair> = self.signer.iter().map(|signer| &signer.pair).collect();
        if let Pcrs::Signed(pair) = &self.pcrs {
            pairs.push(pair);
        }
        let keepers: Vec<&Keeper> =
            pairs.iter().flat_map(|pair| [&pair.key_keeper, &pair.certificate_keeper]).collect();
        let (version, what) = least_version(profiles, unsigned, &keepers, digests);
        self.ukify.needs(version, what)
    }

    /// Looks up what images of the tree `look` with this command line need. `stub` is the stub's path on the host and
    /// in the sandbox.
    pub fn new(
        cx: &mut Context<'_>,
        look: &Look<'_>,
        stub: (PathBuf, String),
        command_line: &[String],
    ) -> Result<Self, StageError> {
        let ukify = Ukify::find(cx)?;
        let mut recipe = Self::bare(cx, ukify, stub.1)?;
        let pcr_key = keys::expected_pcr(cx, &mut recipe.mounts)?;
        if recipe.signer.is_some() && pcr_key.is_some() {
            keys::same_keepers(cx)?;
        }
        let digests = pcr_key.is_none() && cx.view.texts("SplitArtifacts").contains(&"pcrs");
        recipe.steps.extend(pcr_key.iter().flat_map(|pair| keys::validate(cx, pair)));
        recipe.pcrs = match pcr_key {
            Some(pair) => Pcrs::Signed(pair),
            None if digests => Pcrs::Digests(keys::pcr_certificate(cx, &mut recipe.mounts)?),
            None => Pcrs::Ignored,
        };
        let microcode = microcode(cx, &mut recipe.mounts)?;
        recipe.microcode = match has_microcode_section(&recipe.ukify, &stub.0)? {
            true => (microcode, Vec::new()),
            false => (Vec::new(), microcode),
        };
        let release = [OS_RELEASE, "etc/os-release"].iter().find_map(|path| look.resolve(path));
        recipe.os_release = release.map(|path| inside(&path));
        recipe.splash = splash(cx, look)?;
        let profiles = cx.view.get("UnifiedKernelImageProfiles").items();
        let unsigned = profiles.iter().any(|profile| !is_signed(profile));
        recipe.check_version(!profiles.is_empty(), unsigned, digests)?;
        if digests {
            keys::needs_measure(cx, "SplitArtifacts=pcrs")?;
        }
        recipe.command_line = recipe.command_line_file("main", command_line);
        for profile in profiles {
            recipe.add_profile(profile, look, command_line)?;
        }
        if unsigned && matches!(recipe.pcrs, Pcrs::Signed(_)) {
            recipe.signed_profiles.push("main".to_owned());
            recipe.signed_profiles.extend(profiles.iter().filter(|profile| is_signed(profile)).filter_map(profile_id));
        }
        Ok(recipe)
    }

    /// Adds the steps that make the image of a kernel; `devicetrees` are paths of the sandbox.
    pub fn add(&mut self, contents: Contents<'_>, devicetrees: Vec<String>) -> Result<(), StageError> {
        let mut build = self.build(contents.output)?;
        build.os_release = self.os_release.clone();
        build.kernel = Some((contents.version.to_owned(), contents.image));
        build.joined = self.joined.clone();
        build.signed_profiles = self.signed_profiles.clone();
        build.devicetrees = devicetrees;
        build.splash = self.splash.clone();
        build.microcode = self.microcode.0.clone();
        build.initrds = self.microcode.1.iter().cloned().chain(contents.initrds).collect();
        build.pcrs = self.pcrs.clone();
        self.push(&build);
        Ok(())
    }

    /// Adds the step that makes an addon.
    pub fn add_addon(&mut self, output: String, initrds: Vec<String>) -> Result<(), StageError> {
        let build = Build { initrds, ..self.build(output)? };
        self.push(&build);
        Ok(())
    }

    /// The part that all have in common.
    fn build(&self, output: String) -> Result<Build, StageError> {
        let efi = self.architecture.efi().ok_or_else(|| {
            StageError::other(Error::NoEfi {
                architecture: self.architecture.name(),
                what: "a unified kernel image".to_owned(),
            })
        })?;
        Ok(Build {
            efi: efi.to_owned(),
            stub: self.stub.clone(),
            output,
            command_line: self.command_line.clone(),
            secure_boot: self.signer.as_ref().map(|signer| (signer.pair.clone(), signer.tool.clone())),
            ..Build::default()
        })
    }

    fn push(&mut self, build: &Build) {
        let mut argv = vec![self.ukify.program.clone()];
        argv.extend(build.arguments(&self.ukify.version));
        self.steps.push(match build.pcrs {
            Pcrs::Digests(_) => {
                // The account that is kept is that of the newest kernel, which is the first one.
                let others = self.accounts;
                self.accounts += 1;
                let stdout = if others == 0 { PCRS.to_owned() } else { format!("{PCRS}-{others}") };
                Step::RunTo { argv, stdout: stdout.into(), env: self.environment.clone() }
            }
            _ => program(argv, &self.environment),
        });
    }

    /// A file with a command line. Old stubs want a NUL at its end.
    fn command_line_file(&mut self, name: &str, words: &[String]) -> Option<String> {
        if words.is_empty() {
            return None;
        }
        let path = format!("/work/boot/{name}.cmdline");
        self.mounts.push(text_mount(&path, format!("{}\0", words.join(" "))));
        Some(path)
    }

    /// Adds a profile: an image without a kernel, whose sections are joined to every other.
    fn add_profile(&mut self, profile: &Value, look: &Look<'_>, words: &[String]) -> Result<(), StageError> {
        let Some(Value::Map(fields)) = profile.field("profile") else { return Ok(()) };
        if profile_id(profile).is_none() {
            return Err(StageError::Other(
                "a file of UnifiedKernelImageProfiles= has no ID: write `Profile=ID=NAME` in its [UKIProfile] section"
                    .to_owned(),
            ));
        }
        let stub = names::addon_stub(self.architecture).filter(|stub| look.exists(stub)).ok_or_else(|| {
            StageError::other(Error::Missing {
                wanted: "UnifiedKernelImageProfiles= asks for profiles".to_owned(),
                missing: names::addon_stub(self.architecture).unwrap_or_default(),
                advice: "add systemd's EFI stubs to Packages= (Debian: systemd-boot-efi)".to_owned(),
            })
        })?;
        let extra = profile.field("cmdline").map(Value::items).unwrap_or_default();
        let words: Vec<String> =
            words.iter().cloned().chain(extra.iter().filter_map(Value::as_text).map(str::to_owned)).collect();
        let number = self.joined.len();
        let section = format!("/work/boot/{number}.profile");
        let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_text().unwrap_or_default()));
        self.mounts.push(text_mount(&section, profile_section(fields)));
        let output = format!("/work/out/profile-{number}.efi");
        let build = Build {
            stub: inside(&look.resolve(&stub).unwrap_or(stub)),
            command_line: self.command_line_file(&number.to_string(), &words),
            profile: Some(section),
            secure_boot: None,
            ..self.build(output.clone())?
        };
        self.push(&build);
        self.joined.push(output);
        Ok(())
    }
}

fn profile_id(profile: &Value) -> Option<String> {
    let id = profile.field("profile")?.field("ID")?.as_text()?;
    (!id.is_empty()).then(|| id.to_owned())
}

fn is_signed(profile: &Value) -> bool {
    profile.field("sign_expected_pcr").and_then(Value::as_bool).unwrap_or(true)
}

/// Whether both ukify and the stub know a section for microcode.
fn has_microcode_section(ukify: &Ukify, stub: &Path) -> Result<bool, StageError> {
    let stub = pe::systemd_version(stub).map_err(StageError::other)?;
    let is_new = |version: &str| version_satisfies(version, ">=256");
    Ok(is_new(&ukify.version) && stub.is_some_and(|version| is_new(&version)))
}

fn splash(cx: &Context<'_>, look: &Look<'_>) -> Result<Option<String>, StageError> {
    let Some(path) = cx.view.path("Splash") else { return Ok(None) };
    let path = path.to_string_lossy();
    match look.resolve(&path) {
        Some(found) => Ok(Some(inside(&found))),
        None => Err(StageError::other(Error::Missing {
            wanted: format!("Splash={path} names a picture"),
            missing: path.trim_start_matches('/').to_owned(),
            advice: "it is a path in the image: put the picture there with ExtraTrees=".to_owned(),
        })),
    }
}

/// The microcode in the sandbox: what scripts made, else what the image has.
pub fn microcode(cx: &Context<'_>, mounts: &mut Vec<Mount>) -> Result<Vec<String>, StageError> {
    let own = artifacts(cx, "io.mkosi.microcode", mounts)?;
    if !own.is_empty() {
        return Ok(own);
    }
    Ok(mount_files(cx, "microcode.files", "/work/microcode", mounts)?.into_iter().map(|(_, path)| path).collect())
}

/// The initrds in the sandbox, in their order: those of `Initrds=`, and what scripts made. Each with the name that it
/// has on a boot partition.
pub fn initrds(cx: &Context<'_>, mounts: &mut Vec<Mount>) -> Result<Vec<(String, String)>, StageError> {
    let mut found = Vec::new();
    for (name, source) in cx.sources_of("Initrds") {
        let index = name.split('/').next().unwrap_or(name);
        let target = format!("/work/initrds/{index}");
        let (base, path) = match source {
            Source::Host { path, .. } if path.is_file() => {
                let base = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
                (base, path.clone())
            }
            Source::Host { path, .. } => {
                return Err(StageError::Other(format!("Initrds= names {}, which is no file", path.display())));
            }
            Source::Image(Artifact::Files { files }) => match files.first_key_value() {
                Some((name, digest)) => (name.clone(), cx.store.need_file(digest)?),
                None => continue,
            },
            Source::Image(_) => {
                return Err(StageError::Other(
                    "Initrds= names an image that is a directory: set Format=cpio in it".to_owned(),
                ));
            }
        };
        mounts.push(file_mount(path, &target));
        found.push((base, target));
    }
    let own = artifacts(cx, "io.mkosi.initrd", mounts)?;
    found.extend(own.into_iter().map(|path| (path.rsplit('/').next().unwrap_or_default().to_owned(), path)));
    Ok(found)
}

/// The files in a subdirectory of `$ARTIFACTDIR` as the last script left it, sorted.
fn artifacts(cx: &Context<'_>, name: &str, mounts: &mut Vec<Mount>) -> Result<Vec<String>, StageError> {
    let Some(Artifact::Tree { layers }) = latest(&cx.needs, "artifacts") else { return Ok(Vec::new()) };
    let layers = layers.iter().map(|digest| cx.store.need_layer(digest)).collect::<Result<Vec<_>, _>>()?;
    let tree = MergedTree::new(&layers);
    let look = Look::new(&tree);
    let mut found = Vec::new();
    for file in look.names(name) {
        if let Some(source) = look.file(&format!("{name}/{file}")) {
            let target = format!("/work/artifacts/{name}/{file}");
            mounts.push(file_mount(source, &target));
            found.push(target);
        }
    }
    Ok(found)
}
