//! Comparison of versions by the UAPI Group's version format, in systemd's reading of it
//! (`systemd-analyze compare-versions`).
//!
//! Knows nothing of settings.

use std::cmp::Ordering;

/// Compares two versions.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = skip_foreign(a);
        b = skip_foreign(b);
        // A tilde sorts before everything, even before the end of the other version.
        if let Some(ordering) = mark(b'~', &mut a, &mut b) {
            return ordering;
        }
        match (a.is_empty(), b.is_empty()) {
            (true, true) => return Ordering::Equal,
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        for byte in [b'-', b'^', b'.'] {
            if let Some(ordering) = mark(byte, &mut a, &mut b) {
                return ordering;
            }
        }
        let digits = a.first().is_some_and(u8::is_ascii_digit) || b.first().is_some_and(u8::is_ascii_digit);
        let (left, right) = if digits {
            let (left, right) = (prefix(&mut a, u8::is_ascii_digit), prefix(&mut b, u8::is_ascii_digit));
            (without_zeros(left), without_zeros(right))
        } else {
            (prefix(&mut a, u8::is_ascii_alphabetic), prefix(&mut b, u8::is_ascii_alphabetic))
        };
        let ordering = if digits { left.len().cmp(&right.len()).then(left.cmp(right)) } else { left.cmp(right) };
        if ordering != Ordering::Equal {
            return ordering;
        }
    }
}

/// Whether `version` satisfies a condition: an operator and a version, or a version alone for equality.
pub fn satisfies(version: &str, condition: &str) -> bool {
    let (operator, wanted) = split_operator(condition).unwrap_or(("==", condition));
    let ordering = compare(version, wanted.trim());
    match operator {
        "!=" => ordering.is_ne(),
        "<=" => ordering.is_le(),
        ">=" => ordering.is_ge(),
        ">" => ordering.is_gt(),
        "<" => ordering.is_lt(),
        _ => ordering.is_eq(),
    }
}

/// The operator that a condition starts with, and what follows it.
pub fn split_operator(condition: &str) -> Option<(&str, &str)> {
    ["==", "!=", "<=", ">=", ">", "<"]
        .into_iter()
        .find_map(|operator| condition.strip_prefix(operator).map(|rest| (operator, rest)))
}

fn skip_foreign(text: &[u8]) -> &[u8] {
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || b"~-^.".contains(byte);
    let start = text.iter().position(known).unwrap_or(text.len());
    text.get(start..).unwrap_or_default()
}

/// Takes the mark off both; where only one has it, that one is less.
fn mark(byte: u8, a: &mut &[u8], b: &mut &[u8]) -> Option<Ordering> {
    match (a.first() == Some(&byte), b.first() == Some(&byte)) {
        (true, true) => {
            *a = a.get(1..).unwrap_or_default();
            *b = b.get(1..).unwrap_or_default();
            None
        }
        (true, false) => Some(Ordering::Less),
        (false, true) => Some(Ordering::Greater),
        (false, false) => None,
    }
}

fn prefix<'a>(text: &mut &'a [u8], belongs: impl Fn(&u8) -> bool) -> &'a [u8] {
    let end = text.iter().position(|byte| !belongs(byte)).unwrap_or(text.len());
    let (head, rest) = text.split_at(end);
    *text = rest;
    head
}

fn without_zeros(digits: &[u8]) -> &[u8] {
    let start = digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
    digits.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_order_of_the_specification() {
        // The ordering example of https://uapi-group.org/specifications/specs/version_format_specification/, and more.
        let ordered = [
            "122.1",
            "123~rc1-1",
            "123",
            "123-a",
            "123-a.1",
            "123-1",
            "123-1.1",
            "123^post1",
            "123.a-1",
            "123.1-1",
            "123a-1",
            "124-1",
        ];
        for pair in ordered.windows(2) {
            assert_eq!(compare(pair[0], pair[1]), Ordering::Less, "{} < {}", pair[0], pair[1]);
            assert_eq!(compare(pair[1], pair[0]), Ordering::Greater);
        }
        assert_eq!(compare("1.002", "1.2"), Ordering::Equal);
        assert_eq!(compare("1_2", "1+2"), Ordering::Equal);
        assert_eq!(compare("27~devel", "27"), Ordering::Less);
        assert_eq!(compare("99999999999999999999999", "100000000000000000000000"), Ordering::Less);
    }

    #[test]
    fn conditions() {
        assert!(satisfies("255.4", ">=255"));
        assert!(satisfies("255", "255"));
        assert!(satisfies("255", "!=256"));
        assert!(!satisfies("255", "<255"));
        assert!(satisfies("255", "<= 255"));
    }

    proptest! {
        #[test]
        fn is_an_order(a in "[0-9a-b~^.-]{0,6}", b in "[0-9a-b~^.-]{0,6}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }
    }
}
