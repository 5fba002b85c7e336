//! What an extension or a portable service has to say of itself, so that systemd takes it for one: the extension's
//! release file (os-release(5)), and the mount points that a portable service needs.

use std::collections::BTreeMap;

use super::apply::{Step, changed_by};
use super::{Context, Outputs, StageError};
use crate::output::manifest::{extension_fields, os_release};
use crate::store::MergedTree;

/// The files that are mounted over those of a portable service, or that its users and groups are added to.
const MOUNT_POINTS: [(&str, u32); 7] = [
    ("passwd", 0o644),
    ("group", 0o644),
    ("shadow", 0o600),
    ("gshadow", 0o600),
    ("nsswitch.conf", 0o644),
    ("resolv.conf", 0o644),
    ("machine-id", 0o644),
];

/// Writes the files.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let merged = cx.merged();
    let variables = super::script::variables(cx);
    let steps = match cx.view.text("Format") {
        Some("portable") => portable(&merged, &variables),
        format => vec![extension(cx, format.unwrap_or_default(), &merged, &variables)?],
    };
    changed_by(cx, &steps)
}

fn portable(tree: &MergedTree, variables: &BTreeMap<String, String>) -> Vec<Step> {
    let missing = MOUNT_POINTS.iter().filter(|(name, _)| tree.lookup(format!("etc/{name}").as_bytes()).is_none());
    let file = |(name, mode): &(&str, u32)| Step::Write {
        path: format!("etc/{name}"),
        contents: Vec::new(),
        mode: *mode,
        keep: true,
    };
    let mut steps: Vec<Step> = missing.map(file).collect();
    if let Some(prefixes) = variables.get("PORTABLE_PREFIXES").filter(|prefixes| !prefixes.is_empty()) {
        steps.push(Step::OsRelease { fields: vec![("PORTABLE_PREFIXES".to_owned(), prefixes.clone())] });
    }
    steps
}

/// The release file with what is missing in it: which system the extension is for, and its own name and version.
fn extension(
    cx: &Context<'_>,
    format: &str,
    tree: &MergedTree,
    variables: &BTreeMap<String, String>,
) -> Result<Step, StageError> {
    let (prefix, directory) = if format == "confext" { ("CONFEXT", "etc") } else { ("SYSEXT", "usr/lib") };
    let output = cx.view.text("Output").unwrap_or("image");
    let mut fields: Vec<(String, String)> =
        extension_fields(tree, format, output).map_err(StageError::other)?.into_iter().collect();
    let system = os_release(tree).map_err(StageError::other)?;
    let of = |name: &str| format!("{prefix}_{name}");
    let of_system = |name: &str| system.get(name).cloned();
    let of_image = |setting: &str| cx.view.text(setting).map(str::to_owned);
    let wanted = [
        ("ID".to_owned(), Some(of_system("ID").unwrap_or_else(|| "_any".to_owned()))),
        (of("LEVEL"), of_system(&of("LEVEL"))),
        ("VERSION_ID".to_owned(), of_system("VERSION_ID")),
        (of("ID"), of_image("ImageId")),
        (of("VERSION_ID"), of_image("ImageVersion")),
        (
            of("SCOPE"),
            Some(variables.get(&of("SCOPE")).cloned().unwrap_or_else(|| "initrd system portable".to_owned())),
        ),
        ("ARCHITECTURE".to_owned(), of_image("Architecture")),
    ];
    for (name, value) in wanted {
        if let Some(value) = value.filter(|value| !value.is_empty())
            && !fields.iter().any(|(known, _)| *known == name)
        {
            fields.push((name, value));
        }
    }
    let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name}={}\n", quoted(value))).collect();
    Ok(Step::Write {
        path: format!("{directory}/extension-release.d/extension-release.{output}"),
        contents: lines.concat().into_bytes(),
        mode: 0o644,
        keep: false,
    })
}

/// A value as os-release(5) wants it: quoted if it has more than letters, digits and a few signs.
fn quoted(value: &str) -> String {
    if value.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return value.to_owned();
    }
    let mut quoted = "\"".to_owned();
    for character in value.chars() {
        if "\"\\$`".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted_where_they_must() {
        assert_eq!(quoted("12.1-a"), "12.1-a");
        assert_eq!(quoted("initrd system"), "\"initrd system\"");
        assert_eq!(quoted("a\"$b"), "\"a\\\"\\$b\"");
    }
}
