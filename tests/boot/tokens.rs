//! Keys in a token, which signing programs reach through a provider or an engine of OpenSSL.

use std::process::Command;

use crate::project::project;
use crate::support::stores::directory;
use crate::support::{Project, tool};

const PIN: &str = "734562";

/// Makes a token with a key and its certificate in a directory of the user's that no setting of mkosi names.
const TOKEN: &str = r#"set -eu
mkdir -p token/tokens
printf 'directories.tokendir = %s/token/tokens\nobjectstore.backend = file\n' "$PWD" >token/softhsm2.conf
printf %s "$1" >token/pin
export SOFTHSM2_CONF="$PWD/token/softhsm2.conf"
softhsm2-util --init-token --free --label mkosi --pin "$1" --so-pin "$1"
openssl req -x509 -newkey rsa:2048 -nodes -days 3650 -subj /CN=token -keyout key.pem -out src/certificate
softhsm2-util --import key.pem --token mkosi --label boot --id 01 --pin "$1"
openssl x509 -in src/certificate -outform der -out certificate.der
pkcs11-tool --module /usr/lib/softhsm/libsofthsm2.so --login --pin "$1" --write-object certificate.der --type cert \
    --id 01 --label boot
rm key.pem
"#;

/// What the disk has besides its boot partition.
const DEFINITIONS: [(&str, &str); 4] = [
    ("00-esp", "Type=esp\nFormat=vfat\nCopyFiles=/efi:/\nCopyFiles=/boot:/\nSizeMinBytes=40M\nSizeMaxBytes=40M"),
    ("10-root", "Type=root\nFormat=ext4\nCopyFiles=/\nVerity=data\nVerityMatchKey=root\nMinimize=guess"),
    ("20-verity", "Type=root-verity\nVerity=hash\nVerityMatchKey=root\nMinimize=best"),
    ("30-signature", "Type=root-verity-sig\nVerity=signature\nVerityMatchKey=root\nSplitName=signature"),
];

fn with_token() -> Project {
    let key = format!("pkcs11:token=mkosi;object=boot?pin-value={PIN}");
    let mut settings = String::from(
        "Environment=PKCS11_PROVIDER_MODULE=/usr/lib/softhsm/libsofthsm2.so\n\
         Environment=PKCS11_MODULE_PATH=/usr/lib/softhsm/libsofthsm2.so\n[Output]\nSplitArtifacts=uki,partitions\n\
         [Validation]\nSecureBoot=yes\nSignExpectedPcr=yes\nVerity=signed\n",
    );
    for name in ["SecureBoot", "SignExpectedPcr", "Verity"] {
        settings += &format!(
            "{name}Key={key}\n{name}KeySource=provider:pkcs11\n\
             {name}Certificate=pkcs11:token=mkosi;object=boot\n{name}CertificateSource=provider:pkcs11\n"
        );
    }
    let project = project(&directory("cache-"), &settings);
    let directory = project.path().join("token");
    project.configure(&format!("[Build]\nEnvironment=SOFTHSM2_CONF={}/softhsm2.conf\n", directory.display()));
    project.reconfigure("Format=directory", "Format=disk");
    for (name, text) in DEFINITIONS {
        project.write(&format!("mkosi.repart/{name}.conf"), &format!("[Partition]\n{text}\n"));
    }
    project.done(&["box", "--", "sh", "-c", TOKEN, "token", PIN]);
    let verify = "sbverify --cert \"$SRCDIR/certificate\" \"$OUTPUTDIR/image.efi\"";
    project.script("mkosi.postoutput", verify);
    project
}

/// The signature of the root hash, as the disk has it (Discoverable Partitions Specification).
fn check_root_hash(project: &Project) {
    let bytes = std::fs::read(project.output("image.signature.raw")).unwrap();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&bytes[..end]).unwrap();
    project.write("hash", json["rootHash"].as_str().unwrap());
    project.write("signature", json["signature"].as_str().unwrap());
    let script = "base64 -d signature >signature.der && openssl smime -verify -inform DER -in signature.der -content hash \
                  -certfile src/certificate -nointern -noverify >/dev/null";
    tool(Command::new("sh").args(["-c", script]).current_dir(project.path()));
}

#[test]
fn keys_of_a_token_sign_and_their_pin_is_kept_nowhere() {
    let project = with_token();
    let ran = project.build();
    assert!(ran.stages.contains_key("postoutput") && !ran.text.contains(PIN), "{}", ran.text);
    let sections = tool(Command::new("objdump").arg("-h").arg(project.output("image.efi")));
    assert!(sections.contains(".pcrsig") && sections.contains(".pcrpkey"), "{sections}");
    check_root_hash(&project);

    // The PIN is no part of the result; another key is.
    project.reconfigure(PIN, "111111");
    assert!(project.build().stages.is_empty());
    for shown in [&["summary"] as &[&str], &["summary", "--json"], &["cat-config"]] {
        let shown = project.done(shown).stdout;
        assert!(shown.contains("pin-value=***") && !shown.contains("111111"), "{shown}");
    }
    project.reconfigure("SplitArtifacts=uki,partitions", "SplitArtifacts=uki");
    project.reconfigure("object=boot?pin-value=111111", "object=none?pin-value=111111");
    let failed = project.fails(&[]);
    assert!(failed.text.contains("pin-value=***") || !failed.text.contains("pin-value"), "{}", failed.text);
    let found = Command::new("grep").args(["-rlE", &format!("{PIN}|111111")]).arg(&project.cache).output().unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn a_provider_signs_measurements_alone() {
    let project = with_token();
    std::fs::remove_file(project.path().join("mkosi.postoutput")).unwrap();
    project.reconfigure("SecureBoot=yes", "SecureBoot=no");
    project.reconfigure("Format=disk", "Format=directory");
    project.build();
    let sections = tool(Command::new("objdump").arg("-h").arg(project.output("image.efi")));
    assert!(sections.contains(".pcrsig"), "{sections}");

    // A certificate of another key.
    let mut openssl = Command::new("openssl");
    openssl.args([
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=other",
        "-keyout",
        "/dev/null",
        "-out",
    ]);
    tool(openssl.arg(project.path().join("other.crt")));
    project.reconfigure(
        "SignExpectedPcrCertificate=pkcs11:token=mkosi;object=boot\nSignExpectedPcrCertificateSource=provider:pkcs11",
        "SignExpectedPcrCertificate=other.crt",
    );
    let failed = project.fails(&[]);
    failed.says("mkosi.conf:");
    failed.says("SignExpectedPcrCertificate= is not the certificate of SignExpectedPcrKey=");
}

#[test]
fn an_engine_signs_as_well() {
    let project = with_token();
    project
        .reconfigure(&format!("pin-value={PIN}"), &format!("pin-source=file:{}/token/pin", project.path().display()));
    project.reconfigure(
        "SecureBootKeySource=provider:pkcs11",
        "SecureBootKeySource=engine:pkcs11\nSecureBootSignTool=sbsign",
    );
    project.reconfigure("SignExpectedPcrKeySource=provider:pkcs11", "SignExpectedPcrKeySource=engine:pkcs11");
    for name in ["SecureBoot", "SignExpectedPcr"] {
        let source = format!("{name}CertificateSource=provider:pkcs11");
        let certificate = format!("{name}Certificate=pkcs11:token=mkosi;object=boot\n{source}");
        project.reconfigure(&certificate, &format!("{name}Certificate=src/certificate"));
    }
    let ran = project.build();
    assert!(ran.stages.contains_key("postoutput") && !ran.text.contains(PIN), "{}", ran.text);
}
