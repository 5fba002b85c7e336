//! The verbs of the command line.
//!
//! Knows nothing of what they do.

/// What the words after a verb are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Names of images; arguments for scripts stand after `--`.
    Images,
    /// Arguments, before and after `--`.
    Arguments,
    /// There are none.
    Nothing,
}

macro_rules! verbs {
    ($($variant:ident $name:literal $aliases:tt $words:ident $help:literal;)*) => {
        /// A verb: what mkosi is asked to do.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Verb {
            $(#[doc = $help] $variant,)*
        }

        impl Verb {
            /// Every verb, in the order of the help.
            pub const ALL: &[Verb] = &[$(Verb::$variant),*];

            /// The name on the command line.
            pub const fn name(self) -> &'static str {
                match self { $(Verb::$variant => $name,)* }
            }

            /// Other names for it.
            pub const fn aliases(self) -> &'static [&'static str] {
                match self { $(Verb::$variant => &$aliases,)* }
            }

            /// What it does, in a line.
            pub const fn help(self) -> &'static str {
                match self { $(Verb::$variant => $help,)* }
            }

            /// What the words after it are.
            pub const fn words(self) -> Words {
                match self { $(Verb::$variant => Words::$words,)* }
            }
        }
    };
}

verbs! {
    Init "init" [] Nothing "Write a small project to start from";
    Build "build" [] Images "Build images";
    Summary "summary" [] Images "Show what is configured, and where";
    Graph "graph" [] Images "Show the steps of a build, and which of them would run";
    CatConfig "cat-config" [] Images "Show the configuration files that are read";
    Clean "clean" [] Images "Remove outputs; with -f what is kept for the next build as well";
    Store "store" [] Arguments "Look into, check or tidy the store";
    Update "update" [] Images "Look for newer packages, and build what they change";
    Shell "shell" [] Arguments "Run a shell in the image";
    Boot "boot" [] Arguments "Boot the image in a container";
    Vm "vm" ["qemu"] Arguments "Boot the image in a virtual machine";
    Ssh "ssh" [] Arguments "Log in to the running virtual machine";
    Journalctl "journalctl" [] Arguments "Read the image's journal";
    Coredumpctl "coredumpctl" [] Arguments "Look for core dumps in the image";
    Sysupdate "sysupdate" [] Arguments "Run systemd-sysupdate on the outputs";
    Box "box" ["sandbox"] Arguments "Run a program, or a shell, with the programs of the tools tree";
    Serve "serve" [] Nothing "Serve the outputs over HTTP";
    Burn "burn" [] Arguments "Write the image to a drive";
    Bump "bump" [] Nothing "Raise the image's version";
    Genkey "genkey" [] Nothing "Make a key and certificate for Secure Boot";
    Dependencies "dependencies" [] Arguments "List the packages that builds need on the host";
    LatestSnapshot "latest-snapshot" [] Nothing "Show the newest snapshot of the mirror";
    Documentation "documentation" [] Arguments "Show the manual";
    Completion "completion" [] Arguments "Print completions for a shell";
    Help "help" [] Nothing "Show this help";
}

impl Verb {
    /// The verb of a name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|verb| verb.name() == name || verb.aliases().contains(&name))
    }

    /// Whether it reads or writes the store.
    pub const fn uses_store(self) -> bool {
        matches!(self, Self::Build | Self::Update | Self::Graph | Self::Clean | Self::Store)
    }

    /// Whether `-f` makes it build the image first.
    pub const fn builds_with_force(self) -> bool {
        matches!(self, Self::Shell | Self::Boot | Self::Vm | Self::Sysupdate | Self::Serve | Self::Burn)
    }

    /// Whether it runs programs for the user, most often on what was built. Without [`Verb::builds_with_force`], `-f`
    /// makes it build the default tools tree alone: another image would have another journal.
    pub const fn runs(self) -> bool {
        self.builds_with_force()
            || matches!(self, Self::Box | Self::Coredumpctl | Self::Journalctl | Self::LatestSnapshot | Self::Ssh)
    }

    /// Whether the configuration is what configure scripts make of it.
    pub const fn needs_configure_scripts(self) -> bool {
        self.builds_with_force() || matches!(self, Self::Build | Self::Update | Self::Graph)
    }

    /// Whether it needs no configuration.
    pub const fn needs_no_configuration(self) -> bool {
        matches!(
            self,
            Self::Help | Self::Genkey | Self::Documentation | Self::Dependencies | Self::Completion | Self::Init
        )
    }
}
