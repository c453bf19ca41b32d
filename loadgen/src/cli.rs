//! The command line: commands, flags, their limits, and the messages for mistakes.
//!
//! Owns: flags, their help, the parsing of amounts, shares and chain addresses, and the one line a bad flag prints.
//! Does not read files, open connections or build topologies: [`crate::scenario`] does.
//!
//! Invariant: a value that parses is within its stated limits, so nothing behind this file checks them again.

use std::fmt;
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use fulmen_topology::Spec;
use fulmen_wire::units::{Msat, Sat};

use crate::route::RouteArgs;

/// The network of a default run: scale-free like the real one, and most payments cross three channels or more.
pub(crate) const DEFAULT_TOPOLOGY: &str = "ba:40,m:2,economy:mainnet";

/// The most payments one run may make: more would outgrow the memory that holds their outcomes.
const PAYMENTS_MAX: u64 = 10_000_000;
/// The most payments in flight at once.
const IN_FLIGHT_MAX: u64 = 20_000;
/// The most attempts one payment may make.
const ATTEMPTS_MAX: u64 = 1_000;
/// The most parts one payment may go in: each is an HTLC on some channel of the payer, which has 483 at most.
const PARTS_MAX: u64 = 100;
/// The most worker threads.
const WORKERS_MAX: u64 = 256;

/// The most peers of a forwarder under stress: they all live in the driver.
const PEERS_MAX: u64 = 2_000;
/// The smallest and the largest channel under stress.
const CAPACITY_MIN_SAT: u64 = 100_000;
const CAPACITY_MAX_SAT: u64 = 1_000_000_000;
/// The shortest and the longest time that can be asked for.
const SECONDS_MIN: f64 = 0.05;
const SECONDS_MAX: f64 = 1_000_000.0;

/// Drives Fulmen under load and accounts for every satoshi.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, about, long_about = None, after_help = CLI_HELP)]
pub(crate) struct Cli {
    /// The command.
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build a network, fund it on a regtest chain, pay across it, close it, and check the funds.
    ///
    /// Every node is a separate Fulmen engine; they exchange the bytes of real BOLT messages. Every channel is
    /// opened by a transaction the chain accepts and closed by another. The run ends with a table and exits with
    /// status 1 if a single millisatoshi is missing.
    #[command(after_help = RUN_HELP)]
    Run(Box<RunArgs>),
    /// Show how a payment would go over a channel graph: hop by hop, with fees, expiries and chances.
    #[command(after_help = ROUTE_HELP)]
    Route(Box<RouteArgs>),
    /// Drive one forwarder, a separate process with its store on a disk, with many peers, and kill it during the run.
    ///
    /// Each peer opens a channel to the forwarder and pays the others over it. With --kill-every the forwarder is
    /// killed (SIGKILL) at random moments, also while it recovers from the kill before, and started again on its
    /// store; then everything under way must be resolved, and every channel's balance must equal, at both ends and to
    /// the millisatoshi, the sum of its payments. At the end all channels are closed on the chain and the funds
    /// counted.
    #[command(after_help = STRESS_HELP)]
    Stress(StressArgs),
    /// The forwarder's process of `stress`: it speaks to its driver over standard input and output.
    #[command(hide = true)]
    Forwarder,
}

