//! When a stage is part of an image: conditions over its settings.
//!
//! `A` holds when the setting A is set, `!A` when it is not, `A=x,y` when its text, or one of a list's, is one of these,
//! `A!=x,y` when it is none of them, and `P | Q` when one of the two holds. A stage runs when all of its conditions hold.

use std::fmt;

use crate::config::{Image, Value};

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    text: String,
    any: Vec<Test>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Test {
    setting: String,
    negated: bool,
    /// Nothing: the setting is set.
    values: Option<Vec<String>>,
}

impl Condition {
    /// Reads a condition.
    ///
    /// # Errors
    /// What is wrong with the text, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let any = text.split('|').map(|part| Test::parse(part.trim())).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text: text.to_owned(), any })
    }

    /// The settings that the condition asks about.
    pub fn settings(&self) -> impl Iterator<Item = &str> {
        self.any.iter().map(|test| test.setting.as_str())
    }

    /// Whether the condition holds for `image`.
    pub fn holds(&self, image: &Image) -> bool {
        self.any.iter().any(|test| test.holds(image))
    }

    /// Why the condition does not hold, in words.
    pub fn unmet(&self) -> String {
        let parts: Vec<String> = self
            .any
            .iter()
            .map(|test| match (&test.values, test.negated) {
                (None, false) => format!("no `{}=`", test.setting),
                (None, true) => format!("`{}=` is set", test.setting),
                (Some(values), false) => format!("`{}=` is not {}", test.setting, values.join(" or ")),
                (Some(values), true) => format!("`{}=` is {}", test.setting, values.join(" or ")),
            })
            .collect();
        parts.join(" and ")
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Test {
    fn parse(text: &str) -> Result<Self, String> {
        let (left, values) = match text.split_once('=') {
            None => (text, None),
            Some((left, right)) => (left, Some(right.split(',').map(|v| v.trim().to_owned()).collect())),
        };
        let left = left.trim();
        let (name, negated) = if values.is_some() {
            (left.strip_suffix('!').unwrap_or(left), left.ends_with('!'))
        } else {
            (left.strip_prefix('!').unwrap_or(left), left.starts_with('!'))
        };
        let name = name.trim();
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(format!("`{name}` is not the name of a setting"));
        }
        Ok(Self { setting: name.to_owned(), negated, values })
    }

    fn holds(&self, image: &Image) -> bool {
        let value = image.get(&self.setting);
        let plain = match &self.values {
            None => !value.is_empty(),
            Some(values) => values.iter().any(|wanted| match value {
                Value::Text(text) => text == wanted,
                Value::Bool(true) => wanted == "true",
                Value::Bool(false) => wanted == "false",
                Value::Number(number) => number.to_string() == *wanted,
                Value::List(items) => items.iter().any(|item| item.as_text() == Some(wanted)),
                _ => false,
            }),
        };
        plain != self.negated
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::PathBuf;

    use super::*;
    use crate::config::{Origin, Sourced};

    fn image(values: &[(&'static str, Value)]) -> Image {
        let values = values
            .iter()
            .map(|(name, value)| (*name, Sourced { value: value.clone(), origin: Origin::Default }))
            .collect::<BTreeMap<_, _>>();
        Image { name: "main".to_owned(), project: PathBuf::from("/"), values }
    }

    #[test]
    fn conditions_hold_as_documented() {
        let image = image(&[
            ("Format", Value::text("tar")),
            ("Packages", Value::List(vec![Value::text("bash")])),
            ("Checksum", Value::Bool(false)),
        ]);
        let holds = |text: &str| Condition::parse(text).unwrap().holds(&image);
        assert!(holds("Packages"));
        assert!(!holds("!Packages"));
        assert!(!holds("Checksum"));
        assert!(holds("Format=tar,cpio"));
        assert!(!holds("Format!=tar,cpio"));
        assert!(holds("Format=none | Packages"));
        assert!(!holds("BuildPackages | Checksum"));
        assert!(holds("Checksum=false"));
        assert!(Condition::parse("=x").is_err());
        assert!(Condition::parse("A | ").is_err());
    }
}
