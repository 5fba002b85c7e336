//! Which packages a set of packages needs. This is no solver: it takes the newest version of everything and the first
//! alternative that there is, which is enough within one release. Knows nothing of where packages come from.

use std::collections::{BTreeMap, BTreeSet};

use super::version::{compare, meets};
use crate::distro::deb822::Paragraph;

/// The newest version of each package, and what provides names that are no packages.
pub(super) struct Candidates<'a> {
    by_name: BTreeMap<&'a str, &'a Paragraph>,
    /// By the name that is provided: the package, and the version that it provides it in, if it says so.
    providers: BTreeMap<&'a str, Vec<(&'a str, Option<&'a str>)>>,
}

/// One alternative of a relation: `name (>= version)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alternative<'a> {
    name: &'a str,
    version: Option<(&'a str, &'a str)>,
}

impl<'a> Candidates<'a> {
    /// Reads the stanzas of a repository's packages.
    pub fn new(stanzas: impl IntoIterator<Item = &'a Paragraph>) -> Self {
        let mut by_name: BTreeMap<&str, &Paragraph> = BTreeMap::new();
        for stanza in stanzas {
            let Some(name) = stanza.get("Package") else { continue };
            let newer = |old: &&&Paragraph| compare(version(stanza), version(old)).is_gt();
            if by_name.get(name).is_none_or(|old| newer(&old)) {
                by_name.insert(name, stanza);
            }
        }
        let mut providers: BTreeMap<&str, Vec<(&str, Option<&str>)>> = BTreeMap::new();
        for (name, stanza) in &by_name {
            for group in groups(stanza.get("Provides").unwrap_or_default()) {
                for provided in group {
                    providers.entry(provided.name).or_default().push((name, provided.version.map(|(_, v)| v)));
                }
            }
        }
        Self { by_name, providers }
    }

    /// The names of essential packages.
    pub fn essential(&self) -> impl Iterator<Item = &'a str> {
        self.by_name.iter().filter(|(_, stanza)| stanza.get("Essential") == Some("yes")).map(|(name, _)| *name)
    }

    /// The stanza of a package.
    pub fn get(&self, name: &str) -> Option<&'a Paragraph> {
        self.by_name.get(name).copied()
    }

    /// The packages with all that they need, each after what it needs, as far as there is no circle.
    ///
    /// # Errors
    /// What is needed and not there, in words.
    pub fn closure(&self, wanted: &BTreeSet<&'a str>) -> Result<Vec<&'a Paragraph>, String> {
        let mut walk = Walk { candidates: self, chosen: wanted.clone(), seen: BTreeSet::new(), order: Vec::new() };
        for name in wanted {
            walk.visit(name)?;
        }
        Ok(walk.order)
    }

    fn satisfies(&self, name: &str, alternative: &Alternative<'_>) -> bool {
        let holds =
            |version: &str| alternative.version.is_none_or(|(relation, wanted)| meets(version, relation, wanted));
        if name == alternative.name {
            return self.get(name).is_some_and(|stanza| holds(version(stanza)));
        }
        let provided = self.providers.get(alternative.name).into_iter().flatten();
        provided.filter(|(provider, _)| *provider == name).any(|(_, version)| match version {
            Some(version) => holds(version),
            // What is provided in no version meets no condition on one.
            None => alternative.version.is_none(),
        })
    }

    /// The package to take for an alternative: the one of that name, or the most important one that provides it.
    fn choose(&self, alternative: &Alternative<'a>) -> Option<&'a str> {
        if self.satisfies(alternative.name, alternative) {
            return self.by_name.get_key_value(alternative.name).map(|(name, _)| *name);
        }
        let providers = self.providers.get(alternative.name).into_iter().flatten().map(|(name, _)| *name);
        let rank = |name: &str| {
            let priority = self.get(name).and_then(|stanza| stanza.get("Priority")).unwrap_or_default();
            ["required", "important", "standard", "optional"].iter().position(|p| *p == priority).unwrap_or(4)
        };
        providers.filter(|name| self.satisfies(name, alternative)).min_by_key(|name| (rank(name), *name))
    }
}

struct Walk<'a, 'c> {
    candidates: &'c Candidates<'a>,
    chosen: BTreeSet<&'a str>,
    seen: BTreeSet<&'a str>,
    order: Vec<&'a Paragraph>,
}

impl<'a> Walk<'a, '_> {
    /// Puts a package into the order after what it needs. A loop in place of recursion: circles and chains are long.
    fn visit(&mut self, name: &'a str) -> Result<(), String> {
        let mut stack: Vec<(&'a Paragraph, Vec<Vec<Alternative<'a>>>)> = Vec::new();
        self.enter(name, &mut stack)?;
        while let Some((stanza, groups)) = stack.last_mut() {
            let Some(group) = groups.pop() else {
                self.order.push(stanza);
                stack.pop();
                continue;
            };
            let by = stanza.get("Package").unwrap_or_default();
            let candidates = self.candidates;
            let there =
                self.chosen.iter().copied().find(|name| group.iter().any(|one| candidates.satisfies(name, one)));
            let next = match there.or_else(|| group.iter().find_map(|one| candidates.choose(one))) {
                Some(next) => next,
                None => {
                    let names: Vec<&str> = group.iter().map(|one| one.name).collect();
                    return Err(format!("{by} needs {}, which no repository has", names.join(" or ")));
                }
            };
            self.chosen.insert(next);
            self.enter(next, &mut stack)?;
        }
        Ok(())
    }

    fn enter(
        &mut self,
        name: &'a str,
        stack: &mut Vec<(&'a Paragraph, Vec<Vec<Alternative<'a>>>)>,
    ) -> Result<(), String> {
        if !self.seen.insert(name) {
            return Ok(());
        }
        let stanza = self.candidates.get(name).ok_or_else(|| format!("no repository has the package {name}"))?;
        // The last is taken first, and what must be configured before comes before the rest.
        let fields = ["Pre-Depends", "Depends"].map(|field| groups(stanza.get(field).unwrap_or_default()));
        stack.push((stanza, fields.into_iter().flatten().rev().collect()));
        Ok(())
    }
}

