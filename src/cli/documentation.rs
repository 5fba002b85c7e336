//! `mkosi documentation`: the manual, made of the texts in `docs/man/` and the settings table.
//!
//! Knows nothing of how long output is shown.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::{Command, Stdio};

use super::arguments::{command, setting_args};
use super::roff;
use super::verbs::{Verb, Words};
use crate::config::table::{Default, SECTIONS, SETTINGS, Scope, Setting};
use crate::types::suggest::nearest;

/// A page of the manual.
#[derive(Debug)]
pub struct Page {
    /// Its name, as man(1) knows it.
    pub name: &'static str,
    /// The section of the manual.
    pub section: u8,
    text: &'static str,
}

/// The pages, the one that is shown first.
pub const PAGES: &[Page] = &[
    Page { name: "mkosi", section: 1, text: include_str!("../../docs/man/mkosi.1.md") },
    Page { name: "mkosi-graph", section: 7, text: include_str!("../../docs/man/mkosi-graph.7.md") },
    Page { name: "mkosi-caching", section: 7, text: include_str!("../../docs/man/mkosi-caching.7.md") },
    Page { name: "mkosi-store", section: 7, text: include_str!("../../docs/man/mkosi-store.7.md") },
];

/// Why there is no page to show.
#[derive(Debug, thiserror::Error)]
pub enum DocumentationError {
    /// A page that isn't there.
    #[error("the manual has no page `{name}`{hint}\n  accepted: {}", names().join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
        /// The nearest name.
        hint: String,
    },
    /// More than one page.
    #[error("`mkosi documentation` shows one page: {0}")]
    Many(String),
    /// A program that is needed for the format.
    #[error(
        "can't run {program}, which `--doc-format={format}` needs: {error}\n  hint: --doc-format=markdown needs none"
    )]
    Program {
        /// The program.
        program: &'static str,
        /// The format.
        format: String,
        /// Why.
        error: String,
    },
}

/// The short names of the pages.
pub fn names() -> Vec<&'static str> {
    PAGES.iter().map(|page| page.name.strip_prefix("mkosi-").unwrap_or(page.name)).collect()
}

/// The page of a name: `graph`, `mkosi-graph`, `mkosi-graph.7` and `mkosi-graph(7)` are the same.
///
/// # Errors
/// When there is none.
pub fn find(words: &[String]) -> Result<&'static Page, DocumentationError> {
    let word = match words {
        [] => "mkosi",
        [word] => word,
        _ => return Err(DocumentationError::Many(names().join(", "))),
    };
    let bare = word.trim_end_matches(')').trim_end_matches(['1', '7']).trim_end_matches(['.', '(']);
    let matches = |page: &&Page| page.name == bare || page.name.strip_prefix("mkosi-") == Some(bare);
    PAGES.iter().find(matches).ok_or_else(|| DocumentationError::Unknown {
        name: word.to_owned(),
        hint: nearest(bare, names()).map_or_else(String::new, |near| format!("\n  hint: did you mean `{near}`?")),
    })
}

/// What is to be shown, and whether it was made for a terminal.
///
/// On a terminal, `man` is the page as man(1) formats it, and `auto` the same where man(1) is there. Elsewhere `man`
/// is the page's source, for installing it, and `auto` is Markdown.
///
/// # Errors
/// When there is no such page, or a program that the format needs is missing.
pub fn render(words: &[String], format: &str, terminal: bool) -> Result<String, DocumentationError> {
    let page = find(words)?;
    let failed = |program, error| DocumentationError::Program { program, format: format.to_owned(), error };
    match (format, terminal) {
        ("man", false) => Ok(page.roff()),
        ("man", true) => filter("man", &["-l", "-"], &page.roff()).map_err(|error| failed("man", error)),
        ("pandoc", _) => {
            let arguments = ["--from=markdown", "--to=plain"];
            filter("pandoc", &arguments, &page.markdown()).map_err(|error| failed("pandoc", error))
        }
        ("system", _) => {
            let section = page.section.to_string();
            filter("man", &[&section, page.name], "").map_err(|error| failed("man", error))
        }
        ("auto", true) => Ok(filter("man", &["-l", "-"], &page.roff()).unwrap_or_else(|_| page.markdown())),
        _ => Ok(page.markdown()),
    }
}

