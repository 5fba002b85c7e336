//! The signature of `SHA256SUMS`, by GnuPG with a key of the user's keyring, or by a program of the Stateless OpenPGP
//! Command Line Interface with a key in a file.
//!
//! The secret key never leaves the place where the user keeps it: the program sees that place, and nothing of it enters
//! a key of the graph or the store but whose it is.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Context, Outputs, StageError};
use crate::config::{Image, Value};
use crate::output::openpgp;
use crate::sandbox::{Input, Mount, Output};
use crate::store::Artifact;
use crate::types::{Digest, Encoder};

/// GnuPG, whose keys lie in a directory of the user.
const GPG: &str = "gpg";
/// Files of that directory that tell which keys there are, for several of its versions, and which it prefers.
const KEYRINGS: [&str; 3] = ["pubring.kbx", "pubring.gpg", "public-keys.d/pubring.db"];
const PREFERENCES: &str = "gpg.conf";
/// Where it has a file for each secret key, named by the public part.
const SECRET: &str = "private-keys-v1.d";

/// What the signature is called in the sandbox and in the work directory.
const SIGNATURE: &str = "signature";

/// Signs the checksums.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let Some(Artifact::Files { files }) = cx.needs.get("checksum.files") else { return Ok(Outputs::new()) };
    let Some((name, digest)) = files.first_key_value() else { return Ok(Outputs::new()) };
    let (name, sums) = (format!("{name}.gpg"), cx.store.need_file(digest)?);
    let tool = cx.view.text("OpenPGPTool").unwrap_or(GPG).to_owned();
    let program = cx.tools.need(&tool, "Sign=yes")?.to_string_lossy().into_owned();
    let signature = match tool.as_str() {
        GPG => gpg(cx, &program, &sums)?,
        _ => sop(cx, &tool, &program, &sums)?,
    };
    let digest = cx.store.add_file(&signature)?;
    Ok(Outputs::from([("files".to_owned(), Artifact::Files { files: BTreeMap::from([(name, digest)]) })]))
}

fn gpg(cx: &mut Context<'_>, program: &str, sums: &Path) -> Result<PathBuf, StageError> {
    let home = home(cx.view.get("Environment")).filter(|home| home.is_dir()).ok_or_else(|| {
        StageError::Other(
            "Sign=yes: GnuPG's directory is not there ($GNUPGHOME in Environment= or in the environment, else ~/.gnupg): \
             make a key with `gpg --quick-gen-key`"
                .to_owned(),
        )
    })?;
    let directory = cx.scratch("sign")?;
    let key = name_of(cx.view.get("Key"));
    let output = format!("/work/sign/{SIGNATURE}");
    let argv = openpgp::gpg_arguments(program, key.as_deref(), "/work/SHA256SUMS", &output);
    let mut spec = cx.spec(&argv.iter().map(String::as_str).collect::<Vec<_>>());
    let bind = |source: &Path, target: &Path, read_only, optional| Mount::Bind {
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
        optional,
    };
    // The agent has a socket whose name depends on the path of the directory, so that stays as it is. Locks and the
    // trust database are written there.
    spec.mounts.push(bind(&home, &home, false, false));
    spec.mounts.push(bind(sums, Path::new("/work/SHA256SUMS"), true, false));
    spec.mounts.push(bind(&directory, Path::new("/work/sign"), false, false));
    // The agent of the user's session knows the passphrase, or how to ask for it.
    if let Some(sockets) = variable("XDG_RUNTIME_DIR").map(|path| path.join("gnupg")).filter(|path| path.is_dir()) {
        spec.mounts.push(Mount::Directory { target: "/run/user/0".into(), mode: 0o700 });
        spec.mounts.push(bind(&sockets, Path::new("/run/user/0/gnupg"), false, false));
    }
    // Without one, the agent that is started in the sandbox reaches smart cards by their daemon.
    spec.mounts.push(bind(Path::new("/run/pcscd"), Path::new("/run/pcscd"), false, true));
    spec.env.insert("GNUPGHOME".to_owned(), home.to_string_lossy().into_owned());
    if let Some(user) = variable("HOME") {
        spec.env.insert("HOME".to_owned(), user.to_string_lossy().into_owned());
    }
    let mut said = Vec::new();
    let exit = spec.run(Input::Null, Output::Merged(&mut said), cx.cancel)?;
    let path = directory.join(SIGNATURE);
    ended(cx, GPG, exit.success() && path.is_file(), &said)?;
    Ok(path)
}

