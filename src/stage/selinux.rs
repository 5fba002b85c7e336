//! The stage `selinux`: labels every file as the image's SELinux policy says (setfiles(8), selinux(8)).
//!
//! It comes after all that changes the tree, so that what scripts made has labels too. Labels are the attribute
//! `security.selinux`, which most kernels let only root of the machine write: a user gets a tree without then.

use rustix::fs::XattrFlags;

use super::context::BUILDROOT;
use super::hwdb::unchanged;
use super::{Context, Outputs, StageError};
use crate::boot::look::Look;
use crate::sandbox::{Input, Output};
use crate::store::LABEL;

/// Where an image says which policy it has.
pub const CONFIG: &str = "etc/selinux/config";

/// A label that every policy has.
const UNLABELLED: &[u8] = b"system_u:object_r:unlabeled_t:s0\0";

/// A policy in the tree. Paths have no leading slash.
#[derive(Debug, PartialEq, Eq)]
struct Policy {
    name: String,
    /// Which file has which label.
    contexts: String,
    /// What labels there are.
    binary: String,
}

/// What is missing of a policy.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
enum Missing {
    #[error("the image has no /{CONFIG}: add a policy to Packages= (Debian: selinux-policy-default)")]
    Config,
    #[error("/{CONFIG} of the image names no policy (`SELINUXTYPE=`)")]
    Name,
    #[error("the image lacks /{0} of the policy that its /{CONFIG} names")]
    Part(String),
}

/// Labels the tree.
pub fn run(cx: &mut Context<'_>) -> Result<Outputs, StageError> {
    let demanded = cx.view.text("SELinuxRelabel") == Some("enabled");
    let merged = cx.merged();
    let policy = match policy(&Look::new(&merged)) {
        Ok(policy) => policy,
        Err(missing) if demanded => return Err(StageError::Other(format!("SELinuxRelabel=yes, and {missing}"))),
        Err(Missing::Config) => return Ok(unchanged(cx)),
        Err(missing) => return Ok(passed_over(cx, &missing.to_string())),
    };
    let setfiles = match cx.tools.need("setfiles", "SELinuxRelabel=yes") {
        Ok(setfiles) => setfiles,
        Err(error) if demanded => return Err(error),
        Err(_) => return Ok(passed_over(cx, "setfiles is not among the tools (Debian: policycoreutils)")),
    };
    if let Err(why) = can_label(cx)? {
        let why = format!("files can't be labelled here ({why}): that takes root, not only in a user namespace");
        return match demanded {
            true => Err(StageError::Other(format!(
                "SELinuxRelabel=yes, and {why}; run as root, or label on the first boot and set SELinuxRelabel=no"
            ))),
            false => Ok(passed_over(cx, &why)),
        };
    }
    cx.note(&format!("labelling files by the policy `{}`", policy.name));
    let tree = cx.open_tree()?;
    let inside = |path: &str| format!("{BUILDROOT}/{path}");
    let setfiles = setfiles.to_string_lossy().into_owned();
    // All threads; mounts that say nothing of labels count too; nothing is kept of a label that is there.
    let (binary, contexts) = (inside(&policy.binary), inside(&policy.contexts));
    let mut spec = cx.spec(&[&setfiles, "-mFr", BUILDROOT, "-T0", "-c", &binary, &contexts, BUILDROOT]);
    spec.mounts.push(cx.tree_mount(&tree));
    spec.rights = cx.label_rights();
    let exit = spec.run(Input::Null, Output::Merged(cx.log), cx.cancel)?;
    if !exit.success() {
        if cx.cancel.is_cancelled() {
            return Err(StageError::Cancelled);
        }
        if demanded {
            return Err(StageError::Command { command: spec.argv.join(" "), exit });
        }
        cx.note("setfiles failed, which SELinuxRelabel=auto passes over: files may lack their labels");
    }
    cx.close_tree(tree)
}

