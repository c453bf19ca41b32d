//! Import of channel graphs in the shape of lnd's `describegraph` JSON, plain or compressed with gzip.
//!
//! Reads `nodes[].pub_key` and of each of `edges[]` `node1_pub`, `node2_pub`, `capacity`, `node1_policy` and
//! `node2_policy`, and ignores every other key. `node1_policy` governs the direction that leaves `node1_pub`. Numbers may
//! be decimal strings or numbers. A policy that is `null` or has no key is absent, and so is each term of one. A node
//! that only an edge names is taken in with it.
//!
//! The input is read as a stream: no more of it is held than the topology it becomes. Every error says where it is.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use flate2::bufread::MultiGzDecoder;
use fulmen_wire::units::{CltvDelta, Msat, NodeId, Sat};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use crate::model::{Channel, Label, ModelError, PartialPolicy, Topology};

/// A place in an imported file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file, or what was read instead of one.
    pub file: String,
    /// The line, from one, of the text (not of its compressed form).
    pub line: usize,
    /// The column, from one.
    pub column: usize,
    /// The node or channel being read.
    pub element: Element,
}

/// What part of a graph is being read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Element {
    /// Neither a node nor a channel.
    #[default]
    Graph,
    /// The node at this index of `nodes`.
    Node(usize),
    /// The channel at this index of `edges`.
    Channel(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, line {}, column {}", self.file, self.line, self.column)?;
        match self.element {
            Element::Graph => Ok(()),
            Element::Node(index) => write!(f, ", node {index}"),
            Element::Channel(index) => write!(f, ", channel {index}"),
        }
    }
}

/// Why a file is no channel graph.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The file cannot be opened.
    #[error("{}: cannot be opened: {source}; give the path of a describegraph JSON, plain or .gz", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file cannot be read to its end, or is not valid gzip.
    #[error("{file}: cannot be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// The text is not JSON, ends early, or goes on after its end.
    #[error("{place}: not valid JSON: {cause}")]
    Syntax {
        /// Where.
        place: Place,
        /// The parser's words.
        cause: String,
    },
    /// The JSON does not have the shape of a channel graph.
    #[error("{place}: not a describegraph: {cause}")]
    Shape {
        /// Where.
        place: Place,
        /// The parser's words.
        cause: String,
    },
    /// A value is not what its key calls for.
    #[error("{place}: `{key}` must be {expected}, not {value}")]
    Value {
        /// Where.
        place: Place,
        /// The key.
        key: &'static str,
        /// The value, shortened when long.
        value: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A key that cannot be done without is missing.
    #[error("{place}: `{key}` is missing")]
    Missing {
        /// Where.
        place: Place,
        /// The key.
        key: &'static str,
    },
    /// There are no channels.
    #[error("{file}: the graph has no channels")]
    Empty {
        /// The file.
        file: String,
    },
    /// Nodes and channels do not fit together.
    #[error("{file}: {source}")]
    Model {
        /// The file.
        file: String,
        /// What does not fit.
        source: ModelError,
    },
}

/// Imports a file.
///
/// # Errors
/// When it cannot be read, or is no channel graph.
pub fn import(path: &Path) -> Result<Topology, ImportError> {
    let file = File::open(path).map_err(|source| ImportError::Open { path: path.to_owned(), source })?;
    read(file, &path.display().to_string())
}

/// Imports what `input` yields; `file` names it in errors.
///
/// # Errors
/// When it cannot be read, or is no channel graph.
pub fn read(input: impl Read, file: &str) -> Result<Topology, ImportError> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let start = input.fill_buf().map_err(|source| ImportError::Read { file: file.to_owned(), source })?;
    if start.starts_with(&GZIP_MAGIC) {
        read_text(BufReader::with_capacity(1 << 16, MultiGzDecoder::new(input)), file)
    } else {
        read_text(input, file)
    }
}

/// What a gzip stream begins with (RFC 1952).
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

