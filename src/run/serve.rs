//! `mkosi serve`: the output directory over HTTP, for systemd-pull(8), `machinectl pull-raw` and the like.
//!
//! Only reads, and only below the directory. Knows nothing of images.

use std::fs::File;
use std::io::{Cursor, Read, Seek as _, SeekFrom};
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Dir, FileType, Mode, OFlags, ResolveFlags, openat2};
use tiny_http::{Header, Method, Request, Response, Server, StatusCode};

use super::error::{Result, RunError};
use super::process::{self, Helper};
use super::settings::{Feature, Settings};
use super::tools::Tools;

/// Where it listens.
pub const PORT: u16 = 8081;
/// How many requests are answered at once.
const WORKERS: usize = 8;

type Reply = Response<Box<dyn Read + Send>>;

/// Serves the outputs until a signal ends it.
///
/// # Errors
/// When the port is taken, or what `StorageTargetMode=` wants is missing.
pub fn run(settings: &Settings, tools: &Tools) -> Result<u8> {
    settings.built()?;
    let site = Site::open(&settings.directory, ("::", PORT))
        .or_else(|_| Site::open(&settings.directory, ("0.0.0.0", PORT)))?;
    let _storage = storage_target(settings, tools)?;
    crate::tell!("serving {} at http://localhost:{PORT}/ (Ctrl-C ends it)", settings.directory.display());
    site.serve_until_signal();
    Ok(0)
}

/// Offers the disk over NVMe-TCP as well, where that is wished or works.
fn storage_target(settings: &Settings, tools: &Tools) -> Result<Option<Helper>> {
    let required = settings.storage_target.required();
    let root = rustix::process::geteuid().is_root();
    if settings.storage_target == Feature::Disabled || (!required && (!root || settings.format != "disk")) {
        return Ok(None);
    }
    if settings.format != "disk" {
        return Err(RunError::unfit("StorageTargetMode= offers disk images alone", "leave it out, or set Format=disk"));
    }
    let hint = "install systemd 255 or later, or use --storage-target-mode=no";
    let program = match tools.need(&["systemd-storagetm"], "offer the image over the network", hint) {
        Ok(program) => program,
        Err(error) if required => return Err(error),
        Err(_) => return Ok(None),
    };
    Helper::start(tools.command(&program).arg(settings.output())).map(Some)
}

/// A directory and the socket that it is served on.
pub struct Site {
    server: Arc<Server>,
    root: Arc<OwnedFd>,
}

impl Site {
    /// Opens the directory and listens.
    ///
    /// # Errors
    /// When either can't be done.
    pub fn open(directory: &Path, address: impl ToSocketAddrs) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(directory, flags, Mode::empty());
        let root = root.map_err(|error| RunError::io("open", directory)(error.into()))?;
        let server =
            Server::http(address).map_err(|error| RunError::Other(format!("can't listen on port {PORT}: {error}")))?;
        Ok(Self { server: Arc::new(server), root: Arc::new(root) })
    }

    /// Where it listens.
    pub fn address(&self) -> Option<SocketAddr> {
        self.server.server_addr().to_ip()
    }

    /// Answers until [`Site::stop`], or until the program ends.
    pub fn serve(&self) {
        std::thread::scope(|scope| {
            for _ in 0..WORKERS {
                scope.spawn(|| {
                    for request in self.server.incoming_requests() {
                        answer(&self.root, request);
                    }
                });
            }
        });
    }

    /// Makes [`Site::serve`] return.
    pub fn stop(&self) {
        // One call wakes one worker.
        for _ in 0..WORKERS {
            self.server.unblock();
        }
    }

    fn serve_until_signal(&self) {
        process::pass_signals_on();
        std::thread::scope(|scope| {
            scope.spawn(|| self.serve());
            while !process::interrupted() {
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
            self.stop();
        });
    }
}

fn answer(root: &OwnedFd, request: Request) {
    let reply = match request.method() {
        Method::Get | Method::Head => get(root, &request),
        _ => Err(StatusCode(405)),
    };
    let reply = reply.unwrap_or_else(|status| text(status, status.default_reason_phrase(), "text/plain"));
    crate::tell!("{} {} {}", request.method(), request.url(), reply.status_code().0);
    // The other side may have gone.
    let _ = request.respond(reply);
}

