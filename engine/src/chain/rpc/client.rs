//! Calls to one bitcoind, and the errors of calls that fail.
//!
//! Owns the URL and the connection. Knows no method's meaning. Invariant: no error and no debug text holds the
//! password.

use std::io::ErrorKind;
use std::str::FromStr;
use std::time::{Duration, Instant};

use jsonrpc::simple_http::{self, SimpleHttpTransport};
use serde_json::Value;
use serde_json::value::to_raw_value;

use crate::chain::ChainError;

/// A connection to one bitcoind.
pub struct RpcClient {
    client: jsonrpc::Client,
    timeout: Duration,
    /// The URL without user and password.
    address: String,
    user: String,
}

/// The answer of the daemon.
pub(super) enum RpcAnswer {
    Result(Value),
    Refused { code: i32, message: String },
}

impl RpcClient {
    /// Takes `http://user:password@host:port`; connects with the first call.
    pub(super) fn new(url: &str, timeout: Duration) -> Result<RpcClient, ChainError> {
        let parts =
            Parts::parse(url).map_err(|reason| ChainError::Url { url: without_password(url), reason })?;
        let address = format!("http://{}:{}", parts.host, parts.port);
        let transport = SimpleHttpTransport::builder()
            .timeout(timeout)
            .url(&address)
            .map_err(|error| ChainError::Unreachable { url: address.clone(), reason: error.to_string() })?
            .auth(parts.user, Some(parts.password))
            .build();
        let client = jsonrpc::Client::with_transport(transport);
        Ok(RpcClient { client, timeout, address, user: parts.user.to_owned() })
    }

    /// The URL, without user and password.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Calls a method whose refusals the caller tells apart. Waits while the daemon is too busy, up to a minute.
    pub(super) fn ask(&self, method: &'static str, parameters: &[Value]) -> Result<RpcAnswer, ChainError> {
        let parameters = to_raw_value(parameters).map_err(|error| self.unexpected(method, error))?;
        let deadline = Instant::now() + BUSY_WAIT_MAX;
        let mut pause = BUSY_PAUSE_MIN;
        loop {
            match self.client.call(method, Some(&parameters)) {
                Ok(value) => return Ok(RpcAnswer::Result(value)),
                Err(jsonrpc::Error::Rpc(error)) => {
                    return Ok(RpcAnswer::Refused { code: error.code, message: error.message });
                }
                Err(error) => match self.failure(method, &error) {
                    ChainError::Busy { .. } if Instant::now() + pause < deadline => {
                        std::thread::sleep(pause);
                        pause = (pause * 2).min(BUSY_PAUSE_MAX);
                    }
                    error => return Err(error),
                },
            }
        }
    }

    /// The error for a call that brought no answer of JSON-RPC. Of these, only `Busy` says that it was not executed.
    fn failure(&self, method: &'static str, error: &jsonrpc::Error) -> ChainError {
        let url = self.address.clone();
        let transport = match error {
            jsonrpc::Error::Transport(error) => error.downcast_ref::<simple_http::Error>(),
            _ => None,
        };
        match transport {
            Some(simple_http::Error::SocketError(error)) => {
                let reason = match error.kind() {
                    // Systems differ in the error of a socket whose timeout expires.
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        format!("no answer within {:?}", self.timeout)
                    }
                    _ => error.to_string(),
                };
                ChainError::Unreachable { url, reason }
            }
            Some(simple_http::Error::HttpErrorCode(status)) => match *status {
                401 => ChainError::Unauthorized { url, user: self.user.clone() },
                403 => ChainError::Forbidden { url, method },
                429 | 503 => ChainError::Busy { url, method, status: *status },
                502 | 504 => ChainError::Gateway { url, method, answer: format!("HTTP {status}") },
                _ => self.unexpected(method, error),
            },
            Some(simple_http::Error::HttpResponseChunked) => {
                ChainError::Gateway { url, method, answer: "a page in chunks".to_owned() }
            }
            _ => self.unexpected(method, error),
        }
    }

    /// Calls a method that has no reason to be refused.
    ///
    /// # Errors
    /// When nothing answers, the password is wrong, the daemon refuses, or the answer is not JSON-RPC.
    pub fn call(&self, method: &'static str, parameters: &[Value]) -> Result<Value, ChainError> {
        match self.ask(method, parameters)? {
            RpcAnswer::Result(value) => Ok(value),
            RpcAnswer::Refused { code, message } => Err(ChainError::Rpc { method, code, message }),
        }
    }

    /// Reads a value given as text in the answer to `method`.
    ///
    /// # Errors
    /// [`ChainError::UnexpectedAnswer`] when it is no text, or no such value.
    pub fn parse<T: FromStr>(&self, method: &'static str, value: &Value) -> Result<T, ChainError> {
        let parsed = value.as_str().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| self.unexpected(method, format_args!("{value} is not what was asked for")))
    }

    /// The error for an answer to `method` that is not as documented.
    #[must_use]
    pub fn unexpected(&self, method: &'static str, reason: impl std::fmt::Display) -> ChainError {
        ChainError::UnexpectedAnswer { url: self.address.clone(), method, reason: reason.to_string() }
    }
}

