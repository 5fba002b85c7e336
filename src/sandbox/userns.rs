//! User namespaces. Knows nothing of sandboxes.

/// Whether this process is in the machine's own user namespace, where root is the real root.
pub(super) fn is_initial() -> bool {
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}