/// The flags of `stress`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StressArgs {
    /// How long to pay, in seconds; recovering from kills included.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) duration: Duration,

    /// Kill the forwarder about this often, counted from the end of the last recovery: each time somewhere between a
    /// fifth and nine fifths of it. 0.5 makes about a hundred kills per minute [default: never].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) kill_every: Option<Duration>,

    /// How many peers, each with one channel.
    #[arg(long, value_name = "COUNT", default_value = "8", value_parser = peers)]
    pub(crate) peers: usize,

    /// The capacity of each channel, half of it on either side.
    #[arg(long, value_name = "SAT", default_value = "10000000", value_parser = capacity)]
    pub(crate) capacity_sat: Sat,

    /// How many payments are kept under way.
    #[arg(long, value_name = "COUNT", default_value = "100", value_parser = in_flight)]
    pub(crate) in_flight: usize,

    /// The amount of a payment, drawn evenly between the two: MIN..MAX, or one number.
    #[arg(long, value_name = "RANGE", default_value = "10000..2000000")]
    pub(crate) amount_msat: AmountRange,

    /// The forwarder's worker threads [default: one per core].
    #[arg(long, value_name = "COUNT", value_parser = workers)]
    pub(crate) workers: Option<usize>,

    /// Put the forwarder's store into a new directory in this one, which is removed at the end, but left behind if this
    /// program is interrupted. Choose a real disk
    /// [default: the system's directory for temporary files].
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,

    /// The seed of keys, payments and deaths. Threads and the moments of death keep two runs from being the same.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,

    /// The chain: kernel (Bitcoin Core's validation in this process), or a bitcoind on regtest as
    /// rpc:http://USER:PASSWORD@HOST:PORT or, by its cookie file, rpc:DIRECTORY/.cookie@HOST:PORT.
    #[arg(long, value_name = "CHAIN", default_value = "kernel")]
    pub(crate) chain: ChainSpec,

    /// Write report.json into this directory (made if missing).
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,

    /// Print the report as JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The flags of `run`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RunArgs {
    /// The network: a generator and its parameters, or `file:PATH[,core:K]` for an lnd describegraph export.
    #[arg(long, value_name = "SPEC", default_value = DEFAULT_TOPOLOGY)]
    pub(crate) topology: Spec,

    /// How many payments to make, faulty ones included.
    #[arg(long, value_name = "COUNT", default_value = "2200", value_parser = payments)]
    pub(crate) payments: u64,

    /// How many payments may be in flight at once over the whole network.
    #[arg(long, value_name = "COUNT", default_value = "50", value_parser = in_flight)]
    pub(crate) in_flight: usize,

    /// The amount of a payment, drawn evenly between the two: MIN..MAX, or one number.
    #[arg(long, value_name = "RANGE", default_value = "10000..10000000")]
    pub(crate) amount_msat: AmountRange,

    /// The seed of everything random: topology, keys, payments and faults.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,

    /// The chain: kernel (Bitcoin Core's validation in this process), or a bitcoind on regtest as
    /// rpc:http://USER:PASSWORD@HOST:PORT or, by its cookie file, rpc:DIRECTORY/.cookie@HOST:PORT.
    #[arg(long, value_name = "CHAIN", default_value = "kernel")]
    pub(crate) chain: ChainSpec,

    /// Keep every node's records below this directory, each turn's synced before it is answered; else nowhere.
    #[arg(long, value_name = "DIR")]
    pub(crate) store: Option<PathBuf>,

    /// Write report.json and report.html into this directory (made if missing).
    #[arg(long, value_name = "DIR")]
    pub(crate) report: Option<PathBuf>,

    /// The share of payments that are made to fail: unknown hashes, amounts above a hop's maximum, fees and expiry
    /// deltas below a hop's policy.
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = share)]
    pub(crate) faulty: f64,

    /// How often a payment may be tried: the first attempt and its retries together.
    #[arg(long, value_name = "COUNT", default_value = "12", value_parser = attempts)]
    pub(crate) attempts: u32,

    /// In how many parts a payment may go (BOLT 4, "Basic Multi-Part Payments"). Payments are drawn that need
    /// several, once --amount-msat exceeds single channels.
    #[arg(long, value_name = "COUNT", default_value = "1", value_parser = parts)]
    pub(crate) max_parts: usize,

    /// Channels start with any share of their capacity on either side, which payers do not know. The payments are made
    /// twice, by payers who learn from results and by payers who do not, to measure the gain from learning.
    #[arg(long)]
    pub(crate) hidden_liquidity: bool,

    /// One worker and virtual time: the same seed gives the same digest.
    #[arg(long)]
    pub(crate) deterministic: bool,

    /// Worker threads the nodes are spread over [default: one per core].
    #[arg(long, value_name = "COUNT", value_parser = workers, conflicts_with = "deterministic")]
    pub(crate) workers: Option<usize>,

    /// Print the report as JSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,

    /// No progress bars.
    #[arg(long)]
    pub(crate) quiet: bool,
}

