//! In which rounds packages are unpacked and configured. Knows nothing of how that is done.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::deb::Deb;

/// Splits packages into rounds so that whatever a package with a `preinst` script pre-depends on is configured by an
/// earlier round. Within the minimal tree everything was unpacked before, so that one round will do.
pub(super) fn rounds(debs: &[(PathBuf, Deb)], base: bool) -> Vec<Vec<&(PathBuf, Deb)>> {
    let mut rounds: Vec<Vec<&(PathBuf, Deb)>> = Vec::new();
    let mut pending: BTreeSet<String> = BTreeSet::new();
    for entry in debs {
        let (_, deb) = entry;
        let control = deb.control();
        let needs = control.get("Pre-Depends").unwrap_or_default();
        let needs_pending = names_of(needs).any(|name| pending.contains(name));
        if rounds.is_empty() || (!base && deb.files.contains_key("preinst") && needs_pending) {
            rounds.push(Vec::new());
            pending.clear();
        }
        if let Some(round) = rounds.last_mut() {
            round.push(entry);
        }
        pending.extend(control.get("Package").map(str::to_owned));
        pending.extend(names_of(control.get("Provides").unwrap_or_default()).map(str::to_owned));
    }
    rounds
}

/// Where the packages' files lie.
pub(super) fn paths<'d>(debs: &[&'d (PathBuf, Deb)]) -> Vec<&'d Path> {
    debs.iter().map(|(path, _)| path.as_path()).collect()
}

/// The names in a relationship field (`a (>= 1), b:any | c`), without versions and architectures.
fn names_of(field: &str) -> impl Iterator<Item = &str> {
    let name = |part: &'_ str| -> usize { part.find([' ', '(', ':', '[', '<']).unwrap_or(part.len()) };
    let parts = field.split([',', '|']).map(str::trim).filter(|part| !part.is_empty());
    parts.map(move |part| part.get(..name(part)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn relationship_names() {
        let names: Vec<_> = names_of("libc6 (>= 2.36), perl:any | dash, init-system-helpers").collect();
        assert_eq!(names, ["libc6", "perl", "dash", "init-system-helpers"]);
        assert_eq!(names_of("").count(), 0);
    }

    #[test]
    fn rounds_follow_pre_depends_of_scripts() {
        let deb = |name: &str, needs: &str, preinst: bool| {
            let mut files = BTreeMap::new();
            let file = |text: &str| super::super::deb::ControlFile { contents: text.as_bytes().to_vec(), mode: 0o755 };
            files.insert("control".to_owned(), file(&format!("Package: {name}\nPre-Depends: {needs}\n")));
            if preinst {
                files.insert("preinst".to_owned(), file("#!/bin/sh\n"));
            }
            (PathBuf::from(name), Deb::for_test(files))
        };
        let debs = [deb("a", "base", true), deb("b", "a (>= 1)", false), deb("c", "x | b", true), deb("d", "a", true)];
        let shape: Vec<usize> = rounds(&debs, false).iter().map(Vec::len).collect();
        assert_eq!(shape, [2, 2]);
        assert_eq!(rounds(&debs, true).len(), 1);
        assert_eq!(rounds(&[deb("a", "", true), deb("b", "", true)], false).len(), 1);
    }
}
