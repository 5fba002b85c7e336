//! The tables of settings in `docs/configuration.md` are made from the settings table.

use std::fmt::Write as _;
use std::path::Path;

use mkosi::config::table::{SECTIONS, SETTINGS, Scope};

const START: &str = "<!-- settings -->\n";
const END: &str = "<!-- end of settings -->";

fn tables() -> String {
    let mut text = String::new();
    for section in SECTIONS {
        let _ = writeln!(text, "\n### [{section}]\n");
        text.push_str("| setting | options | scope | by being there | for what |\n| --- | --- | --- | --- | --- |\n");
        for setting in SETTINGS.iter().filter(|setting| setting.section == *section) {
            let scope = match setting.scope {
                Scope::Local => "local",
                Scope::Universal => "universal",
                Scope::Multiversal => "multiversal",
                Scope::Inherit => "inherit",
                Scope::Main => "main",
                Scope::Tools => "tools",
                Scope::Initrd => "initrd",
                Scope::InitrdInherit => "initrd-inherit",
            };
            let options: Vec<String> = setting.options.iter().map(|option| format!("`{option}`")).collect();
            let paths: Vec<String> = setting.default_paths.iter().map(|path| format!("`mkosi.{path}`")).collect();
            let star = if setting.affects_output { "" } else { " \\*" };
            let _ = writeln!(
                text,
                "| `{}=`{star} | {} | {scope} | {} | {} |",
                setting.name,
                options.join(" "),
                paths.join(" "),
                setting.help.replace('|', "\\|")
            );
        }
    }
    text.push('\n');
    text
}

#[test]
fn the_tables_are_those_of_the_settings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md");
    let text = std::fs::read_to_string(&path).expect("docs/configuration.md");
    let (before, rest) = text.split_once(START).expect("the start mark");
    let (old, after) = rest.split_once(END).expect("the end mark");
    let new = tables();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{START}{new}{END}{after}")).expect("written");
    } else {
        assert!(old == new, "the settings changed: run `UPDATE_DOCS=1 cargo test --test config_docs`");
    }
}
