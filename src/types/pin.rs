//! PINs in the names of keys: they are for the program that signs, and for no log, key or record.

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
}
