//! The configuration file of `fulmend`: lines of `name = value`.
//!
//! Owns the names, their values and defaults. Unknown and repeated names are errors: a misspelt limit must not be
//! ignored. Mainnet is refused, since enforcement (BOLT 5) is not implemented and money could be lost.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use fulmen_net::{AddressError, ConnectionLimits, LimitsError, PeerAddress};

/// The settings of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    network: Network,
    /// Where records and checkpoints are kept.
    directory: PathBuf,
    listen: SocketAddr,
    /// Peers to stay connected with; `peer` may be repeated.
    peers: Vec<PeerAddress>,
    limits: ConnectionLimits,
}

/// A Bitcoin network on which a node may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Network {
    Regtest,
    Signet,
    Testnet,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    #[error("line {line}: {text:?} is not of the form name = value")]
    Form { line: usize, text: String },
    #[error("line {line}: there is no setting {name:?}")]
    UnknownName { line: usize, name: String },
    #[error("line {line}: {name} is set twice")]
    Repeated { line: usize, name: String },
    #[error("line {line}: {value:?} is no value of {name}: {reason}")]
    Value { line: usize, name: String, value: String, reason: String },
    #[error("line {line}: fulmend does not run on mainnet: it cannot enforce channels on the chain yet")]
    Mainnet { line: usize },
    #[error("line {line}: {error}")]
    Peer { line: usize, error: AddressError },
    #[error("{name} is not set")]
    Missing { name: &'static str },
    #[error(transparent)]
    Limits(#[from] LimitsError),
}

impl Config {
    /// Reads a configuration file.
    pub(crate) fn read(path: &Path) -> Result<Config, ConfigError> {
        Config::parse(&std::fs::read_to_string(path)?)
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        let mut settings: Vec<Setting<'_>> = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let Some(setting) = Setting::parse(line, text)? else { continue };
            if setting.name != "peer" && settings.iter().any(|earlier| earlier.name == setting.name) {
                return Err(ConfigError::Repeated { line, name: setting.name.to_owned() });
            }
            settings.push(setting);
        }
        let mut config = Config {
            network: Network::Regtest,
            directory: PathBuf::new(),
            listen: SocketAddr::from(([127, 0, 0, 1], 9735)),
            peers: Vec::new(),
            limits: ConnectionLimits::default(),
        };
        let mut is_set = [false; 2];
        for setting in &settings {
            match setting.name {
                "network" => (config.network, is_set[0]) = (setting.network()?, true),
                "directory" => (config.directory, is_set[1]) = (setting.value.into(), true),
                "listen" => config.listen = setting.value("an IP address and a port")?,
                "peer" => config.peers.push(setting.peer()?),
                "connections_max" => config.limits.connections_max = setting.value("a number")?,
                "connections_per_ip_max" => {
                    config.limits.connections_per_ip_max = setting.value("a number")?
                }
                "handshakes_max" => config.limits.handshakes_max = setting.value("a number")?,
                "read_bytes_max" => config.limits.read_bytes_max = setting.value("a number of bytes")?,
                "unwritten_bytes_max" => {
                    config.limits.unwritten_bytes_max = setting.value("a number of bytes")?;
                }
                "unwritten_bytes_cut_off" => {
                    config.limits.unwritten_bytes_cut_off = setting.value("a number of bytes")?;
                }
                name => {
                    return Err(ConfigError::UnknownName { line: setting.line, name: name.to_owned() });
                }
            }
        }
        for (name, is_set) in ["network", "directory"].into_iter().zip(is_set) {
            if !is_set {
                return Err(ConfigError::Missing { name });
            }
        }
        config.limits.check()?;
        Ok(config)
    }
}

/// The settings, in the form of the file.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Config { network, directory, listen, peers, limits } = self;
        writeln!(f, "network = {}", network.name())?;
        writeln!(f, "directory = {}", directory.display())?;
        writeln!(f, "listen = {listen}")?;
        peers.iter().try_for_each(|peer| writeln!(f, "peer = {peer}"))?;
        writeln!(f, "connections_max = {}", limits.connections_max)?;
        writeln!(f, "connections_per_ip_max = {}", limits.connections_per_ip_max)?;
        writeln!(f, "handshakes_max = {}", limits.handshakes_max)?;
        writeln!(f, "read_bytes_max = {}", limits.read_bytes_max)?;
        writeln!(f, "unwritten_bytes_max = {}", limits.unwritten_bytes_max)?;
        writeln!(f, "unwritten_bytes_cut_off = {}", limits.unwritten_bytes_cut_off)
    }
}

