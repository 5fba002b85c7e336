//! Keys and certificates: what the settings say of them, and how the sandbox of a program that signs sees them.

use std::path::Path;

use super::{environment, file_mount, program, tool};
use crate::boot::measured;
use crate::boot::signing::{Keeper, Pair, SignTool};
use crate::config::Value;
use crate::sandbox::Mount;
use crate::stage::apply::Step;
use crate::stage::{Context, StageError, tokens};

/// The programs with which systemd's own tools sign and check keys.
pub const SYSTEMD_SBSIGN: [&str; 2] = ["systemd-sbsign", "/usr/lib/systemd/systemd-sbsign"];
const KEYUTIL: [&str; 2] = ["systemd-keyutil", "/usr/lib/systemd/systemd-keyutil"];
const MEASURE: [&str; 2] = ["systemd-measure", "/usr/lib/systemd/systemd-measure"];

/// What a signing program needs.
#[derive(Clone, Debug)]
pub struct Signer {
    /// The key and certificate.
    pub pair: Pair,
    /// The program.
    pub tool: SignTool,
}

/// The key for Secure Boot and the program that signs, if `SecureBoot=` is set; the sandbox gets to see the key.
pub fn secure_boot(cx: &Context<'_>, mounts: &mut Vec<Mount>) -> Result<Option<Signer>, StageError> {
    if !cx.view.bool("SecureBoot") {
        return Ok(None);
    }
    let pair = pair(cx, "SecureBoot", "SecureBoot=yes", mounts)?;
    let wanted = cx.view.text("SecureBootSignTool").unwrap_or("auto");
    let tool = SignTool::choose(wanted, tool(cx, &["sbsign"]), tool(cx, &SYSTEMD_SBSIGN)).map_err(StageError::Other)?;
    tool.reaches(&pair).map_err(StageError::Other)?;
    Ok(Some(Signer { pair, tool }))
}

/// The key that signs the expected measurements, if it is wanted: with `auto` where there are a key, a certificate and
/// systemd-measure.
pub fn expected_pcr(cx: &Context<'_>, mounts: &mut Vec<Mount>) -> Result<Option<Pair>, StageError> {
    let set = |setting: &str| !cx.view.get(setting).is_empty();
    let wanted = match cx.view.text("SignExpectedPcr") {
        Some("enabled") => true,
        Some("auto") | None => {
            set("SignExpectedPcrKey") && set("SignExpectedPcrCertificate") && tool(cx, &MEASURE).is_some()
        }
        _ => false,
    };
    if !wanted {
        return Ok(None);
    }
    needs_measure(cx, "SignExpectedPcr=yes")?;
    pair(cx, "SignExpectedPcr", "SignExpectedPcr=yes", mounts).map(Some)
}

/// ukify asks systemd-measure for the measurements, and only finds out in the end that it is not there.
pub fn needs_measure(cx: &Context<'_>, wanted: &str) -> Result<(), StageError> {
    if tool(cx, &MEASURE).is_some() {
        return Ok(());
    }
    Err(StageError::Other(format!(
        "{wanted} needs systemd-measure, which is not among the tools; set ToolsTree=default, or install it (Debian: \
         systemd, in releases after trixie systemd-tpm)"
    )))
}

/// The certificate of `SignExpectedPcrCertificate=` in the sandbox, for digests that are signed elsewhere.
pub fn pcr_certificate(cx: &Context<'_>, mounts: &mut Vec<Mount>) -> Result<String, StageError> {
    half(cx, "SignExpectedPcrCertificate", "SplitArtifacts=pcrs", mounts)
}

/// Steps that check whether a key and certificate can be read, where there is a program for that.
pub fn validate(cx: &Context<'_>, pair: &Pair) -> Vec<Step> {
    let Some(keyutil) = tool(cx, &KEYUTIL) else { return Vec::new() };
    let mut argv = vec![keyutil, "validate".to_owned()];
    argv.extend(pair.systemd());
    vec![program(argv, &environment(cx))]
}

/// Checks that the measurements of an image are signed with the key that the certificate tells of. Of a key in a file the
/// public half is taken from the key itself; what an engine or provider keeps is believed to be the certificate's.
pub fn check_measured(cx: &Context<'_>, image: &Path) -> Result<(), StageError> {
    let source = cx.view.get("SignExpectedPcrKeySource").field("type").and_then(Value::as_text).unwrap_or("file");
    if source == "file" || measured::fits(image).map_err(StageError::other)? != Some(false) {
        return Ok(());
    }
    Err(StageError::Setting {
        setting: "SignExpectedPcrCertificate".to_owned(),
        text:
            "SignExpectedPcrCertificate= is not the certificate of SignExpectedPcrKey=: what that key signed can't be \
               checked with it, so that no machine would accept the measurements. Name the certificate of that key"
                .to_owned(),
    })
}

/// One program signs for both, so both keys have to be reached in the same way.
pub fn same_keepers(cx: &Context<'_>) -> Result<(), StageError> {
    for half in ["Key", "Certificate"] {
        let [boot, pcr] = ["SecureBoot", "SignExpectedPcr"].map(|name| format!("{name}{half}Source"));
        if cx.view.get(&boot) != cx.view.get(&pcr) {
            return Err(StageError::Other(format!(
                "{boot}= and {pcr}= differ, and one program signs with both: set both to the same"
            )));
        }
    }
    Ok(())
}

fn pair(cx: &Context<'_>, name: &str, wanted: &str, mounts: &mut Vec<Mount>) -> Result<Pair, StageError> {
    let keeper = |half: &str| {
        let value = cx.view.get(&format!("{name}{half}Source"));
        let text = |field: &str| value.field(field).and_then(Value::as_text).unwrap_or_default().to_owned();
        match text("type").as_str() {
            "engine" => Keeper::Engine(text("source")),
            "provider" => Keeper::Provider(text("source")),
            _ => Keeper::File,
        }
    };
    let pair = Pair {
        key: half(cx, &format!("{name}Key"), wanted, mounts)?,
        key_keeper: keeper("Key"),
        certificate: half(cx, &format!("{name}Certificate"), wanted, mounts)?,
        certificate_keeper: keeper("Certificate"),
    };
    for (half, text, keeper) in
        [("Key", &pair.key, &pair.key_keeper), ("Certificate", &pair.certificate, &pair.certificate_keeper)]
    {
        if *keeper == Keeper::File && !text.starts_with("/work/") {
            let setting = format!("{name}{half}");
            let text = format!(
                "{setting}= is no file that is there; with a name that an engine or provider of OpenSSL knows, set \
                 {setting}Source= as well"
            );
            return Err(StageError::Setting { setting, text });
        }
    }
    if pair.key_keeper != Keeper::File || pair.certificate_keeper != Keeper::File {
        mounts.extend(tokens::mounts(cx, &[&pair.key, &pair.certificate]));
    }
    Ok(pair)
}

/// A key or certificate as the sandbox has it: a mounted file, or the name as it was written.
fn half(cx: &Context<'_>, setting: &str, wanted: &str, mounts: &mut Vec<Mount>) -> Result<String, StageError> {
    if let Some(path) = cx.sources_of(setting).first().and_then(|(_, source)| Context::host_path(source)) {
        let target = format!("/work/keys/{setting}");
        mounts.push(file_mount(path.to_path_buf(), &target));
        return Ok(target);
    }
    cx.view.text(setting).filter(|text| !text.is_empty()).map(str::to_owned).ok_or_else(|| {
        StageError::Other(format!(
            "{wanted}, but {setting}= is not set: `mkosi genkey` makes mkosi.key and mkosi.crt, which are used by themselves"
        ))
    })
}
