//! Why a node runs, in words: its inputs now against those of its last record.

use std::collections::BTreeMap;
use std::fmt;

use super::compile::TOOL;
use super::detail::part_in_words;
use crate::store::Record;
use crate::types::Digest;

/// How an input differs from the last run's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// It was there and holds something else now.
    Changed,
    /// It is new.
    Added,
    /// It is gone.
    Removed,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Changed => "changed",
            Self::Added => "is new",
            Self::Removed => "is gone",
        })
    }
}

/// How something that was read differs from when it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadChange {
    /// It was looked for in vain, and is there now.
    Appeared,
    /// It is gone.
    Gone,
    /// A directory is a file now, or the like.
    Replaced,
    /// Its content.
    Content,
    /// The names in it.
    Names,
    /// Where it points.
    Target,
    /// Its mode, size or capabilities.
    Attributes,
}

/// One reason for a node to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No run of it is known.
    Never,
    /// An input differs; the name is the input's (`setting/Packages`, `file/BuildScripts/00/mkosi.build`, `tree`).
    Input {
        /// The input's name.
        name: String,
        /// How it differs.
        change: Change,
    },
    /// Of programs of the host a part differs that is not their own file.
    Part {
        /// The programs.
        programs: Vec<String>,
        /// The part, as in [`crate::programs::Parts`].
        part: String,
        /// How it differs.
        change: Change,
    },
    /// Something that it read of its sources differs.
    Read {
        /// The path, as the user knows it.
        path: String,
        /// How it differs.
        change: ReadChange,
    },
    /// All inputs are as they were, but the result is no longer in the store.
    Gone,
    /// A node that it needs runs, so that its inputs can't be known yet.
    Needs {
        /// The stage that runs.
        stage: String,
    },
    /// A node of the tools tree runs, so that it can't be known yet which programs it runs.
    Tools,
    /// The user asked for it.
    Asked(String),
    /// What it publishes is not as it should be.
    Output(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never built"),
            Self::Gone => f.write_str("its result is no longer in the store"),
            Self::Needs { stage } => write!(f, "needs `{stage}`, which runs"),
            Self::Tools => f.write_str("needs the tools tree, which is being made"),
            Self::Asked(what) | Self::Output(what) => f.write_str(what),
            Self::Read { path, change } => match change {
                ReadChange::Appeared => write!(f, "`{path}` is there now (it was looked for)"),
                ReadChange::Gone => write!(f, "`{path}` is gone"),
                ReadChange::Replaced => write!(f, "`{path}` is something else now"),
                ReadChange::Content => write!(f, "`{path}` changed"),
                ReadChange::Names => write!(f, "the names in `{path}` changed"),
                ReadChange::Target => write!(f, "`{path}` points elsewhere"),
                ReadChange::Attributes => write!(f, "`{path}` has another mode or size"),
            },
            Self::Input { name, change } => write!(f, "{} {change}", input_in_words(name)),
            Self::Part { programs, part, change } => write!(f, "{} {change}", part_in_words(programs, part)),
        }
    }
}

/// An input's name in words for people.
pub fn input_in_words(name: &str) -> String {
    if let Some(path) = name.strip_prefix("host").filter(|path| path.starts_with('/')) {
        return format!("the host's `{path}`");
    }
    // A program may be named by its path.
    if let Some(tool) = name.strip_prefix(TOOL) {
        return format!("the host's `{tool}`");
    }
    let mut parts = name.splitn(4, '/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("setting"), Some(setting), None, None) => format!("`{setting}=`"),
        (Some("test"), Some(test), None, None) => format!("whether `{test}`"),
        (Some("name"), Some("file"), Some(setting), _) => format!("which file of an output `{setting}=` names"),
        (Some("file"), Some(_), Some(_), Some(base)) => format!("`{base}`"),
        (Some("file"), Some("BuildSources"), ..) => "a file of the build sources".to_owned(),
        (Some("file"), Some(setting), Some(index), None) => match index.parse::<usize>() {
            Ok(index) => format!("what `{setting}=` names (item {})", index + 1),
            Err(_) => format!("what `{setting}=` names"),
        },
        (Some("need"), Some(need), None, None) => match need.split_once('.') {
            Some(("dependency", image)) => format!("what the image {image} has in $PACKAGEDIR"),
            Some((stage, "tree")) => format!("the tree of `{stage}`"),
            Some((stage, output)) => format!("`{stage}`'s {output}"),
            None => format!("the tree of `{need}`"),
        },
        (Some("tree"), None, ..) => "the tree below".to_owned(),
        (Some("part"), None, ..) => "what it sees of the tree below".to_owned(),
        (Some("tools"), None, ..) => "the tools tree".to_owned(),
        (Some("arguments"), None, ..) => "what stands after `--`".to_owned(),
        (Some("labels"), None, ..) => "whether this user may label files".to_owned(),
        (Some("signer"), None, ..) => "whose keys can sign".to_owned(),
        (Some("owners"), None, ..) => "whether owners are kept (the user's subordinate ids)".to_owned(),
        _ => format!("`{name}`"),
    }
}

