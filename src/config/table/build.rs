//! `[Build]`: the tools, caches, sources and environment of a build.

use super::super::defaults;
use super::choices::{CACHE_ONLY, DISTRIBUTION, EPHEMERAL_SOURCES, INCREMENTAL};
use super::{Default, Item, Kind, Matcher, PathRule, Scope, Setting, Split};

const SECTION: &str = "Build";

const SANDBOX: Kind = Kind::List {
    item: Item::Tree { required: true, absolute: true, directory: false, bare: false },
    split: Split::Words,
};
const DIRECTORY: Kind = Kind::Path(PathRule::ANY);

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new(
        "ToolsTree",
        SECTION,
        &["--tools-tree"],
        Kind::Path(PathRule { constants: &["default", "yes", "no"], ..PathRule::EXISTS }),
    )
    .meta("PATH")
    .scope(Scope::Universal)
    .at(&["tools"])
    .help("A tree whose programs are used instead of the host's; `default` is one that is built"),
    Setting::new("ToolsTreeDistribution", SECTION, &["--tools-tree-distribution"], Kind::Enum(&DISTRIBUTION))
        .meta("NAME")
        .scope(Scope::Tools)
        .default(Default::From(defaults::tools_tree_distribution))
        .help("The distribution of the default tools tree"),
    Setting::new("ToolsTreeRelease", SECTION, &["--tools-tree-release"], Kind::Text)
        .meta("RELEASE")
        .scope(Scope::Tools)
        .default(Default::From(defaults::tools_tree_release))
        .help("The release of the default tools tree"),
    Setting::new("ToolsTreeProfiles", SECTION, &["--tools-tree-profile"], Kind::WORDS)
        .meta("PROFILE")
        .scope(Scope::Tools)
        .default(Default::Texts(&["misc", "package-manager", "runtime"]))
        .help("Profiles of the default tools tree: devel, misc, package-manager, runtime"),
    Setting::new("ToolsTreeMirror", SECTION, &["--tools-tree-mirror"], Kind::Text)
        .meta("URL")
        .scope(Scope::Tools)
        .default(Default::From(defaults::tools_tree_mirror))
        .nullable()
        .help("The mirror for the default tools tree"),
    Setting::new("ToolsTreeRepositories", SECTION, &["--tools-tree-repository"], Kind::WORDS)
        .meta("NAME")
        .scope(Scope::Tools)
        .help("Further repositories for the default tools tree"),
    Setting::new("ToolsTreeSandboxTrees", SECTION, &["--tools-tree-sandbox-tree"], SANDBOX)
        .meta("PATH[:TARGET]")
        .scope(Scope::Tools)
        .once(&["ToolsTreePackageManagerTrees"], &["--tools-tree-package-manager-tree"])
        .help("Sandbox trees for the default tools tree"),
    Setting::new("ToolsTreePackages", SECTION, &["--tools-tree-package"], Kind::WORDS)
        .meta("PACKAGE")
        .scope(Scope::Tools)
        .help("Further packages for the default tools tree"),
    Setting::new(
        "ToolsTreePackageDirectories",
        SECTION,
        &["--tools-tree-package-directory"],
        Kind::paths(PathRule::EXISTS),
    )
    .meta("PATH")
    .scope(Scope::Tools)
    .help("Directories with further packages for the default tools tree"),
    Setting::new("ToolsTreeBootstrap", SECTION, &["--tools-tree-bootstrap"], Kind::Feature)
        .scope(Scope::Multiversal)
        .help("Make a first Debian tree without a package manager of the host, to make the default tools tree with"),
    Setting::new("ToolsTreeCertificates", SECTION, &["--tools-tree-certificates"], Kind::Bool)
        .scope(Scope::Universal)
        .default(Default::Bool(true))
        .help("Use the certificates of the tools tree instead of the host's"),
    Setting::new(
        "ExtraSearchPaths",
        SECTION,
        &["--extra-search-path"],
        Kind::paths(PathRule { exclude: &["/usr"], ..PathRule::EXISTS }),
    )
    .meta("PATH")
    .scope(Scope::Universal)
    .help("Directories to look for programs in before those of $PATH"),
    Setting::new("Incremental", SECTION, &["--incremental", "-i"], Kind::Enum(&INCREMENTAL))
        .meta("MODE")
        .short("yes")
        .scope(Scope::Universal)
        .default(Default::Text("no"))
        .no_output()
        .help("Kept for old configurations: every step is always reused where nothing changed"),
    Setting::new("CacheOnly", SECTION, &["--cache-only"], Kind::Enum(&CACHE_ONLY))
        .meta("WHEN")
        .scope(Scope::Inherit)
        .default(Default::Text("auto"))
        .no_output()
        .help("Install packages from the cache alone"),
    Setting::new("SandboxTrees", SECTION, &["--sandbox-tree"], SANDBOX)
        .meta("PATH[:TARGET]")
        .scope(Scope::Universal)
        .tools()
        .at(&["sandbox", "sandbox.tar", "pkgmngr", "pkgmngr.tar"])
        .once(&["PackageManagerTrees"], &["--package-manager-tree"])
        .help("Trees with the configuration of the tools that run, of package managers above all"),
    Setting::new("WorkspaceDirectory", SECTION, &["--workspace-directory"], DIRECTORY)
        .meta("DIR")
        .scope(Scope::Multiversal)
        .once(&[], &["--workspace-dir"])
        .no_output()
        .help("Where files that are needed for the build alone are put"),
    Setting::new("CacheDirectory", SECTION, &["--cache-directory"], DIRECTORY)
        .meta("DIR")
        .scope(Scope::Universal)
        .at(&["cache"])
        .once(&[], &["--cache-dir"])
        .no_output()
        .help("Where what can be used again is kept"),
    Setting::new("CacheKey", SECTION, &["--cache-key"], Kind::Text)
        .meta("KEY")
        .scope(Scope::Inherit)
        .default(Default::Text("&d~&r~&a~&I"))
        .no_output()
        .help("Kept for old configurations: what is reused is found by its content"),
    Setting::new("PackageCacheDirectory", SECTION, &["--package-cache-directory"], DIRECTORY)
        .meta("DIR")
        .scope(Scope::Multiversal)
        .at(&["pkgcache"])
        .once(&[], &["--package-cache-dir"])
        .no_output()
        .help("Where downloaded packages are kept"),
    Setting::new("BuildDirectory", SECTION, &["--build-directory"], DIRECTORY)
        .meta("DIR")
        .scope(Scope::Universal)
        .at(&["builddir"])
        .once(&[], &["--build-dir"])
        .no_output()
        .help("A directory that build scripts find again the next time"),
    Setting::new("BuildKey", SECTION, &["--build-key"], Kind::Text)
        .meta("KEY")
        .scope(Scope::Inherit)
        .default(Default::Text("&d~&r~&a"))
        .no_output()
        .help("The name below the build directory, with & specifiers"),
    Setting::new("UseSubvolumes", SECTION, &["--use-subvolumes"], Kind::Feature)
        .scope(Scope::Universal)
        .no_output()
        .help("Use btrfs subvolumes where that is faster"),
    Setting::new("RepartOffline", SECTION, &["--repart-offline"], Kind::Bool)
        .scope(Scope::Universal)
        .default(Default::Bool(true))
        .help("Make disk images without loop devices"),
    Setting::new("History", SECTION, &["--history"], Kind::Bool)
        .scope(Scope::Main)
        .no_output()
        .help("Remember the command line of the last build"),
    Setting::new(
        "BuildSources",
        SECTION,
        &["--build-sources"],
        Kind::List {
            item: Item::Tree { required: true, absolute: false, directory: true, bare: false },
            split: Split::Words,
        },
    )
    .meta("PATH[:TARGET]")
    .scope(Scope::Multiversal)
    .matched(Matcher::Target)
    .default(Default::From(defaults::build_sources))
    .help("Directories with sources for the scripts"),
    Setting::new("BuildSourcesEphemeral", SECTION, &["--build-sources-ephemeral"], Kind::Enum(&EPHEMERAL_SOURCES))
        .meta("MODE")
        .scope(Scope::Multiversal)
        .default(Default::Text("no"))
        .help("Throw away what scripts change in the sources"),
    Setting::new("TraceSources", SECTION, &["--trace-sources"], Kind::Feature)
        .scope(Scope::Universal)
        .no_output()
        .help("Run scripts again for changes to the sources that they read; `auto` is all but build scripts"),
    Setting::new("Environment", SECTION, &["--environment", "-E"], Kind::Dict { passes: true })
        .meta("NAME[=VALUE]")
        .tools()
        .help("Variables for the scripts; a name alone takes the value that mkosi itself got"),
    Setting::new("EnvironmentFiles", SECTION, &["--env-file"], Kind::paths(PathRule::EXISTS))
        .meta("PATH")
        .tools()
        .at(&["env"])
        .help("Files with variables for the scripts"),
    Setting::new("WithTests", SECTION, &["--with-tests", "-T"], Kind::Bool)
        .short("no")
        .scope(Scope::Universal)
        .default(Default::Bool(true))
        .help("Let build scripts run tests; -T turns it off"),
    Setting::new("WithNetwork", SECTION, &["--with-network"], Kind::Bool)
        .scope(Scope::Universal)
        .help("Let scripts use the network"),
    Setting::new("ProxyUrl", SECTION, &["--proxy-url"], Kind::Text)
        .meta("URL")
        .scope(Scope::Multiversal)
        .default(Default::From(defaults::proxy_url))
        .nullable()
        .no_output()
        .help("The proxy for downloads"),
    Setting::new("ProxyExclude", SECTION, &["--proxy-exclude"], Kind::WORDS)
        .meta("HOST")
        .scope(Scope::Multiversal)
        .default(Default::From(defaults::proxy_exclude))
        .no_output()
        .help("Hosts that are reached without the proxy"),
    Setting::new("ProxyPeerCertificate", SECTION, &["--proxy-peer-certificate"], Kind::Path(PathRule::EXISTS))
        .meta("PATH")
        .scope(Scope::Multiversal)
        .default(Default::From(defaults::proxy_peer_certificate))
        .nullable()
        .no_output()
        .help("The certificates that the proxy's own is checked with"),
    Setting::new("ProxyClientCertificate", SECTION, &["--proxy-client-certificate"], Kind::Path(PathRule::SECRET))
        .meta("PATH")
        .scope(Scope::Multiversal)
        .no_output()
        .help("The certificate to show to the proxy"),
    Setting::new("ProxyClientKey", SECTION, &["--proxy-client-key"], Kind::Path(PathRule::SECRET))
        .meta("PATH")
        .scope(Scope::Multiversal)
        .default(Default::From(defaults::proxy_client_key))
        .nullable()
        .no_output()
        .help("The key of that certificate"),
    Setting::new("MakeScriptsExecutable", SECTION, &["--make-scripts-executable"], Kind::Bool)
        .scope(Scope::Multiversal)
        .no_output()
        .help("Run scripts that lack the executable bit all the same"),
    Setting::new("ForeignUIDRange", SECTION, &["--foreign-uid-range"], Kind::Bool)
        .scope(Scope::Main)
        .help("Give the files of directory outputs ids of the foreign range"),
];
