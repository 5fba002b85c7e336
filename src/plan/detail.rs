//! Which part of a program of the host changed, where a node runs because of it.

use std::collections::BTreeMap;

use super::Node;
use super::compile::TOOL;
use super::explain::{Change, Reason};
use super::inputs::missing_tool;
use crate::programs::Parts;
use crate::store::Record;
use crate::types::Digest;

/// The reasons with what is known of the programs in them: `parts` gives the parts of a program by its digest. A library that
/// several programs share is one reason. Of a program whose own file changed that is all that is said.
pub fn in_detail(
    reasons: Vec<Reason>,
    node: &Node,
    last: Option<&Record>,
    parts: &dyn Fn(&Digest) -> Option<Parts>,
) -> Vec<Reason> {
    let mut detailed: Vec<Reason> = Vec::with_capacity(reasons.len());
    let mut places: BTreeMap<(String, Change), usize> = BTreeMap::new();
    for reason in reasons {
        let found = match &reason {
            Reason::Input { name, change: Change::Changed } => {
                name.strip_prefix(TOOL).and_then(|tool| Some((tool, difference(tool, node, last?, parts)?)))
            }
            _ => None,
        };
        match found {
            None => detailed.push(reason),
            Some((_, Difference::Whole(reason))) => detailed.push(reason),
            Some((tool, Difference::Parts(changes))) => {
                for (part, change) in changes {
                    let place = *places.entry((part.clone(), change)).or_insert(detailed.len());
                    match detailed.get_mut(place) {
                        Some(Reason::Part { programs, .. }) => programs.push(tool.to_owned()),
                        _ => detailed.push(Reason::Part { programs: vec![tool.to_owned()], part, change }),
                    }
                }
            }
        }
    }
    detailed
}

enum Difference {
    Whole(Reason),
    Parts(Vec<(String, Change)>),
}

fn difference(tool: &str, node: &Node, last: &Record, parts: &dyn Fn(&Digest) -> Option<Parts>) -> Option<Difference> {
    let name = format!("{TOOL}{tool}");
    let old = last.inputs.get(&name)?;
    let now = node.programs.get(&name);
    let whole = |change| Some(Difference::Whole(Reason::Input { name: name.clone(), change }));
    let now = match now {
        None => return whole(Change::Removed),
        Some(_) if *old == missing_tool() => return whole(Change::Added),
        Some(now) => &now.parts,
    };
    let old = parts(old)?;
    let mut changes = Vec::new();
    for (part, digest) in now {
        match old.get(part) {
            Some(known) if known == digest => {}
            Some(_) if part == PROGRAM => return None,
            Some(_) => changes.push((part.clone(), Change::Changed)),
            None => changes.push((part.clone(), Change::Added)),
        }
    }
    let gone = old.keys().filter(|part| !now.contains_key(*part));
    changes.extend(gone.map(|part| (part.clone(), Change::Removed)));
    (!changes.is_empty()).then_some(Difference::Parts(changes))
}

/// The part that is the program's own file.
const PROGRAM: &str = "program";