fn read_text(input: impl Read, file: &str) -> Result<Topology, ImportError> {
    let mut reading = Reading::default();
    let mut parser = serde_json::Deserializer::from_reader(input);
    let parsed = GraphSeed(&mut reading).deserialize(&mut parser).and_then(|()| parser.end());
    if let Err(error) = parsed {
        return Err(reading.explain(error, file));
    }
    if reading.channels.is_empty() {
        return Err(ImportError::Empty { file: file.to_owned() });
    }
    let topology = Topology::new(reading.labels, reading.channels);
    topology.map_err(|source| ImportError::Model { file: file.to_owned(), source })
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    labels: Vec<Label>,
    /// The labels' places; only ever looked up, so its order is never seen.
    places: HashMap<Label, usize>,
    channels: Vec<Channel>,
    element: Element,
    fault: Option<Fault>,
}

/// What was wrong, set just before the parser is told to stop.
enum Fault {
    Value { key: &'static str, value: String, expected: &'static str },
    Missing { key: &'static str },
}

impl Reading {
    fn intern(&mut self, label: Label) -> usize {
        *self.places.entry(label).or_insert_with(|| {
            self.labels.push(label);
            self.labels.len() - 1
        })
    }

    fn missing<E: serde::de::Error>(&mut self, key: &'static str) -> E {
        self.fault = Some(Fault::Missing { key });
        E::custom("missing key")
    }

    fn explain(&mut self, error: serde_json::Error, file: &str) -> ImportError {
        let place = Place {
            file: file.to_owned(),
            line: error.line(),
            column: error.column(),
            element: self.element,
        };
        let cause = error.to_string();
        let position = format!(" at line {} column {}", place.line, place.column);
        let cause = cause.strip_suffix(&position).unwrap_or(&cause).to_owned();
        match self.fault.take() {
            Some(Fault::Value { key, value, expected }) => ImportError::Value { place, key, value, expected },
            Some(Fault::Missing { key }) => ImportError::Missing { place, key },
            None if error.is_io() => ImportError::Read { file: file.to_owned(), source: error.into() },
            None if error.is_data() => ImportError::Shape { place, cause },
            None => ImportError::Syntax { place, cause },
        }
    }
}

/// The whole graph.
struct GraphSeed<'r>(&'r mut Reading);

impl<'de> DeserializeSeed<'de> for GraphSeed<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for GraphSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `nodes` and `edges`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen = [false; 2];
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Nodes => map.next_value_seed(ListSeed { reading: self.0, of: NodeSeed })?,
                Key::Edges => map.next_value_seed(ListSeed { reading: self.0, of: EdgeSeed })?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            self.0.element = Element::Graph;
            seen[0] |= key == Key::Nodes;
            seen[1] |= key == Key::Edges;
        }
        match seen {
            [false, _] => Err(self.0.missing("nodes")),
            [_, false] => Err(self.0.missing("edges")),
            _ => Ok(()),
        }
    }
}

/// The keys that mean something somewhere.
#[derive(Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Key {
    Nodes,
    Edges,
    #[serde(rename = "pub_key")]
    Pubkey,
    #[serde(rename = "node1_pub")]
    NodeOnePub,
    #[serde(rename = "node2_pub")]
    NodeTwoPub,
    Capacity,
    #[serde(rename = "node1_policy")]
    NodeOnePolicy,
    #[serde(rename = "node2_policy")]
    NodeTwoPolicy,
    TimeLockDelta,
    MinHtlc,
    FeeBaseMsat,
    FeeRateMilliMsat,
    Disabled,
    MaxHtlcMsat,
    #[serde(other)]
    Other,
}

/// How one element of a list is read.
trait ElementSeed: Copy {
    fn element(self, index: usize) -> Element;
    fn read<'de, A: MapAccess<'de>>(self, reading: &mut Reading, map: A) -> Result<(), A::Error>;
}

/// A list of nodes or channels.
struct ListSeed<'r, S> {
    reading: &'r mut Reading,
    of: S,
}

