//! The stage `bootloader`: systemd-boot, GRUB and shim on the EFI partition, signed where that is wanted, and the keys
//! that firmware takes on the first boot.

use super::kernel::{DIRECTORY, FILE, parent};
use super::keys::{self, Signer};
use super::{environment, inside, program, signing_spec, text_mount, tool, wishes};
use crate::boot::kernels::kernels;
use crate::boot::look::Look;
use crate::boot::signing::Keeper;
use crate::boot::wanted::{BIOS, Wishes, grub_directory};
use crate::boot::{Error, grub, names, pe};
use crate::config::version_satisfies;
use crate::sandbox::{Input, Mount, Output};
use crate::stage::apply::{Step, apply};
use crate::stage::hwdb::unchanged;
use crate::stage::{Context, Outputs, StageError};

/// Where systemd-boot is in a tree.
const SYSTEMD_BOOT: &str = "usr/lib/systemd/boot/efi";

/// Where systemd-boot looks for keys to enrol.
const ENROLMENT: &str = "efi/loader/keys/auto";

/// What the boot loaders of one tree have in common.
struct Loaders<'a> {
    wishes: &'a Wishes,
    look: &'a Look<'a>,
    distribution: String,
    efi: &'static str,
    signer: Option<Signer>,
    mounts: Vec<Mount>,
    steps: Vec<Step>,
    epoch: i64,
}

/// Installs the boot loaders.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let merged = cx.merged();
    let look = Look::new(&merged);
    let wishes = wishes(cx)?;
    let mut mounts = Vec::new();
    let efi = wishes.efi().map_err(StageError::other)?;
    // Where it is up to the image whether it boots, one without kernels doesn't.
    let boots = wishes.bootable != "auto" || !kernels(&look).map_err(StageError::other)?.is_empty();
    let signer = if efi && boots { keys::secure_boot(cx, &mut mounts)? } else { None };
    let mut loaders = Loaders {
        wishes: &wishes,
        look: &look,
        distribution: cx.view.text("Distribution").unwrap_or_default().to_owned(),
        efi: wishes.architecture.efi().unwrap_or_default(),
        signer,
        mounts,
        steps: Vec::new(),
        epoch: cx.epoch(),
    };
    if efi && boots && wishes.systemd_boot() {
        loaders.systemd_boot(cx)?;
    }
    let before = loaders.steps.len();
    if wishes.grub_bios(&look).map_err(StageError::other)? {
        loaders.grub_image(cx, BIOS, &format!("{}/core.img", grub_directory(&look, BIOS).unwrap_or_default()), None)?;
    }
    if wishes.grub_efi(&look).map_err(StageError::other)? {
        loaders.grub_efi(cx)?;
    }
    if loaders.steps.len() > before {
        loaders.grub_font();
    }
    if efi && boots && wishes.shim() {
        loaders.shim(cx)?;
    }
    if loaders.steps.is_empty() {
        return Ok(unchanged(cx));
    }
    let tree = cx.open_tree()?;
    let mut spec = signing_spec(cx);
    spec.mounts.push(cx.tree_mount(&tree));
    spec.mounts.append(&mut loaders.mounts);
    // Only meant to be mounted over: nobody should write there.
    let mut steps: Vec<Step> =
        ["efi", "boot"].map(|path| Step::Directory { path: path.to_owned(), mode: 0o500 }).to_vec();
    steps.append(&mut loaders.steps);
    apply(cx, spec, &steps)?;
    cx.close_tree(tree)
}

