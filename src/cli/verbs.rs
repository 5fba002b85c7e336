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
    ($($variant:ident $name:literal $aliases:tt $words:ident $implemented:literal $help:literal;)*) => {
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

            /// Whether this version can do it.
            pub const fn implemented(self) -> bool {
                match self { $(Verb::$variant => $implemented,)* }
            }
        }
    };
}

verbs! {
    Init "init" [] Nothing true "Write a small project to start from";
    Build "build" [] Images true "Build images";
    Summary "summary" [] Images true "Show what is configured, and where";
    Graph "graph" [] Images true "Show the steps of a build, and which of them would run";
    CatConfig "cat-config" [] Images true "Show the configuration files that are read";
    Clean "clean" [] Images true "Remove outputs; with -f what is kept for the next build as well";
    Store "store" [] Arguments true "Look into, check or tidy the store";
    Update "update" [] Images true "Look for newer packages, and build what they change";
    Shell "shell" [] Arguments true "Run a shell in the image";
    Boot "boot" [] Arguments true "Boot the image in a container";
    Vm "vm" ["qemu"] Arguments true "Boot the image in a virtual machine";
    Ssh "ssh" [] Arguments true "Log in to the running virtual machine";
    Journalctl "journalctl" [] Arguments true "Read the image's journal";
    Coredumpctl "coredumpctl" [] Arguments true "Look for core dumps in the image";
    Sysupdate "sysupdate" [] Arguments true "Run systemd-sysupdate on the outputs";
    Box "box" ["sandbox"] Arguments true "Run a program, or a shell, with the programs of the tools tree";
    Serve "serve" [] Nothing true "Serve the outputs over HTTP";
    Burn "burn" [] Arguments true "Write the image to a drive";
    Bump "bump" [] Nothing true "Raise the image's version";
    Genkey "genkey" [] Nothing true "Make a key and certificate for Secure Boot";
    Dependencies "dependencies" [] Arguments true "List the packages that builds need on the host";
    LatestSnapshot "latest-snapshot" [] Nothing true "Show the newest snapshot of the mirror";
    Documentation "documentation" [] Arguments true "Show the manual";
    Completion "completion" [] Arguments true "Print completions for a shell";
    Help "help" [] Nothing true "Show this help";
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
        matches!(self, Self::Build | Self::Update | Self::Graph | Self::Shell | Self::Boot | Self::Vm)
    }

    /// Whether it needs no configuration.
    pub const fn needs_no_configuration(self) -> bool {
        matches!(
            self,
            Self::Help | Self::Genkey | Self::Documentation | Self::Dependencies | Self::Completion | Self::Init
        )
    }
}