fn text(status: StatusCode, text: &str, kind: &str) -> Reply {
    let bytes = text.as_bytes().to_vec();
    let length = bytes.len();
    Response::new(status, header("Content-Type", kind), Box::new(Cursor::new(bytes)), Some(length), None)
}

fn header(name: &str, value: &str) -> Vec<Header> {
    Header::from_bytes(name, value).into_iter().collect()
}

fn get(root: &OwnedFd, request: &Request) -> std::result::Result<Reply, StatusCode> {
    let path = path_of(request.url()).ok_or(StatusCode(400))?;
    // Links are followed as after a chroot into the directory.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // A named pipe must not hold a worker.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = openat2(root, &path, flags, Mode::empty(), resolve).map_err(|error| match error {
        rustix::io::Errno::ACCESS | rustix::io::Errno::PERM => StatusCode(403),
        _ => StatusCode(404),
    })?;
    let stat = rustix::fs::fstat(&opened).map_err(|_| StatusCode(500))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory if !request.url().split('?').next().unwrap_or_default().ends_with('/') => {
            let place = format!("{}/", request.url().split('?').next().unwrap_or_default());
            let mut reply = text(StatusCode(301), "", "text/plain");
            reply.add_header(Header::from_bytes("Location", place).map_err(|()| StatusCode(500))?);
            Ok(reply)
        }
        FileType::Directory => list(&opened),
        FileType::RegularFile => file(File::from(opened), request),
        _ => Err(StatusCode(403)),
    }
}

/// A file, or the part of it that is asked for.
fn file(mut file: File, request: &Request) -> std::result::Result<Reply, StatusCode> {
    let length = file.metadata().map_err(|_| StatusCode(500))?.len();
    let range = request.headers().iter().find(|header| header.field.equiv("Range"));
    let mut headers = header("Content-Type", "application/octet-stream");
    headers.extend(header("Accept-Ranges", "bytes"));
    let (status, first, last) = match range.map(|header| part(header.value.as_str(), length)) {
        Some(Some((first, last))) => (StatusCode(206), first, last),
        Some(None) => {
            let mut reply = text(StatusCode(416), "", "text/plain");
            let whole = Header::from_bytes("Content-Range", format!("bytes */{length}"));
            reply.add_header(whole.map_err(|()| StatusCode(500))?);
            return Ok(reply);
        }
        None => (StatusCode(200), 0, length),
    };
    if status.0 == 206 {
        headers.extend(header("Content-Range", &format!("bytes {first}-{}/{length}", last.saturating_sub(1))));
    }
    file.seek(SeekFrom::Start(first)).map_err(|_| StatusCode(500))?;
    let count = last - first;
    let size = usize::try_from(count).ok();
    // Without this it would be sent in chunks, and the size would stay unknown.
    Ok(Response::new(status, headers, Box::new(file.take(count)) as Box<dyn Read + Send>, size, None)
        .with_chunked_threshold(usize::MAX))
}

/// The start and end of `bytes=…` (RFC 9110, 14.1.2); none if that isn't in the file. Only one part is given.
fn part(text: &str, length: u64) -> Option<(u64, u64)> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = match (first, last) {
        ("", last) => (length.saturating_sub(last.parse().ok()?), length),
        (first, "") => (first.parse().ok()?, length),
        (first, last) => (first.parse().ok()?, last.parse::<u64>().ok()?.checked_add(1)?.min(length)),
    };
    (first < last).then_some((first, last))
}

fn list(directory: &OwnedFd) -> std::result::Result<Reply, StatusCode> {
    let mut names: Vec<String> = Vec::new();
    for entry in Dir::read_from(directory).map_err(|_| StatusCode(500))?.flatten() {
        let name = String::from_utf8_lossy(entry.file_name().to_bytes()).into_owned();
        if name == "." || name == ".." {
            continue;
        }
        let slash = if entry.file_type() == FileType::Directory { "/" } else { "" };
        names.push(format!("{name}{slash}"));
    }
    names.sort();
    let mut page = "<!DOCTYPE html>\n<meta charset=\"utf-8\">\n<title>Outputs</title>\n<ul>\n".to_owned();
    for name in names {
        page.push_str(&format!("<li><a href=\"./{}\">{}</a></li>\n", encoded(&name), as_html(&name)));
    }
    page.push_str("</ul>\n");
    Ok(text(StatusCode(200), &page, "text/html; charset=utf-8"))
}

