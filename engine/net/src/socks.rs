//! The client side of SOCKS5 (RFC 1928, RFC 1929), by which onion services are reached.
//!
//! Owns: the greeting, the login and the request to connect, and their answers. Does no I/O: the caller reads as many
//! bytes as [`SocksClient::needed`] says and gives them to [`SocksClient::read`].
//!
//! Invariant: a name is never resolved here, but sent to the proxy as it is.

use std::net::IpAddr;

use crate::address::Host;

/// A name and a password for the proxy. Tor keeps streams with different ones on different circuits.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyLogin {
    /// The name, of 1 to 255 bytes.
    pub name: String,
    /// The password, of 1 to 255 bytes.
    pub password: String,
}

/// Why a proxy gave no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SocksError {
    /// The proxy speaks another version.
    #[error("the proxy speaks version {0} of SOCKS, not 5")]
    Version(u8),
    /// The proxy accepts none of the ways to log in that were offered.
    #[error("the proxy wants another way to log in: {0}")]
    Method(u8),
    /// The proxy refuses name and password.
    #[error("the proxy refuses the login: {0}")]
    Login(u8),
    /// The proxy could not connect.
    #[error("the proxy could not connect: {}", reason(*.0))]
    Refused(u8),
    /// The answer has an address of an unknown type.
    #[error("the proxy's answer has an address of the unknown type {0}")]
    AddressType(u8),
}

/// The result of reading an answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum SocksStep {
    /// Send these bytes, if any, and read on.
    Send(Vec<u8>),
    /// The peer is connected: the next bytes are its own.
    Connected,
}

/// A dialogue with a proxy.
#[derive(Debug)]
pub(crate) struct SocksClient {
    request: Vec<u8>,
    login: Option<Vec<u8>>,
    next: Answer,
}

/// The answer that comes next.
#[derive(Debug)]
enum Answer {
    Method,
    Login,
    /// Up to the first byte of the bound address, whose length may stand there.
    Head,
    /// The rest of the bound address.
    Rest(usize),
}

const VERSION: u8 = 5;
const NO_LOGIN: u8 = 0;
const NAME_AND_PASSWORD: u8 = 2;

impl SocksClient {
    /// A dialogue to reach `host`, and the bytes to send first.
    pub(crate) fn new(host: &Host, port: u16, login: Option<&ProxyLogin>) -> (SocksClient, Vec<u8>) {
        let mut request = vec![VERSION, 1, 0];
        match host {
            Host::Ip(IpAddr::V4(ip)) => {
                request.push(1);
                request.extend(ip.octets());
            }
            Host::Ip(IpAddr::V6(ip)) => {
                request.push(4);
                request.extend(ip.octets());
            }
            Host::Name(name) => {
                request.extend([3, name.len() as u8]);
                request.extend(name.as_bytes());
            }
        }
        request.extend(port.to_be_bytes());
        let login = login.map(|ProxyLogin { name, password }| {
            let mut bytes = vec![1];
            for text in [name, password] {
                let text = &text.as_bytes()[..text.len().min(255)];
                bytes.push(text.len() as u8);
                bytes.extend(text);
            }
            bytes
        });
        let greeting = if login.is_some() {
            vec![VERSION, 2, NO_LOGIN, NAME_AND_PASSWORD]
        } else {
            vec![VERSION, 1, NO_LOGIN]
        };
        (SocksClient { request, login, next: Answer::Method }, greeting)
    }

    /// The bytes of the next answer, or of its next part.
    pub(crate) const fn needed(&self) -> usize {
        match self.next {
            Answer::Method | Answer::Login => 2,
            Answer::Head => 5,
            Answer::Rest(bytes) => bytes,
        }
    }

    /// Takes as many bytes as [`SocksClient::needed`] said.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<SocksStep, SocksError> {
        match (&self.next, bytes) {
            (Answer::Method, &[VERSION, NO_LOGIN]) => Ok(self.ask()),
            (Answer::Method, &[VERSION, method]) => match self.login.take() {
                Some(login) if method == NAME_AND_PASSWORD => {
                    self.next = Answer::Login;
                    Ok(SocksStep::Send(login))
                }
                _ => Err(SocksError::Method(method)),
            },
            (Answer::Login, &[_, 0]) => Ok(self.ask()),
            (Answer::Login, &[_, status]) => Err(SocksError::Login(status)),
            (Answer::Head, &[VERSION, 0, _, kind, first]) => {
                // One byte of the address is read; two of the port follow it.
                let rest = match kind {
                    1 => 3 + 2,
                    4 => 15 + 2,
                    3 => usize::from(first) + 2,
                    kind => return Err(SocksError::AddressType(kind)),
                };
                self.next = Answer::Rest(rest);
                Ok(SocksStep::Send(Vec::new()))
            }
            (Answer::Head, &[VERSION, code, ..]) => Err(SocksError::Refused(code)),
            (Answer::Rest(_), _) => Ok(SocksStep::Connected),
            (_, bytes) => Err(SocksError::Version(bytes.first().copied().unwrap_or_default())),
        }
    }

    fn ask(&mut self) -> SocksStep {
        self.next = Answer::Head;
        SocksStep::Send(std::mem::take(&mut self.request))
    }
}

