//! Hashes of passwords (crypt(5)), which take long enough that guesses are dear.

/// SHA-512 crypt with the usual number of rounds. Of the salt at most 16 characters count.
pub fn sha512_crypt(password: &str, salt: &str) -> String {
    let hash = sha_crypt::sha512_crypt_b64(password.as_bytes(), salt.as_bytes(), &sha_crypt::Sha512Params::default());
    // The default number of rounds can't be out of range, and a hash without it is no hash.
    hash.map(|hash| format!("$6${salt}${hash}")).unwrap_or_else(|_| "!".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_have_the_salt_that_they_are_given() {
        let (one, other) = (sha512_crypt("secret", "0123456789abcdef"), sha512_crypt("secret", "fedcba9876543210"));
        assert!(one.starts_with("$6$0123456789abcdef$"), "{one}");
        assert_ne!(one.rsplit('$').next(), other.rsplit('$').next());
        assert!(sha_crypt::sha512_check("secret", &one).is_ok());
    }
}
