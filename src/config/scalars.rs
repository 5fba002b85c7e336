//! Single values: numbers, sizes, names, identifiers and choices.
//!
//! Knows nothing of lists, of paths on the host and of settings.

use super::read::LANGUAGE_VERSION;
use super::refusal::Refusal;
use super::table::{self, Choices};
use super::value::Value;
use super::version;
use super::words::boolean;
use crate::types::suggest::nearest;

pub(super) fn name(text: &str) -> Result<Value, Refusal> {
    match text.trim() {
        "." | ".." => Err(Refusal::new(format!("`{text}` is not a name")).about(text)),
        trimmed if trimmed.contains('/') => Err(Refusal::new(format!("`{text}` must be a name without a path"))
            .about(text)
            .hint("leave the directory out; OutputDirectory= says where outputs are put")),
        _ => Ok(Value::text(text)),
    }
}

pub(super) fn number(text: &str, min: i64) -> Result<Value, Refusal> {
    match text.trim().parse::<i64>() {
        Ok(number) if number >= min => Ok(Value::Number(number)),
        Ok(_) => Err(Refusal::new(format!("`{text}` is less than {min}"))),
        Err(_) => Err(Refusal::new(format!("`{text}` is not a number")).accepting("a whole number")),
    }
}

pub(super) fn mode(text: &str) -> Result<Value, Refusal> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    match i64::from_str_radix(digits, 8) {
        Ok(mode) if (0..=0o1777).contains(&mode) => Ok(Value::Number(mode)),
        _ => Err(Refusal::new(format!("`{text}` is no access mode")).accepting("an octal number from 0 to 1777")),
    }
}

/// A size in bytes, rounded up to whole pages.
pub(super) fn bytes(text: &str) -> Result<Value, Refusal> {
    const PAGE: f64 = 4096.0;
    let refusal = || {
        Refusal::new(format!("`{text}` is no size")).about(text).accepting("a number with K, M or G, 512M for instance")
    };
    let (digits, factor) = match text.char_indices().next_back() {
        Some((at, 'G')) => (text.get(..at), 1024.0 * 1024.0 * 1024.0),
        Some((at, 'M')) => (text.get(..at), 1024.0 * 1024.0),
        Some((at, 'K')) => (text.get(..at), 1024.0),
        _ => (Some(text), 1.0),
    };
    let number: f64 = digits.and_then(|digits| digits.trim().parse().ok()).ok_or_else(refusal)?;
    let bytes = ((number * factor).ceil() / PAGE).ceil() * PAGE;
    // Beyond 2^53 a float no longer holds every byte, and no disk is that large.
    if bytes > 0.0 && bytes <= 9_007_199_254_740_992.0 { Ok(Value::Number(bytes as i64)) } else { Err(refusal()) }
}

pub(super) fn uuid(text: &str) -> Result<Value, Refusal> {
    if text == "random" {
        return Ok(Value::text(text));
    }
    let bare = text.trim().trim_start_matches("urn:").trim_start_matches("uuid:");
    let digits: String =
        bare.trim_matches(['{', '}']).chars().filter(|c| *c != '-').map(|c| c.to_ascii_lowercase()).collect();
    if digits.len() != 32 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Refusal::new(format!("`{text}` is no UUID")).accepting("32 hexadecimal digits, or random"));
    }
    let parts: Vec<&str> =
        [0..8, 8..12, 12..16, 16..20, 20..32].into_iter().filter_map(|range| digits.get(range)).collect();
    Ok(Value::text(parts.join("-")))
}

pub(super) fn minimum_version(text: &str, old: Option<&Value>) -> Result<Value, Refusal> {
    // A commit of another program's history says nothing about this one.
    if text.starts_with("commit:") {
        return Ok(old.cloned().unwrap_or_else(|| Value::text(text)));
    }
    if version::compare(text, LANGUAGE_VERSION).is_gt() {
        return Err(Refusal::new(format!(
            "this configuration needs version {text}, but {LANGUAGE_VERSION} is read here"
        ))
        .hint("use a newer version, or lower MinimumVersion="));
    }
    match old.and_then(Value::as_text) {
        Some(old) if !old.starts_with("commit:") && version::compare(old, text).is_ge() => Ok(Value::text(old)),
        _ => Ok(Value::text(text)),
    }
}

/// One of an enumeration, a boolean included where it has a meaning.
pub(super) fn choice(choices: &Choices, text: &str) -> Result<Value, Refusal> {
    if let Some(name) = choices.find(text) {
        return Ok(Value::text(name));
    }
    if let (Some((yes, no)), Some(value)) = (choices.boolean, boolean(text)) {
        return Ok(Value::text(if value { yes } else { no }));
    }
    let refusal = Refusal::new(format!("`{text}` is not one of the choices")).about(text).accepting(choices.accepted());
    let spellings = choices.names.iter().copied().chain(choices.aliases.iter().map(|(alias, _)| *alias));
    Err(match nearest(text, spellings) {
        Some(near) => refusal.hint(format!("did you mean `{near}`?")),
        None => refusal,
    })
}

pub(super) fn source(choices: &Choices, text: &str) -> Result<Value, Refusal> {
    if text.is_empty() {
        return Ok(table::source(choices.names.first().copied().unwrap_or_default(), ""));
    }
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    let kind = choice(choices, kind)?;
    Ok(table::source(kind.as_text().unwrap_or_default(), rest))
}
