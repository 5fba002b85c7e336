//! Names of keys that are URIs of PKCS#11 (RFC 7512), and the PINs in them: these are for the program that signs, and
//! for no log, key or record.

use std::path::PathBuf;

/// What such a name starts with.
const SCHEME: &str = "pkcs11:";

/// A text without the PINs of PKCS#11 URIs (RFC 7512, `pin-value`) in it.
pub fn without_pins(text: &str) -> String {
    const PIN: &str = "pin-value=";
    let mut parts = text.split(PIN);
    let mut result = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || ";&'\"`,".contains(c)).unwrap_or(part.len());
        result.push_str(PIN);
        result.push_str("***");
        result.push_str(part.get(end..).unwrap_or_default());
    }
    result
}

/// Which key a PKCS#11 URI names, however it is unlocked: the URI without its PIN and without where that is read from.
/// Nothing for what is no such URI.
pub fn key_of_uri(text: &str) -> Option<String> {
    let rest = text.strip_prefix(SCHEME)?;
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    let kept = |part: &str, separator: char| {
        let unlocks = |attribute: &&str| ["pin-value=", "pin-source="].iter().any(|name| attribute.starts_with(name));
        let kept: Vec<&str> = part.split(separator).filter(|attribute| !unlocks(attribute)).collect();
        kept.join(&separator.to_string())
    };
    let (path, query) = (kept(path, ';'), kept(query, '&'));
    let mark = if query.is_empty() { "" } else { "?" };
    Some(format!("{SCHEME}{path}{mark}{query}"))
}

/// The files that a PKCS#11 URI names: the one with the PIN (`pin-source`) and the module (`module-path`).
pub fn files_of_uri(text: &str) -> Vec<PathBuf> {
    let Some(rest) = text.strip_prefix(SCHEME) else { return Vec::new() };
    let file = |attribute: &str| {
        let (name, value) = attribute.split_once('=')?;
        let value = unescaped(value);
        let path = match name {
            "pin-source" => value.strip_prefix("file:").map(|path| path.strip_prefix("//").unwrap_or(path)),
            "module-path" => None,
            _ => return None,
        };
        let path = path.unwrap_or(&value);
        path.starts_with('/').then(|| PathBuf::from(path))
    };
    rest.split([';', '?', '&']).filter_map(file).collect()
}

/// The text behind percent-encoding (RFC 3986, section 2.1).
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_left_out() {
        assert_eq!(
            without_pins("a pkcs11:object=x;pin-value=1234;type=key b"),
            "a pkcs11:object=x;pin-value=***;type=key b"
        );
        assert_eq!(without_pins("pin-value=12 pin-value=34"), "pin-value=*** pin-value=***");
        assert_eq!(without_pins("pkcs11:object=x?pin-value=12&x=y"), "pkcs11:object=x?pin-value=***&x=y");
        assert_eq!(without_pins("nothing"), "nothing");
    }

    #[test]
    fn a_key_is_the_same_however_it_is_unlocked() {
        let bare = "pkcs11:token=a;object=x";
        for end in ["", ";pin-value=1", "?pin-value=2", "?pin-source=file:/p", "?pin-value=1&pin-source=/p"] {
            assert_eq!(key_of_uri(&format!("{bare}{end}")).as_deref(), Some(bare), "{end}");
        }
        let more = "pkcs11:token=a;pin-value=1;object=y?module-name=m&pin-value=3";
        assert_eq!(key_of_uri(more).as_deref(), Some("pkcs11:token=a;object=y?module-name=m"));
        assert_eq!(key_of_uri("/a/file;pin-value=1"), None);
    }

    #[test]
    fn files_that_a_name_needs() {
        for (text, wanted) in [
            ("pkcs11:object=x?pin-source=file:/a%20b", vec!["/a b"]),
            ("pkcs11:object=x?pin-source=file:///a&module-path=/m.so", vec!["/a", "/m.so"]),
            ("pkcs11:object=x;pin-source=/a", vec!["/a"]),
            ("pkcs11:object=x?pin-source=%7c/bin/pin", vec![]),
            ("pkcs11:object=x?pin-value=/a", vec![]),
            ("pkcs11:object=%zz%2?pin-source=/100%", vec!["/100%"]),
            ("slot_0-id_01", vec![]),
        ] {
            assert_eq!(files_of_uri(text), wanted.into_iter().map(PathBuf::from).collect::<Vec<_>>(), "{text}");
        }
    }
}