/// What differs between these inputs and those of the last run; of names that are `passed_over` none is missed.
fn differences(inputs: &BTreeMap<String, Digest>, last: &Record, passed_over: fn(&str) -> bool) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for (name, digest) in inputs {
        match last.inputs.get(name) {
            Some(old) if old == digest => {}
            Some(_) => reasons.push(Reason::Input { name: name.clone(), change: Change::Changed }),
            None => reasons.push(Reason::Input { name: name.clone(), change: Change::Added }),
        }
    }
    for name in last.inputs.keys().filter(|name| !inputs.contains_key(*name) && !passed_over(name)) {
        reasons.push(Reason::Input { name: name.clone(), change: Change::Removed });
    }
    reasons
}

/// The reasons for a node with these inputs and key to run, given its last record.
pub fn explain(key: &Digest, inputs: &BTreeMap<String, Digest>, last: Option<&Record>) -> Vec<Reason> {
    let Some(last) = last else {
        return vec![Reason::Never];
    };
    if last.key == *key {
        return vec![Reason::Gone];
    }
    let mut reasons = differences(inputs, last, |_| false);
    if reasons.is_empty() {
        reasons.push(Reason::Asked("mkosi itself makes it another way now".to_owned()));
    }
    reasons
}

/// The reasons for a node to run that no earlier run fits: `inputs` are all but its traced sources, `pre` is their key,
/// `changes` what differs of what its last run read.
pub fn explain_read(
    pre: &Digest,
    inputs: &BTreeMap<String, Digest>,
    changes: Vec<Reason>,
    last: Option<&Record>,
) -> Vec<Reason> {
    let Some(last) = last else {
        return vec![Reason::Never];
    };
    let mut reasons = differences(inputs, last, |name| name.starts_with("file/BuildSources/"));
    reasons.extend(changes);
    if reasons.is_empty() {
        reasons.push(match &last.read {
            Some(read) if read.pre == *pre => Reason::Gone,
            Some(_) => Reason::Asked("mkosi itself makes it another way now".to_owned()),
            None => Reason::Asked("what it reads of the sources is not known yet".to_owned()),
        });
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inputs(pairs: &[(&str, &str)]) -> BTreeMap<String, Digest> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), Digest::of(text.as_bytes()))).collect()
    }

    #[test]
    fn every_kind_of_difference_has_words() {
        let last = Record {
            key: Digest::of(b"old"),
            kind: "postinst".to_owned(),
            inputs: inputs(&[
                ("setting/Packages", "a"),
                ("file/PostInstallationScripts/00/mkosi.postinst", "a"),
                ("file/ExtraTrees/00", "a"),
                ("tool/tar", "a"),
                ("host/usr/share/keyrings/x.gpg", "a"),
                ("test/Format!=directory,tar", "a"),
                ("tree", "a"),
                ("need/build.dest", "a"),
                ("file/BuildSources/00", "same"),
            ]),
            outputs: BTreeMap::new(),
            duration_ms: 0,
            size: 0,
            finished: 0,
            read: None,
        };
        let now = inputs(&[
            ("setting/Packages", "b"),
            ("file/PostInstallationScripts/00/mkosi.postinst", "b"),
            ("file/ExtraTrees/00", "b"),
            ("tool/tar", "b"),
            ("host/usr/share/keyrings/x.gpg", "b"),
            ("test/Format!=directory,tar", "b"),
            ("tree", "b"),
            ("need/resolve.base", "b"),
            ("file/BuildSources/00", "same"),
        ]);
        let words: Vec<String> =
            explain(&Digest::of(b"new"), &now, Some(&last)).iter().map(ToString::to_string).collect();
        insta::assert_snapshot!(words.join("\n"));
        assert_eq!(explain(&Digest::of(b"old"), &now, Some(&last)), [Reason::Gone]);
        assert_eq!(explain(&Digest::of(b"old"), &now, None), [Reason::Never]);
    }
}
