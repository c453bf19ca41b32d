//! The textual form of a topology: which generator with which parameters, or which file.
//!
//! Owns the grammar and the bounds on parameters, so that a [`Spec`] that exists can be built; only a file may still
//! prove unreadable. Does not generate.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use fulmen_wire::units::Sat;
use thiserror::Error;

use crate::generate::{self, Economy, Millionths, Shape};
use crate::import::{self, ImportError};
use crate::model::Topology;

/// A topology that can be built: parse one from its text.
///
/// ```
/// use fulmen_topology::Spec;
///
/// let topology = "grid:3x2,capacity:1000000".parse::<Spec>()?.build(7)?;
/// assert_eq!((topology.nodes().len(), topology.channels().len()), (6, 7));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// | text | graph |
/// |---|---|
/// | `line:N` | N nodes in a row |
/// | `ring:N` | N nodes in a circle |
/// | `star:N` | one centre and N-1 leaves |
/// | `grid:WxH` | W columns by H rows |
/// | `tree:N[,branch:K]` | N nodes, each with up to K children (2) |
/// | `complete:N` | every pair of N nodes |
/// | `er:N,p:P` | Erdős–Rényi: each pair with probability P |
/// | `ws:N,k:K,p:P` | Watts–Strogatz: a ring lattice of degree K, each channel rewired with probability P |
/// | `ba:N,m:M` | Barabási–Albert: each new node joins M others, the well-joined ones sooner |
/// | `hub:N[,hubs:H]` | core and periphery: H hubs (√N) that are all joined, and spokes with one to three hubs each |
/// | `file:PATH[,core:K]` | lnd `describegraph` JSON, plain or gzip, whole or the core of its K best-connected nodes |
///
/// Every generator also takes `economy:flat` (all channels alike; `capacity:SAT` sets their size, 5,000,000 by default)
/// or `economy:mainnet` (capacities, fees, deltas and HTLC limits drawn as they are distributed on mainnet). `hub` is
/// `mainnet` unless told otherwise, the others are `flat`.
///
/// `er` and `ws` may come out in pieces; each piece is then joined to the first by one more channel between random
/// nodes, so that every generated topology is connected and has all its N nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec(Source);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    Generated { shape: Shape, economy: Economy },
    File { path: PathBuf, core: Option<usize> },
}

/// The forms a spec may take, for messages.
const FORMS: &str = "line:N, ring:N, star:N, grid:WxH, tree:N[,branch:K], complete:N, er:N,p:P, ws:N,k:K,p:P, ba:N,m:M, \
                     hub:N[,hubs:H], each with [,economy:flat|mainnet][,capacity:SAT], or file:PATH[,core:K]";

/// No generated topology has more nodes.
const NODES_MAX: usize = 1_000_000;
/// No generated topology has more channels.
const CHANNELS_MAX: usize = 5_000_000;
/// No Erdős–Rényi graph has more nodes: every pair is drawn.
const PAIRWISE_NODES_MAX: usize = 20_000;

/// Why a text is no spec.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SpecError {
    /// The generator is not one of those known.
    #[error("topology `{spec}`: there is no generator `{name}`; use {FORMS}")]
    UnknownGenerator {
        /// The whole text.
        spec: String,
        /// The text in place of the generator's name.
        name: String,
    },
    /// A part is not `name:value`.
    #[error("topology `{spec}`: `{part}` is not of the form name:value; use {FORMS}")]
    Malformed {
        /// The whole text.
        spec: String,
        /// The part.
        part: String,
    },
    /// A parameter the generator needs is missing.
    #[error("topology `{spec}`: `{name}` is missing; use {FORMS}")]
    Missing {
        /// The whole text.
        spec: String,
        /// The parameter.
        name: &'static str,
    },
    /// A parameter the generator does not know, or knows but once.
    #[error("topology `{spec}`: `{name}` does not belong here; use {FORMS}")]
    Unexpected {
        /// The whole text.
        spec: String,
        /// The parameter.
        name: String,
    },
    /// A value cannot be read or is out of bounds.
    #[error("topology `{spec}`: `{name}` must be {expected}, not `{value}`")]
    BadValue {
        /// The whole text.
        spec: String,
        /// The parameter.
        name: &'static str,
        /// The value.
        value: String,
        /// The form it must have.
        expected: String,
    },
}

