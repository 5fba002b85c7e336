//! What enters the identity of real programs, and of made-up ones in a root directory of their own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use super::*;
use crate::store::Store;

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("store")).unwrap();
    (dir, store)
}

/// What ldd(1) says of a program: names and paths of its libraries.
fn ldd(program: &Path) -> Vec<(String, PathBuf)> {
    let output = Command::new("ldd").arg(program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let path = PathBuf::from(words.iter().find(|word| word.starts_with('/'))?);
        let name = words[0].rsplit('/').next()?.to_owned();
        Some((name, path))
    };
    let libraries: Vec<_> = text.lines().filter_map(line).collect();
    assert!(libraries.len() > 1, "{text}");
    libraries
}

fn program(path: &Path, content: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap();
}

#[test]
fn libraries_are_those_that_the_loader_takes() {
    let (_dir, store) = store();
    let hasher = Hasher::new(&store);
    let programs = Programs::new(&hasher);
    for name in ["mkfs.ext4", "apt-get", "systemd-sysusers", "tar"] {
        let identity = programs.identity(name, &[]).unwrap().unwrap_or_else(|| panic!("there is no {name}"));
        let path = find(name, &[]).unwrap();
        assert_eq!(identity.parts["program"], Digest::of(&fs::read(&path).unwrap()));
        for (library, path) in ldd(&path) {
            let part = identity.parts.get(&format!("library/{library}"));
            assert_eq!(part, Some(&Digest::of(&fs::read(&path).unwrap())), "{name}: {library}: {:?}", identity.parts);
        }
        assert!(identity.parts.keys().all(|part| !part.starts_with('/') && !part.contains("//")), "{identity:?}");
    }
    assert_eq!(programs.identity("no-such-program", &[]).unwrap(), None);
}

/// A root directory with mkfs.ext4 and its libraries.
fn root() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let real = find("mkfs.ext4", &[]).expect("mkfs.ext4, of the package e2fsprogs");
    copy(&real, &dir.path().join("usr/sbin/mkfs.ext4"));
    fs::create_dir(dir.path().join("usr/lib64")).unwrap();
    let elf = elf::parse(&fs::read(&real).unwrap()).unwrap();
    let loader = elf.interpreter.unwrap();
    // Where the loader lies, libraries are looked for.
    let place = dir.path().join(loader.trim_start_matches('/'));
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    for (name, path) in ldd(&real) {
        copy(&path, &place.with_file_name(name));
    }
    dir
}

#[test]
fn a_changed_library_is_another_program_and_where_it_lies_is_not() {
    let (_dir, store) = store();
    let hasher = Hasher::new(&store);
    let identity = |root: &Path| {
        let root = root.canonicalize().unwrap();
        Programs::of_root(&hasher, &root).identity("mkfs.ext4", &[]).unwrap().unwrap()
    };
    let (one, two) = (root(), root());
    let want = identity(one.path());
    let names: BTreeSet<&str> = want.parts.keys().map(String::as_str).collect();
    assert!(names.contains("program") && names.contains("library/libext2fs.so.2"), "{names:?}");
    assert!(names.contains("library/libc.so.6"), "{names:?}");
    assert_eq!(identity(two.path()), want);
    let loader = Command::new("find").arg(two.path()).args(["-name", "libext2fs.so.2"]).output().unwrap();
    let library = PathBuf::from(String::from_utf8(loader.stdout).unwrap().trim());
    fs::write(library.with_file_name("libother.so.1"), "other").unwrap();
    assert_eq!(identity(two.path()), want, "a library of nobody");
    let content = fs::read(&library).unwrap();
    fs::write(&library, [content.as_slice(), b"x"].concat()).unwrap();
    let changed = identity(two.path());
    assert_ne!(changed.digest, want.digest);
    let differ: Vec<&String> =
        want.parts.iter().filter(|(name, old)| changed.parts[*name] != **old).map(|p| p.0).collect();
    assert_eq!(differ, ["library/libext2fs.so.2"]);
    fs::remove_file(&library).unwrap();
    let gone = identity(two.path());
    assert!(!gone.parts.contains_key("library/libext2fs.so.2"), "{gone:?}");
    // A file that can't be loaded by it is passed over, as one for another architecture.
    fs::write(&library, "no library").unwrap();
    assert_eq!(identity(two.path()), gone);
}

