//! What was looked at, apart from what was there; its encodings and the digest of what is there now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Kind;
use crate::types::{Digest, Encoder};

/// What stored shapes begin with; the last byte is the version of the format.
const SHAPE: &[u8; 8] = b"mkosirs\x01";
/// What stored sightings begin with.
const SIGHTING: &[u8; 8] = b"mkosirv\x01";

/// One aspect of a path that can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Aspect {
    /// Whether it is there, what it is, its mode, its size, and a link's target.
    Name,
    /// The names in a directory and what they are.
    List,
    /// A file's content.
    Content,
    /// A file's capabilities.
    Capability,
    /// Everything at and below the path.
    Whole,
}

impl Aspect {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Name, Self::List, Self::Content, Self::Capability, Self::Whole];

    /// Its bit in [`Access::aspects`].
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A path and which of its aspects were looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Access {
    /// The path below the source, empty for the source itself.
    pub path: Vec<u8>,
    /// The bits of the aspects.
    pub aspects: u8,
}

impl Access {
    /// Whether this aspect was looked at.
    pub fn has(&self, aspect: Aspect) -> bool {
        self.aspects & aspect.bit() != 0
    }
}

/// What was looked at of each source, by the input's name; sorted by path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape(pub BTreeMap<String, Vec<Access>>);

impl Shape {
    /// The bytes that a shape is kept as.
    ///
    /// # Errors
    /// Why it can't be encoded, in words.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        postcard::to_extend(self, SHAPE.to_vec()).map_err(|error| error.to_string())
    }

    /// A shape from its bytes; nothing if they are damaged or of another format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes.strip_prefix(SHAPE)?).ok()
    }
}

/// What was there: the digest of each aspect that was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What the path was.
    pub kind: Kind,
    /// By the aspect's place in [`Aspect::ALL`].
    pub digests: [Option<Digest>; 5],
}

impl Seen {
    /// Nothing looked at yet.
    pub fn new(kind: Kind) -> Self {
        Self { kind, digests: [None; 5] }
    }

    /// The digest of an aspect.
    pub fn of(&self, aspect: Aspect) -> Option<Digest> {
        self.digests.get(aspect as usize).copied().flatten()
    }

    /// Sets the digest of an aspect.
    pub fn set(&mut self, aspect: Aspect, digest: Digest) {
        if let Some(place) = self.digests.get_mut(aspect as usize) {
            *place = Some(digest);
        }
    }
}

/// The digest of what was read of one source: what was looked at and what was there.
pub(super) fn digest(accesses: &[Access], seen: &[Seen]) -> Digest {
    let mut encoder = Encoder::new("mkosi.read", 1);
    encoder.list(accesses.len());
    for (access, seen) in accesses.iter().zip(seen) {
        encoder.bytes(&access.path).number(u64::from(access.aspects));
        let digests: Vec<&Digest> = seen.digests.iter().flatten().collect();
        encoder.list(digests.len());
        for digest in digests {
            encoder.digest(digest);
        }
    }
    encoder.finish()
}

/// What was there for a whole shape.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sighting(pub BTreeMap<String, Vec<Seen>>);

/// A sighting as it is kept for explanations: of each digest the first bytes.
type Short = BTreeMap<String, Vec<(Kind, Vec<[u8; 8]>)>>;

impl Sighting {
    /// The digest of what was read of each source, by the input's name.
    pub fn digests(&self, shape: &Shape) -> BTreeMap<String, Digest> {
        let empty = Vec::new();
        let of = |(name, accesses): (&String, &Vec<Access>)| {
            (name.clone(), digest(accesses, self.0.get(name).unwrap_or(&empty)))
        };
        shape.0.iter().map(of).collect()
    }

    fn short(&self) -> Short {
        let first = |digest: &Digest| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(digest.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
            bytes
        };
        let of = |seen: &Seen| (seen.kind, seen.digests.iter().flatten().map(first).collect());
        self.0.iter().map(|(name, seen)| (name.clone(), seen.iter().map(of).collect())).collect()
    }

    /// The bytes that are kept for explanations.
    ///
    /// # Errors
    /// Why it can't be encoded, in words.
    pub fn encode(&self) -> Result<Vec<u8>, String> {
        postcard::to_extend(&self.short(), SIGHTING.to_vec()).map_err(|error| error.to_string())
    }