impl Network {
    const fn name(self) -> &'static str {
        match self {
            Network::Regtest => "regtest",
            Network::Signet => "signet",
            Network::Testnet => "testnet",
        }
    }
}

/// A line that sets something.
#[derive(Debug)]
struct Setting<'a> {
    line: usize,
    name: &'a str,
    value: &'a str,
}

impl<'a> Setting<'a> {
    /// `None` for an empty line or a comment.
    fn parse(line: usize, text: &'a str) -> Result<Option<Setting<'a>>, ConfigError> {
        let content = text.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            return Ok(None);
        }
        let parts = content.split_once('=').map(|(name, value)| (name.trim(), value.trim()));
        match parts {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                Ok(Some(Setting { line, name, value }))
            }
            _ => Err(ConfigError::Form { line, text: content.to_owned() }),
        }
    }

    fn value<T: FromStr>(&self, expected: &str) -> Result<T, ConfigError> {
        self.value.parse().map_err(|_| self.refused(expected))
    }

    fn network(&self) -> Result<Network, ConfigError> {
        match self.value {
            "regtest" => Ok(Network::Regtest),
            "signet" => Ok(Network::Signet),
            "testnet" => Ok(Network::Testnet),
            "mainnet" | "bitcoin" | "main" => Err(ConfigError::Mainnet { line: self.line }),
            _ => Err(self.refused("regtest, signet or testnet")),
        }
    }

    fn peer(&self) -> Result<PeerAddress, ConfigError> {
        self.value.parse().map_err(|error| ConfigError::Peer { line: self.line, error })
    }

    fn refused(&self, expected: &str) -> ConfigError {
        let Setting { line, name, value } = *self;
        let (name, value) = (name.to_owned(), value.to_owned());
        ConfigError::Value { line, name, value, reason: format!("write {expected}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "02eec7245d6b7d2ccb30380bfbe2a3648cd7a942653f5aa340edcea1f283686619";

    #[test]
    fn a_file_is_read_and_printed_with_its_defaults() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = format!(
            "# a node\nnetwork = signet\ndirectory = /var/lib/fulmen # records\n\npeer = {KEY}@a.example\n\
             peer = {KEY}@b.example:1\nhandshakes_max=7\n"
        );
        std::fs::write(file.path(), text).unwrap();
        let config = Config::read(file.path()).unwrap();
        assert_eq!(
            (config.network, config.peers.len(), config.limits.handshakes_max),
            (Network::Signet, 2, 7)
        );
        assert_eq!(config.limits.connections_max, ConnectionLimits::default().connections_max);
        assert_eq!(Config::parse(&config.to_string()).unwrap(), config, "it reads the settings it prints");
    }

    #[test]
    fn mainnet_is_refused_by_every_name() {
        for name in ["mainnet", "bitcoin", "main"] {
            let refused = Config::parse(&format!("directory = x\nnetwork = {name}"));
            assert!(matches!(refused, Err(ConfigError::Mainnet { line: 2 })), "{refused:?}");
        }
    }

    #[test]
    fn faults_are_named_with_their_line() {
        let whole = "network = regtest\ndirectory = x\n";
        for (line, expected) in [
            ("nonsense", "line 3: \"nonsense\" is not of the form name = value"),
            ("lissten = 127.0.0.1:1", "line 3: there is no setting \"lissten\""),
            ("network = regtest", "line 3: network is set twice"),
            ("listen = here", "line 3: \"here\" is no value of listen: write an IP address and a port"),
            ("read_bytes_max = 9", "read_bytes_max is 9 bytes, and a message may have 65569"),
        ] {
            let error = Config::parse(&format!("{whole}{line}")).expect_err(line);
            assert_eq!(error.to_string(), expected);
        }
        let error = Config::parse("network = regtest").expect_err("no directory");
        assert_eq!(error.to_string(), "directory is not set");
    }
}