/// Examples under `loadgen --help`.
const CLI_HELP: &str = "\
Try `loadgen run` first, then `loadgen stress --kill-every 0.5`; `--help` after a command explains every flag.";

/// Examples under `loadgen route --help`.
const ROUTE_HELP: &str = "\
Examples:
  loadgen route --graph graph.json.gz --from 02ab.. --to 03cd.. --amount-sat 50000
  loadgen route --graph graph.json.gz --from 02ab --to 03cd --amount-sat 2000000 --max-parts 8
  loadgen route --graph graph.json.gz --from 02ab --to 03cd --amount-sat 50000 -k 3 --json";

/// Examples under `loadgen run --help`.
const RUN_HELP: &str = "\
Topologies (--seed decides what they leave open):
  line:N   ring:N   star:N   complete:N   grid:WxH   tree:N[,branch:K]
  er:N,p:P (Erdos-Renyi)   ws:N,k:K,p:P (Watts-Strogatz)   ba:N,m:M (Barabasi-Albert)
  hub:N[,hubs:H] (core and periphery)
  file:PATH[,core:K] (lnd describegraph JSON, plain or .gz; core:K keeps the K best-connected nodes)
  Each generator also takes economy:flat[,capacity:SAT] or economy:mainnet (capacities, fees, deltas and limits
  distributed as on mainnet).

Examples:
  loadgen run
  loadgen run --topology ba:60,m:3 --payments 10000 --in-flight 400
  loadgen run --topology file:graph.json.gz,core:40 --seed 7 --report out
  loadgen run --deterministic --payments 500
  loadgen run --max-parts 4 --amount-msat 500000000..6000000000 --payments 500
  loadgen run --chain rpc:http://user:password@127.0.0.1:18443 --payments 200

Exit status: 0 all is well; 1 the run failed or the funds check found something; 2 the command line is wrong.";

/// Examples under `loadgen stress --help`.
const STRESS_HELP: &str = "\
Examples:
  loadgen stress --duration 10
  loadgen stress --duration 180 --kill-every 0.5 --store /var/tmp
  loadgen stress --duration 60 --peers 50 --in-flight 1000 --workers 2 --json

Exit status: 0 all is well; 1 the run failed, a payment was lost, a channel was force-closed, or a check found
something; 2 the command line is wrong.";

/// The chain a run settles on.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum ChainSpec {
    /// Bitcoin Core's validation engine in this process.
    Kernel,
    /// A bitcoind over JSON-RPC.
    Rpc {
        /// `http://USER:PASSWORD@HOST:PORT`; never printed.
        url: String,
        /// `http://HOST:PORT`.
        address: String,
    },
}

impl fmt::Display for ChainSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChainSpec::Kernel => write!(f, "kernel"),
            ChainSpec::Rpc { address, .. } => write!(f, "rpc:{address}"),
        }
    }
}