fn version(stanza: &Paragraph) -> &str {
    stanza.get("Version").unwrap_or_default()
}

/// A relation field (deb-control(5)): groups that must all hold, of alternatives one of which must.
fn groups(field: &str) -> Vec<Vec<Alternative<'_>>> {
    let parts = field.split(',').map(|group| group.split('|').filter_map(|text| alternative(text.trim())).collect());
    parts.filter(|group: &Vec<_>| !group.is_empty()).collect()
}

fn alternative(text: &str) -> Option<Alternative<'_>> {
    let name = text.get(..text.find([' ', '(', ':', '[', '<']).unwrap_or(text.len()))?;
    let inner = text.split_once('(').and_then(|(_, rest)| Some(rest.split_once(')')?.0.trim()));
    let version = inner.map(|inner| {
        let (relation, version) = inner.split_at(inner.find(|c| !['<', '>', '='].contains(&c)).unwrap_or(inner.len()));
        (relation, version.trim())
    });
    (!name.is_empty()).then_some(Alternative { name, version })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::distro::deb822;

    fn closure(text: &str, wanted: &[&str]) -> Result<String, String> {
        let stanzas = deb822::parse(text);
        let candidates = Candidates::new(&stanzas);
        let wanted = wanted.iter().map(|name| candidates.by_name.get_key_value(name).map_or("?", |(name, _)| *name));
        let order = candidates.closure(&wanted.collect())?;
        let name = |stanza: &&Paragraph| format!("{}={}", stanza.get("Package").unwrap(), version(stanza));
        Ok(order.iter().map(name).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_is_needed_comes_first_in_its_newest_version() {
        let text = "Package: a\nVersion: 1\nDepends: b (>= 2), c:any\n\nPackage: b\nVersion: 1\n\nPackage: b\nVersion: 2\n\n\
                    Package: c\nVersion: 1\nPre-Depends: d\nDepends: a\n\nPackage: d\nVersion: 3\n\n";
        assert_eq!(closure(text, &["a"]).unwrap(), "b=2 d=3 c=1 a=1");
    }

    #[test]
    fn the_first_alternative_that_there_is() {
        let text = "Package: a\nVersion: 1\nDepends: x | v (>= 2) | c, v\n\nPackage: b\nVersion: 1\nProvides: v\n\n\
                    Package: c\nVersion: 1\nProvides: v (= 2)\nPriority: required\n\n";
        assert_eq!(closure(text, &["a"]).unwrap(), "c=1 a=1");
        assert_eq!(closure(text, &["a", "b"]).unwrap(), "c=1 b=1 a=1");
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = "Package: a\nVersion: 1\nDepends: b (>= 2) | x\n\nPackage: b\nVersion: 1\n\n";
        assert_eq!(closure(text, &["a"]).unwrap_err(), "a needs b or x, which no repository has");
        assert_eq!(closure(text, &["?"]).unwrap_err(), "no repository has the package ?");
    }

    proptest! {
        #[test]
        fn any_field_can_be_read(field in "([a-z]|[ ,|():<>=\\[\\]]|\\PC){0,40}") {
            groups(&field);
        }
    }
}
