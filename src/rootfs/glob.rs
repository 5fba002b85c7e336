//! Glob patterns over the paths of a root, as Python's `pathlib.Path.glob` understands them (that is what
//! `RemoveFiles=` has always meant), and the search for what they match.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use super::root::file_type;
use super::{Error, Result, Root};

/// A pattern, anchored at the root:
///
/// - `*` matches any run of characters in one name (a leading dot too), `?` one character, `[abc]`, `[a-z]` and
///   `[!a-z]` one of a set; a `[` that is never closed means itself;
/// - `**` as a whole name matches any number of directories, links not followed; at the end it matches the directory
///   before it and all that it holds;
/// - a slash at the end matches directories only.
///
/// Links in the middle of a path are followed, inside the root.
#[derive(Clone, Debug)]
pub struct Pattern {
    parts: Vec<Part>,
    only_directories: bool,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(OsString),
    Wild(Vec<Token>),
    AnyDepth,
}

#[derive(Clone, Debug)]
enum Token {
    Run,
    One,
    Char(u32),
    Set { negated: bool, ranges: Vec<(u32, u32)> },
}

impl Pattern {
    /// Reads a pattern. Errors: it is empty, names the root itself, or has a `..`.
    pub fn new(pattern: &str) -> Result<Self> {
        let refuse = |reason| Err(Error::Pattern { pattern: pattern.to_owned(), reason });
        let mut parts = Vec::new();
        for name in pattern.split('/').filter(|name| !name.is_empty() && *name != ".") {
            parts.push(match name {
                ".." => return refuse("`..` could leave the root; write the path without it"),
                "**" => Part::AnyDepth,
                _ if name.contains(['*', '?', '[']) => Part::Wild(tokens(name)),
                _ => Part::Literal(name.into()),
            });
        }
        if parts.is_empty() {
            return refuse("it names the root itself; write `/*` for all that the root holds");
        }
        Ok(Self { parts, only_directories: pattern.ends_with('/') })
    }

    /// The paths in `root` that match, sorted, without the root itself.
    pub fn find(&self, root: &Root) -> Result<Vec<PathBuf>> {
        let mut found = BTreeSet::from([PathBuf::new()]);
        for (index, part) in self.parts.iter().enumerate() {
            let last = index + 1 == self.parts.len();
            let mut next = BTreeSet::new();
            for base in found {
                match part {
                    Part::Literal(name) => {
                        let path = base.join(name);
                        // In the middle, a missing path shows when the next part is looked up below it.
                        if !last || root.lstat(&path)?.is_some() {
                            next.insert(path);
                        }
                    }
                    Part::Wild(tokens) => {
                        let names = root.list(&base)?;
                        next.extend(names.iter().filter(|name| matches(tokens, name)).map(|name| base.join(name)));
                    }
                    Part::AnyDepth => descend(root, base, last && !self.only_directories, &mut next)?,
                }
            }
            found = next;
        }
        found.remove(Path::new(""));
        if self.only_directories {
            let mut directories = Vec::new();
            for path in found {
                if root.is_dir(&path)? {
                    directories.push(path);
                }
            }
            return Ok(directories);
        }
        Ok(found.into_iter().collect())
    }
}

/// Puts `base`, if it is a directory, and every directory below it into `found`; with `files`, all else too.
fn descend(root: &Root, base: PathBuf, files: bool, found: &mut BTreeSet<PathBuf>) -> Result<()> {
    if !root.is_dir(&base)? {
        return Ok(());
    }
    let mut pending = vec![base];
    while let Some(dir) = pending.pop() {
        for name in root.list(&dir)? {
            let path = dir.join(name);
            let is_dir = root.lstat(&path)?.is_some_and(|stat| file_type(&stat) == FileType::Directory);
            if is_dir {
                pending.push(path);
            } else if files {
                found.insert(path);
            }
        }
        found.insert(dir);
    }
    Ok(())
}

/// The characters of a name. Bytes that are no UTF-8 become numbers that no character has.
fn characters(name: &OsStr) -> Vec<u32> {
    let mut characters = Vec::new();
    for chunk in name.as_bytes().utf8_chunks() {
        characters.extend(chunk.valid().chars().map(u32::from));
        characters.extend(chunk.invalid().iter().map(|byte| 0xDC00 + u32::from(*byte)));
    }
    characters
}

fn tokens(name: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = name;
    while let Some(first) = rest.chars().next() {
        rest = rest.get(first.len_utf8()..).unwrap_or_default();
        tokens.push(match first {
            '*' if matches!(tokens.last(), Some(Token::Run)) => continue,
            '*' => Token::Run,
            '?' => Token::One,
            '[' => match set(rest) {
                Some((token, after)) => {
                    rest = after;
                    token
                }
                None => Token::Char(u32::from('[')),
            },
            other => Token::Char(u32::from(other)),
        });
    }
    tokens
}

/// A set whose `[` was just read, and what comes after its `]`; `None` if it is never closed. A `]` in the first
/// place stands for itself.
fn set(text: &str) -> Option<(Token, &str)> {
    let (negated, body) = text.strip_prefix('!').map_or((false, text), |body| (true, body));
    let first = body.chars().next()?.len_utf8();
    let end = first + body.get(first..)?.find(']')?;
    let members: Vec<u32> = body.get(..end)?.chars().map(u32::from).collect();
    let mut ranges = Vec::new();
    let mut members = members.as_slice();
    loop {
        members = match members {
            [from, dash, to, rest @ ..] if *dash == u32::from('-') => {
                ranges.push((*from, *to));
                rest
            }
            [one, rest @ ..] => {
                ranges.push((*one, *one));
                rest
            }
            [] => break,
        };
    }
    Some((Token::Set { negated, ranges }, body.get(end + 1..)?))
}

