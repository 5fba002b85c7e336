//! `[Validation]`: signatures and checksums.

use super::super::defaults;
use super::choices::{CERTIFICATE_SOURCE, KEY_SOURCE, SIGN_TOOL, VERITY};
use super::{Default, Kind, PathRule, Scope, Setting};

const SECTION: &str = "Validation";

const fn key(name: &'static str, option: &'static [&'static str], scope: Scope, help: &'static str) -> Setting {
    Setting::new(name, SECTION, option, Kind::KeyFile).meta("KEY").scope(scope).at(&["key"]).help(help)
}

const fn certificate(name: &'static str, option: &'static [&'static str], scope: Scope, help: &'static str) -> Setting {
    Setting::new(name, SECTION, option, Kind::KeyFile).meta("PATH").scope(scope).at(&["crt"]).help(help)
}

const fn key_source(name: &'static str, option: &'static [&'static str], scope: Scope, help: &'static str) -> Setting {
    Setting::new(name, SECTION, option, Kind::Source(&KEY_SOURCE)).meta("SOURCE[:ENGINE]").scope(scope).help(help)
}

const fn certificate_source(
    name: &'static str,
    option: &'static [&'static str],
    scope: Scope,
    help: &'static str,
) -> Setting {
    Setting::new(name, SECTION, option, Kind::Source(&CERTIFICATE_SOURCE))
        .meta("SOURCE[:PROVIDER]")
        .scope(scope)
        .help(help)
}

pub(super) const SETTINGS: &[Setting] = &[
    Setting::new("SecureBoot", SECTION, &["--secure-boot"], Kind::Bool).help("Sign what boots for UEFI Secure Boot"),
    Setting::new("SecureBootAutoEnroll", SECTION, &["--secure-boot-auto-enroll"], Kind::Bool)
        .default(Default::Bool(true))
        .help("Let the firmware take the key on the first boot"),
    key("SecureBootKey", &["--secure-boot-key"], Scope::Universal, "The private key for Secure Boot"),
    key_source(
        "SecureBootKeySource",
        &["--secure-boot-key-source"],
        Scope::Universal,
        "Where the private key for Secure Boot is kept",
    ),
    certificate(
        "SecureBootCertificate",
        &["--secure-boot-certificate"],
        Scope::Universal,
        "The X.509 certificate for Secure Boot",
    ),
    certificate_source(
        "SecureBootCertificateSource",
        &["--secure-boot-certificate-source"],
        Scope::Universal,
        "Where the certificate for Secure Boot is kept",
    ),
    Setting::new("SecureBootSignTool", SECTION, &["--secure-boot-sign-tool"], Kind::Enum(&SIGN_TOOL))
        .meta("TOOL")
        .default(Default::Text("auto"))
        .help("The tool that signs EFI programs"),
    Setting::new("Verity", SECTION, &["--verity"], Kind::Enum(&VERITY))
        .meta("KIND")
        .default(Default::Text("auto"))
        .help("Protect partitions with dm-verity"),
    key("VerityKey", &["--verity-key"], Scope::Universal, "The private key that signs verity's root hash"),
    key_source(
        "VerityKeySource",
        &["--verity-key-source"],
        Scope::Universal,
        "Where the private key for verity is kept",
    ),
    certificate(
        "VerityCertificate",
        &["--verity-certificate"],
        Scope::Universal,
        "The X.509 certificate for verity's signature",
    ),
    certificate_source(
        "VerityCertificateSource",
        &["--verity-certificate-source"],
        Scope::Universal,
        "Where the certificate for verity is kept",
    ),
    Setting::new("SignExpectedPcr", SECTION, &["--sign-expected-pcr"], Kind::Feature)
        .help("Put signed TPM measurements into unified kernel images"),
    key(
        "SignExpectedPcrKey",
        &["--sign-expected-pcr-key"],
        Scope::Inherit,
        "The private key that signs TPM measurements",
    ),
    key_source(
        "SignExpectedPcrKeySource",
        &["--sign-expected-pcr-key-source"],
        Scope::Inherit,
        "Where the private key for TPM measurements is kept",
    ),
    certificate(
        "SignExpectedPcrCertificate",
        &["--sign-expected-pcr-certificate"],
        Scope::Inherit,
        "The X.509 certificate for TPM measurements",
    ),
    certificate_source(
        "SignExpectedPcrCertificateSource",
        &["--sign-expected-pcr-certificate-source"],
        Scope::Inherit,
        "Where the certificate for TPM measurements is kept",
    ),
    Setting::new("Passphrase", SECTION, &["--passphrase"], Kind::Path(PathRule { secret: true, ..PathRule::ANY }))
        .meta("PATH")
        .at(&["passphrase"])
        .help("A file with the passphrase for encrypted partitions"),
    Setting::new("Checksum", SECTION, &["--checksum"], Kind::Bool)
        .default(Default::From(defaults::checksum))
        .help("Write SHA256SUMS"),
    Setting::new("Sign", SECTION, &["--sign"], Kind::Bool).help("Write SHA256SUMS and sign it"),
    Setting::new("Key", SECTION, &["--key"], Kind::KeyFile)
        .meta("KEY")
        .help("The OpenPGP key that signs SHA256SUMS: for gpg its name, for other tools its file"),
    Setting::new("OpenPGPTool", SECTION, &["--openpgp-tool"], Kind::Text)
        .meta("TOOL")
        .default(Default::Text("gpg"))
        .help("The OpenPGP program that signs SHA256SUMS"),
];
