//! The cache that ldconfig(8) writes and ld.so(8) looks libraries up in: the `glibc-ld.so.cache1.1` part of
//! `/etc/ld.so.cache` (`sysdeps/generic/dl-cache.h` of the GNU C library).

use std::collections::HashMap;

/// What the part begins with; in old files another part stands before it.
const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
/// The size of the header: the magic word, two counts, a byte of flags, and what is of no interest here.
const HEADER: usize = 48;
/// The size of an entry: flags, two offsets, a version, and what hardware it is for.
const ENTRY: usize = 24;

/// The paths of libraries by their names, in the order in which ld.so looks at them.
///
/// Entries for better hardware are among them, since all of them count on every machine. Those for other architectures are
/// too: the file itself tells.
pub(super) fn parse(bytes: &[u8]) -> HashMap<String, Vec<String>> {
    let mut paths: HashMap<String, Vec<String>> = HashMap::new();
    let Some(start) = memchr::memmem::find(bytes, MAGIC) else { return paths };
    let part = bytes.get(start..).unwrap_or_default();
    let word = |at: usize| {
        let bytes: [u8; 4] = part.get(at..at.checked_add(4)?)?.try_into().ok()?;
        usize::try_from(u32::from_ne_bytes(bytes)).ok()
    };
    let text = |at: usize| {
        let bytes = part.get(at..)?.split(|byte| *byte == 0).next()?;
        Some(String::from_utf8_lossy(bytes).into_owned())
    };
    for number in 0..word(MAGIC.len()).unwrap_or(0) {
        let at = HEADER.saturating_add(number.saturating_mul(ENTRY));
        let (Some(name), Some(path)) = (word(at.saturating_add(4)), word(at.saturating_add(8))) else { break };
        if let (Some(name), Some(path)) = (text(name), text(path)) {
            paths.entry(name).or_default().push(path);
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_behind_an_old_part_and_damage_is_no_panic() {
        let mut part = MAGIC.to_vec();
        let names = b"libc.so.6\0/lib/libc.so.6\0";
        let word = |number: usize| u32::try_from(number).unwrap().to_ne_bytes();
        part.extend([word(1), word(names.len())].concat());
        part.resize(HEADER, 0);
        let strings = HEADER + ENTRY;
        part.extend([word(0x303), word(strings), word(strings + 10), word(0), word(0), word(0)].concat());
        part.extend(names);
        for old in [&b""[..], b"ld.so-1.7.0\0\0\0\0\0"] {
            let paths = parse(&[old, &part].concat());
            assert_eq!(paths, HashMap::from([("libc.so.6".to_owned(), vec!["/lib/libc.so.6".to_owned()])]));
        }
        for end in 0..part.len() {
            parse(&part[..end]);
        }
        for at in 0..part.len() {
            let mut bad = part.clone();
            bad[at] = 0xff;
            parse(&bad);
        }
    }
}
