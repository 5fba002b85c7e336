//! The signature of the measurements in a unified kernel image, and whether the public key beside it fits (the sections
//! `.pcrsig` and `.pcrpkey`: UAPI Group specification UKI, systemd-measure(1)).

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::sha2::{Digest as _, Sha256};
use rsa::{Pkcs1v15Sign, RsaPublicKey};
use serde_json::Value as Json;

use super::{Result, pe};

/// Whether the first signature of measurements in the image is one by its public key. Nothing where there is none that
/// can be checked: keys of other kinds than RSA are not known here.
///
/// # Errors
/// The image can't be read.
pub fn fits(image: &Path) -> Result<Option<bool>> {
    let (Some(key), Some(signatures)) = (pe::section(image, ".pcrpkey")?, pe::section(image, ".pcrsig")?) else {
        return Ok(None);
    };
    Ok(signed_by(&key, &signatures))
}

fn signed_by(key: &[u8], signatures: &[u8]) -> Option<bool> {
    let key = RsaPublicKey::from_public_key_pem(String::from_utf8_lossy(key).trim_end_matches('\0').trim()).ok()?;
    let json: Json = serde_json::from_slice(signatures.split(|byte| *byte == 0).next()?).ok()?;
    let first = json.as_object()?.values().next()?.as_array()?.first()?;
    let policy = hex(first.get("pol")?.as_str()?)?;
    let signature = BASE64_STANDARD.decode(first.get("sig")?.as_str()?).ok()?;
    Some(key.verify(Pkcs1v15Sign::new::<Sha256>(), &Sha256::digest(policy), &signature).is_ok())
}

fn hex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with `openssl genrsa 1024` and `openssl dgst -sha256 -sign` over the bytes 00 01 02 03.
    const KEY: &str = "-----BEGIN PUBLIC KEY-----\n\
        MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQC3AJnLTMIC547U/MDlFmzxiJgd\n\
        MdpXgMRPXogW+Pya6VKepo47VIv++DeBmHt6Uj/H7SghJQzBELZxpBiOahn1A/w9\n\
        QjvWQPYm0jHlzKDPVXk7csE5mJKL305juP1y9wnli9/VW1eYzc261hnI8MqetmTo\n\
        DG1eq6tfZGTJbfh67QIDAQAB\n\
        -----END PUBLIC KEY-----";
    const SIGNATURE: &str = "Fx76opC0HjdkvaGIALdsCx3HR9GX4rZ0RaAMlB4UnTBSpVBmRYA2iaobgClgyun3pVaAGAS/mDtq7rBk9mrjBf5EpJR79KZy7L1P\
        3P6MGhDEIsb1rYhEvaqWSGidGI4g1TXBSuIIZf32d0qjEocCUJ8d9K7KM9PrLdLu8D9oHnc=";

    #[test]
    fn a_signature_is_of_one_key_and_one_policy() {
        let told = |policy: &str, signature: &str| {
            let json = format!("{{\"sha256\":[{{\"pcrs\":[11],\"pol\":\"{policy}\",\"sig\":\"{signature}\"}}]}}\0\0");
            signed_by(KEY.as_bytes(), json.as_bytes())
        };
        assert_eq!(told("00010203", SIGNATURE), Some(true));
        assert_eq!(told("00010204", SIGNATURE), Some(false));
        assert_eq!(told("00010203", "AAAA"), Some(false));
        assert_eq!(told("0001020", SIGNATURE), None);
        assert_eq!(signed_by(b"", b"{}"), None);
        assert_eq!(signed_by(KEY.as_bytes(), b"{\"sha256\":[{\"pol\":\"00\"}]}"), None);
    }
}
