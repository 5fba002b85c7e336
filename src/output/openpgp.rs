//! Who a set of OpenPGP keys stands for (RFC 9580): fingerprints and names, never anything secret. And what GnuPG and
//! programs with the Stateless OpenPGP Command Line Interface are called with to sign a file.
//!
//! Knows nothing of where keys are kept.

use std::io::{BufRead, BufReader};

use pgp::armor::Dearmor;
use pgp::packet::{Packet, PacketParser};
use pgp::types::KeyDetails;

use crate::types::Encoder;

/// What a keybox file begins with a blob of (GnuPG's `kbx/keybox-blob.c`): its length in 4 bytes, most significant
/// first, and then its type. Of a blob with an OpenPGP certificate the bytes from 8 and 12 are place and length of that.
const CERTIFICATE: u8 = 2;
const KEYBOX: u8 = 1;

/// Whether `Key=` is a whole fingerprint, which names one key for good; GnuPG allows spaces, `0x` and `!`.
pub fn fingerprint(key: &str) -> Option<String> {
    let digits: String = key.trim().trim_start_matches("0x").chars().filter(|c| *c != ' ').collect();
    let digits = digits.to_uppercase();
    let plain = digits.trim_end_matches('!');
    // Versions 4 and 6 (RFC 9580, section 5.5.4).
    ([40, 64].contains(&plain.len()) && plain.chars().all(|c| c.is_ascii_hexdigit())).then_some(digits)
}

/// Adds to `encoder` whose the keys in `bytes` are: those of a file of keys, armored or not, or of a keybox. What can't
/// be read as keys counts by its bytes, unless it may be secret.
pub fn identify(bytes: &[u8], secret: bool, encoder: &mut Encoder) -> bool {
    let blobs = keybox(bytes);
    let blobs = if blobs.is_empty() { vec![bytes] } else { blobs };
    let mut known = Vec::new();
    for blob in blobs {
        match names(blob) {
            Some(names) => known.extend(names),
            None if secret => return false,
            None => known.push(vec![blob.to_vec()]),
        }
    }
    known.sort();
    encoder.list(known.len());
    for names in known {
        encoder.list(names.len());
        for name in names {
            encoder.bytes(&name);
        }
    }
    true
}

/// The certificates in a keybox; none if it is none.
fn keybox(bytes: &[u8]) -> Vec<&[u8]> {
    let mut certificates = Vec::new();
    let mut rest = bytes;
    while let Some(length) = number(rest, 0).filter(|length| *length > 5 && *length <= rest.len()) {
        let (blob, after) = rest.split_at(length);
        match blob.get(4) {
            Some(&CERTIFICATE) => {
                let place = number(blob, 8).zip(number(blob, 12));
                certificates.extend(place.and_then(|(at, length)| blob.get(at..at.checked_add(length)?)));
            }
            Some(&KEYBOX) => {}
            _ if certificates.is_empty() => return Vec::new(),
            _ => {}
        }
        rest = after;
    }
    certificates
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four: [u8; 4] = bytes.get(at..at.checked_add(4)?)?.try_into().ok()?;
    usize::try_from(u32::from_be_bytes(four)).ok()
}

/// Of each key its fingerprint, those of its subkeys, and its user ids, sorted. Nothing if there is something else.
/// Packets are looked at one by one, since a keybox has packets of GnuPG's own between them.
fn names(bytes: &[u8]) -> Option<Vec<Vec<Vec<u8>>>> {
    let input: Box<dyn BufRead> = match bytes.starts_with(b"-----BEGIN") {
        true => Box::new(BufReader::new(Dearmor::new(bytes))),
        false => Box::new(bytes),
    };
    let mut all: Vec<Vec<Vec<u8>>> = Vec::new();
    for packet in PacketParser::new(input) {
        let name = match packet.ok()? {
            Packet::PublicKey(key) => {
                all.push(Vec::new());
                key.fingerprint().as_bytes().to_vec()
            }
            Packet::SecretKey(key) => {
                all.push(Vec::new());
                key.fingerprint().as_bytes().to_vec()
            }
            Packet::PublicSubkey(key) => key.fingerprint().as_bytes().to_vec(),
            Packet::SecretSubkey(key) => key.fingerprint().as_bytes().to_vec(),
            Packet::UserId(user) => user.id().to_vec(),
            Packet::Signature(_) | Packet::UserAttribute(_) | Packet::Trust(_) | Packet::Marker(_) => continue,
            _ => return None,
        };
        all.last_mut()?.push(name);
    }
    for names in &mut all {
        names.sort();
    }
    (!all.is_empty()).then_some(all)
}