    /// Where this sighting differs from an earlier one of the same shape, kept as `bytes`: source, path, what it was,
    /// what it is, and the aspects that differ. Nothing if the bytes are damaged.
    pub fn differences<'a>(&self, shape: &'a Shape, bytes: &[u8]) -> Vec<Difference<'a>> {
        let earlier: Option<Short> = bytes.strip_prefix(SIGHTING).and_then(|bytes| postcard::from_bytes(bytes).ok());
        let (Some(earlier), now) = (earlier, self.short()) else { return Vec::new() };
        let mut differences = Vec::new();
        for (source, accesses) in &shape.0 {
            let (Some(earlier), Some(now)) = (earlier.get(source), now.get(source)) else { continue };
            for (access, (was, is)) in accesses.iter().zip(earlier.iter().zip(now)) {
                let aspects = Aspect::ALL.into_iter().filter(|aspect| access.has(*aspect));
                let pairs = aspects.zip(was.1.iter().zip(&is.1));
                let aspects: Vec<Aspect> = pairs.filter(|(_, (was, is))| was != is).map(|(aspect, _)| aspect).collect();
                if !aspects.is_empty() {
                    differences.push(Difference { source, path: &access.path, was: was.0, is: is.0, aspects });
                }
            }
        }
        differences
    }
}

/// One path that is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference<'a> {
    /// The input's name.
    pub source: &'a str,
    /// The path below the source.
    pub path: &'a [u8],
    /// What it was.
    pub was: Kind,
    /// What it is.
    pub is: Kind,
    /// The aspects that differ.
    pub aspects: Vec<Aspect>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "file/BuildSources/00";

    fn access(path: &str, aspects: &[Aspect]) -> Access {
        Access { path: path.as_bytes().to_vec(), aspects: aspects.iter().fold(0, |bits, aspect| bits | aspect.bit()) }
    }

    fn seen(kind: Kind, digests: &[(Aspect, &str)]) -> Seen {
        let mut seen = Seen::new(kind);
        for (aspect, text) in digests {
            seen.set(*aspect, Digest::of(text.as_bytes()));
        }
        seen
    }

    fn shape() -> Shape {
        let accesses = vec![
            access("", &[Aspect::Name, Aspect::List]),
            access("a", &[Aspect::Name, Aspect::Content]),
            access("b", &[Aspect::Name]),
        ];
        Shape(BTreeMap::from([(SOURCE.to_owned(), accesses)]))
    }

    fn sighting(content: &str, b: Kind) -> Sighting {
        let seen = vec![
            seen(Kind::Directory, &[(Aspect::Name, "root"), (Aspect::List, "names")]),
            seen(Kind::File, &[(Aspect::Name, "file"), (Aspect::Content, content)]),
            seen(b, &[(Aspect::Name, if b == Kind::Absent { "absent" } else { "there" })]),
        ];
        Sighting(BTreeMap::from([(SOURCE.to_owned(), seen)]))
    }

    #[test]
    fn the_digest_has_what_was_looked_at_and_what_was_there() {
        let digest = |shape: &Shape, sighting: &Sighting| sighting.digests(shape)[SOURCE];
        let one = digest(&shape(), &sighting("x", Kind::Absent));
        assert_eq!(one, digest(&shape(), &sighting("x", Kind::Absent)));
        assert_ne!(one, digest(&shape(), &sighting("y", Kind::Absent)));
        assert_ne!(one, digest(&shape(), &sighting("x", Kind::File)));
        let mut other = shape();
        other.0.get_mut(SOURCE).unwrap()[2].path = b"c".to_vec();
        assert_ne!(one, digest(&other, &sighting("x", Kind::Absent)));
        insta::assert_snapshot!(one.hex());
    }

    #[test]
    fn shapes_are_read_as_they_were_written() {
        let bytes = shape().encode().unwrap();
        assert_eq!(Shape::decode(&bytes), Some(shape()));
        assert_eq!(Shape::decode(&bytes[1..]), None);
        assert_eq!(Shape::decode(&bytes[..bytes.len() - 3]), None);
    }

    #[test]
    fn differences_name_the_path_and_the_aspect() {
        let shape = shape();
        let bytes = sighting("x", Kind::Absent).encode().unwrap();
        assert_eq!(sighting("x", Kind::Absent).differences(&shape, &bytes), []);
        let found = sighting("y", Kind::File);
        let found = found.differences(&shape, &bytes);
        let all: Vec<_> = found.iter().map(|d| (d.path, d.was, d.is, d.aspects.as_slice())).collect();
        let content: &[Aspect] = &[Aspect::Content];
        let name: &[Aspect] = &[Aspect::Name];
        assert_eq!(all, [(&b"a"[..], Kind::File, Kind::File, content), (&b"b"[..], Kind::Absent, Kind::File, name)]);
        assert_eq!(sighting("y", Kind::File).differences(&shape, b"damaged"), []);
    }
}
