//! Plain HTTP through a proxy: the request goes to the proxy with the whole address in its first line (RFC 9112, section
//! 3.2.2, absolute form), as apt and all others do it. The library would ask the proxy for a tunnel (`CONNECT`), which
//! caching proxies refuse, and have nothing of. Addresses over TLS get the library's tunnel. Knows nothing of which proxy
//! an address has.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ureq::config::Config;
use ureq::http::uri::{Scheme, Uri};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};
use ureq::{Error, Proxy, ProxyProtocol};

/// Connects as the library does, except for plain HTTP through a proxy.
#[derive(Debug)]
pub(super) struct Forward {
    usual: DefaultConnector,
    /// How the proxy itself is reached.
    direct: Config,
}

impl Forward {
    /// `direct` has no proxy.
    pub fn new(direct: Config) -> Self {
        Self { usual: DefaultConnector::default(), direct }
    }
}

impl Connector<()> for Forward {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<()>) -> Result<Option<Self::Out>, Error> {
        let forwards = |proxy: &&Proxy| matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
        let proxy = details.config.proxy().filter(forwards).filter(|_| details.uri.scheme() == Some(&Scheme::HTTP));
        let Some(proxy) = proxy else { return self.usual.connect(details, chained) };
        let to_proxy = ConnectionDetails {
            uri: proxy.uri(),
            addrs: details.resolver.resolve(proxy.uri(), &self.direct, details.timeout)?,
            config: &self.direct,
            request_level: details.request_level,
            resolver: details.resolver,
            now: details.now,
            timeout: details.timeout,
            current_time: details.current_time.clone(),
            run_connector: details.run_connector.clone(),
            register_shutdown: details.register_shutdown.clone(),
        };
        let inner = self.usual.connect(&to_proxy, None)?.ok_or(Error::ConnectionFailed)?;
        Ok(Some(Box::new(AbsoluteForm { inner, origin: origin(details.uri), authorization: authorization(proxy) })))
    }
}

/// What stands before the path of an address.
fn origin(uri: &Uri) -> String {
    // A user and a password in it are for the server, in a header of their own.
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("http://{}", authority.rsplit_once('@').map_or(authority, |(_, place)| place))
}

/// The header that tells the proxy who asks, if its address says so (RFC 7617).
fn authorization(proxy: &Proxy) -> Option<String> {
    (proxy.username().is_some() || proxy.password().is_some()).then(|| {
        let both = format!("{}:{}", proxy.username().unwrap_or_default(), proxy.password().unwrap_or_default());
        format!("Proxy-Authorization: Basic {}\r\n", BASE64_STANDARD.encode(both))
    })
}

/// A connection to a proxy. The head of each request, which the library writes as for the server, is changed on its way.
#[derive(Debug)]
struct AbsoluteForm {
    inner: Box<dyn Transport>,
    origin: String,
    authorization: Option<String>,
}

impl AbsoluteForm {
    /// The bytes to send in the place of these; none where they begin no request.
    fn changed(&self, head: &[u8]) -> Option<Vec<u8>> {
        let end = head.windows(2).position(|two| two == b"\r\n")? + 2;
        let (line, rest) = head.split_at_checked(end)?;
        let line = std::str::from_utf8(line).ok()?;
        // Only requests without a body are made here: a first line is the only one with a space before a colon.
        let (method, target) = line.split_once(" /")?;
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let first = format!("{method} {}/{target}{authorization}", self.origin);
        method.bytes().all(|b| b.is_ascii_uppercase()).then(|| [first.as_bytes(), rest].concat())
    }
}

impl Transport for AbsoluteForm {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let written = self.inner.buffers().output().get(..amount).unwrap_or_default().to_vec();
        let Some(mut bytes) = self.changed(&written) else { return self.inner.transmit_output(amount, timeout) };
        while !bytes.is_empty() {
            let output = self.inner.buffers().output();
            let count = bytes.len().min(output.len());
            for (to, from) in output.iter_mut().zip(bytes.drain(..count)) {
                *to = from;
            }
            self.inner.transmit_output(count, timeout)?;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread::JoinHandle;

    use super::super::http::{Client, Trouble};
    use crate::distro::Proxy;
    use crate::distro::proxy::Proxies;
    use crate::sandbox::Cancel;

    /// A proxy that answers all requests of one connection, each with a body of its own number, until it is closed.
    /// It gives back their heads.
    fn proxy() -> (String, JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let (mut heads, mut stream) = (Vec::new(), stream);
            loop {
                let mut head = String::new();
                while !head.ends_with("\r\n\r\n") {
                    if reader.read_line(&mut head).unwrap_or(0) == 0 {
                        return heads;
                    }
                }
                let status = if head.starts_with("CONNECT") { "403 Forbidden" } else { "200 OK" };
                let body = format!("body {}", heads.len());
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
                heads.push(head);
            }
        });
        (address, thread)
    }

    fn proxies(url: String, exclude: &[&str]) -> Proxies {
        let exclude = exclude.iter().map(|entry| (*entry).to_owned()).collect();
        let settings = Proxy { url: Some(url), exclude, ..Proxy::default() };
        Proxies::new(&settings.acquire(std::iter::empty()), &settings)
    }

    #[test]
    fn plain_http_is_asked_for_by_its_whole_address() {
        let (address, requests) = proxy();
        let cancel = Cancel::default();
        let client = Client::new(proxies(format!("http://me:s%40@{address}"), &[]), Default::default(), &cancel);
        assert_eq!(client.get("http://mirror.invalid/debian/a?b", 100).unwrap(), b"body 0");
        assert_eq!(client.get("http://mirror.invalid/b", 100).unwrap(), b"body 1");
        drop(client);
        let heads = requests.join().unwrap();
        assert!(heads[0].starts_with("GET http://mirror.invalid/debian/a?b HTTP/1.1\r\n"), "{heads:?}");
        // On the same connection.
        assert!(heads[1].starts_with("GET http://mirror.invalid/b HTTP/1.1\r\n"), "{heads:?}");
        for head in heads {
            let lines: Vec<String> = head.lines().map(str::to_ascii_lowercase).collect();
            assert!(lines.contains(&"host: mirror.invalid".to_owned()), "{head}");
            assert!(head.contains("Proxy-Authorization: Basic bWU6c0A=\r\n"), "{head}");
        }
    }

    #[test]
    fn tls_goes_through_a_tunnel() {
        let (address, requests) = proxy();
        let cancel = Cancel::default();
        let client = Client::new(proxies(format!("http://{address}"), &[]), Default::default(), &cancel);
        // Stops the tries after the first.
        let done = std::thread::scope(|scope| {
            let asked = scope.spawn(|| client.get("https://mirror.invalid/a", 100));
            let heads = requests.join().unwrap();
            cancel.cancel();
            (heads, asked.join().unwrap())
        });
        assert!(done.0[0].starts_with("CONNECT mirror.invalid:443 HTTP/1.1\r\n"), "{:?}", done.0);
        assert!(matches!(done.1, Err(Trouble::Cancelled | Trouble::Other(_))));
    }

    #[test]
    fn a_host_that_is_excluded_is_asked_itself() {
        let (address, requests) = proxy();
        let cancel = Cancel::default();
        let client =
            Client::new(proxies("http://proxy.invalid:1".to_owned(), &["127.0.0.1"]), Default::default(), &cancel);
        assert_eq!(client.get(&format!("http://{address}/a"), 100).unwrap(), b"body 0");
        drop(client);
        assert!(requests.join().unwrap()[0].starts_with("GET /a HTTP/1.1\r\n"));
    }
}