fn passed_over(cx: &mut Context<'_>, why: &str) -> Outputs {
    cx.note(&format!("not labelled, since SELinuxRelabel=auto: {why}"));
    unchanged(cx)
}

/// Finds the policy of a tree.
fn policy(look: &Look<'_>) -> Result<Policy, Missing> {
    let config = look.text(CONFIG).ok().flatten().ok_or(Missing::Config)?;
    let name = policy_name(&config).ok_or(Missing::Name)?;
    let contexts = format!("etc/selinux/{name}/contexts/files/file_contexts");
    // Without links: those that start at the root would lead the program out of the image.
    let contexts = look.file(&contexts).and_then(|_| look.resolve(&contexts)).ok_or(Missing::Part(contexts))?;
    let directory = format!("etc/selinux/{name}/policy");
    let names = look.names(&directory);
    let newest = names.iter().filter_map(|name| Some((version(name)?, name))).max();
    let (_, binary) = newest.ok_or_else(|| Missing::Part(format!("{directory}/policy.*")))?;
    let binary = format!("{directory}/{binary}");
    let binary = look.file(&binary).and_then(|_| look.resolve(&binary)).ok_or(Missing::Part(binary))?;
    Ok(Policy { name, contexts, binary })
}

/// The version at the end of a policy's file name: `policy.33`.
fn version(name: &str) -> Option<u32> {
    let (_, version) = name.rsplit_once('.')?;
    version.parse().ok()
}

/// The value of `SELINUXTYPE=`, where the last one counts, as it does for a shell.
fn policy_name(config: &str) -> Option<String> {
    let mut values = config.lines().filter_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
    let value = values.next_back()?.split_whitespace().next().unwrap_or_default();
    let name = value.trim_matches(['"', '\'']);
    // It becomes part of paths.
    (!name.is_empty() && !name.contains('/') && name != "..").then(|| name.to_owned())
}

/// Whether a file can be labelled at all, tried out beside the tree: in the store, where its layer will be.
fn can_label(cx: &Context<'_>) -> Result<Result<(), String>, StageError> {
    let path = cx.work.join("label");
    std::fs::write(&path, "").map_err(StageError::io("write", &path))?;
    Ok(rustix::fs::setxattr(&path, LABEL, UNLABELLED, XattrFlags::empty()).map_err(|error| error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::kernels::testing::Made;

    const CONTEXTS: (&str, &str) = ("etc/selinux/small/contexts/files/file_contexts", "");

    fn found(files: &[(&str, &str)]) -> Result<Policy, Missing> {
        let made = Made::new(files);
        let tree = made.tree();
        policy(&Look::new(&tree))
    }

    #[test]
    fn the_newest_policy_is_taken() {
        let config = (CONFIG, "# SELINUXTYPE=no\nSELINUX=enforcing\nSELINUXTYPE=other\nSELINUXTYPE=\"small\" # it\n");
        let policy = |version| (version, "");
        let files = [
            config,
            CONTEXTS,
            policy("etc/selinux/small/policy/policy.9"),
            policy("etc/selinux/small/policy/policy.33"),
            policy("etc/selinux/small/policy/policy.33.bak"),
        ];
        let found = found(&files).unwrap();
        assert_eq!((found.name.as_str(), found.binary.as_str()), ("small", "etc/selinux/small/policy/policy.33"));
    }

    #[test]
    fn what_is_missing_is_told() {
        assert_eq!(found(&[]).unwrap_err(), Missing::Config);
        for config in ["SELINUX=enforcing\n", "SELINUXTYPE=\n", "SELINUXTYPE=../x\n"] {
            assert_eq!(found(&[(CONFIG, config)]).unwrap_err(), Missing::Name, "{config}");
        }
        let config = (CONFIG, "SELINUXTYPE=small");
        assert_eq!(found(&[config]).unwrap_err(), Missing::Part(CONTEXTS.0.to_owned()));
        let told = found(&[config, CONTEXTS]).unwrap_err().to_string();
        assert!(told.contains("/etc/selinux/small/policy/policy.*"), "{told}");
    }
}
