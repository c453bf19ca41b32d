//! The shadow offset: blocks added to the payee's final expiry, so that the nodes before it cannot infer from the
//! remaining blocks how near the payee is (BOLT 7, "Recommendations for Routing").
//!
//! The offset is the sum of the `cltv_expiry_delta`s of a random walk that starts at the payee, over channels that
//! could continue the route. It is added to [`super::Query::final_cltv_delta`] before the search, so that every limit
//! covers it. The caller provides the randomness.

use fulmen_wire::units::{CltvDelta, NodeId};

use crate::snapshot::Snapshot;

/// The most channels of a walk.
pub const SHADOW_HOPS_MAX: usize = 3;

/// Draws the offset for a payment to `payee`: at most `blocks_max`, and zero when the payee has no usable channel.
/// The same `entropy` gives the same offset on the same graph.
#[must_use]
pub fn shadow_offset(graph: &Snapshot, payee: NodeId, blocks_max: CltvDelta, entropy: u64) -> CltvDelta {
    let Some(mut at) = graph.node_index(payee) else { return CltvDelta(0) };
    let mut state = entropy;
    let hops = 1 + draw(&mut state, SHADOW_HOPS_MAX as u64);
    let (mut offset, mut came_by) = (0_u16, None);
    for _ in 0..hops {
        let open = |edge: &u32| graph.edge(*edge).enabled() && Some(graph.reverse(*edge)) != came_by;
        let ways = graph.incoming(at).map(|edge| graph.reverse(edge)).filter(open);
        let count = ways.clone().count() as u64;
        let Some(edge) =
            (count > 0).then(|| draw(&mut state, count) as usize).and_then(|nth| ways.clone().nth(nth))
        else {
            break;
        };
        match offset.checked_add(graph.edge(edge).cltv_expiry_delta) {
            Some(longer) if longer <= blocks_max.0 => offset = longer,
            _ => break,
        }
        came_by = Some(edge);
        at = graph.target(edge);
    }
    CltvDelta(offset)
}

/// A number below `bound` (SplitMix64). The numbers need only differ from payment to payment.
fn draw(state: &mut u64, bound: u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^= mixed >> 31;
    ((u128::from(mixed) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use fulmen_wire::units::{Msat, Sat, Scid};

    use super::*;
    use crate::graph::{ChannelGraph, Policy};

    fn node(tag: u8) -> NodeId {
        NodeId([tag; 33])
    }

    /// From each node to the next, with deltas 10, 20, 40, 80.
    fn line() -> Snapshot {
        let mut graph = ChannelGraph::new();
        for (at, delta) in [(1, 10), (2, 20), (3, 40), (4, 80)] {
            graph.add_channel(Scid(u64::from(at)), [node(at), node(at + 1)], Sat(1000)).unwrap();
            let policy = Policy {
                fee_base: Msat(0),
                fee_proportional_millionths: 0,
                cltv_expiry_delta: CltvDelta(delta),
                htlc_minimum: Msat(0),
                htlc_maximum: Msat(1000),
                disabled: false,
            };
            graph.set_policy(Scid(u64::from(at)), node(at), Some(policy)).unwrap();
        }
        Snapshot::new(&graph)
    }

    #[test]
    fn offsets_are_walks_within_the_bound() {
        let graph = line();
        let drawn = |payee, most| -> std::collections::BTreeSet<u16> {
            (0..200).map(|entropy| shadow_offset(&graph, node(payee), CltvDelta(most), entropy).0).collect()
        };
        assert_eq!(drawn(1, 1000), [10, 30, 70].into());
        assert_eq!(drawn(2, 1000), [20, 60, 140].into());
        assert_eq!(drawn(2, 100), [20, 60].into());
        assert_eq!(drawn(1, 5), [0].into());
        assert_eq!(drawn(5, 1000), [0].into(), "a dead end");
        assert_eq!(drawn(9, 1000), [0].into(), "an unknown node");
    }
}