impl fmt::Debug for ChainSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for ChainSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<ChainSpec, String> {
        const FORM: &str = "write kernel, rpc:http://USER:PASSWORD@HOST:PORT, or rpc:DIRECTORY/.cookie[@HOST:PORT] \
                            with the cookie file of a bitcoind";
        if text == "kernel" {
            return Ok(ChainSpec::Kernel);
        }
        let rest = text.strip_prefix("rpc:").ok_or_else(|| format!("unknown chain; {FORM}"))?;
        let with_cookie =
            rest.split_once(COOKIE_FILE).map(|(directory, address)| with_cookie(directory, address));
        let login = with_cookie.transpose().map_err(|cause| format!("{cause}; {FORM}"))?;
        let rest = match &login {
            Some(login) => login,
            None => rest
                .strip_prefix("http://")
                .ok_or_else(|| format!("the address must start with http://; {FORM}"))?,
        };
        // The last @ ends the credentials, so that a password may hold one.
        let (login, address) =
            rest.rsplit_once('@').ok_or_else(|| format!("no user and password; {FORM}"))?;
        let (user, password) = login.split_once(':').ok_or_else(|| format!("no password; {FORM}"))?;
        let address = address.trim_end_matches('/');
        let (host, port) = address.rsplit_once(':').ok_or_else(|| format!("no port; {FORM}"))?;
        if host.is_empty() || host.contains(['/', ' ']) {
            return Err(format!("{host:?} is no host name; {FORM}"));
        }
        port.parse::<u16>()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("{port:?} is no port between 1 and 65535; {FORM}"))?;
        if user.is_empty() || password.is_empty() {
            return Err(format!("user and password must not be empty; {FORM}"));
        }
        Ok(ChainSpec::Rpc { url: format!("http://{rest}"), address: format!("http://{host}:{port}") })
    }
}

/// The name of the file with the name and password of the day, which bitcoind writes unless it is given others.
const COOKIE_FILE: &str = "/.cookie";
/// Where a bitcoind with `-regtest` listens unless told otherwise.
const REGTEST_ADDRESS: &str = "127.0.0.1:18443";

/// `USER:PASSWORD@HOST:PORT` by the cookie file in `directory`; `address` is nothing or `@HOST:PORT`.
fn with_cookie(directory: &str, address: &str) -> Result<String, String> {
    let path = format!("{directory}{COOKIE_FILE}");
    let address = match address {
        "" => REGTEST_ADDRESS,
        _ => {
            address.strip_prefix('@').ok_or_else(|| format!("{address:?} after {path} is not @HOST:PORT"))?
        }
    };
    let login = fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    Ok(format!("{}@{address}", login.trim()))
}

/// The least and the most a payment may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AmountRange {
    /// The least.
    pub(crate) min: Msat,
    /// The most; not below `min`.
    pub(crate) max: Msat,
}

impl fmt::Display for AmountRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.min.0, self.max.0)
    }
}

impl FromStr for AmountRange {
    type Err = String;

    fn from_str(text: &str) -> Result<AmountRange, String> {
        const FORM: &str = "write MIN..MAX in millisatoshi, such as 10000..10000000";
        let (min, max) = text.split_once("..").unwrap_or((text, text));
        let number = |digits: &str| {
            digits
                .trim_start_matches('=')
                .replace('_', "")
                .parse::<u64>()
                .map_err(|_| format!("{digits:?} is no whole number of millisatoshi; {FORM}"))
        };
        let (min, max) = (number(min)?, number(max)?);
        if min == 0 {
            return Err(format!("a payment of nothing cannot be made; {FORM} with MIN at least 1"));
        }
        if min > max {
            return Err(format!("the range is reversed; write {max}..{min}"));
        }
        if max > Msat::MAX_MONEY.0 {
            return Err(format!("{max} msat is more than all bitcoin there will ever be; {FORM}"));
        }
        Ok(AmountRange { min: Msat(min), max: Msat(max) })
    }
}

/// A whole number within `range`, or a sentence that names the range.
fn count(text: &str, what: &str, range: RangeInclusive<u64>) -> Result<u64, String> {
    let (min, max) = (range.start(), range.end());
    let wanted = format!("give a whole number of {what} from {min} to {max}");
    match text.replace('_', "").parse::<u64>() {
        Ok(number) if range.contains(&number) => Ok(number),
        Ok(number) if number < *min => Err(format!("too few; {wanted}")),
        Ok(_) => Err(format!("too many; {wanted}")),
        Err(_) => Err(format!("not a whole number; {wanted}")),
    }
}

