//! Checks a signed `InRelease` file (RFC 9580, section 7) against a keyring. Knows nothing of what the file says.

use std::io::Cursor;
use std::time::{SystemTime, UNIX_EPOCH};

use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType};
use pgp::types::{KeyDetails, Tag};

/// The keys that sign Debian's archive, from the package debian-archive-keyring: a host without one has to begin
/// somewhere.
pub(super) const DEBIAN_KEYRING: &[u8] = include_bytes!("debian-archive-keyring.pgp");

/// The text that a valid key of the keyring signed.
///
/// # Errors
/// Why nothing of the file can be trusted, in words.
pub(super) fn verified(message: &str, keyring: &[u8]) -> Result<String, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    verified_at(message, keyring, now)
}

fn verified_at(message: &str, keyring: &[u8], now: u64) -> Result<String, String> {
    let (message, _) =
        CleartextSignedMessage::from_string(message).map_err(|error| format!("it is no signed text ({error})"))?;
    let keys: Vec<SignedPublicKey> = SignedPublicKey::from_bytes_many(Cursor::new(keyring))
        .map_err(|error| format!("the keyring can't be read ({error})"))?
        .filter_map(Result::ok)
        .collect();
    let text = message.signed_text();
    let mut why = "no key of the keyring made any of its signatures".to_owned();
    for signature in message.signatures() {
        for key in &keys {
            match signed_by(signature, key, &text, now) {
                Some(Ok(())) => return Ok(text.replace("\r\n", "\n")),
                Some(Err(reason)) => why = reason,
                None => {}
            }
        }
    }
    Err(why)
}

/// Whether a certificate made a signature: nothing if it did not.
fn signed_by(signature: &Signature, key: &SignedPublicKey, text: &str, now: u64) -> Option<Result<(), String>> {
    let primary = &key.primary_key;
    let made = signature.verify(primary, text.as_bytes()).is_ok();
    let subkey = key.public_subkeys.iter().find(|subkey| signature.verify(&subkey.key, text.as_bytes()).is_ok());
    let name = || primary.fingerprint().to_string();
    if !made && subkey.is_none() {
        return None;
    }
    Some((|| {
        if !key.details.revocation_signatures.is_empty() {
            return Err(format!("the key {} that signed it was revoked", name()));
        }
        let own = key.details.users.iter().flat_map(|user| {
            let certifies =
                |signature: &&Signature| signature.verify_certification(primary, Tag::UserId, &user.id).is_ok();
            user.signatures.iter().filter(certifies).collect::<Vec<_>>()
        });
        let direct = key.details.direct_signatures.iter().filter(|signature| signature.verify_key(primary).is_ok());
        let newest = own.chain(direct).max_by_key(|signature| signature.created().map(|time| time.as_secs()));
        let newest = newest.ok_or_else(|| format!("the key {} does not vouch for itself", name()))?;
        if expired(primary.created_at().as_secs(), newest, now) {
            return Err(format!("the key {} that signed it has expired", name()));
        }
        if let Some(subkey) = subkey.filter(|_| !made) {
            let of_type = |wanted: SignatureType| subkey.signatures.iter().filter(move |s| s.typ() == Some(wanted));
            let genuine = |signature: &&Signature| signature.verify_subkey_binding(primary, &subkey.key).is_ok();
            if of_type(SignatureType::SubkeyRevocation).next().is_some() {
                return Err(format!("a key of {} that signed it was revoked", name()));
            }
            let bindings = of_type(SignatureType::SubkeyBinding).filter(genuine);
            let newest = bindings.max_by_key(|signature| signature.created().map(|time| time.as_secs()));
            let newest = newest.ok_or_else(|| format!("a key that signed it does not belong to {}", name()))?;
            // A key that may sign must agree to belong to the certificate (RFC 9580, 5.2.1.9).
            let agrees = newest
                .embedded_signature()
                .is_some_and(|back| back.verify_primary_key_binding(&subkey.key, primary).is_ok());
            if !newest.key_flags().sign() || !agrees {
                return Err(format!("a key of {} that signed it may not sign", name()));
            }
            if expired(subkey.key.created_at().as_secs(), newest, now) {
                return Err(format!("a key of {} that signed it has expired", name()));
            }
        }
        let created = signature.created().map_or(0, |time| u64::from(time.as_secs()));
        let lifetime = signature.signature_expiration_time().map_or(0, |time| u64::from(time.as_secs()));
        if lifetime != 0 && created + lifetime < now {
            return Err("its signature has expired".to_owned());
        }
        match signature.hash_alg() {
            Some(HashAlgorithm::Sha256 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512) => Ok(()),
            _ => Err("its signature is of a hash that is too weak".to_owned()),
        }
    })())
}