impl<'de, S: ElementSeed> DeserializeSeed<'de> for ListSeed<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_seq(self)
    }
}

impl<'de, S: ElementSeed> Visitor<'de> for ListSeed<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let ListSeed { reading, of } = self;
        let mut index = 0;
        loop {
            reading.element = of.element(index);
            let Some(()) = list.next_element_seed(ObjectSeed { reading, of })? else { return Ok(()) };
            index += 1;
        }
    }
}

/// One node or channel.
struct ObjectSeed<'r, S> {
    reading: &'r mut Reading,
    of: S,
}

impl<'de, S: ElementSeed> DeserializeSeed<'de> for ObjectSeed<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<(), D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de, S: ElementSeed> Visitor<'de> for ObjectSeed<'_, S> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        self.of.read(self.reading, map)
    }
}

#[derive(Clone, Copy)]
struct NodeSeed;

impl ElementSeed for NodeSeed {
    fn element(self, index: usize) -> Element {
        Element::Node(index)
    }

    fn read<'de, A: MapAccess<'de>>(self, reading: &mut Reading, mut map: A) -> Result<(), A::Error> {
        let mut label = None;
        while let Some(key) = map.next_key::<Key>()? {
            if key == Key::Pubkey {
                label = map.next_value_seed(scalar(reading, "pub_key", LABEL, parse_label))?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        let label = label.ok_or_else(|| reading.missing("pub_key"))?;
        reading.intern(label);
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct EdgeSeed;

impl ElementSeed for EdgeSeed {
    fn element(self, index: usize) -> Element {
        Element::Channel(index)
    }

    fn read<'de, A: MapAccess<'de>>(self, reading: &mut Reading, mut map: A) -> Result<(), A::Error> {
        let (mut one, mut two, mut capacity) = (None, None, None);
        let mut policies = [None; 2];
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::NodeOnePub => {
                    one = map.next_value_seed(scalar(reading, "node1_pub", LABEL, parse_label))?
                }
                Key::NodeTwoPub => {
                    two = map.next_value_seed(scalar(reading, "node2_pub", LABEL, parse_label))?
                }
                Key::Capacity => {
                    capacity = map.next_value_seed(scalar(reading, "capacity", CAPACITY, parse_capacity))?;
                }
                Key::NodeOnePolicy => policies[0] = map.next_value_seed(PolicySeed(reading))?,
                Key::NodeTwoPolicy => policies[1] = map.next_value_seed(PolicySeed(reading))?,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        let one = one.ok_or_else(|| reading.missing("node1_pub"))?;
        let two = two.ok_or_else(|| reading.missing("node2_pub"))?;
        let capacity = capacity.ok_or_else(|| reading.missing("capacity"))?;
        if one == two {
            let fault = Fault::Value {
                key: "node2_pub",
                value: two.to_string(),
                expected: "another node than node1_pub",
            };
            reading.fault = Some(fault);
            return Err(A::Error::custom("a channel to itself"));
        }
        let nodes = [reading.intern(one), reading.intern(two)];
        reading.channels.push(Channel { nodes, capacity, policies });
        Ok(())
    }
}

/// A direction's policy, or `null`.
struct PolicySeed<'r>(&'r mut Reading);

impl<'de> DeserializeSeed<'de> for PolicySeed<'_> {
    type Value = Option<PartialPolicy>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for PolicySeed<'_> {
    type Value = Option<PartialPolicy>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a policy or null")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut policy = PartialPolicy::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::TimeLockDelta => {
                    let read = scalar(self.0, "time_lock_delta", SIXTEEN_BITS, parse_number::<u16>);
                    policy.cltv_expiry_delta = map.next_value_seed(read)?.map(CltvDelta);
                }
                Key::MinHtlc => {
                    let read = scalar(self.0, "min_htlc", SIXTY_FOUR_BITS, parse_number::<u64>);
                    policy.htlc_minimum = map.next_value_seed(read)?.map(Msat);
                }
                Key::MaxHtlcMsat => {
                    let read = scalar(self.0, "max_htlc_msat", SIXTY_FOUR_BITS, parse_number::<u64>);
                    policy.htlc_maximum = map.next_value_seed(read)?.map(Msat);
                }
                Key::FeeBaseMsat => {
                    let read = scalar(self.0, "fee_base_msat", THIRTY_TWO_BITS, parse_number::<u32>);
                    policy.fee_base = map.next_value_seed(read)?.map(|base| Msat(base.into()));
                }
                Key::FeeRateMilliMsat => {
                    let read = scalar(self.0, "fee_rate_milli_msat", THIRTY_TWO_BITS, parse_number::<u32>);
                    policy.fee_proportional_millionths = map.next_value_seed(read)?;
                }
                Key::Disabled => {
                    let read = scalar(self.0, "disabled", "true or false", parse_bool);
                    policy.disabled = map.next_value_seed(read)?;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(Some(policy))
    }
}

const LABEL: &str =
    "a public key: 66 hexadecimal digits that begin with 02 or 03 (or # and a generated node's number)";
const CAPACITY: &str = "an amount from 0 to 2100000000000000 sat";
const SIXTY_FOUR_BITS: &str = "a whole number of 64 bits";
const SIXTEEN_BITS: &str = "a whole number of 16 bits";
const THIRTY_TWO_BITS: &str = "a whole number of 32 bits";

fn parse_label(text: &str) -> Option<Label> {
    if let Some(number) = text.strip_prefix('#') {
        return parse_number(number).map(Label::Number);
    }
    let mut key = [0; 33];
    hex::decode_to_slice(text, &mut key).ok()?;
    matches!(key[0], 2 | 3).then_some(Label::Key(NodeId(key)))
}

fn parse_capacity(text: &str) -> Option<Sat> {
    parse_number(text).map(Sat).filter(|capacity| *capacity <= Msat::MAX_MONEY.floor_sat())
}

/// Reads decimal digits alone: Rust's own parser would also take a plus sign.
fn parse_number<T: FromStr>(text: &str) -> Option<T> {
    if text.starts_with('+') { None } else { text.parse().ok() }
}

fn parse_bool(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn scalar<'r, P>(
    reading: &'r mut Reading,
    key: &'static str,
    expected: &'static str,
    parse: P,
) -> ScalarSeed<'r, P> {
    ScalarSeed { reading, key, expected, parse }
}

