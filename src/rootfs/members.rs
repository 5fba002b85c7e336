//! Reads the members of a tar archive: ustar, GNU and PAX.
//!
//! The `tar` crate decodes the headers. Its own iterator takes PAX records line by line, but the value of an extended
//! attribute may hold any byte (POSIX.1-2001 pax, "pax Extended Header": records are read by their length), so the
//! walk from member to member is done here.

use std::collections::BTreeMap;
use std::io::{self, Read};

use tar::{EntryType, Header};

use super::sparse::Sparse;

/// PAX records by name.
pub(super) type Records = BTreeMap<Vec<u8>, Vec<u8>>;

const BLOCK: u64 = 512;
/// Extended headers and long names are read into memory, so there has to be an end to them.
const MAX_EXTENSION: u64 = 16 << 20;

/// One member; its data, if it has any, comes next from the archive.
pub(super) struct Member {
    pub(super) header: Header,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) records: Records,
    pub(super) sparse: Option<Sparse>,
}

/// An archive at some place in it.
pub(super) struct Members<R> {
    reader: R,
    /// What is left of the current member's data, and then of its last block.
    data: u64,
    padding: u64,
    global: Records,
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

impl<R: Read> Members<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, data: 0, padding: 0, global: Records::new() }
    }

    /// The next member; `None` at the archive's end. What is left of the last one's data is skipped.
    pub(super) fn next(&mut self) -> io::Result<Option<Member>> {
        let mut records = self.global.clone();
        let mut long_name = None;
        let mut long_link = None;
        loop {
            let Some(header) = self.header()? else { return Ok(None) };
            let size = header.entry_size()?;
            match header.entry_type() {
                EntryType::XHeader => parse_records(&self.extension(size)?, &mut records)?,
                EntryType::XGlobalHeader => {
                    let mut global = std::mem::take(&mut self.global);
                    parse_records(&self.extension(size)?, &mut global)?;
                    records.extend(global.clone());
                    self.global = global;
                }
                EntryType::GNULongName => long_name = Some(cut(self.extension(size)?)),
                EntryType::GNULongLink => long_link = Some(cut(self.extension(size)?)),
                kind => {
                    let mut sparse = Sparse::from_records(&records)?;
                    if kind.is_gnu_sparse() {
                        sparse = Some(Sparse::from_header(&header, &mut self.reader)?);
                    }
                    // A link has no data, whatever size it states.
                    let has_data = !matches!(
                        kind,
                        EntryType::Link
                            | EntryType::Symlink
                            | EntryType::Char
                            | EntryType::Block
                            | EntryType::Directory
                            | EntryType::Fifo
                    );
                    let size = match records.get(b"size".as_slice()) {
                        Some(text) => number(text).ok_or_else(|| invalid("its size is no number"))?,
                        None => size,
                    };
                    self.begin(if has_data { size } else { 0 });
                    let pick = |record: &str, long: Option<Vec<u8>>, plain: Vec<u8>| {
                        records.get(record.as_bytes()).cloned().or(long).unwrap_or(plain)
                    };
                    let real = sparse.as_ref().and_then(|sparse| sparse.name.clone());
                    let name = real.unwrap_or_else(|| pick("path", long_name, header.path_bytes().to_vec()));
                    let plain_link = header.link_name_bytes().map(|link| link.to_vec()).unwrap_or_default();
                    let link = pick("linkpath", long_link, plain_link);
                    return Ok(Some(Member { name, link, header, records, sparse }));
                }
            }
        }
    }

    /// The next header block that isn't empty.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let left = self.data + self.padding;
        (self.data, self.padding) = (0, 0);
        if io::copy(&mut (&mut self.reader).take(left), &mut io::sink())? != left {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < bytes.len() {
            match self.reader.read(bytes.get_mut(filled..).unwrap_or_default()) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let sum: u32 = bytes
            .iter()
            .enumerate()
            .map(|(index, byte)| if (148..156).contains(&index) { 32 } else { u32::from(*byte) })
            .sum();
        if header.cksum()? != sum {
            return Err(invalid("it is no tar archive, or damaged: a header's checksum is wrong"));
        }
        Ok(Some(header))
    }

    fn begin(&mut self, size: u64) {
        self.data = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn extension(&mut self, size: u64) -> io::Result<Vec<u8>> {
        if size > MAX_EXTENSION {
            return Err(invalid("an extended header of more than 16 MiB"));
        }
        self.begin(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The data of the current member; an archive that ends before it does is an error.
impl<R: Read> Read for Members<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        match self.reader.read(buffer.get_mut(..wanted).unwrap_or_default())? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.data -= count as u64;
                Ok(count)
            }
        }
    }
}

fn cut(mut name: Vec<u8>) -> Vec<u8> {
    if let Some(end) = name.iter().position(|byte| *byte == 0) {
        name.truncate(end);
    }
    name
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Reads `LENGTH KEY=VALUE\n` records. An empty value takes a record back.
fn parse_records(mut bytes: &[u8], records: &mut Records) -> io::Result<()> {
    let damaged = || invalid("a damaged extended header");
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
        let length = bytes.get(..space).and_then(number).and_then(|n| usize::try_from(n).ok()).ok_or_else(damaged)?;
        let record = bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(damaged)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
        let (key, value) = record.split_at(equals);
        match value.get(1..).unwrap_or_default() {
            [] => records.remove(key),
            value => records.insert(key.to_vec(), value.to_vec()),
        };
        bytes = bytes.get(length..).ok_or_else(damaged)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_are_read_by_their_length() {
        let mut records = Records::new();
        parse_records(b"12 a=\n1 b=\n\n8 c=\xff\0x\n", &mut records).unwrap();
        assert_eq!(records[b"a".as_slice()], b"\n1 b=\n");
        assert_eq!(records[b"c".as_slice()], b"\xff\0x");
        for bad in [&b"x a=b\n"[..], b"5 a=b\n", b"60 a=b\n", b"4 ab\n", b"1 \n", b"6 a=b "] {
            assert!(parse_records(bad, &mut records).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn nonsense_is_an_error_and_never_a_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..2048),
            kind in proptest::sample::select(b"0xgLKS15".to_vec()),
            size in 0u64..2000,
        ) {
            let mut header = Header::new_gnu();
            header.set_entry_type(EntryType::new(kind));
            header.set_size(size);
            header.set_cksum();
            let archive = [header.as_bytes().as_slice(), &bytes].concat();
            let mut members = Members::new(archive.as_slice());
            while let Ok(Some(_)) = members.next() {}
        }
    }
}