#[test]
fn programs_of_search_paths_come_first_and_have_libraries_of_their_own() {
    let (_dir, store) = store();
    let hasher = Hasher::new(&store);
    let host = root();
    let own = tempfile::tempdir().unwrap();
    let root = host.path().canonicalize().unwrap();
    program(&own.path().join("mkfs.ext4"), "#!/usr/sbin/interpreter\n");
    program(&root.join("usr/sbin/interpreter"), "an interpreter");
    let programs = Programs::of_root(&hasher, &root);
    let parts = |search: &[PathBuf]| programs.identity("mkfs.ext4", search).unwrap().unwrap().parts.clone();
    let found = parts(&[own.path().to_owned()]);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["interpreter/interpreter", "program"]);
    assert!(parts(&[]).contains_key("library/libext2fs.so.2"));
}

#[test]
fn a_script_is_its_interpreter_and_its_modules_too() {
    let (_dir, store) = store();
    let hasher = Hasher::new(&store);
    let host = tempfile::tempdir().unwrap();
    let root = host.path().canonicalize().unwrap();
    program(&root.join("usr/bin/ukify"), "#!/usr/bin/env -S python3 -I\nimport pefile\n");
    program(&root.join("usr/bin/env"), "env");
    program(&root.join("usr/bin/python3.13"), "python");
    symlink("python3.13", root.join("usr/bin/python3")).unwrap();
    let packages = root.join("usr/lib/python3/dist-packages");
    program(&packages.join("pefile.py"), "pefile");
    program(&packages.join("ordlookup/__init__.py"), "ordlookup");
    program(&packages.join("ordlookup/__pycache__/__init__.pyc"), "compiled");
    program(&packages.join("_cffi_backend.cpython-313-x86_64-linux-gnu.so"), "library");
    program(&packages.join("other.py"), "other");
    let parts = || Programs::of_root(&hasher, &root).identity("ukify", &[]).unwrap().unwrap().parts.clone();
    let before = parts();
    let names: Vec<&String> = before.keys().collect();
    let want = [
        "interpreter/env",
        "interpreter/python3",
        "module/_cffi_backend",
        "module/ordlookup",
        "module/pefile",
        "program",
    ];
    assert_eq!(names, want);
    let changes = |path: &str| {
        program(&packages.join(path), "changed");
        let now = parts();
        before.iter().filter(|(name, old)| now.get(*name) != Some(*old)).map(|p| p.0.clone()).collect::<Vec<_>>()
    };
    assert_eq!(changes("other.py"), [""; 0]);
    assert_eq!(changes("ordlookup/__pycache__/__init__.pyc"), [""; 0]);
    assert_eq!(changes("ordlookup/new.py"), ["module/ordlookup"]);
    program(&root.join("usr/local/lib/python3.13/dist-packages/pefile.py"), "one of the machine's own");
    assert_eq!(changes("other.py"), ["module/ordlookup", "module/pefile"]);
}

#[test]
fn interpreters_in_a_circle_end() {
    let (_dir, store) = store();
    let hasher = Hasher::new(&store);
    let host = tempfile::tempdir().unwrap();
    let root = host.path().canonicalize().unwrap();
    program(&root.join("usr/bin/a"), "#!/usr/bin/b\n");
    program(&root.join("usr/bin/b"), "#!/usr/bin/env a\n");
    program(&root.join("usr/bin/env"), "#!/usr/bin/env b\n");
    let identity = Programs::of_root(&hasher, &root).identity("a", &[]).unwrap().unwrap();
    assert_eq!(identity.parts.len(), 4, "{identity:?}");
}

#[test]
fn what_is_declared_of_a_program_is_part_of_it() {
    let (_dir, store) = store();
    let hasher = Hasher::new(&store);
    let host = root();
    let root = host.path().canonicalize().unwrap();
    // Not the real one, but one with a C library.
    fs::rename(root.join("usr/sbin/mkfs.ext4"), root.join("usr/sbin/mkfs.vfat")).unwrap();
    program(&root.join("usr/bin/apt-get"), "apt");
    program(&root.join("usr/lib/apt/solvers/dump"), "solver");
    program(&root.join("usr/lib/apt/planners/dump"), "planner");
    let identity = |name: &str| Programs::of_root(&hasher, &root).identity(name, &[]).unwrap().unwrap();
    let apt = identity("apt-get");
    assert_eq!(apt.parts.keys().collect::<Vec<_>>(), ["program", "runs/planners/dump", "runs/solvers/dump"]);
    let before = identity("mkfs.vfat");
    assert!(!before.parts.contains_key("plugin/gconv/IBM850.so"));
    let libc = Command::new("find").arg(&root).args(["-name", "libc.so.6"]).output().unwrap();
    let libc = PathBuf::from(String::from_utf8(libc.stdout).unwrap().trim());
    program(&libc.with_file_name("gconv").join("IBM850.so"), "a code page");
    assert_eq!(identity("mkfs.vfat").parts["plugin/gconv/IBM850.so"], Digest::of(b"a code page"));
}
