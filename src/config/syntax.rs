//! The text of a configuration file: sections, assignments, comments and continuation lines, each with its place.
//!
//! Knows nothing of settings: any name and any value is kept.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use super::diagnostic::{Diagnostic, Place, clip};

/// One line of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from one.
    pub number: usize,
    /// Of the first character, counted in characters from one.
    pub column: usize,
    /// What it says, without comment and white space around it.
    pub text: String,
}

/// What a file consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// `[Name]`: everything up to the next one belongs to it.
    Section {
        /// The name in the brackets.
        name: String,
        /// The line of the bracket.
        line: Line,
    },
    /// `Key=value`.
    Assignment {
        /// What stands before the equals sign.
        key: Line,
        /// The lines of the value; the first stands after the equals sign and may be empty.
        lines: Vec<Line>,
    },
}

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// What it consists of.
    pub entries: Vec<Entry>,
    /// Its lines as they stand in it.
    pub source: Vec<String>,
    /// What was wrong in it.
    pub problems: Vec<Diagnostic>,
}

/// The value of an assignment as one text.
pub fn value(lines: &[Line]) -> String {
    lines.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
}

/// What a path leads to that can't be read to an end, or not at once. `/dev/null` can: a link to it is an empty file.
pub(super) fn endless(path: &Path) -> Option<&'static str> {
    let metadata = path.metadata().ok()?;
    let kind = metadata.file_type();
    if kind.is_block_device() {
        return Some("a block device");
    }
    if kind.is_fifo() || kind.is_socket() {
        return Some("a pipe or socket");
    }
    let null = Path::new("/dev/null").metadata().is_ok_and(|null| null.rdev() == metadata.rdev());
    (kind.is_char_device() && !null).then_some("a device")
}

impl File {
    /// The place of a line in this file, `length` characters long.
    pub fn place(&self, line: &Line, length: usize) -> Place {
        Place {
            path: self.path.clone(),
            line: line.number,
            column: line.column,
            length,
            source: line.number.checked_sub(1).and_then(|index| self.source.get(index)).cloned(),
        }
    }

    /// The place of `token` in a value, or of the value, or of its key where it is empty.
    pub fn place_of(&self, key: &Line, lines: &[Line], token: Option<&str>) -> Place {
        let token = token.and_then(|token| token.lines().next()).filter(|token| !token.is_empty());
        if let Some(token) = token {
            for line in lines {
                if let Some(at) = line.text.find(token) {
                    let before = line.text.get(..at).map_or(0, |text| text.chars().count());
                    let line = Line { column: line.column + before, ..line.clone() };
                    return self.place(&line, token.chars().count());
                }
            }
        }
        match lines.iter().find(|line| !line.text.is_empty()) {
            Some(line) => self.place(line, line.text.chars().count()),
            None => self.place(key, key.text.chars().count()),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When it can't be read, is no file, or isn't UTF-8.
    pub fn read(path: &Path) -> Result<Self, Box<Diagnostic>> {
        if let Some(what) = endless(path) {
            return Err(Box::new(
                Diagnostic::error(format!("a file is expected here, but this is {what}")).in_file(path),
            ));
        }
        let bytes = std::fs::read(path).map_err(|error| {
            Box::new(if path.is_dir() {
                Diagnostic::error("a file is expected here, but this is a directory")
                    .in_file(path)
                    .hint("give the directory a name without the extension, or put the settings into a file")
            } else {
                Diagnostic::error(format!("can't read the configuration file: {error}")).in_file(path)
            })
        })?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Self::parse(path, text)),
            Err(error) => {
                let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let number = before.iter().filter(|byte| **byte == b'\n').count() + 1;
                let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let line = bytes.get(start..).unwrap_or_default().split(|byte| *byte == b'\n').next();
                let column = before.get(start..).map_or(0, |text| String::from_utf8_lossy(text).chars().count()) + 1;
                let error = Diagnostic::error("the file is not UTF-8")
                    .at(Place {
                        path: path.to_owned(),
                        line: number,
                        column,
                        length: 1,
                        source: line.map(|line| String::from_utf8_lossy(line).into_owned()),
                    })
                    .hint("convert it with `iconv -f latin1 -t utf-8`, or correct the marked character");
                Err(Box::new(error))
            }
        }
    }