/// How GnuPG is called to sign the file `input` into the file `output`, with the key of this name or the first one.
/// `--local-user`, since a key that is not there makes `--default-key` take another one.
pub fn gpg_arguments(program: &str, key: Option<&str>, input: &str, output: &str) -> Vec<String> {
    let mut argv: Vec<String> = [program, "--batch", "--no-tty", "--yes"].map(str::to_owned).to_vec();
    if let Some(key) = key {
        argv.extend(["--local-user".to_owned(), key.to_owned()]);
    }
    argv.extend(["--output", output, "--detach-sign", input].map(str::to_owned));
    argv
}

/// How a program of the stateless interface is called to sign its standard input with the key in a file.
pub fn sop_arguments(program: &str, key: &str) -> Vec<String> {
    [program, "sign", key].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::run;
    use super::*;
    use crate::types::Digest;

    fn identity(path: &Path, secret: bool) -> Option<Digest> {
        let mut encoder = Encoder::new("test", 1);
        identify(&std::fs::read(path).unwrap(), secret, &mut encoder).then(|| encoder.finish())
    }

    #[test]
    fn keys_are_told_by_who_they_are() {
        // A socket's name has to be short.
        let home = tempfile::Builder::new().tempdir_in("/tmp").unwrap();
        let dir = home.path();
        let gpg = |script: &str| run(dir, &format!("export GNUPGHOME=$PWD; chmod 700 .; {script}"));
        gpg("gpg --batch --quiet --passphrase '' --quick-gen-key a@example.org ed25519 sign never");
        gpg("gpg --batch --export > public; gpg --batch --export-secret-keys > secret; \
             gpg --batch --armor --export-secret-keys > armored");
        let public = identity(&dir.join("public"), false).unwrap();
        for name in ["pubring.kbx", "secret", "armored"] {
            assert_eq!(identity(&dir.join(name), true), Some(public), "{name}");
        }
        // The same key with another signature is the same, and a second key is not.
        gpg(
            "gpg --batch --quiet --quick-set-expire $(gpg --list-keys --with-colons | awk -F: '/^fpr/{print $10; exit}') 2y",
        );
        assert_eq!(identity(&dir.join("pubring.kbx"), false), Some(public));
        gpg("gpg --batch --quiet --passphrase '' --quick-gen-key b@example.org ed25519 sign never");
        let two = identity(&dir.join("pubring.kbx"), false).unwrap();
        assert_ne!(two, public);
        gpg("gpg --batch --export > public; gpgconf --kill gpg-agent");
        assert_eq!(identity(&dir.join("public"), false), Some(two));
    }

    #[test]
    fn what_is_no_key_counts_by_its_bytes_unless_it_may_be_secret() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let mut seen = Vec::new();
        for bytes in [&b""[..], b"text", &[0, 0, 0, 6, 2, 1, 0, 0, 0, 255], &[0, 0, 0, 1, 1], &[255; 40]] {
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(identity(&path, true), None);
            seen.extend(identity(&path, false));
        }
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn a_whole_fingerprint_is_told_from_a_name() {
        let forty = "0123456789abcdef0123456789ABCDEF01234567";
        assert_eq!(fingerprint(forty).as_deref(), Some("0123456789ABCDEF0123456789ABCDEF01234567"));
        assert_eq!(fingerprint(&format!("0x{forty}")), fingerprint(forty));
        assert_ne!(fingerprint(&format!("{forty}!")), fingerprint(forty));
        for text in ["", "a@example.org", "01234567", &forty[1..], "g123456789abcdef0123456789ABCDEF01234567"] {
            assert_eq!(fingerprint(text), None, "{text}");
        }
    }
}