/// How long a busy daemon is asked again, and the pauses between.
const BUSY_WAIT_MAX: Duration = Duration::from_secs(60);
const BUSY_PAUSE_MIN: Duration = Duration::from_millis(250);
const BUSY_PAUSE_MAX: Duration = Duration::from_secs(8);

/// The parts of the URL of a bitcoind.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    user: &'a str,
    password: &'a str,
    host: &'a str,
    port: u16,
}

impl<'a> Parts<'a> {
    fn parse(url: &'a str) -> Result<Parts<'a>, &'static str> {
        let rest = url.strip_prefix("http://").ok_or("it does not begin with http://")?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        // A password may hold an @, a host may not.
        let (login, host) = rest.rsplit_once('@').ok_or("user and password are missing")?;
        let (user, password) = login.split_once(':').ok_or("the password is missing")?;
        let (host, port) = host.rsplit_once(':').ok_or("the port is missing")?;
        if user.is_empty() || host.is_empty() || host.contains('/') {
            return Err("user or host is missing, or there is a path");
        }
        let port =
            port.parse().ok().filter(|port| *port != 0).ok_or("the port is not a number up to 65535")?;
        Ok(Parts { user, password, host, port })
    }
}

/// The URL as it may be shown.
fn without_password(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://...@{host}"),
        (None, Some((_, host))) => format!("...@{host}"),
        (_, None) => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_all_parts_or_none() {
        let parts = Parts { user: "a", password: "b:@c", host: "127.0.0.1", port: 18443 };
        assert_eq!(Parts::parse("http://a:b:@c@127.0.0.1:18443/"), Ok(parts));
        for url in [
            "https://a:b@host:1",
            "http://host:1",
            "http://a@host:1",
            "http://a:b@host",
            "http://a:b@host:0",
            "http://a:b@host:65536",
            "http://a:b@host/wallet:1",
            "http://:b@host:1",
            "http://a:b@:1",
        ] {
            assert!(Parts::parse(url).is_err(), "{url}");
        }
    }

    #[test]
    fn errors_do_not_tell_the_password() {
        for url in [
            "https://user:secret@host:1",
            "user:secret@host:1",
            "http://user:secret@host",
            "http://user:secret@h/@x:1",
        ] {
            let Err(error) = RpcClient::new(url, Duration::from_secs(1)) else { panic!("{url}") };
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_silent_port_does_not_hold_us_up() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://user:secret@{}", listener.local_addr().unwrap());
        let client = RpcClient::new(&url, Duration::from_millis(50)).unwrap();
        let Err(error) = client.call("getblockchaininfo", &[]) else { panic!("answered") };
        assert!(
            matches!(&error, ChainError::Unreachable { reason, .. } if reason.contains("50ms")),
            "{error}"
        );
    }
}