fn as_html(name: &str) -> String {
    name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

fn encoded(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    name.bytes().map(one).collect()
}

/// The path within the directory of a request's address, with `%` and two digits decoded.
fn path_of(url: &str) -> Option<PathBuf> {
    let path = url.split(['?', '#']).next()?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit(rest.next())? * 16 + digit(rest.next())?);
    }
    if bytes.contains(&0) {
        return None;
    }
    let relative: &[u8] = bytes.strip_prefix(b"/")?;
    let path = Path::new(std::ffi::OsStr::from_bytes(relative));
    Some(if relative.is_empty() { PathBuf::from(".") } else { path.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpStream;

    use super::*;

    fn ask(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        let request = format!("{request}\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut text = Vec::new();
        stream.read_to_end(&mut text).unwrap();
        String::from_utf8_lossy(&text).into_owned()
    }

    #[test]
    fn files_and_nothing_outside() {
        let top = tempfile::tempdir().unwrap();
        let directory = top.path().join("out");
        std::fs::create_dir_all(directory.join("sub")).unwrap();
        std::fs::write(top.path().join("secret"), "secret").unwrap();
        std::fs::write(directory.join("a b.raw"), "0123456789").unwrap();
        std::os::unix::fs::symlink("a b.raw", directory.join("link")).unwrap();
        std::os::unix::fs::symlink("../secret", directory.join("out")).unwrap();
        let site = Site::open(&directory, ("127.0.0.1", 0)).unwrap();
        let address = site.address().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| site.serve());
            let whole = ask(address, "GET /a%20b.raw HTTP/1.1");
            assert!(whole.starts_with("HTTP/1.1 200") && whole.ends_with("0123456789"), "{whole}");
            assert!(whole.to_lowercase().contains("content-length: 10"), "{whole}");
            assert!(ask(address, "GET /link HTTP/1.1").ends_with("0123456789"));
            let head = ask(address, "HEAD /link HTTP/1.1");
            assert!(head.to_lowercase().contains("content-length: 10") && !head.contains("0123"), "{head}");
            let part = ask(address, "GET /link HTTP/1.1\r\nRange: bytes=2-4");
            assert!(
                part.starts_with("HTTP/1.1 206") && part.contains("bytes 2-4/10") && part.ends_with("234"),
                "{part}"
            );
            assert!(ask(address, "GET /link HTTP/1.1\r\nRange: bytes=10-").starts_with("HTTP/1.1 416"));
            assert!(ask(address, "GET / HTTP/1.1").contains("<a href=\"./a%20b.raw\">a b.raw</a>"));
            assert!(ask(address, "GET /sub HTTP/1.1").starts_with("HTTP/1.1 301"));
            for outside in ["/../secret", "/%2e%2e/secret", "/out", "/sub/../../secret", "/nothing"] {
                let answer = ask(address, &format!("GET {outside} HTTP/1.1"));
                assert!(answer.starts_with("HTTP/1.1 404") && !answer.ends_with("secret"), "{outside}: {answer}");
            }
            assert!(ask(address, "GET /%zz HTTP/1.1").starts_with("HTTP/1.1 400"));
            assert!(ask(address, "POST / HTTP/1.1\r\nContent-Length: 0").starts_with("HTTP/1.1 405"));
            site.stop();
        });
    }

    #[test]
    fn parts() {
        assert_eq!(part("bytes=0-", 5), Some((0, 5)));
        assert_eq!(part("bytes=-2", 5), Some((3, 5)));
        assert_eq!(part("bytes=1-99", 5), Some((1, 5)));
        for wrong in ["bytes=5-", "bytes=3-1", "bytes=a-b", "lines=1-2", "bytes=0-18446744073709551615", ""] {
            assert_eq!(part(wrong, 5), None, "{wrong}");
        }
    }
}