impl Loaders<'_> {
    /// What is missing is an error where `Bootable=yes` was said, and told in the log otherwise.
    fn missing(&self, cx: &mut Context<'_>, wanted: &str, missing: &str, advice: &str) -> Result<(), StageError> {
        let error =
            Error::Missing { wanted: wanted.to_owned(), missing: missing.to_owned(), advice: advice.to_owned() };
        if self.wishes.demanded() {
            return Err(StageError::other(error));
        }
        cx.note(&format!("{error}; passed over, since Bootable=auto"));
        Ok(())
    }

    fn systemd_boot(&mut self, cx: &mut Context<'_>) -> Result<(), StageError> {
        let Some(bootctl) = tool(cx, &["bootctl"]) else {
            let text = "systemd-boot is installed by bootctl, which is not among the tools; set ToolsTree=default, \
                        install it (Debian: systemd-boot-tools or systemd-boot), or set Bootloader=none";
            if self.wishes.demanded() {
                return Err(StageError::Other(text.to_owned()));
            }
            cx.note(text);
            return Ok(());
        };
        let signed = self.wishes.signed();
        let end = if signed { ".efi.signed" } else { ".efi" };
        let programs = self.look.names(SYSTEMD_BOOT);
        if !programs.iter().any(|name| name.ends_with(end)) {
            return self.missing(
                cx,
                &format!("Bootloader={} asks for systemd-boot", self.wishes.bootloader),
                &format!("/{SYSTEMD_BOOT}/*{end}"),
                "add it to Packages= (Debian: systemd-boot-efi)",
            );
        }
        if let Some(signer) = self.signer.clone().filter(|_| !signed) {
            for name in programs.iter().filter(|name| name.ends_with(".efi") || name.ends_with(".EFI")) {
                let from = format!("{SYSTEMD_BOOT}/{name}");
                self.sign(cx, &signer, &from, &format!("{from}.signed"))?;
            }
        }
        let version = version(cx, &bootctl)?;
        let mut argv = vec![bootctl];
        argv.extend(
            ["install", "--root=/buildroot", "--install-source=image", "--all-architectures", "--no-variables"]
                .map(str::to_owned),
        );
        let enrols = self.signer.clone().filter(|_| cx.view.bool("SecureBootAutoEnroll"));
        let by_bootctl = version_satisfies(&version, ">=257");
        if let Some(signer) = enrols.as_ref().filter(|_| by_bootctl) {
            argv.push("--secure-boot-auto-enroll=yes".to_owned());
            argv.extend(signer.pair.systemd());
        }
        let mut variables = environment(cx);
        for (name, value) in [("SYSTEMD_ESP_PATH", "/efi"), ("SYSTEMD_XBOOTLDR_PATH", "/boot")] {
            variables.push((name.to_owned(), value.to_owned()));
        }
        self.steps.push(program(argv, &variables));
        // Every machine that boots the image would have the same one.
        self.steps.push(Step::Remove { pattern: "/efi/loader/random-seed".to_owned() });
        if self.wishes.shim()
            && let Some(to) = names::second_stage(self.wishes.architecture, &self.distribution)
        {
            let from = inside(&format!("efi/EFI/systemd/systemd-boot{}.efi", self.efi));
            self.steps.push(Step::Directory { path: parent(&to), mode: DIRECTORY });
            self.steps.push(Step::Place { from: from.into(), to, mode: FILE, epoch: self.epoch });
        }
        if let Some(signer) = enrols.filter(|_| !by_bootctl) {
            self.enrol(cx, &signer)?;
        }
        Ok(())
    }

    /// Makes the variables that systemd-boot enrols, with the programs of sbsigntools. The same key serves as platform
    /// key, key exchange key and for programs.
    fn enrol(&mut self, cx: &Context<'_>, signer: &Signer) -> Result<(), StageError> {
        let need = |name: &str| {
            tool(cx, &[name]).ok_or_else(|| {
                StageError::Other(format!(
                    "SecureBootAutoEnroll=yes needs bootctl 257, or {name}, which is not among the tools; set \
                     ToolsTree=default, install it (Debian: sbsigntool, openssl), or set SecureBootAutoEnroll=no"
                ))
            })
        };
        if signer.pair.certificate_keeper != Keeper::File || matches!(signer.pair.key_keeper, Keeper::Provider(_)) {
            return Err(StageError::Other(
                "SecureBootAutoEnroll=yes needs bootctl 257 with a key or certificate of a provider; set \
                 ToolsTree=default"
                    .to_owned(),
            ));
        }
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let (der, esl) = ("/tmp/mkosi.der", "/tmp/mkosi.esl");
        let variables = environment(cx);
        let certificate = signer.pair.certificate.as_str();
        let openssl = need("openssl")?;
        self.steps
            .push(program(words(&[&openssl, "x509", "-outform", "DER", "-in", certificate, "-out", der]), &variables));
        let owner = "00000000-0000-0000-0000-000000000000";
        let list = need("sbsiglist")?;
        self.steps.push(program(words(&[&list, "--owner", owner, "--type", "x509", "--output", esl, der]), &variables));
        self.steps.push(Step::Directory { path: ENROLMENT.to_owned(), mode: DIRECTORY });
        let sign = need("sbvarsign")?;
        for variable in ["PK", "KEK", "db"] {
            let output = format!("{ENROLMENT}/{variable}.auth");
            let attributes = "NON_VOLATILE,BOOTSERVICE_ACCESS,RUNTIME_ACCESS,TIME_BASED_AUTHENTICATED_WRITE_ACCESS";
            let mut argv = words(&[&sign, "--attr", attributes, "--cert", certificate, "--output", &inside(&output)]);
            if let Keeper::Engine(engine) = &signer.pair.key_keeper {
                argv.extend(words(&["--engine", engine]));
            }
            argv.extend(words(&["--key", &signer.pair.key, variable, esl]));
            self.steps.push(program(argv, &variables));
            self.steps.push(Step::Mode { path: output, mode: FILE });
        }
        Ok(())
    }

    /// Signs a program of the tree.
    fn sign(&mut self, cx: &Context<'_>, signer: &Signer, from: &str, to: &str) -> Result<(), StageError> {
        let argv = signer.tool.command(&signer.pair, &inside(from), &inside(to));
        self.steps.push(program(argv, &environment(cx)));
        Ok(())
    }

    fn grub_efi(&mut self, cx: &mut Context<'_>) -> Result<(), StageError> {
        let architecture = self.wishes.architecture;
        let to = match self.wishes.shim() {
            true => names::second_stage(architecture, &self.distribution),
            false => names::boot_binary(architecture),
        };
        let Some(to) = to else { return Ok(()) };
        self.steps.push(Step::Directory { path: parent(&to), mode: DIRECTORY });
        let signed = grub::signed_image(self.look, architecture).and_then(|path| self.look.resolve(&path));
        if self.wishes.signed() {
            match signed {
                Some(from) => {
                    let from = inside(&from).into();
                    self.steps.push(Step::Place { from, to, mode: FILE, epoch: self.epoch });
                }
                None => {
                    return self.missing(
                        cx,
                        "Bootloader=grub-signed asks for GRUB",
                        "signed GRUB",
                        "add it to Packages= (Debian: grub-efi-amd64-signed)",
                    );
                }
            }
        } else {
            let target = format!("{}-efi", architecture.grub().unwrap_or_default());
            if grub_directory(self.look, &target).is_none() {
                cx.note(&format!("the image has no modules of GRUB for {target}: passed over, since Bootable=auto"));
                return Ok(());
            }
            // Shim wants to know what GRUB's own generation is; that of the distribution's says so.
            let mut sbat = None;
            if self.signer.is_some() && self.wishes.shim() {
                let image = signed.as_deref().and_then(|path| self.look.file(path));
                let section = image.map(|image| pe::section(&image, ".sbat")).transpose().map_err(StageError::other)?;
                let Some(section) = section.flatten() else {
                    return Err(StageError::other(Error::Missing {
                        wanted: "GRUB that shim starts needs an SBAT section, which is taken from the signed GRUB"
                            .to_owned(),
                        missing: "signed GRUB".to_owned(),
                        advice: "add it to Packages= (Debian: grub-efi-amd64-signed)".to_owned(),
                    }));
                };
                self.mounts.push(text_mount("/work/boot/sbat", section));
                sbat = Some("/work/boot/sbat");
            }
            self.grub_image(cx, &target, &to, sbat)?;
            if let Some(signer) = self.signer.clone() {
                self.sign(cx, &signer, &to, &to)?;
            }
            self.steps.push(Step::Mode { path: to, mode: FILE });
        }
        Ok(())
    }

    /// The font that a configuration of GRUB may load.
    fn grub_font(&mut self) {
        let fonts = format!("efi/{}/fonts", grub::prefix(&self.distribution));
        self.steps.push(Step::Directory { path: fonts.clone(), mode: DIRECTORY });
        let font =
            ["grub", "grub2"].iter().find_map(|name| self.look.resolve(&format!("usr/share/{name}/unicode.pf2")));
        if let Some(font) = font {
            let to = format!("{fonts}/unicode.pf2");
            self.steps.push(Step::Place { from: inside(&font).into(), to, mode: FILE, epoch: self.epoch });
        }
    }

    /// Makes an image of GRUB at `to` in the tree.
    fn grub_image(&mut self, cx: &Context<'_>, target: &str, to: &str, sbat: Option<&str>) -> Result<(), StageError> {
        let names = ["grub-mkimage", "grub2-mkimage", "/usr/lib/grub/i386-pc/grub-mkimage"];
        let Some(mkimage) = tool(cx, &names) else {
            return Err(StageError::Other(
                "GRUB's image is made by grub-mkimage, which is not among the tools; set ToolsTree=default, or install \
                 it (Debian: grub-common)"
                    .to_owned(),
            ));
        };
        let directory = grub_directory(self.look, target).unwrap_or_default();
        let config = format!("/work/boot/{target}.cfg");
        self.mounts.push(text_mount(&config, grub::built_in_config(&self.distribution)));
        let modules: &[&str] = if target == BIOS { &["biosdisk"] } else { &["chain"] };
        let image = grub::Image {
            target,
            directory: &inside(&directory),
            config: &config,
            prefix: grub::prefix(&self.distribution),
            output: &inside(to),
            sbat,
            shim: self.wishes.shim(),
            modules,
        };
        let mut argv = vec![mkimage];
        argv.extend(image.arguments(|module| self.look.exists(&format!("{directory}/{module}.mod"))));
        self.steps.push(program(argv, &[]));
        Ok(())
    }

    fn shim(&mut self, cx: &mut Context<'_>) -> Result<(), StageError> {
        let Some(to) = names::boot_binary(self.wishes.architecture) else { return Ok(()) };
        self.steps.push(Step::Directory { path: parent(&to), mode: DIRECTORY });
        let (signed, unsigned) = grub::shim_patterns(self.efi);
        self.stage_of_shim(cx, "shim", (&signed, &unsigned), Some(&to))?;
        let (signed, unsigned) = grub::mok_patterns(self.efi);
        self.stage_of_shim(cx, "MokManager", (&signed, &unsigned), None)
    }

    /// Puts shim or its companion in its place; one that keeps its name gets the ending that the EFI partition wants.
    fn stage_of_shim(
        &mut self,
        cx: &mut Context<'_>,
        what: &str,
        (signed, unsigned): (&[String], &[String]),
        to: Option<&str>,
    ) -> Result<(), StageError> {
        let is_signed = self.wishes.shim == "signed";
        let patterns = if is_signed { signed } else { unsigned };
        let all = patterns.iter().flat_map(|pattern| self.look.glob(pattern));
        let found = all
            .filter(|path| !self.look.is_absolute_link(path))
            .find_map(|path| Some((self.look.resolve(&path)?, path)));
        let Some((from, path)) = found else {
            return self.missing(
                cx,
                &format!("ShimBootloader={} asks for {what}", self.wishes.shim),
                &format!("{} {what}", self.wishes.shim),
                "add it to Packages= (Debian: shim-signed and shim-helpers-amd64-signed, or shim-unsigned)",
            );
        };
        let to = to.map_or_else(
            || {
                let name = path.rsplit('/').next().unwrap_or_default();
                format!("efi/EFI/BOOT/{}.efi", name.split('.').next().unwrap_or(name))
            },
            str::to_owned,
        );
        match self.signer.clone().filter(|_| !is_signed) {
            Some(signer) => {
                self.sign(cx, &signer, &from, &to)?;
                self.steps.push(Step::Mode { path: to, mode: FILE });
            }
            None => self.steps.push(Step::Place { from: inside(&from).into(), to, mode: FILE, epoch: self.epoch }),
        }
        Ok(())
    }
}

/// The version that a program of systemd tells: `systemd 257 (257.13-1)`.
fn version(cx: &Context<'_>, program: &str) -> Result<String, StageError> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = cx.spec(&[program, "--version"]).run(Input::Null, Output::Split(&mut out, &mut err), cx.cancel)?;
    if !exit.success() {
        return Err(StageError::Command { command: format!("{program} --version"), exit });
    }
    Ok(String::from_utf8_lossy(&out).split_whitespace().nth(1).unwrap_or("0").to_owned())
}
