//! The variables that scripts get from `EnvironmentFiles=` and `Environment=`.
//!
//! Knows nothing of scripts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::image::Image;
use super::value::{Sourced, Value};

/// What is wrong with a file of `EnvironmentFiles=`.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    /// It can't be read.
    #[error("can't read the environment file {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line with nothing before the equals sign.
    #[error("{}:{line}: `{text}` names no variable: write NAME=VALUE", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// The line, counted from one.
        line: usize,
        /// What it says.
        text: String,
    },
}

/// The variables of an image: those of its files in their order, then its own, which count more. A line of a file is
/// `NAME=VALUE`, or the name of a variable of `outside`; nothing in it is quoted. Empty lines and those with `#` in
/// front are passed over.
///
/// # Errors
/// When a file can't be read, or a line names no variable.
pub fn environment(
    image: &Image,
    outside: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, EnvironmentError> {
    let mut variables = BTreeMap::new();
    for path in image.get("EnvironmentFiles").items().iter().filter_map(Value::as_path) {
        let text =
            std::fs::read_to_string(path).map_err(|error| EnvironmentError::Read { path: path.to_owned(), error })?;
        let lines = text.lines().map(str::trim).enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = match line.split_once('=') {
                Some((name, value)) => (name.trim(), value.trim().to_owned()),
                None => (line, outside.get(line).cloned().unwrap_or_default()),
            };
            if name.is_empty() {
                let (path, text) = (path.to_owned(), line.to_owned());
                return Err(EnvironmentError::Name { path, line: index + 1, text });
            }
            variables.insert(name.to_owned(), value);
        }
    }
    if let Value::Map(own) = image.get("Environment") {
        variables.extend(own.iter().filter_map(|(name, value)| Some((name.clone(), value.as_text()?.to_owned()))));
    }
    Ok(variables)
}

impl Image {
    /// Puts the variables of `EnvironmentFiles=` into `Environment=` and takes the files away: from here on they are
    /// values like others, whatever file they stand in, and what a name alone stands for is known.
    ///
    /// # Errors
    /// As [`environment`].
    pub fn take_environment_files(&mut self, outside: &BTreeMap<String, String>) -> Result<(), EnvironmentError> {
        let Some(files) = self.values.get("EnvironmentFiles").filter(|files| !files.value.is_empty()) else {
            return Ok(());
        };
        let origin = match self.values.get("Environment") {
            Some(own) if !own.value.is_empty() => own.origin.clone(),
            _ => files.origin.clone(),
        };
        let variables = environment(self, outside)?;
        let value = Value::Map(variables.into_iter().map(|(name, value)| (name, Value::Text(value))).collect());
        self.values.insert("Environment", Sourced { value, origin: origin.clone() });
        self.values.insert("EnvironmentFiles", Sourced { value: Value::List(Vec::new()), origin });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::value::Origin;
    use super::*;

    #[test]
    fn files_come_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mkosi.env");
        std::fs::write(&path, "# x\nA=1\n\nB = two words=3\nHOME\nC=no\nD=\"q q\"\n").unwrap();
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
        let expected = [("A", "1"), ("B", "two words=3"), ("C", "yes"), ("D", "\"q q\""), ("HOME", "/h")];
        assert_eq!(found, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
        let mut merged = image.clone();
        merged.take_environment_files(&outside).unwrap();
        assert!(merged.get("EnvironmentFiles").is_empty());
        assert_eq!(environment(&merged, &BTreeMap::new()).unwrap(), found);
        std::fs::write(directory.path().join("mkosi.env"), "A=1\n = x\n").unwrap();
        let error = environment(&image, &outside).unwrap_err().to_string();
        assert!(error.contains("mkosi.env:2: `= x`"), "{error}");
        image.values.insert("EnvironmentFiles", sourced(Value::List(vec![Value::Path("/nowhere".into())])));
        assert!(environment(&image, &outside).unwrap_err().to_string().contains("/nowhere"));
    }
}
