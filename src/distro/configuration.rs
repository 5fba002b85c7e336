//! The text of apt.conf(5): one for every run of apt in this program, whoever starts it. Knows nothing of repositories.

use std::fmt::Write;

use super::install::DOCS;

/// The tree that apt works on.
#[derive(Clone, Copy, Debug)]
pub struct Tree<'a> {
    /// Where it is in the sandbox.
    pub root: &'a str,
    /// Whether documentation is unpacked.
    pub docs: bool,
}

/// What differs between the runs.
#[derive(Clone, Copy, Debug)]
pub struct Configuration<'a> {
    /// dpkg's name of the architecture.
    pub architecture: &'a str,
    /// The directory of apt's own files in the sandbox: `etc`, `cache`, and without a tree `state` and `status`.
    pub directory: &'a str,
    /// Where the lists are in the sandbox.
    pub lists: &'a str,
    /// Whether recommended packages are installed.
    pub recommends: bool,
    /// Whether metadata must be signed.
    pub key_check: bool,
    /// How the network is reached, line by line.
    pub acquire: &'a [String],
    /// The tree that is changed; none where apt only computes or fetches.
    pub tree: Option<Tree<'a>>,
}

impl Configuration<'_> {
    /// The text.
    pub fn text(&self) -> String {
        let Self { architecture, directory, lists, .. } = self;
        let mut text = format!(
            "APT::Architecture \"{architecture}\";\nAPT::Architectures {{ \"{architecture}\"; }};\n\
             Dir \"{directory}/\";\nDir::Etc \"{directory}/etc\";\nDir::Etc::parts \"{directory}/etc/apt.conf.d\";\n\
             Dir::Etc::sourcelist \"/dev/null\";\nDir::Etc::sourceparts \"{directory}/etc/sources.list.d\";\n\
             Dir::State::lists \"{lists}\";\nDir::Cache \"{directory}/cache\";\n{ALWAYS}"
        );
        let mut flag = |name: &str, on: bool| {
            let _ = writeln!(text, "{name} \"{on}\";");
        };
        flag("APT::Install-Recommends", self.recommends);
        for name in [
            "Acquire::AllowInsecureRepositories",
            "Acquire::AllowDowngradeToInsecureRepositories",
            "APT::Get::AllowUnauthenticated",
        ] {
            flag(name, !self.key_check);
        }
        match &self.tree {
            Some(tree) => {
                let apt = format!("{}/var/lib/apt", tree.root);
                let status = format!("{}/var/lib/dpkg/status", tree.root);
                let _ = writeln!(
                    text,
                    "Dir::State \"{apt}\";\nDir::State::extended_states \"{apt}/extended_states\";\n\
                     Dir::State::status \"{status}\";\n{CHANGING}"
                );
                for option in dpkg_options(tree) {
                    let _ = writeln!(text, "DPkg::Options:: \"{option}\";");
                }
            }
            None => {
                let _ = writeln!(
                    text,
                    "Dir::State \"{directory}/state\";\nDir::State::status \"{directory}/status\";\n\
                     Dir::State::extended_states \"{directory}/state/extended_states\";"
                );
            }
        }
        for line in self.acquire {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}

/// dpkg's options for every change of a tree.
pub(super) fn dpkg_options(tree: &Tree<'_>) -> Vec<String> {
    let mut options = vec![format!("--root={}", tree.root)];
    options.extend(
        [
            "--log=/dev/null",
            "--force-unsafe-io",
            "--force-architecture",
            "--force-confdef",
            "--force-confold",
            "--no-debsig",
        ]
        .map(str::to_owned),
    );
    if !tree.docs {
        options.extend(DOCS.iter().map(|glob| format!("--path-exclude=/{glob}")));
        options.push("--path-include=/usr/share/doc/*/copyright".to_owned());
    }
    options
}

/// What is the same for every run. The lists stay uncompressed: a solver run reads them two to three times and is half a
/// second faster so. `ForceEssential` keeps apt itself out of the essential set. That no file of the host is read, hooks
/// included, is the doing of the directories.
const ALWAYS: &str = r#"Dir::Log "/tmp";
Dir::Bin::methods "/usr/lib/apt/methods";
Dir::Bin::solvers { "/usr/lib/apt/solvers"; };
Dir::Bin::planners { "/usr/lib/apt/planners"; };
APT::Sandbox::User "root";
APT::Get::Assume-Yes "true";
APT::Get::Show-Versions "false";
APT::Color "false";
pkgCacheGen::ForceEssential ",";
Acquire::Languages "none";
Acquire::ForceHash "SHA256";
Acquire::GzipIndexes "false";
Acquire::AllowReleaseInfoChange "true";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Debug::NoLocking "true";
DPkg::Use-Pty "false";
quiet "1";
"#;

/// What a user who asked for a change to an image would answer.
const CHANGING: &str = r#"APT::Get::AutomaticRemove "true";
APT::Get::Allow-Change-Held-Packages "true";
APT::Get::Allow-Remove-Essential "true";"#;