fn payments(text: &str) -> Result<u64, String> {
    count(text, "payments", 1..=PAYMENTS_MAX)
}

fn in_flight(text: &str) -> Result<usize, String> {
    count(text, "payments in flight", 1..=IN_FLIGHT_MAX).map(|number| number as usize)
}

fn attempts(text: &str) -> Result<u32, String> {
    count(text, "attempts", 1..=ATTEMPTS_MAX).map(|number| number as u32)
}

fn parts(text: &str) -> Result<usize, String> {
    count(text, "parts", 1..=PARTS_MAX).map(|number| number as usize)
}

fn workers(text: &str) -> Result<usize, String> {
    count(text, "worker threads", 1..=WORKERS_MAX).map(|number| number as usize)
}

fn peers(text: &str) -> Result<usize, String> {
    count(text, "peers", 2..=PEERS_MAX).map(|number| number as usize)
}

fn capacity(text: &str) -> Result<Sat, String> {
    count(text, "satoshi", CAPACITY_MIN_SAT..=CAPACITY_MAX_SAT).map(Sat)
}

fn seconds(text: &str) -> Result<Duration, String> {
    let wanted = format!("give seconds from {SECONDS_MIN} to {SECONDS_MAX}, such as 0.5");
    match text.parse::<f64>() {
        Ok(seconds) if (SECONDS_MIN..=SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err(format!("out of range; {wanted}")),
        Err(_) => Err(format!("not a number; {wanted}")),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let wanted = "give a share from 0 to 1, such as 0.05";
    match text.parse::<f64>() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        Ok(_) => Err(format!("out of range; {wanted}")),
        Err(_) => Err(format!("not a number; {wanted}")),
    }
}

/// The one-line message for a mistake on the command line: the mistake and its remedy.
pub(crate) fn one_line(error: &clap::Error) -> String {
    let text = without_password(&error.render().to_string());
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("error: the command line cannot be read").to_owned();
    // A sentence with a remedy needs no pointer to the help; neither does clap's own suggestion.
    if first.contains("; ") {
        return first;
    }
    let tip = lines.find_map(|line| line.strip_prefix("tip: "));
    match tip {
        Some(tip) => format!("{first}; {tip}"),
        None => format!("{first}; see loadgen --help"),
    }
}

/// The text with the password in its first `://USER:PASSWORD@` replaced: clap repeats the value it refuses.
fn without_password(text: &str) -> String {
    let masked = text.split_once("://").and_then(|(before, after)| {
        let word = after.split([' ', '\'', '\n']).next()?;
        let (login, _) = word.rsplit_once('@')?;
        let (user, _) = login.split_once(':')?;
        Some(format!("{before}://{user}:***{}", &after[login.len()..]))
    });
    masked.unwrap_or_else(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(flags: &[&str]) -> Result<RunArgs, String> {
        let arguments = ["loadgen", "run"].iter().chain(flags);
        match Cli::try_parse_from(arguments) {
            Ok(Cli { command: Command::Run(args) }) => Ok(*args),
            Ok(other) => panic!("not a run: {other:?}"),
            Err(error) => Err(one_line(&error)),
        }
    }

    #[test]
    fn defaults_are_within_their_own_limits() {
        Cli::command().debug_assert();
        let args = parse(&[]).unwrap();
        assert!(args.payments >= 2000);
        assert_eq!(args.chain, ChainSpec::Kernel);
        assert!(args.faulty > 0.0);
    }

    #[test]
    fn mistakes_take_one_line_with_the_flag_and_the_remedy() {
        let mistakes: &[(&[&str], &str)] = &[
            (&["--payments", "0"], "too few"),
            (&["--payments", "1e18"], "not a whole number"),
            (&["--payments", "1000000000000000000"], "too many"),
            (&["--payments", "99999999999999999999999"], "not a whole number"),
            (&["--in-flight", "0"], "too few"),
            (&["--attempts", "0"], "too few"),
            (&["--max-parts", "0"], "too few"),
            (&["--max-parts", "101"], "too many"),
            (&["--amount-msat", "50..10"], "write 10..50"),
            (&["--amount-msat", "0..10"], "at least 1"),
            (&["--amount-msat", "ten"], "no whole number"),
            (&["--amount-msat", "1..9000000000000000000"], "more than all bitcoin"),
            (&["--faulty", "2.0"], "out of range"),
            (&["--faulty", "NaN"], "out of range"),
            (&["--faulty=-0.1"], "out of range"),
            (&["--chain", "mainnet"], "unknown chain"),
            (&["--chain", "rpc:http://127.0.0.1:18443"], "no user"),
            (&["--chain", "rpc:http://a:b@127.0.0.1"], "no port"),
            (&["--chain", "rpc:http://a:b@127.0.0.1:99999"], "no port between"),
            (&["--chain", "rpc:https://a:b@127.0.0.1:1"], "http://"),
            (&["--chain", "rpc:http://a:b@127.0.0.1:1/wallet/x"], "no port between"),
            (&["--chain", "rpc:/no/such/.cookie"], "cannot read /no/such/.cookie"),
            (&["--chain", "rpc:/no/such/.cookie:1"], "is not @HOST:PORT"),
            (&["--topology", "foo:3"], "no generator `foo`"),
            (&["--topology", "line:1"], "must be"),
            (&["--seed", "x"], "--seed"),
            (&["--nonsense"], "--nonsense"),
        ];
        for (flags, expected) in mistakes {
            let line = parse(flags).expect_err("a mistake");
            assert!(line.starts_with("error: ") && !line.contains('\n'), "{line}");
            assert!(line.contains(expected), "{flags:?} gave {line}");
            assert!(line.contains("; "), "{line} says what to do");
        }
    }

    #[test]
    fn a_refused_address_is_told_without_its_password() {
        for address in ["http://u:pw:x@pw@127.0.0.1:1/wallet/x", "https://u:pw@h:1", "http://u:pw@h"] {
            let line = parse(&["--chain", &format!("rpc:{address}")]).expect_err("a mistake");
            assert!(line.contains("u:***@") && !line.contains("pw"), "{line}");
        }
    }

    #[test]
    fn a_cookie_file_is_a_login() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(".cookie");
        fs::write(&path, "__cookie__:0123abcd\n").unwrap();
        for (address, expected) in [("", "127.0.0.1:18443"), ("@localhost:7", "localhost:7")] {
            let args = parse(&["--chain", &format!("rpc:{}{address}", path.display())]).unwrap();
            let ChainSpec::Rpc { url, .. } = &args.chain else { panic!("rpc") };
            assert_eq!(*url, format!("http://__cookie__:0123abcd@{expected}"));
        }
    }

    #[test]
    fn chains_and_amounts_parse() {
        let args =
            parse(&["--chain", "rpc:http://me:p@ss:word@[::1]:18443/", "--amount-msat", "1_000..=2000"])
                .unwrap();
        let ChainSpec::Rpc { url, address } = &args.chain else { panic!("rpc") };
        assert_eq!(
            (url.as_str(), address.as_str()),
            ("http://me:p@ss:word@[::1]:18443/", "http://[::1]:18443")
        );
        assert!(!format!("{:?}", args.chain).contains("word"), "a password is never printed");
        assert_eq!(args.amount_msat, AmountRange { min: Msat(1000), max: Msat(2000) });
        assert_eq!(
            parse(&["--amount-msat", "7"]).unwrap().amount_msat,
            AmountRange { min: Msat(7), max: Msat(7) }
        );
    }
}
