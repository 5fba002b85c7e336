//! The patterns of `KernelModules=`, `FirmwareFiles=` and their relatives (mkosi(1)).
//!
//! A list is a mix of shell globs, of which the last that matches decides and a leading `-` turns the decision round,
//! and of regular expressions, marked `re:`, that match anywhere in a path.

use regex::{Regex, RegexSet};

/// What marks a regular expression in a list.
const REGEX: &str = "re:";

/// A pattern that can't be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{pattern}` is no regular expression that mkosi knows: {message}. Look-around and references back don't exist"
)]
pub struct PatternError {
    pattern: String,
    message: String,
}

/// What globs say of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The last one that matches wants it.
    Wanted,
    /// The last one that matches takes it away.
    Unwanted,
    /// None matches.
    Silent,
}

/// A list of patterns.
#[derive(Debug)]
pub struct Patterns {
    globs: Vec<(Glob, Verdict)>,
    regexes: RegexSet,
}

impl Patterns {
    /// Reads a list. `dashes` tells that underscores and dashes are one, as in the names of modules.
    ///
    /// # Errors
    /// A regular expression that can't be read.
    pub fn new(list: &[String], dashes: bool) -> Result<Self, PatternError> {
        let mut globs = Vec::new();
        let mut regexes = Vec::new();
        for text in list {
            match text.strip_prefix(REGEX) {
                Some(regex) => regexes.push(regex),
                None => {
                    let (glob, verdict) = match text.strip_prefix('-') {
                        Some(rest) => (rest, Verdict::Unwanted),
                        None => (text.as_str(), Verdict::Wanted),
                    };
                    globs.push((Glob::new(glob, dashes)?, verdict));
                }
            }
        }
        for regex in &regexes {
            Regex::new(regex).map_err(|error| failure(regex, &error))?;
        }
        let regexes = RegexSet::new(&regexes).map_err(|error| failure(&regexes.join(" "), &error))?;
        Ok(Self { globs, regexes })
    }

    /// What the globs say of `path`, which is without suffixes and without a leading slash.
    pub fn globs(&self, path: &str) -> Verdict {
        self.globs.iter().rev().find(|(glob, _)| glob.matches(path)).map_or(Verdict::Silent, |(_, verdict)| *verdict)
    }

    /// Whether a regular expression matches somewhere in `path`.
    pub fn regexes(&self, path: &str) -> bool {
        self.regexes.is_match(path)
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.globs.is_empty() && self.regexes.is_empty()
    }
}

/// One glob. Without a slash it is for the last component, with one at its start for the path below `kernel/` or for
/// the whole path, else for the end of the path. With one at its end it is for all that is below a directory.
#[derive(Debug)]
struct Glob {
    place: Place,
    regex: Regex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Whole,
    End,
    Name,
}

impl Glob {
    fn new(text: &str, dashes: bool) -> Result<Self, PatternError> {
        let all = if text.ends_with('/') { format!("{text}*") } else { text.to_owned() };
        let place = match (all.starts_with('/'), all.contains('/')) {
            (true, _) => Place::Whole,
            (false, true) => Place::End,
            (false, false) => Place::Name,
        };
        let body = shell_glob(&all, dashes, ".");
        let whole = match place {
            // An absolute one is for the modules of the kernel's own tree first.
            Place::Whole => format!("(/kernel)?{body}"),
            Place::End => format!("(.*/)?{body}"),
            Place::Name => body,
        };
        let regex = Regex::new(&format!("^(?s:{whole})$")).map_err(|error| failure(text, &error))?;
        Ok(Self { place, regex })
    }

    fn matches(&self, path: &str) -> bool {
        match self.place {
            Place::Whole => self.regex.is_match(&format!("/{path}")),
            Place::End => self.regex.is_match(path),
            Place::Name => self.regex.is_match(path.rsplit('/').next().unwrap_or(path)),
        }
    }
}

/// A regular expression for a glob of the shell: `*`, `?`, `[ab]`, `[a-z]`, `[!ab]`. `any` is what `*` and `?` stand
/// for. With `dashes` an underscore outside of brackets is a dash.
pub fn shell_glob(text: &str, dashes: bool, any: &str) -> String {
    let mut regex = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = after;
        match first {
            '*' => regex.push_str(&format!("{any}*")),
            '?' => regex.push_str(any),
            '[' => match class(after) {
                Some((class, end)) => {
                    regex.push_str(&class);
                    rest = end;
                }
                None => regex.push_str(r"\["),
            },
            '_' if dashes => regex.push('-'),
            other => regex.push_str(&regex::escape(other.encode_utf8(&mut [0; 4]))),
        }
    }
    regex
}

