//! Small texts: cutting them into words, booleans, shell patterns, variables in paths.
//!
//! Knows nothing of settings.

use std::collections::BTreeMap;

/// Cuts at spaces and line ends. Quotes and backslashes work as in sh(1); there are no comments and no expansion.
///
/// # Errors
/// When a quote isn't closed, or nothing follows a backslash.
pub fn quoted(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('\'') => break,
                        Some(c) => word.push(c),
                        None => return Err("the quote ' is not closed"),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some(c @ ('"' | '\\')) => word.push(c),
                            Some(c) => word.extend(['\\', c]),
                            None => return Err("the quote \" is not closed"),
                        },
                        Some(c) => word.push(c),
                        None => return Err("the quote \" is not closed"),
                    }
                }
            }
            '\\' => match chars.next() {
                Some(c) => word.get_or_insert_default().push(c),
                None => return Err("nothing follows the backslash"),
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

/// The boolean that a word means.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "y" | "t" | "on" | "always" | "enabled" => Some(true),
        "0" | "false" | "no" | "n" | "f" | "off" | "never" | "disabled" => Some(false),
        _ => None,
    }
}

/// A shell pattern that is matched with many texts; an invalid pattern matches itself alone.
pub struct Pattern<'a> {
    text: &'a str,
    /// None where the text has no sign of a pattern in it, or isn't a valid one.
    compiled: Option<glob::Pattern>,
}

impl<'a> Pattern<'a> {
    /// Reads a pattern.
    pub fn new(text: &'a str) -> Self {
        let compiled = text.contains(['*', '?', '[']).then(|| glob::Pattern::new(text).ok()).flatten();
        Self { text, compiled }
    }

    /// Whether a text matches.
    pub fn matches(&self, text: &str) -> bool {
        self.compiled.as_ref().map_or(self.text == text, |compiled| compiled.matches(text))
    }
}

/// Whether a text matches a shell pattern; an invalid pattern matches itself alone.
pub fn glob_matches(pattern: &str, text: &str) -> bool {
    Pattern::new(pattern).matches(text)
}

/// Puts variables in: `$NAME` and `${NAME}`. What isn't set stays as it is written.
pub fn expand_variables(text: &str, environment: &BTreeMap<String, String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('$') {
        let (before, after) = rest.split_at(start);
        result.push_str(before);
        let body = after.get(1..).unwrap_or_default();
        let (name, length) = match body.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some((name, _)) => (name, name.len() + 3),
            None => {
                let end = body.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(body.len());
                (body.get(..end).unwrap_or_default(), end + 1)
            }
        };
        let whole = after.get(..length).unwrap_or(after);
        match environment.get(name) {
            Some(value) => result.push_str(value),
            None => result.push_str(whole),
        }
        rest = after.get(length..).unwrap_or_default();
    }
    result.push_str(rest);
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_as_the_shell_does() {
        assert_eq!(quoted("A=1 B='x y'\nC=\"a \\\" b\" D=e\\ f").unwrap(), ["A=1", "B=x y", "C=a \" b", "D=e f"]);
        assert_eq!(quoted("  ").unwrap(), Vec::<String>::new());
        assert_eq!(quoted("''").unwrap(), [""]);
        assert!(quoted("A='x").is_err());
        assert!(quoted("A=\"x\\").is_err());
        assert!(quoted("a\\").is_err());
    }

    #[test]
    fn variables() {
        let environment = BTreeMap::from([("HOME".to_owned(), "/root".to_owned())]);
        assert_eq!(expand_variables("$HOME/a${HOME}b$NONE/${X}$", &environment), "/root/a/rootb$NONE/${X}$");
        assert_eq!(expand_variables("${HOME", &environment), "${HOME");
    }

    #[test]
    fn patterns() {
        assert!(glob_matches("linux-*", "linux-image-amd64"));
        assert!(glob_matches("a/*", "a/b/c"));
        assert!(glob_matches("[", "["));
        assert!(!glob_matches("a?", "a"));
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = quoted(&text);
            let _ = expand_variables(&text, &BTreeMap::new());
            let _ = glob_matches(&text, &text);
        }
    }
}
