//! Export of topologies: JSON in the shape of lnd's `describegraph`, and Graphviz.
//!
//! Invariant: importing an exported JSON gives the same topology again. Absent values stay absent: a missing
//! policy is `null`, a missing term or channel id has no key, a capacity that the source did not state is 0, and a
//! generated node's `pub_key` is its number (`#17`), since it has no key.

use std::io::{self, Write};

use fulmen_wire::units::Msat;
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};

use crate::model::{Channel, Label, PartialPolicy, Topology};

impl Topology {
    /// Writes the topology as JSON, one node or channel a line.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write_json(&self, mut out: impl Write) -> io::Result<()> {
        out.write_all(b"{\"nodes\":[")?;
        for (index, label) in self.nodes().iter().enumerate() {
            out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut out, &Node { pub_key: label.to_string() })?;
        }
        out.write_all(b"\n],\"edges\":[")?;
        for (index, channel) in self.channels().iter().enumerate() {
            out.write_all(if index == 0 { b"\n" } else { b",\n" })?;
            serde_json::to_writer(&mut out, &self.edge(channel))?;
        }
        out.write_all(b"\n]}\n")
    }

    /// Writes the topology as an undirected Graphviz graph. A channel's width grows with its capacity; it is dashed
    /// when payments cannot be forwarded both ways.
    ///
    /// # Errors
    /// When writing fails.
    pub fn write_dot(&self, mut out: impl Write) -> io::Result<()> {
        writeln!(out, "graph topology {{\n  node [shape=circle];")?;
        for (index, label) in self.nodes().iter().enumerate() {
            let text = match label {
                Label::Number(number) => number.to_string(),
                Label::Key(key) => format!("{key:.8}").chars().take(8).collect(),
            };
            writeln!(out, "  n{index} [label=\"{text}\", tooltip=\"{label}\"];")?;
        }
        for channel in self.channels() {
            let [one, two] = channel.nodes;
            let style = if channel.enabled_both_ways() { "solid" } else { "dashed" };
            // One more unit of width for each factor of ten in capacity from 100,000 sat on.
            let width = channel.capacity.0.checked_ilog10().unwrap_or(0).saturating_sub(4).max(1);
            writeln!(
                out,
                "  n{one} -- n{two} [tooltip=\"{}\", style={style}, penwidth={width}];",
                channel.capacity
            )?;
        }
        writeln!(out, "}}")
    }

    /// The SHA-256 of the JSON: equal exactly for equal topologies.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Hash(Sha256::new());
        self.write_json(&mut hash).expect("hashing does not fail");
        hash.0.finalize().into()
    }

    fn edge(&self, channel: &Channel) -> Edge {
        let [one, two] = channel.nodes.map(|node| self.nodes()[node].to_string());
        let [of_one, of_two] = channel.policies.map(|policy| policy.map(Policy::from));
        let capacity = if channel.is_capacity_stated { channel.capacity.0 } else { 0 };
        Edge {
            channel_id: channel.scid.map(|scid| Decimal(scid.0)),
            node1_pub: one,
            node2_pub: two,
            capacity: capacity.to_string(),
            node1_policy: of_one,
            node2_policy: of_two,
        }
    }
}

#[derive(Serialize)]
struct Node {
    pub_key: String,
}

#[derive(Serialize)]
struct Edge {
    #[serde(skip_serializing_if = "Option::is_none")]
    channel_id: Option<Decimal>,
    node1_pub: String,
    node2_pub: String,
    capacity: String,
    node1_policy: Option<Policy>,
    node2_policy: Option<Policy>,
}

/// A policy under lnd's names for its terms.
#[derive(Serialize)]
struct Policy {
    #[serde(skip_serializing_if = "Option::is_none")]
    time_lock_delta: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    min_htlc: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee_base_msat: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fee_rate_milli_msat: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_htlc_msat: Option<Decimal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inbound_fee_base_msat: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    inbound_fee_rate_milli_msat: Option<i32>,
}

