//! How much memory there is to take, of the machine and of the control groups that this process is in. Knows nothing of
//! what it is for.

use std::path::{Path, PathBuf};

/// A number of `/proc/meminfo` (proc_meminfo(5)) in bytes.
pub(super) fn number(name: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

/// Memory in bytes that can be taken without others having to give some up. None where that can't be told.
pub fn available() -> Option<u64> {
    let free = number("MemAvailable")?;
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    // "0::/PATH" is the group of the unified hierarchy (cgroups(7)).
    let group = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let left = group.and_then(|group| left(Path::new("/sys/fs/cgroup"), Path::new(group)));
    Some(left.map_or(free, |left| left.min(free)))
}

/// What a control group below `root` and those above it leave: the smallest difference of limit and use. None without
/// any limit.
fn left(root: &Path, group: &Path) -> Option<u64> {
    let read = |path: PathBuf| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let of = |group: &Path| {
        let limit = read(root.join(group).join("memory.max"))?;
        Some(limit.saturating_sub(read(root.join(group).join("memory.current"))?))
    };
    group.ancestors().filter_map(of).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_of_the_limits_counts() {
        let root = tempfile::tempdir().unwrap();
        let group = Path::new("a/b/c");
        std::fs::create_dir_all(root.path().join(group)).unwrap();
        let write = |path: &str, text: &str| std::fs::write(root.path().join(path), text).unwrap();
        assert_eq!(left(root.path(), group), None);
        write("a/memory.max", "1000\n");
        write("a/memory.current", "900\n");
        write("a/b/memory.max", "max\n");
        write("a/b/memory.current", "300\n");
        write("a/b/c/memory.max", "500\n");
        write("a/b/c/memory.current", "300\n");
        assert_eq!(left(root.path(), group), Some(100));
        write("a/memory.current", "1100\n");
        assert_eq!(left(root.path(), group), Some(0));
    }

    #[test]
    fn the_machine_has_some() {
        let free = available().unwrap();
        assert!(free > 0 && free <= number("MemTotal").unwrap());
    }
}