/// Why a spec could not be built.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The file could not be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The file's core is no network.
    #[error("{}: the core of {core} nodes has {nodes} of them connected both ways; use a larger core", path.display())]
    CoreTooSmall {
        /// The file.
        path: PathBuf,
        /// The nodes asked for.
        core: usize,
        /// The nodes of the largest strongly connected component.
        nodes: usize,
    },
}

impl Spec {
    /// Builds the topology. A generator draws from `seed` alone; a file does not use it.
    ///
    /// # Errors
    /// When a file cannot be imported or its core has fewer than two nodes; a generator does not fail.
    pub fn build(&self, seed: u64) -> Result<Topology, BuildError> {
        match &self.0 {
            Source::Generated { shape, economy } => Ok(generate::generate(*shape, *economy, seed)),
            Source::File { path, core } => {
                let whole = import::import(path)?;
                let Some(core) = *core else { return Ok(whole) };
                let topology = whole.core(core);
                let nodes = topology.nodes().len();
                if nodes < 2 {
                    return Err(BuildError::CoreTooSmall { path: path.clone(), core, nodes });
                }
                Ok(topology)
            }
        }
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Generated { shape, economy } => write!(f, "{shape},{economy}"),
            Source::File { path, core: None } => write!(f, "file:{}", path.display()),
            Source::File { path, core: Some(core) } => write!(f, "file:{},core:{core}", path.display()),
        }
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Spec, SpecError> {
        if let Some(file) = text.strip_prefix("file:") {
            return parse_file(text, file);
        }
        let mut parameters = Parameters::split(text)?;
        let (name, size) = parameters.0.remove(0);
        let shape = parse_shape(&mut parameters, text, name, size)?;
        check_size(text, size, shape)?;
        let economy = parse_economy(&mut parameters, text, shape)?;
        match parameters.0.first() {
            None => Ok(Spec(Source::Generated { shape, economy })),
            Some((name, _)) => Err(SpecError::Unexpected { spec: text.to_owned(), name: (*name).to_owned() }),
        }
    }
}

/// Reads `PATH[,core:K]`. Only a well-formed `core` at the very end is taken off: paths may hold commas and colons.
fn parse_file(text: &str, file: &str) -> Result<Spec, SpecError> {
    let is_count = |core: &str| !core.is_empty() && core.bytes().all(|byte| byte.is_ascii_digit());
    let (path, core) = match file.rsplit_once(",core:").filter(|(_, core)| is_count(core)) {
        Some((path, core)) => (path, Some(parse_count(text, "core", core, 2..=usize::MAX)?)),
        None => (file, None),
    };
    if path.is_empty() {
        return Err(SpecError::Missing { spec: text.to_owned(), name: "PATH" });
    }
    Ok(Spec(Source::File { path: PathBuf::from(path), core }))
}

fn parse_shape(
    parameters: &mut Parameters<'_>,
    text: &str,
    name: &str,
    size: &str,
) -> Result<Shape, SpecError> {
    let nodes = |least| parse_count(text, "N", size, least..=NODES_MAX);
    Ok(match name {
        "line" => Shape::Line { nodes: nodes(2)? },
        "ring" => Shape::Ring { nodes: nodes(3)? },
        "star" => Shape::Star { nodes: nodes(2)? },
        "complete" => Shape::Complete { nodes: nodes(2)? },
        "grid" => {
            let (width, height) = size.split_once('x').ok_or_else(|| SpecError::BadValue {
                spec: text.to_owned(),
                name: "WxH",
                value: size.to_owned(),
                expected: "two numbers with an x between them".to_owned(),
            })?;
            let width = parse_count(text, "W", width, 1..=NODES_MAX)?;
            Shape::Grid { width, height: parse_count(text, "H", height, 1..=NODES_MAX)? }
        }
        "tree" => {
            let branch = parameters.take("branch");
            let branch = branch.map(|value| parse_count(text, "branch", value, 1..=NODES_MAX)).transpose()?;
            Shape::Tree { nodes: nodes(2)?, branch: branch.unwrap_or(2) }
        }
        "er" => {
            let nodes = parse_count(text, "N", size, 2..=PAIRWISE_NODES_MAX)?;
            Shape::ErdosRenyi { nodes, probability: parse_probability(text, parameters.need(text, "p")?)? }
        }
        "ws" => {
            let nodes = nodes(3)?;
            let degree = parse_count(text, "k", parameters.need(text, "k")?, 2..=nodes - 1)?;
            if !degree.is_multiple_of(2) {
                return Err(SpecError::BadValue {
                    spec: text.to_owned(),
                    name: "k",
                    value: degree.to_string(),
                    expected: "even: half of the channels go to either side".to_owned(),
                });
            }
            let probability = parse_probability(text, parameters.need(text, "p")?)?;
            Shape::WattsStrogatz { nodes, degree, probability }
        }
        "ba" => {
            let nodes = nodes(2)?;
            let joins = parse_count(text, "m", parameters.need(text, "m")?, 1..=nodes - 1)?;
            Shape::BarabasiAlbert { nodes, joins }
        }
        "hub" => {
            let nodes = nodes(2)?;
            let hubs = parameters.take("hubs");
            let hubs = hubs.map(|value| parse_count(text, "hubs", value, 1..=nodes)).transpose()?;
            Shape::Hub { nodes, hubs: hubs.unwrap_or_else(|| nodes.isqrt()) }
        }
        _ => {
            return Err(SpecError::UnknownGenerator { spec: text.to_owned(), name: name.to_owned() });
        }
    })
}

