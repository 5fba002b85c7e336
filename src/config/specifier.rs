//! Specifiers: `%d` and the like in configuration files, and `&d` in names that are known only later.
//!
//! Knows nothing of where the values come from.

/// What a letter stands for.
pub(super) enum Meaning {
    /// This text.
    Text(String),
    /// Nothing yet: the setting is not set.
    Unset(&'static str),
    /// The letter stands for nothing.
    Unknown,
}

/// Puts in what `meaning` says of each letter after `%`, and tells `problem` of the letters that stand for nothing.
pub(super) fn expand(
    text: &str,
    meaning: impl Fn(char) -> Meaning,
    mut problem: impl FnMut(char, Option<&str>),
) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            result.push(c);
            continue;
        }
        match chars.next() {
            None | Some('%') => result.push('%'),
            Some(letter) => match meaning(letter) {
                Meaning::Text(text) => result.push_str(&text),
                Meaning::Unset(setting) => problem(letter, Some(setting)),
                Meaning::Unknown => problem(letter, None),
            },
        }
    }
    result
}

/// Puts in what `meaning` says of each letter after `&`, in CacheKey=, BuildKey= and names of unified kernel images.
/// A letter that stands for nothing is left out.
pub fn expand_delayed(text: &str, meaning: impl Fn(char) -> Option<String>) -> String {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek().copied()) {
            ('&', Some('&')) => {
                chars.next();
                result.push('&');
            }
            ('&', Some(letter)) if letter.is_ascii_alphabetic() => {
                chars.next();
                result.push_str(&meaning(letter).unwrap_or_default());
            }
            _ => result.push(c),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letters(c: char) -> Meaning {
        match c {
            'd' => Meaning::Text("debian".to_owned()),
            'v' => Meaning::Unset("ImageVersion"),
            _ => Meaning::Unknown,
        }
    }

    #[test]
    fn letters_and_percent() {
        let mut problems = Vec::new();
        let text = expand("%d-%%d-%v-%z-%", letters, |c, setting| problems.push((c, setting.map(str::to_owned))));
        assert_eq!(text, "debian-%d---%");
        assert_eq!(problems, [('v', Some("ImageVersion".to_owned())), ('z', None)]);
    }

    #[test]
    fn later_ones() {
        assert_eq!(expand_delayed("&d~&&~&1&", |c| (c == 'd').then(|| "x".to_owned())), "x~&~&1&");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[%&d ä]*") {
            expand(&text, letters, |_, _| {});
            expand_delayed(&text, |_| None);
        }
    }
}