impl From<PartialPolicy> for Policy {
    fn from(policy: PartialPolicy) -> Policy {
        let msat = |amount: Msat| Decimal(amount.0);
        Policy {
            time_lock_delta: policy.cltv_expiry_delta.map(|delta| delta.0),
            min_htlc: policy.htlc_minimum.map(msat),
            fee_base_msat: policy.fee_base.map(msat),
            fee_rate_milli_msat: policy
                .fee_proportional_millionths
                .map(|millionths| Decimal(millionths.into())),
            disabled: policy.disabled,
            max_htlc_msat: policy.htlc_maximum.map(msat),
            inbound_fee_base_msat: policy.inbound.map(|fee| fee.base_msat),
            inbound_fee_rate_milli_msat: policy.inbound.map(|fee| fee.proportional_millionths),
        }
    }
}

/// A 64-bit number as a string, since many readers of JSON would round it.
struct Decimal(u64);

impl Serialize for Decimal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A writer into a hash.
struct Hash(Sha256);

impl Write for Hash {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::read;
    use crate::model::InboundFee;
    use fulmen_wire::units::{CltvDelta, NodeId, Sat, Scid};
    use proptest::option::of;
    use proptest::prelude::*;

    fn policies() -> impl Strategy<Value = Option<PartialPolicy>> {
        let terms = (
            of(any::<u32>()),
            of(any::<u32>()),
            of(any::<u16>()),
            of(any::<u64>()),
            of(any::<u64>()),
            any::<Option<bool>>(),
            of((any::<i32>(), any::<i32>())),
        );
        of(terms.prop_map(|(base, millionths, delta, minimum, maximum, disabled, inbound)| PartialPolicy {
            fee_base: base.map(|base| Msat(base.into())),
            fee_proportional_millionths: millionths,
            cltv_expiry_delta: delta.map(CltvDelta),
            htlc_minimum: minimum.map(Msat),
            htlc_maximum: maximum.map(Msat),
            disabled,
            inbound: inbound.filter(|fee| *fee != (0, 0)).map(|(base_msat, proportional_millionths)| {
                InboundFee { base_msat, proportional_millionths }
            }),
        }))
    }

    fn topologies() -> impl Strategy<Value = Topology> {
        let channel = (0..6_usize, 0..5_usize, 0..=2_100_000_000_000_000_u64, policies(), policies());
        (prop::collection::vec(channel, 1..12), any::<bool>()).prop_map(|(channels, keyed)| {
            let label = |number: u8| {
                let mut key = [number; 33];
                key[0] = 2 + number % 2;
                if keyed { Label::Key(NodeId(key)) } else { Label::Number(number.into()) }
            };
            let numbered = channels.into_iter().enumerate();
            let channels = numbered.map(|(index, (one, step, capacity, of_one, of_two))| {
                let policies = [of_one, of_two];
                let stated = Sat(capacity.saturating_sub(1 << 40));
                Channel {
                    nodes: [one, (one + 1 + step) % 6],
                    scid: (index % 3 > 0).then_some(Scid(u64::MAX - index as u64)),
                    capacity: if stated == Sat(0) { Channel::least_capacity(&policies) } else { stated },
                    is_capacity_stated: stated > Sat(0),
                    policies,
                }
            });
            Topology::new((0..6).map(label).collect(), channels.collect()).expect("valid")
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        #[test]
        fn json_is_read_back_as_it_was(topology in topologies()) {
            let mut json = Vec::new();
            topology.write_json(&mut json).expect("written");
            let again = read(&json[..], "exported").expect("readable");
            prop_assert_eq!(again.digest(), topology.digest());
            prop_assert_eq!(again, topology);
        }
    }

    #[test]
    fn graphviz_names_each_node_and_channel_once() {
        let topology = "ring:4".parse::<crate::Spec>().expect("valid").build(1).expect("built");
        let mut dot = Vec::new();
        topology.write_dot(&mut dot).expect("written");
        let dot = String::from_utf8(dot).expect("text");
        assert_eq!(dot.matches(" -- ").count(), 4);
        assert_eq!(dot.matches("label=").count(), 4);
        assert!(dot.starts_with("graph topology {\n") && dot.ends_with("}\n"), "{dot}");
    }
}