/// Whether a key that was made at `created` is over by its newest own signature. A lifetime of 0 has no end.
fn expired(created: u32, own: &Signature, now: u64) -> bool {
    let lifetime = own.key_expiration_time().map_or(0, |time| u64::from(time.as_secs()));
    lifetime != 0 && u64::from(created) + lifetime < now
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A throw-away key in `home`, and what gpg says to `arguments` there.
    fn gpg(home: &std::path::Path, arguments: &[&str], input: &str) -> Vec<u8> {
        use std::io::Write as _;
        let mut child = Command::new("gpg")
            .args([
                "--homedir",
                &home.display().to_string(),
                "--batch",
                "--yes",
                "--pinentry-mode=loopback",
                "--passphrase=",
            ])
            .args(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("gpg is needed: install the package gpg");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "gpg {arguments:?}");
        output.stdout
    }

    fn signed(algorithm: &str, usage: &str, expire: &str) -> (Vec<u8>, String) {
        use std::os::unix::fs::PermissionsExt as _;
        let home = tempfile::tempdir().unwrap();
        std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        gpg(home.path(), &["--quick-gen-key", "test", algorithm, usage, expire], "");
        if usage == "cert" {
            let list = String::from_utf8(gpg(home.path(), &["--list-keys", "--with-colons"], "")).unwrap();
            let print =
                list.lines().find_map(|l| l.strip_prefix("fpr:::::::::")).unwrap().trim_end_matches(':').to_owned();
            gpg(home.path(), &["--quick-add-key", &print, algorithm, "sign", expire], "");
        }
        let text = gpg(home.path(), &["--clearsign"], "Suite: x\n- dashed\n  indented\n");
        let key = gpg(home.path(), &["--export"], "");
        gpg(home.path(), &["--list-keys"], "");
        let _ =
            Command::new("gpgconf").args(["--homedir", &home.path().display().to_string(), "--kill", "all"]).status();
        (key, String::from_utf8(text).unwrap())
    }

    fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
    }

    #[test]
    fn a_key_or_its_subkey_signs() {
        for (algorithm, usage) in [("rsa2048", "sign"), ("ed25519", "sign"), ("ed25519", "cert")] {
            let (key, text) = signed(algorithm, usage, "0");
            assert_eq!(
                verified(&text, &key).unwrap().trim_end(),
                "Suite: x\n- dashed\n  indented",
                "{algorithm} {usage}"
            );
            let error = verified(&text.replace("Suite: x", "Suite: y"), &key).unwrap_err();
            assert!(error.contains("no key of the keyring"), "{error}");
            assert!(verified(&text, DEBIAN_KEYRING).is_err());
        }
    }

    #[test]
    fn a_key_expires() {
        for usage in ["sign", "cert"] {
            let (key, text) = signed("ed25519", usage, "2d");
            assert!(verified_at(&text, &key, now()).is_ok());
            let error = verified_at(&text, &key, now() + 3 * 86400).unwrap_err();
            assert!(error.contains("has expired"), "{error}");
        }
    }

    #[test]
    fn what_is_no_signed_text_is_refused() {
        for text in ["", "Suite: x\n", "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nx\n"] {
            assert!(verified(text, DEBIAN_KEYRING).is_err(), "{text}");
        }
    }

    #[test]
    fn debians_keys_can_be_read() {
        let keys: Vec<_> = SignedPublicKey::from_bytes_many(Cursor::new(DEBIAN_KEYRING)).unwrap().collect();
        assert!(keys.len() >= 6 && keys.iter().all(Result::is_ok), "{}", keys.len());
    }
}
