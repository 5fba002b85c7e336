//! Every setting is claimed by a stage, changes no output, or stands in a list of what is still to come.

use std::collections::{BTreeMap, BTreeSet};

use mkosi::config::table::{self, Item, Kind, SETTINGS};
use mkosi::config::{Image, Origin, Sourced, Value};
use mkosi::plan::{Declarations, WITHOUT_STAGE, unclaimed, unsupported};

use super::support::declarations;

/// Settings that can change an output and that no stage knows yet, by what they belong to. A setting leaves the list
/// with the stage that claims it.
const NOT_YET: &[(&str, &[&str])] = &[];

/// Settings that change no output although a stage's key has them, and why.
const KEYED_ALL_THE_SAME: &[(&str, &str)] = &[("BuildDirectory", "whether there is one decides what scripts can find")];

fn not_yet() -> BTreeSet<&'static str> {
    NOT_YET.iter().flat_map(|(_, settings)| settings.iter().copied()).collect()
}

#[test]
fn every_setting_is_claimed_or_not_yet() {
    let missing: BTreeSet<&str> = unclaimed(&declarations()).iter().map(|setting| setting.name).collect();
    let listed = not_yet();
    let unlisted: Vec<_> = missing.difference(&listed).collect();
    let stale: Vec<_> = listed.difference(&missing).collect();
    assert!(
        unlisted.is_empty() && stale.is_empty(),
        "no stage claims these, and NOT_YET does not have them: {unlisted:?}\n\
         NOT_YET has these, and they are claimed, change no output, or are no settings: {stale:?}"
    );
    assert_eq!(listed.len(), NOT_YET.iter().map(|(_, settings)| settings.len()).sum::<usize>(), "one stands twice");
}

/// What [`unclaimed`] leaves out, counted again without it.
#[test]
fn every_setting_has_a_place() {
    let declarations = declarations();
    let (claimed, listed) = (declarations.claimed_settings(), not_yet());
    for setting in SETTINGS.iter() {
        // A second spelling of another setting has no value of its own.
        let target = table::find(setting.stores).unwrap();
        let placed = [!target.affects_output, claimed.contains(target.name), listed.contains(target.name)];
        let without_stage = WITHOUT_STAGE.iter().any(|(name, _)| *name == target.name);
        assert!(
            placed.contains(&true) || without_stage || target.scope == table::Scope::Tools,
            "{} has no place",
            setting.name
        );
        assert!(!(without_stage && claimed.contains(target.name)), "{} needs a stage after all", setting.name);
    }
}

/// A stage does not put into its key what the table says can't matter.
#[test]
fn what_changes_no_output_is_in_no_key() {
    let mut keyed = BTreeSet::new();
    for (stage, decl) in declarations().iter().filter(|(_, decl)| !decl.publishes) {
        for name in &decl.settings {
            if !table::find(name).unwrap().affects_output {
                keyed.insert(name.clone());
            }
        }
        for name in &decl.unkeyed {
            assert!(!decl.settings.contains(name), "{stage} has {name} in its key and not in its key");
        }
    }
    let allowed: BTreeSet<String> = KEYED_ALL_THE_SAME.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(keyed, allowed);
}

/// The texts that a setting can have, where they can be listed.
fn choices(kind: Kind) -> Option<Vec<&'static str>> {
    match kind {
        Kind::Bool => Some(vec!["true", "false"]),
        Kind::Feature => Some(vec!["auto", "enabled", "disabled"]),
        Kind::Enum(choices) | Kind::Artifacts(choices) => Some(choices.names.to_vec()),
        Kind::List { item: Item::Choice(_), .. } => Some(Vec::new()),
        _ => None,
    }
}

/// A condition on a value that a setting never has holds always or never, and nobody notices.
#[test]
fn conditions_ask_for_values_that_there_are() {
    let mut asked = 0;
    for (stage, decl) in declarations().iter() {
        let needs = decl.needs.iter().chain(&decl.unkeyed_needs).chain(&decl.tree);
        let of_needs = needs.filter_map(|need| need.split_once(" if ")).map(|(_, condition)| condition);
        let own = decl.when.iter().chain(&decl.tests).chain(&decl.sandbox.traced).chain(&decl.sandbox.loop_devices);
        let conditions = own.map(String::as_str).chain(of_needs);
        for test in conditions.flat_map(|condition| condition.split('|')) {
            let Some((left, values)) = test.split_once('=') else { continue };
            let setting = table::find(left.trim().trim_end_matches('!')).unwrap();
            let choices = choices(setting.kind).unwrap_or_else(|| panic!("{stage}: {test}: no values to ask for"));
            for value in values.split(',').map(str::trim) {
                assert!(choices.contains(&value), "{stage}: `{test}`, but {} is one of {choices:?}", setting.name);
                asked += 1;
            }
        }
    }
    assert!(asked > 5, "{asked}");
}

/// A stage that would run always because its condition asks whether a word is there.
#[test]
fn conditions_on_words_name_the_word() {
    let words = |name: &str| {
        let setting = table::find(name).unwrap();
        matches!(setting.kind, Kind::Feature | Kind::Enum(_))
    };
    for (stage, decl) in declarations().iter() {
        let own = decl.when.iter().chain(&decl.tests).chain(&decl.sandbox.traced).chain(&decl.sandbox.loop_devices);
        for test in own.flat_map(|condition| condition.split('|')) {
            let name = test.trim().trim_start_matches('!');
            assert!(name.contains('=') || !words(name), "{stage}: `{name}` has a value even when it is off");
        }
    }
}

/// Each setting of the list is told to a user who sets it, and no other.
#[test]
fn what_is_not_yet_is_told() {
    let declarations: Declarations = declarations();
    let origin = || Origin::Option("--here".to_owned());
    let mut told = BTreeMap::new();
    for setting in SETTINGS.iter().filter(|setting| setting.stores == setting.name) {
        let value = match setting.kind {
            // False is a wish where true is the default, but one that is granted.
            Kind::Bool => Value::Bool(true),
            Kind::Feature => Value::text("enabled"),
            // Neither off nor left to mkosi.
            Kind::Enum(choices) => {
                let wish = |name: &&&str| !["no", "none", "never", "disabled", "auto"].contains(*name);
                Value::text(*choices.names.iter().rev().find(wish).unwrap())
            }
            kind if kind.is_collection() && matches!(kind.empty(), Value::List(_)) => {
                Value::List(vec![Value::text("x")])
            }
            Kind::Number { .. } | Kind::Mode | Kind::Bytes | Kind::SectorSize | Kind::VsockCid => Value::Number(4096),
            Kind::Path(_) => Value::Path("/x".into()),
            Kind::Dict { .. } | Kind::Source(_) => Value::Map([("type".to_owned(), Value::text("x"))].into()),
            _ => Value::text("x"),
        };
        let values = BTreeMap::from([(setting.name, Sourced { value, origin: origin() })]);
        let image = Image { name: "main".to_owned(), project: "/".into(), values };
        told.insert(setting.name, unsupported(&image, &declarations));
    }
    let listed = not_yet();
    for (name, found) in told {
        let on_by_default = matches!(table::find(name).unwrap().default, table::Default::Bool(true));
        let expected = if listed.contains(name) && !on_by_default { vec![(name, origin())] } else { Vec::new() };
        assert_eq!(found, expected, "{name}");
    }
}