/// Which part of which programs, in words.
pub(super) fn part_in_words(programs: &[String], part: &str) -> String {
    let (kind, name) = part.split_once('/').unwrap_or(("part", part));
    let kind = match kind {
        "module" => "Python module",
        "runs" => "helper",
        other => other,
    };
    match programs {
        [] => format!("the {kind} `{name}`"),
        [one] => format!("`{one}`: its {kind} `{name}`"),
        [one, two] => format!("`{one}` and `{two}`: their {kind} `{name}`"),
        [one, rest @ ..] => format!("`{one}` and {} more programs: their {kind} `{name}`", rest.len()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Image;
    use crate::plan::{Declarations, StageDecl};
    use crate::programs::Identity;

    fn parts(pairs: &[(&str, &str)]) -> Parts {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), Digest::of(text.as_bytes()))).collect()
    }

    fn decl() -> Arc<StageDecl> {
        const GRAPH: &str = "[stage.x]\nabout = \"x\"\nversion = 1\npool = \"cpu\"\nsandbox = {}\n";
        let declarations = Declarations::parse(&[("x.toml", GRAPH)], &[]).unwrap();
        Arc::clone(declarations.iter().next().unwrap().1)
    }

    fn node(tools: &[(&str, &Identity)]) -> Node {
        let programs: BTreeMap<_, _> =
            tools.iter().map(|(name, identity)| (format!("tool/{name}"), Arc::new((*identity).clone()))).collect();
        let image = Image { name: "main".to_owned(), project: "/p".into(), values: BTreeMap::new() };
        Node {
            stage: "x".to_owned(),
            decl: decl(),
            image: Arc::new(image),
            images: Default::default(),
            inputs: BTreeMap::new(),
            sources: BTreeMap::new(),
            traced: Default::default(),
            programs,
            skipped: None,
            fresh: false,
        }
    }

    #[test]
    fn the_part_that_changed_is_named() {
        let of = |text: &[(&str, &str)]| Identity::of(parts(text));
        let old = [
            ("mkfs.ext4", of(&[("program", "a"), ("library/libc.so.6", "1"), ("library/libext2fs.so.2", "1")])),
            ("tar", of(&[("program", "t"), ("library/libc.so.6", "1")])),
            ("dpkg", of(&[("program", "d"), ("library/libc.so.6", "1"), ("runs/rm", "1")])),
            ("ukify", of(&[("program", "u"), ("module/pefile", "1"), ("interpreter/python3", "1")])),
            ("other", of(&[("program", "o")])),
            ("forgotten", of(&[("program", "f")])),
            ("gone", of(&[("program", "g")])),
        ];
        let now = [
            ("mkfs.ext4", of(&[("program", "a"), ("library/libc.so.6", "2"), ("library/libext2fs.so.2", "2")])),
            ("tar", of(&[("program", "t"), ("library/libc.so.6", "2")])),
            ("dpkg", of(&[("program", "d"), ("library/libc.so.6", "2"), ("library/libz.so.1", "1")])),
            ("ukify", of(&[("program", "u"), ("module/pefile", "2"), ("interpreter/python3", "1")])),
            ("other", of(&[("program", "O"), ("library/libc.so.6", "2")])),
            ("forgotten", of(&[("program", "f"), ("library/libc.so.6", "2")])),
            ("new", of(&[("program", "n")])),
        ];
        let mut inputs: BTreeMap<_, _> =
            old.iter().map(|(name, identity)| (format!("tool/{name}"), identity.digest)).collect();
        inputs.insert("tool/new".to_owned(), missing_tool());
        let last = Record {
            key: Digest::of(b"old"),
            kind: "x".to_owned(),
            inputs,
            outputs: BTreeMap::new(),
            duration_ms: 0,
            size: 0,
            finished: 0,
            read: None,
        };
        let known = |digest: &Digest| {
            let mut named = old.iter().filter(|(name, _)| *name != "forgotten");
            named.find(|(_, identity)| identity.digest == *digest).map(|(_, identity)| identity.parts.clone())
        };
        let reason = |name: &str| Reason::Input { name: name.to_owned(), change: Change::Changed };
        let names = ["mkfs.ext4", "tar", "dpkg", "ukify", "other", "forgotten", "gone", "new"];
        let reasons = names.iter().map(|name| reason(&format!("tool/{name}"))).chain([reason("tree")]).collect();
        let now: Vec<(&str, &Identity)> = now.iter().map(|(name, identity)| (*name, identity)).collect();
        let words: Vec<String> =
            in_detail(reasons, &node(&now), Some(&last), &known).iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"), @r"
        `mkfs.ext4` and 2 more programs: their library `libc.so.6` changed
        `mkfs.ext4`: its library `libext2fs.so.2` changed
        `dpkg`: its library `libz.so.1` is new
        `dpkg`: its helper `rm` is gone
        `ukify`: its Python module `pefile` changed
        the host's `other` changed
        the host's `forgotten` changed
        the host's `gone` is gone
        the host's `new` is new
        the tree below changed
        ");
    }
}
