//! From the Markdown of the manual to the language of man(7).
//!
//! Knows headings, paragraphs, emphasis, code, lists and definition lists: what the manual uses.

use pulldown_cmark::{CodeBlockKind, Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// A page in the language of man(7). `title` and `section` stand at its head, `source` at its foot.
pub fn page(title: &str, section: u8, source: &str, markdown: &str) -> String {
    let mut writer = Writer::default();
    writer.line(&format!(".TH \"{}\" \"{section}\" \"\" \"{}\" \"\"", escape(&title.to_uppercase()), escape(source)));
    // Not hyphenated, so that names of options and settings stay whole; not spaced out.
    writer.line(".nh");
    writer.line(".ad l");
    for event in Parser::new_ext(markdown, Options::ENABLE_DEFINITION_LIST) {
        writer.event(event);
    }
    writer.text
}

#[derive(Default)]
struct Writer {
    text: String,
    /// Whether the last line is still open.
    open: bool,
    /// In a block of code.
    code: bool,
    /// The fonts that are on, the innermost last.
    fonts: Vec<char>,
    /// The paragraph starts right after a tag (`.TP`, `.IP`), which makes it one already.
    tagged: bool,
    /// How deep in definitions.
    definitions: usize,
}

impl Writer {
    fn line(&mut self, line: &str) {
        self.end_line();
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn end_line(&mut self) {
        if std::mem::take(&mut self.open) {
            self.text.push('\n');
        }
    }

    fn words(&mut self, text: &str) {
        let text = escape(text);
        // A dot or apostrophe at the start of a line would be a command.
        if !self.open && text.starts_with(['.', '\'']) {
            self.text.push_str("\\&");
        }
        self.text.push_str(&text);
        self.open = true;
    }

    fn font(&mut self, font: Option<char>) {
        match font {
            Some(font) => self.fonts.push(font),
            None => {
                self.fonts.pop();
            }
        }
        let font = self.fonts.last().copied().unwrap_or('R');
        self.text.push_str(&format!("\\f{font}"));
        self.open = true;
    }

    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(&tag),
            Event::Text(text) if self.code => {
                for line in text.lines() {
                    self.end_line();
                    self.words(line);
                    self.open = true;
                }
                self.end_line();
            }
            Event::Text(text) => self.words(&text),
            Event::Code(text) => {
                self.font(Some('B'));
                self.words(&text);
                self.font(None);
            }
            Event::SoftBreak => self.words(" "),
            Event::HardBreak => self.line(".br"),
            _ => {}
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Heading { level: HeadingLevel::H1, .. } => self.begin(".SH "),
            Tag::Heading { .. } => self.begin(".SS "),
            Tag::Paragraph if std::mem::take(&mut self.tagged) => self.end_line(),
            Tag::Paragraph if self.definitions > 0 => self.line(".IP"),
            Tag::Paragraph => self.line(".PP"),
            Tag::Emphasis => self.font(Some('I')),
            Tag::Strong => self.font(Some('B')),
            Tag::CodeBlock(CodeBlockKind::Fenced(_) | CodeBlockKind::Indented) => {
                self.line(".PP\n.RS 4\n.nf");
                self.code = true;
            }
            Tag::Item => {
                self.line(".IP \\(bu 2");
                self.tagged = true;
            }
            Tag::DefinitionListTitle => self.line(".TP"),
            Tag::DefinitionListDefinition => {
                self.end_line();
                self.definitions += 1;
                self.tagged = true;
            }
            _ => {}
        }
    }

    fn begin(&mut self, macro_name: &str) {
        self.end_line();
        self.text.push_str(macro_name);
        self.open = true;
    }

    fn end(&mut self, tag: &TagEnd) {
        match tag {
            TagEnd::Emphasis | TagEnd::Strong => self.font(None),
            TagEnd::CodeBlock => {
                self.code = false;
                self.line(".fi\n.RE");
            }
            TagEnd::DefinitionListDefinition => {
                self.end_line();
                self.definitions = self.definitions.saturating_sub(1);
                self.tagged = false;
            }
            TagEnd::Item => {
                self.end_line();
                self.tagged = false;
            }
            TagEnd::Heading(_) | TagEnd::Paragraph | TagEnd::DefinitionListTitle => self.end_line(),
            _ => {}
        }
    }
}

/// Text with the characters that troff gives a meaning written as themselves, groff_char(7).
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => escaped.push_str("\\(rs"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '"' => escaped.push_str("\\(dq"),
            '`' => escaped.push_str("\\(ga"),
            '^' => escaped.push_str("\\(ha"),
            '~' => escaped.push_str("\\(ti"),
            c if c.is_ascii() => escaped.push(c),
            c => escaped.push_str(&format!("\\[u{:04X}]", u32::from(c))),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_manual_uses() {
        let markdown = "# NAME\n\nx - a *thing*\nof `its` own\n\n## Part\n\n.start 'a'\n\n**-a**, *B*\n: One.\n\n  Two.\n\n\
                        C\n: Three.\n\n```\n.code -x\n\n  \\b\n```\n\n- item\n- é\n";
        insta::assert_snapshot!(page("mkosi-x", 7, "mkosi", markdown), @r#"
        .TH "MKOSI\-X" "7" "" "mkosi" ""
        .nh
        .ad l
        .SH NAME
        .PP
        x \- a \fIthing\fR of \fBits\fR own
        .SS Part
        .PP
        \&.start \(aqa\(aq
        .TP
        \fB\-a\fR, \fIB\fR
        One.
        .IP
        Two.
        .TP
        C
        Three.
        .PP
        .RS 4
        .nf
        \&.code \-x

          \(rsb
        .fi
        .RE
        .IP \(bu 2
        item
        .IP \(bu 2
        \[u00E9]
        "#);
    }

    proptest! {
        #[test]
        fn no_text_becomes_a_command(text in "[-.'\\\\ a-c`*#:\n]{0,60}") {
            for line in page("x", 1, "y", &text).lines().skip(3) {
                let command = line.starts_with(['.', '\'']);
                let ours = [".SH", ".SS", ".PP", ".IP", ".TP", ".RS", ".RE", ".nf", ".fi", ".br"];
                prop_assert!(!command || ours.iter().any(|name| line.starts_with(name)), "{}", line);
            }
        }
    }
}
