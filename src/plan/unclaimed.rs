//! What a configuration asks for and no stage can give: settings without a stage, formats and distributions that
//! this version can't make.
//!
//! Reads the declarations and the settings table alone, so that it follows the stages as they come.

use super::{Declarations, PlanError};
use crate::config::table::{self, Default, Kind, SETTINGS, Scope, Setting};
use crate::config::{Image, Origin, Value};
use crate::output::{Compression, foreign};
use crate::sandbox::{has_ids, started_as_root};

/// Settings that no stage needs to know, and why.
pub const WITHOUT_STAGE: &[(&str, &str)] = &[
    ("ConfigureScripts", "they run before the graph is made, and what they change stands in other settings"),
    ("Dependencies", "it is known which images are built, and after which, before the graph is made"),
    ("EnvironmentFiles", "what they say is in Environment= before the graph is made"),
    ("InitrdPackages", "it has become a setting of the default initrd, an image of its own"),
    ("InitrdProfiles", "it has become a setting of the default initrd, an image of its own"),
    ("InitrdVolatilePackages", "it has become a setting of the default initrd, an image of its own"),
    ("RepositoryKeyFetch", "Debian and Ubuntu have their keys in packages; it is for distributions that are not built"),
];

/// Settings that ask for a package manager.
const NEEDS_PACKAGES: &[&str] = &["Packages", "VolatilePackages", "BuildPackages", "RemovePackages"];

/// Formats that need no stage of their own: nothing, and the tree itself.
const PLAIN_FORMATS: &[&str] = &["directory", "none"];

/// Formats that hold a part of a system.
const EXTENSIONS: &[&str] = &["sysext", "confext", "addon"];

/// The distribution that is made of trees and scripts alone.
const CUSTOM: &str = "custom";

/// Every setting that can change an output and that no stage declares, in the order of the table.
pub fn unclaimed(declarations: &Declarations) -> Vec<&'static Setting> {
    let claimed = declarations.claimed_settings();
    let missing = |setting: &&&'static Setting| {
        setting.affects_output
            && setting.stores == setting.name
            && !claimed.contains(setting.name)
            && !WITHOUT_STAGE.iter().any(|(name, _)| *name == setting.name)
            // These are settings of another image, the default tools tree, under a name of their own.
            && setting.scope != Scope::Tools
    };
    SETTINGS.iter().filter(missing).copied().collect()
}

/// The settings of `image` that ask for something which no stage does, and where they were set.
///
/// A setting that turns something off, or that says what holds anyway, asks for nothing.
pub fn unsupported(image: &Image, declarations: &Declarations) -> Vec<(&'static str, Origin)> {
    let set = |setting: &'static Setting| {
        let sourced = image.values.get(setting.name)?;
        // `mkosi.key` and `mkosi.crt` say what to sign with, not that something is to be signed.
        let key = setting.kind == Kind::KeyFile && matches!(sourced.origin, Origin::DefaultPath(_));
        let asks = sourced.origin != Origin::Default && !key && !is_off(&sourced.value);
        (asks && !is_default(setting, &sourced.value)).then(|| (setting.name, sourced.origin.clone()))
    };
    unclaimed(declarations).into_iter().filter_map(set).collect()
}

/// Whether there are stages that make a format.
pub(super) fn makes_format(declarations: &Declarations, format: &str) -> bool {
    PLAIN_FORMATS.contains(&format) || declarations.get(format).is_some()
}

