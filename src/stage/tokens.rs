//! What a program gets to see of the host that signs through an engine or a provider of OpenSSL: the daemons that hand
//! over smart cards and tokens, and the files that the user's variables and the key's name tell of. Knows nothing of
//! what is signed.
//!
//! Nothing of this enters a key of the graph but the variables' values: it is how a key is reached, and not which.

use std::path::{Path, PathBuf};

use super::Context;
use crate::config::Value;
use crate::sandbox::Mount;
use crate::types::files_of_uri;

/// Where pcscd(8) and the server of p11-kit(8) listen.
const DAEMONS: [&str; 2] = ["/run/pcscd", "/run/p11-kit"];

/// Variables of which engines, providers and the modules behind them take a file.
const FILES: [&str; 6] = [
    "OPENSC_CONF",
    "OPENSSL_CONF",
    "PKCS11_MODULE_PATH",
    "PKCS11_PROVIDER_MODULE",
    "SOFTHSM2_CONF",
    "YUBIHSM_PKCS11_CONF",
];
/// The variable of p11-kit's client with addresses of servers, and the one of pcsc-lite's with a path.
const SERVER: &str = "P11_KIT_SERVER_ADDRESS";
const PCSC: &str = "PCSCLITE_CSOCK_NAME";

/// SoftHSM's configuration (softhsm2.conf(5)), and what it says of the directory with the tokens.
const SOFTHSM: &str = "SOFTHSM2_CONF";
const TOKENS: &str = "directories.tokendir";

/// The mounts for keys and certificates of these names. What the sandbox has anyway at a place stays; the rest is the
/// host's, files and tokens read-only.
pub fn mounts(cx: &Context<'_>, names: &[&str]) -> Vec<Mount> {
    let environment = cx.view.get("Environment");
    let shown = |path: &Path| !cx.tools.sandbox.shows(path);
    let bind = |path: PathBuf, read_only| Mount::Bind { source: path.clone(), target: path, read_only, optional: true };
    let sockets = DAEMONS.iter().map(PathBuf::from).chain(sockets(environment));
    let files = files(environment, names, |path| std::fs::read_to_string(path).unwrap_or_default());
    let sockets = sockets.filter(|path| shown(path)).map(|path| bind(path, false));
    let files = files.into_iter().filter(|path| shown(path)).map(|path| bind(path, true));
    sockets.collect::<Vec<_>>().into_iter().chain(files).collect()
}

fn variable<'a>(environment: &'a Value, name: &str) -> Option<&'a str> {
    environment.field(name).and_then(Value::as_text)
}

fn sockets(environment: &Value) -> Vec<PathBuf> {
    let addresses = variable(environment, SERVER).unwrap_or_default().split(';');
    let paths = addresses.filter_map(|address| address.trim().strip_prefix("unix:path="));
    absolute(paths.chain(variable(environment, PCSC)))
}

/// The files, each once. A directory comes before what lies in it, since its mount would hide that.
fn files(environment: &Value, names: &[&str], read: impl Fn(&Path) -> String) -> Vec<PathBuf> {
    let mut files = absolute(FILES.iter().filter_map(|name| variable(environment, name)));
    if let Some(path) = variable(environment, SOFTHSM) {
        files.extend(token_directory(&read(Path::new(path))));
    }
    files.extend(names.iter().flat_map(|name| files_of_uri(name)));
    files.sort();
    files.dedup();
    files
}

/// Whole paths alone; of the root directory nobody keeps tokens there.
fn absolute<'a>(paths: impl Iterator<Item = &'a str>) -> Vec<PathBuf> {
    paths.map(PathBuf::from).filter(|path| path.is_absolute() && path.parent().is_some()).collect()
}

fn token_directory(configuration: &str) -> Option<PathBuf> {
    let lines = configuration.lines().filter_map(|line| line.split('#').next()?.split_once('='));
    let values: Vec<&str> = lines.filter(|(name, _)| name.trim() == TOKENS).map(|(_, value)| value.trim()).collect();
    absolute(values.into_iter()).pop()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Value {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), Value::text(*value));
        Value::Map(variables.iter().map(pair).collect::<BTreeMap<_, _>>())
    }

    #[test]
    fn files_of_variables_and_names() {
        let environment = environment(&[
            ("SOFTHSM2_CONF", "/home/me/token/softhsm2.conf"),
            ("PKCS11_PROVIDER_MODULE", "libsofthsm2.so"),
            ("OPENSSL_CONF", "/home/me/openssl.cnf"),
            ("OTHER", "/home/me/other"),
        ]);
        let read = |path: &Path| {
            assert_eq!(path, Path::new("/home/me/token/softhsm2.conf"));
            "log.level = INFO\n # directories.tokendir = /none\ndirectories.tokendir = /home/me/token # here\n"
                .to_owned()
        };
        let names = ["pkcs11:object=x?pin-source=file:/home/me/pin", "/work/keys/SecureBootCertificate"];
        let found = files(&environment, &names, read);
        let wanted = ["/home/me/openssl.cnf", "/home/me/pin", "/home/me/token", "/home/me/token/softhsm2.conf"];
        assert_eq!(found, wanted.map(PathBuf::from));
        assert!(files(&Value::None, &["pkcs11:object=x"], |_| String::new()).is_empty());
    }

    #[test]
    fn sockets_of_variables() {
        let found = sockets(&environment(&[
            ("P11_KIT_SERVER_ADDRESS", "unix:path=/run/user/1/p11-kit/pkcs11;vsock:cid=2;unix:path=none"),
            ("PCSCLITE_CSOCK_NAME", "/srv/pcscd.comm"),
        ]));
        assert_eq!(found, ["/run/user/1/p11-kit/pkcs11", "/srv/pcscd.comm"].map(PathBuf::from));
        assert!(sockets(&Value::None).is_empty());
        assert!(token_directory("directories.tokendir = /").is_none());
    }
}
