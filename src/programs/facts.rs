//! What a file asks for when it is executed or loaded, by its content; remembered in the store, so that no file is read
//! for it twice.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::elf::{self, Elf};
use crate::store::Hasher;
use crate::types::Digest;

/// The name under which the store remembers it; another one for every change of [`Facts`].
const NAME: &str = "programs 1";

/// As many files as are remembered. With more, those that nobody asked for this time go.
const MOST: usize = 4096;

/// How much of a script's first line the kernel reads (execve(2)).
const LINE: usize = 255;

/// What the start of a file says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Facts {
    /// It is a program or a library.
    Elf(Elf),
    /// It is a script: its interpreter, and the one argument that this gets before the script's path.
    Script(String, Option<String>),
    /// It is something else.
    Other,
}

impl Facts {
    /// Those of a file with this content.
    pub fn of(content: &[u8]) -> Self {
        if let Some(line) = content.strip_prefix(b"#!") {
            let line = line.get(..LINE).unwrap_or(line);
            let line =
                String::from_utf8_lossy(line.split(|byte| *byte == b'\n').next().unwrap_or_default()).into_owned();
            let blank = [' ', '\t'];
            let line = line.trim_matches(blank);
            let (interpreter, argument) = line.split_once(blank).unwrap_or((line, ""));
            let argument = argument.trim_matches(blank);
            return Self::Script(interpreter.to_owned(), (!argument.is_empty()).then(|| argument.to_owned()));
        }
        elf::parse(content).map_or(Self::Other, Self::Elf)
    }
}

/// The facts of all files that are known.
#[derive(Debug, Default)]
pub(super) struct Known {
    all: HashMap<[u8; 32], (Arc<Facts>, bool)>,
    changed: bool,
}

impl Known {
    /// Those that the store remembers; none where that can't be read.
    pub fn load(hasher: &Hasher) -> Self {
        let bytes = hasher.recall(NAME).unwrap_or_default();
        let all: Vec<([u8; 32], Facts)> = postcard::from_bytes(&bytes).unwrap_or_default();
        let all = all.into_iter().map(|(digest, facts)| (digest, (Arc::new(facts), false))).collect();
        Self { all, changed: false }
    }

    /// The facts of the file with this content.
    pub fn get(&mut self, digest: &Digest) -> Option<Arc<Facts>> {
        let (facts, used) = self.all.get_mut(digest.as_bytes())?;
        *used = true;
        Some(Arc::clone(facts))
    }

    /// Adds a file.
    pub fn put(&mut self, digest: &Digest, facts: &Arc<Facts>) {
        self.all.insert(*digest.as_bytes(), (Arc::clone(facts), true));
        self.changed = true;
    }

    /// Has the store remember what is new.
    pub fn save(&mut self, hasher: &Hasher) {
        if !self.changed {
            return;
        }
        let few = self.all.len() <= MOST;
        let kept = self.all.iter().filter(|(_, (_, used))| few || *used);
        let mut kept: Vec<(&[u8; 32], &Facts)> = kept.map(|(digest, (facts, _))| (digest, facts.as_ref())).collect();
        kept.sort_by_key(|(digest, _)| **digest);
        // Without it the files are read again, nothing worse.
        if let Ok(bytes) = postcard::to_stdvec(&kept) {
            let _ = hasher.remember(NAME, &bytes);
        }
        self.changed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_of_a_script_names_its_interpreter() {
        let script = |text: &str| match Facts::of(text.as_bytes()) {
            Facts::Script(interpreter, argument) => (interpreter, argument),
            other => panic!("{text}: {other:?}"),
        };
        let argument = |text: &str| Some(text.to_owned());
        assert_eq!(script("#!/bin/sh\necho"), ("/bin/sh".to_owned(), None));
        assert_eq!(script("#! \t/bin/sh"), ("/bin/sh".to_owned(), None));
        assert_eq!(script("#!/usr/bin/env -S python3  -I \n"), ("/usr/bin/env".to_owned(), argument("-S python3  -I")));
        assert_eq!(script("#!"), (String::new(), None));
        assert_eq!(Facts::of(b"echo"), Facts::Other);
    }

    #[test]
    fn what_is_known_is_remembered_and_damage_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::store::Store::open(&dir.path().join("store")).unwrap();
        let hasher = Hasher::new(&store);
        let (one, facts) = (Digest::of(b"1"), Arc::new(Facts::Script("/bin/sh".to_owned(), None)));
        let mut known = Known::load(&hasher);
        assert_eq!(known.get(&one), None);
        known.put(&one, &facts);
        known.save(&hasher);
        assert_eq!(Known::load(&hasher).get(&one), Some(facts));
        for entry in std::fs::read_dir(store.dir().join("stat")).unwrap() {
            let path = entry.unwrap().path();
            let mut bytes = std::fs::read(&path).unwrap();
            *bytes.last_mut().unwrap() ^= 1;
            std::fs::write(path, bytes).unwrap();
        }
        assert_eq!(Known::load(&hasher).get(&one), None);
    }
}