/// A single value, read from its text whether it is a string, a number or a bool; `None` when it is `null`.
struct ScalarSeed<'r, P> {
    reading: &'r mut Reading,
    key: &'static str,
    expected: &'static str,
    parse: P,
}

impl<T, P: Fn(&str) -> Option<T>> ScalarSeed<'_, P> {
    fn parse<E: serde::de::Error>(self, text: &str) -> Result<Option<T>, E> {
        let value = (self.parse)(text);
        if value.is_none() {
            let mut shown: String = text.chars().take(80).collect();
            if shown.len() < text.len() {
                shown.push('…');
            }
            self.reading.fault =
                Some(Fault::Value { key: self.key, value: format!("{shown:?}"), expected: self.expected });
            return Err(E::custom("bad value"));
        }
        Ok(value)
    }
}

impl<'de, T, P: Fn(&str) -> Option<T>> DeserializeSeed<'de> for ScalarSeed<'_, P> {
    type Value = Option<T>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_any(self)
    }
}

impl<'de, T, P: Fn(&str) -> Option<T>> Visitor<'de> for ScalarSeed<'_, P> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` to be {}", self.key, self.expected)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Self::Value, E> {
        self.parse(if value { "true" } else { "false" })
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Self::Value, E> {
        self.parse(&value.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Self::Value, E> {
        self.parse(&value.to_string())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
        self.parse(&format!("{value:?}"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Self::Value, E> {
        self.parse(value)
    }
}

#[cfg(test)]
#[path = "import_tests.rs"]
mod tests;
