//! The canonical encoding under every key and tree digest (specified in `docs/keys.md`).
//!
//! Each value is written as one tag byte, a little-endian 64-bit length and that many bytes, so that no two
//! sequences of values share an encoding. A list is its count and then its items; a map is a list of pairs sorted
//! by key. An encoder starts with a domain, so that digests of different things can never be equal by accident.

use std::collections::BTreeMap;

use super::Digest;

const BYTES: u8 = b'b';
const NUMBER: u8 = b'n';
const DIGEST: u8 = b'd';
const LIST: u8 = b'l';
const MAP: u8 = b'm';

/// Feeds values in the canonical encoding to BLAKE3.
pub struct Encoder {
    hasher: blake3::Hasher,
}

impl Encoder {
    /// Starts an encoding in `domain`: a fixed text that names what is encoded, and `version` of its format.
    pub fn new(domain: &str, version: u64) -> Self {
        let mut encoder = Self { hasher: blake3::Hasher::new() };
        encoder.str(domain).number(version);
        encoder
    }

    fn header(&mut self, tag: u8, length: u64) {
        self.hasher.update(&[tag]);
        self.hasher.update(&length.to_le_bytes());
    }

    /// A byte string.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.header(BYTES, bytes.len() as u64);
        self.hasher.update(bytes);
        self
    }

    /// A text; the same as its UTF-8 bytes.
    pub fn str(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// An unsigned number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.header(NUMBER, 8);
        self.hasher.update(&number.to_le_bytes());
        self
    }

    /// A digest.
    pub fn digest(&mut self, digest: &Digest) -> &mut Self {
        self.header(DIGEST, 32);
        self.hasher.update(digest.as_bytes());
        self
    }

    /// The head of a list of `count` items; the items follow.
    pub fn list(&mut self, count: usize) -> &mut Self {
        self.header(LIST, count as u64);
        self
    }

    /// A map from names to digests, in the order of the names.
    pub fn map(&mut self, map: &BTreeMap<String, Digest>) -> &mut Self {
        self.header(MAP, map.len() as u64);
        for (name, digest) in map {
            self.str(name).digest(digest);
        }
        self
    }

    /// Ends the encoding.
    pub fn finish(&self) -> Digest {
        self.hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boundaries_and_domains_matter() {
        let digest = |f: &dyn Fn(&mut Encoder)| {
            let mut e = Encoder::new("test", 1);
            f(&mut e);
            e.finish()
        };
        let ab_c = digest(&|e| {
            e.str("ab").str("c");
        });
        let a_bc = digest(&|e| {
            e.str("a").str("bc");
        });
        assert_ne!(ab_c, a_bc);
        assert_ne!(
            digest(&|e| {
                e.number(1);
            }),
            digest(&|e| {
                e.bytes(&1u64.to_le_bytes());
            })
        );
        assert_ne!(Encoder::new("a", 1).finish(), Encoder::new("a", 2).finish());
        assert_ne!(Encoder::new("a", 1).finish(), Encoder::new("b", 1).finish());
    }

    #[test]
    fn the_encoding_is_pinned() {
        let mut e = Encoder::new("mkosi.test", 1);
        e.list(2).str("x").number(7).map(&BTreeMap::from([("a".to_owned(), Digest::of(b"1"))]));
        insta::assert_snapshot!(e.finish().hex());
    }
}
