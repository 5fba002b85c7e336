//! The store's reports in words, and the options of its clean-up.

use std::fmt::Write;
use std::time::Duration;

use anyhow::Context;

use crate::store::{GcPolicy, GcReport, Usage, VerifyReport};
use crate::types::human;

/// Reads the options of `mkosi store gc`.
///
/// # Errors
/// A value that can't be read.
pub fn policy(max_size: Option<&str>, keep_days: &str) -> anyhow::Result<GcPolicy> {
    let days: u64 = keep_days.parse().with_context(|| format!("--keep-days={keep_days} is no number of days"))?;
    let max_size = max_size.map(parse_size).transpose()?;
    Ok(GcPolicy { max_size, keep: Duration::from_secs(days.saturating_mul(86_400)) })
}

/// A size in bytes, or with K, M, G or T (powers of 1024).
fn parse_size(text: &str) -> anyhow::Result<u64> {
    let (number, shift) = match text.char_indices().next_back() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        Some((at, 'T' | 't')) => (&text[..at], 40),
        _ => (text, 0),
    };
    let number: u64 = number.parse().with_context(|| format!("`{text}` is no size: 500M, 10G, ..."))?;
    number.checked_mul(1 << shift).with_context(|| format!("`{text}` is larger than any disk"))
}

/// `mkosi store du`.
pub fn usage(usage: &Usage) -> String {
    let mut out = String::new();
    let kinds = [
        ("layers", usage.layers),
        ("files", usage.files),
        ("packages", usage.pool),
        ("records", usage.records),
        ("failed", usage.failed),
    ];
    for (name, (count, size)) in kinds {
        let _ = writeln!(out, "{name:<12} {count:>7} {:>12}", human::bytes(size));
    }
    let _ = writeln!(out, "{:<12} {:>7} {:>12}", "all", "", human::bytes(usage.total()));
    if !usage.by_kind.is_empty() {
        out.push_str("\nby stage\n");
    }
    for (kind, size) in &usage.by_kind {
        let kind = if kind.is_empty() { "(unused)" } else { kind };
        let _ = writeln!(out, "{kind:<20} {:>12}", human::bytes(*size));
    }
    out
}

/// `mkosi store gc`.
pub fn cleaned(report: &GcReport) -> String {
    format!(
        "removed {}, {}, {}: {} freed, {} left\n",
        human::count(report.records, "record"),
        human::count(report.layers, "layer"),
        human::count(report.files, "file"),
        human::bytes(report.freed),
        human::bytes(report.remaining)
    )
}

/// `mkosi store verify`.
pub fn verified(report: &VerifyReport, repaired: bool) -> String {
    let mut out = String::new();
    for name in &report.damaged {
        let _ = writeln!(out, "damaged{}: {name}", if repaired { " and removed" } else { "" });
    }
    let _ = writeln!(out, "{} checked, {} damaged", human::count(report.checked, "object"), report.damaged.len());
    if !report.damaged.is_empty() && !repaired {
        out.push_str("`mkosi store verify --repair` removes them, and the next build makes them again\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_of_clean_up() {
        let policy = policy(Some("10G"), "0").unwrap();
        assert_eq!(policy, GcPolicy { max_size: Some(10 << 30), keep: Duration::ZERO });
        for (size, days) in [(Some("x"), "1"), (Some("99999999T"), "1"), (None, "-1"), (Some(""), "1")] {
            assert!(super::policy(size, days).is_err(), "{size:?} {days}");
        }
    }
}
