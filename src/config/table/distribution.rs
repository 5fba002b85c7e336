//! `[Distribution]`: what is installed, and where it comes from.

use super::super::defaults;
use super::choices::{ARCHITECTURE, DISTRIBUTION};
use super::{Default, Kind, Matcher, Scope, Setting};

const SECTION: &str = "Distribution";

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("Distribution", SECTION, &["--distribution", "-d"], Kind::Enum(&DISTRIBUTION))
        .meta("NAME")
        .letter('d')
        .scope(Scope::Universal)
        .default(Default::From(defaults::distribution))
        .help("The distribution to install"),
    Setting::new("Release", SECTION, &["--release", "-r"], Kind::Text)
        .meta("RELEASE")
        .letter('r')
        .scope(Scope::Universal)
        .default(Default::From(defaults::release))
        .help("The distribution's release"),
    Setting::new("Architecture", SECTION, &["--architecture"], Kind::Enum(&ARCHITECTURE))
        .meta("NAME")
        .letter('a')
        .scope(Scope::Universal)
        .matched(Matcher::Architecture)
        .default(Default::From(defaults::architecture))
        .help("The architecture to build for"),
    Setting::new("Mirror", SECTION, &["--mirror", "-m"], Kind::Text)
        .meta("URL")
        .scope(Scope::Universal)
        .help("The mirror to download packages from"),
    Setting::new("Snapshot", SECTION, &["--snapshot"], Kind::Text)
        .meta("ID")
        .scope(Scope::Universal)
        .tools()
        .read(&["snapshot"])
        .help("The snapshot of the mirror to use instead of its newest state"),
    Setting::new("LocalMirror", SECTION, &["--local-mirror"], Kind::Text)
        .meta("URL")
        .scope(Scope::Universal)
        .tools()
        .help("A single flat repository to build from, which the image won't know of"),
    Setting::new("RepositoryKeyCheck", SECTION, &["--repository-key-check"], Kind::Bool)
        .scope(Scope::Multiversal)
        .default(Default::Bool(true))
        .help("Check the signatures of repositories and packages"),
    Setting::new("RepositoryKeyFetch", SECTION, &["--repository-key-fetch"], Kind::Bool)
        .scope(Scope::Universal)
        .tools()
        .default(Default::From(defaults::repository_key_fetch))
        .help("Download the distribution's keys instead of looking for them on the host"),
    Setting::new("Repositories", SECTION, &["--repositories"], Kind::WORDS)
        .meta("NAME")
        .scope(Scope::Universal)
        .tools()
        .help("Further repositories to turn on"),
];