impl Token {
    fn accepts(&self, character: u32) -> bool {
        match self {
            Self::Run | Self::One => true,
            Self::Char(wanted) => *wanted == character,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&character)) != *negated
            }
        }
    }
}

/// Whether the whole name matches: on a mismatch only the last `*` takes one character more, which is enough and
/// never exponential.
fn matches(tokens: &[Token], name: &OsStr) -> bool {
    let name = characters(name);
    let (mut token, mut position) = (0, 0);
    let mut last_run: Option<(usize, usize)> = None;
    while let Some(character) = name.get(position) {
        match tokens.get(token) {
            Some(Token::Run) => {
                last_run = Some((token, position));
                token += 1;
            }
            Some(other) if other.accepts(*character) => {
                token += 1;
                position += 1;
            }
            _ => match &mut last_run {
                Some((run, taken)) => {
                    *taken += 1;
                    (token, position) = (*run + 1, *taken);
                }
                None => return false,
            },
        }
    }
    tokens.get(token..).unwrap_or_default().iter().all(|token| matches!(token, Token::Run))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, written as plainly as it can be.
    fn reference(tokens: &[Token], name: &[u32]) -> bool {
        match (tokens, name) {
            ([], []) => true,
            ([Token::Run, rest @ ..], _) => (0..=name.len()).any(|skip| reference(rest, &name[skip..])),
            ([token, rest @ ..], [first, others @ ..]) => token.accepts(*first) && reference(rest, others),
            _ => false,
        }
    }

    /// Whether `path` (its names) matches `parts` by definition, for a tree without links.
    fn reference_path(parts: &[&str], path: &[&str]) -> bool {
        match (parts, path) {
            ([], []) => true,
            (["**"], _) => true,
            (["**", rest @ ..], _) => (0..=path.len()).any(|skip| reference_path(rest, &path[skip..])),
            ([part, rest @ ..], [name, others @ ..]) => {
                reference(&tokens(part), &characters(OsStr::new(name))) && reference_path(rest, others)
            }
            _ => false,
        }
    }

    fn one(pattern: &str, name: &str) -> bool {
        matches(&tokens(pattern), OsStr::new(name))
    }

    #[test]
    fn names_match_as_in_python() {
        for (pattern, name, expected) in [
            ("*", ".hidden", true),
            ("*.so", "libc.so", true),
            ("*.so", "libc.so.6", false),
            ("?", "ä", true),
            ("[!a-c]x", "dx", true),
            ("[!a-c]x", "bx", false),
            ("[]]", "]", true),
            ("[a", "[a", true),
            ("[^a]", "^", true),
            ("[a-]", "-", true),
            ("[*]", "*", true),
            ("a**b", "axxb", true),
            ("\\*", "\\x", true),
        ] {
            assert_eq!(one(pattern, name), expected, "{pattern} on {name}");
        }
        assert!(matches(&tokens("?b"), OsStr::from_bytes(b"\xffb")));
    }

    #[test]
    fn useless_patterns_are_refused() {
        for pattern in ["", "/", "./", "a/../b", ".."] {
            assert!(matches!(Pattern::new(pattern), Err(Error::Pattern { .. })), "{pattern}");
        }
    }

    const NAMES: [&str; 4] = ["a", "b", "ab", "a.b"];

    proptest! {
        #[test]
        fn names_match_as_defined(pattern in "[ab*?\\[\\]!.-]{0,8}", name in "[ab.\\[-]{0,6}") {
            prop_assert_eq!(
                one(&pattern, &name),
                reference(&tokens(&pattern), &characters(OsStr::new(&name)))
            );
        }

        #[test]
        fn paths_match_as_defined(
            files in proptest::collection::vec(proptest::collection::vec(0..NAMES.len(), 1..4), 0..8),
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["a", "b", "*", "**", "?", "a*", "[!a]*", "*.*"]), 1..4),
        ) {
            let dir = tempfile::tempdir().unwrap();
            for file in &files {
                let path = dir.path().join(file.iter().map(|i| NAMES[*i]).collect::<PathBuf>());
                // Where an earlier path made a file of this one's directory, this one is left out.
                if std::fs::create_dir_all(path.parent().unwrap()).is_ok() && !path.exists() {
                    std::fs::write(path, "").unwrap();
                }
            }
            let mut all = Vec::new();
            walk(dir.path(), &mut Vec::new(), &mut all);
            let expected: BTreeSet<PathBuf> = all
                .iter()
                .filter(|(path, is_dir)| {
                    let names: Vec<&str> = path.iter().map(String::as_str).collect();
                    let mut parts = parts.clone();
                    // `x/**` is about what a directory holds: a file `x` is no match.
                    if !is_dir && parts.last() == Some(&"**") {
                        parts.push("*");
                    }
                    reference_path(&parts, &names)
                })
                .map(|(path, _)| path.iter().collect())
                .collect();
            let root = Root::open(dir.path()).unwrap();
            let found: BTreeSet<PathBuf> =
                Pattern::new(&parts.join("/")).unwrap().find(&root).unwrap().into_iter().collect();
            prop_assert_eq!(found, expected);
        }
    }

    fn walk(dir: &Path, names: &mut Vec<String>, all: &mut Vec<(Vec<String>, bool)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            names.push(entry.file_name().into_string().unwrap());
            let is_dir = entry.file_type().unwrap().is_dir();
            all.push((names.clone(), is_dir));
            if is_dir {
                walk(&entry.path(), names, all);
            }
            names.pop();
        }
    }
}