    /// Parses the text of a file. What is wrong is kept in `problems`, and the rest is read all the same.
    pub fn parse(path: &Path, text: &str) -> Self {
        let source: Vec<String> =
            text.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line).to_owned()).collect();
        let mut file = Self { path: path.to_owned(), entries: Vec::new(), source, problems: Vec::new() };
        let margin = margin(&file.source);
        let mut in_section = false;
        let source = std::mem::take(&mut file.source);
        for (index, whole) in source.iter().enumerate() {
            let body = whole.split('#').next().unwrap_or_default();
            let text = body.trim();
            if text.is_empty() {
                continue;
            }
            let indent = body.len() - body.trim_start().len();
            let column = body.get(..indent).map_or(0, |space| space.chars().count()) + 1;
            let line = Line { number: index + 1, column, text: text.to_owned() };
            if indent > margin
                && let Some(Entry::Assignment { lines, .. }) = file.entries.last_mut()
            {
                lines.push(line);
                continue;
            }
            let place = |file: &Self| Place { source: Some(whole.clone()), ..file.place(&line, text.chars().count()) };
            if let Some(rest) = text.strip_prefix('[') {
                match rest.strip_suffix(']').map(str::trim) {
                    Some(name) if !name.is_empty() => {
                        in_section = true;
                        file.entries.push(Entry::Section { name: name.to_owned(), line });
                    }
                    Some(_) => {
                        let place = place(&file);
                        file.problems.push(Diagnostic::error("the section has no name").at(place));
                    }
                    None => {
                        let place = place(&file);
                        let hint = format!("close the bracket: `[{}]`", clip(rest.trim_end_matches(']').trim()));
                        file.problems
                            .push(Diagnostic::error("the section's bracket is not closed").at(place).hint(hint));
                    }
                }
                continue;
            }
            let Some((key, value)) = text.split_once('=') else {
                let place = place(&file);
                file.problems.push(
                    Diagnostic::error(format!("`{}` is neither a section nor an assignment", clip(text)))
                        .at(place)
                        .accepting("[Section], Setting=value, or an indented line that continues a value"),
                );
                continue;
            };
            if !in_section {
                let place = place(&file);
                file.problems.push(
                    Diagnostic::error(format!("`{}=` stands before the first section", clip(key.trim())))
                        .at(place)
                        .hint("put the line below a section such as [Content]"),
                );
                continue;
            }
            if key.trim().is_empty() {
                let place = place(&file);
                file.problems.push(Diagnostic::error("no setting is named before the equals sign").at(place));
                continue;
            }
            let space = value.len() - value.trim_start().len();
            let before = key.chars().count() + 1 + value.get(..space).map_or(0, |space| space.chars().count());
            let first = Line { number: line.number, column: line.column + before, text: value.trim().to_owned() };
            let key = Line { text: key.trim().to_owned(), ..line };
            file.entries.push(Entry::Assignment { key, lines: vec![first] });
        }
        file.source = source;
        file
    }
}

/// The white space, in bytes, that all lines with text start with: a file that is indented as a whole is read as if
/// it weren't.
fn margin(lines: &[String]) -> usize {
    let mut common: Option<&str> = None;
    for line in lines.iter().filter(|line| !line.trim().is_empty()) {
        let space = line.get(..line.len() - line.trim_start().len()).unwrap_or_default();
        common = Some(match common {
            None => space,
            Some(common) => {
                let same = common.bytes().zip(space.bytes()).take_while(|(a, b)| a == b).count();
                common.get(..same).unwrap_or_default()
            }
        });
    }
    common.map_or(0, str::len)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn assignments(text: &str) -> Vec<(String, String)> {
        let file = File::parse(Path::new("f"), text);
        assert_eq!(file.problems, []);
        file.entries
            .iter()
            .filter_map(|entry| match entry {
                Entry::Assignment { key, lines } => Some((key.text.clone(), value(lines))),
                Entry::Section { .. } => None,
            })
            .collect()
    }

    #[test]
    fn comments_cut_and_lines_continue() {
        let text = "[Content]\nPackages=a # first\n  # whole line\n\n  b#glued\n\tc\nHostname=\n    h\n";
        assert_eq!(assignments(text), [("Packages".into(), "a\nb\nc".into()), ("Hostname".into(), "\nh".into())]);
    }

    #[test]
    fn an_indented_file_is_dedented() {
        assert_eq!(
            assignments("  [A]\n  X=1\n    2\n  Y=3\r\n"),
            [("X".into(), "1\n2".into()), ("Y".into(), "3".into())]
        );
    }

    #[test]
    fn problems_do_not_stop_the_reading() {
        let file = File::parse(Path::new("f"), "A=1\n[Out\n[]\n[Output]\nnonsense\n=x\nFormat=disk\n");
        assert_eq!(file.problems.len(), 5);
        assert!(matches!(file.entries.last(), Some(Entry::Assignment { key, .. }) if key.text == "Format"));
    }

    #[test]
    fn places_are_exact() {
        let file = File::parse(Path::new("f"), "[Content]\nPackages =  ä bc\n   de fg\n");
        let Some(Entry::Assignment { key, lines }) = file.entries.last() else { panic!("no assignment") };
        let place = file.place_of(key, lines, Some("bc"));
        assert_eq!((place.line, place.column, place.length), (2, 15, 2));
        let place = file.place_of(key, lines, Some("fg"));
        assert_eq!((place.line, place.column), (3, 7));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[\\[\\]=#a \tä\n\r!|-]*") {
            let file = File::parse(Path::new("f"), &text);
            for entry in &file.entries {
                if let Entry::Assignment { key, lines } = entry {
                    let _ = Diagnostic::error("x").at(file.place_of(key, lines, Some("a"))).to_string();
                }
            }
        }

        #[test]
        fn what_is_written_is_read(values in proptest::collection::vec("[a-z]{1,5}", 1..5)) {
            let text = format!("[Content]\nPackages={}\n", values.join("\n    "));
            prop_assert_eq!(assignments(&text), [("Packages".to_owned(), values.join("\n"))]);
        }
    }
}