/// Refuses shapes whose parameters are each in bounds but make too large, or too small, a graph together.
fn check_size(text: &str, size: &str, shape: Shape) -> Result<(), SpecError> {
    let (nodes, channels) = (shape.nodes(), shape.channels_expected());
    if (2..=NODES_MAX).contains(&nodes) && channels <= CHANNELS_MAX {
        return Ok(());
    }
    let name = if matches!(shape, Shape::Grid { .. }) { "WxH" } else { "N" };
    let expected = format!(
        "such that there are 2 to {NODES_MAX} nodes and at most {CHANNELS_MAX} channels ({nodes} nodes and {channels} \
         channels here)"
    );
    Err(SpecError::BadValue { spec: text.to_owned(), name, value: size.to_owned(), expected })
}

fn parse_economy(parameters: &mut Parameters<'_>, text: &str, shape: Shape) -> Result<Economy, SpecError> {
    let stated = parameters.take("economy");
    let mainnet = match stated {
        None => matches!(shape, Shape::Hub { .. }) && parameters.peek("capacity").is_none(),
        Some("flat") => false,
        Some("mainnet") => true,
        Some(value) => {
            return Err(SpecError::BadValue {
                spec: text.to_owned(),
                name: "economy",
                value: value.to_owned(),
                expected: "flat or mainnet".to_owned(),
            });
        }
    };
    if mainnet {
        return Ok(Economy::Mainnet);
    }
    let capacity = match parameters.take("capacity") {
        None => Economy::CAPACITY_DEFAULT,
        Some(value) => {
            let (least, most) = (Economy::CAPACITY_MIN.0 as usize, Economy::CAPACITY_MAX.0 as usize);
            Sat(parse_count(text, "capacity", value, least..=most)? as u64)
        }
    };
    Ok(Economy::Flat { capacity })
}

fn parse_count(
    text: &str,
    name: &'static str,
    value: &str,
    bounds: std::ops::RangeInclusive<usize>,
) -> Result<usize, SpecError> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let count = if digits { value.parse().ok() } else { None };
    count.filter(|count| bounds.contains(count)).ok_or_else(|| SpecError::BadValue {
        spec: text.to_owned(),
        name,
        value: value.to_owned(),
        expected: match *bounds.end() {
            usize::MAX => format!("a whole number of at least {}", bounds.start()),
            end => format!("a whole number from {} to {end}", bounds.start()),
        },
    })
}

fn parse_probability(text: &str, value: &str) -> Result<Millionths, SpecError> {
    Millionths::parse(value).ok_or_else(|| SpecError::BadValue {
        spec: text.to_owned(),
        name: "p",
        value: value.to_owned(),
        expected: "a number from 0 to 1 with at most six decimals".to_owned(),
    })
}

/// The `name:value` parts of a spec not yet taken, in order.
struct Parameters<'t>(Vec<(&'t str, &'t str)>);

