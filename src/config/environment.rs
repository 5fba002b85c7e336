//! The variables that scripts get from `EnvironmentFiles=` and `Environment=`.
//!
//! Knows nothing of scripts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::image::Image;
use super::value::Value;

/// A file of `EnvironmentFiles=` that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("can't read the environment file {}: {error}", path.display())]
pub struct EnvironmentError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub error: std::io::Error,
}

/// The variables of an image: those of its files in their order, then its own, which count more. A line of a file is
/// `NAME=VALUE`, or the name of a variable of `outside`; empty lines and those with `#` in front are passed over.
///
/// # Errors
/// When a file can't be read.
pub fn environment(
    image: &Image,
    outside: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let mut variables = BTreeMap::new();
    for path in image.get("EnvironmentFiles").items().iter().filter_map(Value::as_path) {
        let text = std::fs::read_to_string(path).map_err(|error| EnvironmentError { path: path.to_owned(), error })?;
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = match line.split_once('=') {
                Some((name, value)) => (name.trim_end(), value.to_owned()),
                None => (line, outside.get(line).cloned().unwrap_or_default()),
            };
            variables.insert(name.to_owned(), value);
        }
    }
    if let Value::Map(own) = image.get("Environment") {
        variables.extend(own.iter().filter_map(|(name, value)| Some((name.clone(), value.as_text()?.to_owned()))));
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::super::value::{Origin, Sourced};
    use super::*;

    #[test]
    fn files_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mkosi.env");
        std::fs::write(&path, "# x\nA=1\n\nB = two words=3\nHOME\nC=no\n").unwrap();
        let sourced = |value| Sourced { value, origin: Origin::Default };
        let own = Value::Map(BTreeMap::from([("C".to_owned(), Value::text("yes"))]));
        let mut image = Image {
            name: "main".to_owned(),
            project: PathBuf::new(),
            values: BTreeMap::from([
                ("EnvironmentFiles", sourced(Value::List(vec![Value::Path(path)]))),
                ("Environment", sourced(own)),
            ]),
        };
        let outside = BTreeMap::from([("HOME".to_owned(), "/h".to_owned())]);
        let found = environment(&image, &outside).unwrap();
        let expected = [("A", "1"), ("B", " two words=3"), ("C", "yes"), ("HOME", "/h")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        image.values.insert("EnvironmentFiles", sourced(Value::List(vec![Value::Path("/nowhere".into())])));
        assert!(environment(&image, &outside).unwrap_err().to_string().contains("/nowhere"));
    }
}