impl std::fmt::Debug for ProxyLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ProxyLogin(..)")
    }
}

/// A reply code in words; those above 0xf0 are Tor's.
fn reason(code: u8) -> String {
    let text = match code {
        1 => "general failure",
        2 => "not allowed by its rules",
        3 => "network unreachable",
        4 => "host unreachable",
        5 => "connection refused",
        6 => "the time to live expired",
        7 => "it cannot connect",
        8 => "it does not know this type of address",
        0xf0 => "the onion service's descriptor cannot be found",
        0xf1 => "the onion service's descriptor is invalid",
        0xf2 => "the onion service's introduction failed",
        0xf3 => "the onion service's rendezvous failed",
        0xf4 => "the onion service wants authorization",
        0xf5 => "the onion service refuses the authorization",
        0xf6 => "the onion service's address is invalid",
        0xf7 => "the onion service's introduction timed out",
        code => return format!("code {code}"),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;

    #[test]
    fn a_name_goes_to_the_proxy_as_it_is() {
        let (mut client, greeting) = SocksClient::new(&Host::Name("ab.onion".into()), 9735, None);
        assert_eq!(greeting, [5, 1, 0]);
        assert_eq!(client.needed(), 2);
        let request = [&[5, 1, 0, 3, 8][..], b"ab.onion", &[0x26, 0x07]].concat();
        assert_eq!(client.read(&[5, 0]), Ok(SocksStep::Send(request)));
        assert_eq!(client.needed(), 5);
        assert_eq!(client.read(&[5, 0, 0, 1, 0]), Ok(SocksStep::Send(Vec::new())));
        assert_eq!(client.needed(), 5);
        assert_eq!(client.read(&[0; 5]), Ok(SocksStep::Connected));
    }

    #[test]
    fn a_login_is_sent_when_asked_for() {
        let login = ProxyLogin { name: "a".into(), password: "bc".into() };
        let host = Host::Ip(Ipv6Addr::LOCALHOST.into());
        let (mut client, greeting) = SocksClient::new(&host, 1, Some(&login));
        assert_eq!(greeting, [5, 2, 0, 2]);
        assert_eq!(client.read(&[5, 2]), Ok(SocksStep::Send(vec![1, 1, b'a', 2, b'b', b'c'])));
        let SocksStep::Send(request) = client.read(&[1, 0]).unwrap() else { panic!("a request") };
        assert_eq!((request[3], request.len()), (4, 4 + 16 + 2));
        assert_eq!(client.read(&[5, 0, 0, 3, 20]), Ok(SocksStep::Send(Vec::new())));
        assert_eq!(client.needed(), 22);
        assert_eq!(format!("{login:?}"), "ProxyLogin(..)");
    }

    #[test]
    fn refusals_are_named() {
        let dialogue = |login: Option<&ProxyLogin>| SocksClient::new(&Host::Name("a".into()), 1, login).0;
        let login = ProxyLogin { name: "a".into(), password: "b".into() };
        assert_eq!(dialogue(None).read(&[4, 0]), Err(SocksError::Version(4)));
        assert_eq!(dialogue(None).read(&[5, 2]), Err(SocksError::Method(2)));
        assert_eq!(dialogue(Some(&login)).read(&[5, 0xff]), Err(SocksError::Method(0xff)));
        let mut client = dialogue(Some(&login));
        client.read(&[5, 2]).unwrap();
        assert_eq!(client.read(&[1, 7]), Err(SocksError::Login(7)));
        let mut client = dialogue(None);
        client.read(&[5, 0]).unwrap();
        let refused = client.read(&[5, 0xf0, 0, 1, 0]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the proxy could not connect: the onion service's descriptor cannot be found"
        );
        let mut client = dialogue(None);
        client.read(&[5, 0]).unwrap();
        assert_eq!(client.read(&[5, 0, 0, 9, 0]), Err(SocksError::AddressType(9)));
    }
}