impl<'t> Parameters<'t> {
    fn split(text: &'t str) -> Result<Parameters<'t>, SpecError> {
        let parts = text.split(',').map(|part| {
            let malformed = || SpecError::Malformed { spec: text.to_owned(), part: part.to_owned() };
            part.split_once(':').ok_or_else(malformed)
        });
        Ok(Parameters(parts.collect::<Result<_, _>>()?))
    }

    fn peek(&self, name: &str) -> Option<&'t str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| *value)
    }

    fn take(&mut self, name: &str) -> Option<&'t str> {
        let at = self.0.iter().position(|(known, _)| *known == name)?;
        Some(self.0.remove(at).1)
    }

    fn need(&mut self, text: &str, name: &'static str) -> Result<&'t str, SpecError> {
        self.take(name).ok_or_else(|| SpecError::Missing { spec: text.to_owned(), name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        text.parse::<Spec>().expect_err(text).to_string()
    }

    #[test]
    fn every_form_parses_and_prints_in_full() {
        for (text, canonical) in [
            ("line:2", "line:2,economy:flat,capacity:5000000"),
            ("ring:3,capacity:20000", "ring:3,economy:flat,capacity:20000"),
            ("star:9,economy:mainnet", "star:9,economy:mainnet"),
            ("grid:4x3", "grid:4x3,economy:flat,capacity:5000000"),
            ("tree:7", "tree:7,branch:2,economy:flat,capacity:5000000"),
            ("tree:7,branch:3", "tree:7,branch:3,economy:flat,capacity:5000000"),
            ("complete:5", "complete:5,economy:flat,capacity:5000000"),
            ("er:20,p:0.15", "er:20,p:0.15,economy:flat,capacity:5000000"),
            ("ws:20,p:1,k:4", "ws:20,k:4,p:1,economy:flat,capacity:5000000"),
            ("ba:20,m:2", "ba:20,m:2,economy:flat,capacity:5000000"),
            ("hub:30", "hub:30,hubs:5,economy:mainnet"),
            ("hub:30,hubs:3,economy:flat", "hub:30,hubs:3,economy:flat,capacity:5000000"),
            ("file:/tmp/a,b:c.json", "file:/tmp/a,b:c.json"),
            ("file:graph.json.gz,core:40", "file:graph.json.gz,core:40"),
            ("file:x,core:2.json", "file:x,core:2.json"),
            ("file:x,core:2.json,core:3", "file:x,core:2.json,core:3"),
        ] {
            let spec: Spec = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(spec.to_string(), canonical);
            assert_eq!(canonical.parse::<Spec>().as_ref(), Ok(&spec), "{canonical}");
        }
    }

    #[test]
    fn errors_name_what_is_wrong_in_one_line() {
        for (text, part) in [
            ("", "`` is not of the form"),
            ("mesh:9", "there is no generator `mesh`; use line:N, ring:N"),
            ("line", "`line` is not of the form"),
            ("line:1", "`N` must be a whole number from 2 to 1000000, not `1`"),
            ("line:+5", "not `+5`"),
            ("line:99999999999999999999999", "`N` must be"),
            ("line:5,m:3", "`m` does not belong here"),
            ("line:5,capacity:1", "`capacity` must be a whole number from 20000 to"),
            ("line:5,economy:mainnet,capacity:20000", "`capacity` does not belong here"),
            ("line:5,economy:rich", "`economy` must be flat or mainnet"),
            ("grid:4", "`WxH` must be two numbers"),
            ("grid:1x1", "`WxH` must be such that there are 2 to"),
            ("grid:99999x99999", "`WxH` must be such that"),
            ("complete:5000", "at most 5000000 channels"),
            ("er:5", "`p` is missing"),
            ("er:5,p:1.5", "`p` must be a number from 0 to 1"),
            ("ws:9,k:3,p:0", "`k` must be even"),
            ("ws:9,k:9,p:0", "`k` must be a whole number from 2 to 8"),
            ("ba:5,m:5", "`m` must be a whole number from 1 to 4"),
            ("hub:5,hubs:6", "`hubs` must be"),
            ("hub:5,hubs:2,hubs:2", "`hubs` does not belong here"),
            ("file:", "`PATH` is missing"),
            ("file:x,core:1", "`core` must be a whole number of at least 2"),
        ] {
            let message = error(text);
            assert!(message.contains(part), "{text}: {message}");
            assert!(!message.contains('\n'), "{message}");
        }
    }
}
