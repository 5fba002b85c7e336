//! Sparse files in archives as GNU tar writes them: the old GNU format, and 0.1 and 1.0 in PAX archives (GNU tar
//! manual, "Sparse Formats").

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

use tar::{GnuExtSparseHeader, Header};

/// What the headers of a sparse member say.
#[derive(Debug)]
pub(super) struct Sparse {
    /// The member's real name.
    pub(super) name: Option<Vec<u8>>,
    size: u64,
    /// The map, where it stands in the headers; else it stands before the data.
    map: Option<Vec<(u64, u64)>>,
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the sparse file is damaged: {reason}"))
}

fn number(bytes: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| invalid("a number is needed"))
}

impl Sparse {
    /// Reads the PAX records of a member; `None` if it isn't sparse in one of these formats.
    pub(super) fn from_records(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> io::Result<Option<Self>> {
        let get = |key: &str| records.get(key.as_bytes());
        if !records.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Ok(None);
        }
        let size = get("GNU.sparse.realsize").or(get("GNU.sparse.size")).ok_or_else(|| invalid("no size"))?;
        let name = get("GNU.sparse.name").cloned();
        let map = match (get("GNU.sparse.major").map(Vec::as_slice), get("GNU.sparse.map")) {
            (Some(b"1"), _) => None,
            (None, Some(map)) => {
                let numbers = map.split(|byte| *byte == b',').map(number).collect::<io::Result<Vec<u64>>>()?;
                Some(pairs(&numbers)?)
            }
            _ => return Err(invalid("this version of the format is not known; write it with a newer GNU tar")),
        };
        Ok(Some(Self { name, size: number(size)?, map }))
    }

    /// Reads the old format: the map stands in the header and in the blocks that follow it.
    pub(super) fn from_header(header: &Header, reader: &mut impl Read) -> io::Result<Self> {
        let gnu = header.as_gnu().ok_or_else(|| invalid("it needs a GNU header"))?;
        let mut map = Vec::new();
        for part in gnu.sparse.iter().filter(|part| !part.is_empty()) {
            map.push((part.offset()?, part.length()?));
        }
        let mut more = gnu.is_extended();
        while more {
            let mut next = GnuExtSparseHeader::new();
            reader.read_exact(next.as_mut_bytes())?;
            for part in next.sparse.iter().filter(|part| !part.is_empty()) {
                map.push((part.offset()?, part.length()?));
            }
            more = next.is_extended();
        }
        Ok(Self { name: None, size: gnu.real_size()?, map: Some(map) })
    }

    /// Writes the member's content from its data in the archive; what the map leaves out stays a hole.
    pub(super) fn expand(&self, data: &mut impl Read, output: &mut File) -> io::Result<()> {
        let map = match &self.map {
            Some(map) => map.clone(),
            None => read_map(data)?,
        };
        for (offset, length) in map {
            if offset.checked_add(length).is_none_or(|end| end > self.size) {
                return Err(invalid("data behind its end"));
            }
            output.seek(SeekFrom::Start(offset))?;
            if io::copy(&mut data.take(length), output)? != length {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        output.set_len(self.size)
    }
}

fn pairs(numbers: &[u64]) -> io::Result<Vec<(u64, u64)>> {
    let chunks = numbers.chunks_exact(2);
    if !chunks.remainder().is_empty() {
        return Err(invalid("an offset without a length"));
    }
    Ok(chunks.filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect())
}

/// Format 1.0: decimal numbers, each on a line, the count of pairs first, padded to a whole block of 512 bytes.
fn read_map(data: &mut impl Read) -> io::Result<Vec<(u64, u64)>> {
    let mut numbers = Vec::new();
    let mut line = Vec::new();
    let mut wanted = None;
    let mut block = [0; 512];
    loop {
        data.read_exact(&mut block)?;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                continue;
            }
            let value = number(&line)?;
            line.clear();
            match wanted {
                None => wanted = value.checked_mul(2),
                Some(_) => numbers.push(value),
            }
            if wanted.is_some_and(|wanted| numbers.len() as u64 >= wanted) {
                return pairs(&numbers);
            }
        }
        if line.len() > 20 {
            return Err(invalid("the map is no list of numbers"));
        }
    }
}
