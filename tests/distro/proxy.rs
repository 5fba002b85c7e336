//! What apt asks a proxy for.

use std::io::{BufRead, BufReader, Write};

use mkosi::distro::{Host, Proxy, Repositories, Settings};

use crate::bench::Bench;
use crate::repository::target;

/// A server that has nothing, for one run of apt: it tells the first lines of what it is asked for.
fn asked(mut action: impl FnMut(&str)) -> Vec<String> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = std::thread::spawn(move || {
        let mut lines = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
                let Some(line) = head.lines().next() else { break };
                if line == "END" {
                    return lines;
                }
                lines.push(line.to_owned());
                stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
            }
        }
        lines
    });
    action(&address);
    std::net::TcpStream::connect(address).unwrap().write_all(b"END\r\n\r\n").unwrap();
    server.join().unwrap()
}

#[test]
fn a_proxy_is_asked_but_for_what_is_excluded() {
    let mut bench = Bench::new();
    let mut sync = |mirror: &str, proxy: Proxy| {
        let settings = Settings { mirror: Some(mirror.to_owned()), key_check: false, proxy, ..Settings::default() };
        let mut repositories = Repositories::new(&target("test"), &settings, &Host::default()).unwrap();
        repositories.sources.truncate(1);
        bench.sync(&repositories).unwrap_err();
    };
    let through = asked(|address| {
        let url = Some(format!("http://{address}"));
        sync("http://mirror.invalid", Proxy { url, ..Proxy::default() });
    });
    assert_eq!(through[0], "GET http://mirror.invalid/debian/dists/test/InRelease HTTP/1.1", "{through:?}");
    for entry in ["127.0.0.1", "*"] {
        let directly = asked(|address| {
            let (url, exclude) = (Some("http://proxy.invalid:1".to_owned()), vec![entry.to_owned()]);
            sync(&format!("http://{address}"), Proxy { url, exclude, ..Proxy::default() });
        });
        assert_eq!(directly[0], "GET /debian/dists/test/InRelease HTTP/1.1", "{directly:?}");
    }
}
