//! Seeded generators: a shape says who is joined to whom, an economy with which capacity and policies.
//!
//! Invariants: the same shape, economy and seed give the same topology on every machine and in every version, because
//! all draws are whole numbers from ChaCha20 and all order is that of node numbers; every generated topology is
//! connected; no two nodes are joined twice.

mod draw;
mod economy;
mod shape;

pub(crate) use draw::Millionths;
pub(crate) use economy::Economy;
pub(crate) use shape::Shape;

use draw::Draw;

use crate::model::{Channel, Label, Topology};

/// Generates a topology.
pub(crate) fn generate(shape: Shape, economy: Economy, seed: u64) -> Topology {
    let mut draw = Draw::new(seed);
    let edges = shape.edges(&mut draw);
    let channels = edges.into_iter().map(|edge| {
        let terms = economy.terms(&mut draw, edge.backbone);
        Channel {
            nodes: edge.nodes,
            scid: None,
            capacity: terms.capacity,
            is_capacity_stated: true,
            policies: terms.policies.map(|policy| Some(policy.into())),
        }
    });
    let channels = channels.collect();
    let labels = (0..shape.nodes() as u32).map(Label::Number).collect();
    Topology::new(labels, channels).expect("shapes join two different nodes of their own")
}

#[cfg(test)]
mod tests {
    use crate::spec::Spec;
    use proptest::prelude::*;

    const SPECS: [&str; 12] = [
        "line:9",
        "ring:9",
        "star:9",
        "grid:4x3",
        "tree:10,branch:3",
        "complete:6",
        "er:30,p:0.02",
        "ws:20,k:4,p:0.3",
        "ba:25,m:2",
        "hub:40",
        "hub:40,hubs:3,economy:flat",
        "er:12,p:0.4,economy:mainnet",
    ];

    fn build(spec: &str, seed: u64) -> crate::Topology {
        spec.parse::<Spec>().expect(spec).build(seed).expect(spec)
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reports quote seeds, so the topology of a seed may never change.
    #[test]
    fn frozen_digests() {
        let digests: Vec<String> = SPECS.iter().map(|spec| hex(&build(spec, 7).digest()[..8])).collect();
        let frozen = [
            "5cb385bacc5206c5",
            "63be080fc2a3efcf",
            "0ca0cb2cca3c5143",
            "f0a4400eefe45211",
            "c9ce4d538414cd81",
            "357208644b22230e",
            "8512ffbf6ef89f31",
            "877a721129405c93",
            "4c5d589a74925348",
            "70a5c1b563dd55e2",
            "d3c9604c18cd934a",
            "17dd9b99a44d6b76",
        ];
        assert_eq!(digests, frozen);
    }

    #[test]
    fn counts_of_the_plain_shapes() {
        for (spec, nodes, channels) in [
            ("line:9", 9, 8),
            ("ring:9", 9, 9),
            ("star:9", 9, 8),
            ("grid:4x3", 12, 17),
            ("tree:10,branch:3", 10, 9),
            ("complete:6", 6, 15),
            ("er:9,p:1", 9, 36),
            ("er:9,p:0", 9, 8),
            ("ws:20,k:4,p:0", 20, 40),
            ("ba:25,m:2", 25, 3 + 22 * 2),
            ("hub:2,hubs:1", 2, 1),
        ] {
            let topology = build(spec, 1);
            assert_eq!((topology.nodes().len(), topology.channels().len()), (nodes, channels), "{spec}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn generated_topologies_are_connected_simple_and_repeatable(seed: u64, at in 0..SPECS.len()) {
            let topology = build(SPECS[at], seed);
            prop_assert_eq!(&build(SPECS[at], seed), &topology);
            prop_assert!(topology.largest_strong_component().into_iter().all(|member| member));
            let mut pairs: Vec<_> = topology.channels().iter().map(|channel| channel.nodes).collect();
            prop_assert!(pairs.iter().all(|[one, two]| one < two));
            pairs.sort_unstable();
            pairs.dedup();
            prop_assert_eq!(pairs.len(), topology.channels().len());
            for channel in topology.channels() {
                for end in [0, 1] {
                    let policy = channel.enabled(end).expect("generated policies are complete and enabled");
                    prop_assert!(policy.htlc_minimum <= policy.htlc_maximum);
                    prop_assert!(policy.htlc_maximum < channel.capacity.to_msat());
                }
            }
        }
    }
}