/// Finds out whether the stages can make an image of this format and distribution at all.
///
/// # Errors
/// The format or the distribution has no stages; packages are wanted of a distribution that has none.
pub fn check(image: &Image, declarations: &Declarations) -> Result<(), PlanError> {
    let format = image.text("Format").unwrap_or("directory");
    if !makes_format(declarations, format) {
        return Err(refusal(image, "Format", format, &|choice| makes_format(declarations, choice)));
    }
    if format == "disk" && image.get("RepartOffline").as_bool() == Some(false) && !started_as_root() {
        return Err(PlanError::LoopDevices { image: image.name.clone(), origin: origin(image, "RepartOffline") });
    }
    if format == "directory" && image.bool("ForeignUIDRange") && !has_ids(foreign::FIRST, foreign::COUNT) {
        return Err(PlanError::ForeignIds { image: image.name.clone(), origin: origin(image, "ForeignUIDRange") });
    }
    if format == "oci" && image.text("CompressOutput") == Some("xz") {
        return Err(PlanError::OciCompression { image: image.name.clone(), origin: origin(image, "CompressOutput") });
    }
    // Before anything is built, which may take long.
    if !PLAIN_FORMATS.contains(&format) {
        let refuse = |setting, why| PlanError::Compression {
            image: image.name.clone(),
            setting,
            origin: origin(image, setting),
            why,
        };
        let compression = image.text("CompressOutput").unwrap_or("none").parse::<Compression>();
        let compression = compression.map_err(|why| refuse("CompressOutput", why))?;
        if let Some(level) = image.get("CompressLevel").as_number() {
            let level = u32::try_from(level).unwrap_or(u32::MAX);
            compression.check_level(level).map_err(|why| refuse("CompressLevel", why))?;
        }
    }
    let whole = match image.get("BaseTrees").is_empty() {
        true => Some("there are no base trees to be different from: set `BaseTrees=`"),
        false => (format == "portable")
            .then_some("a portable service is a whole image: set `Format=sysext` for a part of one"),
    };
    if let Some(why) = whole.filter(|_| image.bool("Overlay")) {
        return Err(PlanError::Overlay { image: image.name.clone(), origin: origin(image, "Overlay"), why });
    }
    let distribution = image.text("Distribution").unwrap_or(CUSTOM);
    if distribution == CUSTOM {
        return match NEEDS_PACKAGES.iter().find(|setting| !image.get(setting).is_empty()) {
            None => Ok(()),
            Some(setting) => {
                Err(PlanError::NoPackages { image: image.name.clone(), setting, origin: origin(image, setting) })
            }
        };
    }
    let extends = EXTENSIONS.contains(&format) && image.get("BaseTrees").is_empty();
    if let Some(setting) = NEEDS_PACKAGES.iter().find(|setting| extends && !image.get(setting).is_empty()) {
        let (format, origin) = (format.to_owned(), origin(image, setting));
        return Err(PlanError::ExtensionPackages { image: image.name.clone(), setting, format, origin });
    }
    if !extends && !installs(declarations, image) {
        let with = |choice: &str| {
            let mut other = image.clone();
            if let Some(sourced) = other.values.get_mut("Distribution") {
                sourced.value = Value::text(choice);
            }
            choice == CUSTOM || installs(declarations, &other)
        };
        return Err(refusal(image, "Distribution", distribution, &with));
    }
    Ok(())
}

/// Whether some stage is there for the image's distribution.
fn installs(declarations: &Declarations, image: &Image) -> bool {
    declarations
        .iter()
        .flat_map(|(_, decl)| &decl.parsed.when)
        .any(|condition| condition.settings().any(|setting| setting == "Distribution") && condition.holds(image))
}

fn refusal(image: &Image, setting: &'static str, value: &str, works: &dyn Fn(&str) -> bool) -> PlanError {
    let choices = match table::find(setting).map(|setting| setting.kind) {
        Some(Kind::Enum(choices)) => choices.names,
        _ => &[],
    };
    let mut works: Vec<&str> = choices.iter().copied().filter(|choice| works(choice)).collect();
    works.sort_unstable();
    PlanError::Unsupported {
        image: image.name.clone(),
        setting,
        value: value.to_owned(),
        origin: origin(image, setting),
        works: works.join(", "),
    }
}

fn origin(image: &Image, setting: &str) -> String {
    image.values.get(setting).map_or(Origin::Default, |sourced| sourced.origin.clone()).to_string()
}

fn is_off(value: &Value) -> bool {
    value.is_empty() || matches!(value.as_text(), Some("no" | "none" | "never" | "disabled" | "auto"))
}

