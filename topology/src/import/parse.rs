//! The parser behind the import: visitors that turn `describegraph` JSON into nodes and channels as it streams by.
//!
//! Does not open files or decompress. Invariant: whenever it stops the parser over a value, it has noted the fault with
//! its key first, and `element` names the node or channel it was at.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use fulmen_wire::units::{CltvDelta, Msat, NodeId, Sat, Scid};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::import::{Element, ImportError, Place};
use crate::model::{Channel, InboundFee, Label, PartialPolicy};

/// The nodes and channels read so far.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) labels: Vec<Label>,
    /// The labels' places; only ever looked up, so its order is never seen.
    places: HashMap<Label, usize>,
    pub(super) channels: Vec<Channel>,
    element: Element,
    fault: Option<Fault>,
}

/// The error, set just before the parser is stopped.
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

    /// Combines the parser's error with the one that stopped it.
    pub(super) fn explain(&mut self, error: serde_json::Error, file: &str) -> ImportError {
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
pub(super) struct GraphSeed<'r>(pub(super) &'r mut Reading);

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
    ChannelId,
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
    InboundFeeBaseMsat,
    InboundFeeRateMilliMsat,
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
        let (mut one, mut two, mut capacity, mut scid) = (None, None, None, None);
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
                Key::ChannelId => {
                    scid = map.next_value_seed(scalar(reading, "channel_id", SCID, parse_scid))?;
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
        let stated = capacity.filter(|capacity| *capacity > Sat(0));
        reading.channels.push(Channel {
            nodes,
            scid: scid.filter(|scid| *scid != Scid(0)),
            capacity: stated.unwrap_or_else(|| Channel::least_capacity(&policies)),
            is_capacity_stated: stated.is_some(),
            policies,
        });
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
        let mut inbound = InboundFee::default();
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
                Key::InboundFeeBaseMsat => {
                    let read = scalar(self.0, "inbound_fee_base_msat", SIGNED_BITS, parse_number::<i32>);
                    inbound.base_msat = map.next_value_seed(read)?.unwrap_or(0);
                }
                Key::InboundFeeRateMilliMsat => {
                    let read =
                        scalar(self.0, "inbound_fee_rate_milli_msat", SIGNED_BITS, parse_number::<i32>);
                    inbound.proportional_millionths = map.next_value_seed(read)?.unwrap_or(0);
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        policy.inbound = Some(inbound).filter(|fee| *fee != InboundFee::default());
        Ok(Some(policy))
    }
}

const LABEL: &str =
    "a public key: 66 hexadecimal digits that begin with 02 or 03 (or # and a generated node's number)";
const CAPACITY: &str = "an amount from 0 to 2100000000000000 sat";
const SIXTY_FOUR_BITS: &str = "a whole number of 64 bits";
const SIXTEEN_BITS: &str = "a whole number of 16 bits";
const THIRTY_TWO_BITS: &str = "a whole number of 32 bits";
const SIGNED_BITS: &str = "a whole number of 32 bits, which may be negative";
const SCID: &str = "a channel id: a whole number of 64 bits, or BLOCKxTRANSACTIONxOUTPUT";

pub(super) fn parse_label(text: &str) -> Option<Label> {
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

/// Reads a short channel id as lnd writes it, or as BOLT 7 does: `812345x2101x1`.
fn parse_scid(text: &str) -> Option<Scid> {
    if !text.contains('x') {
        return parse_number(text).map(Scid);
    }
    let mut parts = text.split('x');
    let (block, transaction) = (parse_number(parts.next()?)?, parse_number(parts.next()?)?);
    let scid = Scid::new(block, transaction, parse_number(parts.next()?)?)?;
    parts.next().is_none().then_some(scid)
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
