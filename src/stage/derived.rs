//! What would be drawn at random elsewhere, derived from the layers of a stage's tree: equal images are equal, and
//! others have other identifiers.
//!
//! Nothing that is secret goes in: what comes out is read by everybody who has the image.

use super::Context;
use crate::types::{Digest, Encoder};

/// A digest of the stage's tree for one purpose, which `domain` names.
pub fn of_tree(cx: &Context<'_>, domain: &str) -> Digest {
    of_layers(domain, cx.layers.iter().map(|layer| layer.digest))
}

fn of_layers(domain: &str, layers: impl ExactSizeIterator<Item = Digest>) -> Digest {
    let mut encoder = Encoder::new(domain, 1);
    encoder.list(layers.len());
    layers.for_each(|layer| {
        encoder.digest(&layer);
    });
    encoder.finish()
}

/// A version 8 UUID (RFC 9562) of a digest.
pub fn uuid(digest: &Digest) -> String {
    let [mut bytes, _] = halves(digest);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

fn halves(digest: &Digest) -> [[u8; 16]; 2] {
    let mut halves = [[0; 16]; 2];
    for (index, byte) in digest.as_bytes().iter().enumerate() {
        halves[index / 16][index % 16] = *byte;
    }
    halves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_of_digests_are_of_version_8() {
        let uuid = uuid(&Digest::of(b"x"));
        assert_eq!(uuid.len(), 36);
        assert_eq!(uuid.get(14..15), Some("8"));
        assert!(matches!(uuid.as_bytes().get(19), Some(b'8' | b'9' | b'a' | b'b')), "{uuid}");
    }

    #[test]
    fn each_tree_and_purpose_has_its_own() {
        let of = |domain: &str, layers: &[&[u8]]| of_layers(domain, layers.iter().map(|layer| Digest::of(layer)));
        let one = of("mkosi.seed", &[b"a", b"b"]);
        assert_eq!(one, of("mkosi.seed", &[b"a", b"b"]));
        assert_ne!(one, of("mkosi.seed", &[b"b", b"a"]));
        assert_ne!(one, of("mkosi.seed", &[b"a"]));
        assert_ne!(one, of("mkosi.machine-id", &[b"a", b"b"]));
    }
}