fn sop(cx: &mut Context<'_>, tool: &str, program: &str, sums: &Path) -> Result<PathBuf, StageError> {
    let Value::Path(key) = cx.view.get("Key") else {
        let what = match cx.view.text("Key").unwrap_or_default() {
            "" => "is not set".to_owned(),
            key => format!("is `{key}`, and there is no such file"),
        };
        return Err(StageError::Other(format!(
            "Sign=yes with OpenPGPTool={tool} needs the path of a file with a secret key, and Key= {what}"
        )));
    };
    let argv = openpgp::sop_arguments(program, "/work/key");
    let mut spec = cx.spec(&argv.iter().map(String::as_str).collect::<Vec<_>>());
    spec.mounts.push(Mount::Bind { source: key.clone(), target: "/work/key".into(), read_only: true, optional: false });
    let text = std::fs::read(sums).map_err(StageError::io("read", sums))?;
    let (mut signature, mut said) = (Vec::new(), Vec::new());
    let exit = spec.run(Input::Bytes(&text), Output::Split(&mut signature, &mut said), cx.cancel)?;
    ended(cx, tool, exit.success() && !signature.is_empty(), &said)?;
    let path = cx.work.join(SIGNATURE);
    std::fs::write(&path, signature).map_err(StageError::io("write", &path))?;
    Ok(path)
}

/// Puts what a program said into the log, and into the error if it failed.
fn ended(cx: &mut Context<'_>, tool: &str, success: bool, said: &[u8]) -> Result<(), StageError> {
    let text = String::from_utf8_lossy(said);
    let text = text.trim_end();
    cx.note(text);
    if success {
        return Ok(());
    }
    if cx.cancel.is_cancelled() {
        return Err(StageError::Cancelled);
    }
    let key = match name_of(cx.view.get("Key")) {
        Some(key) => format!("the key `{key}` (Key=)"),
        None => "the default key (Key= names another)".to_owned(),
    };
    let told = text.lines().rev().take(2).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("; ");
    let told = if told.is_empty() { "it said nothing" } else { told.as_str() };
    Err(StageError::Other(format!("{tool} can't sign SHA256SUMS with {key}: {told}")))
}

/// The name of a key. One that is a file too keeps the name that the user wrote, as far as that is known.
fn name_of(key: &Value) -> Option<String> {
    match key {
        Value::Path(path) => path.file_name().map(|name| name.to_string_lossy().into_owned()),
        other => other.as_text().filter(|text| !text.is_empty()).map(str::to_owned),
    }
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// GnuPG's directory: `$GNUPGHOME` of `Environment=`, else of this program's own environment, else `~/.gnupg`.
fn home(environment: &Value) -> Option<PathBuf> {
    let set = environment.field("GNUPGHOME").and_then(Value::as_text).map(PathBuf::from);
    let own = || variable("GNUPGHOME").or_else(|| variable("HOME").map(|home| home.join(".gnupg")));
    set.filter(|path| path.is_absolute()).or_else(own)
}

/// What stands in a key of the graph for whoever signs an image: whose keys could, and what decides among them.
///
/// - GnuPG with a whole fingerprint as `Key=`: that. Else the fingerprints and names of all keys in the keyring, which
///   secret keys there are (by names of files, which follow from the public parts), and `gpg.conf`.
/// - Another program: fingerprints and names of the keys in the file. Of a file that can't be read as keys its size and
///   times, so that nothing of a secret enters.
///
/// # Errors
/// Why a file that is there can't be read.
pub fn identity(image: &Image) -> Result<Digest, String> {
    let mut encoder = Encoder::new("mkosi.signer", 1);
    let key = image.get("Key");
    if image.text("OpenPGPTool").is_some_and(|tool| tool != GPG) {
        if let Value::Path(path) = key
            && let Some(bytes) = read(path)?
            && !openpgp::identify(&bytes, true, encoder.str("file"))
        {
            let meta = path.metadata().map_err(|error| format!("can't look at {}: {error}", path.display()))?;
            for number in [meta.ino(), meta.size(), meta.ctime().cast_unsigned(), meta.ctime_nsec().cast_unsigned()] {
                encoder.number(number);
            }
        }
        return Ok(encoder.finish());
    }
    if let Some(fingerprint) = name_of(key).as_deref().and_then(openpgp::fingerprint) {
        return Ok(encoder.str("fingerprint").str(&fingerprint).finish());
    }
    let Some(home) = home(image.get("Environment")) else { return Ok(encoder.finish()) };
    for name in KEYRINGS {
        if let Some(bytes) = read(&home.join(name))? {
            openpgp::identify(&bytes, false, encoder.str(name));
        }
    }
    if let Some(bytes) = read(&home.join(PREFERENCES))? {
        encoder.str(PREFERENCES).bytes(&bytes);
    }
    let entries = std::fs::read_dir(home.join(SECRET)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| name.ends_with(".key"));
    names.sort();
    encoder.str(SECRET).list(names.len());
    for name in names {
        encoder.str(&name);
    }
    Ok(encoder.finish())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(format!("can't read {}: {error}", path.display())),
    }
}
