//! The order of Debian's version numbers (deb-version(7)). Knows nothing of packages.

use std::cmp::Ordering;

/// Compares two versions.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (Version::parse(a), Version::parse(b));
    a.epoch
        .cmp(&b.epoch)
        .then_with(|| compare_part(a.upstream, b.upstream))
        .then_with(|| compare_part(a.revision, b.revision))
}

/// Whether a version meets a relation: `<<`, `<=`, `=`, `>=` or `>>` (deb-control(5)); `<` and `>` are old spellings of
/// `<=` and `>=`.
pub(super) fn meets(version: &str, relation: &str, wanted: &str) -> bool {
    let order = compare(version, wanted);
    match relation {
        "<<" => order == Ordering::Less,
        "<=" | "<" => order != Ordering::Greater,
        "=" => order == Ordering::Equal,
        ">=" | ">" => order != Ordering::Less,
        ">>" => order == Ordering::Greater,
        _ => false,
    }
}

struct Version<'a> {
    epoch: u64,
    upstream: &'a str,
    revision: &'a str,
}

impl<'a> Version<'a> {
    fn parse(text: &'a str) -> Self {
        let (epoch, rest) = match text.split_once(':') {
            Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
            None => (0, text),
        };
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        Self { epoch, upstream, revision }
    }
}

/// Texts and numbers by turns: in texts letters go before everything else, and `~` before even the end.
fn compare_part(mut a: &str, mut b: &str) -> Ordering {
    while !(a.is_empty() && b.is_empty()) {
        let (text_a, text_b) = (split(&mut a, |c| !c.is_ascii_digit()), split(&mut b, |c| !c.is_ascii_digit()));
        let mut weights_a = text_a.chars().map(weight);
        let mut weights_b = text_b.chars().map(weight);
        // The end of a text weighs 0: more than `~`, less than all else.
        loop {
            let (x, y) = (weights_a.next().unwrap_or(0), weights_b.next().unwrap_or(0));
            if x != y {
                return x.cmp(&y);
            }
            if x == 0 {
                break;
            }
        }
        let (number_a, number_b) = (split(&mut a, |c| c.is_ascii_digit()), split(&mut b, |c| c.is_ascii_digit()));
        let (number_a, number_b) = (number_a.trim_start_matches('0'), number_b.trim_start_matches('0'));
        let order = number_a.len().cmp(&number_b.len()).then_with(|| number_a.cmp(number_b));
        if order != Ordering::Equal {
            return order;
        }
    }
    Ordering::Equal
}

fn split<'a>(text: &mut &'a str, belongs: impl Fn(char) -> bool) -> &'a str {
    let end = text.find(|c| !belongs(c)).unwrap_or(text.len());
    let (part, rest) = text.split_at(end);
    *text = rest;
    part
}

fn weight(c: char) -> i64 {
    match c {
        '~' => -1,
        c if c.is_ascii_alphabetic() => i64::from(u32::from(c)),
        c => i64::from(u32::from(c)) + 256,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn as_dpkg_does() {
        let sorted = [
            "0.9~~",
            "0.9~",
            "0.9~rc1",
            "0.9~rc1-1",
            "0.9",
            "0.9-0",
            "0.9-1~bpo12+1",
            "0.9-1",
            "0.9-1+deb12u1",
            "0.9-1.1",
            "0.9a",
            "0.9+dfsg",
            "0.9.1",
            "0.10",
            "1.0",
            "1.0a1",
            "1:0.1",
        ];
        for (at, version) in sorted.iter().enumerate() {
            for (other, wanted) in sorted.iter().enumerate() {
                let equal = [version, wanted].iter().all(|v| ["0.9", "0.9-0"].contains(v));
                let expected = if equal { Ordering::Equal } else { at.cmp(&other) };
                assert_eq!(compare(version, wanted), expected, "{version} {wanted}");
            }
        }
        assert_eq!(compare("1.002", "1.2"), Ordering::Equal);
        assert!(meets("2.41-12", ">=", "2.38") && meets("1", "<", "1") && !meets("1", "<<", "1"));
    }

    proptest! {
        #[test]
        fn an_order(a in "[0-9a-c~+.:-]{0,8}", b in "[0-9a-c~+.:-]{0,8}", c in "\\PC{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&c, &c), Ordering::Equal);
            compare(&a, &c);
        }
    }
}
