//! The device trees of a kernel that `Devicetrees=` names.

use super::look::{Look, join};

/// The paths in the tree of the device trees that the patterns choose, sorted. The last pattern that matches counts;
/// one with a `-` in front leaves out. A pattern without a slash matches the file's name.
pub fn devicetrees(look: &Look<'_>, version: &str, patterns: &[&str]) -> Vec<String> {
    let directories = [
        format!("usr/lib/firmware/{version}/device-tree"),
        format!("usr/lib/linux-image-{version}"),
        format!("usr/lib/modules/{version}/dtb"),
    ];
    let mut found: Vec<String> = directories
        .iter()
        .flat_map(|directory| {
            let names = look.files_below(directory).into_iter();
            names.filter(|name| name.ends_with(".dtb") && chosen(name, patterns)).map(|name| join(directory, &name))
        })
        .collect();
    found.sort();
    found
}

fn chosen(name: &str, patterns: &[&str]) -> bool {
    let matching = patterns.iter().rev().find(|pattern| matches(name, pattern.trim_start_matches('-')));
    matching.is_some_and(|pattern| !pattern.starts_with('-'))
}

fn matches(name: &str, pattern: &str) -> bool {
    let pattern = if pattern.ends_with('/') { format!("{pattern}*") } else { pattern.to_owned() };
    let is = |pattern: &str, text: &str| glob::Pattern::new(pattern).is_ok_and(|pattern| pattern.matches(text));
    let base = name.rsplit('/').next().unwrap_or(name);
    (pattern.starts_with('/') && is(&pattern, &format!("/{name}")))
        || (pattern.contains('/') && is(&format!("*/{pattern}"), &format!("/{name}")))
        || is(&pattern, base)
}

#[cfg(test)]
mod tests {
    use super::super::kernels::testing::Made;
    use super::*;

    #[test]
    fn patterns_choose() {
        let made = Made::new(&[
            ("usr/lib/linux-image-6.1/rockchip/rk1.dtb", ""),
            ("usr/lib/linux-image-6.1/rockchip/rk2.dtb", ""),
            ("usr/lib/linux-image-6.1/imx8.dtb", ""),
            ("usr/lib/linux-image-6.1/imx8.txt", ""),
            ("usr/lib/modules/6.1/dtb/x/imx9.dtb", ""),
        ]);
        let tree = made.tree();
        let find = |patterns: &[&str]| devicetrees(&Look::new(&tree), "6.1", patterns);
        assert_eq!(find(&["rockchip/", "-rk2.dtb"]), ["usr/lib/linux-image-6.1/rockchip/rk1.dtb"]);
        assert_eq!(find(&["imx*"]).len(), 2);
        assert_eq!(find(&["x/imx9.dtb"]), ["usr/lib/modules/6.1/dtb/x/imx9.dtb"]);
        assert!(find(&["none"]).is_empty());
    }
}