/// A class in brackets as a regular expression, and what follows it. `None`: the bracket is never closed.
fn class(text: &str) -> Option<(String, &str)> {
    let (negated, body) = match text.strip_prefix('!') {
        Some(body) => (true, body),
        None => (false, text),
    };
    // A bracket right after the opening one stands for itself.
    let skip = body.chars().next()?.len_utf8();
    let end = skip + body.get(skip..)?.find(']')?;
    let members: Vec<char> = body[..end].chars().collect();
    let mut regex = String::new();
    let mut at = 0;
    while let Some(&first) = members.get(at) {
        let last = match members.get(at + 1..at + 3) {
            Some(&['-', last]) => last,
            _ => first,
        };
        at += if members.get(at + 1) == Some(&'-') && at + 2 < members.len() { 3 } else { 1 };
        // A range from back to front has no members.
        if first <= last {
            regex.push_str(&format!("\\x{{{:x}}}-\\x{{{:x}}}", u32::from(first), u32::from(last)));
        }
    }
    let class = match (negated, regex.as_str()) {
        (false, "") => r"[^\s\S]".to_owned(),
        (true, "") => ".".to_owned(),
        (false, members) => format!("[{members}]"),
        (true, members) => format!("[^{members}]"),
    };
    Some((class, &body[end + 1..]))
}

fn failure(pattern: &str, error: &regex::Error) -> PatternError {
    // The last line of it is the reason, those before draw the place.
    let text = error.to_string();
    let message = text.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
    PatternError { pattern: pattern.to_owned(), message }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn patterns(list: &[&str]) -> Patterns {
        Patterns::new(&list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>(), true).unwrap()
    }

    #[test]
    fn globs_match_as_the_manual_says() {
        let path = "kernel/drivers/block/virtio-blk";
        for (glob, matches) in [
            ("virtio_blk", true),
            ("virtio-blk", true),
            ("virtio*", true),
            ("block/virtio_blk", true),
            ("lock/virtio_blk", false),
            ("/drivers/block/virtio_blk", true),
            ("/kernel/drivers/block/virtio_blk", true),
            ("/block/virtio_blk", false),
            ("/drivers/", true),
            ("drivers/", true),
            ("rivers/", false),
            ("block", false),
            ("virtio[_-]blk", true),
            ("virtio[!a-z]blk", true),
            ("virtio[]-]blk", true),
            ("virtio[", false),
            ("v?rtio-blk", true),
            ("/*/virtio-blk", true),
        ] {
            let expected = if matches { Verdict::Wanted } else { Verdict::Silent };
            assert_eq!(patterns(&[glob]).globs(path), expected, "{glob}");
        }
    }

    #[test]
    fn the_last_glob_that_matches_decides() {
        let list = patterns(&["crypto/", "-/drivers/crypto/", "ccp_crypto"]);
        assert_eq!(list.globs("kernel/crypto/aes"), Verdict::Wanted);
        assert_eq!(list.globs("kernel/drivers/crypto/ccp/ccp"), Verdict::Unwanted);
        assert_eq!(list.globs("kernel/drivers/crypto/ccp/ccp-crypto"), Verdict::Wanted);
        assert_eq!(list.globs("kernel/fs/ext4/ext4"), Verdict::Silent);
    }

    #[test]
    fn regular_expressions_match_anywhere() {
        let list = patterns(&["re:^fs/", "re:virtio_(blk|net)"]);
        assert!(list.regexes("fs/ext4/ext4.ko") && list.regexes("drivers/net/virtio_net.ko.xz"));
        assert!(!list.regexes("drivers/fs/x.ko") && !list.is_empty());
        let error = Patterns::new(&["re:a(?=b)".to_owned()], true).unwrap_err();
        assert!(error.to_string().starts_with("`a(?=b)` is no regular expression"), "{error}");
        assert!(error.to_string().contains("look-around"), "{error}");
    }

    proptest! {
        /// Every text is a glob, and a text without special characters matches itself alone.
        #[test]
        fn every_text_is_a_glob(text in "\\PC{0,12}", path in "[a-z/-]{1,12}") {
            let list = Patterns::new(std::slice::from_ref(&text), true);
            prop_assume!(!text.starts_with(REGEX));
            let _ = list.unwrap().globs(&path);
        }

        #[test]
        fn a_plain_text_matches_itself(text in "[a-z-]{1,8}", other in "[a-z-]{1,8}") {
            prop_assume!(!text.starts_with('-'));
            let list = patterns(&[&text]);
            prop_assert_eq!(list.globs(&other) == Verdict::Wanted, text == other);
        }
    }
}
