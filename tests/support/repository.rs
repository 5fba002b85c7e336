//! A repository in a directory: packages of the pool, and some that tests make.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool;

/// A repository of one suite, without signatures.
pub struct Repository {
    root: PathBuf,
}

impl Repository {
    /// One with every package of a pool.
    pub fn new(root: PathBuf, pool: &Path) -> Self {
        std::fs::create_dir_all(root.join("pool")).unwrap();
        for entry in std::fs::read_dir(pool).unwrap().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "deb") {
                std::fs::copy(entry.path(), root.join("pool").join(entry.file_name())).unwrap();
            }
        }
        Self { root }
    }

    /// Serves it over HTTP until this process ends; gives the value of `LocalMirror=`.
    pub fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let root = self.root.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let root = root.clone();
                // A client that goes away is no concern of ours.
                std::thread::spawn(move || answer(stream, &root).ok());
            }
        });
        format!("http://{address}")
    }

    /// Makes a package with one file, `/usr/share/NAME`, that holds the version.
    pub fn add(&self, name: &str, version: &str) {
        let tree = tempfile::tempdir_in(&self.root).unwrap();
        let write = |path: &str, text: &str| {
            let path = tree.path().join("tree").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: Test <test@example.org>\n\
             Description: a test\n"
        );
        write("DEBIAN/control", &control);
        write(&format!("usr/share/{name}"), &format!("{version}\n"));
        let deb = self.package(name, version);
        tool(Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(tree.path().join("tree")).arg(deb));
    }

    /// Removes a package's file.
    pub fn remove(&self, name: &str, version: &str) {
        std::fs::remove_file(self.package(name, version)).unwrap();
    }

    fn package(&self, name: &str, version: &str) -> PathBuf {
        self.root.join(format!("pool/{name}_{version}_all.deb"))
    }

    /// Writes the lists of what is there now.
    pub fn publish(&self) {
        let machine = tool(Command::new("dpkg").arg("--print-architecture"));
        let name = format!("main/binary-{}/Packages", machine.trim());
        let dists = self.root.join("dists/trixie");
        let list = dists.join(&name);
        std::fs::create_dir_all(list.parent().unwrap()).unwrap();
        let packages = tool(Command::new("apt-ftparchive").args(["packages", "pool"]).current_dir(&self.root));
        std::fs::write(&list, &packages).unwrap();
        let hash = tool(Command::new("sha256sum").arg(&list));
        let mut release = format!(
            "Origin: Test\nSuite: trixie\nCodename: trixie\nDate: Thu, 01 Jan 2026 00:00:00 UTC\nArchitectures: {}\n\
             Components: main\n",
            machine.trim()
        );
        writeln!(release, "SHA256:\n {} {} {name}", hash.split(' ').next().unwrap(), packages.len()).unwrap();
        std::fs::write(dists.join("Release"), release).unwrap();
    }
}

/// Answers requests for files, one after the other.
fn answer(stream: TcpStream, root: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut header = String::new();
        while reader.read_line(&mut header)? > 2 {
            header.clear();
        }
        let name = request.split(' ').nth(1).unwrap_or_default().trim_start_matches('/');
        let (status, body) = match std::fs::read(root.join(name)) {
            Ok(body) => ("200 OK", body),
            Err(_) => ("404 Not Found", Vec::new()),
        };
        write!(writer, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len())?;
        writer.write_all(&body)?;
    }
}
