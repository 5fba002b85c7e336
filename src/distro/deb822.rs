//! The paragraphs of Debian control files (deb822(5)): `Packages`, `status`, `control` and `.sources`.
//!
//! Knows nothing of what the fields mean.

use std::fmt::Write;

/// One paragraph: its fields in the order in which they stand. Names compare without regard to case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paragraph {
    fields: Vec<(String, String)>,
}

impl Paragraph {
    /// The value of a field; continuation lines are kept with their line breaks and without the leading space.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// Sets a field, at its place if it is there and at the end if not.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        match self.fields.iter_mut().find(|(n, _)| n.eq_ignore_ascii_case(name)) {
            Some((_, old)) => *old = value.into(),
            None => self.fields.push((name.to_owned(), value.into())),
        }
    }

    /// The fields in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(n, v)| (n.as_str(), v.as_str()))
    }

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Appends the paragraph with the empty line that ends it.
    pub fn write_to(&self, out: &mut String) {
        for (name, value) in &self.fields {
            let mut lines = value.split('\n');
            let first = lines.next().unwrap_or_default();
            let _ = if first.is_empty() { writeln!(out, "{name}:") } else { writeln!(out, "{name}: {first}") };
            for line in lines {
                let _ = writeln!(out, " {line}");
            }
        }
        out.push('\n');
    }
}

impl std::fmt::Display for Paragraph {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = String::new();
        self.write_to(&mut out);
        f.write_str(out.trim_end_matches('\n'))
    }
}

/// Every paragraph of a file. Comment lines (`#`) are passed over; lines that are neither a field nor the
/// continuation of one are too, as dpkg and apt themselves don't agree on what to do with them.
pub fn parse(text: &str) -> Vec<Paragraph> {
    let mut paragraphs = Vec::new();
    let mut current = Paragraph::default();
    for line in text.lines() {
        if line.trim().is_empty() {
            if !current.is_empty() {
                paragraphs.push(std::mem::take(&mut current));
            }
        } else if line.starts_with('#') {
        } else if let Some(rest) = line.strip_prefix([' ', '\t']) {
            if let Some((_, value)) = current.fields.last_mut() {
                value.push('\n');
                value.push_str(rest);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            current.set(name.trim_end(), value.trim());
        }
    }
    if !current.is_empty() {
        paragraphs.push(current);
    }
    paragraphs
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_paragraphs() {
        let text = "# a comment\nPackage: a\nDescription: short\n long\n .\n# inner\n more\n\n\n\nPackage: b\n";
        let all = parse(text);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].get("package"), Some("a"));
        assert_eq!(all[0].get("Description"), Some("short\nlong\n.\nmore"));
        assert_eq!(all[1].to_string(), "Package: b");
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC*") {
            parse(&text);
        }

        #[test]
        fn round_trips(fields in prop::collection::btree_map("[A-Z][a-z-]{0,8}", "[a-z0-9:.]{1,9}(\n[a-z.#]{1,9}){0,3}", 1..6)) {
            let mut paragraph = Paragraph::default();
            for (name, value) in &fields {
                paragraph.set(name, value.clone());
            }
            let mut text = String::new();
            paragraph.write_to(&mut text);
            prop_assert_eq!(parse(&text), vec![paragraph]);
        }
    }
}
