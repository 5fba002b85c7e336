//! Keys and certificates, and how each tool that signs is told where they are.

/// Where a key or certificate is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Keeper {
    /// In a file.
    #[default]
    File,
    /// Behind an engine of OpenSSL.
    Engine(String),
    /// Behind a provider of OpenSSL.
    Provider(String),
}

impl Keeper {
    /// As systemd's tools want it in `--private-key-source=`; nothing for a file, their default.
    fn systemd(&self) -> Option<String> {
        match self {
            Self::File => None,
            Self::Engine(name) => Some(format!("engine:{name}")),
            Self::Provider(name) => Some(format!("provider:{name}")),
        }
    }
}

/// A key and its certificate: paths in the sandbox, or names that an engine or provider knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// The private key.
    pub key: String,
    /// Where it is kept.
    pub key_keeper: Keeper,
    /// The certificate.
    pub certificate: String,
    /// Where it is kept.
    pub certificate_keeper: Keeper,
}

/// The tool that signs EFI programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SignTool {
    /// sbsign(1), by its path.
    Sbsign(String),
    /// systemd-sbsign(1), by its path.
    Systemd(String),
}

impl SignTool {
    /// What `SecureBootSignTool=` and the tools at hand come to: systemd-sbsign goes first.
    ///
    /// # Errors
    /// What is missing, in words.
    pub fn choose(wanted: &str, sbsign: Option<String>, systemd: Option<String>) -> Result<Self, String> {
        let missing = |names: &str| {
            format!(
                "SecureBoot=yes needs {names}, which is not among the tools; \
                 set ToolsTree=default, or install it (Debian: sbsigntool)"
            )
        };
        match wanted {
            "sbsign" => sbsign.map(Self::Sbsign).ok_or_else(|| missing("sbsign")),
            "systemd-sbsign" => systemd.map(Self::Systemd).ok_or_else(|| missing("systemd-sbsign")),
            _ => systemd
                .map(Self::Systemd)
                .or(sbsign.map(Self::Sbsign))
                .ok_or_else(|| missing("systemd-sbsign or sbsign")),
        }
    }

    /// Its name, as ukify(1) has it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Sbsign(_) => "sbsign",
            Self::Systemd(_) => "systemd-sbsign",
        }
    }

    /// Whether the tool gets at a key and certificate that are kept like these.
    ///
    /// # Errors
    /// What it can't reach, in words.
    pub fn reaches(&self, pair: &Pair) -> Result<(), String> {
        let text = match self {
            Self::Systemd(_) => return Ok(()),
            Self::Sbsign(_) if pair.certificate_keeper != Keeper::File => {
                "sbsign reads certificates from files alone: set SecureBootSignTool=systemd-sbsign, or \
                 SecureBootCertificateSource=file"
            }
            Self::Sbsign(_) if matches!(pair.key_keeper, Keeper::Provider(_)) => {
                "sbsign knows no providers of OpenSSL: set SecureBootSignTool=systemd-sbsign, or \
                 SecureBootKeySource=engine:NAME"
            }
            Self::Sbsign(_) => return Ok(()),
        };
        Err(text.to_owned())
    }

    /// The command that signs `input`, with a key and certificate that the tool reaches.
    pub fn command(&self, pair: &Pair, input: &str, output: &str) -> Vec<String> {
        let text = |text: &str| text.to_owned();
        match self {
            Self::Systemd(program) => {
                let mut argv = vec![program.clone(), text("sign"), text("--output"), text(output), text(input)];
                argv.extend(pair.systemd());
                argv
            }
            Self::Sbsign(program) => {
                let mut argv = vec![program.clone(), text("--cert"), pair.certificate.clone()];
                argv.extend([text("--output"), text(output)]);
                if let Keeper::Engine(engine) = &pair.key_keeper {
                    argv.extend([text("--engine"), engine.clone()]);
                }
                argv.extend([text("--key"), pair.key.clone(), text(input)]);
                argv
            }
        }
    }
}

impl Pair {
    /// The options of systemd's tools: bootctl, systemd-sbsign, systemd-keyutil.
    pub fn systemd(&self) -> Vec<String> {
        let mut argv = Vec::new();
        let mut option = |name: &str, value: String| argv.extend([name.to_owned(), value]);
        if let Some(source) = self.certificate_keeper.systemd() {
            option("--certificate-source", source);
        }
        option("--certificate", self.certificate.clone());
        if let Some(source) = self.key_keeper.systemd() {
            option("--private-key-source", source);
        }
        option("--private-key", self.key.clone());
        argv
    }

    /// The option with which ukify reaches the key.
    pub(super) fn ukify_keeper(&self) -> Vec<String> {
        match &self.key_keeper {
            Keeper::File => Vec::new(),
            Keeper::Engine(name) => vec!["--signing-engine".to_owned(), name.clone()],
            Keeper::Provider(name) => vec!["--signing-provider".to_owned(), name.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> Pair {
        Pair { key: "/k".to_owned(), certificate: "/c".to_owned(), ..Pair::default() }
    }

    #[test]
    fn tools_are_chosen() {
        let [sbsign, systemd] = ["/sbsign", "/systemd"].map(|path| Some(path.to_owned()));
        let name = |wanted, a: &Option<String>, b: &Option<String>| {
            SignTool::choose(wanted, a.clone(), b.clone()).map(|tool| tool.name())
        };
        assert_eq!(name("auto", &sbsign, &systemd), Ok("systemd-sbsign"));
        assert_eq!(name("auto", &sbsign, &None), Ok("sbsign"));
        assert_eq!(name("sbsign", &sbsign, &systemd), Ok("sbsign"));
        for (wanted, missing) in [("auto", "systemd-sbsign or sbsign"), ("systemd-sbsign", "needs systemd-sbsign")] {
            let error = SignTool::choose(wanted, None, None).unwrap_err();
            assert!(error.contains(missing) && error.contains("ToolsTree=default"), "{error}");
        }
    }

    #[test]
    fn commands() {
        let engine = Pair { key_keeper: Keeper::Engine("pkcs11".to_owned()), ..files() };
        let provider = Pair {
            key_keeper: Keeper::Provider("p".to_owned()),
            certificate_keeper: Keeper::Provider("p".to_owned()),
            ..files()
        };
        let systemd = SignTool::Systemd("S".to_owned());
        let sbsign = SignTool::Sbsign("B".to_owned());
        let line = |tool: &SignTool, pair: &Pair| tool.command(pair, "in", "out").join(" ");
        insta::assert_snapshot!(
            [line(&systemd, &files()), line(&systemd, &provider), line(&sbsign, &files()), line(&sbsign, &engine)]
                .join("\n")
        );
        assert_eq!((systemd.reaches(&provider), sbsign.reaches(&engine)), (Ok(()), Ok(())));
        let key = Pair { key_keeper: Keeper::Provider("p".to_owned()), ..files() };
        for (pair, setting) in [(&provider, "SecureBootCertificateSource=file"), (&key, "SecureBootKeySource=engine")] {
            let error = sbsign.reaches(pair).unwrap_err();
            assert!(error.contains("SecureBootSignTool=systemd-sbsign") && error.contains(setting), "{error}");
        }
    }
}
