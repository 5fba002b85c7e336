//! What is told to the user about a configuration: errors and warnings with the place that they are about.
//!
//! Knows nothing of settings or of how a configuration is loaded, and prints nothing.

use std::fmt;
use std::path::{Path, PathBuf};

/// How bad a [`Diagnostic`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration still has a meaning, but maybe not the one that was meant.
    Warning,
    /// The configuration can't be used.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A place in a file, with the text of its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from one; zero when the whole file is meant.
    pub line: usize,
    /// The column of the first character, counted in characters from one.
    pub column: usize,
    /// How many characters are meant, at least one.
    pub length: usize,
    /// The text of the line, as it stands in the file.
    pub source: Option<String>,
}

impl Place {
    /// A whole file or directory.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), line: 0, column: 0, length: 1, source: None }
    }
}

/// An error or a warning about a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where; none for the command line and for what belongs to no file.
    pub place: Option<Place>,
    /// What would have been accepted, as a list of words or a description.
    pub accepted: Option<String>,
    /// What to do, the nearest known name for instance.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error without a place.
    pub fn error(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, message: message.into(), place: None, accepted: None, hint: None }
    }

    /// A warning without a place.
    pub fn warning(message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(message) }
    }

    /// The same, at a place.
    pub fn at(mut self, place: Place) -> Self {
        self.place = Some(place);
        self
    }

    /// The same, about a whole file.
    pub fn in_file(self, path: &Path) -> Self {
        self.at(Place::file(path))
    }

    /// The same, saying what is accepted.
    pub fn accepting(mut self, accepted: impl Into<String>) -> Self {
        self.accepted = Some(accepted.into());
        self
    }

    /// The same, with advice.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with "did you mean", where a near name is known.
    pub fn nearest(self, nearest: Option<&str>) -> Self {
        match nearest {
            Some(name) => self.hint(format!("did you mean `{name}`?")),
            None => self,
        }
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Shows paths below `directory` relative to it, for people who stand there.
    pub fn relative_to(mut self, directory: &Path) -> Self {
        if let Some(place) = &mut self.place
            && let Ok(short) = place.path.strip_prefix(directory)
        {
            place.path = short.to_owned();
        }
        self
    }
}

/// How many characters of a text or line are shown, and how many of them before the mark.
const SHOWN: usize = 200;
const BEFORE: usize = 60;

/// The text, or its beginning where it is longer than anyone reads.
pub(super) fn clip(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The part of a line that is shown for a mark at `column`, counted from one, and the mark's column in that part.
fn excerpt(line: &str, column: usize) -> (String, usize) {
    if line.len() <= SHOWN {
        return (line.to_owned(), column);
    }
    let start = if column > SHOWN { column - 1 - BEFORE } else { 0 };
    (line.chars().skip(start).take(SHOWN).collect(), column - start)
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Messages quote what was written, which has any length.
        let message: String = match self.message.char_indices().nth(4 * SHOWN) {
            Some((end, _)) => format!("{}...", self.message.get(..end).unwrap_or_default()),
            None => self.message.clone(),
        };
        write!(f, "{}: {message}", self.severity)?;
        if let Some(place) = &self.place {
            write!(f, "\n  --> {}", place.path.display())?;
            if place.line > 0 {
                write!(f, ":{}:{}", place.line, place.column)?;
            }
            if let (Some(source), true) = (&place.source, place.line > 0) {
                let number = place.line.to_string();
                let gutter = " ".repeat(number.len());
                // A tab before the mark stays a tab, so that the mark stands below what it means on any terminal.
                let (source, column) = excerpt(source, place.column);
                let before: String =
                    source.chars().take(column.saturating_sub(1)).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
                let rest = source.chars().count().saturating_sub(column.saturating_sub(1)).max(1);
                let mark = "^".repeat(place.length.clamp(1, rest));
                write!(f, "\n{gutter} |\n{number} | {}\n{gutter} | {before}{mark}", source.trim_end())?;
            }
        }
        if let Some(accepted) = &self.accepted {
            write!(f, "\n  accepted: {accepted}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// Everything that was found in one run, in the order in which it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Adds one; a repetition of what is there already is left out.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if !self.0.contains(&diagnostic) {
            self.0.push(diagnostic);
        }
    }

    /// Whether an error is among them.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(Diagnostic::is_error)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, diagnostic) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{diagnostic}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_the_place_with_a_mark() {
        let place = Place {
            path: "/p/mkosi.conf".into(),
            line: 12,
            column: 9,
            length: 3,
            source: Some("\tFormat=dsk  # no".to_owned()),
        };
        let diagnostic =
            Diagnostic::error("`Format` takes no `dsk`").at(place).accepting("disk, tar").nearest(Some("disk"));
        insta::assert_snapshot!(diagnostic.relative_to(Path::new("/p")), @r"
        error: `Format` takes no `dsk`
          --> mkosi.conf:12:9
           |
        12 | 	Format=dsk  # no
           | 	       ^^^
          accepted: disk, tar
          hint: did you mean `disk`?
        ");
    }

    #[test]
    fn a_long_line_is_shown_around_its_mark() {
        let line = format!("{}here{}", "a ".repeat(5000), " b".repeat(5000));
        let place = Place { path: "f".into(), line: 1, column: 10_001, length: 4, source: Some(line.clone()) };
        let text = Diagnostic::error(line).at(place).to_string();
        assert!(text.len() < 2000, "{}", text.len());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[3].find("here"), lines[4].find("^^^^"), "{text}");
        let beyond = Place { path: "f".into(), line: 1, column: 90_000, length: 4, source: Some("x".repeat(300)) };
        assert!(Diagnostic::error("x").at(beyond).to_string().ends_with('^'));
    }

    #[test]
    fn a_mark_beyond_the_line_is_no_panic() {
        let place = Place { path: "f".into(), line: 1, column: 90, length: 50, source: Some("é".to_owned()) };
        assert!(Diagnostic::warning("x").at(place).to_string().ends_with('^'));
    }
}