fn is_default(setting: &Setting, value: &Value) -> bool {
    match setting.default {
        Default::Empty => *value == setting.kind.empty(),
        Default::Bool(default) => *value == Value::Bool(default),
        Default::Number(default) => *value == Value::Number(default),
        Default::Text(default) => value.as_text() == Some(default),
        Default::Texts(default) => {
            value.items().len() == default.len()
                && value.items().iter().zip(default).all(|(item, text)| item.as_text() == Some(*text))
        }
        Default::From(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::Sourced;

    fn declarations() -> Declarations {
        let known: Vec<&str> = table::names().collect();
        Declarations::built_in(&known).unwrap()
    }

    fn at(line: usize) -> Origin {
        Origin::File { path: PathBuf::from("/p/mkosi.conf"), line, column: 1 }
    }

    fn image(values: &[(&'static str, Value, Origin)]) -> Image {
        let mut image =
            Image { name: "main".to_owned(), project: PathBuf::from("/p"), values: std::collections::BTreeMap::new() };
        for (name, value, origin) in values {
            image.values.insert(name, Sourced { value: value.clone(), origin: origin.clone() });
        }
        image
    }

    fn refused(values: &[(&'static str, Value, Origin)]) -> String {
        check(&image(values), &declarations()).unwrap_err().to_string()
    }

    #[test]
    fn only_what_is_wished_and_not_done_is_told() {
        let image = image(&[
            ("Packages", Value::List(vec![Value::text("bash")]), at(1)),
            ("Sign", Value::Bool(true), at(2)),
            ("Verity", Value::text("hash"), Origin::Default),
            ("SELinuxRelabel", Value::text("disabled"), at(3)),
            ("Bootloader", Value::text("systemd-boot"), at(4)),
            ("SplitArtifacts", Value::List(["uki", "kernel", "initrd"].map(Value::text).into()), at(5)),
            ("OpenPGPTool", Value::text("sq"), Origin::DefaultPath("/p/x".into())),
            ("VerityKey", Value::Path(PathBuf::from("/p/mkosi.key")), Origin::DefaultPath("/p/mkosi.key".into())),
            ("Dependencies", Value::List(vec![Value::text("base")]), at(6)),
            ("RAM", Value::Number(1), at(7)),
            ("SecureBootKeySource", Kind::empty(table::find("SecureBootKeySource").unwrap().kind), at(8)),
        ]);
        let text = "[stage.x]\nabout = \"\"\nversion = 1\npool = \"cpu\"\nsandbox = {}\n\
            settings = [\"Bootloader\", \"Packages\", \"SplitArtifacts\", \"VerityKey\"]\n";
        let known: Vec<&str> = table::names().collect();
        let mut told = unsupported(&image, &Declarations::parse(&[("x.toml", text)], &known).unwrap());
        told.sort_by_key(|(name, _)| *name);
        assert_eq!(told, [("OpenPGPTool", Origin::DefaultPath("/p/x".into())), ("Sign", at(2))]);
    }

    #[test]
    fn what_can_not_be_made_is_named_with_its_place() {
        let format = |format: &str, origin| ("Format", Value::text(format), origin);
        let packages = || ("Packages", Value::List(vec![Value::text("bash")]), at(9));
        insta::assert_snapshot!(
            [
                refused(&[format("oci", at(1)), ("CompressOutput", Value::text("xz"), at(3))]),
                refused(&[format("tar", at(1)), ("CompressOutput", Value::text("lz4"), at(3))]),
                refused(&[
                    format("disk", at(1)),
                    ("CompressOutput", Value::text("xz"), at(3)),
                    ("CompressLevel", Value::Number(19), at(4)),
                ]),
                refused(&[
                    format("sysext", at(1)),
                    ("Distribution", Value::text("debian"), at(2)),
                    ("Packages", Value::List(vec![Value::text("bash")]), at(9)),
                ]),
                refused(&[format("tar", at(1)), ("Overlay", Value::Bool(true), at(4))]),
                refused(&[
                    format("portable", at(1)),
                    ("BaseTrees", Value::List(vec![Value::Path("/p/base".into())]), at(3)),
                    ("Overlay", Value::Bool(true), at(4)),
                ]),
                refused(&[format("tar", at(1)), ("Distribution", Value::text("arch"), at(2))]),
                refused(&[format("tar", at(1)), ("Distribution", Value::text("custom"), at(2)), packages()]),
            ]
            .join("\n")
        );
    }

    #[test]
    fn what_has_stages_is_let_through() {
        for (format, distribution) in
            [("tar", "debian"), ("cpio", "ubuntu"), ("oci", "debian"), ("none", "custom"), ("directory", "debian")]
        {
            let values = [
                ("Format", Value::text(format), at(1)),
                ("Distribution", Value::text(distribution), at(2)),
                ("Packages", Value::List(Vec::new()), at(3)),
            ];
            assert!(check(&image(&values), &declarations()).is_ok(), "{format} {distribution}");
        }
    }
}