/// What a program makes of a text.
fn filter(program: &str, arguments: &[&str], text: &str) -> Result<String, String> {
    let width = rustix::termios::tcgetwinsize(std::io::stdout()).map_or(80, |size| size.ws_col.clamp(40, 120));
    let mut child = Command::new(program)
        .args(arguments)
        .env("MANWIDTH", width.to_string())
        .env("MAN_KEEP_FORMATTING", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    // The text is read to its end before anything is printed by any of these, but not to rely on it:
    let stdin = child.stdin.take();
    let text = text.to_owned();
    let writer = std::thread::spawn(move || stdin.map(|mut stdin| stdin.write_all(text.as_bytes())));
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    let _ = writer.join();
    if !output.status.success() || output.stdout.is_empty() {
        return Err(format!("it ended with {}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Page {
    /// The page in Markdown, with definition lists as pandoc has them.
    pub fn markdown(&self) -> String {
        self.text
            .replace("<!-- verbs -->\n", &verbs())
            .replace("<!-- options -->\n", &options())
            .replace("<!-- settings -->\n", &settings())
    }

    /// The page in the language of man(7).
    pub fn roff(&self) -> String {
        let source = concat!("mkosi ", env!("CARGO_PKG_VERSION"));
        roff::page(self.name, self.section, source, &self.markdown())
    }
}

fn verbs() -> String {
    let mut text = String::new();
    for verb in Verb::ALL.iter() {
        let words = match verb.words() {
            Words::Images => " [*IMAGE*...]",
            Words::Arguments => " [*ARGUMENT*...]",
            Words::Nothing => "",
        };
        let mut help = format!("{}.", verb.help());
        if !verb.aliases().is_empty() {
            let _ = write!(help, " Also called {}.", verb.aliases().join(", "));
        }
        let _ = writeln!(text, "**{}**{words}\n: {}\n", verb.name(), markdown_text(&help));
    }
    text
}

/// The options that are no settings.
fn options() -> String {
    let mut text = String::new();
    let command = command();
    let own = command.get_arguments().filter(|arg| arg.get_help_heading() == Some("Program") && !arg.is_hide_set());
    for arg in own {
        let value = if arg.get_action().takes_values() { arg.get_value_names().and_then(<[_]>::first) } else { None };
        let mut names: Vec<String> = arg.get_short().map(|short| format!("-{short}")).into_iter().collect();
        names.extend(arg.get_long().map(|long| format!("--{long}")));
        names.extend(arg.get_visible_aliases().unwrap_or_default().into_iter().map(|alias| format!("--{alias}")));
        let names: Vec<String> = names.iter().map(|name| option(name, value.map(|value| value.as_str()))).collect();
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(text, "{}\n: {}.\n", names.join(", "), markdown_text(&help));
    }
    text
}

fn option(name: &str, value: Option<&str>) -> String {
    match value {
        None => format!("**{name}**"),
        Some(value) if name.starts_with("--") => format!("**{name}**=*{}*", markdown_text(value)),
        Some(value) => format!("**{name}** *{}*", markdown_text(value)),
    }
}

fn settings() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let _ = writeln!(text, "## [{section}]\n");
        for setting in SETTINGS.iter().filter(|setting| setting.section == *section) {
            let _ = writeln!(text, "{}\n: {}\n", head(setting), body(setting));
        }
    }
    text
}

/// The names of a setting: in files and as options.
fn head(setting: &'static Setting) -> String {
    let mut names = vec![format!("**{}=**", setting.name)];
    for arg in setting_args(setting).iter().filter(|arg| !arg.is_hide_set()) {
        let value = if arg.get_long().is_some() { arg.get_value_names().and_then(<[_]>::first) } else { None };
        let value = value.map(|value| value.as_str());
        names.extend(arg.get_long().map(|long| option(&format!("--{long}"), value)));
        names.extend(arg.get_short().map(|short| option(&format!("-{short}"), value)));
    }
    names.join(", ")
}

fn body(setting: &Setting) -> String {
    let mut text = format!("{}.", markdown_text(setting.help));
    if let Some(accepted) = setting.kind.accepted() {
        let _ = write!(text, " Accepted: {}.", markdown_text(&accepted));
    }
    let default = match setting.default {
        Default::Bool(value) => if value { "yes" } else { "no" }.to_owned(),
        Default::Number(value) => value.to_string(),
        Default::Text(value) => value.to_owned(),
        Default::Texts(values) => values.join(", "),
        Default::From(_) => "follows from other settings or the host".to_owned(),
        Default::Empty => String::new(),
    };
    if !default.is_empty() {
        let _ = write!(text, " Default: {}.", markdown_text(&default));
    }
    if !setting.default_paths.is_empty() {
        let paths: Vec<String> =
            setting.default_paths.iter().map(|path| format!("*mkosi.{}*", markdown_text(path))).collect();
        let what = if setting.reads_path { "The value can stand in" } else { "Set by the presence of" };
        let _ = write!(text, " {what} {}.", paths.join(", "));
    }
    if !setting.aliases.is_empty() {
        let _ = write!(text, " Called {} in older versions.", markdown_text(&setting.aliases.join(", ")));
    }
    text.push_str(match setting.scope {
        Scope::Universal | Scope::Multiversal => " The main image's value counts for all images.",
        Scope::Inherit => " Other images start from the main image's value.",
        Scope::InitrdInherit => " The default initrd starts from the main image's value.",
        Scope::Local | Scope::Main | Scope::Tools | Scope::Initrd => "",
    });
    text
}

/// A text that says itself in Markdown.
fn markdown_text(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '*' | '_' | '<' | '[' | ']' | '\\') {
            result.push('\\');
        }
        result.push(c);
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn names_of_pages() {
        for name in ["graph", "mkosi-graph", "mkosi-graph.7", "mkosi-graph(7)"] {
            assert_eq!(find(&words(&[name])).unwrap().name, "mkosi-graph");
        }
        assert_eq!(find(&[]).unwrap().name, "mkosi");
        assert!(find(&words(&["garph"])).unwrap_err().to_string().contains("did you mean `graph`"));
        assert!(find(&words(&["a", "b"])).is_err());
    }

    #[test]
    fn the_main_page_has_every_setting_option_and_verb() {
        for text in [PAGES[0].markdown(), PAGES[0].roff().replace("\\-", "-")] {
            for setting in SETTINGS.iter() {
                assert!(text.contains(&format!("{}=", setting.name)), "{}", setting.name);
                for option in setting.options {
                    assert!(text.contains(option), "{option}");
                }
            }
            for verb in Verb::ALL.iter() {
                assert!(text.contains(verb.name()), "{}", verb.name());
            }
            assert!(!text.contains("<!--"));
        }
        for page in PAGES {
            let roff = page.roff();
            assert!(!roff.contains("**") && !roff.contains("\n:"), "marks that are not understood in {}", page.name);
        }
    }

    #[test]
    fn away_from_a_terminal_man_is_the_source() {
        assert!(render(&words(&["store"]), "man", false).unwrap().starts_with(".TH \"MKOSI\\-STORE\" \"7\""));
        assert!(render(&words(&["store"]), "auto", false).unwrap().starts_with("# NAME"));
        assert!(render(&words(&["store"]), "markdown", true).unwrap().starts_with("# NAME"));
    }

    #[test]
    fn groff_finds_nothing_wrong() {
        for page in PAGES {
            let mut child = Command::new("groff")
                .args(["-man", "-Tutf8", "-ww", "-z"])
                .stdin(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("groff");
            child.stdin.take().unwrap().write_all(page.roff().as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}
